package gpu

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

const (
	slicedUUID = "GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10"
	slicedPCI  = "0000:01:00.0"
	emptyPCI   = "0000:c1:00.0"
	slice9     = "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9"
	slice2a    = "MIG-0a1b2c3d-1111-5222-8333-444455556666"
	slice2b    = "MIG-0a1b2c3d-2222-5222-8333-444455556666"
)

// A hall is a host with its agents; each row of a table changes one thing in it.
type hall struct {
	Hardware
	intents map[string]string // by agent
	given   map[string]string // AGENT_GPU of agents
}

// full is a host with a GPU of minor 2 (see healthy), one of minor 0 in three slices, one in
// none, two of AMD's and one of Intel's.
func full() *hall {
	h := &hall{Hardware: Hardware{Listed: true, Now: now}, intents: map[string]string{
		"whole": "gpu: {vendor: nvidia, devices: [{uuid: " + ownUUID + "}]}",
		"slice": "gpu: {vendor: nvidia, devices: [{mig: " + slice9 + "}]}",
		"part":  "gpu: {vendor: nvidia, devices: [{mig: " + slice2a + "}]}",
		"amd":   "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0'}]}",
		"intel": "gpu: {vendor: intel, devices: [{pci: '0000:00:02.0'}], busy: off}",
		"none":  "gpu: {vendor: none}",
	}}
	h.BootID = "5f0c3a62-7a3f-4d0b-9b0a-0c2f4c1d2e3f"
	h.Unread = map[Source]string{}
	h.Majors = healthy().Majors
	h.NVIDIA = NVIDIA{Driver: "580.159.03", GPUs: []NVIDIAGPU{
		{PCI: slicedPCI, UUID: slicedUUID, Minor: 0}, {PCI: ownPCI, UUID: ownUUID, Minor: 2}, {PCI: emptyPCI, Minor: 3},
	}}
	for _, i := range [][2]int{{2, -1}, {2, 0}, {2, 1}, {9, -1}, {9, 0}} {
		h.NVIDIA.Instances = append(h.NVIDIA.Instances, Instance{GPU: 0, GI: i[0], CI: i[1], Minor: CapMinor(0, i[0], i[1])})
	}
	h.SMI = []Listing{
		{PCI: slicedPCI, UUID: slicedUUID, Minor: 0, MIG: true, Slices: []Slice{{UUID: slice2a, GI: 2}, {UUID: slice2b, GI: 2, CI: 1}, {UUID: slice9, GI: 9}}},
		{PCI: ownPCI, UUID: ownUUID, Minor: 2},
		{PCI: emptyPCI, UUID: "GPU-99999999-8d21-4239-8e32-63449f713690", Minor: 3, MIG: true},
	}
	card := func(minor uint32, pci, driver string) {
		h.DRM = append(h.DRM, DRM{Name: "card" + string(rune('0'+minor)), Number: devnode.C(226, minor), PCI: pci, Driver: driver},
			DRM{Name: "renderD" + map[uint32]string{0: "128", 1: "129", 2: "130", 3: "131"}[minor], Number: devnode.C(226, 128+minor), PCI: pci, Driver: driver})
	}
	card(0, "0000:03:00.0", "amdgpu")
	card(1, "0000:83:00.0", "amdgpu")
	card(2, "0000:00:02.0", "i915")
	card(3, ownPCI, "nvidia")
	h.KFD.Nodes = []KFDNode{{Node: 1, GPUID: 51140, Render: 128, UniqueID: 7193870286350716105, PCI: "0000:03:00.0"}, {Node: 2, GPUID: 3421, Render: 129, PCI: "0000:83:00.0"}}
	return h
}

// parsed are the hall's intents.
func (h *hall) parsed(t *testing.T) []Intent {
	t.Helper()
	var all []Intent
	for _, agent := range slices.Sorted(maps.Keys(h.intents)) {
		text := h.intents[agent]
		i, err := ParseIntent([]byte(text))
		require.NoError(t, err, text)
		i.Agent, i.Path = agent, "/etc/"+agent+"/gpu.yml"
		if names := h.given[agent]; names != "" {
			i.Given = strings.Split(names, ",")
		}
		all = append(all, i)
	}
	return all
}

