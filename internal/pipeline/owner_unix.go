//go:build unix

package pipeline

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepOwner gives f the owner and group of the file it replaces.
func keepOwner(f *os.File, of os.FileInfo) error {
	own, err := f.Stat()
	if err != nil {
		return err
	}
	is, ok := own.Sys().(*syscall.Stat_t)
	want, ok2 := of.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("%w: user %d, group %d", ErrOwner, want.Uid, want.Gid)
	}
	return nil
}

// writableFolder asks the kernel whether files may be made in a folder.
func writableFolder(in *os.Root, path string) error {
	folder, err := in.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := unix.Faccessat(int(folder.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &os.PathError{Op: "access", Path: path, Err: err}
	}
	return nil
}
