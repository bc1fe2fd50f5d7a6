package rootfile

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lookup holds an entry of a directory, whatever it is, and follows no link.
// O_PATH needs no permission but to search the directory, and wakes no device.
func lookup(dir int, name string) (node, error) {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return node{fd: -1}, err
	}
	n, err := fstat(fd)
	if err != nil {
		unix.Close(fd)
	}
	return n, err
}

// readlink reads the very link that lookup holds.
func readlink(_ int, _ string, link node) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link.fd, "", target)
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}

// isOverflow tells whether uid stands for all users that this user namespace
// has no number for (user_namespaces(7)).
func isOverflow(uid int) bool {
	overflow := 65534 // the kernel's own default
	if text, err := os.ReadFile("/proc/sys/kernel/overflowuid"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			overflow = n
		}
	}
	return uid == overflow
}

// readOnly tells whether fd is on a read-only mount.
func readOnly(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}
