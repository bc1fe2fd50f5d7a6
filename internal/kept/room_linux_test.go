package kept

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// The users of trusted jobs and of others.
const (
	trusted = 4711
	other   = 4712
)

// Builds of two repositories, and pull requests from forks of one.
var (
	cuda    = facts("JuliaGPU/CUDA.jl", "")
	amdgpu  = facts("JuliaGPU/AMDGPU.jl", "")
	mallory = facts("JuliaGPU/CUDA.jl", "mallory/CUDA.jl")
	eve     = facts("JuliaGPU/CUDA.jl", "eve/CUDA.jl")
)

func facts(repository, head string) job.Facts {
	f := job.Facts{Repo: "https://github.com/" + repository + ".git", PullRequest: "false"}
	if head != "" {
		f.PullRequest, f.PullRequestRepo = "17", "https://github.com/"+head+".git"
	}
	return f
}

// A flat is a room, and what was said of it.
type flat struct {
	Room
	t    *testing.T
	said []string
}

func newFlat(t *testing.T) *flat {
	t.Helper()
	need.Root(t, "to mount")
	dir, err := os.MkdirTemp("", "kept-") // t.TempDir is closed to other users
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &flat{Room: Room{Image: filepath.Join(dir, "a.img"), Dir: filepath.Join(dir, "a"), Size: 64 << 20}, t: t}
	t.Cleanup(func() { unix.Unmount(f.Dir, unix.MNT_DETACH) })
	f.ready()
	return f
}

func (f *flat) ready() {
	f.t.Helper()
	f.said = nil
	require.NoError(f.t, f.Ready(f.t.Context(), func(format string, args ...any) { f.said = append(f.said, fmt.Sprintf(format, args...)) }))
}

// start is what agent-startup and pre-bootstrap do for a job: directories of its
// user's, and its caches.
func (f *flat) start(uid int, of job.Facts) {
	f.t.Helper()
	for _, u := range []int{trusted, other} {
		own := filepath.Join(f.Jobs(), strconv.Itoa(u))
		require.NoError(f.t, os.MkdirAll(own, 0o710))
		require.NoError(f.t, os.Chown(own, 0, u))
		for _, part := range []string{"builds", "plugins", "git-mirrors", "home", "cache", "tmp"} {
			path := filepath.Join(own, part)
			require.NoError(f.t, os.MkdirAll(path, 0o700))
			require.NoError(f.t, os.Chown(path, u, u))
		}
	}
	f.lend(uid, of)
}

func (f *flat) lend(uid int, of job.Facts) {
	f.t.Helper()
	require.NoError(f.t, lend(f.Jobs(), uid, Of(of, uid == trusted).key()))
}

// elsewhere is a process with mounts of its own, to which a directory is where
// containers have the room.
func (f *flat) elsewhere(dir string) {
	f.t.Helper()
	cmd := exec.Command("unshare", "--mount", "--propagation=private", "sh", "-ec",
		"mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/juliagpu-secrets; mount --bind \"$0\" /var/lib/juliagpu-secrets; echo; exec sleep 100", dir)
	out, err := cmd.StdoutPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, cmd.Start())
	f.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	_, err = out.Read(make([]byte, 1))
	require.NoError(f.t, err)
}

