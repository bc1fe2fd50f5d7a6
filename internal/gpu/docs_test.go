package gpu

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// besides are findings that no check of this package makes: of waivers, and the
// pre-command hook's own.
var besides = map[string]string{
	"policy.waiver":    "*warns*",
	"secrets.readable": "*refuses, status 1 · never waived*",
}

// attributes are what docs/gpu.md says of a check below its heading.
func (c check) attributes() string {
	words := []string{map[Severity]string{Deny: "refuses, status 1", Warn: "warns", Info: "informs"}[c.severity]}
	if c.severity == Deny && c.machine {
		words[0] = "refuses, status 75"
	}
	if c.early {
		words = append(words, "before secrets")
	}
	switch c.about {
	case container:
		words = append(words, "container")
	case device:
		words = append(words, "GPU")
	}
	switch {
	case c.waive == never:
		words = append(words, "never waived")
	case c.only != "":
		words = append(words, "only `"+c.only+"` can be waived")
	case c.waive == matching:
		words = append(words, "waived by `match` alone")
	default:
		words = append(words, "can be waived")
	}
	return "*" + strings.Join(words, " · ") + "*"
}

// anchor is a heading's, as GitHub makes it.
func anchor(heading string) string {
	heading = strings.ReplaceAll(strings.ToLower(heading), " ", "-")
	return regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(heading, "")
}

// TestDocs: each finding is explained once, where its link leads, and as it is.
func TestDocs(t *testing.T) {
	file, err := os.ReadFile("../../docs/gpu.md")
	require.NoError(t, err)
	text := string(file)

	want := map[string]string{}
	for id, attributes := range besides {
		want[id] = attributes
	}
	for _, c := range checks {
		want[c.id] = c.attributes()
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(#+) (.*)\n(.*)$`).FindAllStringSubmatch(text, -1) {
		level, heading, below := m[1], m[2], m[3]
		if strings.HasPrefix(below, "# Made by") || level == "#" && heading != "GPU isolation" {
			continue // a comment in an example
		}
		require.False(t, anchors[anchor(heading)], "two headings lead to #%s", anchor(heading))
		anchors[anchor(heading)] = true
		if level != "###" {
			continue
		}
		require.Contains(t, want, heading, "no finding, or explained twice")
		require.Equal(t, want[heading], below, heading)
		require.Equal(t, docs+anchor(heading), Finding{ID: heading}.Link())
		delete(want, heading)
	}
	require.Empty(t, want, "not explained")
	for _, m := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		require.True(t, anchors[m[1]], "no heading for #%s", m[1])
	}
	for _, part := range []string{"**Measured:**", "**Change:**", "**False alarms:**"} {
		require.Equal(t, len(checks)+len(besides), strings.Count(text, "\n- "+part), part)
	}
}

// TestDocsPolicies: what can be copied is a policy, and all its keys are in the table.
func TestDocsPolicies(t *testing.T) {
	file, err := os.ReadFile("../../docs/gpu.md")
	require.NoError(t, err)
	policies := 0
	for i, block := range strings.Split(string(file), "\n```") {
		if i%2 == 0 || !strings.HasPrefix(block, "yaml\ngpu:") {
			continue
		}
		_, err := ParsePolicy([]byte(strings.TrimPrefix(block, "yaml\n")))
		require.NoError(t, err, block)
		policies++
	}
	require.Equal(t, 6, policies)

	_, section, _ := strings.Cut(string(file), "\n## Write a policy\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rows, keys []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ").FindAllStringSubmatch(section, -1) {
		rows = append(rows, m[1])
	}
	source, err := os.ReadFile("policy_read.go")
	require.NoError(t, err)
	_, body, _ := strings.Cut(string(source), "\nfunc ReadPolicy(")
	body, _, _ = strings.Cut(body, "\n}")
	for _, m := range regexp.MustCompile(`strict\.Key\("([a-z_]+)"`).FindAllStringSubmatch(body, -1) {
		if m[1] != "file" { // of config.yml alone
			keys = append(keys, m[1])
		}
	}
	require.Equal(t, keys, rows)
}

// TestDocsVersions: each hole that a warning names is in the table.
func TestDocsVersions(t *testing.T) {
	file, err := os.ReadFile("../../docs/gpu.md")
	require.NoError(t, err)
	for _, f := range fixes {
		require.Contains(t, string(file), "| "+strings.Join(f.versions, ", ")+" | "+f.hole+":")
	}
}
