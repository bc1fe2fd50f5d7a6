package gpu

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	ownUUID = "GPU-1b7ad372-8d21-4239-8e32-63449f713690"
	ownPCI  = "0000:81:00.0"
)

// A scene is what Check is given; each row of a table changes one thing in it.
type scene struct {
	Facts
	Demand
}

// healthy is a hardened container with one of the host's NVIDIA GPUs.
func healthy() *scene {
	s := &scene{Facts: Facts{
		Platform: "linux", Method: Probed, BootID: "5f0c",
		Process: Process{
			Status: procfs.Status{CapEff: 0xa00405fb, CapBnd: 0xa00405fb, NoNewPrivs: true, Seccomp: 2},
			LSM:    "docker-default (enforce)", Users: []procfs.IDMap{{Inside: 0, Outside: 100000, Count: 65536}},
		},
		Namespaces: Namespaces{PID: 4026532671, User: 4026532664, IPC: 4026532669, UTS: 4026532668, Net: 4026532673, Mount: 4026532667},
		Majors: []procfs.Major{{Number: 195, Name: "nvidia"}, {Number: 226, Name: "drm"}, {Number: 234, Name: "kfd"}, {Number: 235, Name: "nvidia-caps"}, {Number: 508, Name: "nvidia-uvm"},
			{Number: 511, Name: "nvidia-caps-imex-channels"}, {Number: 510, Name: "nvidia-nvswitch"}, {Number: 509, Name: "nvidia-fs0"}, {Number: 231, Name: "infiniband_verbs"}},
		NVIDIA: NVIDIA{Driver: "580.159.03", Params: map[string]string{"ModifyDeviceFiles": "0", "RmProfilingAdminOnly": "1"}, Config: -1, Monitor: -1, IMEX: -1,
			GPUs: []NVIDIAGPU{{PCI: ownPCI, UUID: ownUUID, Minor: 2}}},
		Mounts: []procfs.Mount{
			{Root: "/", Point: "/", Type: "overlay", Source: "overlay"}, {Root: "/", Point: "/proc", Type: "proc", Source: "proc"},
			{Root: "/", Point: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}}, {Root: "/", Point: "/dev/shm", Type: "tmpfs", Source: "shm"},
			{Root: "/sys", Point: "/proc/sys", Type: "proc", Source: "proc", Options: []string{"ro"}},
		},
		Limits: Limits{Memory: "8g", PIDs: "8192", CPU: "4"},
	}, Demand: Demand{Now: now, Policy: &Policy{
		Vendor: VendorNVIDIA, Devices: []Device{{UUID: ownUUID, PCI: ownPCI, GI: -1, CI: -1, Render: -1}}, Min: 1, Max: 1, IdleMiB: 256, Busy: BusyOff,
	}}}
	s.allow("c 1:3", "c 195:2", "c 195:255", "c 508:0", "c 508:1")
	for _, n := range []devnode.Number{devnode.C(1, 1), devnode.C(195, 0), devnode.C(195, 1), devnode.C(195, 3), devnode.B(8, 0)} {
		s.read(n, devnode.Denied)
	}
	s.node(devnode.C(195, 2), "/dev/nvidia2")
	s.node(devnode.C(195, 255), "/dev/nvidiactl")
	s.node(devnode.C(508, 0), "/dev/nvidia-uvm")
	return s
}

func deviceOf(text string) devnode.Number {
	var kind byte
	var major, minor uint32
	if _, err := fmt.Sscanf(text, "%c %d:%d", &kind, &major, &minor); err != nil {
		panic(err)
	}
	return devnode.Number{Kind: devnode.Kind(kind), Major: major, Minor: minor}
}

// read puts the kernel's answer for a number.
func (s *scene) read(n devnode.Number, a devnode.Answer) *Reading {
	i, ok := slices.BinarySearchFunc(s.Readings, n, func(r Reading, n devnode.Number) int { return r.Number.Compare(n) })
	if !ok {
		s.Readings = slices.Insert(s.Readings, i, Reading{Number: n})
	}
	s.Readings[i].Access = devnode.Access{Read: a, Write: a}
	return &s.Readings[i]
}

func (s *scene) allow(numbers ...string) {
	for _, n := range numbers {
		s.read(deviceOf(n), devnode.Allowed)
	}
}

func (s *scene) deny(n string) { s.read(deviceOf(n), devnode.Denied) }
func (s *scene) node(n devnode.Number, path string) {
	s.read(n, devnode.Allowed).Nodes = []string{path}
}
func (s *scene) mount(m procfs.Mount) { s.Mounts = append(s.Mounts, m) }
func (s *scene) unread(from Source)   { s.Unread = map[Source]string{from: "permission denied"} }

// slice makes the policy's device a MIG slice, gi 9, ci 0 of minor 2.
func (s *scene) slice() {
	s.Policy.Devices[0].MIG, s.Policy.Devices[0].GI, s.Policy.Devices[0].CI = "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", 9, 0
	s.allow(fmt.Sprintf("c 235:%d", CapMinor(2, 9, -1)), fmt.Sprintf("c 235:%d", CapMinor(2, 9, 0)))
}

// amd makes it an AMD GPU.
func (s *scene) amd() {
	s.Policy.Vendor, s.Policy.Busy = VendorAMD, BusyWarn
	s.Policy.Devices = []Device{{PCI: "0000:03:00.0", UniqueID: 7193870286350716105, GI: -1, CI: -1, Render: -1}}
	s.deny("c 195:2")
	s.deny("c 195:255")
	s.allow("c 234:0")
	s.node(devnode.C(226, 128), "/dev/dri/renderD128")
	s.DRM = []DRM{{Name: "renderD128", Number: devnode.C(226, 128), PCI: "0000:03:00.0", Driver: "amdgpu", VRAMUsed: 26 << 20, VRAMTotal: 24 << 30, Uncorrected: 0}}
	s.KFD = KFD{Nodes: []KFDNode{{Node: 1, GPUID: 51140, Render: 128, UniqueID: 7193870286350716105}, {Node: 2, Denied: true, Render: -1}}}
}

