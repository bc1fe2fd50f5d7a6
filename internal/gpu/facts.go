// Package gpu judges what a job could reach from inside a container: its own GPU,
// somebody else's, a neighbour's processes, the host.
//
// Facts are what package observe read. Check holds them against the operator's
// policy; it is a pure function, and what could not be read is a finding there,
// never a pass. docs/gpu.md explains each finding.
package gpu

import (
	"encoding/json"
	"slices"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// Facts are what package observe saw. They hold no verdict, and no text of them is
// safe to print as it is: jobs choose names of processes and of mounts.
type Facts struct {
	// Unread says why a source could not be read, or was too large to be read
	// whole. A source that is not there, where that is normal, is not in it.
	Unread map[Source]string `json:"unread,omitempty"`

	BootID     string     `json:"boot_id,omitempty"`
	Process    Process    `json:"process"`
	Namespaces Namespaces `json:"namespaces"`
	Method     Method     `json:"method"`
	// MethodCause says why no node was made, where Method is not Probed.
	MethodCause string `json:"method_cause,omitempty"`
	Scratch     string `json:"scratch,omitempty"` // the directory in which nodes were made
	// Readings are the kernel's answers, each number once, in order of numbers.
	Readings Readings `json:"readings"`

	Majors []procfs.Major `json:"-"` // the host's: /proc/devices is not namespaced
	// RDMA is the minor of /dev/infiniband/rdma_cm among the miscellaneous devices
	// (major 10); -1 where the host has none.
	RDMA     int               `json:"-"`
	Mounts   []procfs.Mount    `json:"-"`
	NVIDIA   NVIDIA            `json:"nvidia"`
	DRM      []DRM             `json:"drm,omitempty"` // of the host: sysfs is not namespaced
	KFD      KFD               `json:"kfd"`
	Peers    Peers             `json:"peers"`
	Sockets  []Socket          `json:"sockets,omitempty"`
	Net      Net               `json:"net"`
	Preload  string            `json:"preload,omitempty"` // the first line of /etc/ld.so.preload
	Homes    []Home            `json:"homes,omitempty"`
	Limits   Limits            `json:"limits"`
	Env      map[string]string `json:"-"` // of a short list of names, for env.advice alone
	SMI      SMI               `json:"smi"`
	Platform string            `json:"platform"` // runtime.GOOS; nothing else is there where it is not "linux"
}

// A Source is something that package observe reads; for files, their path.
type Source string

const (
	FromStatus     Source = "/proc/self/status"
	FromNamespaces Source = "/proc/self/ns"
	FromUserMap    Source = "/proc/self/uid_map"
	FromLSM        Source = "/proc/self/attr/current"
	FromMounts     Source = "/proc/self/mountinfo"
	FromDevices    Source = "/proc/devices"
	FromProcesses  Source = "/proc"        // the list of processes
	FromFiles      Source = "/proc/PID/fd" // what they have open
	FromNodes      Source = "/dev"         // and volumes where nodes may lie
	FromNVIDIA     Source = "/proc/driver/nvidia"
	FromCaps       Source = "/proc/driver/nvidia-caps"
	FromDRM        Source = "/sys/class/drm"
	FromKFD        Source = "/sys/class/kfd"
	FromNet        Source = "/proc/net"
	FromBootID     Source = "/proc/sys/kernel/random/boot_id"
	FromLimits     Source = "/sys/fs/cgroup"
	FromPreload    Source = "/etc/ld.so.preload"
	FromHomes      Source = "home directories"
	FromSockets    Source = "unix sockets"
	FromSMI        Source = "nvidia-smi"
	FromScratch    Source = "tmpfs for device nodes"
)

// A Process is the hook's own: what it may do, and what it could win back.
type Process struct {
	procfs.Status
	LSM   string         `json:"lsm"` // as in docker-default (enforce); empty where the kernel has none
	Users []procfs.IDMap `json:"users"`
}

// Namespaces are the numbers in /proc/self/ns; 0 where one was not read.
type Namespaces struct {
	PID    uint64 `json:"pid"`
	User   uint64 `json:"user"`
	IPC    uint64 `json:"ipc"`
	UTS    uint64 `json:"uts"`
	Net    uint64 `json:"net"`
	Mount  uint64 `json:"mnt"`
	Cgroup uint64 `json:"cgroup"`
}

// A Method is how the kernel was asked about devices.
type Method string

const (
	// Probed: each number got a node of its own, for a moment.
	Probed Method = "probe"
	// Listed: only nodes that are there were asked about. Complete where nobody
	// in the container can make a node.
	Listed Method = "inventory"
	// NotAsked: there was no way.
	NotAsked Method = "none"
)

// A Reading is the kernel's answer for one device number. As JSON there are only
// Readings: the number's own text would stand for all of it.
type Reading struct {
	devnode.Number `json:"number"`
	devnode.Access
	// Nodes are the paths that have the number, under /dev and on volumes; they
	// say nothing about access.
	Nodes []string `json:"nodes,omitempty"`
}

// Readings are in order of their numbers, each once.
type Readings []Reading

// Of returns the answer for a number, and false where it was not asked about.
func (r Readings) Of(n devnode.Number) (Reading, bool) {
	i, found := slices.BinarySearchFunc(r, n, func(r Reading, n devnode.Number) int { return r.Number.Compare(n) })
	if !found {
		return Reading{}, false
	}
	return r[i], true
}

// MarshalJSON leaves out numbers that have no node and are denied, hundreds in
// any container, but for how many they are; of others it makes one where their
// minors follow each other and their answers are the same.
func (r Readings) MarshalJSON() ([]byte, error) {
	type run struct {
		Number devnode.Number  `json:"number"`
		Last   *devnode.Number `json:"last,omitempty"` // of a run
		devnode.Access
		Nodes []string `json:"nodes,omitempty"`
	}
	var short struct {
		Denied int   `json:"denied"`
		Others []run `json:"others"`
	}
	for i, one := range r {
		switch {
		case one.Nodes == nil && one.Read == devnode.Denied && one.Write == devnode.Denied:
			short.Denied++
		case i > 0 && one.follows(r[i-1]):
			short.Others[len(short.Others)-1].Last = &one.Number
		default:
			short.Others = append(short.Others, run{Number: one.Number, Access: one.Access, Nodes: one.Nodes})
		}
	}
	return json.Marshal(short)
}

func (r Reading) follows(before Reading) bool {
	before.Minor++
	return r.Nodes == nil && before.Nodes == nil && r.Number == before.Number && r.Access == before.Access
}

// Access is the answer for a number, or what follows from there being none:
// where only nodes that exist could be asked about, and nobody can make one, a
// number without a node is Absent; else it is Unknown.
func (f *Facts) Access(n devnode.Number) devnode.Access {
	if r, ok := f.Readings.Of(n); ok {
		return r.Access
	}
	switch f.Method {
	case Listed:
		if _, partly := f.Unread[FromNodes]; partly {
			return devnode.Access{Cause: "not all nodes were found: " + f.Unread[FromNodes]}
		}
		return devnode.Access{Read: devnode.Absent, Write: devnode.Absent}
	case Probed:
		return devnode.Access{Cause: "not asked about"}
	default:
		return devnode.Access{Cause: f.MethodCause}
	}
}

// NVIDIA is what the driver shows of itself. In the runtime's legacy mode only
// the container's own GPUs are there, in CDI mode all of the host: a list, never
// a verdict.
type NVIDIA struct {
	Driver string            `json:"driver,omitempty"` // as in 580.159.03
	Params map[string]string `json:"-"`                // /proc/driver/nvidia/params
	GPUs   []NVIDIAGPU       `json:"gpus,omitempty"`   // in order of PCI addresses
	// Instances are those whose files are in capabilities/gpuN/mig: in legacy mode the own ones.
	Instances []Instance `json:"instances,omitempty"`
	// Table is what mig-minors says, the driver's static table of all possible ones.
	Table []Instance `json:"-"`
	// Config, Monitor and IMEX are minors of nvidia-caps as the driver states
	// them (mig-minors: config, monitor; sys-minors: fabric-imex-mgmt); -1 where it does not.
	Config, Monitor, IMEX int `json:"-"`
}

// An NVIDIAGPU is one of /proc/driver/nvidia/gpus.
type NVIDIAGPU struct {
	PCI   string `json:"pci"`            // lower case, 0000:81:00.0
	UUID  string `json:"uuid,omitempty"` // empty: the driver does not know it yet
	Minor int    `json:"minor"`          // of /dev/nvidiaN; -1 where it is not stated
	Model string `json:"model,omitempty"`
}

// An Instance is a GPU instance of MIG, or a compute instance in it.
type Instance struct {
	GPU   int `json:"gpu"` // the GPU's device minor
	GI    int `json:"gi"`
	CI    int `json:"ci"`    // -1: the GPU instance itself
	Minor int `json:"minor"` // of its nvidia-caps node
}

// A DRM is one card or render node of the host.
type DRM struct {
	Name   string         `json:"name"` // renderD128, card0
	Number devnode.Number `json:"number"`
	PCI    string         `json:"pci,omitempty"`
	ID     string         `json:"id,omitempty"` // 1002:744C
	Driver string         `json:"driver,omitempty"`
	// Memory of the whole card in bytes; -1 where the driver does not say.
	VRAMUsed, VRAMTotal int64 `json:"-"`
	// Uncorrected are the RAS errors that memory could not mend; -1 where the driver does not say.
	Uncorrected int64 `json:"-"`
}

// KFD is what AMD's compute driver shows.
type KFD struct {
	Nodes []KFDNode `json:"nodes,omitempty"` // GPUs alone
	// Used is VRAM held through the driver by any process of the host, this job's or not.
	Used []KFDUse `json:"used,omitempty"`
}

// A KFDNode is one GPU of the topology.
type KFDNode struct {
	Node int `json:"node"`
	// Denied: the driver keeps this GPU from us, which is the kernel's verdict on
	// its render node once more, and needs no node to be made.
	Denied   bool   `json:"denied"`
	GPUID    uint32 `json:"gpu_id,omitempty"`
	Name     string `json:"name,omitempty"`
	PCI      string `json:"pci,omitempty"`
	Render   int    `json:"render"` // minor of its render node; -1 unknown
	UniqueID uint64 `json:"unique_id,omitempty"`
}

// A KFDUse is one process's memory on one GPU.
type KFDUse struct {
	PID   int    `json:"pid"`
	GPUID uint32 `json:"gpu_id"`
	Bytes int64  `json:"bytes"`
}

// Peers are the processes that can be seen.
type Peers struct {
	Visible int `json:"visible"` // all that are listed
	// Shared: process 1 neither started this one nor is in our mount namespace, so
	// the process namespace is another container's, too.
	Shared   bool   `json:"shared,omitempty"`
	Readable []Peer `json:"readable,omitempty"` // of another container or the host, open to this job
	// Holders are processes of this container, not of this job, that have a GPU's node open.
	Holders []Peer `json:"holders,omitempty"`
}

// A Peer is one process.
type Peer struct {
	PID  int    `json:"pid"`
	Name string `json:"name"` // the first word of comm, which the process itself chose
}

// A Socket is a unix socket of a program that rules the host or the GPU.
type Socket struct {
	Path    string `json:"path"`
	Of      Daemon `json:"of"`
	Answers bool   `json:"answers"` // somebody listens
	// Cause says why nobody answered.
	Cause string `json:"cause,omitempty"`
}

// A Daemon is who listens on a socket.
type Daemon string

const (
	Engine        Daemon = "container engine" // docker, containerd, crio, podman, buildkit
	Systemd       Daemon = "systemd"          // its private bus, or the system's D-Bus
	MPS           Daemon = "nvidia-cuda-mps-control"
	Persistenced  Daemon = "nvidia-persistenced"
	FabricManager Daemon = "nvidia-fabricmanager"
)

// Net is what tells a host's network from a container's.
type Net struct {
	Physical []string `json:"physical,omitempty"` // interfaces with hardware behind them, or named as such
	Systemd  bool     `json:"systemd"`            // systemd's sockets are in the namespace
}

// A Home is a directory that programs of later jobs read settings from.
type Home struct {
	Path string `json:"path"`
	// Startup are the files there that programs run or obey at their start.
	Startup []string `json:"startup,omitempty"`
	// Emptied: the host says, by a directory of root's, that it empties the volume
	// before each container (package kept).
	Emptied bool `json:"emptied,omitempty"`
}

// Limits are the container's; an empty text is no limit.
type Limits struct {
	Memory string `json:"memory,omitempty"` // bytes
	PIDs   string `json:"pids,omitempty"`
	CPU    string `json:"cpu,omitempty"` // how many at once, as in 2 or 0.5
}

// SMI is what nvidia-smi says, where it was asked. Its answer is a program's of
// this container, so it is advice and never a reason to allow anything.
type SMI struct {
	Asked     bool          `json:"asked"`
	GPUs      []SMIGPU      `json:"gpus,omitempty"`
	Instances []SMIInstance `json:"instances,omitempty"`
	Processes int           `json:"processes"` // compute processes on the GPUs it shows
}

// An SMIGPU is one GPU; what nvidia-smi does not say is -1 or "".
type SMIGPU struct {
	UUID        string `json:"uuid"`
	PCI         string `json:"pci"`
	UsedMiB     int    `json:"used_mib"`
	TotalMiB    int    `json:"total_mib"`
	ComputeMode string `json:"compute_mode,omitempty"`
	Persistence string `json:"persistence,omitempty"`
	MIG         string `json:"mig,omitempty"`
	Uncorrected int    `json:"uncorrected"`        // volatile ECC errors
	Recovery    string `json:"recovery,omitempty"` // gpu_recovery_action
	RemapFailed string `json:"remap_failed,omitempty"`
	RemapWaits  string `json:"remap_waits,omitempty"`
}

// A Listing is what the host's own nvidia-smi says of one GPU. It alone knows which
// slice a UUID names.
type Listing struct {
	PCI    string
	UUID   string
	Minor  int  // of /dev/nvidiaN; -1: not stated
	MIG    bool // the GPU is divided into slices, if there are any
	MiB    int  // of memory; 0: not stated
	Slices []Slice
}

// A Slice is a compute instance of MIG, with its GPU instance.
type Slice struct {
	UUID   string // MIG-…; empty where it was not asked for
	GI, CI int
	MiB    int // of memory; 0: not stated
}

// An SMIInstance is the memory of one MIG slice.
type SMIInstance struct {
	PCI      string `json:"pci"`
	GI       int    `json:"gi"`
	CI       int    `json:"ci"`
	UsedMiB  int    `json:"used_mib"`
	TotalMiB int    `json:"total_mib"`
}