// TestResolve: what an agent's policy is.
func TestResolve(t *testing.T) {
	const inventory = `  inventory:
    - {minor: 0, uuid: GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10, pci: "0000:01:00.0"}
    - {minor: 0, uuid: MIG-0a1b2c3d-1111-5222-8333-444455556666, pci: "0000:01:00.0", gi: 2, ci: 0, agent: "part"}
    - {minor: 0, uuid: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9, pci: "0000:01:00.0", gi: 9, ci: 0, agent: "slice"}
    - {minor: 2, uuid: GPU-1b7ad372-8d21-4239-8e32-63449f713690, pci: "0000:81:00.0", agent: "whole"}
    - {minor: 3, uuid: GPU-99999999-8d21-4239-8e32-63449f713690, pci: "0000:c1:00.0"}
    - {pci: "0000:03:00.0", agent: "amd"}
    - {pci: "0000:83:00.0"}
    - {pci: "0000:00:02.0", agent: "intel"}
`
	const boot, driver = "  resolved: {boot_id: 5f0c3a62-7a3f-4d0b-9b0a-0c2f4c1d2e3f, at: 2026-11-23T12:00:00Z", ", driver: \"580.159.03\""
	for agent, want := range map[string]string{
		"whole": "gpu:\n  vendor: nvidia\n  devices:\n    - {uuid: " + ownUUID + ", pci: \"" + ownPCI + "\"}\n" + inventory + boot + driver + "}\n",
		"slice": "gpu:\n  vendor: nvidia\n  devices:\n    - {uuid: " + slicedUUID + ", mig: " + slice9 + ", pci: \"" + slicedPCI + "\", gi: 9, ci: 0}\n" + inventory + boot + driver + "}\n",
		"amd":   "gpu:\n  vendor: amd\n  devices:\n    - {pci: \"0000:03:00.0\", unique_id: 7193870286350716105}\n" + inventory + boot + "}\n",
		"intel": "gpu:\n  vendor: intel\n  devices:\n    - {pci: \"0000:00:02.0\"}\n  busy: off\n" + inventory + boot + "}\n",
		"none":  "gpu:\n  vendor: none\n" + inventory + boot + "}\n",
	} {
		h := full()
		p, err := Resolve(agent, h.parsed(t), h.Hardware)
		require.NoError(t, err, agent)
		require.Equal(t, want, p.YAML(), agent)
		again, err := ParsePolicy([]byte(p.YAML()))
		require.NoError(t, err, agent)
		require.Equal(t, p, again, agent)
	}
	h := full()
	p, err := Resolve("slice", h.parsed(t), h.Hardware)
	require.NoError(t, err)
	require.Equal(t, []string{"/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap84", "/dev/nvidia-caps/nvidia-cap85"}, h.Nodes(p.Devices[0]))
	require.Equal(t, []string{"/dev/nvidia2"}, h.Nodes(Device{PCI: ownPCI, GI: -1, CI: -1}))
	require.Equal(t, []string{"/dev/dri/by-path/pci-0000:03:00.0-render"}, h.Nodes(Device{PCI: "0000:03:00.0", GI: -1, CI: -1}))
}