// findings are those that deny or warn, as in "deny gpu.foreign".
func findings(r Report) []string {
	var all []string
	for _, f := range r.Findings {
		switch {
		case f.Waived != "":
			all = append(all, "waived "+f.ID)
		case f.Severity != Info:
			text := f.Severity.String() + " " + f.ID
			if f.Unknown {
				text += " unknown"
			}
			all = append(all, text)
		}
	}
	return all
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*scene)
		want   []string
		what   string // a part of the first finding
	}{
		{"healthy", func(s *scene) {}, nil, ""},
		{"a policy that can't be read", func(s *scene) { s.Policy, s.PolicyError = nil, errors.New("gpu.yml: mode 0666, writable by others") }, []string{"deny policy.trust"}, "gpu.yml: mode 0666"},
		{"a policy that jobs can write to", func(s *scene) { s.Policy.Path = "/etc/juliagpu-secrets/gpu.yml" }, []string{"deny policy.trust"}, "read-only"},
		{"a policy that jobs can write to, direct mode or users of their own", func(s *scene) { s.Policy.Path, s.Settled = "/etc/juliagpu-secrets/gpu.yml", true }, nil, ""},
		{"root's policy, and jobs are not root", func(s *scene) {
			s.Policy.Path, s.Process.UID, s.Process.EUID = "/etc/juliagpu-secrets/gpu.yml", 1000, 1000
		}, nil, ""},
		{"a policy on a read-only mount", func(s *scene) {
			s.Policy.Path = "/etc/juliagpu-secrets/gpu.yml"
			s.mount(procfs.Mount{Root: "/gpu/x.yml", Point: s.Policy.Path, Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}})
		}, nil, ""},
		{"no policy, a GPU", func(s *scene) { s.Policy = nil }, []string{"deny policy.trust"}, "can open 195:2"},
		{"no policy, numbers of no GPU", func(s *scene) { s.Policy, s.NVIDIA.GPUs = nil, nil }, []string{"deny policy.trust"}, "can open 195:2"},
		{"no policy, no GPU", func(s *scene) { s.Policy = nil; s.deny("c 195:2") }, nil, ""},
		{"checks turned off", func(s *scene) { s.Policy = &Policy{Off: "a virtual machine for each job"}; s.allow("c 195:3") }, nil, ""},

		{"1:3 denied", func(s *scene) { s.deny("c 1:3") }, []string{"deny probe.broken"}, "/dev/null"},
		{"1:3 not answered", func(s *scene) { s.read(devnode.C(1, 3), devnode.Unknown).Cause = "access: operation not permitted" }, []string{"deny probe.broken"}, "operation not permitted"},
		{"a setuid hook", func(s *scene) { s.Process.EUID = 1000 }, []string{"deny probe.broken"}, "effective user 1000"},
		{"no tmpfs", func(s *scene) { s.Method = NotAsked; s.unread(FromScratch) }, []string{"deny probe.broken"}, "tmpfs"},
		{"no tmpfs, none needed", func(s *scene) { s.Method = Listed; s.unread(FromScratch) }, nil, ""},
		{"privileged", func(s *scene) { s.allow("c 1:1", "c 195:3", "b 8:0", "c 195:254") }, []string{"deny devices.unrestricted", "deny host.block"}, "/dev/mem"},
		{"1:1 not answered", func(s *scene) { s.read(devnode.C(1, 1), devnode.Unknown) }, []string{"deny devices.unrestricted unknown"}, ""},
		{"no way to ask", func(s *scene) { s.Method = NotAsked }, []string{"deny probe.unknown unknown"}, "CapBnd"},
		{"rootless", func(s *scene) {
			s.Method = Listed
			s.Process.Users = []procfs.IDMap{{Inside: 0, Outside: 1000, Count: 1}, {Inside: 1, Outside: 100000, Count: 65536}}
		}, []string{"deny probe.unknown unknown"}, "rootless"},
		{"rootless, accepted", func(s *scene) {
			s.Method, s.Policy.Absence = Listed, true
			s.Process.Users = []procfs.IDMap{{Inside: 0, Outside: 1000, Count: 1}}
		}, nil, ""},

		{"another GPU", func(s *scene) { s.allow("c 195:3") }, []string{"deny gpu.foreign"}, "somebody else's GPU (195:3)"},
		{"another GPU, for reading", func(s *scene) { s.read(devnode.C(195, 3), devnode.Denied).Read = devnode.Allowed }, []string{"deny gpu.foreign"}, "195:3"},
		{"another GPU, for writing", func(s *scene) { s.read(devnode.C(195, 3), devnode.Denied).Write = devnode.Allowed }, []string{"deny gpu.foreign"}, "195:3"},
		{"another GPU, by name", func(s *scene) {
			s.allow("c 195:3")
			s.NVIDIA.GPUs = append(s.NVIDIA.GPUs, NVIDIAGPU{PCI: "0000:82:00.0", UUID: "GPU-99999999-8d21-4239-8e32-63449f713690", Minor: 3})
			s.Policy.Inventory = []Known{{Minor: 3, GI: -1, CI: -1, Agent: "gpuci.17"}}
		}, []string{"deny gpu.foreign"}, "can open GPU 0000:82:00.0 GPU-99999999 of agent gpuci.17 (195:3)"},
		{"another GPU, in the inventory alone", func(s *scene) {
			s.allow("c 195:3")
			s.Policy.Inventory = []Known{{Minor: 3, PCI: "0000:82:00.0", GI: -1, CI: -1, Agent: "gpuci.17"}}
		}, []string{"deny gpu.foreign"}, "can open GPU 0000:82:00.0 of agent gpuci.17 (195:3)"},
		{"another GPU, allowed besides", func(s *scene) { s.allow("c 195:3"); s.Policy.Numbers = []Pattern{{Major: 195, Minor: 3}} }, []string{"deny gpu.foreign"}, ""},
		{"another slice, allowed besides", func(s *scene) {
			s.slice()
			s.allow("c 235:1", "c 235:"+fmt.Sprint(CapMinor(2, 8, -1)))
			s.Policy.Numbers = []Pattern{{Major: 235, AllMinor: true}}
		}, []string{"deny mig.foreign", "deny mig.admin"}, ""},
		{"nvswitch, allowed besides", func(s *scene) { s.allow("c 510:3"); s.Policy.Numbers = []Pattern{{Major: 510, AllMinor: true}} }, nil, ""},
		{"another GPU, not answered", func(s *scene) { s.read(devnode.C(195, 3), devnode.Unknown).Cause = "mknod: operation not permitted" }, []string{"deny gpu.foreign unknown"}, "195:3: mknod"},
		{"all GPUs", func(s *scene) { s.allow("c 195:0", "c 195:1", "c 195:3") }, []string{"deny gpu.foreign", "deny gpu.foreign"}, "195:0 to 195:1"},
		{"a render node of nobody", func(s *scene) { s.allow("c 226:129") }, []string{"deny gpu.foreign"}, "226:129"},
		{"the own GPU's render node", func(s *scene) {
			s.allow("c 226:128")
			s.DRM = []DRM{{Name: "renderD128", Number: devnode.C(226, 128), PCI: ownPCI, Driver: "nvidia"}}
		}, nil, ""},
		{"the render node of a slice's GPU", func(s *scene) {
			s.Policy.Devices[0].GI, s.Policy.Devices[0].CI = 9, 0
			s.allow("c 235:354", "c 235:355", "c 226:128") // gi9/ci0 of minor 2
			s.DRM = []DRM{{Name: "renderD128", Number: devnode.C(226, 128), PCI: ownPCI, Driver: "nvidia"}}
		}, []string{"deny gpu.foreign"}, "226:128"},
		{"the own GPU's card", func(s *scene) {
			s.allow("c 226:1")
			s.DRM = []DRM{{Name: "card1", Number: devnode.C(226, 1), PCI: ownPCI, Driver: "nvidia"}}
		}, []string{"warn dev.family"}, "dri.card"},
		{"a GPU where none is meant", func(s *scene) {
			s.Policy = &Policy{Vendor: VendorNone}
			s.deny("c 195:255")
			s.deny("c 508:0")
		}, []string{"deny gpu.foreign"}, "195:2"},
		{"nvidiactl where no GPU is meant", func(s *scene) {
			s.Policy = &Policy{Vendor: VendorNone}
			s.deny("c 195:2")
			s.deny("c 508:0")
		}, []string{"deny gpu.foreign"}, "/dev/nvidiactl"},
		{"more GPUs than the policy's maximum", func(s *scene) {
			s.Policy.Devices = append(s.Policy.Devices, Device{PCI: "0000:82:00.0", GI: -1, CI: -1})
			s.NVIDIA.GPUs = append(s.NVIDIA.GPUs, NVIDIAGPU{PCI: "0000:82:00.0", Minor: 3})
			s.node(devnode.C(195, 3), "/dev/nvidia3")
		}, []string{"deny gpu.foreign"}, "count.max is 1"},
		{"sysfs can't be read", func(s *scene) { s.unread(FromDRM) }, []string{"deny gpu.foreign unknown"}, "/sys/class/drm"},

		{"a slice", (*scene).slice, nil, ""},
		{"a slice by its address alone", func(s *scene) { s.slice(); s.Policy.Devices[0].MIG, s.Policy.Devices[0].UUID = "", "" }, nil, ""},
		{"another slice", func(s *scene) { s.slice(); s.allow("c 235:" + fmt.Sprint(CapMinor(2, 8, -1))) }, []string{"deny mig.foreign"}, "gpu2/gi8 (235:345)"},
		{"another GPU's slice", func(s *scene) { s.slice(); s.allow("c 235:" + fmt.Sprint(CapMinor(1, 9, -1))) }, []string{"deny mig.foreign"}, "gpu1/gi9"},
		{"another slice, of whom", func(s *scene) {
			s.slice()
			s.allow("c 235:" + fmt.Sprint(CapMinor(2, 8, -1)))
			s.Policy.Inventory = []Known{{Minor: 1, GI: 8, CI: 0, Agent: "gpuci.1"}, {Minor: 2, GI: 8, CI: 0, Agent: "gpuci.17"}, {Minor: 2, GI: 8, CI: 1, Agent: "gpuci.18"}, {Minor: 2, GI: 8, CI: 2, Agent: "gpuci.17"}}
		}, []string{"deny mig.foreign"}, "gpu2/gi8 of agent gpuci.17, gpuci.18 (235:345)"},
		{"another part of the slice, of whom", func(s *scene) {
			s.slice()
			s.allow("c 235:" + fmt.Sprint(CapMinor(2, 9, 1)))
			s.Policy.Inventory = []Known{{Minor: 2, GI: 9, CI: 0, Agent: "gpuci.17"}, {Minor: 2, GI: 9, CI: 1, Agent: "gpuci.18"}}
		}, []string{"deny mig.foreign"}, "gpu2/gi9/ci1 of agent gpuci.18 (235:356)"},
		{"another GPU, of which somebody has a slice", func(s *scene) {
			s.allow("c 195:3")
			s.Policy.Inventory = []Known{{Minor: 3, PCI: "0000:82:00.0", GI: 8, CI: 0, Agent: "gpuci.17"}, {Minor: 3, UUID: "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", GI: -1, CI: -1, Agent: "gpuci.18"}}
		}, []string{"deny gpu.foreign"}, "somebody else's GPU (195:3)"},
		{"slices of the own whole GPU", func(s *scene) { s.allow("c 235:" + fmt.Sprint(CapMinor(2, 9, -1))) }, nil, ""},
		{"another part of the slice", func(s *scene) { s.slice(); s.allow("c 235:" + fmt.Sprint(CapMinor(2, 9, 1))) }, []string{"deny mig.foreign"}, "gpu2/gi9/ci1"},
		{"another part of the slice, shared", func(s *scene) {
			s.slice()
			s.Policy.AllowSharedGI = true
			s.allow("c 235:" + fmt.Sprint(CapMinor(2, 9, 1)))
		}, nil, ""},
		{"mig/config", func(s *scene) { s.slice(); s.allow("c 235:1") }, []string{"deny mig.admin"}, "mig/config (235:1)"},
		{"mig/config, waived", func(s *scene) {
			s.slice()
			s.allow("c 235:1")
			s.Policy.Waivers = []Waiver{{ID: "mig.admin", Match: "mig/config", Reason: "it must not be"}}
		}, []string{"deny mig.admin", "warn policy.waiver"}, ""},
		{"mig/monitor, waived", func(s *scene) {
			s.slice()
			s.allow("c 235:2")
			s.Policy.Waivers = []Waiver{{ID: "mig.admin", Match: "mig/monitor", Reason: "an exporter of metrics"}}
		}, []string{"waived mig.admin"}, ""},
		{"fabric-mgmt", func(s *scene) { s.allow("c 235:0") }, []string{"deny mig.admin"}, "fabric-mgmt"},
		{"fabric-imex-mgmt", func(s *scene) { s.allow("c 235:4323") }, []string{"deny mig.admin"}, "fabric-imex-mgmt"},
		{"an imex channel", func(s *scene) { s.allow("c 511:0") }, []string{"deny mig.admin"}, "imex channel 0"},
		{"an imex channel, meant", func(s *scene) { s.allow("c 511:0"); s.Policy.Families = []string{"nvidia-imex"} }, nil, ""},
		{"another table of minors", func(s *scene) {
			s.slice()
			s.NVIDIA.Table = []Instance{{GPU: 2, GI: 9, CI: -1, Minor: 363}}
			s.allow("c 235:75")
		}, []string{"deny mig.layout"}, "minor 363 for gpu2/gi9"},
		{"a slice made anew", func(s *scene) {
			s.slice()
			s.deny(fmt.Sprintf("c 235:%d", CapMinor(2, 9, -1)))
			s.deny(fmt.Sprintf("c 235:%d", CapMinor(2, 9, 0)))
			s.allow(fmt.Sprintf("c 235:%d", CapMinor(2, 11, -1)))
		}, []string{"deny mig.identity"}, "has gpu2/gi11"},
		{"a slice that the driver does not know", func(s *scene) {
			s.slice()
			s.NVIDIA.Instances = []Instance{{GPU: 2, GI: 7, CI: 0, Minor: CapMinor(2, 7, 0)}}
		}, []string{"deny mig.identity"}, "does not have any more"},
		{"a slice without its capability", func(s *scene) { s.slice(); s.deny(fmt.Sprintf("c 235:%d", CapMinor(2, 9, 0))) }, []string{"deny gpu.unusable"}, "nvidia-cap355"},
		{"a slice that was not resolved", func(s *scene) { s.slice(); s.Policy.Devices[0].GI = -1 }, []string{"deny mig.foreign", "deny mig.identity unknown"}, "gi9"},

		{"the host's processes", func(s *scene) { s.Namespaces.PID = 4026531836; s.Peers.Visible = 412 }, []string{"deny ns.pid"}, "412 processes"},
		{"a readable neighbour", func(s *scene) { s.Peers.Readable = []Peer{{4711, "+++ x\x1b[31m"}} }, []string{"deny peer.readable"}, `4711 ("+++ x\x1b[31m")`},
		{"a neighbour that can't be read", func(s *scene) { s.Peers.Shared = true }, []string{"warn peer.readable"}, "shares its processes"},
		{"the host's processes, none readable", func(s *scene) { s.Peers.Shared, s.Namespaces.PID = true, procfs.InitialPID }, []string{"deny ns.pid"}, ""},
		{"too many processes", func(s *scene) { s.unread(FromProcesses) }, []string{"deny peer.readable unknown"}, "/proc"},
		{"the engine's socket", func(s *scene) { s.Sockets = []Socket{{Path: "/var/run/docker.sock", Of: Engine, Answers: true}} }, []string{"deny host.socket"}, "/var/run/docker.sock"},
		{"a dead socket", func(s *scene) {
			s.Sockets = []Socket{{Path: "/var/run/docker.sock", Of: Engine, Cause: "connection refused"}}
		}, []string{"warn host.socket"}, "nobody answers now: connection refused"},
		{"a capability", func(s *scene) { s.Process.CapBnd |= 1 << 21 }, []string{"deny container.caps"}, "the container can have the capabilities SYS_ADMIN"},
		{"capabilities", func(s *scene) { s.Process.CapBnd |= 1<<21 | 1<<19 }, []string{"deny container.caps"}, "SYS_PTRACE, SYS_ADMIN"},
		{"a capability, waived", func(s *scene) {
			s.Process.CapBnd |= 1<<21 | 1<<19
			s.Waivers = []Waiver{{ID: "container.caps", Match: "SYS_PTRACE", Reason: "rocgdb attaches to children"}}
		}, []string{"deny container.caps", "waived container.caps"}, "capabilities SYS_ADMIN"},
		{"NET_ADMIN in a network of its own", func(s *scene) { s.Process.CapBnd |= 1 << 12 }, nil, ""},
		{"NET_ADMIN in the host's", func(s *scene) { s.Process.CapBnd |= 1 << 12; s.Namespaces.Net = 4026531833 }, []string{"deny container.caps", "deny ns.net"}, "NET_ADMIN"},
		{"no status", func(s *scene) { s.unread(FromStatus) }, []string{"deny probe.broken unknown", "deny container.caps unknown", "deny container.lsm unknown", "warn container.nnp unknown"}, ""},
		{"no seccomp", func(s *scene) { s.Process.Seccomp = 0 }, []string{"deny container.lsm"}, "seccomp"},
		{"unconfined", func(s *scene) { s.Process.LSM = "unconfined" }, []string{"warn container.lsm"}, "unconfined"},
		{"SELinux, unconfined", func(s *scene) { s.Process.LSM = "system_u:system_r:spc_t:s0" }, []string{"warn container.lsm"}, "spc_t"},
		{"a disk", func(s *scene) { s.allow("b 8:0") }, []string{"deny host.block"}, "disk 8:0"},
		{"a disk by commands", func(s *scene) {
			s.Majors = append(s.Majors, procfs.Major{Number: 21, Name: "sg"}, procfs.Major{Number: 240, Name: "nvme-generic"})
			s.allow("c 21:3", "c 240:0")
		}, []string{"deny host.block"}, "/dev/sg of 21:3, /dev/nvme-generic of 240:0"},
		{"a console", func(s *scene) { s.allow("c 4:1") }, []string{"deny host.block"}, "/dev/tty1"},
		{"a serial port", func(s *scene) { s.allow("c 4:64") }, nil, ""},
		{"/dev/uinput", func(s *scene) { s.allow("c 10:223") }, []string{"deny host.block"}, "/dev/uinput"},
		{"/dev/kvm", func(s *scene) { s.allow("c 10:232") }, []string{"deny host.block"}, "/dev/kvm"},
		{"/dev/kvm, waived", func(s *scene) {
			s.allow("c 10:232")
			s.Waivers = []Waiver{{ID: "host.block", Match: "/dev/kvm", Reason: "jobs that start machines"}}
		}, []string{"waived host.block"}, ""},

		{"another UUID in the place", func(s *scene) { s.NVIDIA.GPUs[0].UUID = "GPU-00000000-8d21-4239-8e32-63449f713690" }, []string{"deny gpu.identity"}, "is GPU-00000000"},
		{"the UUID in another place", func(s *scene) { s.NVIDIA.GPUs[0].PCI = "0000:82:00.0" }, []string{"deny gpu.identity"}, "is at 0000:82:00.0"},
		{"another GPU altogether", func(s *scene) {
			s.NVIDIA.GPUs = []NVIDIAGPU{{PCI: "0000:82:00.0", UUID: "GPU-00000000-8d21-4239-8e32-63449f713690", Minor: 2}}
		}, []string{"deny gpu.identity"}, "this container has GPU GPU-00000000"},
		{"a UUID that the driver does not know yet", func(s *scene) { s.NVIDIA.GPUs[0].UUID = "" }, nil, ""},
		{"another minor", func(s *scene) {
			s.NVIDIA.GPUs[0].Minor = 1
			s.deny("c 195:2")
			s.node(devnode.C(195, 1), "/dev/nvidia1")
		}, nil, ""},
		{"revoked", func(s *scene) {
			for _, n := range []string{"c 195:2", "c 195:255", "c 508:0"} {
				s.deny(n)
			}
		}, []string{"deny gpu.denied"}, "/dev/nvidia2 (195:2) is there, but the kernel refuses"},
		{"read-only", func(s *scene) { s.read(devnode.C(195, 2), devnode.Allowed).Write = devnode.Denied }, []string{"deny gpu.denied"}, ""},
		{"own GPU not answered", func(s *scene) { s.read(devnode.C(195, 2), devnode.Unknown).Cause = "permission denied" }, []string{"deny gpu.denied unknown"}, ""},
		{"not there", func(s *scene) { s.NVIDIA.GPUs = nil; s.deny("c 195:2") }, []string{"deny gpu.missing"}, ownUUID},
		{"not in the container", func(s *scene) { s.read(devnode.C(195, 2), devnode.Denied).Nodes = nil }, []string{"deny gpu.missing"}, "195:2"},
		{"no node", func(s *scene) { s.read(devnode.C(195, 2), devnode.Allowed).Nodes = nil }, []string{"deny gpu.missing"}, "no node"},
		{"no minor", func(s *scene) { s.NVIDIA.GPUs[0].Minor = -1; s.deny("c 195:2") }, []string{"deny gpu.missing unknown"}, ""},
		{"one of two may be missing", func(s *scene) {
			s.Policy.Devices = append(s.Policy.Devices, Device{PCI: "0000:82:00.0", GI: -1, CI: -1})
		}, nil, ""},
		{"one of two is missing", func(s *scene) {
			s.Policy.Devices, s.Policy.Min = append(s.Policy.Devices, Device{PCI: "0000:82:00.0", GI: -1, CI: -1}), 2
		}, []string{"deny gpu.missing"}, "0000:82:00.0"},
		{"no nvidiactl", func(s *scene) { s.deny("c 195:255") }, []string{"deny gpu.unusable"}, "/dev/nvidiactl"},
		{"no uvm", func(s *scene) { s.deny("c 508:0") }, []string{"deny gpu.unusable"}, "/dev/nvidia-uvm"},
		{"no uvm driver", func(s *scene) { s.Majors = s.Majors[:4] }, []string{"deny gpu.unusable"}, "nvidia-uvm"},
		{"no caps driver", func(s *scene) { s.slice(); s.Majors = slices.Delete(s.Majors, 3, 4) }, []string{"deny gpu.unusable"}, "nvidia-caps"},
		{"a step that wants a GPU", func(s *scene) {
			s.Policy, s.Step.GPU = &Policy{Vendor: VendorNone}, true
			s.Readings = nil
			s.allow("c 1:3")
			s.deny("c 1:1")
		}, []string{"deny gpu.missing"}, "demands a GPU"},
		{"a step that wants a GPU, no policy", func(s *scene) { s.Policy, s.Step.GPU = nil, true; s.deny("c 195:2") }, []string{"deny gpu.missing"}, "demands a GPU"},
		{"a step that wants more memory", func(s *scene) { s.amd(); s.Step.MinVRAMMiB = 32 << 10 }, []string{"deny gpu.missing"}, "24576 MiB"},
		{"a step that wants memory of unknown size", func(s *scene) { s.Step.MinVRAMMiB = 1000 }, []string{"deny gpu.missing unknown"}, "not known"},
		{"a step that wants the memory there is", func(s *scene) { s.amd(); s.Step.MinVRAMMiB = 24 << 10 }, nil, ""},

		{"modeset", func(s *scene) { s.allow("c 195:254") }, []string{"warn dev.family"}, "nvidia-modeset (195:254)"},
		{"modeset, meant", func(s *scene) { s.allow("c 195:254"); s.Policy.Families = []string{"nvidia-modeset"} }, nil, ""},
		{"nvswitch", func(s *scene) { s.allow("c 510:3") }, []string{"deny dev.family"}, "nvidia-nvswitch"},
		{"nvidia-fs", func(s *scene) { s.allow("c 509:0") }, []string{"deny dev.family"}, "nvidia-fs"},
		{"infiniband", func(s *scene) { s.allow("c 231:192") }, []string{"deny dev.family"}, "infiniband"},
		{"rdma_cm", func(s *scene) { s.node(devnode.C(10, 122), "/dev/infiniband/rdma_cm") }, []string{"deny dev.family"}, "infiniband"},

		{"AMD", (*scene).amd, nil, ""},
		{"AMD, the driver opens another", func(s *scene) { s.amd(); s.KFD.Nodes[1] = KFDNode{Node: 2, GPUID: 3421, Render: 129} }, []string{"deny gpu.foreign"}, "gpu_id 3421"},
		{"AMD, another", func(s *scene) {
			s.amd()
			s.allow("c 226:129", "c 226:1")
			s.DRM = append(s.DRM, DRM{Name: "renderD129", Number: devnode.C(226, 129), PCI: "0000:43:00.0", Driver: "amdgpu"}, DRM{Name: "card1", Number: devnode.C(226, 1), PCI: "0000:43:00.0", Driver: "amdgpu"})
			s.KFD.Nodes[1] = KFDNode{Node: 2, GPUID: 3421, Render: 129}
		}, []string{"deny gpu.foreign"}, "the GPU at 0000:43:00.0 (226:1, 226:129)"},
		{"AMD, another one's unique_id", func(s *scene) { s.amd(); s.KFD.Nodes[0].UniqueID = 5 }, []string{"deny gpu.identity"}, "unique_id 5"},
		{"AMD, partitions", func(s *scene) {
			s.amd()
			s.DRM = append(s.DRM, DRM{Name: "renderD129", Number: devnode.C(226, 129), PCI: "0000:03:00.0", Driver: "amdgpu"})
		}, []string{"deny gpu.identity unknown"}, "several render nodes"},
		{"AMD, another partition", func(s *scene) {
			s.amd()
			s.Policy.Devices[0].Render = 128
			s.DRM = append(s.DRM, DRM{Name: "renderD129", Number: devnode.C(226, 129), PCI: "0000:03:00.0", Driver: "amdgpu"})
			s.allow("c 226:129")
		}, []string{"deny gpu.foreign"}, "another part"},
		{"AMD, moved", func(s *scene) { s.amd(); s.DRM[0].PCI = "0000:04:00.0" }, []string{"deny gpu.identity"}, "0000:04:00.0"},
		{"AMD, no kfd", func(s *scene) { s.amd(); s.deny("c 234:0") }, []string{"deny gpu.unusable"}, "/dev/kfd"},
		{"AMD, in use", func(s *scene) { s.amd(); s.DRM[0].VRAMUsed = 300 << 20 }, []string{"warn gpu.busy"}, "300 of 24576 MiB"},
		{"AMD, in use, strict", func(s *scene) { s.amd(); s.DRM[0].VRAMUsed = 300 << 20; s.Policy.Busy = BusyDeny }, []string{"deny gpu.busy"}, ""},
		{"AMD, in use, a strict step", func(s *scene) { s.amd(); s.DRM[0].VRAMUsed = 300 << 20; s.Step.BusyDeny = true }, []string{"deny gpu.busy"}, ""},
		{"AMD, in use, a strict step on a lenient agent", func(s *scene) { s.amd(); s.DRM[0].VRAMUsed = 300 << 20; s.Step.BusyDeny, s.Policy.Busy = true, BusyOff }, []string{"deny gpu.busy"}, ""},
		{"AMD, in use, nobody asks", func(s *scene) { s.amd(); s.DRM[0].VRAMUsed = 300 << 20; s.Policy.Busy = BusyOff }, nil, ""},
		{"AMD, leftover", func(s *scene) { s.amd(); s.KFD.Used = []KFDUse{{4711, 51140, 4096}, {4712, 3421, 4096}} }, []string{"warn gpu.leftover"}, "1 of the host's processes"},
		{"AMD, memory errors", func(s *scene) { s.amd(); s.DRM[0].Uncorrected = 2 }, []string{"warn gpu.health"}, "2 memory errors"},
		{"Intel", func(s *scene) {
			s.amd()
			s.Policy.Vendor = VendorIntel
			s.DRM[0].Driver, s.KFD = "i915", KFD{}
			s.deny("c 234:0")
			s.Policy.Devices[0].UniqueID = 0
		}, nil, ""},

		{"a process holds the GPU", func(s *scene) { s.Peers.Holders = []Peer{{77, "python3"}} }, []string{"warn gpu.leftover"}, "77 (python3)"},
		{"nvidia-smi counts processes", func(s *scene) { s.SMI = SMI{Asked: true, Processes: 1} }, []string{"warn gpu.leftover"}, "counts 1"},
		{"nvidia-smi fails", func(s *scene) { s.SMI.Asked, s.Policy.Busy = true, BusyWarn; s.unread(FromSMI) }, []string{"warn gpu.busy unknown", "warn gpu.health unknown"}, "permission denied"},
		{"in use", func(s *scene) {
			s.Policy.Busy = BusyWarn
			s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, UsedMiB: 900, TotalMiB: 16384}}}
		}, []string{"warn gpu.busy"}, "900 of 16384 MiB"},
		{"a slice in use", func(s *scene) {
			s.slice()
			s.Policy.Busy = BusyDeny
			s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, UsedMiB: -1, TotalMiB: -1}}, Instances: []SMIInstance{{PCI: ownPCI, GI: 9, CI: 0, UsedMiB: 900, TotalMiB: 4864}}}
		}, []string{"deny gpu.busy"}, "900 of 4864 MiB"},
		{"needs a reset", func(s *scene) { s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, Recovery: "GPU Reset"}}} }, []string{"deny gpu.health"}, "GPU Reset"},
		{"needs to be drained", func(s *scene) { s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, Recovery: "Drain P2P"}}} }, []string{"warn gpu.health"}, "Drain"},
		{"ECC", func(s *scene) { s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, Uncorrected: 3}}} }, []string{"warn gpu.health"}, "= 3"},
		{"row remap", func(s *scene) { s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, RemapFailed: "Yes"}}} }, []string{"warn gpu.health"}, "remapped_rows.failure"},
		{"prohibited", func(s *scene) { s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, ComputeMode: "Prohibited"}}} }, []string{"deny gpu.mode"}, "Prohibited"},
		{"exclusive", func(s *scene) {
			s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, ComputeMode: "Exclusive_Process"}}}
		}, []string{"warn gpu.mode"}, "Exclusive"},
		{"another boot", func(s *scene) { s.Policy.Resolved = &Resolved{BootID: "aaaa"} }, []string{"deny policy.stale"}, "aaaa"},
		{"the same boot", func(s *scene) { s.Policy.Resolved = &Resolved{BootID: "5f0c"} }, nil, ""},
		{"another driver", func(s *scene) { s.Policy.Resolved = &Resolved{BootID: "5f0c", Driver: "570.1"} }, []string{"deny policy.stale"}, "570.1, and this is 580.159.03"},
		{"the same driver", func(s *scene) { s.Policy.Resolved = &Resolved{BootID: "5f0c", Driver: "580.159.03"} }, nil, ""},
		{"a driver that does not say which", func(s *scene) {
			s.Policy.Resolved = &Resolved{BootID: "5f0c", Driver: "570.1"}
			s.NVIDIA.Driver = ""
		}, nil, ""},
		{"an unknown boot", func(s *scene) { s.Policy.Resolved = &Resolved{BootID: "5f0c"}; s.BootID = ""; s.unread(FromBootID) }, []string{"deny policy.stale unknown"}, ""},

		{"MPS", func(s *scene) { s.Sockets = []Socket{{Path: "/tmp/nvidia-mps/control", Of: MPS, Answers: true}} }, []string{"deny ipc.mps"}, "/tmp/nvidia-mps"},
		{"a dead MPS", func(s *scene) { s.Sockets = []Socket{{Path: "/tmp/nvidia-mps/control", Of: MPS}} }, []string{"warn ipc.mps"}, ""},
		{"fabric manager", func(s *scene) {
			s.Sockets = []Socket{{Path: "/run/nvidia-fabricmanager/socket", Of: FabricManager, Answers: true}}
		}, []string{"warn ipc.mps"}, ""},
		{"persistence daemon", func(s *scene) {
			s.Sockets = []Socket{{Path: "/run/nvidia-persistenced/socket", Of: Persistenced, Answers: true}}
		}, nil, ""},
		{"host's ipc", func(s *scene) { s.Namespaces.IPC = 4026531839 }, []string{"deny ns.ipc"}, ""},
		{"a volume at /dev/shm", func(s *scene) { s.Mounts[3].Root = "/shared" }, []string{"deny ns.ipc"}, "volume"},
		{"the host's /dev/shm", func(s *scene) { s.Mounts[3].Source, s.Mounts[3].Options = "tmpfs", []string{"rw", "nosuid", "nodev"} }, []string{"deny ns.ipc"}, "volume"},
		{"a tmpfs at /dev/shm", func(s *scene) {
			s.Mounts[3].Source, s.Mounts[3].Options = "tmpfs", []string{"rw", "nosuid", "nodev", "noexec"}
		}, nil, ""},
		{"a tmpfs with a size at /dev/shm", func(s *scene) { s.Mounts[3].Source, s.Mounts[3].Super = "tmpfs", []string{"rw", "size=2097152k"} }, nil, ""},
		{"the kernel's settings", func(s *scene) { s.Namespaces.User, s.Mounts = 4026531837, s.Mounts[:4] }, []string{"deny host.mounts"}, "/proc/sys"},
		{"the kernel's settings, root of another namespace", func(s *scene) { s.Mounts = s.Mounts[:4] }, nil, ""},
		{"host's network", func(s *scene) { s.Namespaces.Net = 4026531833 }, []string{"deny ns.net"}, ""},
		{"host's network, older kernel", func(s *scene) { s.Net = Net{Physical: []string{"eno1"}, Systemd: true} }, []string{"deny ns.net"}, ""},
		{"host's name", func(s *scene) { s.Namespaces.UTS = 4026531838 }, nil, ""},
		{"no_new_privs", func(s *scene) { s.Process.NoNewPrivs = false }, []string{"warn container.nnp"}, ""},
		{"root of the host", func(s *scene) { s.Namespaces.User = 4026531837 }, nil, ""},
		{"root of the host, a volume", func(s *scene) {
			s.Namespaces.User = 4026531837
			s.mount(procfs.Mount{Root: "/srv/x", Point: "/cache", Type: "ext4", Source: "/dev/sda1", Options: []string{"rw"}})
		}, []string{"warn container.userns"}, "/cache"},
		{"a home that stays", func(s *scene) {
			s.mount(procfs.Mount{Root: "/srv/x", Point: "/root", Type: "ext4", Source: "/dev/sda1", Options: []string{"rw", "nosuid", "nodev"}})
			s.Homes = []Home{{Path: "/root", Startup: []string{".bashrc"}}}
		}, []string{"warn persist.home"}, ".bashrc"},
		{"a home that is emptied", func(s *scene) {
			s.mount(procfs.Mount{Root: "/srv/x", Point: "/root", Type: "ext4", Source: "/dev/sda1", Options: []string{"rw", "nosuid", "nodev"}})
			s.Homes = []Home{{Path: "/root", Emptied: true}}
		}, nil, ""},
		{"a home that goes", func(s *scene) { s.Homes = []Home{{Path: "/root", Startup: []string{".bashrc"}}} }, nil, ""},
		{"a preload", func(s *scene) { s.Preload = "/tmp/x.so" }, []string{"warn loader.tampered"}, "/tmp/x.so"},
		{"a writable nvidia-smi", func(s *scene) {
			s.mount(procfs.Mount{Root: "/srv/nvidia-smi", Point: "/usr/bin/nvidia-smi", Type: "ext4"})
		}, []string{"warn loader.tampered"}, ""},
		{"an old toolkit", func(s *scene) { s.Policy.Host = map[string]string{"toolkit": "1.17.7"} }, []string{"warn host.versions"}, "CVE-2025-23266 (fixed in 1.17.8)"},
		{"an old runc", func(s *scene) { s.Policy.Host = map[string]string{"runc": "1.2.7"} }, []string{"warn host.versions"}, "CVE-2025-31133"},
		{"current versions", func(s *scene) { s.Policy.Host = map[string]string{"toolkit": "1.18.1", "runc": "1.4.3"} }, nil, ""},
		{"an old driver", func(s *scene) { s.Policy.MinDriver = "580.200" }, []string{"warn host.versions"}, "580.159.03"},
		{"a new driver", func(s *scene) { s.Policy.MinDriver = "580.95.05" }, nil, ""},
		{"ModifyDeviceFiles", func(s *scene) { s.NVIDIA.Params["ModifyDeviceFiles"] = "1" }, []string{"warn host.params"}, ""},
		{"profiling", func(s *scene) { s.NVIDIA.Params["RmProfilingAdminOnly"] = "0" }, nil, ""},
		{"no limits", func(s *scene) { s.Limits = Limits{} }, nil, ""},
		{"variables", func(s *scene) { s.Env = map[string]string{"CUDA_VISIBLE_DEVICES": "0"} }, nil, ""},

		{"a waiver that ended", func(s *scene) {
			s.Process.Seccomp = 0
			s.Waivers = []Waiver{{ID: "container.lsm", Reason: "NUMA tests need it", Until: now.AddDate(0, 0, -1).Truncate(24 * time.Hour)}}
		}, []string{"deny container.lsm", "warn policy.waiver"}, ""},
		{"a waiver on its last day", func(s *scene) {
			s.Process.Seccomp = 0
			s.Waivers = []Waiver{{ID: "container.lsm", Reason: "NUMA tests need it", Until: now.Truncate(24 * time.Hour)}}
		}, []string{"waived container.lsm"}, ""},
		{"a waiver for nothing", func(s *scene) { s.Waivers = []Waiver{{ID: "container.lsm", Reason: "NUMA tests need it"}} }, []string{"warn policy.waiver"}, "covers nothing"},
		{"a waiver of what can't be waived", func(s *scene) {
			s.allow("c 195:3")
			s.Waivers = []Waiver{{ID: "gpu.foreign", Reason: "it must not be"}}
		}, []string{"deny gpu.foreign", "warn policy.waiver"}, ""},

		{"a machine of one trust level", func(s *scene) {
			s.Host, s.Policy = "a developer's machine", nil
			s.allow("c 1:1", "b 8:0", "c 195:3")
			s.Process.Seccomp, s.Namespaces.PID = 0, 4026531836
		}, nil, ""},
		{"a machine of one trust level, with a policy", func(s *scene) {
			s.Host = "a developer's machine"
			s.allow("c 1:1", "c 195:0", "c 195:254")
			s.node(devnode.C(195, 3), "/dev/nvidia3")
		}, []string{"deny gpu.foreign"}, "195:3"},
		{"a machine of one trust level, with a policy for what is there", func(s *scene) { s.Host = "a developer's machine"; s.allow("c 1:1", "c 195:3", "c 195:254") }, nil, ""},
		{"a plugin's advice", func(s *scene) { s.Advice = true; s.allow("c 195:3") }, []string{"warn gpu.foreign"}, ""},
		{"a plugin's advice, the step's demand", func(s *scene) { s.Advice, s.Policy, s.Step.GPU = true, nil, true; s.deny("c 195:2") }, []string{"deny gpu.missing"}, ""},
		{"early", func(s *scene) {
			s.Early = true
			s.Process.Seccomp = 0
			s.NVIDIA.GPUs = nil
			s.deny("c 195:2")
			s.allow("c 195:3")
		}, []string{"deny gpu.foreign"}, ""},
		{"another system", func(s *scene) { s.Facts = Facts{Platform: "darwin"} }, []string{"deny probe.broken unknown"}, "darwin"},
		{"another system, of one trust level", func(s *scene) { s.Facts, s.Host = Facts{Platform: "darwin"}, "a developer's machine" }, nil, ""},
		{"another system, a step that wants a GPU", func(s *scene) { s.Facts, s.Host, s.Step.GPU = Facts{Platform: "darwin"}, "a developer's machine", true }, []string{"deny gpu.missing unknown"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := healthy()
			tt.change(s)
			r := Check(s.Facts, s.Demand)
			require.Equal(t, tt.want, findings(r), "%s", strings.Join(r.Lines(), "\n"))
			if tt.what != "" {
				require.Contains(t, r.Findings[0].What, tt.what)
			}
		})
	}
}

