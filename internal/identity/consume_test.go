package identity

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// requireFault consumes one file and compares the message and the hint.
func requireFault(t *testing.T, path, cause, hint string) {
	t.Helper()
	err := Consume([]settings.IdentityFile{{Path: path}})
	require.EqualError(t, err, "identity "+path+": not given up: "+cause)
	var e *ConsumeError
	require.ErrorAs(t, err, &e)
	require.Equal(t, path, e.File)
	require.Equal(t, hint, e.Hint())
}

func TestConsume(t *testing.T) {
	a, b := write(t, "a"), write(t, "b")
	require.NoError(t, Consume([]settings.IdentityFile{a, b}))
	require.NoFileExists(t, a.Path)
	require.NoFileExists(t, b.Path)
	require.NoError(t, Consume([]settings.IdentityFile{a, b}), "gone already is given up")
	require.NoError(t, Consume(nil))
}

const (
	elsewhere     = "its name is gone, but a hard link or a layer of the image still holds it"
	elsewhereHint = "keep it in a tmpfs directory that is filled at each start, and nowhere else"
)

// TestConsumeHardLink: the other name still leads to the identity.
func TestConsumeHardLink(t *testing.T) {
	file := write(t, "a")
	require.NoError(t, os.Link(file.Path, file.Path+"2"))
	requireFault(t, file.Path, elsewhere, elsewhereHint)
	require.NoFileExists(t, file.Path)
}

// TestConsumeSymbolicLink removes neither the link nor what it leads to.
func TestConsumeSymbolicLink(t *testing.T) {
	file := write(t, "a")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(file.Path, link))
	requireFault(t, link, "it is a symbolic link", "name the file that it leads to")
	require.FileExists(t, file.Path)

	byDir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Symlink(filepath.Dir(file.Path), byDir))
	require.NoError(t, Consume([]settings.IdentityFile{{Path: filepath.Join(byDir, "identity")}}), "a link to its directory is no matter")
	require.NoFileExists(t, file.Path)

	require.NoError(t, os.Symlink("nowhere", file.Path))
	requireFault(t, file.Path, "it is a symbolic link", "name the file that it leads to")
}

// TestConsumeGoesOn gives up what it can, and reports all that it can't.
func TestConsumeGoesOn(t *testing.T) {
	a, dir, b := write(t, "a"), t.TempDir(), write(t, "b")
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	err = Consume([]settings.IdentityFile{a, {Path: dir}, {Path: a.Path + "/x/y"}, {Path: socket}, b})
	require.EqualError(t, err, "identity "+dir+": not given up: it is not a regular file\n"+
		"identity "+socket+": not given up: it is not a regular file")
	require.NoFileExists(t, a.Path)
	require.NoFileExists(t, b.Path)
	require.DirExists(t, dir)
}
