package gather

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// TestNotLookedInto: a pipeline could be in it, so it is named.
func TestNotLookedInto(t *testing.T) {
	dir := t.TempDir()
	deep := strings.Repeat("d/", maxDepth+1)
	files := map[string]string{
		"c/.git/config":                           "",
		"c/.buildkite/closed/a.yml":               "",
		"c/.buildkite/" + deep + "a.yml":          "",
		"c/.buildkite/README":                     "",
		"c/ci/a.yml":                              "",
		"c/ci/b/b.json":                           "",
		"many/.git/config":                        "",
		"many/buildkite.yml":                      "",
		"src/closed/x/.git/config":                "",
		"src/owner/clone/.git/config":             "",
		"src/owner/closed/.git/config":            "",
		"src/plain/README":                        "",
		"elsewhere/pipelines/a.yml":               "",
		"elsewhere/clones/a/.git/config":          "",
		"elsewhere/clones/a/.buildkite/pipeline":  "",
		"elsewhere/no clones/.buildkite/pipeline": "",
	}
	for n := range maxFiles {
		files[fmt.Sprintf("many/buildkite/%d.yml", n)] = ""
	}
	write(t, dir, files)
	for link, to := range map[string]string{
		"c/.buildkite/out":      "../../elsewhere/pipelines",
		"c/.buildkite/in":       "../ci",
		"c/.buildkite/again":    "in",
		"c/.buildkite/nowhere":  "no",
		"c/ci/up":               "../.buildkite",
		"c/buildkite":           "../elsewhere/pipelines",
		"src/clone":             "../elsewhere/clones/a",
		"src/clones":            "../elsewhere/clones",
		"src/no clones":         "../elsewhere/no clones",
		"src/nowhere":           "no",
		"src/owner/clone again": "clone",
	} {
		require.NoError(t, os.Symlink(to, filepath.Join(dir, link)))
	}
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // t.TempDir lets nobody else in
	for _, closed := range []string{"c/.buildkite/closed", "src/closed", "src/owner/closed"} {
		closed = filepath.Join(dir, closed)
		require.NoError(t, os.Chmod(closed, 0))
		t.Cleanup(func() { os.Chmod(closed, 0o755) })
	}
	need.AnotherUser(t)

	found, err := Files(filepath.Join(dir, "c"))
	require.NoError(t, err)
	got := map[string]string{}
	for _, f := range found {
		_, err := Read(filepath.Join(dir, "c"), f)
		got[f.Path] = ""
		if err != nil {
			got[f.Path] = cause(err)
		}
	}
	require.Equal(t, map[string]string{
		".buildkite/again/a.yml":                      "",
		".buildkite/again/b/b.json":                   "",
		".buildkite/closed":                           "permission denied",
		".buildkite/" + strings.TrimSuffix(deep, "/"): "more than 8 folders deep",
		".buildkite/out":                              "path escapes from parent",
		"buildkite":                                   "path escapes from parent",
	}, got)

	c, err := Checkout(filepath.Join(dir, "many"))
	require.NoError(t, err)
	require.Equal(t, []audit.Text{{File: ".", Unread: "more than 500 files and folders, and the rest was not looked at"}}, c.Texts[len(c.Texts)-1:])

	clones, err := Clones(filepath.Join(dir, "src"))
	require.NoError(t, err)
	got = map[string]string{}
	for _, c := range clones {
		at, _ := filepath.Rel(dir, c.Folder)
		got[at] = ""
		if c.Err != nil {
			got[at] = cause(c.Err)
		}
	}
	require.Equal(t, map[string]string{
		"src/clone":             errLink.Error(),
		"src/clones":            errLink.Error(),
		"src/closed":            "permission denied",
		"src/owner/clone":       "",
		"src/owner/clone again": errLink.Error(),
		"src/owner/closed":      "permission denied",
	}, got)
}
