package gpu

import "time"

// A Severity is what follows from a finding.
type Severity int

const (
	Info Severity = iota // printed
	Warn                 // printed and annotated; the job goes on
	Deny                 // the command is refused
)

var severities = [...]string{"info", "warn", "deny"}

func (s Severity) String() string { return severities[s] }

// MarshalText is String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Finding is one thing that is not as it must be. All its texts are safe to
// print: each is one line of printable ASCII.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Unknown: this could not be measured, which is as bad as the check's worst case.
	Unknown bool     `json:"unknown,omitempty"`
	What    string   `json:"what"`            // the evidence
	Match   string   `json:"match,omitempty"` // what a waiver's match is held against
	Why     string   `json:"why"`             // why it matters
	Fix     []string `json:"fix,omitempty"`   // what to change, exact lines
	Waived  string   `json:"waived,omitempty"`
	// Machine: the machine is at fault and not the change that is built.
	Machine bool `json:"machine,omitempty"`
	Early   bool `json:"early,omitempty"`
}

// A Demand is what Check holds facts against.
type Demand struct {
	// Policy is nil where the operator has written none, or it could not be read.
	Policy *Policy
	// PolicyError says why it could not be read.
	PolicyError error
	// Host is the operator's reason why a machine without containers is right here;
	// empty where jobs must be in a container.
	Host string
	// Advice: this is a plugin's own check on an agent without ours. Nothing but
	// the step's own demands refuses the command.
	Advice  bool
	Waivers []Waiver // of the configuration; those of the policy count, too
	Step    Step
	Now     time.Time
	// Early: only the checks that matter before secrets are opened.
	Early bool
}

// A Step is what a step demands besides. It can only tighten.
type Step struct {
	GPU        bool // the policy must name one, and it must be there
	MinVRAMMiB int
	BusyDeny   bool
}

// A Report is what Check found.
type Report struct {
	Findings []Finding `json:"findings"` // deny, warn, info; each in the order of the checks
	Checks   int       `json:"checks"`   // how many were made
	GPUs     string    `json:"gpus"`     // the job's, in words: 1 of 4 GPUs (GPU-1b7ad372, 81:00.0)
	Notes    []string  `json:"notes,omitempty"`
}

// Statuses of a program that checks.
const (
	StatusPass    = 0
	StatusRefused = 1
	StatusMachine = 75 // EX_TEMPFAIL, sysexits.h: another agent may do better
)

// Status is 75 where the machine alone is at fault, 1 where anything else refuses
// the command, 0 otherwise.
func (r Report) Status() int {
	status := StatusPass
	for _, f := range r.Findings {
		switch {
		case f.Severity != Deny || f.Waived != "":
		case !f.Machine:
			return StatusRefused
		default:
			status = StatusMachine
		}
	}
	return status
}
