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

var (
	// A mention of a command, up to where its line, its code or its pipe ends.
	mention = regexp.MustCompile("(?:^ *|[#$|+] |/bin/|sudo )((?:juliagpu|encrypt) [a-z-][^`|;<>#\\n]*)")
	word    = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	long    = regexp.MustCompile(`--[a-z][a-z-]*`)
)

// TestDocsCommands: each command of juliagpu's and encrypt's that a page mentions is
// there, with the flags that it is mentioned with.
func TestDocsCommands(t *testing.T) {
	t.Parallel()
	root, err := agenttest.Root()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range []string{"juliagpu", "encrypt"} {
		require.NoError(t, agenttest.Build(t.Context(), "./cmd/"+name, filepath.Join(dir, name)))
	}
	help := map[string]string{}
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	found := 0
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		inCode := false
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				inCode = !inCode
			}
			for i, part := range strings.Split(line, "`") {
				if !inCode && i%2 == 0 {
					continue // prose
				}
				for _, m := range mention.FindAllStringSubmatch(part, -1) {
					words := strings.Fields(m[1])
					command := words[:1]
					for _, w := range words[1:] {
						if !word.MatchString(w) {
							break
						}
						command = append(command, w)
					}
					key := strings.Join(command, " ")
					if _, ok := help[key]; !ok {
						out, err := exec.CommandContext(t.Context(), filepath.Join(dir, command[0]), append(command[1:len(command):len(command)], "--help")...).CombinedOutput()
						require.NoError(t, err, "%s: %s: %s", page, m[1], out)
						help[key] = string(out)
					}
					for _, flag := range long.FindAllString(m[1], -1) {
						require.Contains(t, help[key], flag, "%s: %s", page, m[1])
					}
					found++
				}
			}
		}
	}
	require.Greater(t, found, 50)
}
