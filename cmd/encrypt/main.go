//go:build !js

// Encrypt seals a secret for the agents of one repository and prints the lines
// that carry it in a Buildkite pipeline. It needs a recipient and no key.
//
// Standard output gets those lines and nothing else; questions go to the
// terminal, everything else to standard error.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole program. Its status is 0 when the sealed text was printed, 1
// when something was refused, 2 when the arguments make no sense.
func run(args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	say := func(format string, a ...any) { fmt.Fprintf(stderr, "encrypt: "+format+"\n", a...) }
	o, err := parse(args)
	c, _, rest := commandOf(args)
	switch {
	case c == &completing && !o.help:
		err = completion(rest, stdout)
	case err != nil:
	case o.help:
		io.WriteString(stdout, c.manual(fit.Help(stdout)))
	case c == &showing:
		err = show(o, time.Now(), stdin, stdout, say)
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
		say("warning: %s", opensAnywhere)
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
	var page *target
	if o.write != "" {
		if page, note, err = o.findTarget(label.Name); err != nil {
			return err
		}
		if note != "" {
			say("%s", note)
		}
	}

	var r result
	if o.bundle != "" {
		r, err = o.sealBundle(label, to, stdin, input, typed, say)
	} else {
		r, err = o.sealValue(label, to, stdin, input, typed)
	}
	if r.dropped {
		say("dropped the newline at the end of the value; --raw keeps it")
	}
	for _, f := range r.warnings {
		say("warning: %s", f.Text)
		say("hint: %s", f.Hint)
	}
	if err != nil {
		return err
	}
	name := carrier(label.Name, o.suffix)
	if page != nil {
		name = page.carrier
	}
	if pattern, ok := r.rejection(); ok && name != carrier(label.Name, true) {
		say("agent v4 (v3 with --reject-secrets) uploads no variable called %s", pattern)
		say("if yours refuses, rename it to %s (--sealed-suffix): the text stays the same", carrier(label.Name, true))
	}
	if page == nil {
		if _, err := io.WriteString(stdout, r.lines(name)); err != nil {
			return fmt.Errorf("standard output: %w", cause(err))
		}
	} else if err := page.write(r, o.known(here, to), now, stdout, say); err != nil {
		return err
	}
	say("%s", r.closing())
	return nil
}

// sealValue reads one value and seals it.
func (o options) sealValue(label envelope.Label, to []recipient, stdin io.Reader, input *terminal, typed bool) (result, error) {
	value, err := readValue(o, label.Name, stdin, input, typed)
	if err != nil {
		return result{}, err
	}
	return judgeAndSeal(label, value, to, o.raw)
}

// readValue takes the value from --file, from standard input when something is
// piped in, else from the person at the terminal.
func readValue(o options, name string, stdin io.Reader, input *terminal, typed bool) (plaintext.Value, error) {
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
