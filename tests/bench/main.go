//go:build linux

// Bench measures the hook against other ways to give a job its secrets, all in
// one run: how long each takes for 1, 10, 50 and 200 secrets, how much memory,
// and what the masks cost a job's log. It prints a table and writes
// docs/bench.md and docs/bench.svg.
//
//	go run ./tests/bench
//
// A time is that of one process from fork to exit, with everything that it does.
// The contenders run one after the other in rounds, each round in another order;
// a ratio is the median of the ratios within the rounds. The machine should have
// nothing else to do.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// numbers of secrets that are measured.
var numbers = []int{1, 10, 50, 200}

func main() {
	if err := run(context.Background(), os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stdout, progress io.Writer) error {
	root, err := agenttest.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bk-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorkplace(ctx, dir, progress)
	if err != nil {
		return err
	}
	var r results
	for _, n := range numbers {
		fmt.Fprintf(progress, "bench: %d secrets\n", n)
		contenders, err := w.contenders(ctx, n)
		if err != nil {
			return err
		}
		s, err := w.measure(ctx, n, contenders)
		if err != nil {
			return err
		}
		r.samples = append(r.samples, s)
	}
	fmt.Fprintln(progress, "bench: a log of 20 MB")
	if r.logs, err = w.logs(ctx, progress); err != nil {
		return err
	}
	table := r.table()
	fmt.Fprint(stdout, table)
	docs := filepath.Join(root, "docs")
	if err := os.WriteFile(filepath.Join(docs, "bench.svg"), []byte(r.picture()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "bench.md"), []byte(page(table, machine())), 0o644)
}
