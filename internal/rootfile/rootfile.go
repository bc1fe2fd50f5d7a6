// Package rootfile opens files that nobody but root, or one other named user,
// could have changed, and writes such files.
//
// A file is only as trustworthy as the way to it: each directory and symbolic
// link from / on is judged like the file itself. The walk goes from descriptor
// to descriptor, never by a path twice, and a directory is judged before
// anything in it, so there is no moment at which somebody else could put
// another file in place. Access lists count as far as Linux shows them in the
// group's mode bits; macOS's own are not looked at.
package rootfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUntrusted says that somebody else could have changed a file, or can read
// one that must be private. The error is an *Error.
var ErrUntrusted = errors.New("not a file to trust")

// A Rule says who may own a file and every directory and link on the way to it.
type Rule struct {
	// User is trusted besides root; 0: nobody is. Linux's overflow user, who
	// stands for every unknown one, can't be: it is trusted on read-only mounts.
	User int
	// Private refuses a file that group or others may do anything with.
	Private bool
}

// An Owner says in whose hands a trusted file is.
type Owner struct {
	UID int // the file's owner
	// Changeable: Rule.User, and not root alone, could change the file, or put
	// another in its place. Never true where Rule.User is 0.
	Changeable bool
}

// An Error says what makes a file untrusted. It wraps ErrUntrusted.
type Error struct {
	Path  string // the file that was asked for
	At    string // what is at fault: the file, or a directory or link on the way
	Cause string

	hint string
}

func (e *Error) Error() string {
	if e.At == e.Path {
		return e.Path + ": " + e.Cause
	}
	return e.Path + ": by way of " + e.At + ": " + e.Cause
}

func (e *Error) Unwrap() error { return ErrUntrusted }

// Hint says what the operator can do, or nothing.
func (e *Error) Hint() string { return e.hint }

// Open opens a regular file for reading. The path is absolute. What can't be
// reached is an *fs.PathError, so that errors.Is knows fs.ErrNotExist; what
// rule does not allow is an *Error.
func Open(path string, rule Rule) (*os.File, Owner, error) {
	w := walk{path: filepath.Clean(path), rule: rule}
	defer w.close()
	judged, at, err := w.run()
	if err != nil {
		return nil, Owner{}, err
	}
	// O_NONBLOCK: were it a FIFO after all, open would wait for a writer.
	fd, err := openat(w.dir.fd, filepath.Base(at), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return nil, Owner{}, &fs.PathError{Op: "open", Path: at, Err: err}
	}
	opened, err := fstat(fd)
	if err == nil && (opened.dev != judged.dev || opened.ino != judged.ino) {
		err = &Error{Path: w.path, At: at, Cause: "replaced while it was opened"}
	}
	if err == nil {
		err = w.judge(opened, at)
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return nil, Owner{}, err
	}
	return os.NewFile(uintptr(fd), w.path), w.owner, nil
}

// Check judges a regular file as Open does, but does not open it: a program
// that its user may run and not read passes too.
func Check(path string, rule Rule) (Owner, error) {
	w := walk{path: filepath.Clean(path), rule: rule}
	defer w.close()
	if _, _, err := w.run(); err != nil {
		return Owner{}, err
	}
	return w.owner, nil
}

// maxLinks is how many symbolic links Linux follows (path_resolution(7)).
const maxLinks = 40

// A node is one thing in the file system, held by a descriptor where possible.
type node struct {
	fd       int // -1: none
	uid      int
	mode     uint32 // type and permissions, as in stat(2)
	dev, ino uint64
}

func (n node) is(kind uint32) bool { return n.mode&unix.S_IFMT == kind }

// A walk goes from / to a file.
type walk struct {
	path  string
	rule  Rule
	dir   node // the directory that the walk has reached
	entry node // what it found there
	owner Owner
	makes bool // missing directories are made
}

func (w *walk) close() {
	closeNode(&w.dir)
	closeNode(&w.entry)
}

func closeNode(n *node) {
	if n.fd >= 0 {
		unix.Close(n.fd)
	}
	n.fd = -1
}

// run returns the file and its path without links; w.dir holds it.
func (w *walk) run() (file node, at string, err error) {
	file, at, err = w.to(w.path)
	if err == nil && !file.is(unix.S_IFREG) { // judge lets no other kind pass
		err = &Error{Path: w.path, At: at, Cause: "a directory, not a file", hint: "remove it: Docker makes one where a file is missing that it is to mount"}
	}
	return file, at, err
}

