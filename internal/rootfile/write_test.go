package rootfile

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// us trusts the tester, and root.
var us = Rule{User: os.Getuid()}

// names are what is in a directory.
func (tr tree) names(name string) []string {
	tr.t.Helper()
	entries, err := os.ReadDir(tr.path(name))
	require.NoError(tr.t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// has checks a file: its text, its mode, and that Open takes it.
func (tr tree) has(name, text string) {
	tr.t.Helper()
	file, _, err := Open(tr.path(name), us)
	require.NoError(tr.t, err)
	defer file.Close()
	info, err := file.Stat()
	require.NoError(tr.t, err)
	require.Equal(tr.t, fs.FileMode(0o644), info.Mode())
	got, err := os.ReadFile(tr.path(name))
	require.NoError(tr.t, err)
	require.Equal(tr.t, text, string(got))
}

func TestWrite(t *testing.T) {
	umask := unix.Umask(0o077) // it counts for nothing but new directories
	defer unix.Umask(umask)
	tr := newTree(t)
	require.NoError(t, Write(tr.path("f"), []byte("one"), us))
	tr.has("f", "one")
	old, err := os.Open(tr.path("f"))
	require.NoError(t, err)
	defer old.Close()
	require.NoError(t, Write(tr.path("f"), []byte("two"), us))
	tr.has("f", "two")
	text := make([]byte, 9)
	n, err := old.Read(text)
	require.NoError(t, err)
	require.Equal(t, "one", string(text[:n]), "who had it open keeps it")
	require.NoError(t, Write(tr.path("a/b/../b/f"), nil, us))
	tr.has("a/b/f", "")
	require.Equal(t, []string{"a", "f"}, tr.names("."))
	require.Equal(t, []string{"f"}, tr.names("a/b"))

	// What a link names stays as it is, and the link goes; a folder's link is followed.
	tr.link("f", "l", os.Getuid())
	require.NoError(t, Write(tr.path("l"), []byte("three"), us))
	tr.has("l", "three")
	tr.has("f", "two")
	tr.link("a/b", "d", os.Getuid())
	require.NoError(t, Write(tr.path("d/f"), []byte("four"), us))
	tr.has("a/b/f", "four")
}

// TestWriteHalf: what somebody has put in the half's place is not written to.
func TestWriteHalf(t *testing.T) {
	tr := newTree(t)
	tr.file("f", os.Getuid(), 0o644)
	tr.link("f", "l", os.Getuid())
	tr.link("nowhere", "dangling", os.Getuid())
	fd, err := unix.Open(tr.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	for _, name := range []string{"f", "l", "dangling"} {
		require.ErrorIs(t, writeHalf(fd, name, tr.path(name), []byte("one")), fs.ErrExist, name)
	}
	require.Equal(t, []string{"dangling", "f", "l"}, tr.names("."))
}

// TestWriteLeft: what killed runs have left goes, and nothing else.
func TestWriteLeft(t *testing.T) {
	tr := newTree(t)
	keep := []string{".f", ".f.", ".f.yml.OFANOTHERFILE1234567890ABCD", ".f.short", "f.ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
	for _, name := range append(keep, halfName("f"), halfName("f")) {
		tr.file(name, os.Getuid(), 0o600)
	}
	require.NoError(t, Write(tr.path("f"), []byte("one"), us))
	require.ElementsMatch(t, append(keep, "f"), tr.names("."))
}

func TestWriteFails(t *testing.T) {
	tr := newTree(t)
	tr.file("f", os.Getuid(), 0o644)
	tr.folder("d", os.Getuid(), 0o755)
	tr.folder("open", os.Getuid(), 0o777)
	tr.link("nowhere", "dangling", os.Getuid())
	for name, want := range map[string]error{
		"d":                      unix.EISDIR,
		"f/g":                    unix.ENOTDIR,
		"f/g/h":                  unix.ENOTDIR,
		"open/f":                 ErrUntrusted,
		"open/new/f":             ErrUntrusted,
		"../f/../open/f/":        ErrUntrusted,
		strings.Repeat("n", 256): unix.ENAMETOOLONG,
	} {
		if strings.HasPrefix(name, "../") {
			name = "../" + filepath.Base(tr.dir) + "/open/f/"
		}
		err := Write(tr.path(name), []byte("one"), us)
		if want == unix.EISDIR { // Linux; others say that it exists
			require.Error(t, err, name)
		} else {
			require.ErrorIs(t, err, want, name)
		}
	}
	require.Equal(t, []string{"d", "dangling", "f", "open"}, tr.names("."), "and nothing else is left")
	require.Empty(t, tr.names("open"))
	require.Empty(t, tr.names("d"))
	require.ErrorContains(t, Write("f", nil, us), "not an absolute path")
	require.NoError(t, Write(tr.path("dangling/f"), nil, us), "the folder that it names is made")
	tr.has("nowhere/f", "")
}

// TestWriteOwners: who else could put another file in its place.
func TestWriteOwners(t *testing.T) {
	need.Root(t, "to give files to other users")
	tr := newTree(t)
	tr.folder("d", mallory, 0o755)
	tr.folder("sticky", 0, 0o777|fs.ModeSticky)
	tr.file("sticky/f", mallory, 0o666)
	tr.link("d", "l", 0)
	for _, name := range []string{"d/f", "l/f", "d/e/f"} {
		require.ErrorIs(t, Write(tr.path(name), nil, Rule{}), ErrUntrusted, name)
	}
	require.Empty(t, tr.names("d"))
	require.NoError(t, Write(tr.path("sticky/f"), []byte("root's"), Rule{}))
	tr.has("sticky/f", "root's")
	_, err := Check(tr.path("sticky/f"), Rule{})
	require.NoError(t, err)
}

// TestWriteKilled kills a process that has written, and not yet renamed.
func TestWriteKilled(t *testing.T) {
	const child = "TEST_WRITE_KILLED"
	if dir := os.Getenv(child); dir != "" {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		half := halfName("f")
		require.NoError(t, writeHalf(fd, half, filepath.Join(dir, half), []byte("half of it")))
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	tr := newTree(t)
	require.NoError(t, Write(tr.path("f"), []byte("whole"), us))
	cmd := exec.Command(os.Args[0], "-test.run=^TestWriteKilled$")
	cmd.Env = append(os.Environ(), child+"="+tr.dir)
	out, err := cmd.CombinedOutput()
	require.EqualError(t, err, "signal: killed", "%s", out)
	require.Len(t, tr.names("."), 2, "it was killed in between")
	tr.has("f", "whole")
	require.NoError(t, Write(tr.path("f"), []byte("again"), us))
	require.Equal(t, []string{"f"}, tr.names("."))
	tr.has("f", "again")
}
