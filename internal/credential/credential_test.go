package credential

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, text string) File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identity")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return File{"identity", path}
}

// requireFault consumes one file and compares the message and the hint.
func requireFault(t *testing.T, path, cause, hint string) {
	t.Helper()
	err := GiveUp([]File{{"identity", path}})
	require.EqualError(t, err, "identity "+path+": not given up: "+cause)
	var e *KeptError
	require.ErrorAs(t, err, &e)
	require.Equal(t, path, e.File.Path)
	require.Equal(t, hint, e.Hint())
}

func TestGiveUp(t *testing.T) {
	a, b := write(t, "a"), write(t, "b")
	require.NoError(t, GiveUp([]File{a, b}))
	require.NoFileExists(t, a.Path)
	require.NoFileExists(t, b.Path)
	require.NoError(t, GiveUp([]File{a, b}), "gone already is given up")
	require.NoError(t, GiveUp(nil))
}

const (
	elsewhere     = "its name is gone, but a hard link or a layer of the image still holds it"
	elsewhereHint = "keep it in a tmpfs directory that is filled at each start, and nowhere else"
)

// TestGiveUpHardLink: the other name still leads to the identity.
func TestGiveUpHardLink(t *testing.T) {
	file := write(t, "a")
	require.NoError(t, os.Link(file.Path, file.Path+"2"))
	requireFault(t, file.Path, elsewhere, elsewhereHint)
	require.NoFileExists(t, file.Path)
}

// TestGiveUpSymbolicLink removes neither the link nor what it leads to.
func TestGiveUpSymbolicLink(t *testing.T) {
	file := write(t, "a")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(file.Path, link))
	requireFault(t, link, "it is a symbolic link", "name the file that it leads to")
	require.FileExists(t, file.Path)

	byDir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Symlink(filepath.Dir(file.Path), byDir))
	require.NoError(t, GiveUp([]File{{"identity", filepath.Join(byDir, "identity")}}), "a link to its directory is no matter")
	require.NoFileExists(t, file.Path)

	require.NoError(t, os.Symlink("nowhere", file.Path))
	requireFault(t, file.Path, "it is a symbolic link", "name the file that it leads to")
}

// TestGiveUpGoesOn gives up what it can, and reports all that it can't.
func TestGiveUpGoesOn(t *testing.T) {
	a, dir, b := write(t, "a"), t.TempDir(), write(t, "b")
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	err = GiveUp([]File{a, {"API token", dir}, {"identity", a.Path + "/x/y"}, {"identity", socket}, b})
	require.EqualError(t, err, "API token "+dir+": not given up: it is not a regular file\n"+
		"identity "+socket+": not given up: it is not a regular file")
	require.NoFileExists(t, a.Path)
	require.NoFileExists(t, b.Path)
	require.DirExists(t, dir)
}

func TestRead(t *testing.T) {
	file := write(t, "abc")
	text, err := file.Read(os.Getuid(), 3)
	require.NoError(t, err)
	require.Equal(t, "abc", string(text))
	_, err = file.Read(os.Getuid(), 2)
	require.ErrorIs(t, err, ErrTooLarge)
	require.EqualError(t, err, "identity "+file.Path+": it is too large: more than 2 bytes")
	require.NoError(t, Check([]File{file}, os.Getuid()))

	require.NoError(t, os.Chmod(file.Path, 0o644))
	const others = ": mode 0644, readable by others"
	_, err = File{"API token", file.Path}.Read(os.Getuid(), 3)
	require.EqualError(t, err, "API token "+file.Path+others)
	require.EqualError(t, Check([]File{file}, os.Getuid()), "identity "+file.Path+others)

	require.NoError(t, os.Remove(file.Path))
	_, err = file.Read(os.Getuid(), 3)
	require.EqualError(t, err, "identity "+file.Path+": no such file or directory")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, Check([]File{file}, os.Getuid()), "in nobody's reach")
}

func TestWord(t *testing.T) {
	for text, want := range map[string]string{"bkua_0": "bkua_0", "bkua_0\n": "bkua_0", "bkua_0\r\n": "bkua_0"} {
		got, err := write(t, text).Word(os.Getuid())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "\n", "token: hunter2", "hunter2\nhunter2\n", "hunter2\x00", "hunter2\u00e9", " hunter2"} {
		file := write(t, text)
		_, err := file.Word(os.Getuid())
		require.EqualError(t, err, "identity "+file.Path+": it does not hold one word on one line")
		require.ErrorIs(t, err, ErrNotALine)
	}
	_, err := write(t, strings.Repeat("x", 5000)).Word(os.Getuid())
	require.ErrorIs(t, err, ErrTooLarge)
}
