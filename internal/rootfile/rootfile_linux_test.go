package rootfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// TestWriteForbidden: a directory that we may not write to.
func TestWriteForbidden(t *testing.T) {
	tr := newTree(t)
	for dir := tr.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	tr.folder("d", os.Getuid(), 0o555)
	need.AnotherUser(t)
	require.ErrorIs(t, Write(tr.path("d/f"), nil, us), fs.ErrPermission)
	require.ErrorIs(t, Write(tr.path("d/new/f"), nil, us), fs.ErrPermission)
	require.Empty(t, tr.names("d"))
}

// TestWriteFull: where there is no room the older file stays, and nothing else.
func TestWriteFull(t *testing.T) {
	need.Root(t, "to mount")
	tr := newTree(t)
	tr.folder("small", 0, 0o755)
	runtime.LockOSThread() // as in TestOverflowUser
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		need.Skip(t, "needs a machine that may mount: "+err.Error())
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	require.NoError(t, unix.Mount("tmpfs", tr.path("small"), "tmpfs", 0, fmt.Sprintf("mode=755,size=%d", 2*os.Getpagesize())))
	t.Cleanup(func() { unix.Unmount(tr.path("small"), 0) })
	require.NoError(t, Write(tr.path("small/f"), []byte("older"), us))
	require.ErrorIs(t, Write(tr.path("small/f"), make([]byte, 2*os.Getpagesize()), us), unix.ENOSPC)
	require.Equal(t, []string{"f"}, tr.names("small"))
	tr.has("small/f", "older")
}

// TestOverflowUser opens a file of the user that stands for all unknown ones,
// as a user-namespaced container sees its host's: only from a read-only mount.
func TestOverflowUser(t *testing.T) {
	need.Root(t, "to mount")
	tr := newTree(t)
	tr.folder("source", overflow, 0o755)
	tr.file("source/f", overflow, 0o644)
	tr.link("f", "source/l", overflow)
	tr.file("source/open", overflow, 0o666)
	tr.folder("mount", 0, 0o755)
	tr.file("single", 0, 0o644)

	// Mounts are made for this thread alone, which ends with the test: it is
	// never unlocked.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		need.Skip(t, "needs a machine that may mount: "+err.Error())
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	bind := func(source, target string) {
		require.NoError(t, unix.Mount(tr.path(source), tr.path(target), "", unix.MS_BIND, ""))
		t.Cleanup(func() { unix.Unmount(tr.path(target), 0) }) // so that the folder can go
	}
	readOnly := func(target string) {
		require.NoError(t, unix.Mount("", tr.path(target), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}
	refused := func(name, fault string) {
		t.Helper()
		for _, rule := range []Rule{{}, {User: overflow}} {
			_, _, err := Open(tr.path(name), rule)
			require.EqualError(t, err, tr.path(name)+fault)
		}
	}
	opens := func(name string) {
		t.Helper()
		for _, rule := range []Rule{{}, {User: overflow}} {
			file, owner, err := Open(tr.path(name), rule)
			require.NoError(t, err)
			file.Close()
			require.Equal(t, Owner{UID: overflow}, owner)
		}
	}
	const outside = "owned by uid 65534, whoever that is outside, and on a mount that is not read-only"

	bind("source", "mount")
	refused("mount/f", ": by way of "+tr.path("mount")+": "+outside)
	bind("source/f", "single") // a mount of its own, in root's folder
	refused("single", ": "+outside)

	readOnly("mount")
	opens("mount/f")
	opens("mount/l")
	refused("mount/open", ": mode 0666, writable by others")
	readOnly("single")
	opens("single")
}

const overflow = 65534

// TestOverflowUserIsKnown keeps the tests' number the kernel's.
func TestOverflowUserIsKnown(t *testing.T) {
	require.True(t, isOverflow(overflow))
	require.False(t, isOverflow(mallory))
}

// TestOpenFollowsNoDescriptor: /proc/self/fd leads to files that have no name
// any more, and whose way nobody can judge.
func TestOpenFollowsNoDescriptor(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, os.Remove(file.Name()))
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd())
	_, err = os.Stat(path)
	require.NoError(t, err, "the kernel knows a way")
	_, _, err = Open(path, Rule{User: os.Getuid()})
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestRootDirectory: a container's / can be anybody's.
func TestRootDirectory(t *testing.T) {
	need.Root(t, "to change its root directory")
	tr := newTree(t)
	tr.set("", mallory, 0o755)
	tr.file("f", 0, 0o644)
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chroot(tr.dir)); err != nil {
			result <- err
			return
		}
		_, err := Check("/f", Rule{})
		result <- err
	}()
	require.EqualError(t, <-result, "/f: by way of /: owned by uid 4712, not by root")
}
