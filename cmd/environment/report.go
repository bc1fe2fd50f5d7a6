package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
)

// A report is what the job's log shows: one group, one line a secret.
type report struct {
	notes   []string
	results []unseal.Result
	missing []string // names that the step requires and does not get
	outage  bool     // nobody could be asked: a later run may get them
	errors  []string
}

func (l *report) note(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

// refuse notes an error that a commit made, and returns its status.
func (l *report) refuse(err error, hint string) int {
	l.errors = append(l.errors, "environment: error: "+err.Error(), "environment: hint: "+hint)
	return statusRefused
}

// require notes the names that a step requires and does not get.
func (l *report) require(missing []string) int {
	l.missing = missing
	switch {
	case len(missing) == 0:
		return statusGo
	case l.outage:
		return statusMachine
	}
	return statusRefused
}

// machine notes an error that is the machine's fault, with its own hint or this
// one, and returns its status.
func (l *report) machine(err error, hint string) int {
	for text := range strings.SplitSeq(err.Error(), "\n") { // errors may be joined
		l.errors = append(l.errors, "environment: error: "+text)
	}
	if own := (interface{ Hint() string })(nil); errors.As(err, &own) && own.Hint() != "" {
		hint = own.Hint()
	}
	if hint == "" {
		hint = "the agent's operator can mend this; running the job again does not, unless on another agent"
	}
	l.errors = append(l.errors, "environment: hint: "+hint)
	return statusMachine
}

func (l *report) print(w io.Writer, status int, took time.Duration) {
	if len(l.notes)+len(l.results)+len(l.missing)+len(l.errors) == 0 {
		return // nothing sealed and nothing to say
	}
	granted, withheld, refused, _ := unseal.AllOrNone(l.results)
	loud := slices.ContainsFunc(l.results, func(r unseal.Result) bool { return r.Loud })
	var b strings.Builder
	group := "~~~" // closed
	if status != statusGo || loud {
		group = "+++" // open
	}
	fmt.Fprintf(&b, "%s :key: Secrets\n", group)
	for _, note := range l.notes {
		fmt.Fprintln(&b, note)
	}
	var hints []string
	for _, r := range l.results {
		fmt.Fprintln(&b, line(r, status))
		if r.Hint != "" && !slices.Contains(hints, r.Hint) {
			hints = append(hints, r.Hint)
		}
	}
	for _, hint := range hints {
		fmt.Fprintln(&b, "hint: "+hint)
	}
	for _, name := range l.missing {
		fmt.Fprintf(&b, "%s: required by this step, and not granted: %s\n", name, l.why(name))
	}
	for _, text := range l.errors {
		fmt.Fprintln(&b, text)
	}
	switch counts := fmt.Sprintf("%d withheld, %d refused", withheld, refused); {
	case status != statusGo:
		fmt.Fprintf(&b, "nothing set: %d could be opened, %s, in %d ms\n", granted, counts, took.Milliseconds())
	case granted+withheld == 0:
		fmt.Fprintf(&b, "no sealed values, in %d ms\n", took.Milliseconds())
	default:
		fmt.Fprintf(&b, "%d granted, %s, in %d ms\n", granted, counts, took.Milliseconds())
	}
	io.WriteString(w, b.String())
}

// line says what became of one variable.
func line(r unseal.Result, status int) string {
	text := escape.Text(r.Variable) + ": "
	switch r.Outcome {
	case unseal.Ignored:
		return text + r.Reason
	case unseal.Withheld:
		return text + "withheld: " + r.Reason
	case unseal.Refused:
		return text + "refused: " + r.Reason
	}
	if status != statusGo {
		return text + "could be opened, but is not set"
	}
	text += "granted"
	if set := grantedNames([]unseal.Result{r}); len(set) > 1 || names.Prefix+set[0] != r.Variable {
		text += " as " + strings.Join(set, ", ")
	}
	if r.File {
		text += ", a file"
	}
	if r.Warning != "" {
		text += "; " + r.Warning
	}
	return text
}

// why says what became of a name that is not granted.
func (l *report) why(name string) string {
	for _, r := range l.results {
		if r.Variable == names.Prefix+name || r.Variable == names.Prefix+name+names.SealedSuffix {
			return r.Reason
		}
	}
	if l.results == nil {
		return "the group Secrets above says why"
	}
	return "no variable " + names.Prefix + name + " holds a sealed value for this step"
}

// annotation is what a build's page shows of missing secrets. What is indented is
// shown as it is: no text of a job's is taken for Markdown.
func (l *report) annotation() string {
	var b strings.Builder
	b.WriteString("**Secrets that a step requires were not granted**\n\n")
	for _, name := range l.missing {
		fmt.Fprintf(&b, "    %s: %s\n", name, l.why(name))
	}
	b.WriteString("\nThe group *Secrets* of the job's log says more.\n")
	return b.String()
}