// mounts that lead out of a container, and mounts that do not.
func TestHostMounts(t *testing.T) {
	for _, tt := range []struct {
		line string // root point options type source super
		out  bool
	}{
		{"/ /host rw ext4 /dev/sda1 rw", true},
		{"/ / rw ext4 /dev/sda1 rw", true},
		{"/etc/cron.d /x ro ext4 /dev/sda1 rw", true},
		{"/home/x /root rw ext4 /dev/sda1 rw", true},
		{"/home/cache /cache rw,nosuid,nodev ext4 /dev/sda1 rw", false},
		{"/srv/cache /cache rw ext4 /dev/sda1 rw", false},
		{"/var/lib/docker /x rw ext4 /dev/sda1 rw", true},
		{"/var/lib/docker/containers/ab/hosts /etc/hosts rw ext4 /dev/sda1 rw", false},
		{"/var/lib/docker/containers/ab/resolv.conf /etc/resolv.conf rw ext4 /dev/sda1 rw", false},
		{"/var/lib/docker/volumes/depot/_data /depot rw ext4 /dev/sda1 rw", false},
		{"/usr/lib/libcuda.so.580 /usr/lib/libcuda.so.580 ro ext4 /dev/sda1 rw", false},
		{"/etc/vulkan/icd.d/nvidia_icd.json /etc/vulkan/icd.d/nvidia_icd.json ro ext4 /dev/sda1 rw", false},
		{"/gpu/gpuci.3.yml /etc/juliagpu-secrets/gpu.yml ro tmpfs tmpfs rw,mode=755", false},
		{"/gpu/gpuci.3.yml /etc/juliagpu-secrets/gpu.yml rw tmpfs tmpfs rw,mode=755", true},
		{"/juliagpu-secrets/x /run/juliagpu-secrets rw tmpfs tmpfs rw,mode=755", false},
		{"/nvidia-persistenced/socket /run/nvidia-persistenced/socket rw tmpfs tmpfs rw,mode=755", false},
		{"/systemd /x rw tmpfs tmpfs rw,mode=755", true},
		{"/ /run rw tmpfs tmpfs rw", false},
		{"/ /host/proc rw proc proc rw", true},
		{"/sys /proc/sys ro proc proc rw", false},
		{"/sys /proc/sys rw proc proc rw", true},
		{"/ /sys rw sysfs sysfs rw", true},
		{"/ /sys/fs/cgroup rw cgroup2 cgroup rw", true},
		{"/ /sys/fs/cgroup ro cgroup2 cgroup rw", false},
		{"/ /x rw devtmpfs udev rw", true},
		{"/nvidia2 /dev/nvidia2 rw devtmpfs udev rw", false},
		{"/sda /dev/sda rw devtmpfs udev rw", true},
		{"/ /x rw overlay overlay rw", true},
		{"/etc /x rw overlay overlay rw", true},
		{"/usr /x rw ext4 /dev/sda1 rw", true},
		{"/usr/share/zoneinfo /usr/share/zoneinfo ro ext4 /dev/sda1 rw", false},
		{"/lib/firmware/nvidia/580.1/gsp.bin /lib/firmware/nvidia/580.1/gsp.bin ro ext4 /dev/sda1 rw", false},
		{"/var /x rw ext4 /dev/sda1 rw", true},
		{"/var/lib /x ro ext4 /dev/sda1 rw", true},
		{"/var/spool/cron /x rw ext4 /dev/sda1 rw", true},
		{"/var/cache/julia /x rw ext4 /dev/sda1 rw", false},
		{"/@/etc /x rw btrfs /dev/sda1 rw,subvolid=256,subvol=/@", true},
		{"/@home/u /x rw btrfs /dev/sda1 rw,subvolid=257,subvol=/@home", true},
		{"/@ /x rw btrfs /dev/sda1 rw,subvolid=256,subvol=/@", true},
		{"/root/srv/cache /cache rw btrfs /dev/sda1 rw,subvolid=256,subvol=/root", false},
		{"/root/var/lib/docker/volumes/depot/_data /depot rw btrfs /dev/sda1 rw,subvolid=256,subvol=/root", false},
		{"/home/u/.local/share/docker/volumes/depot/_data /depot rw ext4 /dev/sda1 rw", false},
		{"/home/u/.local/share/containers/storage/volumes/depot/_data /depot rw ext4 /dev/sda1 rw", false},
		{"/var/lib/docker/volumes /x rw ext4 /dev/sda1 rw", true},
		{"/var/lib/docker/volumes/a/b/_data /x rw ext4 /dev/sda1 rw", true},
		{"/containers/storage/overlay-containers/ab/userdata/hosts /etc/hosts rw tmpfs tmpfs rw,mode=755", false},
		{"/containers/storage/overlay-containers/ab/userdata/run/secrets /run/secrets rw tmpfs tmpfs rw,mode=755", false},
		{"/ /x rw devpts devpts rw,gid=5,mode=620,ptmxmode=000", true},
		{"/0 /dev/console rw devpts devpts rw,gid=5,mode=620,ptmxmode=000", false},
	} {
		fields := strings.Fields(tt.line)
		m := procfs.Mount{Device: "0:99", Root: fields[0], Point: fields[1], Options: strings.Split(fields[2], ","), Type: fields[3], Source: fields[4], Super: strings.Split(fields[5], ",")}
		s := healthy()
		if m.Point == "/" {
			s.Mounts = s.Mounts[1:]
		}
		s.mount(m)
		s.Namespaces.User = procfs.InitialUser
		got := slices.Contains(findings(Check(s.Facts, s.Demand)), "deny host.mounts")
		require.Equal(t, tt.out, got, tt.line)
	}
}

