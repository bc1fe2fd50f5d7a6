package rootfile

import (
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// Users of the tests; none needs to exist.
const (
	ada     = 4711 // trusted where a row says so
	mallory = 4712
)

// A tree is a directory of the tester's, 0755, in which a row builds its world.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree") // TempDir itself is made with the umask
	tr := tree{t, dir}
	tr.folder("", os.Getuid(), 0o755)
	return tr
}

func (tr tree) path(name string) string { return filepath.Join(tr.dir, name) }

func (tr tree) folder(name string, uid int, mode fs.FileMode) {
	tr.t.Helper()
	require.NoError(tr.t, os.Mkdir(tr.path(name), 0o700))
	tr.set(name, uid, mode)
}

func (tr tree) file(name string, uid int, mode fs.FileMode) {
	tr.t.Helper()
	require.NoError(tr.t, os.WriteFile(tr.path(name), []byte("text"), 0o600))
	tr.set(name, uid, mode)
}

func (tr tree) set(name string, uid int, mode fs.FileMode) {
	tr.t.Helper()
	require.NoError(tr.t, os.Lchown(tr.path(name), uid, -1))
	require.NoError(tr.t, os.Chmod(tr.path(name), mode))
}

func (tr tree) link(target, name string, uid int) {
	tr.t.Helper()
	require.NoError(tr.t, os.Symlink(target, tr.path(name)))
	require.NoError(tr.t, os.Lchown(tr.path(name), uid, -1))
}

