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
// asks about nodes that exist, and answers Unknown for numbers.
type Prober struct {
	dir string // empty: there is none
	// free are directories in dir that nobody uses, by descriptor: the kernel lets
	// one at a time change a directory, and making a node is what takes long.
	free chan int
	ask  asker // access where it is nil, and outside this package's tests
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
	p := Prober{dir: filepath.Join(place, ours()+strconv.Itoa(os.Getpid())+"-"+rand.Text()), free: make(chan int, Parallel)}
	if err := unix.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	for i := range Parallel {
		fd, err := mkdir(filepath.Join(p.dir, strconv.Itoa(i)))
		if err != nil {
			p.Close()
			return nil, err
		}
		p.free <- fd
	}
	return &p, nil
}

func mkdir(path string) (fd int, err error) {
	if err := unix.Mkdir(path, 0o700); err != nil {
		return -1, err
	}
	return openat(unix.AT_FDCWD, path)
}

// Dir is where nodes are made for a moment; empty for the zero Prober.
func (p *Prober) Dir() string { return p.dir }

// Close removes the directory. Nobody may be asking, then or later.
func (p *Prober) Close() error {
	if p.dir == "" {
		return nil
	}
	for range len(p.free) {
		unix.Close(<-p.free)
	}
	return remove(p.dir)
}

// node is the one name in each directory.
const node = "node"

// Number makes a node of that number, asks about it, and removes it. Where no
// node can be made both answers are Unknown, and Cause begins with NoNode.
func (p *Prober) Number(n Number) Access {
	if p.dir == "" {
		return Access{Cause: NoDirectory}
	}
	// What mknod(2) can take: it would cut the rest off, and make another device's node.
	if n.Major >= 1<<12 || n.Minor >= 1<<20 {
		return Access{Cause: NoNode + "no such device number"}
	}
	mode := uint32(unix.S_IFCHR)
	if n.Kind == Block {
		mode = unix.S_IFBLK
	}
	dir := <-p.free
	defer func() { p.free <- dir }()
	// The umask may take away what it likes: the node is ours. Were it to take even
	// that, the answer would be EACCES, and so Unknown.
	if err := unix.Mknodat(dir, node, mode|0o666, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return Access{Cause: NoNode + err.Error()}
	}
	a := p.both(dir, node)
	if err := unix.Unlinkat(dir, node, 0); err != nil {
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

// mostSwept is how many files sweep looks at: a job may have left millions.
const mostSwept = 4096

// sweep removes directories in place that are left from dead runs of this user.
// What is not as expected stays where it is.
func sweep(place string) {
	dir, err := os.Open(place)
	if err != nil {
		return
	}
	defer dir.Close()
	all, _ := dir.ReadDir(mostSwept)
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

// remove removes a directory of ours and what is in it. It follows no link.
func remove(path string) error {
	dir, err := openat(unix.AT_FDCWD, path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil || int(st.Uid) != os.Geteuid() {
		return errors.Join(err, fs.ErrPermission)
	}
	for i := range Parallel {
		name := strconv.Itoa(i)
		if inner, err := openat(dir, name); err == nil {
			unix.Unlinkat(inner, node, 0)
			unix.Close(inner)
		}
		unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	}
	return unix.Rmdir(path)
}

// openat holds a directory that is no link.
func openat(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
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
