package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
)

// A Severity says how bad a finding is.
type Severity int

const (
	Info    Severity = iota + 1 // to know
	Warn                        // it works, and will not for ever, or is weaker than it could be
	Unknown                     // could not be seen: not well
	Fault                       // keeps agents or secrets from working, or is dangerous
)

var severities = [...]string{"", "info", "warn", "unknown", "fault"}

func (s Severity) String() string { return severities[s] }

// MarshalText is String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Finding is one thing that is to be known. Its texts are safe to print.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Agent    string   `json:"agent,omitempty"`
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Fix      string   `json:"fix"`

	about []string // the agents that it is about; none: the whole host
}

// A Skip is a check that was not made, since what it finds would follow from
// another finding.
type Skip struct {
	ID      string `json:"id"`
	Because string `json:"because"`
}

// A Seen is one line of what was looked at, for people.
type Seen struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// A Report is what a host or container comes to.
type Report struct {
	Place    Place     `json:"place"`
	Findings []Finding `json:"findings"` // the worst first, then causes before effects
	Skipped  []Skip    `json:"not_checked"`
	Seen     []Seen    `json:"seen"`
	Checks   int       `json:"checks"` // that were made
}

// What a command that reports ends with.
const (
	StatusWell    = 0
	StatusFault   = 1
	StatusUnknown = 75
)

// Status is 1 where there is a fault, else 75 where something could not be seen,
// else 0: warnings are for people to weigh.
func (r Report) Status() int {
	switch {
	case r.count(Fault) > 0:
		return StatusFault
	case r.count(Unknown) > 0:
		return StatusUnknown
	}
	return StatusWell
}

func (r Report) count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// verdict is the last line for people.
func (r Report) verdict() string {
	var parts []string
	for _, c := range []struct {
		severity  Severity
		one, many string
	}{{Fault, "fault", "faults"}, {Unknown, "not seen", "not seen"}, {Warn, "warning", "warnings"}} {
		if n := r.count(c.severity); n == 1 {
			parts = append(parts, "1 "+c.one)
		} else if n > 1 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c.many))
		}
	}
	if parts == nil {
		return "well"
	}
	return strings.Join(parts, ", ")
}

// JSON is the report for programs.
func (r Report) JSON(took time.Duration) []byte {
	r.Findings, r.Skipped, r.Seen = orEmpty(r.Findings), orEmpty(r.Skipped), orEmpty(r.Seen)
	text, err := json.MarshalIndent(struct {
		Schema  int     `json:"schema"`
		Verdict string  `json:"verdict"`
		Status  int     `json:"status"`
		Millis  float64 `json:"milliseconds"`
		Report
	}{1, map[int]string{StatusWell: "well", StatusFault: "fault", StatusUnknown: "unknown"}[r.Status()], r.Status(), float64(took.Microseconds()) / 1000, r}, "", "  ")
	if err != nil {
		return []byte(`{"schema": 1, "verdict": "unknown", "status": 75}`) // nothing in it can fail
	}
	return append(escape.JSON(text), '\n')
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Colours, as parameters of SGR (ECMA-48, 8.3.117).
var colours = map[Severity]string{Fault: "31;1", Unknown: "35;1", Warn: "33;1", Info: "2", 0: "32;1"}

// Text is the report for people, in lines of at most width columns where its words
// permit; 0: any. The worst finding is the first line.
func (r Report) Text(width int, colour bool, took time.Duration) string {
	paint := func(s Severity, text string) string {
		if !colour {
			return text
		}
		return "\x1b[" + colours[s] + "m" + text + "\x1b[0m"
	}
	var b strings.Builder
	// add writes a text behind its head, which alone has a colour, or below it where
	// not even a word fits behind.
	add := func(s Severity, head, text, margin string) {
		line, mark := head+text+"\n", strings.TrimRight(head, " ")
		if width > 0 && utf8.RuneCountInString(head+text) > width {
			line = fit.Wrap(text, width, head, margin)
			if first, _, _ := strings.Cut(text, " "); utf8.RuneCountInString(head+first) > width {
				line = mark + "\n" + fit.Wrap(text, width, margin, margin)
			}
		}
		b.WriteString(paint(s, mark) + line[len(mark):])
	}
	var told []Finding // whose reason and remedy stand above already
	for _, f := range r.Findings {
		head := f.ID + ": "
		if f.Severity != Fault {
			head = map[Severity]string{Unknown: "unknown: ", Warn: "warning: ", Info: "info: "}[f.Severity] + head
		}
		what := f.What
		if f.Agent != "" {
			what = f.Agent + ": " + what
		}
		add(f.Severity, head, what, "    ")
		if slices.ContainsFunc(told, func(t Finding) bool { return t.ID == f.ID && t.Fix == f.Fix }) {
			continue
		}
		told = append(told, f)
		if f.Severity != Info {
			add(Info, "  why: ", f.Why, "       ")
		}
		if f.Fix != "" {
			add(Info, "  fix: ", f.Fix, "       ")
		}
	}
	for _, because := range r.causes() {
		var ids []string
		for _, s := range r.Skipped {
			if s.Because == because {
				ids = append(ids, s.ID)
			}
		}
		add(Info, "not checked: ", strings.Join(ids, ", ")+", because of "+because, "    ")
	}
	if len(r.Findings)+len(r.Skipped) > 0 && len(r.Seen) > 0 {
		b.WriteString("\n")
	}
	for _, s := range r.Seen {
		const column = 15
		if width > 0 && width < 72 {
			add(Info, s.Name+": ", s.Text, "    ")
			continue
		}
		add(Info, s.Name+strings.Repeat(" ", max(column-len(s.Name), 1)), s.Text, strings.Repeat(" ", column))
	}
	worst := Severity(0)
	if r.Status() != StatusWell {
		worst = r.Findings[0].Severity
	} else if r.count(Warn) > 0 {
		worst = Warn
	}
	add(worst, r.verdict()+": ", fmt.Sprintf("status %d, %d checks of this %s in %d ms", r.Status(), r.Checks, r.Place, took.Milliseconds()), "    ")
	return b.String()
}

// causes are the findings that kept checks from being made, each once.
func (r Report) causes() (ids []string) {
	for _, s := range r.Skipped {
		if !slices.Contains(ids, s.Because) {
			ids = append(ids, s.Because)
		}
	}
	return ids
}
