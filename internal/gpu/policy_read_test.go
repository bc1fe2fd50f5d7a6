package gpu

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// Policies with every key that goes together.
const (
	wholeGPU = `# Two of four.
gpu:
  vendor: nvidia
  devices:
    - {uuid: GPU-1b7ad372-8d21-4239-8e32-63449f713690, pci: "00000000:81:00.0"}
    - {pci: 0000:C1:00.0}
  count: {min: 1, max: 3}
  extra_devices: [nvidia-uvm-tools, "c 510:0", "c 511:*"]
  enforcement: absence
  graphics: true
  allow_shared_gi: false
  idle_vram_mib: 512
  busy: deny
  min_driver: 580.159.03
  host: {toolkit: 1.17.8, runc: 1.3.0-rc.3, docker: 28.1}
  inventory:
    - {minor: 3, uuid: GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10, pci: "0000:82:00.0", agent: gpuci.17}
    - {uuid: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9}
    - {agent: gpuci.4, minor: 0, gi: 9, ci: 1}
  resolved: {boot_id: 5f0c3a62-7a3f-4d0b-9b0a-0c2f4c1d2e3f, at: 2026-11-23T14:00:00+01:00, driver: 580.159.03}
  waivers:
    - {id: container.caps, match: SYS_PTRACE, reason: "rocgdb tests attach to children", until: 2027-03-31}
    - {id: container.caps, match: PERFMON, reason: the profiler's tests}
`
	namelessSlice = `gpu: {vendor: nvidia, devices: [{pci: "0000:01:00.0", gi: 9, ci: 0}]}`
	twoSlices     = `gpu:
  vendor: nvidia
  devices:
    - {mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9, pci: "0000:01:00.0", gi: 9, ci: 0}
    - {mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b8, uuid: GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10, gi: 14, ci: 7}
  allow_shared_gi: true
`
	amd = `gpu:
  devices:
    - {pci: "0000:03:00.0", unique_id: 7193870286350716105, render: 128, gpu_id: 51140}
    - {pci: "0000:03:00.0", unique_id: 0x63d5b7c9, render: 129, gpu_id: 0xD5D}
  vendor: amd
`
	intel     = "gpu: {vendor: intel, devices: [{pci: \"0000:00:02.0\", render: 128}], busy: off}\n"
	noGPU     = "gpu: {vendor: none}\n"
	turnedOff = "gpu: {off: the driver is being replaced}\n"
)

var allPolicies = []string{wholeGPU, twoSlices, namelessSlice, amd, intel, noGPU, turnedOff}

