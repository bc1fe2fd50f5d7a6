package devnode

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// The device cgroup is the kernel's, and so these tests ask a real one: a process
// of its own enters a cgroup with a few rules and tells what each way of asking
// says there.

const (
	inCgroup = "DEVNODE_TEST_CGROUP" // the cgroup that the process enters
	atPlace  = "DEVNODE_TEST_PLACE"  // a tmpfs
)

func TestMain(m *testing.M) {
	if cgroup := os.Getenv(inCgroup); cgroup != "" {
		if err := tell(cgroup, os.Getenv(atPlace)); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// rules are the cgroup's: an engine's default, a device of our own, one that may
// be read, one that may be written.
const rules = `c *:* m
b *:* m
c 1:3 rwm
c 195:2 rw
c 195:3 r
c 195:4 w
b 7:0 r`

var (
	null  = C(1, 3)
	mem   = C(1, 1)
	own   = C(195, 2) // no driver has it: nothing but access can be asked
	read  = C(195, 3)
	write = C(195, 4)
	other = C(195, 5)
	disk  = B(7, 0)
	disks = B(7, 1)
)

// wrong are the ways of asking that do not work, each by what it gets wrong.
var wrong = map[string]asker{
	"AT_EACCESS": func(dir int, name string, way uint32) error {
		return unix.Faccessat(dir, name, way, unix.AT_EACCESS)
	},
	"both at once": func(dir int, name string, _ uint32) error {
		return unix.Faccessat(dir, name, unix.R_OK|unix.W_OK, 0)
	},
	"open": func(dir int, name string, way uint32) error {
		return opened(dir, name, map[uint32]int{unix.R_OK: unix.O_RDONLY, unix.W_OK: unix.O_WRONLY}[way]|unix.O_NONBLOCK)
	},
	"O_PATH": func(dir int, name string, _ uint32) error { return opened(dir, name, unix.O_PATH) },
	"stat": func(dir int, name string, _ uint32) error {
		return unix.Fstatat(dir, name, &unix.Stat_t{}, unix.AT_SYMLINK_NOFOLLOW)
	},
	"listing": func(dir int, name string, _ uint32) error {
		fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), ".")
		defer f.Close()
		names, err := f.Readdirnames(-1)
		if err == nil && !slices.Contains(names, name) {
			err = unix.ENOENT
		}
		return err
	},
}

func opened(dir int, name string, flags int) error {
	fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// tell enters a cgroup and prints what each way of asking says there: first by
// name of the way, then by number. The package's own has the name "".
func tell(cgroup, place string) error {
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	p, err := open([]string{place})
	if err != nil {
		return err
	}
	defer p.Close()
	said := map[string]map[string]Access{}
	ways := maps.Clone(wrong)
	ways[""] = nil
	for way, ask := range ways {
		p.ask = ask
		said[way] = map[string]Access{}
		for _, n := range []Number{null, mem, own, read, write, other, disk, disks} {
			said[way][n.String()] = p.Number(n)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

// UnmarshalText is for the answers of the process above.
func (a *Answer) UnmarshalText(text []byte) error {
	i := slices.Index(answers[:], string(text))
	if i < 0 {
		return errors.New("no answer")
	}
	*a = Answer(i)
	return nil
}

// asked returns what tell prints, in a cgroup with the rules above.
func asked(t *testing.T, place string) map[string]map[Number]Access {
	t.Helper()
	need.Root(t, "to make a device cgroup")
	mount := t.TempDir()
	if err := unix.Mount("none", mount, "cgroup", 0, "devices"); err != nil {
		need.Skip(t, "needs version 1 device cgroups: "+err.Error())
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mount, unix.MNT_DETACH)) })
	cgroup, err := os.MkdirTemp(mount, "devnode-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Rmdir(cgroup)) })
	require.NoError(t, os.WriteFile(filepath.Join(cgroup, "devices.deny"), []byte("a"), 0))
	for rule := range strings.Lines(rules) {
		require.NoError(t, os.WriteFile(filepath.Join(cgroup, "devices.allow"), []byte(strings.TrimSpace(rule)), 0))
	}

	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), inCgroup+"="+cgroup, atPlace+"="+place)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var text map[string]map[string]Access
	require.NoError(t, json.Unmarshal(out, &text), "%s", out)
	said := map[string]map[Number]Access{}
	for way, answers := range text {
		said[way] = map[Number]Access{}
		for _, n := range []Number{null, mem, own, read, write, other, disk, disks} {
			said[way][n] = answers[n.String()]
		}
	}
	return said
}

var (
	allowed = Access{Read: Allowed, Write: Allowed}
	denied  = Access{Read: Denied, Write: Denied}
	// truth is what the rules above say.
	truth = map[Number]Access{
		null: allowed, mem: denied, own: allowed, other: denied, disks: denied,
		read:  {Read: Allowed, Write: Denied},
		write: {Read: Denied, Write: Allowed},
		disk:  {Read: Allowed, Write: Denied},
	}
)

