package gpu

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Severity is what follows from a finding.
type Severity int

const (
	Info Severity = iota + 1 // printed
	Warn                     // printed and annotated; the job goes on
	Deny                     // the command is refused
)

var severities = [...]string{"", "info", "warn", "deny"}

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

	step     bool // the step demands it
	expected bool // of a machine that has no walls and needs none
}

// A Demand is what Check holds facts against.
type Demand struct {
	// Policy is nil where the operator has written none, or it could not be read.
	Policy *Policy
	// PolicyError says why it could not be read.
	PolicyError error
	// Settled: what jobs may change is not for the mounts to say. They have users of
	// their own, or the operator has said why it is right that they may (direct mode).
	Settled bool
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
		case !f.Blocks():
		case !f.Machine:
			return StatusRefused
		default:
			status = StatusMachine
		}
	}
	return status
}

// docs is where each finding is explained.
const docs = "https://github.com/juliagpu/secrets-buildkite-plugin/blob/main/docs/gpu.md#"

// Link is the address of what the documentation says of a finding. A forge's
// anchor is the heading without its dots.
func (f Finding) Link() string { return docs + strings.ReplaceAll(f.ID, ".", "") }

// Blocks tells whether the finding refuses the command.
func (f Finding) Blocks() bool { return f.Severity == Deny && f.Waived == "" }

// Count counts the findings of a severity that no waiver covers.
func (r Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s && f.Waived == "" {
			n++
		}
	}
	return n
}

// First is the first finding that refuses the command.
func (r Report) First() (Finding, bool) {
	i := slices.IndexFunc(r.Findings, Finding.Blocks)
	if i < 0 {
		return Finding{}, false
	}
	return r.Findings[i], true
}

// With is the report with further findings, in their place.
func (r Report) With(more ...Finding) Report {
	r.Findings = append(slices.Clone(r.Findings), more...)
	r.sort()
	return r
}

// sort puts what refuses first, and leaves the order of the checks otherwise.
func (r Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return int(b.Severity) - int(a.Severity) })
}

// Summary is one line: what the job has, or what refuses it.
func (r Report) Summary() string {
	var parts []string
	if deny := r.Count(Deny); deny > 0 {
		parts = append(parts, fmt.Sprintf("%d refused", deny))
	} else {
		parts = append(parts, r.GPUs)
	}
	switch warn := r.Count(Warn); {
	case warn == 1:
		parts = append(parts, "1 warning")
	case warn > 1:
		parts = append(parts, fmt.Sprintf("%d warnings", warn))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

// Lines is the whole report for people, without the head of a log's group.
func (r Report) Lines() []string {
	lines := slices.Clone(r.Notes)
	var expected []string
	for _, f := range r.Findings {
		if f.expected && f.Waived == "" && !slices.Contains(expected, f.ID) {
			expected = append(expected, f.ID)
		}
	}
	if len(expected) > 0 {
		lines = append(lines, "on a machine that jobs share, these would refuse or warn: "+strings.Join(expected, ", "))
	}
	var told []Finding // whose remedy and reason stand above already
	for _, f := range r.Findings {
		if f.Waived != "" {
			lines = append(lines, "waived: "+f.ID+": "+f.What+"; because: "+f.Waived)
			continue
		}
		if f.expected {
			continue
		}
		if f.Severity == Info {
			lines = append(lines, "info: "+f.ID+": "+f.What)
			continue
		}
		head := f.ID + ": " + f.What
		if f.Severity == Warn {
			head = "warning: " + head
		}
		lines = append(lines, head)
		if slices.ContainsFunc(told, func(t Finding) bool { return t.ID == f.ID && t.Why == f.Why && slices.Equal(t.Fix, f.Fix) }) {
			continue
		}
		told = append(told, f)
		lines = append(lines, "  why: "+f.Why)
		for i, fix := range f.Fix {
			label := "       "
			if i == 0 {
				label = "  fix: "
			}
			lines = append(lines, label+fix)
		}
		lines = append(lines, "  see: "+f.Link())
	}
	return lines
}

// Annotation is what a build's page shows of what was refused and what is a
// warning, in Markdown. What is indented is shown as it is: no text of anybody's
// is taken for Markdown.
func (r Report) Annotation() string {
	var b strings.Builder
	b.WriteString("**GPU isolation: " + r.Summary() + "**\n")
	for _, f := range r.Findings {
		if f.Severity == Info || f.Waived != "" {
			continue
		}
		fmt.Fprintf(&b, "\n[%s](%s)\n\n    %s\n    why: %s\n", f.ID, f.Link(), f.What, f.Why)
		for i, fix := range f.Fix {
			label := "     "
			if i == 0 {
				label = "fix: "
			}
			b.WriteString("    " + label + fix + "\n")
		}
	}
	return b.String()
}

// JSON is the report with the facts it rests on, for programs.
func (r Report) JSON(f Facts, took time.Duration) []byte {
	if r.Findings == nil {
		r.Findings = []Finding{} // a list for programs, where there is none, too
	}
	verdict := map[int]string{StatusPass: "pass", StatusRefused: "refused", StatusMachine: "machine"}[r.Status()]
	text, err := json.MarshalIndent(struct {
		Schema  int     `json:"schema"`
		Verdict string  `json:"verdict"`
		Millis  float64 `json:"milliseconds"`
		Report
		Facts Facts `json:"facts"`
	}{1, verdict, float64(took.Microseconds()) / 1000, r, f}, "", "  ")
	if err != nil {
		return []byte(`{"schema": 1, "verdict": "refused"}`) // nothing in it can fail
	}
	return append(text, '\n')
}
