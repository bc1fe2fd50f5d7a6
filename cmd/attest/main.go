// Attest asks Buildkite's REST API what a job's build is. The hooks start it where
// the operator has turned attestation on: it reads a question on its standard input
// and writes one answer.
//
// It is a program of its own so that what speaks TLS and reads foreign JSON shares no
// process with an identity or a job's environment (docs/decisions/0006). It takes no
// arguments, and no environment: none of proxies, certificates, name servers or Go's
// runtime can come from there.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/attest"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/witness"
)

const (
	statusAnswer  = 0
	statusUsage   = 2
	statusMachine = 75 // EX_TEMPFAIL, sysexits.h
)

func main() {
	debug.SetMemoryLimit(64 << 20)
	go endWith(os.Getppid())
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// endWith ends the program when its hook has ended without it: the agent, or a lack of
// memory, may kill a hook, and the token is held for nobody then.
func endWith(hook int) {
	for os.Getppid() == hook {
		time.Sleep(100 * time.Millisecond)
	}
	os.Exit(statusMachine)
}

// run is the whole program. Its status is 0 when it has written an answer, a refusal
// too, 2 when nobody asked in the way that hooks do, 75 when it can't ask safely.
func run(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 || len(environ) > 0 {
		fmt.Fprintln(stderr, "attest: error: the hooks start this program, without arguments and with an empty environment")
		fmt.Fprintln(stderr, "attest: hint: see attestation in docs/operators.md")
		return statusUsage
	}
	if err := harden.Process(); err != nil {
		fmt.Fprintln(stderr, "attest: error:", err)
		return statusMachine
	}
	// A hook asks at once, and the client ends at the deadline: whatever hangs ends here.
	end := time.AfterFunc(10*witness.Grace, func() { os.Exit(statusMachine) })
	defer end.Stop()
	text, err := io.ReadAll(io.LimitReader(stdin, witness.MaxText+1))
	if err != nil {
		fmt.Fprintln(stderr, "attest: error: the question can't be read")
		return statusMachine
	}
	question, err := witness.ParseQuestion(text)
	if err != nil {
		fmt.Fprintln(stderr, "attest: error: the question is", err)
		return statusUsage
	}
	end.Reset(question.Deadline + witness.Grace/2)
	answer, err := attest.Answer(context.Background(), question).Marshal()
	if err != nil {
		fmt.Fprintln(stderr, "attest: error: the answer can't be written:", err)
		return statusMachine
	}
	if _, err := stdout.Write(answer); err != nil {
		return statusMachine
	}
	return statusAnswer
}
