//go:build unix

// Prepare builds the programs that the tests run, and says what it is doing: go
// test would keep that to itself.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

func main() {
	for _, name := range []string{"buildkite-agent", "age"} {
		if _, err := agenttest.Tool(context.Background(), name, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "prepare: error:", err)
			os.Exit(1)
		}
	}
}
