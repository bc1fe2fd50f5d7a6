//go:build unix

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// TestReadmeShowsTheDemo runs the demo, and finds each line of the README's
// example in what it prints.
func TestReadmeShowsTheDemo(t *testing.T) {
	t.Parallel()
	programs(t) // the agent takes its time only once
	root, err := agenttest.Root()
	require.NoError(t, err)
	demo := exec.CommandContext(t.Context(), "go", "run", "./tests/demo")
	demo.Dir = root
	out, err := demo.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Regexp(t, `\ndemo: ok: .*\n$`, string(out), "one closing line")

	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	example, _, ok := strings.Cut(string(readme), "\n## ")
	require.True(t, ok)
	shown := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		shown[steady(line)] = true
	}
	lines := 0
	for i, block := range strings.Split(example, "```") {
		if i%2 == 0 || strings.HasPrefix(block, "\n+++ :no_entry: GPU") { // internal/gpu compares that one
			continue
		}
		_, block, _ = strings.Cut(block, "\n")
		for line := range strings.Lines(block) {
			lines++
			require.True(t, shown[steady(line)], "the demo does not print %q", line)
		}
	}
	require.Greater(t, lines, 10)
}

// steady replaces what differs from run to run.
func steady(line string) string {
	for pattern, same := range map[string]string{
		`age1[0-9a-z]+…`: "AGE", `\b[0-9a-f]{16}\b`: "FINGERPRINT", `"YWdl[^"]*"`: "CIPHERTEXT", `in \d+ ms`: "in TIME",
	} {
		line = regexp.MustCompile(pattern).ReplaceAllString(line, same)
	}
	return strings.TrimSpace(line)
}
