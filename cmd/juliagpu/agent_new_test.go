package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

// TestExamples: with the settings of an example, juliagpu agent new writes that
// example. The templates are tested with these, on a real engine.
func TestExamples(t *testing.T) {
	examples, err := filepath.Glob("../../deploy/compose/agents/*/.env")
	require.NoError(t, err)
	kinds := map[string]bool{}
	for _, path := range examples {
		dir, name := filepath.Dir(path), filepath.Base(filepath.Dir(path))
		text := func(file string) string {
			t.Helper()
			text, err := os.ReadFile(filepath.Join(dir, file))
			require.NoError(t, err)
			return string(text)
		}
		values := map[string]string{}
		for line := range strings.Lines(text(".env")) {
			variable, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			for _, s := range envSettings {
				if s.variable == variable {
					require.NoError(t, fleet.Valid(name, variable, value))
					values[s.flag] = value
				}
			}
		}
		env := envOf(name, values)
		require.Equal(t, text(".env"), env, name)
		require.Equal(t, text("compose.yml"), composeFile, name)
		agent, err := fleet.Of(filepath.Dir(dir), name, env)
		require.NoError(t, err)
		require.NoError(t, fleet.Agree(agent.Kind, agent.GPUs), name)
		kinds[agent.Kind] = true
		want, err := gpu.ParseIntent([]byte(text("gpu.yml")))
		require.NoError(t, err)
		is, err := gpu.ParseIntent([]byte(intentOf(agent)))
		require.NoError(t, err, intentOf(agent))
		require.Equal(t, want, is, name)
	}
	require.Len(t, kinds, len(fleet.Kinds))
}

// TestNext: what is to be pasted stays whole on the narrowest terminal.
func TestNext(t *testing.T) {
	m := maker{program: &program{host: thisHost()}, name: "gpuci.3"}
	text := narrow(m.next("/etc/juliagpu-secrets/agents/gpuci.3"), 40)
	for _, command := range []string{"docker compose --project-directory /etc/juliagpu-secrets/agents/gpuci.3 build\n", "juliagpu doctor --agent gpuci.3\n", "systemctl enable --now buildkite-agent@gpuci.3\n"} {
		require.Contains(t, text, command)
	}
	m.name = "mig.slice"
	require.Contains(t, narrow(m.next("/x"), 0), "buildkite-agent@mig.slice.service\n")
}
