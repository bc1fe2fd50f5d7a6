package pipeline

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

func TestWriteFileThatCantBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pipeline.yml")
	require.NoError(t, os.WriteFile(path, []byte("before"), 0o444))
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // t.TempDir lets nobody else in
	require.NoError(t, os.Chmod(dir, 0o777))
	need.AnotherUser(t)
	require.ErrorIs(t, WriteFile(path, []byte("after"), []byte("before")), os.ErrPermission)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "before", string(text))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left beside it")
}