// With userns-remap Docker mounts cgroups writable (seen with 20.10, version 1):
// root in there is nobody to them. Of sysfs it does not.
func TestHostMountsOfAnotherUserNamespace(t *testing.T) {
	for line, out := range map[string]bool{
		"/docker/9d1c /sys/fs/cgroup/devices rw cgroup cgroup rw,devices": false,
		"/ /sys/fs/cgroup rw cgroup2 cgroup rw":                           false,
		"/ /sys rw sysfs sysfs rw":                                        true,
	} {
		fields := strings.Fields(line)
		for user, out := range map[uint64]bool{4026532664: out, procfs.InitialUser: true, 0: true} {
			s := healthy()
			s.Namespaces.User = user
			s.mount(procfs.Mount{Device: "0:99", Root: fields[0], Point: fields[1], Options: []string{fields[2]}, Type: fields[3], Source: fields[4], Super: strings.Split(fields[5], ",")})
			got := slices.Contains(findings(Check(s.Facts, s.Demand)), "deny host.mounts")
			require.Equal(t, out, got, "%s, user namespace %d", line, user)
		}
	}
}

// Many mounts make one line that a person reads: the first three with all of their
// evidence, and how many there are. Programs get the places of all.
func TestHostMountsAreMany(t *testing.T) {
	s := healthy()
	for _, dir := range []string{"a", "b", "c", "d", "e"} {
		s.mount(procfs.Mount{Device: "8:1", Root: "/home/" + dir, Point: "/" + dir, Options: []string{"rw"}, Type: "ext4", Source: "/dev/sda1"})
	}
	r := Check(s.Facts, s.Demand)
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.ID == "host.mounts" })
	require.GreaterOrEqual(t, i, 0)
	require.Equal(t, "the host's files are in reach: /a is of the host's /home (ext4 /home/a of /dev/sda1, rw), /b is of the host's /home (ext4 /home/b of /dev/sda1, rw), "+
		"/c is of the host's /home (ext4 /home/c of /dev/sda1, rw), and 2 more", r.Findings[i].What)
	require.Equal(t, "/a, /b, /c, /d, /e", r.Findings[i].Match)

	for _, dir := range []string{"/a", "/b"} { // who waives two sees the others
		s.Policy.Waivers = append(s.Policy.Waivers, Waiver{ID: "host.mounts", Match: dir, Reason: "caches of one trust level"})
	}
	all := strings.Join(Check(s.Facts, s.Demand).Lines(), "\n")
	require.Contains(t, all, "host.mounts: the host's files are in reach: /c is ")
	require.Contains(t, all, "/e is ")
	require.NotContains(t, all, " more")
}

