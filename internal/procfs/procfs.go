// Package procfs reads what Linux tells of processes, mounts and devices in
// /proc, as values. Its parsers take text from anybody: no input makes them
// panic, and what they do not understand is an error, never a default.
package procfs

// A Status is what /proc/PID/status says (proc_pid_status(5)).
type Status struct {
	UID  int `json:"uid"`
	EUID int `json:"euid"`
	PPID int `json:"ppid"`
	// Sets of capabilities, one bit each as in linux/capability.h.
	CapInh     uint64 `json:"cap_inh"`
	CapPrm     uint64 `json:"cap_prm"`
	CapEff     uint64 `json:"cap_eff"`
	CapBnd     uint64 `json:"cap_bnd"`
	CapAmb     uint64 `json:"cap_amb"`
	NoNewPrivs bool   `json:"no_new_privs"`
	Seccomp    int    `json:"seccomp"` // 0 none, 1 strict, 2 filters
}

// A Major is one line of /proc/devices.
type Major struct {
	Block  bool
	Number uint32
	Name   string
}

// An IDMap is one line of /proc/PID/uid_map: Count users from Inside on are
// those from Outside on in the parent namespace.
type IDMap struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Count   uint32 `json:"count"`
}

// A Stat is the part of /proc/PID/stat that is of use here.
type Stat struct {
	PID, PPID, Session int
	Name               string // the process's own choice: any bytes
	Start              uint64 // clock ticks after the machine's boot
}

// A Capability is a bit of Status's sets (linux/capability.h).
type Capability uint

// MKNOD is the right to make device nodes.
const MKNOD Capability = 27

// In tells whether a set has the capability.
func (c Capability) In(set uint64) bool { return set>>c&1 == 1 }

// The initial namespaces have fixed numbers (Linux include/linux/proc_ns.h,
// include/uapi/linux/nsfs.h).
const (
	InitialIPC  = 4026531839
	InitialUTS  = 4026531838
	InitialUser = 4026531837
	InitialPID  = 4026531836
	InitialNet  = 4026531833 // on recent kernels alone
)
