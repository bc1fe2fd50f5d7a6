package doctor

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

var update = flag.Bool("update", false, "write the table of docs/doctor.md anew; read it in the diff")

// TestChecks: IDs are unique, texts are for people, and what a check waits for is
// made before it.
func TestChecks(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range checks {
		require.Regexp(t, `^[a-z]+\.[a-z0-9-]+$`, c.id)
		require.False(t, seen[c.id], c.id)
		for _, text := range []string{c.title, c.why, c.fix} {
			require.NotEmpty(t, text, c.id)
			require.False(t, strings.HasSuffix(text, ".") || strings.Contains(text, "|"), text)
		}
		for _, after := range c.after {
			found := seen[after]
			for id := range seen {
				found = found || strings.HasSuffix(after, ".") && strings.HasPrefix(id, after)
			}
			require.True(t, found, "%s waits for %s, which is not made before it", c.id, after)
		}
		seen[c.id] = true
	}
}

// TestCovered: each check's finding is that of a fixture, or of a test that is named here.
func TestCovered(t *testing.T) {
	covered := map[string]bool{}
	files, err := filepath.Glob("observe/testdata/*.txtar")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		_, want, _ := strings.Cut(string(text), "\n-- want --\n")
		for line := range strings.Lines(want) {
			_, id, _ := strings.Cut(strings.TrimSpace(line), " ")
			covered[id] = true
		}
	}
	for _, id := range []string{
		"credential.plain",                                                                                     // of all fixtures
		"doctor.partial",                                                                                       // TestNotRoot
		"clock.off", "api.unreachable", "api.token", "api.scopes", "api.power", "api.more", "api.organization", // TestAPI
		"credential.kept", "credential.gone", "users.missing", // TestContainer
	} {
		require.False(t, covered[id], id)
		covered[id] = true
	}
	for _, c := range checks {
		require.True(t, covered[c.id], c.id)
	}
}

// TestStatus: what could not be seen is not well, and no reason to call it wrong.
func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		about string
		has   []Severity
		want  int
	}{
		{"nothing", nil, 0}, {"information", []Severity{Info}, 0}, {"warnings", []Severity{Warn, Warn}, 0},
		{"something that was not seen", []Severity{Unknown, Warn}, 75}, {"a fault", []Severity{Fault, Unknown, Info}, 1},
	} {
		var r Report
		for _, s := range tt.has {
			r.Findings = append(r.Findings, Finding{Severity: s})
		}
		require.Equal(t, tt.want, r.Status(), tt.about)
	}
}

// TestCauses: a cause hides its effects, an agent's those of that agent alone.
func TestCauses(t *testing.T) {
	failed := Unit{Asked: true, Active: "failed"}
	broken := Agent{Name: "a", NoIntent: true, Unit: failed}
	other := Agent{Name: "b", Unit: failed}
	ids := func(f Facts) (ids []string) {
		for _, f := range Judge(f).Findings {
			if f.Severity == Fault {
				ids = append(ids, f.Agent+" "+f.ID)
			}
		}
		return ids
	}
	is := Engine{Tool: Tool{Version: "29.0.0"}, Cgroup: "2"}
	require.Equal(t, []string{"a policy.missing", "b unit.failed"}, ids(Facts{Place: Host, Engine: is, Agents: []Agent{broken, other}}))
	require.Equal(t, []string{" engine.down", "a policy.missing"}, ids(Facts{Place: Host, Engine: Engine{Down: "it is"}, Agents: []Agent{broken, other}}))
	shared := Agent{Name: "a", Shares: "b", Gone: Problem{What: "both have it"}, Unit: failed}
	require.Equal(t, []string{" agent.shared-gpu", "c unit.failed"}, ids(Facts{Place: Host, Engine: is, Agents: []Agent{shared, other, {Name: "c", Unit: failed}}}))
}

// TestCausesOfSome: what is wrong for some agents hides effects of theirs alone.
func TestCausesOfSome(t *testing.T) {
	r := Report{Findings: []Finding{{ID: "a.b", about: []string{"one", "two"}}}}
	c := check{after: []string{"a."}}
	require.Equal(t, "a.b", r.cause(c, []string{"two"}))
	require.Equal(t, "a.b", r.cause(c, []string{"two", "one"}))
	require.Empty(t, r.cause(c, []string{"one", "three"}))
	require.Empty(t, r.cause(c, nil), "the whole host")
}

// TestIsolation: what pre-command would say of a container stands beside the rest.
func TestIsolation(t *testing.T) {
	r := Judge(Facts{Place: Container, GPU: &gpu.Report{Checks: 39, Findings: []gpu.Finding{
		{ID: "ns.pid", Severity: gpu.Deny, What: "the host's processes", Why: "w", Fix: []string{"delete pid: host"}},
		{ID: "limits", Severity: gpu.Info, What: "no limit"},
		{ID: "ns.net", Severity: gpu.Deny, What: "the host's network", Waived: "it is meant"},
	}}})
	require.Equal(t, 1, r.Status())
	require.Equal(t, "ns.pid", r.Findings[0].ID)
	require.Contains(t, r.Findings[0].Fix, "delete pid: host; https://")
	for _, f := range r.Findings[1:] {
		require.Equal(t, Info, f.Severity)
	}
	require.Contains(t, r.Findings[2].What, "waived: it is meant")
}

func TestOlder(t *testing.T) {
	for _, tt := range []struct {
		version, than string
		want          bool
	}{
		{"20.10.24+dfsg1", "20.10.10", false}, {"20.10.5+dfsg1", "20.10.10", true}, {"v2.17.3", "2.20", true}, {"v2.20.0-desktop.1", "2.20", false}, {"2.20.0", "2.20", false},
		{"1.18.0-rc.1", "1.18", true}, {"1.18.0", "1.18", false}, {"", "1", false}, {"nonsense", "1", false},
	} {
		require.Equal(t, tt.want, older(tt.version, tt.than), "%s < %s", tt.version, tt.than)
	}
}

// TestDocs: docs/doctor.md has the table of findings, as it is.
func TestDocs(t *testing.T) {
	const path = "../../docs/doctor.md"
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	const head = "| finding | | where | what | why | remedy |\n| --- | --- | --- | --- | --- | --- |\n"
	before, _, ok := strings.Cut(string(text), head)
	require.True(t, ok)
	want := before + head
	for _, c := range checks {
		where := string(c.place)
		if where == "" {
			where = "both"
		}
		want += fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s |\n", c.id, c.severity, where, c.title, c.why, c.fix)
	}
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		text = []byte(want)
	}
	require.Equal(t, want, string(text))
}