// An engine hides some files of /proc behind its own /dev/null (runc's
// maskedPaths); somebody else's tmpfs is not taken for that.
func TestMaskedPaths(t *testing.T) {
	s := healthy()
	dev := procfs.Mount{Device: "0:62", Root: "/", Point: "/dev", Type: "tmpfs", Source: "tmpfs", Super: []string{"rw", "size=65536k", "mode=755"}}
	keys := procfs.Mount{Device: "0:62", Root: "/null", Point: "/proc/keys", Type: "tmpfs", Source: "tmpfs", Super: dev.Super}
	s.mount(dev)
	s.mount(keys)
	require.Empty(t, findings(Check(s.Facts, s.Demand)))
	keys.Device = "0:25"
	s.mount(keys)
	require.Equal(t, []string{"deny host.mounts"}, findings(Check(s.Facts, s.Demand)))
}

// An operator whose waivers and documentation know a check by its ID finds each
// of them there, once, with a reason.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range checks {
		require.False(t, seen[c.id], c.id)
		seen[c.id] = true
		require.NotEmpty(t, c.why, c.id)
		require.NotNil(t, c.run, c.id)
	}
}

// Without a policy there is one to paste, unless no driver knows what is open.
func TestPolicyToPaste(t *testing.T) {
	s := healthy()
	s.Policy = nil
	require.Contains(t, Check(s.Facts, s.Demand).Findings[0].Fix, "      vendor: nvidia")
	s.NVIDIA.GPUs = nil
	require.NotContains(t, strings.Join(Check(s.Facts, s.Demand).Findings[0].Fix, "\n"), "vendor:")
}

