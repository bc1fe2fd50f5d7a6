package rootfile

import "golang.org/x/sys/unix"

// lookup describes an entry of a directory, and holds it where that is a
// directory itself. It follows no link. macOS has no O_PATH.
func lookup(dir int, name string) (node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return node{fd: -1}, err
	}
	entry := nodeOf(-1, &st)
	if !entry.is(unix.S_IFDIR) {
		return entry, nil
	}
	fd, err := openat(dir, name, unix.O_SEARCH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return node{fd: -1}, err
	}
	n, err := fstat(fd)
	if err != nil {
		unix.Close(fd)
	}
	return n, err
}

// readlink reads a link that was judged in a directory that was judged: nobody
// else can have replaced it since.
func readlink(dir int, name string, _ node) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, target)
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}

// isOverflow: macOS has no user namespaces.
func isOverflow(int) bool { return false }

// readOnly is not asked without an overflow user.
func readOnly(int) bool { return false }
