//go:build unix

// Prepare builds the programs that the tests run, and says what it is doing: go
// test would keep that to itself.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

func main() {
	tools := []string{"buildkite-agent", "age"}
	// Without an engine no test runs them, and they take longer than the others.
	if exec.Command("docker", "version").Run() == nil {
		tools = append(tools, "docker-compose")
		if _, err := exec.LookPath("gcc"); err == nil {
			tools = append(tools, "nvidia-ctk", "nvidia-container-runtime")
		}
	}
	for _, name := range tools {
		if _, err := agenttest.Tool(context.Background(), name, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "prepare: error:", err)
			os.Exit(1)
		}
	}
}
