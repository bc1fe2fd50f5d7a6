//go:build !js

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
)

// An overview is what encrypt show tells. Nobody vouches for any of it.
type overview struct {
	File     string  `json:"file,omitempty"` // with slashes; none: the command line
	Verified bool    `json:"verified"`       // never: without a key nobody knows
	Values   []shown `json:"values"`
}

// A shown value is what anyone can read of one SECRET_* variable. An agent would
// refuse it for its Errors, and with it the job.
type shown struct {
	Variable   string    `json:"variable,omitempty"` // none: a value by itself
	Line       int       `json:"line,omitempty"`
	Steps      []string  `json:"steps,omitempty"` // none: all, or nobody knows
	Form       string    `json:"form"`
	Bytes      int       `json:"bytes,omitempty"` // of a sealed text; the length of another may say something
	Label      *claims   `json:"label,omitempty"`
	Recipients []claimed `json:"recipients,omitempty"`
	Stanzas    []string  `json:"stanzas,omitempty"`
	Errors     []string  `json:"errors,omitempty"`
	Warnings   []string  `json:"warnings,omitempty"`

	label envelope.Label
	sets  []string // variables, as far as known
}

// The forms of a shown value.
const (
	formSealed    = "sealed"
	formAge       = "age"
	formRSA       = "rsa"
	formRSAHybrid = "rsa-aes"
	formMalformed = "malformed"
	formOther     = "other"
	formEmpty     = "empty"
)

// inWords are the forms for people.
var inWords = map[string]string{
	formSealed:    "sealed, version 1",
	formAge:       "an age file without a label",
	formRSA:       "RSA, of the older tool",
	formRSAHybrid: "RSA and AES, of the older tool",
	formMalformed: "malformed",
	formOther:     "no sealed value",
	formEmpty:     "empty",
}

// claims are a label's, for programs.
type claims struct {
	Name         string     `json:"name"`
	Type         string     `json:"type,omitempty"`
	Names        []string   `json:"names,omitempty"`
	Repos        []string   `json:"repos,omitempty"`
	Pipelines    []string   `json:"pipelines,omitempty"`
	AnyRepo      bool       `json:"any_repo"`
	Branches     []string   `json:"branches,omitempty"`
	Tags         []string   `json:"tags,omitempty"`
	PullRequests bool       `json:"pull_requests"`
	Expires      *time.Time `json:"expires,omitempty"`
	Expired      bool       `json:"expired"`
}

// claimed is a recipient of a label, with the name that it has here.
type claimed struct {
	Fingerprint string `json:"fingerprint"`
	Known       bool   `json:"known"`
	Name        string `json:"name,omitempty"`
}

// show prints what anyone can read. Its error says that an agent would refuse
// some of it.
func show(o options, now time.Time, stdin io.Reader, stdout io.Writer, say func(string, ...any)) error {
	if len(o.operands) > 1 {
		return misused("encrypt show FILE; encrypt show --help says more", "show takes one file")
	}
	here := findCheckout(".")
	known, err := knownRecipients(o.files, here, embedded, say)
	if err != nil {
		return err
	}
	name, text, err := readShown(o, here, stdin)
	if err != nil {
		return err
	}
	view := overview{File: name}
	if one, ok := loneValue(text); ok {
		view.Values = []shown{examine(one, known, now)}
	} else if view.Values, err = examineFile(text, known, now); err != nil {
		return inFile(escape.Text(name), err)
	}

	if o.json {
		if view.Values == nil {
			view.Values = []shown{}
		}
		err = view.writeJSON(stdout)
	} else {
		_, err = io.WriteString(stdout, view.text(fit.Help(stdout)))
	}
	if err != nil {
		return fmt.Errorf("standard output: %w", cause(err))
	}
	bad := 0
	for _, v := range view.Values {
		bad += min(len(v.Errors), 1)
	}
	if bad > 0 {
		return refuse("", "an agent would refuse %d of %d, and fail the jobs that have them", bad, len(view.Values))
	}
	return nil
}