// What is not checked is said in every report, with the operator's reason.
func TestReasons(t *testing.T) {
	s := healthy()
	require.Empty(t, Check(s.Facts, s.Demand).Notes)
	s.Host, s.Policy = "a developer's machine", &Policy{Off: "a virtual machine for each job"}
	want := []string{"no container is expected here: a developer's machine", "GPUs are not checked: a virtual machine for each job"}
	require.Equal(t, want, Check(s.Facts, s.Demand).Notes)
	require.Equal(t, append(want, "nothing is measured on darwin"), Check(Facts{Platform: "darwin"}, s.Demand).Notes)
}

func TestStatus(t *testing.T) {
	foreign := Finding{ID: "gpu.foreign", Severity: Deny}
	denied := Finding{ID: "gpu.denied", Severity: Deny, Machine: true}
	waived := Finding{ID: "container.caps", Severity: Deny, Waived: "a reason"}
	for want, r := range map[int][]Finding{0: {waived, {Severity: Warn, Machine: true}}, 75: {denied, waived}, 1: {denied, foreign}} {
		require.Equal(t, want, Report{Findings: r}.Status())
	}
}

func TestVersions(t *testing.T) {
	for _, row := range []string{"1.9 < 1.10", "1.4.0-rc.3 < 1.4.0", "1.4.0-rc.2 < 1.4.0-rc.10", "580.95.05 < 580.159.03", "1.3 < 1.3.1", "1.2.3 = 1.2.3", "1.2 = 1.2.0"} {
		f := strings.Fields(row)
		want := map[string]int{"<": -1, "=": 0}[f[1]]
		require.Equal(t, want, CompareVersions(f[0], f[2]), row)
		require.Equal(t, -want, CompareVersions(f[2], f[0]), row)
	}
	for has, open := range map[string]bool{"1.1.15": true, "1.2.7": true, "1.2.8": false, "1.3.2": true, "1.3.3": false, "1.4.0": false, "1.4.0-rc.2": true, "1.5.0": false} {
		require.Equal(t, open, fixes[4].open(has), has)
	}
}

