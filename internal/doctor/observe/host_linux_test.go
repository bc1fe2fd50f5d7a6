package observe

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRun runs programs of this machine's: what they print, why they don't, and no
// longer than they may.
func TestRun(t *testing.T) {
	r := runner{time.Minute}
	t.Setenv("DOCKER_HOST", "tcp://elsewhere")
	require.Equal(t, "LANG=C\n", string(r.run("env").Out), "nothing of the caller's")
	a := r.run("sh", "-c", "echo out; echo first >&2; echo second >&2; exit 3")
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