// readShown reads the file, standard input or the argument itself.
func readShown(o options, here checkout, stdin io.Reader) (name string, text []byte, err error) {
	const hint = "encrypt show FILE, or encrypt show - for standard input"
	read := func(f io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(f, pipeline.MaxFile+1)) }
	operand := ""
	if len(o.operands) > 0 {
		operand = o.operands[0]
	}
	switch form := envelope.FormOf(operand); {
	case form != envelope.FormEmpty && form != envelope.FormOther:
		return "", []byte(operand), nil
	case operand == "-" || operand == "" && piped(stdin):
		text, err = read(stdin)
		if err != nil {
			return "", nil, fmt.Errorf("standard input: %w", cause(err))
		}
		if operand == "-" || len(bytes.TrimSpace(text)) > 0 {
			return "standard input", text, nil
		}
	}
	if operand == "" && here == "" {
		return "", nil, refuse(hint, "which file? this is no git checkout")
	}
	name = filepath.ToSlash(operand)
	file := operand
	if operand == "" {
		name, file = inPipeline, filepath.Join(string(here), filepath.FromSlash(inPipeline))
	}
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		text, err = read(f)
	}
	switch {
	case err != nil && operand == "": // else the name may be a value, in its place by mistake
		return "", nil, refuse(hint, "%s: %s", name, cause(err))
	case err != nil:
		return "", nil, refuse(hint, "show: %s", cause(err))
	}
	return name, text, nil
}

// piped tells whether standard input is a file or another program's output.
func piped(stdin io.Reader) bool {
	f, ok := stdin.(*os.File)
	if !ok {
		return true
	}
	info, err := f.Stat()
	return err == nil && (info.Mode().IsRegular() || info.Mode()&os.ModeNamedPipe != 0)
}

// shownPath is a path for people, on Windows with slashes, too.
func shownPath(path string) string { return escape.Text(filepath.ToSlash(path)) }

var oneLine = regexp.MustCompile(`^(?:- |export )?["']?(SECRET_[A-Za-z0-9_]+)["']?(?:: ?|=)(.*)$`)

// loneValue takes a text for one sealed value: by itself, or behind its name as
// in a pipeline file or the output of env.
func loneValue(text []byte) (pipeline.Sealed, bool) {
	s := pipeline.Sealed{Text: strings.TrimSpace(strings.TrimPrefix(string(text), "\ufeff"))}
	if m := oneLine.FindStringSubmatch(s.Text); m != nil {
		s.Name, s.Text = m[1], strings.TrimRight(m[2], ", ")
	}
	s.Text = strings.Trim(s.Text, `"'`)
	form := envelope.FormOf(s.Text)
	return s, form != envelope.FormEmpty && form != envelope.FormOther
}

// examineFile examines each SECRET_* of a pipeline file, and then all of them
// beside each other.
func examineFile(file []byte, known map[string]recipient, now time.Time) ([]shown, error) {
	if len(bytes.TrimSpace(file)) == 0 {
		return nil, nil
	}
	found, err := pipeline.Find(file)
	if err != nil {
		return nil, err
	}
	var all []shown
	for _, s := range found {
		all = append(all, examine(s, known, now))
	}
	findDuplicates(all)
	return all, nil
}

