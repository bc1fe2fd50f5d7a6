//go:build !js

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
)

// A target is where --write puts a value, found fit before one is asked for.
type target struct {
	path, shown string
	file        []byte
	where       pipeline.Where
	carrier     string
}

// anyText stands for a sealed value when an edit is tried.
const anyText = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"

// findTarget reads the file of --write and tries the edit. note says why the
// variable has another of its two names than the flags say.
func (o options) findTarget(name string) (t *target, note string, err error) {
	t = &target{path: o.write, shown: shownPath(o.write), where: pipeline.Where{Step: o.step}}
	if t.file, err = readTarget(o.write); err != nil {
		return nil, "", err
	}
	try := func(suffix bool) (there bool, line int, err error) {
		_, change, err := pipeline.Set(t.file, t.where, carrier(name, suffix), anyText)
		return change.Action != pipeline.Added, change.Line, inFile(t.shown, err)
	}
	mine, theirs := carrier(name, o.suffix), carrier(name, !o.suffix)
	here, line, err := try(o.suffix)
	if err != nil {
		return nil, "", err
	}
	other, otherLine, err := try(!o.suffix)
	if err != nil {
		return nil, "", err
	}
	if !other { // another env: of the same job
		found, err := pipeline.Find(t.file)
		if err != nil {
			return nil, "", inFile(t.shown, err)
		}
		for _, s := range found {
			reaches := o.step == "" || len(s.Steps) == 0 || slices.Contains(s.Steps, o.step)
			if s.Name == theirs && reaches {
				other, otherLine = true, s.Line
			}
		}
	}
	t.carrier = mine
	switch {
	case here && other:
		return nil, "", refuse("remove one of the two lines", "%s:%d: %s stands beside %s (line %d): a job with both is refused", t.shown, line, mine, theirs, otherLine)
	case other && o.suffix:
		return nil, "", refuse("rename that one to "+mine+": its text stays the same", "%s:%d: %s is there, and a job with both names is refused", t.shown, otherLine, theirs)
	case other:
		t.carrier = theirs
		note = t.shown + " has " + theirs + ", and a job with both names is refused: it keeps that one"
	}
	if owner := t.holds(line); here && owner != "" && owner != name {
		return nil, "", refuse("take another name", "%s:%d: %s carries %s", t.shown, line, mine, owner)
	}
	return t, note, nil
}

// readTarget reads a file that can be written.
func readTarget(path string) ([]byte, error) {
	const hint = "--write takes a pipeline file that is there; without it encrypt prints the lines"
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, refuse(hint, "--write: not a regular file")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, refuse(hint, "--write: %s", cause(err))
	}
	defer f.Close()
	file, err := io.ReadAll(io.LimitReader(f, pipeline.MaxFile+1))
	if err != nil {
		return nil, refuse(hint, "--write: %s", cause(err))
	}
	return file, nil
}

// holds returns the name that the label of the value on a line has there by
// right, or nothing.
func (t *target) holds(line int) string {
	found, _ := pipeline.Find(t.file)
	for _, s := range found {
		peeked, err := envelope.Peek(s.Text)
		if s.Line == line && err == nil && peeked.Labelled && peeked.Label.CarriedBy(s.Name) {
			return peeked.Label.Name
		}
	}
	return ""
}

// write puts the sealed value into the file and says what it did. Where that
// fails the lines go to standard output: nobody wants to type a value again.
func (t *target) write(r result, known map[string]recipient, now time.Time, stdout io.Writer, say func(string, ...any)) error {
	edited, change, err := pipeline.Set(t.file, t.where, t.carrier, r.text)
	if err = inFile(t.shown, err); err == nil {
		if err = pipeline.WriteFile(t.path, edited, t.file); errors.Is(err, pipeline.ErrChanged) {
			err = refuse("", "%s: %s", t.shown, pipeline.ErrChanged)
		} else if err != nil {
			err = refuse("", "%s: %s", t.shown, escape.Text(cause(err).Error()))
		}
	}
	if err != nil {
		say("error: %s", err)
		if _, err := io.WriteString(stdout, r.lines(t.carrier)); err != nil {
			return refuse("", "standard output: %s", cause(err))
		}
		return refuse("paste the lines that were printed instead", "%s is as it was", t.shown)
	}

	before, _ := examineFile(t.file, known, now)
	after, _ := examineFile(edited, known, now)
	switch change.Action {
	case pipeline.Added:
		say("%s:%d: added %s", t.shown, change.Line, t.carrier)
	default:
		say("%s:%d: replaced %s", t.shown, change.Line, t.carrier)
	}
	for _, v := range before {
		if change.Action == pipeline.Replaced && v.Line == change.Line && v.Variable == t.carrier {
			say("it was %s", v.was())
		}
	}
	for _, v := range after {
		if v.Line == change.Line && v.Variable == t.carrier {
			for _, text := range v.Errors {
				say("warning: %s", text)
			}
		}
	}
	if n := staleComment(edited, change.Line); n > 0 {
		say("warning: the comment on line %d is the older value's", n)
	}
	return nil
}

// known are the recipients that a message can name: those of this seal and of
// the checkout.
func (o options) known(here checkout, to []recipient) map[string]recipient {
	known, err := knownRecipients(nil, here, embedded, func(string, ...any) {})
	if err != nil { // seal has refused what is needed
		known = map[string]recipient{}
	}
	for _, r := range to {
		if r.site != "" {
			known[r.Fingerprint()] = r
		}
	}
	return known
}

// was describes a value that another took the place of.
func (v shown) was() string {
	if v.Label == nil {
		return inWords[v.Form]
	}
	var to []string
	for _, r := range v.Recipients {
		name := r.Fingerprint
		if r.Name != "" {
			name += " (" + escape.Text(r.Name) + ")"
		}
		to = append(to, name)
	}
	s := "sealed to " + strings.Join(to, " or ") + " for " + place(*v.label) + limits(*v.label)
	if sets := sets(*v.label); sets != "" {
		s += "; it " + sets
	}
	return s
}

// staleComment returns the line of a comment that encrypt printed above the line
// of an entry: it describes the value before.
func staleComment(file []byte, entry int) int {
	lines := bytes.Split(file, []byte("\n"))
	for n := entry - 1; n > 0 && n >= entry-4; n-- {
		line := bytes.TrimSpace(lines[n-1])
		if bytes.HasPrefix(line, []byte("# ciphertext, not a leaked secret")) {
			return n
		}
		if !bytes.HasPrefix(line, []byte("#")) && !bytes.Equal(line, []byte("env:")) {
			break
		}
	}
	return 0
}
