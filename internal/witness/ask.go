package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// Grace is how long after its deadline attest may still live, to say that it got no
// answer in time. One that lives longer is killed.
const Grace = time.Second

// What an operator, whom Ask's callers name, can do.
const (
	hintMachine = "see what is wrong with this machine; another may do better"
	hintRelease = "all programs beside the hooks are of one release: install them again"
)

// statusUsage is that of an attest which does not understand the question, and of a
// Go program that a bug ended.
const statusUsage = 2

// Ask starts attest, the program of that path, and returns what it says: an
// attestation, or an error that is a *Refusal, at the latest a little more than
// Grace after the deadline.
//
// The program must be root's or this user's own, and nobody else's to change. It has
// no variable of our environment, no file but its three standard ones, / as its
// working directory, and the question as its only input.
func Ask(ctx context.Context, program string, q Question) (*trust.Attestation, error) {
	fault := func(hint, format string, args ...any) error {
		return &Refusal{Reason: "attest: " + escape.Text(fmt.Sprintf(format, args...)), Hint: hint, Outage: true}
	}
	if _, err := rootfile.Check(program, rootfile.Rule{User: os.Getuid()}); err != nil {
		hint := hintMachine
		if own := (*rootfile.Error)(nil); errors.As(err, &own) && own.Hint() != "" {
			hint = own.Hint()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault("install it beside the hooks: make install does", "%s is not there", program)
		}
		return nil, fault(hint, "%v", err)
	}
	if !utf8.ValidString(q.Pipeline + q.Number + q.Build) {
		return nil, &Refusal{Reason: "what the job states of its build is no text", Hint: "see how this job was started"}
	}
	question, err := q.Marshal()
	if err != nil {
		return nil, fault(hintMachine, "%v", err)
	}

	alive, kill := context.WithTimeout(ctx, q.Deadline+Grace)
	defer kill()
	cmd := exec.CommandContext(alive, program)
	cmd.Env = []string{} // nil would be ours
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(question)
	stdout := &bounded{left: MaxText, over: kill}
	cmd.Stdout = stdout
	cmd.WaitDelay = Grace / 4 // what it started, and it starts nothing, can't hold us
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case stdout.left < 0:
		return nil, fault(hintMachine, "it says more than %d MiB", MaxText>>20)
	case ctx.Err() != nil:
		return nil, fault(hintMachine, "it was canceled")
	case alive.Err() != nil:
		return nil, fault(hintMachine, "it did not end within %s and was killed", q.Deadline+Grace)
	case errors.As(err, &exit) && exit.ExitCode() == statusUsage:
		return nil, fault(hintRelease, "it ended with %s", exit.ProcessState)
	case errors.As(err, &exit):
		return nil, fault(hintMachine, "it ended with %s", exit.ProcessState)
	case err != nil:
		return nil, fault(hintMachine, "%v", err)
	}
	answer, err := ParseAnswer(stdout.text.Bytes())
	switch {
	case err != nil && stdout.text.Len() == 0:
		return nil, fault(hintMachine, "it says nothing")
	case err != nil:
		return nil, fault(hintRelease, "its answer is %v", err)
	case answer.Refusal != nil:
		return nil, answer.Refusal
	}
	return answer.Attestation, nil
}

// bounded keeps so many bytes, and calls over where there are more.
type bounded struct {
	text bytes.Buffer
	left int
	over func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		b.over()
		return 0, errors.New("too much")
	}
	return b.text.Write(p)
}
