package jobfile

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteAndRemove(t *testing.T) {
	roots := []string{filepath.Join(t.TempDir(), "missing"), t.TempDir(), t.TempDir()}
	folder, err := makeIn(roots, 4711)
	require.NoError(t, err)
	require.Equal(t, roots[1], filepath.Dir(folder.path), "the first that there is")
	info, err := os.Stat(folder.path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	path, err := folder.Write("DEPLOY_KEY", "a\x00\xffb")
	require.NoError(t, err)
	require.Equal(t, "DEPLOY_KEY", filepath.Base(path))
	info, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "a\x00\xffb", string(text))

	_, err = folder.Write("DEPLOY_KEY", "again")
	require.ErrorIs(t, err, ErrWrite)

	_, err = makeIn(roots, 4711)
	require.NoError(t, err)
	other, err := makeIn(roots, 471)
	require.NoError(t, err)
	// What only looks like one of ours: a link, a file.
	kept := t.TempDir()
	require.NoError(t, os.Symlink(kept, filepath.Join(roots[1], "juliagpu-secrets-4711-link")))
	require.NoError(t, os.WriteFile(filepath.Join(roots[1], "juliagpu-secrets-4711-file"), nil, 0o600))

	removed, err := removeIn(roots, prefix(4711))
	require.NoError(t, err)
	require.Equal(t, 2, removed)
	require.NoDirExists(t, folder.path)
	require.DirExists(t, other.path, "another job's")
	require.DirExists(t, kept)
	removed, err = removeIn(roots, anyPrefix)
	require.NoError(t, err)
	require.Equal(t, 1, removed, "whichever job's")
	require.NoDirExists(t, other.path)
}

func TestNowhere(t *testing.T) {
	_, err := makeIn([]string{"/nowhere/1", "/nowhere/2"}, 1)
	require.ErrorIs(t, err, ErrWrite)
}

func TestWriteFollowsNoLink(t *testing.T) {
	folder, err := makeIn([]string{t.TempDir()}, 1)
	require.NoError(t, err)
	target := filepath.Join(t.TempDir(), "target")
	require.NoError(t, os.Symlink(target, filepath.Join(folder.path, "A")))
	_, err = folder.Write("A", "a secret")
	require.ErrorIs(t, err, ErrWrite)
	require.NoFileExists(t, target)
}
