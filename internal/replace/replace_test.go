package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, File(path, []byte("one"), nil))
	require.NoError(t, File(path, []byte("two"), func(f *os.File) error { return f.Chmod(0o640) }))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "two", string(text))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())
	require.NoError(t, File(path, []byte("private"), nil))
	info, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

// TestFileCalledOff: the older file stays, alone.
func TestFileCalledOff(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	called := errors.New("called off")
	require.ErrorIs(t, File(path, []byte("new"), func(f *os.File) error {
		text, err := os.ReadFile(f.Name())
		require.NoError(t, err)
		require.Equal(t, "new", string(text), "it is whole by now")
		return called
	}), called)
	require.Error(t, File(filepath.Join(path, "x"), nil, nil))
	require.Error(t, File(dir, []byte("new"), nil), "a folder is in the way")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(text))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// TestNew: what is there stays, and nothing lies beside it.
func TestNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, New(path, []byte("one")))
	require.ErrorIs(t, New(path, []byte("two")), fs.ErrExist)
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
	require.ErrorIs(t, New(filepath.Join(dir, "link"), []byte("two")), fs.ErrExist, "no link is followed")
	require.ErrorIs(t, New(filepath.Join(dir, "no", "f"), nil), fs.ErrNotExist)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "one", string(text))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}
