package handoff

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// The test program started anew, with one of these, is a child that a test kills
// or that runs as another user.
const (
	varCrash = "HANDOFF_TEST_CRASH" // the step, counted from 0, at which it ends
	varTake  = "HANDOFF_TEST_TAKE"  // takes, and prints the first value
	varPath  = "HANDOFF_TEST_PATH"
	varUser  = "HANDOFF_TEST_USER"
)

func TestMain(m *testing.M) {
	s := Store{By: os.Geteuid(), path: os.Getenv(varPath)}
	if n, err := strconv.Atoi(os.Getenv(varCrash)); err == nil {
		step := 0
		s.step = func(string) {
			if step == n {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			step++
		}
		user, _ := strconv.Atoi(os.Getenv(varUser))
		if err := s.Leave(ours, large, User{user, user}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(varTake) != "" {
		s.By = 0
		text, err := s.Take(ours)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(string(text))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs the test program anew, as a user, or ours.
func child(t *testing.T, user int, env ...string) (string, *os.ProcessState) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = env
	if user != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}}
	}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil {
		require.ErrorAs(t, err, &exit, string(out))
	}
	return strings.TrimSpace(string(out)), cmd.ProcessState
}

func mustID(s string) job.ID {
	id, err := job.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

var (
	ours   = mustID("0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b")
	theirs = mustID("0190b5c4-ffff-4c3d-9a8b-7c6d5e4f3a2b")

	full  = []byte("{\"value\":\"hunter2\"}")
	large = []byte(strings.Repeat("hunter2 ", 24<<10)) // takes several writes
)

// store is one on tmpfs, for a test.
func store(t *testing.T) Store {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "handoff-")
	if err != nil {
		need.Skip(t, "needs /dev/shm to write to")
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if !isTmpfsPath(dir) {
		need.Skip(t, "needs /dev/shm to be a tmpfs")
	}
	require.NoError(t, os.Chmod(dir, 0o711))
	return Store{By: os.Geteuid(), path: filepath.Join(dir, "run")}
}

func isTmpfsPath(path string) bool {
	fd, err := unix.Open(path, unix.O_PATH, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return isTmpfs(fd)
}

// us is this test's own user: jobs without one of their own.
var us = User{os.Geteuid(), os.Getegid()}

// lies returns the names below the folder of hand-offs.
func (s Store) lies(t *testing.T) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(filepath.Join(s.path, jobs), func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(filepath.Join(s.path, jobs), path); rel != "." {
			names = append(names, rel)
		}
		return err
	}))
	return names
}

func TestLeaveAndTake(t *testing.T) {
	s := store(t)
	old := unix.Umask(0o077) // as an agent's unit may set it
	defer unix.Umask(old)
	require.NoError(t, s.Leave(ours, full, us))
	info, err := os.Stat(filepath.Join(s.path, jobs))
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o711, info.Mode())
	info, err = os.Stat(s.Path(ours))
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o700, info.Mode())
	info, err = os.Stat(s.Path(ours) + "/handoff")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o440), info.Mode())

	owner, err := s.Owner(ours)
	require.NoError(t, err)
	require.Equal(t, us.UID, owner)
	_, err = s.Owner(theirs)
	require.ErrorIs(t, err, ErrNone)

	require.ErrorIs(t, s.Leave(ours, full, us), ErrTwice)
	h, err := s.Take(ours)
	require.NoError(t, err, "and the second one has not touched the first")
	require.Equal(t, full, h)
	require.Empty(t, s.lies(t))

	_, err = s.Take(ours)
	require.ErrorIs(t, err, ErrNone)
	require.EqualError(t, err, s.Path(ours)+": no hand-off for this job")
}