// TestResolveChanged changes one thing of the host or of the intents. The agent is
// the row's first word; err is part of the error, "" where there is a policy with want in it.
func TestResolveChanged(t *testing.T) {
	intent := func(agent, text string) func(*hall) { return func(h *hall) { h.intents[agent] = text } }
	nvidia := func(agent, devices string) func(*hall) {
		return intent(agent, "gpu: {vendor: nvidia, devices: ["+devices+"]}")
	}
	type row struct {
		agent, name string
		change      func(*hall)
		want, err   string
		machine     bool
	}
	const machine, written = true, false
	for _, tt := range []row{
		// Names of a GPU.
		{"whole", "by address", nvidia("whole", "{pci: '00000000:81:00.0'}"), "uuid: " + ownUUID + `, pci: "0000:81:00.0"}`, "", false},
		{"whole", "by both", nvidia("whole", "{uuid: "+ownUUID+", pci: '"+ownPCI+"'}"), "uuid: " + ownUUID, "", false},
		{"whole", "that the driver does not know yet", func(h *hall) {
			h.NVIDIA.GPUs[1].UUID = ""
			nvidia("whole", "{uuid: "+ownUUID+"}")(h)
		}, "uuid: " + ownUUID + `, pci: "0000:81:00.0"}`, "", false},
		{"whole", "two, one divided", nvidia("whole", "{uuid: "+ownUUID+"}, {mig: "+slice2b+"}"), "gi: 2, ci: 1", "agents whole and part overlap: slice " + slice2b + " (gi2/ci1 of 0000:01:00.0) and slice " + slice2a, written},
		{"whole", "nvidia-smi did not answer", func(h *hall) { h.Listed, h.SMI = false, nil; delete(h.intents, "slice"); delete(h.intents, "part") }, "uuid: " + ownUUID, "", false},
		{"whole", "what else it says stays", intent("whole", "gpu: {vendor: nvidia, devices: [{uuid: "+ownUUID+"}], min_driver: '580.1', host: {runc: 1.3.3}, busy: deny, extra_devices: [infiniband], waivers: [{id: ns.net, reason: why not today}]}"),
			"extra_devices:\n    - infiniband\n  busy: deny\n  min_driver: \"580.1\"\n  host: {runc: \"1.3.3\"}\n", "", false},
		{"whole", "off", intent("whole", "gpu: {off: the driver is being replaced}"), "gpu:\n  off: \"the driver is being replaced\"\n", "", false},
		{"whole", "all slices of a GPU", func(h *hall) {
			nvidia("whole", "{pci: '"+slicedPCI+"'}")(h)
			delete(h.intents, "slice")
			delete(h.intents, "part")
		}, `pci: "0000:01:00.0"}`, "", false},

		// Names of a slice.
		{"slice", "by place", nvidia("slice", "{pci: '"+slicedPCI+"', gi: 9, ci: 0}"), "mig: " + slice9, "", false},
		{"slice", "by place of a GPU's UUID", nvidia("slice", "{uuid: "+slicedUUID+", gi: 9, ci: 0}"), "mig: " + slice9, "", false},
		{"slice", "with its GPU", nvidia("slice", "{mig: "+slice9+", pci: '"+slicedPCI+"', uuid: "+slicedUUID+"}"), "gi: 9, ci: 0", "", false},
		{"slice", "with all", nvidia("slice", "{mig: "+slice9+", pci: '"+slicedPCI+"', gi: 9, ci: 0}"), "gi: 9, ci: 0", "", false},
		{"slice", "two of one GPU", nvidia("slice", "{mig: "+slice9+"}, {mig: "+slice2b+"}"), "", "agents slice and part overlap", written},
		{"slice", "two of one GPU, both free", func(h *hall) {
			nvidia("slice", "{mig: "+slice9+"}, {mig: "+slice2b+"}")(h)
			delete(h.intents, "part")
		}, "gi: 9, ci: 0}\n    - {uuid: " + slicedUUID, "", false},

		// Gone.
		{"whole", "its GPU is gone", func(h *hall) { h.NVIDIA.GPUs = h.NVIDIA.GPUs[:1]; h.SMI = h.SMI[:1] }, "",
			"GPU " + ownUUID + " is not on this host, which has GPU " + slicedUUID + " at 0000:01:00.0, slice " + slice2a + " (gi2/ci0 of 0000:01:00.0) of agent part, slice " + slice2b + " (gi2/ci1 of 0000:01:00.0), slice " + slice9, machine},
		{"whole", "its GPU is gone, and nobody asked for slices' names", func(h *hall) {
			h.NVIDIA.GPUs = h.NVIDIA.GPUs[:1]
			h.SMI = []Listing{{PCI: slicedPCI, UUID: slicedUUID, MIG: true, Slices: []Slice{{GI: 9}}}}
		}, "", "slice MIG-? (gi9/ci0 of 0000:01:00.0)", machine},
		{"whole", "all are gone", func(h *hall) { h.NVIDIA.GPUs = nil; h.SMI = nil }, "", "which has no GPU with a driver of nvidia's", machine},
		{"whole", "the driver is gone", func(h *hall) { h.NVIDIA = NVIDIA{}; h.Listed, h.SMI = false, nil }, "", "which has no NVIDIA driver that is loaded", machine},
		{"whole", "a directory was not read", func(h *hall) { h.NVIDIA.GPUs = nil; h.Unread[FromNVIDIA] = "permission\x1bdenied" }, "", `not all was read: /proc/driver/nvidia: "permission\x1bdenied"`, machine},
		{"whole", "it fell off the bus", func(h *hall) { h.SMI = h.SMI[:1] }, "", "the driver shows GPU " + ownUUID + " at 0000:81:00.0, and nvidia-smi does not", machine},
		{"whole", "swapped", nvidia("whole", "{uuid: GPU-00000000-8d21-4239-8e32-63449f713690, pci: '"+ownPCI+"'}"), "", "at 0000:81:00.0 is " + ownUUID + ", and not GPU-00000000", machine},
		{"whole", "moved", nvidia("whole", "{uuid: "+ownUUID+", pci: '0000:82:00.0'}"), "", "GPU " + ownUUID + " is at 0000:81:00.0", machine},
		{"whole", "no minor", func(h *hall) { h.NVIDIA.GPUs[1].Minor = -1 }, "", "the driver does not say which device node", machine},
		{"whole", "two minors", func(h *hall) { h.SMI[1].Minor = 5 }, "", "with minor 5, and the driver " + ownUUID + " with minor 2", machine},
		{"whole", "two UUIDs", func(h *hall) { h.SMI[1].UUID = slicedUUID }, "", "nvidia-smi says that at 0000:81:00.0 is " + slicedUUID, machine},
		{"whole", "MIG without slices", nvidia("whole", "{pci: '"+emptyPCI+"'}"), "", "is in MIG mode and has no slices", machine},
		{"slice", "its slice is gone", func(h *hall) { h.SMI[0].Slices = h.SMI[0].Slices[:2] }, "",
			"slice " + slice9 + " is not on this host, which has GPU " + slicedUUID + " at 0000:01:00.0, slice " + slice2a, machine},
		{"slice", "another is in its place", nvidia("slice", "{mig: "+slice9+", gi: 7, ci: 0}"), "", "slice " + slice9 + " is gi9/ci0, and not gi7/ci0", machine},
		{"slice", "on another GPU", nvidia("slice", "{mig: "+slice9+", pci: '"+ownPCI+"'}"), "", "slice " + slice9 + " is at 0000:01:00.0 (" + slicedUUID + "), and not where the intent says", machine},
		{"slice", "on another GPU, by UUID", nvidia("slice", "{mig: "+slice9+", uuid: "+ownUUID+"}"), "", "slice " + slice9 + " is at 0000:01:00.0 (" + slicedUUID + "), and not where the intent says", machine},
		{"slice", "no such place", nvidia("slice", "{pci: '"+slicedPCI+"', gi: 8, ci: 0}"), "", "slice gi8/ci0 of the GPU at 0000:01:00.0 is not on this host", machine},
		{"slice", "MIG is off", func(h *hall) { h.SMI[0].MIG, h.SMI[0].Slices = false, nil }, "", "is not on this host", machine},
		{"slice", "no nodes for it", func(h *hall) { h.Majors = []procfs.Major{{Number: 195, Name: "nvidia"}} }, "", "the kernel knows no nvidia-caps", machine},
		{"slice", "no capability", func(h *hall) { h.NVIDIA.Instances = h.NVIDIA.Instances[:4] }, "", "and the driver has no capability gpu0/gi9/ci0", machine},
		{"slice", "no capability of the GPU instance", func(h *hall) { h.NVIDIA.Instances = append(h.NVIDIA.Instances[:3], h.NVIDIA.Instances[4]) }, "", "and the driver has no capability gpu0/gi9", machine},
		{"slice", "another table", func(h *hall) { h.NVIDIA.Table = []Instance{{GPU: 1, GI: 0, CI: -1, Minor: 999}} }, "", "this driver gives gpu1/gi0 the minor 999, and the table that all checks of slices rest on 138", machine},
		{"slice", "no table", func(h *hall) { h.Unread[FromCaps] = "mig-minors: not as the driver writes it" }, "", "/proc/driver/nvidia-caps: mig-minors: not as the driver writes it", machine},
		{"slice", "nvidia-smi did not answer", func(h *hall) { h.Listed, h.SMI = false, nil }, "", "is not on this host", machine},
		{"slice", "no boot ID", func(h *hall) { h.BootID, h.Unread[FromBootID] = "", "permission denied" }, "", "/proc/sys/kernel/random/boot_id: permission denied", machine},

		// Somebody else's.
		{"whole", "of another agent", nvidia("other", "{pci: '"+ownPCI+"'}"), "", "agents whole and other both have GPU " + ownUUID + " at 0000:81:00.0", written},
		{"slice", "of another agent", nvidia("other", "{pci: '"+slicedPCI+"', gi: 9, ci: 0}"), "", "agents slice and other both have slice " + slice9, written},
		{"slice", "whose GPU another has", nvidia("other", "{uuid: "+slicedUUID+"}"), "", "agents slice and other overlap: slice " + slice9 + " (gi9/ci0 of 0000:01:00.0) and GPU " + slicedUUID, written},
		{"whole", "of which another has a slice", nvidia("whole", "{uuid: "+slicedUUID+"}"), "", "overlap: GPU " + slicedUUID + " at 0000:01:00.0 and slice ", written},
		{"part", "one memory", nvidia("other", "{mig: "+slice2b+"}"), "", "agents part and other overlap", written},
		{"part", "one memory, on purpose", func(h *hall) {
			h.intents["part"] += "\nshared_with: [other]"
			h.intents["other"] = "shared_with: [x, part]\ngpu: {vendor: nvidia, devices: [{mig: " + slice2b + "}]}"
		}, `gi: 2, ci: 1, agent: "other"}`, "", false},
		{"part", "on one's purpose", func(h *hall) {
			h.intents["part"] += "\nshared_with: [other]"
			nvidia("other", "{mig: "+slice2b+"}")(h)
		}, "", "agents part and other overlap", written},
		{"part", "on the other's purpose", intent("other", "shared_with: [part]\ngpu: {vendor: nvidia, devices: [{mig: "+slice2b+"}]}"), "", "agents part and other overlap", written},
		{"slice", "others' quarrel", nvidia("other", "{uuid: "+ownUUID+"}"), "gi: 9, ci: 0", "", false},
		{"slice", "others' loss", nvidia("other", "{pci: '0000:82:00.0'}"), "gi: 9, ci: 0", "", false},
		// What a container is given counts where its policy is off.
		{"whole", "given to another", func(h *hall) {
			h.intents["other"], h.given = "gpu: {off: why}", map[string]string{"other": "GPU-00000000-0000-4000-8000-000000000000," + ownUUID}
		}, "", "agents whole and other both have GPU " + ownUUID, written},
		{"part", "its GPU given to another", func(h *hall) {
			h.intents["other"], h.given = "gpu: {off: why}", map[string]string{"other": slicedUUID}
		}, "", "agents part and other overlap", written},
		{"other", "off, and given another's", func(h *hall) {
			h.intents["other"], h.given = "gpu: {off: why}", map[string]string{"other": slice9}
		}, "", "agents other and slice both have slice " + slice9, written},
		{"amd", "given to another by address", func(h *hall) {
			h.intents["other"], h.given = "gpu: {off: why}", map[string]string{"other": "0000:03:00.0"}
		}, "", "agents amd and other both have the GPU at 0000:03:00.0", written},
		{"intel", "Intel's, given to another", func(h *hall) {
			h.intents["other"], h.given = "gpu: {off: why}", map[string]string{"other": "0000:00:02.0"}
		}, "", "agents intel and other both have the GPU at 0000:00:02.0", written},
		{"other", "off, and given its own", func(h *hall) {
			h.intents["other"], h.given = "gpu: {off: why}", map[string]string{"other": "0000:83:00.0"}
		}, `off: "why"`, "", false},
		{"whole", "given to another on purpose", func(h *hall) {
			h.intents["whole"] += "\nshared_with: [other]"
			h.intents["other"], h.given = "shared_with: [whole]\ngpu: {off: why}", map[string]string{"other": ownUUID}
		}, "uuid: " + ownUUID, "", false},

		{"whole", "shared, in the inventory", func(h *hall) {
			h.intents["whole"] += "\nshared_with: [other]"
			h.intents["other"] = "shared_with: [whole]\n" + strings.Replace(h.intents["whole"], "\nshared_with: [other]", "", 1)
		}, "agent: \"other, whole\"", "", false},
		{"whole", "twice", nvidia("whole", "{uuid: "+ownUUID+"}, {pci: '"+ownPCI+"'}"), "", "is listed twice, under two names", written},
		{"slice", "twice", nvidia("slice", "{mig: "+slice9+"}, {pci: '"+slicedPCI+"', gi: 9, ci: 0}"), "", "is listed twice, under two names", written},
		{"nobody", "no intent", func(*hall) {}, "", "no intent of agent nobody", written},

		// AMD and Intel.
		{"amd", "gone", func(h *hall) { h.DRM = h.DRM[2:] }, "", "the GPU at 0000:03:00.0 is not on this host, which has the GPU at 0000:83:00.0", machine},
		{"amd", "all gone", func(h *hall) { h.DRM = nil; h.Unread[FromDRM] = "too large" }, "", "which has no GPU with a driver of amd's; not all was read: /sys/class/drm: too large", machine},
		{"amd", "swapped", intent("amd", "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0', unique_id: 0x1}]}"), "", "at 0000:03:00.0 is unique_id 7193870286350716105, gpu_id 51140, and not what the intent says", machine},
		{"amd", "swapped, by gpu_id", intent("amd", "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0', gpu_id: 1}]}"), "", "gpu_id 51140", machine},
		{"amd", "a consumer's card", intent("amd", "gpu: {vendor: amd, devices: [{pci: '0000:83:00.0'}]}"), "    - {pci: \"0000:83:00.0\"}\n", "", false},
		{"amd", "no kfd", func(h *hall) { h.Majors = h.Majors[:2] }, "", "the kernel has no driver kfd", machine},
		{"amd", "Intel's", intent("amd", "gpu: {vendor: amd, devices: [{pci: '0000:00:02.0'}]}"), "", "the GPU at 0000:00:02.0 is not amd's: its driver is i915", written},
		{"intel", "NVIDIA's", intent("intel", "gpu: {vendor: intel, devices: [{pci: '"+ownPCI+"'}]}"), "", "is not intel's: its driver is nvidia", written},
		{"amd", "several nodes", func(h *hall) {
			h.DRM = append(h.DRM, DRM{Name: "renderD140", Number: devnode.C(226, 140), PCI: "0000:03:00.0", Driver: "amdgpu"})
		}, "", "the GPU at 0000:03:00.0 has 2 render nodes", written},
		{"amd", "a partition", func(h *hall) {
			h.DRM = append(h.DRM, DRM{Name: "renderD140", Number: devnode.C(226, 140), PCI: "0000:03:00.0", Driver: "amdgpu"})
			h.intents["amd"] = "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0', render: 140}]}"
			h.intents["amd2"] = "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0', render: 128}]}"
		}, "{pci: \"0000:03:00.0\", render: 140}", "", false},
		{"amd", "a partition that another has", func(h *hall) {
			h.DRM = append(h.DRM, DRM{Name: "renderD140", Number: devnode.C(226, 140), PCI: "0000:03:00.0", Driver: "amdgpu"})
			h.intents["amd"] = "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0', render: 140}]}"
			h.intents["amd2"] = h.intents["amd"]
		}, "", "agents amd and amd2 both have the GPU at 0000:03:00.0, renderD140", written},
		{"amd", "no such node", intent("amd", "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0', render: 140}]}"), "", "is not on this host", machine},
		{"intel", "another driver of theirs", func(h *hall) { h.DRM[5].Driver = "xe" }, "    - {pci: \"0000:00:02.0\"}\n", "", false},
	} {
		t.Run(tt.agent+"/"+tt.name, func(t *testing.T) {
			h := full()
			tt.change(h)
			p, err := Resolve(tt.agent, h.parsed(t), h.Hardware)
			if tt.err == "" {
				require.NoError(t, err)
				require.Contains(t, p.YAML(), tt.want)
				again, err := ParsePolicy([]byte(p.YAML()))
				require.NoError(t, err)
				require.Equal(t, p, again)
				return
			}
			var u *Unresolved
			require.ErrorAs(t, err, &u)
			assert.Contains(t, u.Cause, tt.err)
			assert.Equal(t, tt.machine, u.Machine)
			assert.NotEmpty(t, u.Hint())
			assert.Equal(t, Policy{}, p)
		})
	}
}

