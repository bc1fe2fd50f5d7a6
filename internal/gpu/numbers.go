package gpu

// Majors that never change (Linux Documentation/admin-guide/devices.txt); those of
// 195 have had other names in /proc/devices, and so the number counts.
const (
	MajorTTY    = 4
	MajorNVIDIA = 195
	MajorDRM    = 226
)

// Minors of NVIDIA's static major (the driver's nv.h).
const (
	MaxNVIDIAMinor = 247 // of a GPU; above are modeset and ctl
	MinorModeset   = 254
	MinorCtl       = 255
)

// The static table of the NVIDIA driver's nv-caps.c: 32 GPUs of 15 GPU instances
// of 8 compute instances.
const (
	MaxMIGGPUs    = 32
	MaxGIs        = 15
	MaxCIs        = 8
	MinorFabric   = 0 // fabric-mgmt
	MinorConfig   = 1
	MinorMonitor  = 2
	minorFirstGI  = 3
	MinorIMEXMgmt = minorFirstGI + MaxMIGGPUs*MaxGIs*(1+MaxCIs)
)

// CapMinor is the minor of an instance's node by that table; ci -1 is the GPU
// instance itself.
func CapMinor(gpu, gi, ci int) int {
	return minorFirstGI + (gpu*MaxGIs+gi)*(1+MaxCIs) + 1 + ci
}

// HostDrivers have numbers of their own, and no node that all know: they pass
// commands on to disks and to the machine's controller, or devices to a guest.
var HostDrivers = []string{"vfio", "sg", "bsg", "nvme", "nvme-generic", "mtd", "ipmidev"}