// TestOtherUser: root leaves, and the job's user takes.
func TestOtherUser(t *testing.T) {
	need.Root(t, "to give files to other users")
	s := store(t)
	const user = 4711
	require.NoError(t, s.Leave(ours, large, User{user, user}))
	owner, err := s.Owner(ours)
	require.NoError(t, err)
	require.Equal(t, user, owner)

	_, err = s.Take(ours)
	require.ErrorIs(t, err, ErrUntrusted, "root is not the job's user")
	out, state := child(t, user+1, varTake+"=1", varPath+"="+s.path)
	require.False(t, state.Success())
	require.NotContains(t, out, "hunter2")

	out, state = child(t, user, varTake+"=1", varPath+"="+s.path)
	require.True(t, state.Success(), out)
	require.Contains(t, out, "hunter2")
	require.Equal(t, []string{ours.String()}, s.lies(t), "empty, and the job's user can't remove it")
	out, _ = child(t, user, varTake+"=1", varPath+"="+s.path)
	require.Equal(t, s.Path(ours)+": it was taken before", out)
	require.NoError(t, s.Sweep())
	require.Empty(t, s.lies(t))

	require.NoError(t, os.Chmod(s.path, 0o700))
	err = s.Leave(ours, large, User{user, user})
	require.EqualError(t, err, s.path+": mode 0700: uid 4711 can't come by")
}

// TestCrash ends the process at every step of Leave. What the job's first hook
// then finds is a whole hand-off or none, and the next job finds nothing at all.
func TestCrash(t *testing.T) {
	users := []int{os.Geteuid()}
	if os.Geteuid() == 0 {
		users = append(users, 4711)
	}
	for _, user := range users {
		t.Run(fmt.Sprintf("user %d", user), func(t *testing.T) {
			whole, crashes := 0, 0
			for n := 0; ; n++ {
				s := store(t)
				out, state := child(t, os.Geteuid(), fmt.Sprintf("%s=%d", varCrash, n), varPath+"="+s.path, fmt.Sprintf("%s=%d", varUser, user))
				if state.Success() {
					break
				}
				require.Equal(t, syscall.SIGKILL, state.Sys().(syscall.WaitStatus).Signal(), out)
				crashes++
				out, state = child(t, user, varTake+"=1", varPath+"="+s.path)
				if os.Geteuid() != 0 { // the child trusts root alone
					state = nil
				}
				switch {
				case state == nil:
				case state.Success():
					require.Equal(t, strings.TrimSpace(string(large)), out)
					whole++
				default:
					require.NotContains(t, out, "hunter2")
				}
				require.NoError(t, s.Sweep())
				require.Empty(t, s.lies(t))
				require.NoError(t, s.Leave(ours, large, us), "the next job's")
			}
			require.Greater(t, crashes, 8)
			if os.Geteuid() == 0 {
				// With a user of its own only the very last step makes it whole.
				require.Equal(t, map[bool]int{true: 2, false: 1}[user == 0], whole)
			}
		})
	}
}

