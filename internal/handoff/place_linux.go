package handoff

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
)

// Leave writes a job's hand-off and gives it to the user that the job runs as,
// all or nothing. A second one for the same job is ErrTwice. After an error
// nothing of it is left that could be removed.
func (s Store) Leave(id job.ID, text []byte, to User) (err error) {
	if len(text) > maxText {
		return s.fail(id, unix.EFBIG, "", "larger than %d MiB", maxText>>20)
	}
	top, err := s.open(to)
	if err != nil {
		return err
	}
	defer top.close()
	dir := id.String()
	s.at("folder")
	switch err := unix.Mkdirat(top.jobs, dir, 0o700); err {
	case nil:
	case unix.EEXIST:
		return s.fail(id, ErrTwice, "two agents must not share "+s.folder(), "this job has a hand-off already")
	default:
		return s.kernel(id, err)
	}
	defer func() {
		if err != nil {
			removeAll(top.jobs, dir)
		}
	}()
	s.at("directory")
	fd, err := openat(top.jobs, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return s.kernel(id, err)
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, 0o700); err != nil { // whatever the umask
		return s.kernel(id, err)
	}
	if err := s.write(fd, text, to.GID); err != nil {
		return s.kernel(id, err)
	}
	s.at("renamed")
	// The last step: until here nobody but us can enter.
	if to.UID != os.Geteuid() {
		if err := unix.Fchown(fd, to.UID, to.GID); err != nil {
			return s.kernel(id, err)
		}
	}
	s.at("given")
	return nil
}

// write makes the file under a name of its own, and renames it when it is whole.
func (s Store) write(dir int, text []byte, group int) error {
	fd, err := openat(dir, halfName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), halfName)
	defer f.Close()
	s.at("file")
	for len(text) > 0 { // in pieces, so that a test can stop in the middle
		n := min(len(text), 64<<10)
		if _, err := f.Write(text[:n]); err != nil {
			return unwrap(err)
		}
		text = text[n:]
		s.at("written")
	}
	// The file stays ours, so that its owner says who wrote it.
	if group != os.Getegid() {
		if err := unix.Fchown(fd, -1, group); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, 0o440); err != nil {
		return err
	}
	s.at("mode")
	return unix.Renameat(dir, halfName, dir, fileName)
}

// Take reads the job's hand-off, and removes it before it reads a byte.
// The caller is the user that the job runs as.
func (s Store) Take(id job.ID) ([]byte, error) {
	top, dir, owner, err := s.find(id)
	if err != nil {
		return nil, err
	}
	defer top.close()
	defer unix.Close(dir)
	if owner != os.Geteuid() {
		return nil, s.fail(id, ErrUntrusted, "", "it is for uid %d, and this hook runs as uid %d", owner, os.Geteuid())
	}
	// By way of the descriptor: what was judged and what is read are one.
	list, err := openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, s.kernel(id, err)
	}
	names, err := readNames(list)
	switch {
	case err != nil:
		return nil, s.kernel(id, err)
	case len(names) == 0:
		return nil, s.fail(id, ErrNone, hintNone, "it was taken before")
	case !slices.Equal(names, []string{fileName}):
		return nil, s.fail(id, ErrTwice, "", "there is more than one file")
	}
	fd, err := openat(dir, fileName, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, s.kernel(id, err)
	}
	f := os.NewFile(uintptr(fd), fileName)
	defer f.Close()
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return nil, s.kernel(id, err)
	}
	if err := unix.Unlinkat(dir, fileName, 0); err != nil {
		return nil, s.kernel(id, err)
	}
	// Only where the folder is ours, too. Otherwise pre-bootstrap does it.
	unix.Unlinkat(top.jobs, id.String(), unix.AT_REMOVEDIR)
	if err := unix.Fstat(fd, &after); err != nil {
		return nil, s.kernel(id, err)
	}
	switch {
	case before.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, s.fail(id, ErrUntrusted, "", "not a regular file")
	case !s.mayOwn(before.Uid):
		return nil, s.fail(id, ErrUntrusted, "", "written by uid %d", before.Uid)
	case before.Mode&0o337 != 0:
		return nil, s.fail(id, ErrUntrusted, "", "its mode is %#o", before.Mode&0o777)
	case before.Nlink != 1 || after.Nlink != 0:
		return nil, s.fail(id, ErrUntrusted, "", "it has a second name")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	switch {
	case err != nil:
		return nil, s.kernel(id, unwrap(err))
	case len(text) > maxText:
		return nil, s.fail(id, ErrUntrusted, "", "larger than %d MiB", maxText>>20)
	}
	return text, nil
}

