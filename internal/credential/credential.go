// Package credential reads the operator's private files, and gives them up.
//
// It knows nothing of what they hold, and prints nothing of it.
package credential

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// A File is one that holds a credential.
type File struct {
	Kind string // what it holds, for people: identity, API token
	Path string
}

// ErrTooLarge says that a file is longer than what it should hold.
var ErrTooLarge = errors.New("it is too large")

// Read returns the text of a file of at most max bytes, which belongs to root or
// uid, and which nobody else may read. Its error begins with kind and path, and
// wraps fs.ErrNotExist, rootfile.ErrUntrusted or ErrTooLarge.
func (f File) Read(uid, max int) ([]byte, error) {
	text, err := f.read(uid, max)
	if err != nil {
		var kernel *fs.PathError
		if errors.As(err, &kernel) { // the path first, as in all others
			err = fmt.Errorf("%s: %w", kernel.Path, kernel.Err)
		}
		return nil, fmt.Errorf("%s %w", f.Kind, err)
	}
	return text, nil
}

func (f File) read(uid, max int) ([]byte, error) {
	file, _, err := rootfile.Open(f.Path, rootfile.Rule{User: uid, Private: true})
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, int64(max)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > max {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", f.Path, ErrTooLarge, max)
	}
	return text, nil
}

// maxLine is the largest file that holds one line, in bytes.
const maxLine = 4 << 10

// ErrNotALine says that a file holds no word, or more than one.
var ErrNotALine = errors.New("it does not hold one word on one line")

// Word returns the only word in a file, such as a token. Its errors are those of
// Read, and ErrNotALine.
func (f File) Word(uid int) (string, error) {
	text, err := f.Read(uid, maxLine)
	if err != nil {
		return "", err
	}
	word := strings.TrimRight(string(text), "\r\n")
	if word == "" || strings.IndexFunc(word, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return "", fmt.Errorf("%s %s: %w", f.Kind, f.Path, ErrNotALine)
	}
	return word, nil
}

// Check says which of the files is within reach of others than root and uid: they
// could read it, or have put it there. The error wraps rootfile.ErrUntrusted. A file
// that is not there is in nobody's reach.
func Check(files []File, uid int) error {
	for _, f := range files {
		if _, err := rootfile.Check(f.Path, rootfile.Rule{User: uid, Private: true}); errors.Is(err, rootfile.ErrUntrusted) {
			return fmt.Errorf("%s %w", f.Kind, err)
		}
	}
	return nil
}

// A KeptError says why a file is still within reach, after all was done to give
// it up.
type KeptError struct {
	File  File
	Cause string

	hint string
	err  error // the kernel's, may be nil
}

func (e *KeptError) Error() string {
	return e.File.Kind + " " + e.File.Path + ": not given up: " + e.Cause
}

func (e *KeptError) Unwrap() error { return e.err }

// Hint says what the operator can do, or nothing.
func (e *KeptError) Hint() string { return e.hint }

// GiveUp gives every file up: it removes it, and makes sure that no name leads
// to it any more. Descriptors that others hold stay what they are. A file that
// is gone already is given up. Where one resists, GiveUp goes on with the
// others; the error joins a *KeptError for each.
func GiveUp(files []File) error {
	var errs []error
	for _, f := range files {
		if err := f.giveUp(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// giveUp returns a *KeptError.
func (f File) giveUp() error {
	path := f.Path
	failed := func(err error, hint, format string, args ...any) error {
		return &KeptError{File: f, Cause: fmt.Sprintf(format, args...), hint: hint, err: err}
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
		return failed(nil, "start no two agents on one file", "another file took its place")
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