// examine reads one value, as far as anyone can.
func examine(s pipeline.Sealed, known map[string]recipient, now time.Time) shown {
	v := shown{Variable: s.Name, Line: s.Line, Steps: s.Steps}
	bad := func(format string, a ...any) { v.Errors = append(v.Errors, fmt.Sprintf(format, a...)) }
	warn := func(format string, a ...any) { v.Warnings = append(v.Warnings, fmt.Sprintf(format, a...)) }
	unlabelled := func() {
		if s.Name == "" {
			return
		}
		name := strings.TrimPrefix(s.Name, names.Prefix)
		if err := names.Check(name); err != nil {
			bad("%s", err)
			return
		}
		v.sets = []string{name}
	}
	switch envelope.FormOf(s.Text) {
	case envelope.FormEmpty:
		v.Form = formEmpty
		return v
	case envelope.FormOther:
		v.Form = formOther
		warn("agents leave it alone; if it is a secret, anyone can read it here: revoke it, and seal a new one")
		return v
	}
	v.Bytes = len(s.Text)
	switch envelope.FormOf(s.Text) {
	case envelope.FormRSA, envelope.FormRSAHybrid:
		v.Form = formRSA
		if envelope.FormOf(s.Text) == envelope.FormRSAHybrid {
			v.Form = formRSAHybrid
		}
		warn("it opens in any repository, where an agent still opens it at all: seal it again")
		unlabelled()
		return v
	}
	peeked, err := envelope.Peek(s.Text)
	if err != nil {
		v.Form = formMalformed
		bad("%s", err)
		return v
	}
	v.Stanzas = peeked.Stanzas
	if !peeked.Labelled {
		v.Form = formAge
		warn("it opens only where the operator allows any repository: seal it with encrypt")
		unlabelled()
		return v
	}
	l := peeked.Label
	v.Form, v.label, v.sets = formSealed, l, l.Names
	if l.Type != envelope.TypeBundle {
		v.sets = []string{l.Name}
	}
	v.Label = &claims{l.Name, string(l.Type), l.Names, texts(l.Repos), l.Pipelines, l.Any, l.Branches, l.Tags, !l.NoPullRequest && len(l.Branches)+len(l.Tags) == 0, nil, false}
	if s.Name != "" && !l.CarriedBy(s.Name) {
		bad("renamed: it is sealed as %s, which %s carries", l.Name, carrier(l.Name, false))
		v.sets = nil
	}
	if !l.Expires.IsZero() {
		v.Label.Expires, v.Label.Expired = &l.Expires, !now.Before(l.Expires)
		switch {
		case v.Label.Expired:
			warn("expired: agents withhold it")
		case !l.Expires.After(now.AddDate(0, 0, 2)):
			warn("it expires within two days")
		case !l.Expires.After(now.AddDate(0, 0, 30)):
			warn("it expires in %d days", int(l.Expires.Sub(now)/(24*time.Hour)))
		}
	}
	familiar := false
	for _, to := range l.To {
		r, ok := known[to]
		familiar = familiar || ok
		v.Recipients = append(v.Recipients, claimed{to, ok, r.site})
	}
	if !familiar && len(known) > 0 {
		warn("sealed to no recipient that is known here")
	}
	if len(l.To) != len(v.Stanzas) {
		warn("the label names %d recipients, but the file is for %d", len(l.To), len(v.Stanzas))
	}
	return v
}

// findDuplicates says which values would set one variable in one job.
func findDuplicates(all []shown) {
	for i := range all {
		v := &all[i]
		for _, other := range all[:i] {
			if !meet(*v, other) {
				continue
			}
			if v.Variable == other.Variable {
				// In another env: it takes the place of the one further out.
				if slices.Equal(v.Steps, other.Steps) && v.Line != other.Line {
					v.Errors = append(v.Errors, fmt.Sprintf("it is there twice, first on line %d", other.Line))
				}
				continue
			}
			for _, name := range v.sets {
				if slices.Contains(other.sets, name) || name == other.Variable {
					v.Errors = append(v.Errors, fmt.Sprintf("%s is set by %s on line %d, too: a job with both is refused", name, escape.Text(other.Variable), other.Line))
				}
			}
		}
	}
}

// meet tells whether a job may have both.
func meet(a, b shown) bool {
	return len(a.Steps) == 0 || len(b.Steps) == 0 || slices.ContainsFunc(a.Steps, func(s string) bool { return slices.Contains(b.Steps, s) })
}

// knownRecipients are those that have a name here, by fingerprint.
func knownRecipients(files []string, here checkout, embedded string, say func(string, ...any)) (map[string]recipient, error) {
	all, err := given(nil, files)
	if err != nil {
		return nil, err
	}
	if file := filepath.Join(string(here), filepath.FromSlash(inCheckout)); here != "" && exists(file) {
		more, err := readRecipients(file, inCheckout)
		if err != nil { // no reason not to show the rest
			say("warning: %s", err)
		}
		all = append(all, more...)
	}
	built, err := parseRecipients(embedded, "this build of encrypt")
	if err != nil {
		return nil, err
	}
	known := map[string]recipient{}
	for _, r := range append(all, built...) {
		if have, ok := known[r.Fingerprint()]; !ok || have.site == "" {
			known[r.Fingerprint()] = r
		}
	}
	return known, nil
}

