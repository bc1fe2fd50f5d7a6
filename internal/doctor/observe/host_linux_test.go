package observe

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// TestRun runs programs of this machine's: what they print, why they don't, and no
// longer than they may.
func TestRun(t *testing.T) {
	r := runner{time.Minute}
	t.Setenv("DOCKER_HOST", "tcp://elsewhere")
	require.Equal(t, "LANG=C\nHOME=/nonexistent\nDOCKER_CONFIG=/nonexistent\nDOCKER_HOST=unix:///var/run/docker.sock\n", string(r.run("env").Out), "nothing of the caller's")
	a := r.run("sh", "-c", "echo out; echo 'WARNING: of a file' >&2; echo 'time=now level=warning msg=x' >&2; echo first >&2; echo second >&2; exit 3")
	require.Equal(t, Answer{Status: 3, Out: []byte("out\n"), Said: "first"}, a)
	require.Equal(t, "first", a.why())

	// No PATH is asked, and no folder of the caller's.
	dir := t.TempDir()
	t.Chdir(dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "of-ours"), []byte("#!/bin/sh\n"), 0o755))
	t.Setenv("PATH", dir)
	require.True(t, r.run("of-ours").Missing)

	require.True(t, runner{50 * time.Millisecond}.run("sleep", "60").Hangs)
	// A child that keeps the pipe is waited for no longer.
	require.True(t, runner{50 * time.Millisecond}.run("sh", "-c", "sleep 60 & wait").Hangs)
	require.Equal(t, mostSaid, len(r.run("head", "-c", "9000000", "/dev/zero").Out), "of a flood")
}

// TestBuild: a program tells what it was built from.
func TestBuild(t *testing.T) {
	own, err := os.Executable()
	require.NoError(t, err)
	b, err := build(own)
	require.NoError(t, err)
	require.Contains(t, b, ", go1.")
	_, err = build("/etc/passwd")
	require.Error(t, err)
}

// TestUnkillable: a program that not even a kill ends, as one that waits for a disk, is
// left behind. A tracer that does not look makes one.
func TestUnkillable(t *testing.T) {
	need.Root(t, "to trace a process that is no child")
	own, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	said := filepath.Join(dir, "traced")
	text := "exec 2>/dev/null; TRACED=$$ TRACED_SAYS=" + said + " " + own + " -test.run '^TestTracer$' >/dev/null & while ! [ -e " + said + " ]; do :; done; exec sleep 60"
	started := time.Now()
	a, ok := within(20*time.Second, func() Answer { return runner{2 * time.Second}.run("sh", "-c", text) })
	require.True(t, ok, "it waits for what can't be killed")
	require.True(t, a.Hangs, a)
	if _, err := os.Stat(said); err != nil {
		need.Skip(t, "needs to trace processes")
	}
	require.Less(t, time.Since(started), 15*time.Second)
}

// TestTracer is no test: TestUnkillable runs it beside a process.
func TestTracer(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv("TRACED"))
	if err != nil {
		return
	}
	runtime.LockOSThread()
	unix.Setsid() // not to be killed with it
	if unix.PtraceSeize(pid) == nil {
		os.WriteFile(os.Getenv("TRACED_SAYS"), nil, 0o600)
		time.Sleep(30 * time.Second)
	}
}
