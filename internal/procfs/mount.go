package procfs

import (
	"slices"
	"strings"
)

// A Mount is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), its octal
// escapes undone.
type Mount struct {
	ID, Parent int
	Device     string   // st_dev of its files, as in 0:58
	Root       string   // the part of the file system that is mounted
	Point      string   // where, seen from the process's root
	Options    []string // of this mount
	Type       string   // of the file system
	Source     string
	Super      []string // of the file system
}

// Has tells whether a mount has an option of its own, as nodev.
func (m Mount) Has(option string) bool { return slices.Contains(m.Options, option) }

// ReadOnly tells whether nothing can be written here: by the mount or by the
// whole file system.
func (m Mount) ReadOnly() bool { return m.Has("ro") || slices.Contains(m.Super, "ro") }

// pseudo file systems hold no nodes that anybody could have made there.
var pseudo = []string{
	"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs",
	"bpf", "pstore", "configfs", "nsfs", "binfmt_misc", "hugetlbfs", "fusectl", "efivarfs", "autofs", "rpc_pipefs",
}

// IsPseudo tells whether a mount is of a file system of the kernel's, where nobody
// could have made a device node.
func (m Mount) IsPseudo() bool { return slices.Contains(pseudo, m.Type) }

// IsVolume tells whether a mount holds files that outlive a container.
func (m Mount) IsVolume() bool {
	switch m.Type {
	case "overlay", "fuse.fuse-overlayfs", "tmpfs", "ramfs", "devtmpfs":
		return false
	}
	return m.Point != "/" && !m.IsPseudo()
}

// Under tells whether a path is dir or in it. Both are clean and absolute.
func Under(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/' || dir == "/")
}

// MountOf is the mount that a clean absolute path is on.
func MountOf(all []Mount, path string) (Mount, bool) {
	var best Mount
	for _, m := range all {
		// Where two are mounted in one place, the later one is seen.
		if Under(path, m.Point) && len(m.Point) >= len(best.Point) {
			best = m
		}
	}
	return best, best.Point != ""
}