func TestParseIntent(t *testing.T) {
	i, err := ParseIntent([]byte("shared_with: [gpuci.4, a_b-C]\ngpu: {vendor: nvidia, devices: [{mig: " + slice9 + "}, {mig: " + slice2a + ", pci: '" + slicedPCI + "'}]}"))
	require.NoError(t, err)
	require.Equal(t, Intent{SharedWith: []string{"gpuci.4", "a_b-C"}, Policy: Policy{Vendor: VendorNVIDIA, Min: 2, Max: 2, IdleMiB: 64, Busy: BusyOff, Devices: []Device{
		{MIG: slice9, GI: -1, CI: -1, Render: -1}, {MIG: slice2a, PCI: slicedPCI, GI: -1, CI: -1, Render: -1}}}}, i)

	const resolver = "juliagpu gpu resolve writes it"
	devices := func(text string) string { return "gpu: {vendor: nvidia, devices: [" + text + "]}" }
	for text, want := range map[string][2]string{
		"":                        {"empty", "write gpu: and below it vendor: nvidia, amd, intel or none"},
		"shared_with: [a]":        {"1:1: gpu: missing", "write gpu: and below it vendor: nvidia, amd, intel or none"},
		"gpus: {vendor: none}":    {"1:1: gpus: unknown key", "write one of gpu, shared_with"},
		"gpu: {file: /etc/x.yml}": {"1:13: gpu.file: stands beside other keys, or in a policy file", "leave it out, or write gpu: {file: PATH} in config.yml and nothing else there"},
		"gpu: {vendor: none, resolved: {boot_id: x}}":                 {"1:31: gpu.resolved: " + resolver, "leave it out"},
		"gpu: {vendor: none, inventory: [{minor: 1}]}":                {"1:32: gpu.inventory: " + resolver, "leave it out"},
		"gpu: {vendor: none}\nshared_with: []":                        {"2:14: shared_with: nothing in it", "leave the key out, or say something"},
		"gpu: {vendor: none}\nshared_with: [a, a]":                    {"2:18: shared_with: listed twice", "keep one"},
		"gpu: {vendor: none}\nshared_with: [a/b]":                     {"2:15: shared_with: not the name of an agent", "write it as --agent has it, such as gpuci.3"},
		"gpu: {vendor: none}\nshared_with: [1]":                       {"2:15: shared_with: a number, where text belongs", "write text, in quotes if it looks like something else"},
		devices("{mig: " + slice9 + ", gi: 9}"):                       {"1:33: gpu.devices.ci: missing", "juliagpu gpu resolve writes it; nvidia-smi -q shows it as Compute Instance ID"},
		devices("{mig: " + slice9 + ", ci: 0}"):                       {"1:33: gpu.devices.gi: missing", "juliagpu gpu resolve writes it; nvidia-smi -q shows it as GPU Instance ID"},
		devices("{pci: '" + slicedPCI + "', gi: 9}"):                  {"1:33: gpu.devices.ci: missing", "juliagpu gpu resolve writes it; nvidia-smi -q shows it as Compute Instance ID"},
		devices("{gi: 9, ci: 0}"):                                     {"1:33: gpu.devices.pci: missing", "write the GPU's address or uuid, or the slice's UUID as mig"},
		devices("{mig: " + slice9 + "}, {mig: " + slice9 + "}"):       {"1:82: gpu.devices: the same GPU or slice as another entry, or a part of it", "keep one"},
		devices("{uuid: " + ownUUID + "}, {mig: x}"):                  {"1:89: gpu.devices.mig: " + "not MIG- with a UUID in small letters", "copy it from nvidia-smi -L"},
		"gpu: {vendor: amd, devices: [{pci: '0000:03:00.0', gi: 1}]}": {"1:56: gpu.devices.gi: does not go with vendor: amd", "leave it out"},
	} {
		i, err := ParseIntent([]byte(text))
		var e *strict.Error
		require.ErrorAs(t, err, &e, text)
		assert.EqualError(t, e, want[0], text)
		assert.Equal(t, want[1], e.Hint(), text)
		assert.Equal(t, Intent{}, i)
	}
}

