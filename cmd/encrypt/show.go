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

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/sealed"
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
	Variable   string      `json:"variable,omitempty"` // none: a value by itself
	Line       int         `json:"line,omitempty"`
	Steps      []string    `json:"steps,omitempty"` // none: all, or nobody knows
	Form       sealed.Form `json:"form"`
	Bytes      int         `json:"bytes,omitempty"` // of a sealed text; the length of another may say something
	Label      *claims     `json:"label,omitempty"`
	Recipients []claimed   `json:"recipients,omitempty"`
	Stanzas    []string    `json:"stanzas,omitempty"`
	Errors     []string    `json:"errors,omitempty"`
	Warnings   []string    `json:"warnings,omitempty"`

	label *envelope.Label
}

// inWords are the forms for people.
var inWords = map[sealed.Form]string{
	sealed.Labelled:  "sealed, version 1",
	sealed.Age:       "an age file without a label",
	sealed.RSA:       "RSA, of the older tool",
	sealed.RSAHybrid: "RSA and AES, of the older tool",
	sealed.Malformed: "malformed",
	sealed.Other:     "no sealed value",
	sealed.Empty:     "empty",
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
		view.Values = []shown{present(sealed.Read(one), nil, known, now)}
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
	values := make([]sealed.Value, len(found))
	for i, s := range found {
		values[i] = sealed.Read(s)
	}
	var all []shown
	for i, twice := range sealed.Duplicates(values) {
		all = append(all, present(values[i], twice, known, now))
	}
	return all, nil
}

// present is a value with all that is wrong with it.
func present(value sealed.Value, twice []sealed.Problem, known map[string]recipient, now time.Time) shown {
	v := shown{Variable: value.Variable, Line: value.Line, Steps: value.Steps, Form: value.Form, Bytes: value.Bytes, Stanzas: value.Stanzas, label: value.Label}
	if l := value.Label; l != nil {
		v.Label = &claims{l.Name, string(l.Type), l.Names, texts(l.Repos), l.Pipelines, l.Any, l.Branches, l.Tags, !l.NoPullRequest && len(l.Branches)+len(l.Tags) == 0, nil, value.Expired(now)}
		if !l.Expires.IsZero() {
			v.Label.Expires = &l.Expires
		}
		for _, to := range l.To {
			r, ok := known[to]
			v.Recipients = append(v.Recipients, claimed{to, ok, r.site})
		}
	}
	var familiar func(string) bool
	if len(known) > 0 {
		familiar = func(to string) bool { _, ok := known[to]; return ok }
	}
	for _, p := range append(value.Problems(now, familiar), twice...) {
		if p.Refused {
			v.Errors = append(v.Errors, p.Text)
		} else {
			v.Warnings = append(v.Warnings, p.Text)
		}
	}
	return v
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
	_, err := w.Write(escape.JSON(b.Bytes()))
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