// TestTakeRefuses: what somebody else could have written, or read.
func TestTakeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(t *testing.T, s Store, dir, file string)
		want    error
		because string
	}{
		{"two", func(t *testing.T, _ Store, dir, _ string) {
			require.NoError(t, os.WriteFile(dir+"/second", nil, 0o400))
		}, ErrTwice, "there is more than one file"},
		{"none", func(t *testing.T, _ Store, _, file string) { require.NoError(t, os.Remove(file)) }, ErrNone, "it was taken before"},
		{"one that is too large", func(t *testing.T, _ Store, _, file string) {
			require.NoError(t, os.Chmod(file, 0o640)) // the tester may not be root
			require.NoError(t, os.Truncate(file, maxText+1))
			require.NoError(t, os.Chmod(file, 0o440))
		}, ErrUntrusted, "larger than 16 MiB"},
		{"one that is not renamed yet", func(t *testing.T, _ Store, dir, file string) {
			require.NoError(t, os.Rename(file, dir+"/"+halfName))
		}, ErrTwice, "there is more than one file"},
		{"a link", func(t *testing.T, _ Store, dir, file string) {
			require.NoError(t, os.Rename(file, dir+"/../../kept"))
			require.NoError(t, os.Symlink("../../kept", file))
		}, unix.ELOOP, ""},
		{"a second name", func(t *testing.T, _ Store, dir, file string) {
			require.NoError(t, os.Link(file, dir+"/../../kept"))
		}, ErrUntrusted, "it has a second name"},
		{"a directory", func(t *testing.T, _ Store, _, file string) {
			require.NoError(t, os.Remove(file))
			require.NoError(t, os.Mkdir(file, 0o400))
		}, unix.EISDIR, ""},
		{"a pipe", func(t *testing.T, _ Store, _, file string) {
			require.NoError(t, os.Remove(file))
			require.NoError(t, unix.Mkfifo(file, 0o440))
		}, ErrUntrusted, "not a regular file"},
		{"a file that its group could write", func(t *testing.T, _ Store, _, file string) { require.NoError(t, os.Chmod(file, 0o460)) }, ErrUntrusted, "its mode is 0460"},
		{"a file that others could read", func(t *testing.T, _ Store, _, file string) { require.NoError(t, os.Chmod(file, 0o444)) }, ErrUntrusted, "its mode is 0444"},
		{"a directory that others could enter", func(t *testing.T, _ Store, dir, _ string) { require.NoError(t, os.Chmod(dir, 0o710)) }, ErrUntrusted, "mode 0710, others can enter"},
		{"a link for a directory", func(t *testing.T, _ Store, dir, _ string) {
			require.NoError(t, os.Rename(dir, dir+"/../../kept"))
			require.NoError(t, os.Symlink("../kept", dir))
		}, ErrNone, "no hand-off for this job"},
		{"a folder that others could write", func(t *testing.T, s Store, dir, _ string) {
			require.NoError(t, os.Chmod(filepath.Dir(dir), 0o733))
		}, ErrUntrusted, "mode 0733, others can write"},
		{"a sticky folder that others could write", func(t *testing.T, s Store, dir, _ string) {
			require.NoError(t, os.Chmod(filepath.Dir(dir), os.ModeSticky|0o733))
		}, ErrUntrusted, "mode 0733, others can write"},
		{"a link on the way", func(t *testing.T, s Store, dir, _ string) {
			require.NoError(t, os.Rename(s.path, s.path+"2"))
			require.NoError(t, os.Symlink(s.path+"2", s.path))
		}, ErrUntrusted, "not a directory"},
		{"no folder", func(t *testing.T, s Store, dir, _ string) {
			require.NoError(t, os.RemoveAll(s.path))
		}, ErrNone, "not there, so there is no hand-off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := store(t)
			require.NoError(t, s.Leave(ours, full, us))
			tt.change(t, s, s.Path(ours), s.Path(ours)+"/"+fileName)
			h, err := s.Take(ours)
			require.ErrorIs(t, err, tt.want)
			require.Zero(t, h)
			var e *Error
			require.ErrorAs(t, err, &e)
			if tt.because != "" {
				require.Equal(t, tt.because, e.Cause)
			}
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// TestOwners: nobody but root, and whom the caller names, may own anything.
func TestOwners(t *testing.T) {
	need.Root(t, "to give files to other users")
	for _, path := range []string{".", "job", "job/" + ours.String() + "/handoff"} {
		s := store(t)
		require.NoError(t, s.Leave(ours, full, us))
		require.NoError(t, os.Chown(filepath.Join(s.path, path), 4711, -1))
		_, err := s.Take(ours)
		require.ErrorIs(t, err, ErrUntrusted, path)
	}
	s := store(t)
	require.NoError(t, s.Leave(ours, full, us))
	require.NoError(t, os.Chown(s.path, 4711, -1))
	s.By = 4711
	_, err := s.Take(ours)
	require.NoError(t, err)
}

// TestPlantedLinks: a link at any path that Leave writes is refused or removed,
// and what it leads to stays as it is.
func TestPlantedLinks(t *testing.T) {
	for _, at := range []string{"", "job", "job/" + ours.String(), "used"} {
		t.Run(at, func(t *testing.T) {
			s := store(t)
			outside := filepath.Join(filepath.Dir(s.path), "outside")
			require.NoError(t, os.Mkdir(outside, 0o700))
			require.NoError(t, os.WriteFile(outside+"/kept", []byte("kept"), 0o600))
			link := filepath.Join(s.path, at)
			require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o711))
			require.NoError(t, os.Symlink(outside, link))

			err := s.Leave(ours, full, us)
			first, firstErr := s.First()
			require.False(t, first && at == "used")
			switch at {
			case "":
				require.ErrorIs(t, err, ErrUntrusted)
				require.ErrorIs(t, firstErr, ErrUntrusted)
			case "job":
				require.ErrorIs(t, err, ErrUntrusted)
			case "used":
				require.NoError(t, err)
			default:
				require.ErrorIs(t, err, ErrTwice)
				require.NoError(t, s.Sweep(), "removes the link alone")
				require.NoError(t, s.Leave(ours, full, us))
			}
			entries, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Len(t, entries, 1)
			text, err := os.ReadFile(outside + "/kept")
			require.NoError(t, err)
			require.Equal(t, "kept", string(text))
		})
	}
}

