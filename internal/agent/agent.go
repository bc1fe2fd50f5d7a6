//go:build unix

// Package agent tells which Buildkite agent started this process.
package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// Name is what the agent's program must be called: its bootstrap calls itself by
// this name.
const Name = "buildkite-agent"

// ErrNotAgent says that something else than an agent started this process.
var ErrNotAgent = errors.New("not started by an agent")

// An Agent is the process that started this one.
type Agent struct {
	PID int
	Exe string // its program, absolute
}

// Parent returns the agent that is this process's parent, on the kernel's word
// and not the environment's. It needs the agent's privilege. rule says who may
// own the program. The error wraps ErrNotAgent or rootfile.ErrUntrusted.
func Parent(rule rootfile.Rule) (Agent, error) {
	a := Agent{PID: os.Getppid()}
	exe, err := os.Readlink(procFile(a.PID, "exe"))
	if err != nil {
		return Agent{}, fmt.Errorf("%w: %w", ErrNotAgent, err)
	}
	// An agent that was replaced while it runs goes on with the new program, as it
	// would by itself. Whoever can put a file there is root.
	a.Exe = strings.TrimSuffix(exe, " (deleted)")
	if filepath.Base(a.Exe) != Name {
		return Agent{}, fmt.Errorf("%w: process %d is another program", ErrNotAgent, a.PID)
	}
	if _, err := rootfile.Check(a.Exe, rule); err != nil {
		return Agent{}, err
	}
	if os.Getppid() != a.PID {
		return Agent{}, fmt.Errorf("%w: it has ended", ErrNotAgent)
	}
	return a, nil
}

func procFile(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
