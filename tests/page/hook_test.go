//go:build unix

package page

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// TestTheHookOpensIt: a job on a released agent has what was sealed on the page,
// under both of its names.
func TestTheHookOpensIt(t *testing.T) {
	prepare(t)
	p := open(t, file(world.inside))
	p.typeInto("Name", "CODECOV_TOKEN")
	p.typeInto("Value-line", canary)
	p.typeInto("Repos", "https://github.com/JuliaGPU/CUDA.jl")
	require.True(t, p.seal(), p.text("form"))
	usual := p.value("output")
	p.click("#rename")

	binary, err := agenttest.Tool(t.Context(), "buildkite-agent", os.Stderr)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "bk-") // t.TempDir() is too long for sockets
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	lib := filepath.Join(dir, "lib")
	require.NoError(t, os.MkdirAll(filepath.Join(lib, "hooks"), 0o755))
	require.NoError(t, agenttest.Build(t.Context(), "./cmd/environment", filepath.Join(lib, "environment")))
	require.NoError(t, os.Symlink("../environment", filepath.Join(lib, "hooks", "environment")))
	identity := filepath.Join(dir, "identity")
	require.NoError(t, os.WriteFile(identity, []byte(world.site.String()+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(lib, "config.yml"), []byte("mode: direct\nreason: a test's agent\n"+
		"isolation: {expect: host, reason: a test's machine}\nidentities:\n  - file: "+identity+"\n"), 0o644))
	agent := agenttest.Agent{Binary: binary, Dir: dir, HooksPath: filepath.Join(lib, "hooks"), Polyglot: true}

	for _, lines := range []string{usual, p.value("output")} {
		var pipeline struct{ Env map[string]string }
		require.NoError(t, yaml.Unmarshal([]byte(lines), &pipeline))
		result, err := agent.RunWhole(t.Context(), agenttest.Job{
			Env: pipeline.Env, Command: `echo "token: $CODECOV_TOKEN"; printf %s "$CODECOV_TOKEN" | sha256sum`,
		}, nil)
		log := result.Text()
		require.NoError(t, err, log)
		require.Zero(t, result.ExitStatus, log)
		require.Contains(t, log, "1 granted, 0 withheld, 0 refused")
		require.Contains(t, log, "token: [REDACTED]")
		require.Contains(t, log, fmt.Sprintf("%x", sha256.Sum256([]byte(canary))))
		require.NotContains(t, log, canary)
	}
}
