package pipeline

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteFile(t *testing.T) {
	const before, after = "steps: []\n", "env: {}\nsteps: []\n"
	setup := func(t *testing.T, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "pipeline.yml")
		require.NoError(t, os.WriteFile(path, []byte(before), mode))
		require.NoError(t, os.Chmod(path, mode)) // past the umask
		return path
	}
	// alone requires the file's content, and no file beside it.
	alone := func(t *testing.T, path, want string) {
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1, "a file left over")
	}

	t.Run("keeps the mode", func(t *testing.T) {
		for _, mode := range []os.FileMode{0o600, 0o644, 0o755, 0o664, 0o622} {
			path := setup(t, mode)
			require.NoError(t, WriteFile(path, []byte(after), []byte(before)))
			alone(t, path, after)
			info, err := os.Stat(path)
			require.NoError(t, err)
			if runtime.GOOS != "windows" {
				require.Equal(t, mode, info.Mode())
			}
		}
	})
	t.Run("follows a link", func(t *testing.T) {
		path := setup(t, 0o640)
		link := filepath.Join(t.TempDir(), "link.yml")
		require.NoError(t, os.Symlink(path, link))
		require.NoError(t, WriteFile(link, []byte(after), []byte(before)))
		alone(t, path, after)
		alone(t, link, after)
		info, err := os.Lstat(link)
		require.NoError(t, err)
		require.Equal(t, os.ModeSymlink, info.Mode().Type())
	})
	t.Run("a relative path", func(t *testing.T) {
		path := setup(t, 0o644)
		t.Chdir(filepath.Dir(path))
		require.NoError(t, WriteFile("pipeline.yml", []byte(after), []byte(before)))
		alone(t, path, after)
	})
	t.Run("refuses a file that changed", func(t *testing.T) {
		for _, now := range []string{"steps: [wait]\n", "", before + "\n"} {
			path := setup(t, 0o644)
			require.NoError(t, os.WriteFile(path, []byte(now), 0o644))
			require.ErrorIs(t, WriteFile(path, []byte(after), []byte(before)), ErrChanged)
			alone(t, path, now)
		}
	})
	t.Run("refuses what is no file", func(t *testing.T) {
		require.ErrorContains(t, WriteFile(t.TempDir(), []byte(after), nil), "not a regular file")
		if runtime.GOOS != "windows" {
			require.ErrorContains(t, WriteFile(os.DevNull, []byte(after), nil), "not a regular file")
		}
		require.ErrorIs(t, WriteFile(filepath.Join(t.TempDir(), "none.yml"), []byte(after), nil), os.ErrNotExist)
	})
}

// TestWriteIn: nothing outside of the folder is written, whatever a link says by now.
func TestWriteIn(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"checkout/.buildkite", "other"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, folder, "a.yml"), []byte("before"), 0o644))
	}
	root, err := os.OpenRoot(filepath.Join(dir, "checkout"))
	require.NoError(t, err)
	defer root.Close()
	in := filepath.Join(".buildkite", "a.yml")
	require.NoError(t, Writable(root, in))
	require.NoError(t, WriteIn(root, in, []byte("after"), []byte("before")))
	text, err := root.ReadFile(in)
	require.NoError(t, err)
	require.Equal(t, "after", string(text))

	require.NoError(t, root.RemoveAll(".buildkite"))
	require.NoError(t, root.Symlink("../other", ".buildkite"))
	require.Error(t, Writable(root, in))
	require.Error(t, WriteIn(root, in, []byte("after"), []byte("before")))
	text, err = os.ReadFile(filepath.Join(dir, "other", "a.yml"))
	require.NoError(t, err)
	require.Equal(t, "before", string(text))
	require.NoError(t, root.Symlink("a", "\x1b[2J"))
	require.EqualError(t, WriteIn(root, "\x1b[2J", nil, nil), `"\x1b[2J": not a regular file`)
}