// job is a shell's script, run as the user in the user's directory.
func (f *flat) job(uid int, script string) string {
	f.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir = filepath.Join(f.Jobs(), strconv.Itoa(uid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(f.t, err)
	}
	return string(out)
}

// seen is every file of the user's that a job meets.
func (f *flat) seen(uid int, of job.Facts) string {
	f.t.Helper()
	f.start(uid, of)
	return f.job(uid, "find builds plugins git-mirrors home cache tmp ! -type d | sort")
}

func TestKept(t *testing.T) {
	f := newFlat(t)
	f.start(trusted, cuda)
	f.job(trusted, "echo depot >cache/a; echo mirror >git-mirrors/b; echo x >home/.bashrc; echo x >builds/x; echo x >tmp/x; echo x >plugins/x")
	f.ready()
	require.Equal(t, "cache/a\ngit-mirrors/b\n", f.seen(trusted, cuda), "caches, and nothing else")
	f.job(trusted, "echo more >>cache/a")
	f.ready()
	require.Empty(t, f.seen(trusted, amdgpu), "another repository's")
	f.ready()
	require.Empty(t, f.seen(other, cuda), "a fork's")
	f.job(other, "echo trap >cache/a; echo trap >git-mirrors/b")
	f.ready()
	f.start(trusted, cuda)
	require.Equal(t, "depot\nmore\n", f.job(trusted, "cat cache/a"))
	require.Equal(t, "", f.job(trusted, "cat ../kept/* ../4712/cache/* 2>/dev/null"), "closed to jobs")
	f.ready()
	require.Equal(t, "cache/a\ngit-mirrors/b\n", f.seen(other, cuda), "what jobs that are not trusted leave each other")
	f.ready()
	require.Empty(t, f.seen(other, mallory), "and a fork's job no more")
	f.job(other, "echo trap >cache/a")
	f.ready()
	require.Empty(t, f.seen(other, eve), "nor another fork's")
	f.ready()
	require.Equal(t, "cache/a\n", f.seen(other, mallory))
	f.ready()
	require.Empty(t, f.said)
}

// TestOf: whose caches a job has.
func TestOf(t *testing.T) {
	t.Parallel()
	const ofCUDA = "github.com/juliagpu/cuda.jl"
	change := func(f job.Facts, change func(*job.Facts)) job.Facts { change(&f); return f }
	for _, tt := range []struct {
		name    string
		facts   job.Facts
		trusted bool
		want    Owner
	}{
		{"trusted", cuda, true, Owner{Trusted: true, Repository: ofCUDA}},
		{"by another address", job.Facts{Repo: "git@github.com:juliagpu/cuda.jl", PullRequest: "false"}, true, Owner{Trusted: true, Repository: ofCUDA}},
		{"a trusted pull request", facts("juliagpu/cuda.jl", "juliagpu/cuda.jl"), true, Owner{Trusted: true, Repository: ofCUDA}},
		{"not trusted", cuda, false, Owner{Repository: ofCUDA}},
		{"a pull request from a branch", facts("juliagpu/cuda.jl", "juliagpu/cuda.jl"), false, Owner{Repository: ofCUDA}},
		{"a fork", mallory, false, Owner{Repository: ofCUDA, Head: "github.com/mallory/cuda.jl"}},
		{"a fork of nobody", change(mallory, func(f *job.Facts) { f.PullRequestRepo = "" }), false, Owner{}},
		{"whether it is a pull request is not stated", change(cuda, func(f *job.Facts) { f.PullRequest = "" }), false, Owner{}},
		{"a local repository", change(cuda, func(f *job.Facts) { f.Repo = "/srv/cuda" }), true, Owner{}},
		{"in doubt", change(cuda, func(f *job.Facts) { f.Doubt = "x" }), false, Owner{}},
		{"stated twice", change(cuda, func(f *job.Facts) { f.Twice = []string{"X"} }), false, Owner{}},
	} {
		require.Equal(t, tt.want, Of(tt.facts, tt.trusted), tt.name)
	}
	keys := map[string]bool{}
	for _, o := range []Owner{{true, "a/b", ""}, {false, "a/b", ""}, {false, "a/b", "c/d"}, {true, "a/b", "c/d"}, {false, "c/d", "a/b"}, {false, "a/bc/d", ""}} {
		require.True(t, isKey(o.key()))
		keys[o.key()] = true
	}
	require.Len(t, keys, 6)
	require.Empty(t, Owner{}.key())
}

// TestUsersSwap: the operator gives trusted jobs the number that others had.
func TestUsersSwap(t *testing.T) {
	f := newFlat(t)
	f.start(other, cuda)
	f.job(other, "echo trap >cache/a")
	f.ready()
	f.start(trusted, amdgpu)
	f.ready()
	require.NoError(t, lend(f.Jobs(), other, Of(cuda, true).key()))
	require.NoDirExists(t, filepath.Join(f.Jobs(), "4712/cache"))
}

// TestTraps leaves what a job of a fork could leave; the next trusted job meets
// none of it, and the room is as it was.
func TestTraps(t *testing.T) {
	for name, script := range map[string]string{
		"files that shells, Git and Julia run": "mkdir -p home/.julia/config cache/julia/config; for f in home/.bashrc home/.gitconfig home/.julia/config/startup.jl cache/julia/config/startup.jl git-mirrors/config; do echo trap >$f; done",
		"links":                                "ln -s /etc/shadow cache/a; ln -s /etc home/b; ln -s ../../kept cache/c; ln -s . builds/d",
		"a directory replaced":                 "mv cache builds/gone; ln -s /etc cache; rmdir git-mirrors; ln -s /root git-mirrors",
		"programs with a user":                 "cp /bin/sh cache/sh; chmod 6777 cache/sh; cp /bin/sh builds/sh; chmod 6777 builds/sh",
		"pipes":                                "mkfifo cache/pipe builds/pipe",
		"devices and sockets":                  "for d in cache builds; do mknod $d/zero c 1 5; mknod $d/disk b 7 0; mknod $d/whiteout c 0 0; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => shift, Listen => 1)' $d/socket; done",
		"a mirror that runs programs":          "mkdir -p git-mirrors/a/hooks; printf '[core]\\nfsmonitor = /bin/false\\n' >git-mirrors/a/config; cp /bin/sh git-mirrors/a/hooks/post-checkout",
		"hard links":                           "echo x >cache/a; ln cache/a builds/a; ln cache/a git-mirrors/a",
		"directories of nobody":                "mkdir -p cache/a/b builds/a/b; chmod 0 cache/a builds/a cache",
		"odd names":                            "touch \"cache/a\nb\" 'cache/-rf' 'cache/ ' \"$(printf 'builds/\\377\\033[2J')\"",
		"a file with holes":                    "truncate -s 1T cache/huge; truncate -s 1T builds/huge",
		"a full disk":                          "cat /dev/zero >builds/full",
		"a cache that is full":                 "cat /dev/zero >cache/full",
		"thousands of levels":                  "cd builds; perl -e 'for (1..5000) { mkdir \"d\"; chdir \"d\" or die }'",
		"as many in the cache":                 "cd cache; perl -e 'for (1..5000) { mkdir \"d\"; chdir \"d\" or die }'",
		"all inodes":                           "cd cache; perl -e 'for (1..100000) { open my $f, \">\", $_ or last }'",
		"root's own directories":               "rm -rf ../kept; echo 4711 >../kept/lent; mkdir ../4711/cache/x; mv ../4711 ../gone; echo trap >../trap",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlat(t)
			f.start(trusted, cuda)
			f.job(trusted, "echo depot >cache/depot")
			f.ready()
			f.start(other, cuda)
			f.job(other, script)
			f.ready()
			require.Equal(t, "cache/depot\n", f.seen(trusted, cuda))
			f.ready()
			for range 2 { // what a fork's job leaves the next one harms no start, either
				f.seen(other, cuda)
				f.ready()
			}
			entries, err := os.ReadDir(f.Jobs())
			require.NoError(t, err)
			require.Len(t, entries, 1)
			used, err := du(t.Context(), "--block-size=1", f.Jobs())
			require.NoError(t, err)
			require.LessOrEqual(t, used, 2*share*float64(f.Size))
			for _, line := range f.said {
				require.NotContains(t, line, "made anew")
			}
		})
	}
}