// to goes to a path, and returns what is there and its path without links. That
// is a directory, which w.dir is then, or a file that w.dir holds.
func (w *walk) to(path string) (end node, at string, err error) {
	w.dir.fd, w.entry.fd = -1, -1
	if !filepath.IsAbs(w.path) {
		return node{}, "", &Error{Path: w.path, At: w.path, Cause: "not an absolute path"}
	}
	if err := w.root(); err != nil {
		return node{}, "", err
	}
	at = "/"
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		next := filepath.Join(at, name) // at holds no link, so .. is what it seems
		closeNode(&w.entry)
		w.entry, err = lookup(w.dir.fd, name)
		if w.makes && errors.Is(err, fs.ErrNotExist) {
			if err = unix.Mkdirat(w.dir.fd, name, 0o755); err == nil || err == unix.EEXIST {
				w.entry, err = lookup(w.dir.fd, name)
			}
		}
		if err != nil {
			return node{}, "", &fs.PathError{Op: "open", Path: next, Err: err}
		}
		if err := w.judge(w.entry, next); err != nil {
			return node{}, "", err
		}
		switch {
		case w.entry.is(unix.S_IFDIR):
			closeNode(&w.dir)
			w.dir, w.entry.fd = w.entry, -1
			at = next
		case w.entry.is(unix.S_IFLNK):
			if links++; links > maxLinks {
				return node{}, "", &fs.PathError{Op: "open", Path: w.path, Err: unix.ELOOP}
			}
			target, err := readlink(w.dir.fd, name, w.entry)
			if err != nil {
				return node{}, "", &fs.PathError{Op: "readlink", Path: next, Err: err}
			}
			if filepath.IsAbs(target) {
				if err := w.root(); err != nil {
					return node{}, "", err
				}
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		case len(rest) > 0:
			return node{}, "", &fs.PathError{Op: "open", Path: next, Err: unix.ENOTDIR}
		default:
			return w.entry, next, nil
		}
	}
	return w.dir, at, nil
}

// root puts the walk at the beginning.
func (w *walk) root() error {
	closeNode(&w.dir)
	dir, err := lookup(unix.AT_FDCWD, "/")
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	w.dir = dir
	return w.judge(dir, "/")
}

// judge says why n is not to be trusted, and notes in whose hands it is.
func (w *walk) judge(n node, at string) error {
	bad := func(hint, format string, args ...any) error {
		return &Error{Path: w.path, At: at, Cause: fmt.Sprintf(format, args...), hint: hint}
	}
	switch {
	case n.uid == 0:
	case isOverflow(n.uid):
		// A user that this user namespace has no number for. Only a read-only
		// mount keeps such a file from its owner, as far as we can see.
		if !readOnly(n.fd) {
			return bad("mount it read-only, or chown root "+at,
				"owned by uid %d, whoever that is outside, and on a mount that is not read-only", n.uid)
		}
	case n.uid == w.rule.User:
		w.owner.Changeable = true
	case w.rule.User == 0:
		return bad("chown -h root "+at, "owned by uid %d, not by root", n.uid)
	default:
		return bad("chown -h root "+at, "owned by uid %d, neither root nor uid %d", n.uid, w.rule.User)
	}
	perm := n.mode & 0o777
	switch {
	case n.is(unix.S_IFLNK): // its mode means nothing
		return nil
	case n.is(unix.S_IFDIR):
		// In a sticky directory only an entry's owner, and the directory's, can
		// replace it (unlink(2)); both are judged.
		if perm&0o022 != 0 && n.mode&unix.S_ISVTX == 0 {
			return bad("chmod go-w "+at, "mode %#o, writable by %s", perm, whom(perm&0o022))
		}
		return nil
	case !n.is(unix.S_IFREG):
		return bad("put a file in its place", "not a regular file")
	case perm&0o022 != 0:
		return bad("chmod go-w "+at, "mode %#o, writable by %s", perm, whom(perm&0o022))
	case w.rule.Private && perm&0o077 != 0:
		return bad("chmod 600 "+at, "mode %#o, readable by %s", perm, whom(perm&0o077))
	}
	w.owner.UID = n.uid
	return nil
}

func whom(bits uint32) string {
	if bits&0o007 != 0 {
		return "others"
	}
	return "its group"
}

// fstat describes what fd is open on.
func fstat(fd int) (node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return node{fd: -1}, err
	}
	return nodeOf(fd, &st), nil
}

func nodeOf(fd int, st *unix.Stat_t) node {
	return node{fd: fd, uid: int(st.Uid), mode: uint32(st.Mode), dev: uint64(st.Dev), ino: st.Ino}
}

// openat is openat(2), again when a signal interrupts it.
func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