// TestSweep removes whatever a job put into its directory, and follows nothing.
func TestSweep(t *testing.T) {
	s := store(t)
	require.NoError(t, s.Sweep(), "nothing there yet")
	require.NoError(t, s.Leave(ours, full, us))
	outside := filepath.Join(filepath.Dir(s.path), "outside")
	require.NoError(t, os.Mkdir(outside, 0o700))
	require.NoError(t, os.WriteFile(outside+"/kept", nil, 0o600))
	dir := s.Path(ours)
	require.NoError(t, os.Symlink(outside, dir+"/link"))
	require.NoError(t, os.MkdirAll(dir+"/a/b/c", 0o700))
	require.NoError(t, os.Symlink("../../../../../outside", dir+"/a/b/link"))
	require.NoError(t, unix.Mkfifo(dir+"/a/pipe", 0o600))
	deep := dir
	for range 200 {
		deep += "/d"
		require.NoError(t, os.Mkdir(deep, 0o700))
	}
	require.NoError(t, os.Symlink(outside, filepath.Join(s.path, jobs, "stray")))
	require.NoError(t, os.Chmod(dir, 0))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Lchown(dir, 4711, 4711))
	}
	require.NoError(t, s.Sweep())
	require.Empty(t, s.lies(t))
	require.FileExists(t, outside+"/kept")
}

func TestFirst(t *testing.T) {
	s := store(t)
	first, err := s.First()
	require.NoError(t, err)
	require.True(t, first)
	for range 2 {
		first, err = s.First()
		require.NoError(t, err)
		require.False(t, first)
	}
}

// TestDisk: a hand-off never lies on a disk.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	if isTmpfsPath(dir) {
		need.Skip(t, "needs a folder for temporary files that is no tmpfs")
	}
	s := Store{By: os.Geteuid(), path: filepath.Join(dir, "run")}
	err := s.Leave(ours, full, us)
	require.ErrorIs(t, err, ErrUntrusted)
	require.EqualError(t, err, s.path+"/job: not on tmpfs")
	require.Empty(t, s.lies(t))
}

// TestFull: where it doesn't fit there is no half of one.
func TestFull(t *testing.T) {
	need.Root(t, "to mount")
	dir := t.TempDir()
	if err := unix.Mount("handoff-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		need.Skip(t, "needs to mount: "+err.Error())
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := Store{path: filepath.Join(dir, "run")}
	err := s.Leave(ours, large, us)
	require.ErrorIs(t, err, unix.ENOSPC)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Hint(), "larger")
	require.Empty(t, s.lies(t))
	require.NoError(t, s.Leave(ours, full, us), "a small one fits")
}
