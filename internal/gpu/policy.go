package gpu

import "time"

// A Policy is what the operator says this agent's containers have: the exact set
// of GPUs, and what else is right there. It is never read from a job.
type Policy struct {
	Path string // the file it is from
	// Changeable: the user that jobs run as could change that file.
	Changeable bool
	// Off, where it is not empty, is the reason why GPUs are not checked; nothing
	// else is set then.
	Off string

	Vendor  Vendor
	Devices []Device // empty with None alone
	// Min is the least number of Devices that must be there, Max the largest
	// number of GPUs that may be allowed.
	Min, Max int
	// Families and Numbers may be reached besides. No number is of the majors 195
	// and 226, but one may be nvidia-caps': it excuses no GPU and no slice.
	Families []string // of the names in Families
	Numbers  []Pattern

	// Absence accepts that what is not in the container can't be reached although
	// no device cgroup enforces it: rootless engines.
	Absence       bool
	Graphics      bool // the DRM nodes of the own GPUs
	AllowSharedGI bool // several compute instances of one GPU instance

	IdleMiB int  // memory that may be in use before the job
	Busy    Busy // what happens above that

	MinDriver string
	Host      map[string]string // versions of the host: toolkit, runc, docker
	Inventory []Known
	Resolved  *Resolved
	Waivers   []Waiver
}

// A Vendor is who made the GPUs.
type Vendor string

const (
	VendorNVIDIA Vendor = "nvidia"
	VendorAMD    Vendor = "amd"
	VendorIntel  Vendor = "intel"
	VendorNone   Vendor = "none"
)

// A Device is one GPU or slice of the policy. What is not stated is empty, and -1
// for the numbers. A slice has GI and CI, and where UUID and PCI are stated they
// are its GPU's; any other NVIDIA device has one of these two, AMD's and Intel's
// have PCI.
type Device struct {
	UUID     string // GPU-…
	PCI      string // lower case, 0000:81:00.0
	MIG      string // MIG-…: a slice
	GI, CI   int    // of the slice, as the resolver found them
	UniqueID uint64 // AMD; 0: not stated
	Render   int    // minor of the render node, 128 or more, for GPUs with several; -1: not stated
	GPUID    uint32 // AMD's gpu_id; 0: not stated
}

// A Pattern is a set of character devices: "c 510:0", or "c 510:*".
type Pattern struct {
	Major    uint32
	Minor    uint32
	AllMinor bool
}

// Busy says what follows from a GPU that is in use before the job.
type Busy string

const (
	BusyOff  Busy = "off"
	BusyWarn Busy = "warn"
	BusyDeny Busy = "deny"
)

// A Known is a GPU or a slice of the host, for messages.
type Known struct {
	Minor  int    // of the GPU; -1: not stated, which no slice has
	UUID   string // GPU-…, or a slice's MIG-…
	PCI    string
	GI, CI int // of a slice; -1: a GPU, or a GPU instance as a whole
	Agent  string
}

// Resolved says for what the resolver wrote the policy.
type Resolved struct {
	BootID string
	At     time.Time
	Driver string // NVIDIA's, as in 580.159.03; empty: not stated
}

// A Waiver accepts a finding, for a reason that every job prints.
type Waiver struct {
	ID     string
	Match  string // exact evidence, such as SYS_PTRACE; empty: all of the ID
	Reason string
	Until  time.Time // midnight UTC at the day's beginning; zero: no end; not waived from the day after on
}
