//go:build unix

package pipeline

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

func TestWriteFileKeepsTheOwner(t *testing.T) {
	need.Root(t, "to give files away")
	path := filepath.Join(t.TempDir(), "pipeline.yml")
	require.NoError(t, os.WriteFile(path, []byte("a"), 0o640))
	require.NoError(t, os.Chown(path, 1234, 5678))
	require.NoError(t, WriteFile(path, []byte("b"), []byte("a")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	require.Equal(t, []uint32{1234, 5678}, []uint32{owner.Uid, owner.Gid})
	require.Equal(t, os.FileMode(0o640), info.Mode())
}
