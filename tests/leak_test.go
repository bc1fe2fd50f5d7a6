//go:build unix

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// TestLeakedHistory runs what docs/operators.md has for a leaked identity: it lists
// each value of a repository's past that was sealed for it, of all branches.
func TestLeakedHistory(t *testing.T) {
	t.Parallel()
	root, err := agenttest.Root()
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(root, "docs/operators.md"))
	require.NoError(t, err)
	var commands []string
	for line := range strings.Lines(string(page)) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if ok && (strings.HasPrefix(line, "git log --all") || strings.HasPrefix(line, "while read")) {
			commands = append(commands, line)
		}
	}
	require.Len(t, commands, 2)

	bin, dir := t.TempDir(), t.TempDir()
	require.NoError(t, agenttest.Build(t.Context(), "./cmd/encrypt", filepath.Join(bin, "encrypt")))
	require.NoError(t, agenttest.Build(t.Context(), "./cmd/juliagpu", filepath.Join(bin, "juliagpu")))
	script := `set -e
juliagpu keys new -o leaked >leaked.recipients 2>/dev/null
sed -i.bak 's/$/ # leaked-key/' leaked.recipients
juliagpu keys new -o other >other.recipients 2>/dev/null
git init -q .
git config user.name a; git config user.email a@example.org
mkdir .buildkite
seal() {
	printf 'a value of %s' "$1" | encrypt "$1" --repo github.com/a/b -R "$2" >.buildkite/pipeline.yml 2>/dev/null
	git add .buildkite; git commit -qm "$1"
}
seal OLD leaked.recipients
seal NEWER leaked.recipients
git checkout -q -b branch
seal BRANCHED leaked.recipients
git checkout -q -
seal TODAY other.recipients
` + strings.Join(commands, "\n")
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	for _, name := range []string{"OLD", "NEWER", "BRANCHED", "TODAY"} {
		require.Equal(t, 1, strings.Count(string(out), "  sets       "+name+"\n"), string(out))
	}
	require.Equal(t, 3, strings.Count(string(out), "(leaked-key)"), string(out))
}
