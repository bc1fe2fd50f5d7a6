package devnode

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// places are where a directory for nodes may be, best first. Only a tmpfs will
// do: another file system may be read-only, slow, or keep a node after a crash.
var places = []string{"/dev/shm", "/run", "/tmp"}

// A Prober asks the kernel about devices. The zero Prober has no directory: it
// asks about nodes that exist, and answers Unknown for numbers. It is for one
// goroutine at a time, and while Number makes its node the umask of the whole
// process is 0.
type Prober struct {
	dir string // empty: there is none
	fd  int    // dir itself, so that nobody can put another in its place
	ask asker  // access where it is nil, and outside this package's tests
}

// An asker asks for one way (unix.R_OK or unix.W_OK) into a file, by name in a directory.
type asker func(dir int, name string, way uint32) error

// access is faccessat(2), which lets the device cgroup answer and never enters
// the driver. Nothing else will do:
//   - faccessat2 with AT_EACCESS: where it says EPERM, this library takes the call
//     for missing and compares mode bits, so that root may do everything;
//   - open(2) also asks the driver, and the mount's nodev;
//   - stat(2), O_PATH and listings never ask the cgroup;
//   - R_OK|W_OK at once: EPERM where a rule allows one of them.
func access(dir int, name string, way uint32) error { return unix.Faccessat(dir, name, way, 0) }

// Open makes a private directory for nodes on a tmpfs, and removes those of runs
// that did not end well. The error says why there is none, place by place.
func Open() (*Prober, error) { return open(places) }

func open(places []string) (*Prober, error) {
	var all []error
	for _, place := range places {
		sweep(place)
		p, err := openIn(place)
		if err == nil {
			return p, nil
		}
		all = append(all, fmt.Errorf("%s: %w", place, err))
	}
	return nil, errors.Join(all...)
}

var errNoTmpfs = errors.New("no tmpfs")

func openIn(place string) (*Prober, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(place, &st); err != nil {
		return nil, err
	}
	if st.Type != unix.TMPFS_MAGIC {
		return nil, errNoTmpfs
	}
	path := filepath.Join(place, ours()+strconv.Itoa(os.Getpid())+"-"+rand.Text())
	if err := unix.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Rmdir(path)
		return nil, err
	}
	return &Prober{dir: path, fd: fd}, nil
}

// Dir is where nodes are made for a moment; empty for the zero Prober.
func (p *Prober) Dir() string { return p.dir }

// Close removes the directory.
func (p *Prober) Close() error {
	if p.dir == "" {
		return nil
	}
	return errors.Join(unix.Close(p.fd), unix.Rmdir(p.dir))
}

// node is the one name in the directory.
const node = "node"

// Number makes a node of that number, asks about it, and removes it. Where no
// node can be made both answers are Unknown, and Cause begins with "mknod: ".
func (p *Prober) Number(n Number) Access {
	if p.dir == "" {
		return Access{Cause: "no directory for device nodes"}
	}
	// What mknod(2) can take: it would cut the rest off, and make another device's node.
	if n.Major >= 1<<12 || n.Minor >= 1<<20 {
		return Access{Cause: "mknod: no such device number"}
	}
	mode := uint32(unix.S_IFCHR)
	if n.Kind == Block {
		mode = unix.S_IFBLK
	}
	// All may read and write it, so that the mode can't be why somebody may not.
	umask := unix.Umask(0)
	err := unix.Mknodat(p.fd, node, mode|0o666, int(unix.Mkdev(n.Major, n.Minor)))
	unix.Umask(umask)
	if err != nil {
		return Access{Cause: "mknod: " + err.Error()}
	}
	a := p.both(p.fd, node)
	if err := unix.Unlinkat(p.fd, node, 0); err != nil {
		return Access{Cause: "unlink: " + err.Error()}
	}
	return a
}

// Path asks about a node that exists. Where the mode of the node or of a
// directory keeps us out the answer is Unknown: the cgroup was not asked.
func (p *Prober) Path(path string) Access { return p.both(unix.AT_FDCWD, path) }

// both asks for reading and for writing, never at once.
func (p *Prober) both(dir int, name string) Access {
	var a Access
	a.Read, a.Cause = p.one(dir, name, unix.R_OK)
	write, cause := p.one(dir, name, unix.W_OK)
	if a.Write = write; a.Cause == "" {
		a.Cause = cause
	}
	return a
}

func (p *Prober) one(dir int, name string, way uint32) (Answer, string) {
	ask := p.ask
	if ask == nil {
		ask = access
	}
	switch err := ask(dir, name, way); err {
	case nil:
		return Allowed, ""
	case unix.EPERM:
		return Denied, ""
	case unix.ENOENT, unix.ENOTDIR:
		return Absent, ""
	default: // EACCES above all: mode bits or a security module, before or after the cgroup
		return Unknown, "access: " + err.Error()
	}
}

// prefix is what the directories' names begin with.
const prefix = "juliagpu-secrets-nodes-"

// ours is prefix and the number of our PID namespace: where containers share
// /dev/shm, another one's process is not dead because it can't be seen from here.
func ours() string {
	link, _ := os.Readlink("/proc/self/ns/pid")
	number := strings.TrimSuffix(strings.TrimPrefix(link, "pid:["), "]")
	return prefix + number + "-"
}

// sweep removes directories in place that are left from dead runs of this user.
// What is not as expected stays where it is.
func sweep(place string) {
	all, err := os.ReadDir(place)
	if err != nil {
		return
	}
	own := ours()
	for _, e := range all {
		rest, ok := strings.CutPrefix(e.Name(), own)
		text, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(text)
		if !ok || err != nil || pid <= 0 || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		remove(filepath.Join(place, e.Name()))
	}
}

// remove removes a directory of ours and the node in it, and follows no link.
func remove(path string) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || int(st.Uid) != os.Geteuid() {
		return
	}
	unix.Unlinkat(fd, node, 0)
	unix.Rmdir(path)
}

// Of is the number of a device node that was found, and false for other files.
// A Number may stand in for what the system says of a file, for tests.
func Of(info fs.FileInfo) (Number, bool) {
	if info.Mode()&fs.ModeDevice == 0 {
		return Number{}, false
	}
	switch sys := info.Sys().(type) {
	case Number:
		return sys, true
	case *syscall.Stat_t:
		n := Number{Block, unix.Major(uint64(sys.Rdev)), unix.Minor(uint64(sys.Rdev))}
		if info.Mode()&fs.ModeCharDevice != 0 {
			n.Kind = Char
		}
		return n, true
	}
	return Number{}, false
}