// TestSeveral: where a second job came to one container, nobody knows whose caches
// they are.
func TestSeveral(t *testing.T) {
	f := newFlat(t)
	f.start(trusted, cuda)
	f.lend(trusted, cuda) // the same
	f.job(trusted, "echo x >cache/a")
	f.ready()
	require.Equal(t, "cache/a\n", f.seen(trusted, cuda))
	f.lend(trusted, amdgpu)
	f.ready()
	require.Empty(t, f.seen(trusted, cuda))
	f.job(trusted, "echo x >cache/a")
	f.lend(trusted, job.Facts{})
	f.ready()
	require.Empty(t, f.seen(trusted, cuda), "of nobody")
}

// TestLend without a room does nothing.
func TestLend(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, lend(dir, trusted, Of(cuda, true).key()))
	require.NoError(t, lend(dir, trusted, ""))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// TestNote: what is no note of lend's brings nothing back.
func TestNote(t *testing.T) {
	for _, text := range []string{"", "\n", "4711", "4711 ../../../etc\n", "0 " + Of(cuda, true).key() + "\n", "x " + Of(cuda, true).key() + "\n", "4712 " + Of(cuda, true).key() + "\n"} {
		f := newFlat(t)
		f.start(trusted, cuda)
		f.job(trusted, "echo x >cache/a")
		require.NoError(t, os.WriteFile(filepath.Join(f.Jobs(), folder, note), []byte(text), 0o600))
		f.ready()
		require.Empty(t, f.seen(trusted, cuda), text)
	}
}

