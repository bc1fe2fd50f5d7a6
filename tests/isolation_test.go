//go:build unix

package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// noPolicy is a policy that can't be read: refused on any machine, whatever
// this one's walls are.
const noPolicy = "gpu: {file: /nonexistent/gpu.yml}\n"

// noGPU is a policy for a GPU that no machine has.
const noGPU = "gpu: {vendor: nvidia, devices: [{uuid: GPU-00000000-0000-0000-0000-000000000001}]}\n"

// TestIsolationPasses: a machine of one trust level runs the command, and says
// whose word that is.
func TestIsolationPasses(t *testing.T) { inEachMode(t, testIsolationPasses) }

func testIsolationPasses(t *testing.T, m mode) {
	h, _ := readyHost(t, m)
	r := h.run(row{outcome: "none", log: []string{
		"~~~ :lock: GPU isolation: expected of the host, and not enforced, ",
		"no container is expected here: a test's machine\n",
		"info: secrets.readable: this job can read the agent's registration token",
		"mode " + string(m) + ": a test's agent",
	}})
	require.Equal(t, m == direct, strings.Contains(r.Text(), "info: secrets.readable: this job can read the identity"), "split mode has consumed it")
	require.Empty(t, r.Annotations)
}

// TestIsolationRefused: what is wrong for everybody refuses the command, keeps
// secrets closed, and tells both why.
func TestIsolationRefused(t *testing.T) { inEachMode(t, testIsolationRefused) }

func testIsolationRefused(t *testing.T, m mode) {
	h := newHost(t, m)
	to, entry := h.identity("identity", false)
	h.configure(noPolicy, entry)
	value := canary("token")
	r := h.run(row{
		secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		status:  1, noOpen: []string{value},
		log: []string{
			"SECRET_TOKEN: withheld: no secret is opened in this container: policy.trust: ",
			"+++ :no_entry: GPU isolation: 1 refused",
			"policy.trust: ", "/nonexistent/gpu.yml", "  why: ", "  fix: ", "docs/gpu.md#policytrust",
			"the command does not run", "^^^ +++",
		},
	})
	require.Len(t, r.Annotations, 1)
	a := r.Annotations[0]
	require.Equal(t, "error", a.Style)
	require.Equal(t, "gpu-isolation-agenttest", a.Context)
	require.Contains(t, a.Body, "policy.trust")
	require.Contains(t, a.Body, "fix: ")
}

// TestIsolationMachine: a GPU that is not there is no fault of the change, so a
// pipeline's retry on status 75 gives the job to another agent.
func TestIsolationMachine(t *testing.T) {
	t.Parallel()
	broken := newHost(t, direct)
	_, entry := broken.identity("identity", false)
	broken.configure(noGPU, entry)
	healthy, _ := readyHost(t, direct)

	// As Buildkite does for retry: {automatic: [{exit_status: 75, limit: 2}]}.
	var status []int
	for _, h := range []*host{broken, healthy} {
		r, err := h.agent.RunWhole(t.Context(), agenttest.Job{Command: "echo the command ran"}, func(r agenttest.Result) bool {
			return r.ExitStatus == 0 || agenttest.Says("infrastructure, not your change;")(r)
		})
		require.NoError(t, err)
		status = append(status, r.ExitStatus)
		text := r.Text()
		require.Equal(t, r.ExitStatus == 0, strings.Contains(text, "the command ran\r\n") || strings.Contains(text, "the command ran\n"), text)
		if r.ExitStatus == 75 {
			require.Contains(t, text, "gpu.missing: GPU GPU-00000000-0000-0000-0000-000000000001 is not here")
			require.Contains(t, text, "infrastructure, not your change")
			continue
		}
		break
	}
	require.Equal(t, []int{75, 0}, status)
}

// TestIsolationWishes: a step can demand more than the operator, and never less.
func TestIsolationWishes(t *testing.T) {
	t.Parallel()
	h, _ := readyHost(t, direct)
	source := h.plugin()
	h.run(row{env: use(source, `{"gpu":"required"}`), status: 75, log: []string{"gpu.missing: this step demands a GPU"}})
	h.run(row{env: use(source, `{"busy":"deny"}`), outcome: "none"})

	h.configure(noPolicy, "{file: "+filepath.Join(h.identities, "identity")+"}")
	h.run(row{env: use(source, `{"busy":"deny"}`), status: 1, log: []string{"policy.trust"}})
}

// TestIsolationPlugin: where the agent's own hook is, the plugin says nothing
// twice; alone it warns, and claims nothing.
func TestIsolationPlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t, direct)
	_, entry := h.identity("identity", false)
	h.configure("", entry)
	source := h.plugin()
	r := h.run(row{env: use(source, `{}`), outcome: "none"})
	require.Equal(t, 1, strings.Count(r.Text(), "GPU isolation"), r.Text())

	h.agentLevel(false)
	h.configure(noPolicy, entry)
	r = h.run(row{env: use(source, `{}`), outcome: "none", log: []string{
		"~~~ :lock: GPU isolation: advice alone, no hook of this agent enforces it, 1 warning", "warning: policy.trust: ",
	}})
	require.Len(t, r.Annotations, 1)
	require.Equal(t, "warning", r.Annotations[0].Style)
	h.run(row{env: use(source, `{"gpu":"required"}`), status: 75, log: []string{"gpu.missing: this step demands a GPU"}})
	h.run(row{env: use(source, `{"gpu":"wished"}`), status: 1, log: []string{"the plugin's configuration in this step is not valid"}})
}

// TestIsolationReport: the operator can keep what was measured.
func TestIsolationReport(t *testing.T) {
	t.Parallel()
	h := newHost(t, direct)
	_, entry := h.identity("identity", false)
	h.configure("", entry)
	config := filepath.Join(h.lib, "config.yml")
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, []byte(strings.Replace(string(text), "reason: a test's machine", "reason: a test's machine, report: artifact", 1)), 0o644))
	r := h.run(row{outcome: "none"})
	var report struct {
		Schema  int
		Verdict string
		Facts   struct{ Platform string }
	}
	require.Contains(t, r.Artifacts, "gpu-isolation.json")
	require.NoError(t, json.Unmarshal([]byte(r.Artifacts["gpu-isolation.json"]), &report))
	require.Equal(t, 1, report.Schema)
	require.Equal(t, "pass", report.Verdict)
	require.NotEmpty(t, report.Facts.Platform)
}
