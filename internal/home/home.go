//go:build unix

// Package home makes the directories that the jobs of one user have to themselves.
//
//	/var/lib/juliagpu-secrets        root, 0755
//	└── 4711                         root and the user's group, 0710
//	    ├── builds, plugins, git-mirrors, home, cache, tmp    the user's, 0700
//	/run/juliagpu-secrets/user/4711  the same; below it sockets and runtime
//
// Each directory in which others lie is root's: nobody but root can put a link,
// or anything else, in the place of one of them. The group keeps other users out
// even where a job opens its own directories to everybody.
package home

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Where users' directories are. Sockets get the shorter path, because one of the
// agent's must fit into 107 bytes (unix(7)), and go away with the machine's start.
const (
	Lasting  = "/var/lib/juliagpu-secrets"
	Fleeting = "/run/juliagpu-secrets/user"
)

// Kept is root's, and in Lasting on hosts that empty it before each container:
// package kept.
const Kept = Lasting + "/kept"

// ErrNotOurs says that something else is where a directory belongs.
var ErrNotOurs = errors.New("not a directory of ours")

// A Home is the directories of one user, as absolute paths.
type Home struct {
	Builds, Plugins, Mirrors string // for the agent's bootstrap
	Home, Cache, Temp        string
	Sockets, Runtime         string // short, and not for files of size
}

// Of returns the directories of a user, whether they are there or not.
func Of(uid int) Home {
	lasting := path.Join(Lasting, strconv.Itoa(uid))
	fleeting := path.Join(Fleeting, strconv.Itoa(uid))
	return Home{
		Builds: lasting + "/builds", Plugins: lasting + "/plugins", Mirrors: lasting + "/git-mirrors",
		Home: lasting + "/home", Cache: lasting + "/cache", Temp: lasting + "/tmp",
		Sockets: fleeting + "/sockets", Runtime: fleeting + "/runtime",
	}
}

// Make makes the directories of a user that are missing, and closes those that
// a job has opened to others. It needs root. It follows no link; the error wraps
// ErrNotOurs where another user could have made a directory on the way, or owns
// what is there.
func Make(uid, gid int) (Home, error) {
	h := Of(uid)
	for _, dirs := range [][]string{{h.Builds, h.Plugins, h.Mirrors, h.Home, h.Cache, h.Temp}, {h.Sockets, h.Runtime}} {
		if err := makeIn("/", dirs, uid, gid); err != nil {
			return Home{}, err
		}
	}
	return h, nil
}

// makeIn makes directories that lie in one, below root, which need not be checked.
func makeIn(root string, dirs []string, uid, gid int) error {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", root, err)
	}
	defer func() { unix.Close(fd) }()
	above := path.Dir(dirs[0])
	parts := strings.Split(strings.Trim(above, "/"), "/")
	for i, name := range parts {
		want := owner{mode: 0o755}
		if i == len(parts)-1 {
			want = owner{gid: gid, mode: 0o710, ours: true}
		}
		next, err := enter(fd, name, want)
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join("/", path.Join(parts[:i+1]...)), err)
		}
		unix.Close(fd)
		fd = next
	}
	for _, dir := range dirs {
		own, err := enter(fd, path.Base(dir), owner{uid: uid, gid: gid, mode: 0o700, ours: true})
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		unix.Close(own)
	}
	return nil
}

// An owner is who must own a directory.
type owner struct {
	uid, gid int
	mode     uint32
	ours     bool // made like this whenever it is not; others must only be root's alone
}

// enter opens the directory name in the directory dir, which is judged, and
// makes it if it is missing. It returns a descriptor of what it has judged.
func enter(dir int, name string, want owner) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0)
	if err == unix.ENOENT {
		// For its owner's eyes from the first moment on. Another launcher may be faster.
		if err := unix.Mkdirat(dir, name, want.mode); err != nil && err != unix.EEXIST {
			return -1, err
		}
		fd, err = unix.Openat(dir, name, flags, 0)
	}
	switch {
	case err == unix.ELOOP, err == unix.ENOTDIR: // a link is either, depending on the system
		return -1, fmt.Errorf("%w: a link or a file", ErrNotOurs)
	case err != nil:
		return -1, err
	}
	if err := want.settle(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// settle judges an open directory, and one of ours it makes as it must be: the
// descriptor is of what was judged, so nothing else can get an owner.
func (want owner) settle(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	uid, gid, mode := int(st.Uid), int(st.Gid), uint32(st.Mode)&0o7777
	switch {
	case uid != 0 && uid != want.uid:
		return fmt.Errorf("%w: owned by uid %d", ErrNotOurs, uid)
	case !want.ours && mode&0o022 != 0:
		return fmt.Errorf("%w: mode %#o, writable by others", ErrNotOurs, mode)
	case !want.ours && mode&0o001 == 0:
		return fmt.Errorf("mode %#o, and jobs must get past it: chmod o+x", mode)
	case !want.ours:
		return nil
	}
	if uid != want.uid || gid != want.gid {
		if err := unix.Fchown(fd, want.uid, want.gid); err != nil {
			return err
		}
	}
	if mode != want.mode {
		return unix.Fchmod(fd, want.mode)
	}
	return nil
}
