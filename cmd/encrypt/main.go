// Encrypt seals a secret for the agents of one repository and prints the lines
// that carry it in a Buildkite pipeline. It needs a recipient and no key.
//
// Standard output gets those lines and nothing else; questions go to the
// terminal, everything else to standard error.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
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

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

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

// run is the whole program. Its status is 0 when the sealed text was printed, 1
// when something was refused, 2 when the arguments make no sense.
func run(args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	say := func(format string, a ...any) { fmt.Fprintf(stderr, "encrypt: "+format+"\n", a...) }
	o, err := parse(args)
	switch {
	case err != nil:
	case o.help:
		io.WriteString(stdout, usage)
	case o.version:
		if info, ok := debug.ReadBuildInfo(); ok {
			fmt.Fprintln(stdout, "encrypt", info.Main.Version)
		}
	default:
		err = encrypt(o, env, time.Now(), stdin, stdout, stderr, say)
	}
	if err == nil {
		return 0
	}
	say("error: %s", err)
	var r *refusal
	if !errors.As(err, &r) {
		return 1
	}
	if r.hint != "" {
		say("hint: %s", r.hint)
	}
	return r.status
}

// encrypt shows for whom and where it will seal, asks for what is missing,
// judges the value, and prints. Whatever can be refused without the value is
// refused before it is asked for.
func encrypt(o options, env []string, now time.Time, stdin io.Reader, stdout, stderr io.Writer, say func(string, ...any)) error {
	label, err := o.label(now)
	if err != nil {
		return err
	}
	here := findCheckout(".")
	note, err := o.addRepos(&label, here, env)
	if err != nil {
		return err
	}
	to, err := findRecipients(o, here, embedded)
	if err != nil {
		return err
	}
	if err := checkLabel(label, to); err != nil {
		return err
	}

	say("for %s%s", place(label), note)
	for _, r := range to {
		say("to %s, from %s", r, r.from)
	}
	if label.Any {
		say("warning: it opens in any repository, forks of others included, where the operator allows that")
	}

	input, typed := openTerminal(stdin, stderr)
	if label.Name == "" {
		if !typed {
			return misused("encrypt NAME reads the value from standard input", "the variable's name is missing")
		}
		name, err := input.ask("Variable name: ")
		if err != nil {
			return err
		}
		if label.Name, err = checkName(strings.TrimSpace(name)); err != nil {
			return err
		}
	}
	value, err := readValue(o, label.Name, stdin, input, typed)
	if err != nil {
		return err
	}
	if !o.raw {
		var dropped bool
		if value, dropped = shape.Trim(value); dropped {
			say("dropped the newline at the end of the value; --raw keeps it")
		}
	}
	for _, f := range shape.Check(label.Name, value, o.raw) {
		if f.Refused {
			return refuse(f.Hint, "%s", f.Text)
		}
		say("warning: %s", f.Text)
		say("hint: %s", f.Hint)
	}

	text, err := seal(label, value, to)
	if err != nil {
		return err
	}
	carrier := envelope.Prefix + label.Name
	for _, pattern := range rejected {
		if ok, _ := path.Match(pattern, carrier); ok {
			say("agent v4 (v3 with --reject-secrets) uploads no variable called %s", pattern)
			say("if yours refuses, rename it to %s: the text stays the same", carrier+envelope.SealedSuffix)
			break
		}
	}
	lines := fmt.Sprintf("# ciphertext, not a leaked secret: sealed by encrypt, opens only in\n# %s%s\nenv:\n  %s: \"%s\"\n",
		place(label), limits(label), carrier, text)
	if _, err := io.WriteString(stdout, lines); err != nil {
		return fmt.Errorf("standard output: %w", cause(err))
	}
	until := ""
	if label.Expires.IsZero() {
		until = ", without expiry"
	}
	say("opens for %s in %s%s%s", join(to), place(label), limits(label), until)
	return nil
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
	read, _, err := envelope.Peek(text)
	if err != nil {
		return "", fmt.Errorf("the sealed text does not read back: %w", err)
	}
	if got, err := read.Marshal(); err != nil || !bytes.Equal(got, want) {
		return "", errors.New("the sealed text does not read back with its label")
	}
	return text, nil
}

// readValue takes the value from --file, from standard input when something is
// piped in, else from the person at the terminal.
func readValue(o options, name string, stdin io.Reader, input terminal, typed bool) (plaintext.Value, error) {
	switch {
	case o.file != "" && o.file != "-":
		f, err := os.Open(o.file)
		if err != nil {
			return plaintext.Value{}, fmt.Errorf("--file: %w", cause(err))
		}
		defer f.Close()
		v, err := readAll(f)
		if err != nil {
			return plaintext.Value{}, fmt.Errorf("--file: %w", cause(err))
		}
		return v, nil
	case typed: // --file - too: read as a file, a terminal would show what is typed
		return input.askHidden("Secret value: ", name)
	}
	v, err := readAll(stdin)
	if err != nil {
		return plaintext.Value{}, fmt.Errorf("standard input: %w", err)
	}
	return v, nil
}

// readAll reads a value with its newline, and one byte more to see that it is too large.
func readAll(r io.Reader) (plaintext.Value, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(envelope.MaxValue+len("\r\n")+1)))
	defer clear(b)
	return plaintext.New(string(b)), err
}

// cause drops the file's name from an error: who mixes up flags may have put a
// value in its place.
func cause(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// join lists what may stand for each other.
func join[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, " or ")
}