// text is the overview for people, narrow enough for 40 columns.
func (o overview) text(width int) string {
	var b strings.Builder
	title := escape.Text(cmp.Or(o.File, "the value"))
	if len(o.Values) == 0 {
		return fit.Wrap(title+": no SECRET_* in an env:, and no sealed value", width, "", "")
	}
	if o.File != "" {
		counted := "1 value"
		if n := len(o.Values); n > 1 {
			counted = fmt.Sprintf("%d values", n)
		}
		b.WriteString(fit.Wrap(title+": "+counted, width, "", ""))
	}
	if slices.ContainsFunc(o.Values, func(v shown) bool { return v.Label != nil }) {
		b.WriteString(fit.Wrap("As the labels claim: only an agent that holds the key can tell.", width, "", ""))
	}
	for _, v := range o.Values {
		b.WriteString("\n" + v.text(width))
	}
	return b.String()
}

func (v shown) text(width int) string {
	var b strings.Builder
	if v.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", v.Line)
	}
	if v.Variable != "" {
		b.WriteString(escape.Text(v.Variable) + "\n")
	}
	rows := func(key string, values ...string) {
		for _, value := range values {
			const margin = "             "
			b.WriteString(fit.Wrap(value, width, ("  " + key + margin)[:len(margin)], margin))
			key = ""
		}
	}
	rows("form", inWords[v.Form])
	for _, step := range v.Steps {
		rows("step", escape.Text(step))
	}
	if l := v.label; v.Label != nil {
		switch l.Type {
		case envelope.TypeBundle:
			rows("sets", strings.Join(l.Names, ", "))
		case envelope.TypeValue:
			rows("sets", l.Name)
		case envelope.TypeFile:
			rows("sets", l.Name+" to the path of a private file")
		default:
			rows("for", "the agent's checkout, as "+string(l.Type))
		}
		if l.Any {
			rows("opens in", "any repository, where the operator allows that")
		}
		rows("opens in", texts(l.Repos)...)
		rows("pipeline", l.Pipelines...)
		rows("branch", l.Branches...)
		rows("tag", l.Tags...)
		if !v.Label.PullRequests {
			rows("not in", "pull requests")
		}
		until := "no expiry"
		if !l.Expires.IsZero() {
			until = day(l.Expires)
		}
		rows("until", until)
	}
	for _, r := range v.Recipients {
		switch {
		case r.Name != "":
			rows("sealed to", r.Fingerprint+" ("+escape.Text(r.Name)+")")
		case r.Known:
			rows("sealed to", r.Fingerprint+" (known here)")
		default:
			rows("sealed to", r.Fingerprint)
		}
	}
	if len(v.Stanzas) > 0 {
		rows("age type", ageType(v.Stanzas))
	}
	if v.Bytes > 0 {
		rows("size", fmt.Sprintf("%d bytes", v.Bytes))
	}
	for _, text := range v.Errors {
		b.WriteString(fit.Wrap(text, width, "  error: ", "    "))
	}
	for _, text := range v.Warnings {
		b.WriteString(fit.Wrap(text, width, "  warning: ", "    "))
	}
	return b.String()
}

// ageType names the kinds of the stanzas, which anyone may have written.
func ageType(stanzas []string) string {
	var kinds []string
	for _, kind := range slices.Compact(slices.Sorted(slices.Values(stanzas))) {
		switch kind {
		case "X25519":
		case "mlkem768x25519":
			kind = "post-quantum (" + kind + ")"
		default:
			kind = escape.Text(kind) + " (not known)"
		}
		kinds = append(kinds, kind)
	}
	return strings.Join(kinds, ", ")
}

// writeJSON writes ASCII alone, so that it is safe to look at, too.
func (o overview) writeJSON(w io.Writer) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(o); err != nil {
		return err
	}
	var ascii []byte
	for text := b.Bytes(); len(text) > 0; {
		r, n := utf8.DecodeRune(text)
		switch high, low := utf16.EncodeRune(r); {
		case r < 0x7f:
			ascii = append(ascii, byte(r))
		case r > 0xffff:
			ascii = fmt.Appendf(ascii, `\u%04x\u%04x`, high, low)
		default:
			ascii = fmt.Appendf(ascii, `\u%04x`, r)
		}
		text = text[n:]
	}
	_, err := w.Write(ascii)
	return err
}

// inFile says in which file a package's complaint is, with what to do.
func inFile(shown string, err error) error {
	var e *pipeline.Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.Line > 0:
		return refuse(e.Hint(), "%s:%s", shown, e)
	}
	return refuse(e.Hint(), "%s: %s", shown, e)
}
