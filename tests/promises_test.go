//go:build unix

package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// TestPromises: each promise of docs/threat-model.md names tests, and there they
// are.
func TestPromises(t *testing.T) {
	t.Parallel()
	root, err := agenttest.Root()
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(root, "docs", "threat-model.md"))
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(page), "\n| Promise |")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := strings.Split(strings.TrimSpace(section), "\n")[2:] // the head's rest, and a line of dashes
	require.Greater(t, len(rows), 10)
	named := regexp.MustCompile("((?:`Test[A-Za-z]+`(?: and )?)+) \\(([a-z0-9_/-]+_test\\.go)\\)")
	for _, row := range rows {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		require.Len(t, cells, 3, row)
		require.Empty(t, strings.Trim(named.ReplaceAllString(cells[2], ""), ", "), "not a list of `TestName` (file): %s", cells[2])
		for _, m := range named.FindAllStringSubmatch(cells[2], -1) {
			source, err := os.ReadFile(filepath.Join(root, m[2]))
			require.NoError(t, err, cells[0])
			for _, name := range regexp.MustCompile("Test[A-Za-z]+").FindAllString(m[1], -1) {
				require.Contains(t, string(source), "\nfunc "+name+"(t *testing.T) {", "%s: not in %s", cells[0], m[2])
			}
		}
	}
}