// TestOpen gives each row a tree that holds root's file "f", 0644, and lets the
// row change the world before it opens a path. fault is what stands after the
// path in the message; "" means that the file opens.
func TestOpen(t *testing.T) {
	need.Root(t, "to give files to other users")
	const sticky = 0o777 | fs.ModeSticky
	for _, tt := range []struct {
		name  string
		build func(tree)
		open  string // default f
		rule  Rule
		want  Owner
		fault string // %: the tree's folder
	}{
		{name: "root's own"},
		{name: "root's own, private", build: func(tr tree) { tr.set("f", 0, 0o600) }, rule: Rule{Private: true}},
		{name: "in a folder that only root enters", build: func(tr tree) { tr.folder("d", 0, 0o700); tr.file("d/f", 0, 0o600) }, open: "d/f"},
		{name: "a path with dots", build: func(tr tree) { tr.folder("d", 0, 0o755) }, open: "d/../f"},

		// The file itself.
		{name: "another's", build: func(tr tree) { tr.set("f", mallory, 0o644) },
			fault: ": owned by uid 4712, not by root"},
		{name: "another's while ada is trusted", build: func(tr tree) { tr.set("f", mallory, 0o644) }, rule: Rule{User: ada},
			fault: ": owned by uid 4712, neither root nor uid 4711"},
		{name: "ada's", build: func(tr tree) { tr.set("f", ada, 0o644) }, rule: Rule{User: ada}, want: Owner{UID: ada, Changeable: true}},
		{name: "ada's, private", build: func(tr tree) { tr.set("f", ada, 0o600) }, rule: Rule{User: ada, Private: true}, want: Owner{UID: ada, Changeable: true}},
		{name: "root's while ada is trusted", rule: Rule{User: ada}},
		{name: "writable by its group", build: func(tr tree) { tr.set("f", 0, 0o664) },
			fault: ": mode 0664, writable by its group"},
		{name: "writable by others", build: func(tr tree) { tr.set("f", 0, 0o646) },
			fault: ": mode 0646, writable by others"},
		{name: "private, but readable by its group", build: func(tr tree) { tr.set("f", 0, 0o640) }, rule: Rule{Private: true},
			fault: ": mode 0640, readable by its group"},
		{name: "private, but readable by others", rule: Rule{Private: true},
			fault: ": mode 0644, readable by others"},
		{name: "a directory", build: func(tr tree) { tr.folder("d", 0, 0o755) }, open: "d",
			fault: ": a directory, not a file"},
		{name: "a FIFO", build: func(tr tree) { require.NoError(tr.t, unix.Mkfifo(tr.path("p"), 0o600)) }, open: "p",
			fault: ": not a regular file"},
		{name: "a device", build: func(tr tree) {
			if err := unix.Mknod(tr.path("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
				need.Skip(tr.t, "needs a machine that may make device nodes")
			}
		}, open: "null", fault: ": not a regular file"},
		{name: "a socket", build: func(tr tree) {
			l, err := net.Listen("unix", tr.path("s"))
			require.NoError(tr.t, err)
			tr.t.Cleanup(func() { l.Close() })
			tr.set("s", 0, 0o600)
		}, open: "s", fault: ": not a regular file"},

		// Its folders.
		{name: "folder of another", build: func(tr tree) { tr.folder("d", mallory, 0o755); tr.file("d/f", 0, 0o644) }, open: "d/f",
			fault: ": by way of %/d: owned by uid 4712, not by root"},
		{name: "folder of ada", build: func(tr tree) { tr.folder("d", ada, 0o755); tr.file("d/f", 0, 0o644) }, open: "d/f", rule: Rule{User: ada},
			want: Owner{UID: 0, Changeable: true}},
		{name: "folder writable by others", build: func(tr tree) { tr.folder("d", 0, 0o757); tr.file("d/f", 0, 0o644) }, open: "d/f",
			fault: ": by way of %/d: mode 0757, writable by others"},
		{name: "folder writable by its group", build: func(tr tree) { tr.folder("d", 0, 0o775); tr.file("d/f", 0, 0o644) }, open: "d/f",
			fault: ": by way of %/d: mode 0775, writable by its group"},
		{name: "a folder further up", build: func(tr tree) { tr.folder("d", 0, 0o777); tr.folder("d/e", 0, 0o755); tr.file("d/e/f", 0, 0o644) }, open: "d/e/f",
			fault: ": by way of %/d: mode 0777, writable by others"},
		{name: "no file in such a folder", build: func(tr tree) { tr.folder("d", 0, 0o777) }, open: "d/f",
			fault: ": by way of %/d: mode 0777, writable by others"},

		// Sticky folders: an entry's owner decides.
		{name: "root's file in a sticky folder", build: func(tr tree) { tr.folder("d", 0, sticky); tr.file("d/f", 0, 0o644) }, open: "d/f"},
		{name: "another's file in a sticky folder", build: func(tr tree) { tr.folder("d", 0, sticky); tr.file("d/f", mallory, 0o644) }, open: "d/f",
			fault: ": owned by uid 4712, not by root"},
		{name: "sticky folder of another", build: func(tr tree) { tr.folder("d", mallory, sticky); tr.file("d/f", 0, 0o644) }, open: "d/f",
			fault: ": by way of %/d: owned by uid 4712, not by root"},
		{name: "another's folder in a sticky folder", build: func(tr tree) {
			tr.folder("d", 0, sticky)
			tr.folder("d/e", mallory, 0o755)
			tr.file("d/e/f", 0, 0o644)
		}, open: "d/e/f", fault: ": by way of %/d/e: owned by uid 4712, not by root"},
		{name: "a hard link to root's file in a sticky folder", build: func(tr tree) {
			tr.folder("d", 0, sticky)
			require.NoError(tr.t, os.Link(tr.path("f"), tr.path("d/f")))
		}, open: "d/f"}, // its text is still root's
		{name: "a hard link to another's file in a sticky folder", build: func(tr tree) {
			tr.folder("d", 0, sticky)
			tr.file("m", mallory, 0o644)
			require.NoError(tr.t, os.Link(tr.path("m"), tr.path("d/f")))
		}, open: "d/f", fault: ": owned by uid 4712, not by root"},

		// Symbolic links.
		{name: "a link", build: func(tr tree) { tr.link("f", "l", 0) }, open: "l"},
		{name: "an absolute link", build: func(tr tree) { tr.link(tr.path("f"), "l", 0) }, open: "l"},
		{name: "a link to a folder", build: func(tr tree) { tr.folder("d", 0, 0o755); tr.link("../", "d/l", 0) }, open: "d/l/f"},
		{name: "a link above the root", build: func(tr tree) { tr.link("../../../../../../../../../.."+tr.path("f"), "l", 0) }, open: "l"},
		{name: "a link of another", build: func(tr tree) { tr.link("f", "l", mallory) }, open: "l",
			fault: ": owned by uid 4712, not by root"},
		{name: "a link of ada's", build: func(tr tree) { tr.link("f", "l", ada) }, open: "l", rule: Rule{User: ada}, want: Owner{Changeable: true}},
		{name: "a link to a good file from a bad folder", build: func(tr tree) { tr.folder("d", 0, 0o777); tr.link("../f", "d/l", 0) }, open: "d/l",
			fault: ": by way of %/d: mode 0777, writable by others"},
		{name: "a link in a sticky folder by another", build: func(tr tree) { tr.folder("d", 0, sticky); tr.link("../f", "d/l", mallory) }, open: "d/l",
			fault: ": owned by uid 4712, not by root"},
		{name: "a good link to a bad folder", build: func(tr tree) { tr.folder("d", 0, 0o777); tr.file("d/f", 0, 0o644); tr.link("d", "l", 0) }, open: "l/f",
			fault: ": by way of %/d: mode 0777, writable by others"},
		{name: "a good link through a bad folder and back", build: func(tr tree) { tr.folder("d", 0, 0o777); tr.link("d/../f", "l", 0) }, open: "l",
			fault: ": by way of %/d: mode 0777, writable by others"},
		{name: "a good link to another's file", build: func(tr tree) { tr.file("m", mallory, 0o644); tr.link("m", "l", 0) }, open: "l",
			fault: ": by way of %/m: owned by uid 4712, not by root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTree(t)
			tr.file("f", 0, 0o644)
			if tt.build != nil {
				tt.build(tr)
			}
			path := tr.path("f")
			if tt.open != "" {
				path = tr.dir + "/" + tt.open
			}
			file, owner, err := Open(path, tt.rule)
			checked, checkErr := Check(path, tt.rule)
			assert.Equal(t, owner, checked, "Check says the same")
			if tt.fault == "" {
				require.NoError(t, err)
				require.NoError(t, checkErr)
				defer file.Close()
				text, err := io.ReadAll(file)
				require.NoError(t, err)
				assert.Equal(t, "text", string(text))
				assert.Equal(t, tt.want, owner)
				return
			}
			fault := filepath.Clean(path) + strings.ReplaceAll(tt.fault, "%", tr.dir)
			require.ErrorIs(t, err, ErrUntrusted)
			require.EqualError(t, err, fault)
			require.EqualError(t, checkErr, fault)
		})
	}
}

