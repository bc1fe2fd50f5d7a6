//go:build unix

package home

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

const (
	ada     = 4711 // the user whose directories are made
	mallory = 4712
)

// describe says what is at path: owner, group, mode.
func describe(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d %d %v", st.Uid, st.Gid, info.Mode())
}

// TestMake lets each row spoil a tree in which ada's directory was made once.
func TestMake(t *testing.T) {
	need.Root(t, "to give directories to users")
	defer unix.Umask(unix.Umask(0o022))
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, in func(string) string)
		fault string // "": as it must be again
	}{
		{"there already", func(t *testing.T, in func(string) string) {}, ""},
		{"open to everybody", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Chmod(in("4711/builds"), 0o777))
			require.NoError(t, os.Chmod(in("4711"), 0o755))
		}, ""},
		{"of another group", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Lchown(in("4711"), 0, mallory))
			require.NoError(t, os.Lchown(in("4711/builds"), ada, mallory))
		}, ""},
		{"made, and not yet given away", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Lchown(in("4711/builds"), 0, 0))
		}, ""},
		{"of another user", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Lchown(in("4711/builds"), mallory, mallory))
		}, "/lib/ours/4711/builds: not a directory of ours: owned by uid 4712"},
		{"a link", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Remove(in("4711/builds")))
			require.NoError(t, os.Symlink("/etc", in("4711/builds")))
		}, "/lib/ours/4711/builds: not a directory of ours: a link or a file"},
		{"a dangling link", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Remove(in("4711/builds")))
			require.NoError(t, os.Symlink("nowhere", in("4711/builds")))
		}, "/lib/ours/4711/builds: not a directory of ours: a link or a file"},
		{"a file", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Remove(in("4711/builds")))
			require.NoError(t, os.WriteFile(in("4711/builds"), nil, 0o600))
		}, "/lib/ours/4711/builds: not a directory of ours: a link or a file"},
		{"the user's directory is a link", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Rename(in("4711"), in("elsewhere")))
			require.NoError(t, os.Symlink("elsewhere", in("4711")))
		}, "/lib/ours/4711: not a directory of ours: a link or a file"},
		{"the user's directory is the user's", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Lchown(in("4711"), ada, ada))
		}, "/lib/ours/4711: not a directory of ours: owned by uid 4711"},
		{"a directory above is another's", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Lchown(in("."), mallory, -1))
		}, "/lib/ours: not a directory of ours: owned by uid 4712"},
		{"a directory above is everybody's", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Chmod(in(".."), 0o777))
		}, "/lib: not a directory of ours: mode 0777, writable by others"},
		{"even a sticky one: a name in it is there for the taking", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Chmod(in(".."), 0o777|fs.ModeSticky))
		}, "/lib: not a directory of ours: mode 01777, writable by others"},
		{"a directory above is a link", func(t *testing.T, in func(string) string) {
			require.NoError(t, os.Rename(in("."), in("../theirs")))
			require.NoError(t, os.Symlink("theirs", in(".")))
		}, "/lib/ours: not a directory of ours: a link or a file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			in := func(name string) string { return filepath.Join(root, "lib/ours", name) }
			require.NoError(t, makeIn(root, []string{"/lib/ours/4711/builds"}, ada, ada))
			tt.spoil(t, in)
			err := makeIn(root, []string{"/lib/ours/4711/builds"}, ada, ada)
			if tt.fault != "" {
				require.ErrorIs(t, err, ErrNotOurs)
				require.EqualError(t, err, tt.fault)
				require.Equal(t, "0 0", describe(t, "/etc")[:3], "what a link leads to stays as it is")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "4711 4711 drwx------", describe(t, in("4711/builds")))
			assert.Equal(t, "0 4711 drwx--x---", describe(t, in("4711")))
			assert.Equal(t, "0 0 drwxr-xr-x", describe(t, in(".")))
		})
	}
}

// TestClosed: below a directory that is root's alone jobs would reach nothing.
func TestClosed(t *testing.T) {
	need.Root(t, "to give directories to users")
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "lib"), 0o700))
	require.EqualError(t, makeIn(root, []string{"/lib/ours/4711/builds"}, ada, ada), "/lib: mode 0700, and jobs must get past it: chmod o+x")
}

// TestMakeKeeps: directories that were there before, and what is in ours.
func TestMakeKeeps(t *testing.T) {
	need.Root(t, "to give directories to users")
	root := t.TempDir()
	in := func(name string) string { return filepath.Join(root, name) }
	require.NoError(t, os.MkdirAll(in("lib/ours/4711/builds"), 0o711))
	require.NoError(t, os.WriteFile(in("lib/ours/4711/builds/f"), []byte("text"), 0o600))
	require.NoError(t, makeIn(root, []string{"/lib/ours/4711/builds"}, ada, ada))
	assert.Equal(t, "0 0 drwx--x--x", describe(t, in("lib/ours")))
	assert.Equal(t, "0 0 -rw-------", describe(t, in("lib/ours/4711/builds/f")))
}

// TestSockets: the agent's socket fits into its address.
func TestSockets(t *testing.T) {
	t.Parallel()
	const longest = "/job-api/4194304-99999.sock" // the largest pid (proc_sys_kernel(5))
	h := Of(1<<31 - 1)
	assert.LessOrEqual(t, len(h.Sockets+longest), 107)
	assert.True(t, strings.HasPrefix(h.Sockets, Fleeting+"/2147483647/"))
	assert.Equal(t, "/var/lib/juliagpu-secrets/4711/builds", Of(ada).Builds)
}
