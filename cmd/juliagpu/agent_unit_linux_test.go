package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asUnit runs a command as the agent's unit does.
func (y yard) asUnit(command string, env ...string) (status int, stdout, stderr string) {
	y.t.Helper()
	var out, errs bytes.Buffer
	status = runOn(y.host, []string{"agent", command, "upload.1"}, env, nil, &out, &errs)
	return status, out.String(), errs.String()
}

// TestUnitWaits: the more failures in a row, the longer, and one success ends that.
func TestUnitWaits(t *testing.T) {
	y := newYard(t)
	y.failed = t.TempDir()
	var waits []time.Duration
	y.after = func(d time.Duration) <-chan time.Time {
		waits = append(waits, d)
		now := make(chan time.Time, 1)
		now <- time.Time{}
		return now
	}
	for range 9 {
		status, out, errs := y.asUnit("wait")
		require.Zero(t, status, errs)
		require.Equal(t, len(waits) > 0, strings.Contains(out, "upload.1: failures in a row: "), out)
		status, _, errs = y.asUnit("ended", "SERVICE_RESULT=exit-code")
		require.Zero(t, status, errs)
	}
	const s = time.Second
	require.Equal(t, []time.Duration{5 * s, 10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 300 * s, 300 * s}, waits)
	_, out, _ := y.asUnit("wait")
	require.Equal(t, "upload.1: failures in a row: 9; starts in 5m0s; systemctl restart buildkite-agent@upload.1 does it now\n", out)

	waits = nil
	for range 2 { // there is nothing to forget the second time
		status, _, errs := y.asUnit("ended", "SERVICE_RESULT=success")
		require.Zero(t, status, errs)
		status, out, _ := y.asUnit("wait")
		require.Zero(t, status)
		require.Empty(t, out)
	}
	for _, text := range []string{"", "-3\n", "many", strings.Repeat("9", 40)} {
		y.write(filepath.Join(y.failed, "upload.1"), text)
		status, _, _ := y.asUnit("wait")
		require.Zero(t, status)
	}
	require.Empty(t, waits, "what can't be read delays no start")

	status, _, errs := y.asUnit("ended")
	require.Equal(t, 2, status)
	require.Contains(t, errs, "SERVICE_RESULT is missing")
	y.failed = filepath.Join(y.failed, "missing")
	status, _, errs = y.asUnit("ended", "SERVICE_RESULT=signal")
	require.Equal(t, 75, status)
	require.Contains(t, errs, "missing")
}

// TestUnitStopsWaiting: a stop ends the wait, and is no failure.
func TestUnitStopsWaiting(t *testing.T) {
	y := newYard(t)
	y.failed = t.TempDir()
	y.write(filepath.Join(y.failed, "upload.1"), "7\n")
	y.after = func(time.Duration) <-chan time.Time {
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM))
		return nil
	}
	status, _, errs := y.asUnit("wait")
	require.Zero(t, status, errs)
}

// TestUnitForgets: what no job has consumed is not left in memory.
func TestUnitForgets(t *testing.T) {
	y := newYard(t)
	y.failed = t.TempDir()
	status, _, errs := y.asUnit("ended", "SERVICE_RESULT=success")
	require.Zero(t, status, errs)
	status, _, errs = y.prepare()
	require.Zero(t, status, errs)
	require.NotEmpty(t, y.names())
	status, _, errs = y.asUnit("ended", "SERVICE_RESULT=success")
	require.Zero(t, status, errs)
	require.Empty(t, y.names())
}

// TestUnitDrainsWhatIsMade waits while docker compose lives, for its container and for
// its own end, and not for ever.
func TestUnitDrainsWhatIsMade(t *testing.T) {
	y := newYard(t)
	dir := t.TempDir()
	y.failed = dir
	y.engine = filepath.Join(dir, "docker")
	for _, tt := range []struct {
		name, script, says string
		late, killed       bool
	}{
		{"it comes", `case $1 in ps) [ ! -e "$0.ps" ] || echo 4711; : >"$0.ps" ;; wait) kill $MAINPID ;; esac`, "upload.1: draining: a job has 1s to end\n", false, false},
		{"it ends by itself", `case $1 in ps) [ -e "$0.asked" ] || echo 4714 ;; *) : >"$0.asked"; (sleep 1; kill $MAINPID) >/dev/null 2>&1 & exit 1 ;; esac`, "upload.1: draining: a job has 1s to end\n", false, false},
		{"none comes, and docker compose ends", `kill $MAINPID || :`, "", false, false},
		{"none comes", `:`, "", true, true},
		{"docker compose does not end", `[ $1 != ps ] || echo 4712`, "upload.1: draining: a job has 1s to end\n", true, true},
	} {
		compose := exec.CommandContext(t.Context(), "sleep", "60")
		require.NoError(t, compose.Start())
		ended := make(chan error, 1)
		go func() { ended <- compose.Wait() }()
		y.after = func(d time.Duration) <-chan time.Time {
			require.Equal(t, time.Minute, d)
			late := make(chan time.Time, 1)
			if tt.late {
				late <- time.Time{}
			}
			return late
		}
		pid := fmt.Sprint(compose.Process.Pid)
		require.NoError(t, os.WriteFile(y.engine, fmt.Appendf(nil, "#!/bin/sh\nMAINPID=%s\n%s\n", pid, tt.script), 0o755))
		status, out, errs := y.asUnit("drain", "DRAIN_SECONDS=1", "MAINPID="+pid)
		require.Zero(t, status, tt.name+errs)
		require.Equal(t, tt.says, out, tt.name)
		want := map[bool]string{true: "signal: killed", false: "signal: terminated"}[tt.killed]
		select {
		case err := <-ended:
			require.EqualError(t, err, want, tt.name)
		case <-time.After(500 * time.Millisecond):
			require.Fail(t, "docker compose outlives the drain", tt.name)
		}
	}
}