const hintNone = "the agent's operator sees in the agent's log what its pre-bootstrap hook said"

// Owner returns the user to whom a job's hand-off was given.
func (s Store) Owner(id job.ID) (uid int, err error) {
	top, dir, owner, err := s.find(id)
	if err != nil {
		return 0, err
	}
	top.close()
	unix.Close(dir)
	return owner, nil
}

// First tells whether no job has run here since the folder was made: true once,
// and never again.
func (s Store) First() (bool, error) {
	top, err := s.open(User{os.Geteuid(), os.Getegid()})
	if err != nil {
		return false, err
	}
	defer top.close()
	fd, err := openat(top.folder, usedName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	switch err {
	case nil:
		unix.Close(fd)
		return true, nil
	case unix.EEXIST:
		return false, nil
	}
	return false, s.kernel(job.ID{}, err)
}

// Sweep removes what earlier jobs left. It follows no link. What it can't remove
// nobody but us can reach any more; the error names it.
func (s Store) Sweep() error {
	top, err := s.open(User{os.Geteuid(), os.Getegid()})
	if err != nil {
		return err
	}
	defer top.close()
	list, err := openat(top.jobs, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return s.kernel(job.ID{}, err)
	}
	names, err := readNames(list)
	if err != nil {
		return s.kernel(job.ID{}, err)
	}
	var errs []error
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(top.jobs, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue // gone
		}
		// Nobody but us can put another thing under this name, so it is still
		// the directory when it is taken from its user.
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			err := unix.Fchownat(top.jobs, name, os.Geteuid(), os.Getegid(), unix.AT_SYMLINK_NOFOLLOW)
			if err == nil {
				err = unix.Fchmodat(top.jobs, name, 0o700, 0)
			}
			if err != nil {
				errs = append(errs, s.kernel(job.ID{}, err))
				continue
			}
		}
		if err := removeAll(top.jobs, name); err != nil {
			errs = append(errs, s.kernel(job.ID{}, err))
		}
	}
	return errors.Join(errs...)
}

// The folders, held by descriptors.
type top struct{ folder, jobs int }

func (t top) close() {
	unix.Close(t.folder)
	unix.Close(t.jobs)
}