func TestParsePolicy(t *testing.T) {
	none := Device{GI: -1, CI: -1, Render: -1}
	device := func(change func(*Device)) Device {
		d := none
		change(&d)
		return d
	}
	for _, tt := range []struct {
		name, text string
		want       Policy
	}{
		{"whole GPUs", wholeGPU, Policy{
			Vendor: VendorNVIDIA,
			Devices: []Device{
				device(func(d *Device) {
					d.UUID, d.PCI = "GPU-1b7ad372-8d21-4239-8e32-63449f713690", "0000:81:00.0"
				}),
				device(func(d *Device) { d.PCI = "0000:c1:00.0" }),
			},
			Min: 1, Max: 3,
			Families: []string{"nvidia-uvm-tools"},
			Numbers:  []Pattern{{Major: 510}, {Major: 511, AllMinor: true}},
			Absence:  true, Graphics: true, IdleMiB: 512, Busy: BusyDeny, MinDriver: "580.159.03",
			Host: map[string]string{"toolkit": "1.17.8", "runc": "1.3.0-rc.3", "docker": "28.1"},
			Inventory: []Known{
				{Minor: 3, UUID: "GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10", PCI: "0000:82:00.0", GI: -1, CI: -1, Agent: "gpuci.17"},
				{Minor: -1, UUID: "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", GI: -1, CI: -1},
				{Minor: 0, GI: 9, CI: 1, Agent: "gpuci.4"},
			},
			Resolved: &Resolved{BootID: "5f0c3a62-7a3f-4d0b-9b0a-0c2f4c1d2e3f", At: time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC), Driver: "580.159.03"},
			Waivers: []Waiver{
				{ID: "container.caps", Match: "SYS_PTRACE", Reason: "rocgdb tests attach to children", Until: time.Date(2027, 3, 31, 0, 0, 0, 0, time.UTC)},
				{ID: "container.caps", Match: "PERFMON", Reason: "the profiler's tests"},
			},
		}},
		{"slices", twoSlices, Policy{
			Vendor: VendorNVIDIA,
			Devices: []Device{
				{MIG: "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", PCI: "0000:01:00.0", GI: 9, CI: 0, Render: -1},
				{MIG: "MIG-b62d579f-e90e-5e60-88e2-1b36371298b8", UUID: "GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10", GI: 14, CI: 7, Render: -1},
			},
			Min: 2, Max: 2, AllowSharedGI: true, IdleMiB: 64, Busy: BusyOff,
		}},
		{"a slice whose GPU is not stated", "gpu: {vendor: nvidia, devices: [{mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9, gi: 0, ci: 0}]}", Policy{
			Vendor: VendorNVIDIA, Devices: []Device{{MIG: "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", Render: -1}},
			Min: 1, Max: 1, IdleMiB: 64, Busy: BusyOff,
		}},
		{"AMD, two partitions of a GPU", amd, Policy{
			Vendor: VendorAMD,
			Devices: []Device{
				{PCI: "0000:03:00.0", GI: -1, CI: -1, UniqueID: 7193870286350716105, Render: 128, GPUID: 51140},
				{PCI: "0000:03:00.0", GI: -1, CI: -1, UniqueID: 0x63d5b7c9, Render: 129, GPUID: 3421},
			},
			Min: 2, Max: 2, IdleMiB: 256, Busy: BusyWarn,
		}},
		{"Intel", intel, Policy{
			Vendor: VendorIntel, Devices: []Device{{PCI: "0000:00:02.0", GI: -1, CI: -1, Render: 128}},
			Min: 1, Max: 1, IdleMiB: 256, Busy: BusyOff,
		}},
		{"NVIDIA, defaults", "gpu: {vendor: nvidia, devices: [{pci: '0000:81:00.0'}]}", Policy{
			Vendor: VendorNVIDIA, Devices: []Device{{PCI: "0000:81:00.0", GI: -1, CI: -1, Render: -1}},
			Min: 1, Max: 1, IdleMiB: 256, Busy: BusyOff,
		}},
		{"none", noGPU, Policy{Vendor: VendorNone, Busy: BusyOff}},
		{"off", turnedOff, Policy{Off: "the driver is being replaced"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePolicy([]byte(tt.text))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

// TestParsePolicyErrors gives each mistake with its place, its cause and what to
// do. A text that begins with + stands below a good policy of three lines, in its
// section; one that begins with - is a device of NVIDIA's, AMD's or Intel's.
func TestParsePolicyErrors(t *testing.T) {
	const good = "gpu:\n  vendor: nvidia\n  devices: [{pci: '0000:81:00.0'}]\n"
	const (
		uuid1 = "GPU-1b7ad372-8d21-4239-8e32-63449f713690"
		uuid2 = "GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10"
		mig1  = "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9"
		mig2  = "MIG-b62d579f-e90e-5e60-88e2-1b36371298b8"
	)
	const (
		anyKey    = "write one of vendor, devices, count, extra_devices, enforcement, graphics, allow_shared_gi, idle_vram_mib, busy, min_driver, host, inventory, resolved, waivers, off, file"
		vendors   = "write vendor: nvidia, amd, intel or none"
		leaveOut  = "leave it out"
		keepOne   = "keep one"
		overlap   = "the same GPU or slice as another entry, or a part of it"
		copyUUID  = "copy it from nvidia-smi -L"
		notUUID   = "not GPU- with a UUID in small letters"
		notMIG    = "not MIG- with a UUID in small letters"
		notPCI    = "not a PCI address with its domain"
		version   = "write it as in 580.159.03 or 1.3.0-rc.3"
		digits    = "write digits alone, without quotes"
		day       = "write it as in 2027-03-31"
		number16  = "not a whole number from 0 to 16777216"
		character = "write it as in c 510:0, or c 510:* for all of a major number"
		sayWhy    = "say why this is right here: every job prints it"
		resolver  = "juliagpu gpu resolve writes it; a policy written by hand has no resolved"
		asID      = "write it in decimal, or with 0x before it"
		mapping   = "write a mapping (key: value)"
	)
	var waivable []string
	for _, c := range checks {
		if _, can, _ := Waivable(c.id); can {
			waivable = append(waivable, c.id)
		}
	}
	require.NotContains(t, waivable, "gpu.foreign")
	waiver := func(s string) string { return "+waivers: [{" + s + "}]" }
	for _, tt := range []struct{ name, text, want, hint string }{
		// The file and its section.
		{"empty", "", "empty", "write gpu: and below it vendor: nvidia, amd, intel or none"},
		{"no section", "vendor: none", "1:1: vendor: unknown key", "write one of gpu"},
		{"another section", "gpu: {vendor: none}\nmode: direct", "2:1: mode: unknown key", "write one of gpu"},
		{"a word", "gpu: x", "1:6: gpu: text, where a mapping (key: value) belongs", mapping},
		{"nothing", "gpu:", "1:5: gpu: nothing, where a mapping (key: value) belongs", mapping},
		{"an empty section", "gpu: {}", "1:6: gpu: nothing in it", "leave the key out, or say something"},
		{"an identity in a comment", "+# AGE-SECRET-KEY-1", "4:5: an identity stands here, for everyone to read",
			"put it into a file of its own, mode 600, and name that under identities; if others could read it, make a new one"},
		{"an anchor", "+busy: &a warn", "4:9: gpu.busy: an anchor (&)", "write the value itself"},
		{"a key twice", "+vendor: amd", "4:3: gpu.vendor: given twice, first on line 2", keepOne},
		{"a key twice in a device", "gpu: {vendor: nvidia, devices: [{pci: '0000:81:00.0', pci: '0000:82:00.0'}]}", "1:55: gpu.devices.pci: given twice, first on line 1", keepOne},
		{"an unknown key", "+colour: red", "4:3: gpu.colour: unknown key", anyKey},
		{"a slip", "+idle_vram: 1", "4:3: gpu.idle_vram: unknown key", anyKey},
		{"another slip", "+resolve: 1", "4:3: gpu.resolve: unknown key", "write resolved"},
		{"no vendor", "gpu: {devices: [{uuid: " + uuid1 + "}]}", "1:6: gpu.vendor: missing", vendors},
		{"an unknown vendor", "gpu: {vendor: matrox}", "1:15: gpu.vendor: not a vendor of GPUs", "write one of nvidia, amd, intel, none"},
		{"a slip in the vendor", "gpu: {vendor: nvdia}", "1:15: gpu.vendor: not a vendor of GPUs", "write nvidia"},
		{"no devices", "gpu: {vendor: amd}", "1:6: gpu.devices: missing", "list the GPUs that this agent's jobs have, or write vendor: none"},
		{"no device", "gpu: {vendor: amd, devices: []}", "1:29: gpu.devices: nothing in it", "leave the key out, or say something"},
		{"an empty device", "gpu: {vendor: amd, devices: [{}]}", "1:30: gpu.devices: nothing in it", "leave the key out, or say something"},
		{"off and more", "+off: a reason to do so", "4:8: gpu.off: stands beside other keys", "leave it out, or all the rest"},
		{"off without reason", "gpu: {off: true}", "1:12: gpu.off: true or false, where text belongs", "write text, in quotes if it looks like something else"},
		{"file", "gpu: {file: /etc/gpu.yml}", "1:13: gpu.file: stands beside other keys, or in a policy file", "leave it out, or write gpu: {file: PATH} in config.yml and nothing else there"},

		// What does not go with the vendor.
		{"devices of nobody", "gpu: {vendor: none, devices: [{pci: '0000:81:00.0'}]}", "1:30: gpu.devices: does not go with vendor: none", leaveOut},
		{"count of nobody", "gpu: {vendor: none, count: {max: 1}}", "1:28: gpu.count: does not go with vendor: none", leaveOut},
		{"graphics of nobody", "gpu: {vendor: none, graphics: true}", "1:31: gpu.graphics: does not go with vendor: none", leaveOut},
		{"memory of nobody", "gpu: {vendor: none, idle_vram_mib: 1}", "1:36: gpu.idle_vram_mib: does not go with vendor: none", leaveOut},
		{"busy without GPU", "gpu: {vendor: none, busy: warn}", "1:27: gpu.busy: does not go with vendor: none", leaveOut},
		{"slices of AMD", "gpu: {allow_shared_gi: true, vendor: amd}", "1:24: gpu.allow_shared_gi: does not go with vendor: amd", leaveOut},
		{"driver of Intel", "gpu: {vendor: intel, min_driver: 1.0}", "1:34: gpu.min_driver: does not go with vendor: intel", leaveOut},
		{"mig of AMD", "-amd {mig: " + mig1 + "}", "gpu.devices.mig: does not go with vendor: amd", leaveOut},
		{"gi of AMD", "-amd {gi: 1}", "gpu.devices.gi: does not go with vendor: amd", leaveOut},
		{"ci of Intel", "-intel {ci: 1}", "gpu.devices.ci: does not go with vendor: intel", leaveOut},
		{"uuid of AMD", "-amd {uuid: GPU-63d5b7c9}", "gpu.devices.uuid: does not go with vendor: amd", "write the digits after GPU- as unique_id: 0x…"},
		{"uuid of Intel", "-intel {uuid: " + uuid1 + "}", "gpu.devices.uuid: does not go with vendor: intel", leaveOut},
		{"unique_id of NVIDIA", "-nvidia {unique_id: 1}", "gpu.devices.unique_id: does not go with vendor: nvidia", leaveOut},
		{"gpu_id of Intel", "-intel {gpu_id: 1}", "gpu.devices.gpu_id: does not go with vendor: intel", leaveOut},
		{"render of NVIDIA", "-nvidia {render: 128}", "gpu.devices.render: does not go with vendor: nvidia", leaveOut},

		// Devices.
		{"a UUID without GPU-", "-nvidia {uuid: 1b7ad372-8d21-4239-8e32-63449f713690}", "gpu.devices.uuid: " + notUUID, copyUUID},
		{"a UUID in large letters", "-nvidia {uuid: GPU-1B7AD372-8d21-4239-8e32-63449f713690}", "gpu.devices.uuid: " + notUUID, copyUUID},
		{"a shortened UUID", "-nvidia {uuid: GPU-1b7ad372}", "gpu.devices.uuid: " + notUUID, copyUUID},
		{"a UUID with a dash elsewhere", "-nvidia {uuid: GPU-1b7ad3728-d21-4239-8e32-63449f713690}", "gpu.devices.uuid: " + notUUID, copyUUID},
		{"a UUID without dashes", "-nvidia {uuid: GPU-1b7ad37208d210423908e32063449f713690}", "gpu.devices.uuid: " + notUUID, copyUUID},
		{"a UUID that goes on", "-nvidia {uuid: " + uuid1 + "0}", "gpu.devices.uuid: " + notUUID, copyUUID},
		{"a UUID that is not known yet", "-nvidia {uuid: 'GPU-????????-????-????-????-????????????'}", "gpu.devices.uuid: " + notUUID, copyUUID},
		{"an index", "-nvidia {uuid: 0}", "gpu.devices.uuid: a number, where text belongs", "write text, in quotes if it looks like something else"},
		{"a slice as GPU", "-nvidia {uuid: " + mig1 + "}", "gpu.devices.uuid: a slice and not a GPU", "write it as mig; a policy needs its gi and ci, too"},
		{"a GPU as slice", "-nvidia {mig: " + uuid1 + "}", "gpu.devices.mig: a GPU and not a slice", "write it as uuid"},
		{"a slice of old", "-nvidia {mig: MIG-" + uuid1 + "/9/0}", "gpu.devices.mig: a slice in the spelling of drivers before 470", "write what a driver from 470 on prints, its GPU as uuid, its two numbers as gi and ci"},
		{"a slice in large letters", "-nvidia {mig: MIG-B62D579F-e90e-5e60-88e2-1b36371298b9}", "gpu.devices.mig: " + notMIG, copyUUID},
		{"gi of a whole GPU", "-nvidia {uuid: " + uuid1 + ", gi: 1}", "gpu.devices.ci: missing", "juliagpu gpu resolve writes it; nvidia-smi -q shows it as Compute Instance ID"},
		{"a slice without gi", "-nvidia {mig: " + mig1 + ", pci: '0000:81:00.0', ci: 0}", "gpu.devices.gi: missing", "juliagpu gpu resolve writes it; nvidia-smi -q shows it as GPU Instance ID"},
		{"a slice without ci", "-nvidia {mig: " + mig1 + ", pci: '0000:81:00.0', gi: 0}", "gpu.devices.ci: missing", "juliagpu gpu resolve writes it; nvidia-smi -q shows it as Compute Instance ID"},
		{"gi 15", "-nvidia {gi: 15}", "gpu.devices.gi: not a whole number from 0 to 14", digits},
		{"ci 8", "-nvidia {ci: 8}", "gpu.devices.ci: not a whole number from 0 to 7", digits},
		{"AMD without pci", "-amd {unique_id: 1}", "gpu.devices.pci: missing", pciHint},
		{"a card as render node", "-amd {render: 1}", "gpu.devices.render: not a whole number from 128 to 1048575", digits},
		{"a render node too high", "-intel {render: 1048576}", "gpu.devices.render: not a whole number from 128 to 1048575", digits},
		{"unique_id 0", "-amd {unique_id: 0}", "gpu.devices.unique_id: not a number of 64 bits other than 0", asID},
		{"unique_id 0x0", "-amd {unique_id: 0x0}", "gpu.devices.unique_id: not a number of 64 bits other than 0", asID},
		{"unique_id in octal", "-amd {unique_id: 0123}", "gpu.devices.unique_id: not a number of 64 bits other than 0", asID},
		{"unique_id below 0", "-amd {unique_id: -1}", "gpu.devices.unique_id: not a number of 64 bits other than 0", asID},
		{"unique_id of 65 bits", "-amd {unique_id: 0x1ffffffffffffffff}", "gpu.devices.unique_id: not a number of 64 bits other than 0", asID},
		{"unique_id, hexadecimal without 0x", "-amd {unique_id: 63d5b7c9}", "gpu.devices.unique_id: not a number of 64 bits other than 0", asID},
		{"gpu_id of 33 bits", "-amd {gpu_id: 4294967296}", "gpu.devices.gpu_id: not a number of 32 bits other than 0", asID},
		{"ci of a whole GPU", "-nvidia {pci: '0000:81:00.0', ci: 1}", "gpu.devices.gi: missing", "juliagpu gpu resolve writes it; nvidia-smi -q shows it as GPU Instance ID"},
		{"a slice of no GPU", "-nvidia {gi: 9, ci: 0}", "gpu.devices.pci: missing", "write the GPU's address or uuid, or the slice's UUID as mig"},
		{"Intel without pci", "-intel {render: 128}", "gpu.devices.pci: missing", pciHint},

		// Twice.
		{"a UUID twice", "-nvidia {uuid: " + uuid1 + "}, {uuid: " + uuid1 + ", pci: '0000:81:00.0'}", "gpu.devices: " + overlap, keepOne},
		{"an address twice", "-nvidia {pci: '0000:0a:00.0'}, {uuid: " + uuid1 + ", pci: '00000000:0A:00.0'}", "gpu.devices: " + overlap, keepOne},
		{"a slice twice", "-nvidia {mig: " + mig1 + ", gi: 1, ci: 0}, {mig: " + mig1 + ", gi: 2, ci: 0}", "gpu.devices: " + overlap, keepOne},
		{"two slices in one place", "-nvidia {mig: " + mig1 + ", uuid: " + uuid2 + ", gi: 1, ci: 0}, {mig: " + mig2 + ", uuid: " + uuid2 + ", gi: 1, ci: 0}", "gpu.devices: " + overlap, keepOne},
		{"two slices in one place of one GPU", "-nvidia {mig: " + mig1 + ", gi: 1, ci: 0}, {mig: " + mig2 + ", gi: 1, ci: 0}", "gpu.devices: " + overlap, keepOne},
		{"a slice of a whole GPU", "-nvidia {uuid: " + uuid2 + "}, {mig: " + mig1 + ", uuid: " + uuid2 + ", gi: 1, ci: 0}", "gpu.devices: " + overlap, keepOne},
		{"a unique_id twice", "-amd {pci: '0000:03:00.0', unique_id: 255}, {pci: '0000:04:00.0', unique_id: 0xff}", "gpu.devices: " + overlap, keepOne},
		{"a gpu_id twice", "-amd {pci: '0000:03:00.0', gpu_id: 1}, {pci: '0000:04:00.0', gpu_id: 1}", "gpu.devices: " + overlap, keepOne},
		{"a gpu_id of two partitions", "-amd {pci: '0000:03:00.0', render: 128, gpu_id: 1}, {pci: '0000:03:00.0', render: 129, gpu_id: 1}", "gpu.devices: " + overlap, keepOne},
		{"a render node twice", "-amd {pci: '0000:03:00.0', render: 128}, {pci: '0000:04:00.0', render: 128}", "gpu.devices: " + overlap, keepOne},
		{"a partition of a whole GPU", "-amd {pci: '0000:03:00.0'}, {pci: '0000:03:00.0', render: 128}", "gpu.devices: " + overlap, keepOne},

		// Counts.
		{"min above all", "+count: {min: 2, max: 2}", "4:16: gpu.count.min: more than there are devices", "write at most the number of devices"},
		{"min above all, alone", "+count: {min: 2}", "4:16: gpu.count.min: more than there are devices", "write at most the number of devices"},
		{"max below min", "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0'}, {pci: '0000:04:00.0'}], count: {min: 2, max: 1}}", "1:98: gpu.count.max: less than min", "write min: and max: the other way round"},
		{"max below all", "gpu: {vendor: amd, devices: [{pci: '0000:03:00.0'}, {pci: '0000:04:00.0'}], count: {max: 1}}", "1:90: gpu.count.max: less than the number of devices, which is what min is where it is not stated", "write min, too"},
		{"max 0", "+count: {max: 0}", "4:16: gpu.count.max: not a whole number from 1 to 1048575", digits},
		{"min -1", "+count: {min: -1}", "4:16: gpu.count.min: not a whole number from 0 to 1048575", digits},

		// What may be reached besides.
		{"an unknown family", "+extra_devices: [hunter]", "4:19: gpu.extra_devices: neither a family of devices nor numbers as in c 510:0",
			"write one of " + strings.Join(Families, ", ")},
		{"a family with a slip", "+extra_devices: [nvidia-modset]", "4:19: gpu.extra_devices: neither a family of devices nor numbers as in c 510:0", "write nvidia-modeset"},
		{"a family twice", "+extra_devices: [accel, accel]", "4:26: gpu.extra_devices: listed twice", keepOne},
		{"a number twice", "+extra_devices: ['c 510:0', 'c 510:0']", "4:30: gpu.extra_devices: listed twice", keepOne},
		{"a block device", "+extra_devices: ['b 8:0']", "4:19: gpu.extra_devices: neither a family of devices nor numbers as in c 510:0", "write one of " + strings.Join(Families, ", ")},
		{"a number alone", "+extra_devices: ['c 510']", "4:19: gpu.extra_devices: not a character device's numbers", character},
		{"all numbers", "+extra_devices: ['c *:*']", "4:19: gpu.extra_devices: not a character device's numbers", character},
		{"a number with rights", "+extra_devices: ['c 510:0 rw']", "4:19: gpu.extra_devices: not a character device's numbers", character},
		{"a number with a zero before it", "+extra_devices: ['c 510:00']", "4:19: gpu.extra_devices: not a character device's numbers", character},
		{"major 0", "+extra_devices: ['c 0:1']", "4:19: gpu.extra_devices: not a character device's numbers", character},
		{"major 4096", "+extra_devices: ['c 4096:1']", "4:19: gpu.extra_devices: not a character device's numbers", character},
		{"minor 1048576", "+extra_devices: ['c 510:1048576']", "4:19: gpu.extra_devices: not a character device's numbers", character},
		{"a GPU besides", "+extra_devices: ['c 195:3']", "4:19: gpu.extra_devices: a number that GPUs have", "list the GPU under devices; write nvidia-modeset or dri.card for those"},
		{"all render nodes", "+extra_devices: ['c 226:*']", "4:19: gpu.extra_devices: a number that GPUs have", "list the GPU under devices; write nvidia-modeset or dri.card for those"},

		// Words, numbers, versions.
		{"enforcement", "+enforcement: none", "4:16: gpu.enforcement: neither cgroup nor absence", "write one of cgroup, absence"},
		{"graphics", "+graphics: yes", "4:13: gpu.graphics: neither true nor false", "write true or false"},
		{"allow_shared_gi", "+allow_shared_gi: 'true'", "4:20: gpu.allow_shared_gi: neither true nor false", "write true or false"},
		{"busy", "+busy: fail", "4:9: gpu.busy: neither off nor warn nor deny", "write one of off, warn, deny"},
		{"idle below 0", "+idle_vram_mib: -1", "4:18: gpu.idle_vram_mib: " + number16, digits},
		{"idle above all", "+idle_vram_mib: 16777217", "4:18: gpu.idle_vram_mib: " + number16, digits},
		{"min_driver", "+min_driver: latest", "4:15: gpu.min_driver: not a version", version},
		{"min_driver with v", "+min_driver: v580.1", "4:15: gpu.min_driver: not a version", version},
		{"min_driver, empty part", "+min_driver: 580..1", "4:15: gpu.min_driver: not a version", version},
		{"min_driver of five parts", "+min_driver: 1.2.3.4.5", "4:15: gpu.min_driver: not a version", version},
		{"min_driver too long", "+min_driver: '1234567890'", "4:15: gpu.min_driver: not a version", version},
		{"min_driver with nothing behind", "+min_driver: 1.2-", "4:15: gpu.min_driver: not a version", version},
		{"runc with a blank", "+host: {runc: 1.2-a b}", "4:16: gpu.host.runc: not a version", version},
		{"toolkit", "+host: {toolkit: true}", "4:19: gpu.host.toolkit: true or false, where text belongs", "write text, in quotes if it looks like something else"},
		{"podman", "+host: {podman: 5.0}", "4:10: gpu.host.podman: unknown key", "write one of toolkit, runc, docker"},

		// inventory and resolved.
		{"inventory of names", "+inventory: [{agent: x}]", "4:15: gpu.inventory: none of minor, uuid and pci", "write one of them"},
		{"inventory twice", "+inventory: [{minor: 1, agent: x}, {agent: x, minor: 1}]", "4:37: gpu.inventory: listed twice", keepOne},
		{"minor 248", "+inventory: [{minor: 248}]", "4:23: gpu.inventory.minor: not a whole number from 0 to 247", digits},
		{"inventory's uuid", "+inventory: [{uuid: x}]", "4:22: gpu.inventory.uuid: " + notUUID, copyUUID},
		{"inventory's slice", "+inventory: [{uuid: MIG-x}]", "4:22: gpu.inventory.uuid: " + notMIG, copyUUID},
		{"inventory's address", "+inventory: [{pci: x}]", "4:21: gpu.inventory.pci: " + notPCI, pciHint},
		{"inventory's agent", "+inventory: [{minor: 1, agent: \"a\\nb\"}]", "4:33: gpu.inventory.agent: not one line of printable text", ""},
		{"gi 15 of the inventory", "+inventory: [{minor: 1, gi: 15}]", "4:30: gpu.inventory.gi: not a whole number from 0 to 14", digits},
		{"inventory's slice without gi", "+inventory: [{minor: 1, ci: 0}]", "4:15: gpu.inventory.gi: missing", "write the slice's GPU instance, too"},
		{"inventory's slice without minor", "+inventory: [{pci: '0000:81:00.0', gi: 1}]", "4:15: gpu.inventory.minor: missing", "write the N of its GPU's /dev/nvidiaN"},
		{"resolved with a driver", "+resolved: {driver: x}", "4:22: gpu.resolved.driver: not a version", version},
		{"resolved without boot_id", "+resolved: {at: 2026-11-23T13:00:00Z}", "4:13: gpu.resolved.boot_id: missing", resolver},
		{"resolved without at", "+resolved: {boot_id: 5f0c3a62-7a3f-4d0b-9b0a-0c2f4c1d2e3f}", "4:13: gpu.resolved.at: missing", resolver},
		{"a boot ID", "+resolved: {boot_id: 5f0c}", "4:23: gpu.resolved.boot_id: not a boot ID", "copy it from /proc/sys/kernel/random/boot_id"},
		{"a time without zone", "+resolved: {at: 2026-11-23T13:00:00}", "4:18: gpu.resolved.at: not a time with its zone", "write it as in 2026-11-23T13:00:00Z"},
		{"a day as time", "+resolved: {at: 2026-11-23}", "4:18: gpu.resolved.at: not a time with its zone", "write it as in 2026-11-23T13:00:00Z"},

		// Waivers.
		{"a number as reason", waiver("reason: 0123456789"), "4:22: gpu.waivers.reason: a number, where text belongs", "write text, in quotes if it looks like something else"},
		{"a waiver without ID", waiver("reason: reason enough"), "4:13: gpu.waivers.id: missing", "write the finding's ID, as the log shows it"},
		{"an unknown ID", waiver("id: ns.pdi"), "4:18: gpu.waivers.id: not the ID of a finding", "write ns.pid"},
		{"no ID at all", waiver("id: hunter2"), "4:18: gpu.waivers.id: not the ID of a finding", "write one of " + strings.Join(waivable, ", ")},
		{"what nobody can waive", waiver("id: gpu.foreign"), "4:18: gpu.waivers.id: nobody can waive this finding", "remove its cause; docs/gpu.md says how"},
		{"no evidence", waiver("id: container.caps, reason: reason enough"), "4:13: gpu.waivers.match: missing, and this finding is never waived as a whole", "write the exact evidence, as the log shows it"},
		{"no reason", waiver("id: ns.pid"), "4:13: gpu.waivers.reason: missing", sayWhy},
		{"nine letters", waiver("id: ns.pid, reason: 'äöüäöüäöü'"), "4:34: gpu.waivers.reason: shorter than 10 characters", sayWhy},
		{"a waiver twice", waiver("id: ns.pid, reason: reason enough}, {id: ns.pid, reason: another reason"), "4:50: gpu.waivers: waived twice", keepOne},
		{"a waiver twice, with a match", waiver("id: ns.pid, match: x, reason: reason enough}, {id: ns.pid, match: x, reason: another reason"), "4:60: gpu.waivers: waived twice", keepOne},
		{"until when", waiver("id: ns.pid, until: soon"), "4:33: gpu.waivers.until: not a day", day},
		{"until a moment", waiver("id: ns.pid, until: 2027-03-31T00:00:00Z"), "4:33: gpu.waivers.until: not a day", day},
		{"until a day that is none", waiver("id: ns.pid, until: '2027-02-29'"), "4:33: gpu.waivers.until: not a day", day},
		{"until 1 March", waiver("id: ns.pid, until: 2027-3-1"), "4:33: gpu.waivers.until: not a day", day},
		{"until the beginning of time", waiver("id: ns.pid, until: 0001-01-01"), "4:33: gpu.waivers.until: not a day", day},
		{"until for ever", waiver("id: ns.pid, until: 9999-12-31"), "4:33: gpu.waivers.until: not a day", day},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text
			if below, ok := strings.CutPrefix(text, "+"); ok {
				text = good + "  " + below
			}
			device := strings.HasPrefix(text, "-")
			if device {
				vendor, devices, _ := strings.Cut(text[1:], " ")
				text = "gpu: {vendor: " + vendor + ", devices: [" + devices + "]}"
			}
			p, err := ParsePolicy([]byte(text))
			require.Empty(t, p)
			var e *strict.Error
			require.ErrorAs(t, err, &e)
			if device {
				require.NotZero(t, e.Column)
				e = &strict.Error{Key: e.Key, Cause: e.Cause, Remedy: e.Remedy}
			}
			assert.EqualError(t, e, tt.want)
			assert.Equal(t, tt.hint, e.Hint())
		})
	}
}

// TestApart: devices and waivers that are alike and not the same, and counts.
func TestApart(t *testing.T) {
	const mig1, mig2 = "mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", "mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b8"
	for _, section := range []string{
		"vendor: nvidia, devices: [{" + mig1 + ", pci: '0000:01:00.0', gi: 9, ci: 0}, {" + mig2 + ", pci: '0000:01:00.0', gi: 9, ci: 1}]",
		"vendor: nvidia, devices: [{" + mig1 + ", pci: '0000:01:00.0', gi: 8, ci: 0}, {" + mig2 + ", pci: '0000:01:00.0', gi: 9, ci: 0}]",
		"vendor: nvidia, devices: [{" + mig1 + ", pci: '0000:01:00.0', gi: 9, ci: 0}, {" + mig2 + ", pci: '0000:02:00.0', gi: 9, ci: 0}]",
		"vendor: nvidia, devices: [{" + mig1 + ", pci: '0000:01:00.0', gi: 9, ci: 0}, {pci: '0000:02:00.0'}]",
		"vendor: nvidia, devices: [{pci: '0000:01:00.0'}, {pci: '0000:02:00.0'}]",
		"vendor: amd, devices: [{pci: '0000:01:00.0', unique_id: 1, gpu_id: 1}, {pci: '0000:02:00.0', unique_id: 2, gpu_id: 2}]",
		"vendor: intel, devices: [{pci: '0000:01:00.0', render: 128}, {pci: '0000:02:00.0'}]",
		"vendor: intel, devices: [{pci: '0000:01:00.0'}], count: {min: 0}",
		"vendor: intel, devices: [{pci: '0000:01:00.0'}], count: {max: 2}",
		"vendor: none, waivers: [{id: ns.pid, reason: reason enough}, {id: ns.net, reason: reason enough}]",
		"vendor: none, waivers: [{id: ns.pid, match: a, reason: reason enough}, {id: ns.pid, match: b, reason: reason enough}, {id: ns.pid, reason: reason enough}]",
		"vendor: none, extra_devices: ['c 510:0', 'c 510:1', 'c 511:0', 'c 510:*']",
		"vendor: none, inventory: [{minor: 0, agent: a}, {minor: 0, agent: b}]",
	} {
		p, err := ParsePolicy([]byte("gpu: {" + section + "}"))
		require.NoError(t, err, section)
		holds(t, p)
		again, err := ParsePolicy([]byte(p.YAML()))
		require.NoError(t, err, p.YAML())
		require.Equal(t, p, again)
	}
}

// TestPolicyYAMLOfOthers: a policy that a program made, in its time zone and with
// names that it did not choose.
func TestPolicyYAMLOfOthers(t *testing.T) {
	p := Policy{Vendor: VendorNone, Busy: BusyOff,
		Resolved:  &Resolved{BootID: "5f0c3a62-7a3f-4d0b-9b0a-0c2f4c1d2e3f", At: time.Date(2026, 11, 23, 14, 0, 0, 0, time.FixedZone("", 3600))},
		Inventory: []Known{{Minor: 0, GI: -1, CI: -1, Agent: "a\"}, off: \\b # é \U0001f512"}},
	}
	require.Contains(t, p.YAML(), "at: 2026-11-23T13:00:00Z}")
	again, err := ParsePolicy([]byte(p.YAML()))
	require.NoError(t, err, p.YAML())
	require.Equal(t, p.Inventory, again.Inventory)
	require.True(t, p.Resolved.At.Equal(again.Resolved.At))

	p.Inventory[0].Agent = "two\nlines: \x1b[31m\u202e"
	require.Equal(t, 4, strings.Count(p.YAML(), "\n  "), "three keys and an item, a line each")
	_, err = ParsePolicy([]byte(p.YAML()))
	require.ErrorContains(t, err, "gpu.inventory.agent: not one line of printable text")
}

// TestPCI: each spelling of an address, and the kernel's.
func TestPCI(t *testing.T) {
	for in, want := range map[string]string{
		"0000:81:00.0": "0000:81:00.0", "00000000:81:00.0": "0000:81:00.0", "0000:0A:1f.7": "0000:0a:1f.7",
		"00010000:E1:00.0": "10000:e1:00.0", "10000:e1:00.0": "10000:e1:00.0",
	} {
		got, ok := normalPCI(in)
		require.True(t, ok, in)
		require.Equal(t, want, got)
	}
	for _, in := range []string{
		"", "81:00.0", "000:81:00.0", "000000000:81:00.0", "0000:81:00", "0000:81:00.8", "0000:81:20.0", "0000:81:00.0.0", "0000:81:00.00", "0000:81:00.",
		"0000:1:00.0", "0000:81:0.0", "0000:gg:00.0", "xxxx:81:00.0", "0000:81:xx.0", "0000:81:00:00.0", "+000:81:00.0",
	} {
		_, ok := normalPCI(in)
		require.False(t, ok, in)
	}
}

// TestVersion: what the parts of a host say of themselves.
func TestVersion(t *testing.T) {
	for _, v := range []string{"580", "580.159.03", "1.17.8", "1.3.0-rc.3", "'1.10'", "1.10", "20.10.24+dfsg1", "1.1.5+ds1-1ubuntu1~22.04", "1.18.0~rc.1-1"} {
		p, err := ParsePolicy([]byte("gpu: {vendor: none, host: {runc: " + v + "}}"))
		require.NoError(t, err, v)
		require.Equal(t, strings.Trim(v, "'"), p.Host["runc"])
	}
}

// TestPolicyYAML: the text that people see.
func TestPolicyYAML(t *testing.T) {
	for text, want := range map[string]string{
		wholeGPU: `gpu:
  vendor: nvidia
  devices:
    - {uuid: GPU-1b7ad372-8d21-4239-8e32-63449f713690, pci: "0000:81:00.0"}
    - {pci: "0000:c1:00.0"}
  count: {min: 1, max: 3}
  extra_devices:
    - nvidia-uvm-tools
    - c 510:0
    - c 511:*
  enforcement: absence
  graphics: true
  idle_vram_mib: 512
  busy: deny
  min_driver: "580.159.03"
  host: {docker: "28.1", runc: "1.3.0-rc.3", toolkit: "1.17.8"}
  inventory:
    - {minor: 3, uuid: GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10, pci: "0000:82:00.0", agent: "gpuci.17"}
    - {uuid: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9}
    - {minor: 0, gi: 9, ci: 1, agent: "gpuci.4"}
  resolved: {boot_id: 5f0c3a62-7a3f-4d0b-9b0a-0c2f4c1d2e3f, at: 2026-11-23T13:00:00Z, driver: "580.159.03"}
  waivers:
    - {id: container.caps, match: "SYS_PTRACE", reason: "rocgdb tests attach to children", until: 2027-03-31}
    - {id: container.caps, match: "PERFMON", reason: "the profiler's tests"}
`,
		twoSlices: `gpu:
  vendor: nvidia
  devices:
    - {mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9, pci: "0000:01:00.0", gi: 9, ci: 0}
    - {uuid: GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10, mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b8, gi: 14, ci: 7}
  allow_shared_gi: true
`,
		amd: `gpu:
  vendor: amd
  devices:
    - {pci: "0000:03:00.0", unique_id: 7193870286350716105, render: 128, gpu_id: 51140}
    - {pci: "0000:03:00.0", unique_id: 1674950601, render: 129, gpu_id: 3421}
`,
		intel:     "gpu:\n  vendor: intel\n  devices:\n    - {pci: \"0000:00:02.0\", render: 128}\n  busy: off\n",
		noGPU:     "gpu:\n  vendor: none\n",
		turnedOff: "gpu:\n  off: \"the driver is being replaced\"\n",
	} {
		p, err := ParsePolicy([]byte(text))
		require.NoError(t, err)
		require.Equal(t, want, p.YAML())
	}
}

// TestPolicyErrorHoldsNoValue pastes a secret at every place of full policies.
func TestPolicyErrorHoldsNoValue(t *testing.T) {
	const secret = "Hunter2/Hunter2"
	tried := 0
	for _, policy := range allPolicies {
		for i := range policy {
			after := policy[i:]
			if i == 0 || !strings.HasSuffix(policy[:i], ": ") && !strings.HasSuffix(policy[:i], "- ") && !strings.HasSuffix(policy[:i], "[") {
				continue
			}
			rest := after[min(len(after), strings.IndexAny(after+"\n", ",}]\n")):]
			for _, pasted := range []string{secret, "GPU-" + secret, "MIG-" + secret, "MIG-GPU-" + secret, "'c " + secret + "'", "0x" + secret, "1-" + secret + "/", "@" + secret, "*" + secret, "&" + secret + " x", "!" + secret, "[" + secret + "]", `"` + secret, "|" + secret} {
				_, err := ParsePolicy([]byte(policy[:i] + pasted + rest))
				var e *strict.Error
				if err == nil {
					continue // a reason, an agent's name
				}
				require.ErrorAs(t, err, &e)
				tried++
				assert.NotContains(t, strings.ToLower(err.Error()+e.Hint()), "hunter2", "%s in %s", pasted, policy[:i])
			}
		}
	}
	require.Greater(t, tried, 500)
}

// FuzzParsePolicy: whatever the text, ParsePolicy returns a *strict.Error or a
// policy that holds what Check relies on, and that its own text says again.
func FuzzParsePolicy(f *testing.F) {
	for _, s := range allPolicies {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err != nil {
			var e *strict.Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Cause)
			require.Equal(t, Policy{}, p)
			return
		}
		again, err := ParsePolicy(text)
		require.NoError(t, err)
		require.Equal(t, p, again)
		if len(text) < strict.MaxFile/4 { // what is canonical may be longer
			again, err = ParsePolicy([]byte(p.YAML()))
			require.NoError(t, err, p.YAML())
			require.Equal(t, p, again)
			require.Equal(t, p.YAML(), again.YAML())
		}
		holds(t, p)
	})
}