func TestIsAgent(t *testing.T) {
	for name, want := range map[string]bool{
		"gpuci.3": true, "a": true, "9": true, "A_b-c.d": true, strings.Repeat("a", 64): true,
		"": false, ".a": false, "-a": false, "_a": false, "a/b": false, "a b": false, "ä": false, "a\n": false, "..": false, strings.Repeat("a", 65): false,
	} {
		require.Equal(t, want, IsAgent(name), "%q", name)
	}
}

// FuzzParseIntent: an intent is a policy, but for numbers of slices; and what
// is a policy without what the resolver writes is an intent.
func FuzzParseIntent(f *testing.F) {
	for _, text := range allPolicies {
		f.Add([]byte(text))
	}
	for _, text := range full().intents {
		f.Add([]byte(text + "\nshared_with: [a]"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := ParseIntent(text)
		p, policyErr := ParsePolicy(text)
		if policyErr == nil && p.Resolved == nil && p.Inventory == nil {
			require.NoError(t, err)
			require.Equal(t, Intent{Policy: p}, i)
		}
		if err != nil {
			var e *strict.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, Intent{}, i)
			return
		}
		for _, name := range i.SharedWith {
			require.True(t, IsAgent(name))
		}
		for n, d := range i.Policy.Devices {
			if d.MIG != "" && d.GI < 0 && d.CI < 0 {
				i.Policy.Devices[n].GI, i.Policy.Devices[n].CI = n%MaxGIs, n/MaxGIs%MaxCIs
			}
			for _, e := range i.Policy.Devices[:n] {
				if d.overlaps(e) || i.Policy.Devices[n].overlaps(e) {
					return // by the numbers that we chose
				}
			}
		}
		require.Nil(t, i.Policy.Resolved)
		holds(t, i.Policy)
	})
}

// TestDocsIntents: what can be copied is an intent.
func TestDocsIntents(t *testing.T) {
	file, err := os.ReadFile("../../docs/gpu.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)\n```yaml\n(# /etc/juliagpu-secrets/agents/([^/]*)/gpu.yml\n.*?)```\n").FindAllStringSubmatch(string(file), -1)
	require.Len(t, blocks, 1)
	for _, block := range blocks {
		_, err := ParseIntent([]byte(block[1]))
		require.NoError(t, err, block[1])
		require.True(t, IsAgent(block[2]))
	}
}
