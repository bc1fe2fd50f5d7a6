package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
)

// TestDoctorInContainer asks doctor in containers of a real engine, well and broken.
func TestDoctorInContainer(t *testing.T) {
	y := containers(t)
	dir, err := os.MkdirTemp(y.dir, "doctor-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	program := filepath.Join(dir, "juliagpu")
	require.NoError(t, agenttest.Build(t.Context(), "./cmd/juliagpu", program))
	// Doctor asks what hooks are, and runs none: one program stands for all.
	lib := filepath.Join(dir, "lib")
	require.NoError(t, os.MkdirAll(filepath.Join(lib, "hooks"), 0o755))
	for _, name := range []string{"environment", "pre-bootstrap", "pre-command", "pre-exit", "launch", "agent-startup", "attest"} {
		require.NoError(t, os.Link(program, filepath.Join(lib, name)))
	}
	for _, name := range []string{"environment", "pre-command", "pre-exit"} {
		require.NoError(t, os.Symlink("../"+name, filepath.Join(lib, "hooks", name)))
	}
	for _, name := range []string{"pre-bootstrap", "agent-startup"} {
		require.NoError(t, os.WriteFile(filepath.Join(lib, "hooks", name), []byte("#!/usr/lib/juliagpu-secrets/"+name+"\n"), 0o755))
	}
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	given := filepath.Join(dir, "given")
	require.NoError(t, os.Mkdir(given, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(given, "identity"), []byte(identity.String()+"\n"), 0o600))
	const good = "mode: split\nusers: {trusted: \"4711:4711\", other: \"4712:4712\"}\nidentities: [{file: /run/juliagpu-secrets/credentials/identity}]\nconsume: true\n"
	policy := y.file(t, "gpu: {vendor: none}\n", 0o644)

	well := []string{"--tmpfs", "/run:mode=755", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--security-opt", "no-new-privileges", "--memory", "1g", "--cpus", "1", "--pids-limit", "100",
		"-v", program + ":/usr/bin/juliagpu:ro", "-v", given + ":/run/juliagpu-secrets/credentials", "-v", policy + ":" + dock.Policy + ":ro"}
	hooks := []string{"-v", lib + ":/usr/lib/juliagpu-secrets:ro"}
	config := func(text string) []string {
		return []string{"-v", y.file(t, text, 0o644) + ":" + dock.Config + ":ro"}
	}
	for _, tt := range []struct {
		name  string
		flags []string
		want  string // the first finding that is a fault
	}{
		{"as it should be", slices.Concat(well, hooks, config(good)), ""},
		{"without our hooks", slices.Concat(well, config(good)), "hooks.missing"},
		{"without a configuration", slices.Concat(well, hooks), "config.missing"},
		{"with one that is wrong", slices.Concat(well, hooks, config("mode: splitt\n")), "config.wrong"},
		{"with users that the image lacks", slices.Concat(well, hooks, config("mode: split\nusers: {trusted: buildkite-trusted, other: buildkite-other}\nidentities: [{file: /run/juliagpu-secrets/credentials/identity}]\n")), "users.missing"},
		{"with the host's processes", slices.Concat(well, hooks, config(good), []string{"--pid", "host"}), "ns.pid"},
		{"with the host's shared memory", slices.Concat(well, hooks, config(good), []string{"--ipc", "host"}), "ns.ipc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := y.Run(t.Context(), tt.flags, nil, "/usr/bin/juliagpu", "doctor", "--json")
			require.NoError(t, err)
			require.NotContains(t, r.Log, "AGE-SECRET")
			var report struct {
				Place    string
				Findings []struct{ ID, Severity string }
			}
			require.NoError(t, json.Unmarshal([]byte(r.Log), &report), r.Log)
			require.Equal(t, "container", report.Place)
			first := ""
			if len(report.Findings) > 0 && report.Findings[0].Severity == "fault" {
				first = report.Findings[0].ID
			}
			require.Equal(t, tt.want, first, r.Log)
			require.Equal(t, tt.want != "", r.Status == 1, r.Log)
		})
	}
}
