// Pre-exit is the hook at a job's end that removes what secrets of type file left.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/ancestors"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/jobfile"
)

func main() { os.Exit(run(os.Stdout)) }

// run removes the files. Its status is 75, the machine's fault, where a file may
// be left. It reads nothing of the job's environment: the folders are named after
// the process that runs the job, which started this hook.
func run(stdout io.Writer) int {
	var errs []error
	removed := 0
	for _, pid := range ancestors.PIDs() {
		n, err := jobfile.RemoveAll(pid)
		removed, errs = removed+n, append(errs, err)
	}
	if removed > 0 {
		fmt.Fprintln(stdout, "secrets: removed the files of this job")
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(stdout, "pre-exit: error: a secret's file may be left: %s\n", err)
		fmt.Fprintln(stdout, "pre-exit: hint: the agent's operator removes juliagpu-secrets-* from /dev/shm and /tmp")
		return 75
	}
	return 0
}