// holds checks what is true of every policy.
func holds(t *testing.T, p Policy) {
	t.Helper()
	line := func(s string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	}
	if p.Off != "" {
		require.True(t, line(p.Off))
		require.Equal(t, Policy{Off: p.Off}, p)
		return
	}
	require.Contains(t, []Vendor{VendorNVIDIA, VendorAMD, VendorIntel, VendorNone}, p.Vendor)
	require.Equal(t, p.Vendor == VendorNone, len(p.Devices) == 0)
	require.True(t, 0 <= p.Min && p.Min <= p.Max && p.Min <= len(p.Devices), "%d to %d of %d", p.Min, p.Max, len(p.Devices))
	require.Contains(t, []Busy{BusyOff, BusyWarn, BusyDeny}, p.Busy)
	require.True(t, 0 <= p.IdleMiB && p.IdleMiB <= maxMiB)
	for i, d := range p.Devices {
		if d.PCI != "" {
			pci, ok := normalPCI(d.PCI)
			require.True(t, ok && pci == d.PCI)
		}
		require.True(t, d.UUID == "" || strings.HasPrefix(d.UUID, "GPU-") && IsUUID(d.UUID[4:]))
		require.True(t, d.MIG == "" || strings.HasPrefix(d.MIG, "MIG-") && IsUUID(d.MIG[4:]))
		require.True(t, d.MIG == "" && d.GI == -1 && d.CI == -1 || 0 <= d.GI && d.GI <= 14 && 0 <= d.CI && d.CI <= 7)
		require.True(t, d.UUID != "" || d.PCI != "" || d.MIG != "")
		require.True(t, d.Render == -1 || d.Render >= 128)
		require.True(t, p.Vendor == VendorNVIDIA || d.UUID == "" && d.MIG == "" && d.PCI != "")
		require.True(t, p.Vendor == VendorAMD || d.UniqueID == 0 && d.GPUID == 0)
		for _, e := range p.Devices[:i] {
			require.False(t, d.overlaps(e) || e.overlaps(d) || d == e)
		}
	}
	for _, family := range p.Families {
		require.Contains(t, Families, family)
	}
	for _, n := range p.Numbers {
		require.True(t, n.Major != 0 && n.Major != 195 && n.Major != 226 && n.Major <= maxMajor && n.Minor <= maxMinor)
	}
	for name, v := range p.Host {
		require.Contains(t, hostVersions, name)
		require.True(t, line(v))
	}
	for _, k := range p.Inventory {
		require.True(t, k.Minor >= 0 || k.UUID != "" || k.PCI != "")
		require.True(t, k.Agent == "" || line(k.Agent))
		require.True(t, k.GI < 0 && k.CI < 0 || 0 <= k.GI && k.GI <= 14 && -1 <= k.CI && k.CI <= 7 && k.Minor >= 0)
	}
	require.True(t, p.Resolved == nil || IsUUID(p.Resolved.BootID) && p.Resolved.At.Location() == time.UTC)
	seen := map[[2]string]bool{}
	for _, w := range p.Waivers {
		_, waivable, needsMatch := Waivable(w.ID)
		require.True(t, waivable && (w.Match != "" || !needsMatch))
		require.True(t, line(w.Reason) && utf8.RuneCountInString(w.Reason) >= minReason)
		seen[[2]string{w.ID, w.Match}] = true
	}
	require.Len(t, seen, len(p.Waivers))
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(p.Families))), len(p.Families))
}
