package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/shape"
)

// embedded are the recipients of this build, in the form of a recipients' file.
//
//go:embed recipients.txt
var embedded string

// rejected are the names that agent v4, and v3 with --reject-secrets, does not
// upload in a pipeline's env: (agent v4.0.0-beta.15, clicommand/global.go,
// RedactedVars). They are path.Match patterns.
var rejected = []string{
	"*_PASSWORD", "*_SECRET", "*_TOKEN", "*_PRIVATE_KEY", "*_SSH_KEY", "*_ACCESS_KEY",
	"*_SECRET_KEY", "*_CONNECTION_STRING", "*_API_KEY",
}

// A refusal is an error with what to do about it.
type refusal struct {
	text, hint string
	status     int
}

func (r *refusal) Error() string { return r.text }

func refuse(hint, format string, a ...any) error {
	return &refusal{fmt.Sprintf(format, a...), hint, 1}
}

// misused is a refusal of the arguments themselves.
func misused(hint, format string, a ...any) error {
	return &refusal{fmt.Sprintf(format, a...), hint, 2}
}

// opensAnywhere is the warning for a label without repository and pipeline.
const opensAnywhere = "it opens in any repository, forks of others included, where the operator allows that"

// A result is what became of a value: what to know about it, and the sealed text.
type result struct {
	dropped  bool            // the newline at its end
	warnings []shape.Finding // none refuses
	label    envelope.Label
	to       []recipient
	text     string
}

// judgeAndSeal seals a value that can be right. With an error the result tells
// what was found up to there, and has no text.
func judgeAndSeal(label envelope.Label, value plaintext.Value, to []recipient, raw bool) (r result, err error) {
	r = result{label: label, to: to}
	if label.Type == envelope.TypeFile {
		r.warnings, err = admit(shape.CheckFile(label.Name, value))
	} else {
		value, r.dropped, r.warnings, err = judge(label.Name, value, raw)
	}
	if err == nil {
		r.text, err = seal(label, value, to)
	}
	return r, err
}

// judge drops the newline at a value's end, unless it is raw, and says what looks
// wrong with the rest as the value of a variable.
func judge(name string, value plaintext.Value, raw bool) (judged plaintext.Value, dropped bool, warnings []shape.Finding, err error) {
	if !raw {
		value, dropped = shape.Trim(value)
	}
	warnings, err = admit(shape.Check(name, value, raw))
	return value, dropped, warnings, err
}

// admit returns the warnings, or the refusal as an error.
func admit(found []shape.Finding) ([]shape.Finding, error) {
	for _, f := range found {
		if f.Refused {
			return nil, refuse(f.Hint, "%s", f.Text)
		}
	}
	return found, nil
}

// seal seals and reads the label back: what is printed must be what was shown.
func seal(label envelope.Label, value plaintext.Value, to []recipient) (string, error) {
	var recipients []envelope.Recipient
	for _, r := range to {
		recipients = append(recipients, r.Recipient)
		label.To = append(label.To, r.Fingerprint())
	}
	text, err := envelope.Seal(label, value, recipients...)
	if err != nil {
		return "", err
	}
	want, err := label.Marshal()
	if err != nil {
		return "", err
	}
	read, err := envelope.Peek(text)
	if err != nil {
		return "", fmt.Errorf("the sealed text does not read back: %w", err)
	}
	if got, err := read.Label.Marshal(); err != nil || !bytes.Equal(got, want) {
		return "", errors.New("the sealed text does not read back with its label")
	}
	return text, nil
}

// carrier is the variable of the pipeline that holds a sealed value.
func carrier(name string, suffix bool) string {
	if suffix {
		return names.Prefix + name + names.SealedSuffix
	}
	return names.Prefix + name
}

// rejection returns the pattern by which newer agents refuse to upload a variable
// with the name that r's usually has.
func (r result) rejection() (pattern string, ok bool) {
	for _, pattern := range rejected {
		if ok, _ := path.Match(pattern, carrier(r.label.Name, false)); ok {
			return pattern, true
		}
	}
	return "", false
}

// lines are those for pipeline.yml, in which the variable carrier holds the text.
func (r result) lines(carrier string) string {
	comment := "# ciphertext, not a leaked secret: sealed by encrypt, opens only in\n# " + place(r.label) + limits(r.label) + "\n"
	if sets := sets(r.label); sets != "" {
		comment += fit.Wrap(sets, 79, "# ", "# ")
	}
	return fmt.Sprintf("%senv:\n  %s: \"%s\"\n", comment, carrier, r.text)
}

// closing says in one line who can open it, and where.
func (r result) closing() string {
	until := ""
	if r.label.Expires.IsZero() {
		until = ", without expiry"
	}
	if sets := sets(r.label); sets != "" {
		until += "; " + sets
	}
	return fmt.Sprintf("opens for %s in %s%s%s", join(r.to), place(r.label), limits(r.label), until)
}

// sets says what a value becomes, if not the variable of its name.
func sets(l envelope.Label) string {
	switch l.Type {
	case envelope.TypeFile:
		return "sets " + l.Name + " to the path of a private file"
	case envelope.TypeBundle:
		return "sets " + strings.Join(l.Names, ", ")
	}
	return ""
}

// cause drops the file's name from an error: who mixes up flags may have put a
// value in its place.
func cause(err error) error {
	var e *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &e):
		return e.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// join lists what may stand for each other.
func join[T fmt.Stringer](values []T) string {
	return strings.Join(texts(values), " or ")
}

func texts[T fmt.Stringer](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = v.String()
	}
	return all
}
