package credential

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// TestGiveUpMounts tries the ways in which identities reach a container.
func TestGiveUpMounts(t *testing.T) {
	need.Root(t, "to mount")
	// Mounts are made for this thread alone, which ends with the test: it is
	// never unlocked. So no t.Run, which would leave the thread.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		need.Skip(t, "needs a machine that may mount: "+err.Error())
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	mount := func(source, target, kind string, flags uintptr, data string) {
		t.Helper()
		require.NoError(t, unix.Mount(source, target, kind, flags, data))
		t.Cleanup(func() { unix.Unmount(target, 0) }) // so that the folder can go
	}
	bind := func(source, target string) { t.Helper(); mount(source, target, "", unix.MS_BIND, "") }

	// A file by itself.
	outside, inside := write(t, "a"), write(t, "")
	bind(outside.Path, inside.Path)
	requireFault(t, inside.Path, "it is a mount of its own, which can't be removed", "mount the directory that holds it, not the file by itself")

	// Its directory, read-only.
	dir := t.TempDir()
	path := filepath.Join(dir, "identity")
	bind(filepath.Dir(outside.Path), dir)
	require.NoError(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	requireFault(t, path, "its mount is read-only", "mount a tmpfs directory, read-write, that is filled at each start")

	// Its directory.
	require.NoError(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	require.NoError(t, GiveUp([]File{{"identity", path}}))
	require.NoFileExists(t, outside.Path)

	// A tmpfs of the container's own.
	dir = t.TempDir()
	path = filepath.Join(dir, "identity")
	mount("tmpfs", dir, "tmpfs", 0, "")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, GiveUp([]File{{"identity", path}}))

	// Overlayfs, as a container's root: what was written there goes, what the
	// image brought is only hidden.
	image := write(t, "a")
	layers, merged := t.TempDir(), t.TempDir()
	mount("tmpfs", layers, "tmpfs", 0, "") // not every file system can be an upper layer
	require.NoError(t, errors.Join(os.Mkdir(layers+"/upper", 0o700), os.Mkdir(layers+"/work", 0o700)))
	if names, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(names), "overlay") {
		need.Skip(t, "needs a kernel with overlayfs")
	}
	mount("overlay", merged, "overlay", 0, "lowerdir="+filepath.Dir(image.Path)+",upperdir="+layers+"/upper,workdir="+layers+"/work")
	path = filepath.Join(merged, "written")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, GiveUp([]File{{"identity", path}}))
	requireFault(t, filepath.Join(merged, "identity"), elsewhere, elsewhereHint)
}

func TestGiveUpInAFolderOfAnother(t *testing.T) {
	file := write(t, "a")
	dir := filepath.Dir(file.Path)
	require.NoError(t, os.Chmod(dir, 0o555))
	defer os.Chmod(dir, 0o700)
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // t.TempDir lets nobody else in
	need.AnotherUser(t)
	requireFault(t, file.Path, dir+" does not let this user remove it", "let the hook's user write to "+dir)
}
