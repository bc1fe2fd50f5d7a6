package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRemoveAgent: first the unit, then what is in its room, last its folder.
func TestRemoveAgent(t *testing.T) {
	y := newYard(t)
	dir := t.TempDir()
	log, root := filepath.Join(dir, "log"), filepath.Join(dir, "root")
	y.failed, y.removed = filepath.Join(dir, "failures"), filepath.Join(dir, "removed")
	y.systemctl, y.engine = filepath.Join(dir, "systemctl"), filepath.Join(dir, "docker")
	y.now = func() time.Time { return time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC) }
	program := func(path, script string) {
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\necho \"${0##*/} $*\" >>%s\n%s\n", log, script), 0o755))
	}
	program(y.systemctl, "[ $1 != show ] || printf 'LoadState=loaded\\nActiveState=active\\n'")
	program(y.engine, "[ $1 != ps ] || echo 4711")
	remove := func(args ...string) (status int, stdout, stderr string) {
		var out, errs bytes.Buffer
		status = runOn(y.host, append([]string{"agent", "remove", "upload.1"}, args...), nil, bytes.NewReader(nil), &out, &errs)
		return status, out.String(), errs.String()
	}
	asked := func() string {
		text, _ := os.ReadFile(log)
		os.Remove(log)
		return string(text)
	}
	full := func() {
		status, _, errs := y.prepare()
		require.Zero(t, status, errs)
		y.write(filepath.Join(y.failed, "upload.1"), "2\n")
		y.write(filepath.Join(y.failed, "upload.1.drain"), "4711\n")
		asked()
	}
	left := []string{y.rooms + "/upload.1.img", y.rooms + "/upload.1/jobs", y.start("identity"), y.policies + "/upload.1.yml", y.failed + "/upload.1", y.failed + "/upload.1.drain"}
	y.host.root = os.DirFS("/").(fs.ReadLinkFS)
	full()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "run/systemd/system"), 0o755))
	y.host.root = os.DirFS(root).(fs.ReadLinkFS)

	// Nobody can be asked, and a look changes nothing.
	status, _, errs := remove()
	require.Equal(t, 2, status)
	require.Contains(t, errs, "juliagpu: hint: juliagpu agent remove upload.1 --yes\n")
	status, out, _ := remove("--dry-run")
	require.Zero(t, status)
	require.Contains(t, out, "moved to "+y.removed+"/upload.1-2026-11-23\n")
	require.Empty(t, asked())

	// What stops it leaves the folder, so that it can be run again.
	for _, tt := range []struct{ path, script, says string }{
		{y.systemctl, "case $1 in show) echo LoadState=loaded ;; stop) echo Job canceled >&2; exit 1 ;; esac", "systemctl stop: Job canceled\n"},
		{y.engine, "echo no engine >&2; exit 1", "docker ps: no engine"},
	} {
		was, err := os.ReadFile(tt.path)
		require.NoError(t, err)
		program(tt.path, tt.script)
		status, _, errs = remove("--yes")
		require.Equal(t, 75, status)
		require.Contains(t, errs, tt.says)
		require.FileExists(t, y.agents+"/upload.1/.env")
		require.NoError(t, os.WriteFile(tt.path, was, 0o755))
		asked()
	}

	status, out, errs = remove("--yes")
	require.Zero(t, status, errs)
	require.Equal(t, "upload.1: draining: a job that it has ends first; if you stop waiting here, it still drains\n"+
		"upload.1: removed; its folder is now "+y.removed+"/upload.1-2026-11-23\n", out)
	require.Equal(t, "systemctl show --property=LoadState,ActiveState -- buildkite-agent@upload.1.service\n"+
		"systemctl disable buildkite-agent@upload.1.service\nsystemctl stop buildkite-agent@upload.1.service\n"+
		"docker ps --all --quiet --filter=name=^/buildkite-agent-upload\\.1$\ndocker rm 4711\n", asked())
	for _, path := range append(left, y.agents+"/upload.1", y.rooms+"/upload.1") {
		_, err := os.Lstat(path)
		require.ErrorIs(t, err, os.ErrNotExist, path)
	}
	require.FileExists(t, y.removed+"/upload.1-2026-11-23/.env")
	require.FileExists(t, y.credentials+"/identity", "the host's")

	// Again on the same day, of a host without systemd.
	status, _, errs = remove("--yes")
	require.Equal(t, 1, status)
	require.Contains(t, errs, "there is no agent upload.1 in ")
	y.write(y.agents+"/upload.1/.env", "")
	y.host.root = os.DirFS(dir).(fs.ReadLinkFS)
	status, out, errs = remove("--yes")
	require.Zero(t, status, errs)
	require.Contains(t, out, "/upload.1-2026-11-23.2\n")
	require.NotContains(t, asked(), "systemctl")
}

// TestRemoveTakesNoneElse: an agent that was called upload.1.img by hand has the image
// of upload.1 where its room would be.
func TestRemoveTakesNoneElse(t *testing.T) {
	y := newYard(t)
	dir := t.TempDir()
	y.systemctl, y.engine = filepath.Join(dir, "missing"), filepath.Join(dir, "missing")
	y.write(y.rooms+"/upload.1.img", "")
	y.write(y.agents+"/upload.1.img/.env", "")
	y.write(y.rooms+"/other.img/x", "")
	y.write(y.agents+"/other/.env", "")
	for name, says := range map[string]string{"upload.1.img": y.rooms + "/upload.1.img is no folder, and so not the room of upload.1.img", "other": y.rooms + "/other.img is no file, and so not the room of other"} {
		var out, errs bytes.Buffer
		require.Equal(t, 1, runOn(y.host, []string{"agent", "remove", name, "--yes"}, nil, nil, &out, &errs))
		require.Contains(t, errs.String(), says)
		require.FileExists(t, y.rooms+"/upload.1.img")
		require.DirExists(t, y.rooms+"/other.img")
		require.FileExists(t, y.agents+"/"+name+"/.env")
	}
}