// TestReadmeShowsARefusal: what the README shows of a foreign GPU is what an
// operator sees.
func TestReadmeShowsARefusal(t *testing.T) {
	s := healthy()
	s.allow("c 195:3")
	s.NVIDIA.GPUs = append(s.NVIDIA.GPUs, NVIDIAGPU{PCI: "0000:82:00.0", UUID: "GPU-4d2f0c9e-8d21-4239-8e32-63449f713690", Minor: 3})
	s.Policy.Inventory = []Known{{Minor: 3, GI: -1, CI: -1, Agent: "gpuci.17"}}
	r := Check(s.Facts, s.Demand)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, shown, ok := strings.Cut(string(readme), "```\n+++ :no_entry: GPU isolation: "+r.Summary()+"\n")
	require.True(t, ok, r.Summary())
	shown, _, _ = strings.Cut(shown, "```")
	require.True(t, strings.HasPrefix(strings.Join(r.Lines(), "\n")+"\n", shown), "%s", strings.Join(r.Lines(), "\n"))
}

// TestInformation: what is only told.
func TestInformation(t *testing.T) {
	for id, change := range map[string]func(*scene){
		"ns.uts":           func(s *scene) { s.Namespaces.UTS = procfs.InitialUTS },
		"env.advice":       func(s *scene) { s.Env = map[string]string{"NVIDIA_VISIBLE_DEVICES": "all"} },
		"host.profiling":   func(s *scene) { s.NVIDIA.Params["RmProfilingAdminOnly"] = "0" },
		"limits":           func(s *scene) { s.Limits.PIDs = "" },
		"container.lsm":    func(s *scene) { s.Process.LSM = "" },
		"container.userns": func(s *scene) { s.Namespaces.User = procfs.InitialUser },
		"gpu.mode": func(s *scene) {
			s.SMI = SMI{Asked: true, GPUs: []SMIGPU{{UUID: ownUUID, Persistence: "Disabled"}}}
		},
		"dev.family": func(s *scene) { s.amd(); s.allow("c 508:1") },
	} {
		s := healthy()
		informed := func() bool {
			return slices.ContainsFunc(Check(s.Facts, s.Demand).Findings, func(f Finding) bool { return f.ID == id && f.Severity == Info })
		}
		require.False(t, informed(), id)
		change(s)
		require.True(t, informed(), id)
	}
}

