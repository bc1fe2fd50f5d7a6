package rootfile

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Write puts a file in the place of what is at a path, if anything: whole or not
// at all, whatever stops in between, and for everyone to read (0644). The
// directories on the way are judged as Open judges them; those that are missing
// are made (0755). Who has the older file open keeps it, and so does a mount of it.
//
// What a run that was killed has left is removed. Of two runs at once for one path
// the first may fail; the file is one of theirs. What can't be written is an
// *fs.PathError, a way that rule does not allow is an *Error.
func Write(path string, text []byte, rule Rule) (err error) {
	w := walk{path: filepath.Clean(path), rule: rule, makes: true}
	defer w.close()
	dir, at, err := w.to(filepath.Dir(w.path))
	if err != nil {
		return err
	}
	if !dir.is(unix.S_IFDIR) {
		return &fs.PathError{Op: "open", Path: at, Err: unix.ENOTDIR}
	}
	// What the walk holds may be good for nothing but a way on.
	fd, err := openat(dir.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return &fs.PathError{Op: "open", Path: at, Err: err}
	}
	folder := os.NewFile(uintptr(fd), at)
	defer folder.Close()

	name := filepath.Base(w.path)
	if err := removeHalves(folder, name); err != nil {
		return err
	}
	half := halfName(name)
	defer func() {
		if err != nil {
			unix.Unlinkat(fd, half, 0)
		}
	}()
	if err := writeHalf(fd, half, filepath.Join(at, half), text); err != nil {
		return err
	}
	if err := unix.Renameat(fd, half, fd, name); err != nil {
		return &fs.PathError{Op: "rename", Path: filepath.Join(at, name), Err: err}
	}
	return folder.Sync()
}

// writeHalf makes a new file, to its last byte on the disk.
func writeHalf(dir int, name, path string, text []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil { // whatever the umask is
		return err
	}
	return f.Sync()
}

// halfName is a new name for what becomes the file of that name.
func halfName(name string) string { return "." + name + "." + rand.Text() }

// isHalf tells whether halfName made it.
func isHalf(half, name string) bool {
	random, ok := strings.CutPrefix(half, "."+name+".")
	return ok && len(random) == len(rand.Text()) && !strings.Contains(random, ".")
}

// removeHalves removes what runs have left that did not come to their end.
func removeHalves(folder *os.File, name string) error {
	entries, err := folder.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if isHalf(entry, name) {
			unix.Unlinkat(int(folder.Fd()), entry, 0)
		}
	}
	return nil
}