// TestHint shows what an operator is told to do.
func TestHint(t *testing.T) {
	tr := newTree(t)
	tr.file("f", os.Getuid(), 0o666)
	tr.file("p", os.Getuid(), 0o644)
	hint := func(name string) string {
		t.Helper()
		_, err := Check(tr.path(name), Rule{User: os.Getuid(), Private: true})
		var e *Error
		require.ErrorAs(t, err, &e)
		return e.Hint()
	}
	require.Equal(t, "chmod go-w "+tr.path("f"), hint("f"))
	require.Equal(t, "chmod 600 "+tr.path("p"), hint("p"))
}

// TestUnreachable shows that what the kernel says stays what the kernel says.
func TestUnreachable(t *testing.T) {
	tr := newTree(t)
	rule := Rule{User: os.Getuid()}
	tr.file("f", os.Getuid(), 0o644)
	tr.link("nowhere", "dangling", os.Getuid())
	tr.link("loop", "loop", os.Getuid())
	for name, want := range map[string]error{
		"missing":   fs.ErrNotExist,
		"missing/f": fs.ErrNotExist,
		"dangling":  fs.ErrNotExist,
		"loop":      unix.ELOOP,
		"f/f":       unix.ENOTDIR,
	} {
		_, _, err := Open(tr.path(name), rule)
		require.ErrorIs(t, err, want, name)
		require.NotErrorIs(t, err, ErrUntrusted, name)
		_, err = Check(tr.path(name), rule)
		require.ErrorIs(t, err, want, name)
	}
	_, _, err := Open("rootfile.go", rule)
	require.EqualError(t, err, "rootfile.go: not an absolute path")
}

// TestMaxLinks follows as many links as Linux does and no more.
func TestMaxLinks(t *testing.T) {
	tr := newTree(t)
	tr.file("0", os.Getuid(), 0o644)
	for i := range maxLinks + 1 {
		tr.link(strconv.Itoa(i), strconv.Itoa(i+1), os.Getuid())
	}
	rule := Rule{User: os.Getuid()}
	_, err := Check(tr.path(strconv.Itoa(maxLinks)), rule)
	require.NoError(t, err)
	_, err = Check(tr.path(strconv.Itoa(maxLinks+1)), rule)
	require.ErrorIs(t, err, unix.ELOOP)
}

// TestCheckUnreadable judges a program that its user may only run.
func TestCheckUnreadable(t *testing.T) {
	tr := newTree(t)
	tr.file("program", os.Getuid(), 0o111)
	_, err := Check(tr.path("program"), Rule{User: os.Getuid()})
	require.NoError(t, err)
}

// TestOpenLeaksNothing counts descriptors: each walk closes its own.
func TestOpenLeaksNothing(t *testing.T) {
	tr := newTree(t)
	tr.file("f", os.Getuid(), 0o644)
	tr.link(tr.path("f"), "l", os.Getuid())
	next := func() int { // the lowest free descriptor
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		return fd
	}
	before := next()
	for _, name := range []string{"l", "missing", ".", "f/f"} {
		file, _, err := Open(tr.path(name), Rule{User: os.Getuid()})
		if err == nil {
			file.Close()
		}
		require.Equal(t, before, next(), "after Open of %s", name)
	}
}
