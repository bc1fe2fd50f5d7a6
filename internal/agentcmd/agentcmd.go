// Package agentcmd runs the agent's own program for a job, where its Job API does
// not serve.
package agentcmd

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
)

// patience is how long the program may take.
const patience = 10 * time.Second

// Run runs buildkite-agent with these arguments, in dir or where we are, with the
// job's environment, and says whether it did well. What it prints is dropped.
// Where the program lies is the agent's own word, whatever the job says.
func Run(environ []string, stdin io.Reader, dir string, args ...string) error {
	bin := job.Lookup(environ, "BUILDKITE_BIN_PATH")
	if !filepath.IsAbs(bin) {
		return errors.New("no BUILDKITE_BIN_PATH")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "buildkite-agent"), args...)
	cmd.Env, cmd.Stdin, cmd.Dir = environ, stdin, dir
	return cmd.Run()
}