// TestUnitDrains asks the agent's container, and no other, and once: asked twice, an
// agent cancels its job.
func TestUnitDrains(t *testing.T) {
	y := newYard(t)
	dir := t.TempDir()
	y.failed, y.after = filepath.Join(dir, "failures"), time.After
	require.NoError(t, os.Mkdir(y.failed, 0o755))
	y.engine = filepath.Join(dir, "docker")
	log := filepath.Join(dir, "log")
	const ps, says = "ps --quiet --no-trunc --filter=name=^/buildkite-agent-upload\\.1$\n", "upload.1: draining: a job has 1s to end\n"
	const again, killed = "upload.1: draining, which it was asked for before: a job has 1s to end\n", "upload.1: killed with its job, which did not end within 1s\n"
	for _, tt := range []struct {
		name, script, says, asked string
		status                    int
		noted                     string // the ID that is noted then
	}{
		{"nothing runs", "", "", ps, 0, ""},
		{"no engine", "echo 'no engine' >&2; exit 75", "", ps, 75, ""},
		{"the engine goes before it is asked", "case $1 in ps) echo 4711 ;; *) echo no engine >&2; exit 1 ;; esac", says, ps + "kill --signal=TERM 4711\n" + ps, 75, ""},
		{"the engine goes while it waits", "case $1 in ps) echo 4711 ;; wait) echo no engine >&2; exit 1 ;; esac", says, ps + "kill --signal=TERM 4711\nwait 4711\n" + ps, 75, "4711\n"},
		{"asked before", "[ $1 != ps ] || echo 4711", again, ps + "wait 4711\n", 0, "4711\n"},
		{"for too long", "case $1 in ps) echo 4711 ;; wait) exec sleep 60 ;; esac", again + killed, ps + "wait 4711\nkill 4711\n", 0, "4711\n"},
		{"another one", "[ $1 != ps ] || echo 4712", says, ps + "kill --signal=TERM 4712\nwait 4712\n", 0, "4712\n"},
		{"it ends by itself", "case $1 in ps) [ -e \"$0.ps\" ] || echo 4713; : >\"$0.ps\" ;; *) echo not running >&2; exit 1 ;; esac", says, ps + "kill --signal=TERM 4713\n" + ps, 0, "4712\n"},
	} {
		require.NoError(t, os.RemoveAll(log))
		require.NoError(t, os.WriteFile(y.engine, fmt.Appendf(nil, "#!/bin/sh\necho \"$@\" >>%s\n%s\n", log, tt.script), 0o755))
		status, out, errs := y.asUnit("drain", "DRAIN_SECONDS=1")
		require.Equal(t, tt.status, status, tt.name+errs)
		require.Equal(t, tt.says, out, tt.name)
		if tt.status != 0 {
			require.Regexp(t, "^juliagpu: error: docker [a-z]+: no engine\njuliagpu: hint: systemctl status docker\n$", errs)
		}
		asked, err := os.ReadFile(log)
		require.NoError(t, err)
		require.Equal(t, tt.asked, string(asked), tt.name)
		noted, _ := os.ReadFile(filepath.Join(y.failed, "upload.1.drain"))
		require.Equal(t, tt.noted, string(noted), tt.name)
	}
	info, err := os.Stat(filepath.Join(y.failed, "upload.1.drain"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	for _, limit := range []string{"", "soon", "-1"} {
		status, _, errs := y.asUnit("drain", "DRAIN_SECONDS="+limit)
		require.Equal(t, 2, status)
		require.Contains(t, errs, "DRAIN_SECONDS")
	}
	y.engine = filepath.Join(dir, "missing")
	status, _, errs := y.asUnit("drain", "DRAIN_SECONDS=1")
	require.Equal(t, 75, status, errs)
}