// TestTrim: the caches that were lent longest ago go first.
func TestTrim(t *testing.T) {
	f := newFlat(t)
	r := func(i int) job.Facts { return facts(fmt.Sprint("a/r", i), "") }
	for i := range 4 {
		f.start(trusted, r(i))
		f.job(trusted, "head -c 7M /dev/urandom >cache/a")
		f.ready()
		path := filepath.Join(f.Jobs(), folder, strconv.Itoa(trusted), Of(r(i), true).key())
		if i == 3 {
			require.NoDirExists(t, filepath.Join(f.Jobs(), folder, strconv.Itoa(trusted), Of(r(0), true).key()))
			require.DirExists(t, path)
			require.Equal(t, []string{f.Jobs() + "/kept/4711: much of the room: removed the caches of 2 of 4 repositories"}, f.said)
			break
		}
		require.Empty(t, f.said)
		then := time.Now().Add(time.Duration(i-10) * time.Hour)
		require.NoError(t, os.Chtimes(path, then, then))
	}
}

// TestTrimLarge: one fork's job takes the room, and loses what it has left; the other
// forks keep theirs, and the host gets the space back.
func TestTrimLarge(t *testing.T) {
	f := newFlat(t)
	f.start(other, mallory)
	f.job(other, "echo x >cache/a")
	f.ready()
	f.start(other, eve)
	f.job(other, "cat /dev/zero >cache/a")
	f.ready()
	require.Equal(t, []string{f.Jobs() + "/kept/4712: much of the room: removed the caches of 1 of 2 repositories"}, f.said)
	require.Equal(t, "cache/a\n", f.seen(other, mallory))
	f.ready()
	require.Empty(t, f.seen(other, eve))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(f.Image, &st))
	require.Less(t, st.Blocks*512, f.Size/2)
}

// TestUnlock: what a killed job's Git has locked, and what only looks so.
func TestUnlock(t *testing.T) {
	f := newFlat(t)
	f.start(trusted, cuda)
	f.job(trusted, "mkdir -p git-mirrors/a/refs cache/a.lock git-mirrors/d.lock; touch git-mirrors/a/packed-refs.lock git-mirrors/a/refs/x.lock git-mirrors/a/HEAD cache/Manifest.lock; ln -s HEAD git-mirrors/a/l.lock")
	f.ready()
	require.Equal(t, "cache/Manifest.lock\ngit-mirrors/a/HEAD\ngit-mirrors/a/l.lock\n", f.seen(trusted, cuda))
}

// TestRoom: what can be wrong with the file and its mount.
func TestRoom(t *testing.T) {
	anew := func(why string) func(*flat) []string {
		return func(f *flat) []string { return []string{f.Image + ": " + why + ": made anew, without caches"} }
	}
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, f *flat)
		says  func(f *flat) []string
		err   string
	}{
		"mounted":     {spoil: func(*testing.T, *flat) {}},
		"not mounted": {spoil: func(t *testing.T, f *flat) { require.NoError(t, unix.Unmount(f.Dir, 0)) }},
		"gone": {spoil: func(t *testing.T, f *flat) {
			require.NoError(t, unix.Unmount(f.Dir, 0))
			require.NoError(t, os.Remove(f.Image))
		}, says: func(f *flat) []string { return []string{f.Image + ": made"} }},
		"removed while it is mounted": {spoil: func(t *testing.T, f *flat) { require.NoError(t, os.Remove(f.Image)) },
			says: func(f *flat) []string { return []string{f.Image + ": made"} }},
		"another in its place": {spoil: func(t *testing.T, f *flat) {
			require.NoError(t, os.Remove(f.Image))
			require.NoError(t, f.make(t.Context()))
		}},
		"another size": {spoil: func(t *testing.T, f *flat) { f.Size = 48 << 20 }, says: anew("it had 67108864 bytes")},
		"overwritten": {spoil: func(t *testing.T, f *flat) {
			require.NoError(t, unix.Unmount(f.Dir, 0))
			require.NoError(t, os.WriteFile(f.Image, make([]byte, f.Size), 0o600))
		}, says: anew("it could not be mended")},
		"for anybody to read": {spoil: func(t *testing.T, f *flat) {
			require.NoError(t, unix.Unmount(f.Dir, 0))
			require.NoError(t, os.Chmod(f.Image, 0o644))
		}, err: "a.img: not a file of root's alone: remove it"},
		"something else": {spoil: func(t *testing.T, f *flat) {
			require.NoError(t, unix.Mount("tmpfs", f.Dir, "tmpfs", 0, ""))
			t.Cleanup(func() { unix.Unmount(f.Dir, 0) })
		}, err: "/a: something else is mounted there"},
		"other options": {spoil: func(t *testing.T, f *flat) {
			require.NoError(t, unix.Mount("", f.Dir, "", unix.MS_REMOUNT|unix.MS_NODEV, ""))
		}},
		"read-only": {spoil: func(t *testing.T, f *flat) {
			require.NoError(t, unix.Mount("", f.Dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, ""))
		}},
		"in use elsewhere": {spoil: func(t *testing.T, f *flat) {
			at := t.TempDir()
			require.NoError(t, unix.Mount(f.Dir, at, "", unix.MS_BIND, ""))
			t.Cleanup(func() { unix.Unmount(at, 0) })
			require.NoError(t, unix.Unmount(f.Dir, 0))
		}, err: "a.img: still in use, by a container or a mount"},
		"in a container":         {spoil: func(t *testing.T, f *flat) { f.elsewhere(f.Jobs()) }, err: "still in use: process "},
		"a directory of a job's": {spoil: func(t *testing.T, f *flat) { require.NoError(t, os.Chown(f.Dir, trusted, trusted)) }, err: "/a: not a directory of root's"},
		"too small":              {spoil: func(t *testing.T, f *flat) { f.Size = 1 << 20 }, err: "too small"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlat(t)
			tt.spoil(t, f)
			if tt.err != "" {
				require.ErrorContains(t, f.Ready(t.Context(), func(string, ...any) {}), tt.err)
				return
			}
			f.ready()
			var want []string
			if tt.says != nil {
				want = tt.says(f)
			}
			require.Equal(t, want, f.said)
			entries, err := os.ReadDir(f.Jobs())
			require.NoError(t, err)
			require.True(t, slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == folder }) && len(entries) == 1)
			text, err := os.ReadFile("/proc/self/mounts")
			require.NoError(t, err)
			i := strings.Index(string(text), " "+f.Dir+" ext4 rw,nosuid,nodev,noatime")
			require.Positive(t, i)
			var mounted unix.Stat_t
			require.NoError(t, unix.Lstat(f.Dir, &mounted))
			require.Equal(t, f.image(), backing(mounted.Dev), "and no file that was removed")
		})
	}
}

