package identity

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// A ConsumeError says why a file of identities is still within reach.
type ConsumeError struct {
	File  string
	Cause string

	hint string
	err  error // the kernel's, may be nil
}

func (e *ConsumeError) Error() string { return "identity " + e.File + ": not given up: " + e.Cause }

func (e *ConsumeError) Unwrap() error { return e.err }

// Hint says what the operator can do, or nothing.
func (e *ConsumeError) Hint() string { return e.hint }

// Consume gives every file up: it removes it, and makes sure that no name leads
// to it any more. Descriptors that others hold stay what they are. A file that
// is gone already is given up. Where one resists, Consume goes on with the
// others; the error joins a *ConsumeError for each.
func Consume(files []settings.IdentityFile) error {
	var errs []error
	for _, file := range files {
		if err := consume(file.Path); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// consume returns a *ConsumeError.
func consume(path string) error {
	failed := func(err error, hint, format string, args ...any) error {
		return &ConsumeError{File: path, Cause: fmt.Sprintf(format, args...), hint: hint, err: err}
	}
	fd, err := open(path)
	if err == unix.ENOENT {
		return nil
	}
	var st unix.Stat_t
	if err == nil {
		defer unix.Close(fd)
		err = unix.Fstat(fd, &st)
	}
	kind := uint32(st.Mode) & unix.S_IFMT
	switch {
	case err == unix.ELOOP || err == nil && kind == unix.S_IFLNK:
		// Removing the link would leave the identity, and removing its target
		// might leave another link's: let the operator name the file.
		return failed(nil, "name the file that it leads to", "it is a symbolic link")
	case err != nil:
		return failed(err, "", "%v", err)
	case kind != unix.S_IFREG:
		return failed(nil, "", "it is not a regular file")
	}
	switch err := unix.Unlink(path); err {
	case nil:
	case unix.EBUSY: // seen with Compose's secrets
		return failed(err, "mount the directory that holds it, not the file by itself", "it is a mount of its own, which can't be removed")
	case unix.EROFS:
		return failed(err, "mount a tmpfs directory, read-write, that is filled at each start", "its mount is read-only")
	case unix.EACCES, unix.EPERM:
		dir := filepath.Dir(path)
		return failed(err, "let the hook's user write to "+dir, "%s does not let this user remove it", dir)
	default:
		return failed(err, "", "%v", err)
	}
	if err := unix.Lstat(path, new(unix.Stat_t)); err != unix.ENOENT {
		return failed(nil, "start no two agents on one identity file", "another file took its place")
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return failed(err, "", "%v", err)
	}
	// On overlayfs a file of a lower layer keeps its count (seen on Linux 6.18).
	if st.Nlink != 0 {
		return failed(nil, "keep it in a tmpfs directory that is filled at each start, and nowhere else",
			"its name is gone, but a hard link or a layer of the image still holds it")
	}
	return nil
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, hold|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