// TestEarlyStranger: somebody else's GPU in the place of the own one keeps
// secrets closed, too, although it is the machine's fault.
func TestEarlyStranger(t *testing.T) {
	s := healthy()
	s.Early = true
	require.Empty(t, findings(Check(s.Facts, s.Demand)))
	s.NVIDIA.GPUs[0].UUID, s.NVIDIA.GPUs[0].PCI = "GPU-99999999-8d21-4239-8e32-63449f713690", "0000:82:00.0"
	require.Equal(t, []string{"deny gpu.identity"}, findings(Check(s.Facts, s.Demand)))
}

func TestWant(t *testing.T) {
	for _, tt := range []struct {
		d    Demand
		want bool
	}{
		{Demand{}, false},
		{Demand{Step: Step{MinVRAMMiB: 1}}, false},
		{Demand{Policy: &Policy{Vendor: VendorNVIDIA}}, false},
		{Demand{Policy: &Policy{Vendor: VendorNVIDIA, Busy: BusyOff}}, false},
		{Demand{Policy: &Policy{Vendor: VendorNVIDIA, Busy: BusyWarn}}, true},
		{Demand{Policy: &Policy{Vendor: VendorNVIDIA, Busy: BusyDeny}}, true},
		{Demand{Policy: &Policy{Vendor: VendorNVIDIA, Busy: BusyDeny}, Early: true}, false},
		{Demand{Policy: &Policy{Vendor: VendorNVIDIA}, Step: Step{BusyDeny: true}}, true},
		{Demand{Policy: &Policy{Vendor: VendorNVIDIA}, Step: Step{MinVRAMMiB: 1}}, true},
		{Demand{Policy: &Policy{Vendor: VendorAMD, Busy: BusyDeny}}, false},
	} {
		require.Equal(t, Want{SMI: tt.want}, tt.d.Want(), "%+v", tt.d)
	}
}