func TestNumberInCgroup(t *testing.T) {
	said := asked(t, tmpfs(t, ""))
	require.Equal(t, truth, said[""])
	require.True(t, said[""][read].Any() && said[""][write].Any(), "one way is enough to reach a device")

	// And why nothing but access, one way at a time, will do.
	require.Equal(t, allowed, said["AT_EACCESS"][mem], "the library falls back to mode bits")
	require.Equal(t, allowed, said["AT_EACCESS"][other], "the library falls back to mode bits")
	require.Equal(t, denied, said["both at once"][read], "a device that may be read")
	require.Equal(t, denied, said["both at once"][write], "a device that may be written")
	for _, way := range []string{"O_PATH", "stat", "listing"} {
		require.Equal(t, allowed, said[way][mem], "%s does not ask the cgroup", way)
		require.Equal(t, allowed, said[way][other], "%s does not ask the cgroup", way)
	}
	require.Equal(t, Access{Cause: "access: no such device or address"}, said["open"][own], "open asks the driver")
}

// Docker's own /dev/shm is nodev: open says EACCES for each node there.
func TestNumberOnNodev(t *testing.T) {
	said := asked(t, tmpfs(t, "nodev"))
	require.Equal(t, truth, said[""])
	require.Equal(t, Unknown, said["open"][null].Read)
	require.Equal(t, "access: permission denied", said["open"][null].Cause)
}

// tmpfs mounts one.
func tmpfs(t *testing.T, option string) string {
	t.Helper()
	need.Root(t, "to mount")
	flags := uintptr(unix.MS_NOSUID | unix.MS_NOEXEC)
	if option == "nodev" {
		flags |= unix.MS_NODEV
	}
	place := t.TempDir()
	require.NoError(t, unix.Mount("none", place, "tmpfs", flags, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(place, unix.MNT_DETACH)) })
	return place
}

