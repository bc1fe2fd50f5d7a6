package gpu

// A check is one row of the table below.
type check struct {
	id       string
	severity Severity
	// early: a finding means that no secret may be opened either.
	early bool
	// about says what a finding is about, and so what silences it.
	about subject
	// machine: the machine is at fault, not the change that is built.
	machine bool
	waive   waive
	// needs are the sources without which the check can't say anything.
	needs []Source
	why   string
	run   func(*world) []Finding
}

// A subject is what a check is about.
type subject int

const (
	always    subject = iota
	container         // the container's walls: information where the operator expects none
	device            // GPUs: not checked where the operator turned that off
)

// waive says whether an operator may accept a finding.
type waive int

const (
	never waive = iota
	ever
	matching // only with the exact evidence
)

// checks are in the order of their findings; GPU.md's numbers are not used: an ID
// is for ever.
var checks = []check{
	{id: "policy.trust", severity: Deny, early: true},
	{id: "probe.broken", severity: Deny, early: true, about: container},
	{id: "devices.unrestricted", severity: Deny, early: true, about: container},
	{id: "probe.unknown", severity: Deny, early: true, about: container, waive: ever},
	{id: "gpu.foreign", severity: Deny, early: true, about: device},
	{id: "mig.foreign", severity: Deny, early: true, about: device},
	{id: "mig.admin", severity: Deny, early: true, about: device, waive: matching},
	{id: "mig.layout", severity: Deny, early: true, about: device, waive: ever},
	{id: "ns.pid", severity: Deny, early: true, about: container, waive: ever},
	{id: "peer.readable", severity: Deny, early: true, about: container},
	{id: "host.socket", severity: Deny, early: true, about: container, waive: ever},
	{id: "container.caps", severity: Deny, early: true, about: container, waive: matching},
	{id: "container.lsm", severity: Deny, about: container, waive: ever},
	{id: "host.block", severity: Deny, early: true, about: container, waive: ever},
	{id: "host.mounts", severity: Deny, early: true, about: container, waive: ever},
	{id: "gpu.identity", severity: Deny, about: device, machine: true},
	{id: "mig.identity", severity: Deny, about: device, machine: true},
	{id: "gpu.denied", severity: Deny, about: device, machine: true},
	{id: "gpu.missing", severity: Deny, about: device, machine: true},
	{id: "gpu.unusable", severity: Deny, about: device, machine: true},
	{id: "dev.family", severity: Deny, about: device, waive: ever},
	{id: "gpu.busy", severity: Warn, about: device, machine: true, waive: ever},
	{id: "gpu.leftover", severity: Warn, about: device, waive: ever},
	{id: "ipc.mps", severity: Deny, early: true, about: container, waive: ever},
	{id: "ns.ipc", severity: Deny, about: container, waive: ever},
	{id: "ns.net", severity: Deny, about: container, waive: ever},
	{id: "ns.uts", severity: Info, about: container, waive: ever},
	{id: "container.nnp", severity: Warn, about: container, waive: ever},
	{id: "container.userns", severity: Info, about: container, waive: ever},
	{id: "persist.home", severity: Warn, about: container, waive: ever},
	{id: "loader.tampered", severity: Warn, about: container, waive: ever},
	{id: "gpu.health", severity: Warn, about: device, machine: true, waive: ever},
	{id: "gpu.mode", severity: Warn, about: device, waive: ever},
	{id: "env.advice", severity: Info},
	{id: "host.versions", severity: Warn, waive: ever},
	{id: "host.params", severity: Warn, waive: ever},
	{id: "host.profiling", severity: Info, waive: ever},
	{id: "limits", severity: Info},
	{id: "policy.stale", severity: Deny, about: device, machine: true, waive: ever},
}

// Waivable tells whether there is a check of that ID, and whether a waiver may
// accept its findings: never, always, or with the exact evidence alone.
func Waivable(id string) (known, waivable, needsMatch bool) {
	for _, c := range checks {
		if c.id == id {
			return true, c.waive != never, c.waive == matching
		}
	}
	return false, false, false
}

// Families are the device families that a policy may add, by the names that the
// kernel or the design gives them, in the order of dev.family's findings.
var Families = []string{
	"nvidia-modeset", "nvidia-nvswitch", "nvidia-nvlink", "nvidia-imex", "nvidia-fs", "gdrdrv", "infiniband", "dri.card", "accel", "nvidia-uvm-tools",
}

// world is what a check's run sees.
type world struct {
	Facts
	Demand
}
