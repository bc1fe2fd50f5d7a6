package pipeline

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// unwritten makes sure that a file is as it was, and alone in its folder.
func unwritten(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "before", string(text))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left beside it")
}

func TestWriteFileThatCantBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pipeline.yml")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o444))
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // t.TempDir lets nobody else in
	require.NoError(t, os.Chmod(dir, 0o777))
	need.AnotherUser(t)
	require.ErrorIs(t, WriteFile(path, []byte("after"), []byte("before")), os.ErrPermission)
	unwritten(t, path)
}

// TestWriteFileOfAnother: what can't stay another's stays as it is.
func TestWriteFileOfAnother(t *testing.T) {
	need.Root(t, "to give files away")
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // t.TempDir lets nobody else in
	require.NoError(t, os.Chmod(dir, 0o777))
	path := filepath.Join(dir, "pipeline.yml")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o666))
	require.NoError(t, os.Chmod(path, 0o666))
	require.NoError(t, os.Chown(path, 1234, 5678))
	need.AnotherUser(t)
	err := WriteFile(path, []byte("after"), []byte("before"))
	require.ErrorIs(t, err, ErrOwner)
	require.ErrorContains(t, err, "user 1234, group 5678")
	unwritten(t, path)
}

// TestWritable: a folder in which nobody may make a file is one that can't be written.
func TestWritable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	path := filepath.Join(dir, "pipeline.yml")
	require.NoError(t, os.WriteFile(path, nil, 0o666))
	require.NoError(t, os.Chmod(path, 0o666))
	require.NoError(t, os.Chmod(dir, 0o555))
	t.Cleanup(func() { os.Chmod(dir, 0o755) })
	need.AnotherUser(t)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	require.ErrorIs(t, Writable(root, "pipeline.yml"), os.ErrPermission)
	require.ErrorIs(t, WriteIn(root, "pipeline.yml", []byte("after"), nil), os.ErrPermission)
}