// find holds the directory of a job's hand-off, and returns its owner.
func (s Store) find(id job.ID) (t top, dir, owner int, err error) {
	t, err = s.reach()
	if err != nil {
		return t, -1, -1, err
	}
	dir, err = openat(t.jobs, id.String(), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		t.close()
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			return t, -1, -1, s.fail(id, ErrNone, hintNone, "no hand-off for this job")
		}
		return t, -1, -1, s.kernel(id, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(dir, &st)
	switch {
	case err != nil:
		err = s.kernel(id, err)
	case st.Mode&0o077 != 0:
		err = s.fail(id, ErrUntrusted, "", "mode %#o, others can enter", st.Mode&0o777)
	case !isTmpfs(dir):
		err = s.fail(id, ErrUntrusted, hintTmpfs, "not on tmpfs")
	}
	if err != nil {
		t.close()
		unix.Close(dir)
		return t, -1, -1, err
	}
	return t, dir, int(st.Uid), nil
}

const hintTmpfs = "mount a tmpfs on " + folder + ", or on /run: a hand-off must never reach a disk"

// open makes the folders where they are missing, and holds them. A user to whom
// something is to be given must be able to come by.
func (s Store) open(to User) (top, error) {
	err := unix.Mkdir(s.folder(), 0o711)
	made := err == nil
	if err != nil && err != unix.EEXIST {
		return top{}, s.kernel(job.ID{}, err)
	}
	dir, err := s.walk()
	if err != nil {
		return top{}, err
	}
	if made {
		unix.Fchmodat(dir, ".", 0o711, 0) // whatever the umask
	}
	switch err := unix.Mkdirat(dir, jobs, 0o711); err {
	case nil:
		unix.Fchmodat(dir, jobs, 0o711, 0)
	case unix.EEXIST:
	default:
		unix.Close(dir)
		return top{}, s.kernel(job.ID{}, err)
	}
	unix.Close(dir)
	t, err := s.reach()
	if err != nil || to.UID == os.Geteuid() {
		return t, err
	}
	for fd, path := range map[int]string{t.folder: s.folder(), t.jobs: s.folder() + "/" + jobs} {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o001 == 0 {
			t.close()
			return top{}, &Error{Path: path, Cause: fmt.Sprintf("mode %#o: uid %d can't come by", st.Mode&0o777, to.UID), hint: "chmod 711 " + path, err: ErrUntrusted}
		}
	}
	return t, nil
}

// reach holds the folders, after a look at each.
func (s Store) reach() (t top, err error) {
	if t.folder, err = s.walk(); err != nil {
		return t, err
	}
	t.jobs, err = s.enter(t.folder, jobs, s.folder()+"/"+jobs)
	if err == nil && !isTmpfs(t.jobs) {
		unix.Close(t.jobs)
		err = &Error{Path: s.folder() + "/" + jobs, Cause: "not on tmpfs", hint: hintTmpfs, err: ErrUntrusted}
	}
	if err != nil {
		unix.Close(t.folder)
	}
	return t, err
}

// walk goes from / to the folder, from descriptor to descriptor: nobody else
// can have put another one in the place of what was judged.
func (s Store) walk() (fd int, err error) {
	fd, err = s.enter(unix.AT_FDCWD, "/", "/")
	path := ""
	for name := range strings.SplitSeq(strings.TrimPrefix(s.folder(), "/"), "/") {
		if err != nil {
			return -1, err
		}
		path += "/" + name
		next, e := s.enter(fd, name, path)
		unix.Close(fd)
		fd, err = next, e
	}
	return fd, err
}

// enter holds a directory, and refuses one that others could change.
func (s Store) enter(dir int, name, path string) (int, error) {
	bad := func(err error, hint, format string, args ...any) (int, error) {
		return -1, &Error{Path: path, Cause: fmt.Sprintf(format, args...), hint: hint, err: err}
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	switch err {
	case nil:
	case unix.ENOENT:
		return bad(ErrNone, hintNone, "not there, so there is no hand-off")
	case unix.ENOTDIR, unix.ELOOP:
		return bad(ErrUntrusted, "remove it", "not a directory")
	default:
		return bad(err, "", "%v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return bad(err, "", "%v", err)
	}
	// In a sticky directory nobody but its owner, and an entry's, can replace
	// the entry (unlink(2)).
	switch {
	case !s.mayOwn(st.Uid):
		unix.Close(fd)
		return bad(ErrUntrusted, "chown root "+path, "owned by uid %d", st.Uid)
	case st.Mode&0o022 != 0 && (st.Mode&unix.S_ISVTX == 0 || path == s.folder() || name == jobs):
		unix.Close(fd)
		return bad(ErrUntrusted, "chmod go-w "+path, "mode %#o, others can write", st.Mode&0o777)
	}
	return fd, nil
}

func (s Store) mayOwn(uid uint32) bool { return uid == 0 || int(uid) == s.By }

func (s Store) fail(id job.ID, err error, hint, format string, args ...any) error {
	return &Error{Path: s.Path(id), Cause: fmt.Sprintf(format, args...), hint: hint, err: err}
}

func (s Store) kernel(id job.ID, err error) error {
	hint := ""
	if err == unix.ENOSPC || err == unix.EDQUOT {
		hint = "make its tmpfs larger, or see who fills it"
	}
	path := s.folder()
	if id != (job.ID{}) {
		path = s.Path(id)
	}
	return &Error{Path: path, Cause: err.Error(), hint: hint, err: err}
}

func unwrap(err error) error {
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

func isTmpfs(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.TMPFS_MAGIC
}

// removeAll removes an entry of a directory with all that is in it, and follows
// no link.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	fd, openErr := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if openErr != nil {
		return err
	}
	names, listErr := readNames(fd)
	if listErr != nil {
		return listErr
	}
	fd, openErr = openat(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if openErr != nil {
		return openErr
	}
	defer unix.Close(fd)
	var errs []error
	for _, n := range names {
		errs = append(errs, removeAll(fd, n))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// readNames lists a directory, and closes it.
func readNames(fd int) ([]string, error) {
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return names, unwrap(err)
}

// openat is openat(2) of what is no link, again when a signal interrupts it.
func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