// TestDisk: the rooms have a disk of their own, which every process of the host sees
// where containers have the room.
func TestDisk(t *testing.T) {
	f := newFlat(t)
	require.NoError(t, unix.Unmount(f.Dir, 0)) // as after a reboot
	f.elsewhere(filepath.Dir(f.Dir))
	require.NoError(t, f.Unused())
	f.ready()
	require.NoError(t, f.Unused())
	require.NoError(t, f.Remove())
}

// TestLink: the folder above that of the rooms is a link, to another disk as a rule.
func TestLink(t *testing.T) {
	f := newFlat(t)
	require.NoError(t, unix.Unmount(f.Dir, 0))
	link := filepath.Join(t.TempDir(), "link")
	rooms := filepath.Dir(f.Dir)
	require.NoError(t, os.Symlink(filepath.Dir(rooms), link))
	f.Image, f.Dir = filepath.Join(link, filepath.Base(rooms), "a.img"), filepath.Join(link, filepath.Base(rooms), "a")
	f.ready()
	f.ready()
	require.Empty(t, f.said)
	require.NoError(t, f.Remove())
}

// TestEnded: who ends the start, or has no e2fsck, loses no caches by that.
func TestEnded(t *testing.T) {
	f := newFlat(t)
	f.start(trusted, cuda)
	f.job(trusted, "echo depot >cache/a")
	ctx, cancel := context.WithCancel(t.Context())
	_, there := tool(t.Context(), "sh", "-c", "exit 4")
	require.True(t, verdict(ctx, there))
	_, none := tool(t.Context(), "no-such-program")
	require.Error(t, none)
	require.False(t, verdict(ctx, none))
	cancel()
	require.False(t, verdict(ctx, there))

	require.NoError(t, unix.Unmount(f.Dir, 0))
	err := f.Ready(ctx, func(format string, args ...any) { require.Fail(t, fmt.Sprintf(format, args...)) })
	require.ErrorIs(t, err, context.Canceled)
	f.ready()
	require.Equal(t, "cache/a\n", f.seen(trusted, cuda))
}

// TestParts: the names are package home's.
func TestParts(t *testing.T) {
	require.Equal(t, []string{"cache", "git-mirrors"}, parts)
	require.Equal(t, home.Lasting+"/7/cache", home.Of(7).Cache)
}