// opens makes a prober in place.
func opens(t *testing.T, place string) *Prober {
	t.Helper()
	p, err := open([]string{place})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func TestNumber(t *testing.T) {
	p := opens(t, tmpfs(t, ""))
	for _, umask := range []int{0, 0o77, 0o777} {
		before := unix.Umask(umask)
		require.Equal(t, allowed, p.Number(null), "umask %o", umask)
		unix.Umask(before)
	}
	for i := range Parallel {
		left, err := os.ReadDir(filepath.Join(p.Dir(), itoa(i)))
		require.NoError(t, err)
		require.Empty(t, left, "no node stays")
	}

	var mode uint32
	p.ask = func(dir int, name string, _ uint32) error {
		var st unix.Stat_t
		require.NoError(t, unix.Fstatat(dir, name, &st, 0))
		mode = st.Mode
		return nil
	}
	p.Number(null)
	require.EqualValues(t, unix.S_IFCHR, mode&unix.S_IFMT)
	p.Number(disk)
	require.EqualValues(t, unix.S_IFBLK, mode&unix.S_IFMT)
	require.EqualValues(t, 0o600, mode&0o600)

	for _, n := range []Number{C(1<<12, 3), C(1, 1<<20|3), B(1<<31, 0)} {
		require.Equal(t, Access{Cause: "mknod: no such device number"}, p.Number(n), "%s", n)
	}
	require.NoError(t, p.Close())
	require.NoDirExists(t, p.Dir())
}

// What each error means.
func TestAnswers(t *testing.T) {
	for err, want := range map[error]Access{
		nil:          allowed,
		unix.EPERM:   denied,
		unix.EACCES:  {Cause: "access: permission denied"},
		unix.ENOENT:  {Read: Absent, Write: Absent},
		unix.ENOTDIR: {Read: Absent, Write: Absent},
		unix.ENOSYS:  {Cause: "access: function not implemented"},
		unix.ELOOP:   {Cause: "access: too many levels of symbolic links"},
	} {
		p := Prober{ask: func(int, string, uint32) error { return err }}
		require.Equal(t, want, p.Path("/dev/x"), "%v", err)
	}
}

// A mode that keeps us out says nothing of the cgroup.
func TestPath(t *testing.T) {
	var p Prober
	dir := t.TempDir()
	require.Equal(t, Access{Read: Absent, Write: Absent}, p.Path(filepath.Join(dir, "none")))
	require.Equal(t, allowed, p.Path("/dev/null"))
	require.Equal(t, Access{Cause: NoDirectory}, p.Number(null))
	require.NoError(t, p.Close())

	if os.Getuid() != 0 {
		shut := filepath.Join(dir, "shut")
		require.NoError(t, os.WriteFile(shut, nil, 0o400))
		require.Equal(t, Access{Read: Allowed, Cause: "access: permission denied"}, p.Path(shut))
	}
}

func TestNumberWithoutCapability(t *testing.T) {
	need.AnotherUser(t) // root may make nodes: see TestNumber
	p, err := Open()
	if err != nil {
		need.Skip(t, "needs a tmpfs to write to: "+err.Error())
	}
	defer p.Close()
	require.Equal(t, Access{Cause: MknodEPERM}, p.Number(null))
}

func TestCauses(t *testing.T) {
	require.Equal(t, MknodEPERM, NoNode+unix.EPERM.Error())
	require.Equal(t, MknodEACCES, NoNode+unix.EACCES.Error())
	require.False(t, Access{Cause: NoDirectory}.Made())
	require.True(t, allowed.Made())
	require.True(t, Access{Cause: "access: permission denied"}.Made())
}

func TestOpen(t *testing.T) {
	shm := tmpfs(t, "")
	p := opens(t, shm)
	info, err := os.Lstat(p.Dir())
	require.NoError(t, err)
	require.Equal(t, fs.ModeDir|0o700, info.Mode())
	require.Equal(t, shm, filepath.Dir(p.Dir()))

	readOnly := tmpfs(t, "")
	require.NoError(t, unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	notTmpfs := "/proc"
	p, err = open([]string{"/nonexistent", notTmpfs, readOnly, shm})
	require.NoError(t, err)
	require.Equal(t, shm, filepath.Dir(p.Dir()), "the first that will do")
	require.NoError(t, p.Close())

	_, err = open([]string{"/nonexistent", notTmpfs, readOnly})
	require.EqualError(t, err, "/nonexistent: no such file or directory\n/proc: no tmpfs\n"+readOnly+": read-only file system")
}

func TestNumberFromManyAtOnce(t *testing.T) {
	p := opens(t, tmpfs(t, ""))
	var wait sync.WaitGroup
	for range 4 * Parallel {
		wait.Go(func() {
			for range 50 {
				assert.Equal(t, allowed, p.Number(null))
			}
		})
	}
	wait.Wait()
}

func TestOpenRemovesWhatIsStale(t *testing.T) {
	shm := tmpfs(t, "")
	dead := exec.Command("/bin/true")
	require.NoError(t, dead.Run())
	pid := func(n string) string { return filepath.Join(shm, ours()+n+"-ABC") }
	stale := pid(itoa(dead.Process.Pid))
	require.NoError(t, os.MkdirAll(filepath.Join(stale, "2"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(stale, "3"), 0o700))
	require.NoError(t, unix.Mknod(filepath.Join(stale, "2", node), unix.S_IFCHR, int(unix.Mkdev(1, 3))))

	victim := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(victim, "0"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(victim, "0", node), nil, 0o600))
	link := pid(itoa(dead.Process.Pid)) + "-link"
	require.NoError(t, os.Symlink(victim, link))
	foreign := pid(itoa(dead.Process.Pid)) + "-foreign"
	require.NoError(t, os.Mkdir(foreign, 0o700))
	require.NoError(t, os.Chown(foreign, 4711, 0))
	inside := pid(itoa(dead.Process.Pid)) + "-inside"
	require.NoError(t, os.Mkdir(inside, 0o700))
	require.NoError(t, os.Symlink(filepath.Join(victim, "0"), filepath.Join(inside, "0")))
	full := pid(itoa(dead.Process.Pid)) + "-full"
	require.NoError(t, os.MkdirAll(filepath.Join(full, "more"), 0o700))
	others := filepath.Join(shm, prefix+"1-"+itoa(dead.Process.Pid)+"-ABC") // of another PID namespace
	kept := []string{pid("1"), pid(itoa(os.Getpid())), pid("0"), pid("-1"), pid("x"), others, full, foreign, link, inside}
	for _, path := range kept {
		if _, err := os.Lstat(path); err != nil {
			require.NoError(t, os.Mkdir(path, 0o700))
		}
	}

	opens(t, shm)
	require.NoDirExists(t, stale)
	require.FileExists(t, filepath.Join(victim, "0", node), "no link is followed")
	for _, path := range kept {
		_, err := os.Lstat(path)
		require.NoError(t, err)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestOf(t *testing.T) {
	info, err := os.Stat("/dev/null")
	require.NoError(t, err)
	n, ok := Of(info)
	require.True(t, ok)
	require.Equal(t, null, n)
	info, err = os.Stat("/")
	require.NoError(t, err)
	_, ok = Of(info)
	require.False(t, ok)
}

func BenchmarkNumber(b *testing.B) {
	need.Root(b, "to make device nodes")
	p, err := Open()
	require.NoError(b, err)
	defer p.Close()
	b.Run("one at a time", func(b *testing.B) {
		for b.Loop() {
			p.Number(other)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p.Number(other)
			}
		})
	})
}
