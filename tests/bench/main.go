//go:build linux

// Bench measures the hook against other ways to give a job its secrets, all in
// one run: how long each takes for 1, 10, 50 and 200 secrets, how much memory,
// what the masks cost a job's log, what split mode adds to a job, and what the
// check takes in a container. It prints tables and writes docs/bench.md and
// docs/bench.svg.
//
//	go run ./tests/bench               all of it
//	go run ./tests/bench split         split mode alone; the rest of the page stays
//	go run ./tests/bench containers    the check alone; the rest of the page stays
//
// A time is that of one process from fork to exit, with everything that it does.
// The contenders run one after the other in rounds, each round in another order;
// a ratio is the median of the ratios within the rounds. The machine should have
// nothing else to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/agent"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// numbers of secrets that are measured.
var numbers = []int{1, 10, 50, 200}

func main() {
	if filepath.Base(os.Args[0]) == agent.Name {
		os.Exit(asAgent(os.Args[1], os.Stdout, os.Stderr))
	}
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, progress io.Writer) error {
	if len(args) > 1 || len(args) == 1 && args[0] != "split" && args[0] != "containers" {
		return errors.New("usage: bench [split | containers]")
	}
	wants := func(part string) bool { return len(args) == 0 || args[0] == part }
	root, err := agenttest.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bk-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	docs := filepath.Join(root, "docs")
	old, err := os.ReadFile(filepath.Join(docs, "bench.md"))
	if err != nil {
		return err
	}
	first, second, third := parts(string(old))

	if wants("split") {
		fmt.Fprintln(progress, "bench: split mode")
		switch table, err := split(ctx, dir); {
		case errors.Is(err, errAlone) && len(args) == 0:
			fmt.Fprintln(progress, "bench: without split mode:", err)
		case err != nil:
			return err
		default:
			fmt.Fprint(stdout, table+"\n")
			second = splitPage(table, machine())
		}
	}
	if wants("containers") {
		fmt.Fprintln(progress, "bench: containers")
		switch table, err := inContainers(ctx, dir); {
		case err != nil && len(args) == 0:
			fmt.Fprintln(progress, "bench: without containers:", err)
		case err != nil:
			return err
		default:
			fmt.Fprint(stdout, table+"\n")
			third = containersPage(table, machine())
		}
	}
	if len(args) == 0 {
		if first, err = compare(ctx, dir, docs, stdout, progress); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(docs, "bench.md"), []byte(first+second+third), 0o644)
}

// compare measures all contenders and writes the picture. It returns the page's
// first part.
func compare(ctx context.Context, dir, docs string, stdout, progress io.Writer) (string, error) {
	w, err := newWorkplace(ctx, dir, progress)
	if err != nil {
		return "", err
	}
	var r results
	for _, n := range numbers {
		fmt.Fprintf(progress, "bench: %d secrets\n", n)
		contenders, err := w.contenders(ctx, n)
		if err != nil {
			return "", err
		}
		s, err := w.measure(ctx, n, contenders)
		if err != nil {
			return "", err
		}
		r.samples = append(r.samples, s)
	}
	fmt.Fprintln(progress, "bench: a log of 20 MB")
	if r.logs, err = w.logs(ctx, progress); err != nil {
		return "", err
	}
	table := r.table()
	fmt.Fprint(stdout, table)
	if err := os.WriteFile(filepath.Join(docs, "bench.svg"), []byte(r.picture()), 0o644); err != nil {
		return "", err
	}
	return page(table, machine()), nil
}
