//go:build !js

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

// A bundle is the variables of one sealed value, while they are collected.
type bundle struct {
	name   string
	values map[string]plaintext.Value
	say    func(string, ...any)
}

// sealBundle collects the variables and seals them.
func (o options) sealBundle(label envelope.Label, to []recipient, stdin io.Reader, input *terminal, typed bool, say func(string, ...any)) (result, error) {
	b := bundle{label.Name, map[string]plaintext.Value{}, say}
	if err := b.collect(o.envFile, stdin, input, typed); err != nil {
		return result{}, err
	}
	if len(b.values) == 0 {
		return result{}, refuse("encrypt --bundle NAME --env-file FILE, or one name after the other at the prompt", "a bundle without a variable")
	}
	value, names, err := envelope.MarshalBundle(b.values)
	if err != nil {
		return result{}, err
	}
	const smaller = "make two bundles of it"
	if len(value.Reveal()) > envelope.MaxValue {
		return result{}, refuse(smaller, "the bundle is larger than 64 KiB")
	}
	label.Type, label.Names = envelope.TypeBundle, names
	text, err := seal(label, value, to)
	if err != nil {
		return result{}, refuse(smaller, "%s", err)
	}
	return result{label: label, to: to, text: text}, nil
}

func (b bundle) collect(file string, stdin io.Reader, input *terminal, typed bool) error {
	switch {
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("--env-file: %w", cause(err))
		}
		defer f.Close()
		return b.read(f, shownPath(file))
	case typed: // --env-file - too: read as a file, a terminal would show what is typed
		return b.converse(input)
	}
	return b.read(stdin, "standard input")
}

// name accepts the name of another variable.
func (b bundle) admit(typed string) (string, error) {
	name, err := checkName(typed)
	if err != nil {
		return "", err
	}
	if _, ok := b.values[name]; ok {
		return "", refuse("give each variable one value", "%s is there already", name)
	}
	if name == carrier(b.name, false) || name == carrier(b.name, true) {
		return "", refuse("take another name", "%s carries the bundle itself", name)
	}
	return name, nil
}

// add judges a value and keeps it.
func (b bundle) add(name string, value plaintext.Value) error {
	value, _, warnings, err := judge(name, value, false)
	if err != nil {
		hint := ""
		if r := (*refusal)(nil); errors.As(err, &r) {
			hint = r.hint
		}
		return refuse(hint, "%s: %s", name, err)
	}
	for _, w := range warnings {
		b.say("warning: %s: %s", name, w.Text)
		b.say("hint: %s", w.Hint)
	}
	b.values[name] = value
	return nil
}

// converse asks for names and values until a name is empty. What can't be right
// is said and asked again: the others were typed with care.
func (b bundle) converse(input *terminal) error {
	for {
		typed, err := input.ask("Variable name, or Enter to end: ")
		if err != nil {
			return err
		}
		if typed = strings.TrimSpace(typed); typed == "" {
			return nil
		}
		name, err := b.admit(typed)
		if err == nil {
			var value plaintext.Value
			if value, err = input.askHidden("Secret value: ", name); err == nil {
				err = b.add(name, value)
			}
		}
		if err == errStopped {
			return err
		}
		if r := (*refusal)(nil); errors.As(err, &r) {
			b.say("error: %s", r.text)
			b.say("hint: %s", r.hint)
		} else if err != nil {
			return err
		}
	}
}

// maxEnvFile is more than a bundle holds, with comments.
const maxEnvFile = 256 << 10

// read takes NAME=VALUE lines, blank lines and those that begin with #. Any other
// is refused by its number: it may be a part of a value.
func (b bundle) read(f io.Reader, shown string) error {
	text, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	defer clear(text)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", shown, cause(err))
	case len(text) > maxEnvFile:
		return refuse("one NAME=VALUE a line", "%s: larger than any bundle", shown)
	case !utf8.Valid(text) || strings.Contains(string(text), "\x00"):
		return refuse("save it as UTF-8", "%s: not text in UTF-8", shown)
	}
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		n++
		line, whole := strings.CutSuffix(line, "\n")
		if whole {
			line = strings.TrimSuffix(line, "\r")
		}
		if err := b.readLine(line, func(hint, what string) error { return refuse(hint, "%s:%d: %s", shown, n, what) }); err != nil {
			return err
		}
	}
	return nil
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (b bundle) readLine(line string, bad func(hint, what string) error) error {
	const several = "a value of several lines is sealed by itself: encrypt NAME --file FILE"
	if bare := strings.TrimSpace(line); bare == "" || bare[0] == '#' {
		return nil
	}
	typed, value, ok := strings.Cut(line, "=")
	switch {
	case !ok || !variable.MatchString(typed):
		return bad("no export and no blanks around =; "+several, "not NAME=VALUE")
	case strings.Trim(value, "=") == "":
		// The last line of some base64, perhaps: what stands before is no name then.
		return bad("leave the line out; "+several, "no value behind =")
	}
	name, err := b.admit(typed)
	if err != nil { // a name that was not typed as one is not repeated
		return bad("names that are twice there, begin with SECRET_, or decide which code runs are refused", "its name can't be in this bundle")
	}
	if strings.Contains(value, " #") {
		b.say("warning: %s: # and what follows become part of the value", name)
		b.say("hint: a comment stands on a line of its own")
	}
	return b.add(name, plaintext.New(value))
}
