package main

import (
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestLog: what a job's log shows, to be read in the diff like code.
func TestLog(t *testing.T) {
	foreign := gpu.Finding{ID: "gpu.foreign", Severity: gpu.Deny, What: "this container can open GPU 0000:82:00.0 GPU-99999999 of agent gpuci.17 (195:3)",
		Why: "a job here could read and change what others compute there", Fix: []string{"in compose.yml, this agent's service: the own GPU by name, never \"all\" and never an index:",
			"    environment: {NVIDIA_VISIBLE_DEVICES: \"GPU-1b7ad372-8d21-4239-8e32-63449f713690\"}"}}
	denied := gpu.Finding{ID: "gpu.denied", Severity: gpu.Deny, Machine: true, What: "/dev/nvidia2 (195:2) is there, but the kernel refuses to open it",
		Why: "infrastructure, not your change: the engine's device rules are gone", Fix: []string{"now: systemctl restart buildkite-agent@AGENT on the host"}}
	nnp := gpu.Finding{ID: "container.nnp", Severity: gpu.Warn, What: "no_new_privs is off", Why: "one setuid program with a hole makes a job root",
		Fix: []string{"in compose.yml, this agent's service:", "    security_opt: [no-new-privileges:true]"}}
	waived := gpu.Finding{ID: "container.caps", Severity: gpu.Deny, What: "capability SYS_PTRACE", Waived: "rocgdb tests attach to children"}
	info := gpu.Finding{ID: "limits", Severity: gpu.Info, What: "no limit on memory"}
	for name, findings := range map[string][]gpu.Finding{
		"pass":    {},
		"warning": {nnp, waived, info},
		"refused": {foreign, denied, waived, nnp, info},
		"machine": {denied},
	} {
		t.Run(name, func(t *testing.T) {
			r := gpu.Report{Findings: findings, Checks: 39, GPUs: "1 of 4 GPUs (GPU-1b7ad372, 81:00.0)"}
			got := log(r, r.Status(), 6*time.Millisecond)
			golden := filepath.Join("testdata", name+".log")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

// TestExposed: what a job can read is told, and refused where the operator has
// not said that it may be so.
func TestExposed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity")
	config := settings.Settings{Mode: settings.Direct, Reason: "no forks", Identities: []settings.IdentityFile{{Path: path}}}
	identities := func() []string {
		var all []string
		for _, f := range exposed(config) {
			if strings.Contains(f.What, path) {
				all = append(all, f.Severity.String()+": "+f.What)
			}
		}
		return all
	}
	require.Empty(t, identities(), "not there")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Equal(t, []string{"info: this job can read the identity " + path + "; mode direct: no forks"}, identities())
	config.Consume = true
	require.Equal(t, []string{"deny: the identity " + path + " should be gone by now, and this job can read it"}, identities())
	config.Identities, config.Attest.Token = nil, path
	require.Equal(t, []string{"deny: the API token " + path + " should be gone by now, and this job can read it"}, identities())
}

// TestToken: the agent's registration token in a process's environment or
// arguments, whatever its value.
func TestToken(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		need.Skip(t, "needs /proc")
	}
	for name, tt := range map[string]struct {
		env, arg, want string
	}{
		"nothing":       {"A=b", "start", ""},
		"environment":   {"BUILDKITE_AGENT_TOKEN=t", "start", "the environment"},
		"empty":         {"BUILDKITE_AGENT_TOKEN=", "start", ""},
		"arguments":     {"A=b", "--token=t", "the arguments"},
		"two arguments": {"A=b", "--token", "the arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.want, token(sleeper(t, tt.env, tt.arg)))
		})
	}
}

// sleeper is a process with that environment and argument that waits to be ended.
func sleeper(t *testing.T, env, arg string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Args = []string{"sleeper", "-test.run=TestSleeper", "--", arg}
	cmd.Env = []string{env}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	// Its arguments are in /proc a moment after Start.
	_, err = stdout.Read(make([]byte, 1))
	require.NoError(t, err)
	return cmd.Process.Pid
}

// TestSleeper is that process; it ends with its input.
func TestSleeper(t *testing.T) {
	if os.Args[0] == "sleeper" {
		os.Stdout.WriteString("here")
		io.Copy(io.Discard, os.Stdin)
	}
}
