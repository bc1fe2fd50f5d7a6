package settings

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// smallest is a file with nothing that could be left out on Linux, and host
// isolation so that it loads elsewhere too.
const smallest = `mode: direct
reason: only maintainers build here
isolation: {expect: host, reason: a machine of its own}
identities: [{file: /run/juliagpu-secrets/identity}]
`

// write makes an operator's file of the tester's.
func write(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, fileName)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	require.NoError(t, os.Chmod(path, 0o644))
	return path
}

func TestLoad(t *testing.T) {
	path := write(t, t.TempDir(), smallest)
	s, err := Load(path, os.Getuid())
	require.NoError(t, err)
	require.Equal(t, path, s.Path)
	require.Equal(t, os.Getuid() != 0, s.Changeable, "root's own file is root's")
	require.Equal(t, "only maintainers build here", s.Reason)

	require.NoError(t, os.Chmod(path, 0o666))
	_, err = Load(path, os.Getuid())
	require.ErrorIs(t, err, rootfile.ErrUntrusted)

	_, err = Load(path+"2", os.Getuid())
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestLoadChangeable: the file of the user whom Load is given.
func TestLoadChangeable(t *testing.T) {
	need.Root(t, "to give files to other users")
	path := write(t, t.TempDir(), smallest)
	require.NoError(t, os.Chown(path, 4711, -1))
	s, err := Load(path, 4711)
	require.NoError(t, err)
	require.True(t, s.Changeable)
	_, err = Load(path, 0)
	require.EqualError(t, err, path+": owned by uid 4711, not by root")
}

// TestLoadErrors: the file's path stands before the place in it.
func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "mode: dierct\n")
	_, err := Load(path, os.Getuid())
	require.EqualError(t, err, path+":1:7: mode: neither direct nor split")

	write(t, dir, smallest+strings.Repeat("#", strict.MaxFile-len(smallest)))
	_, err = Load(path, os.Getuid())
	require.NoError(t, err)
	write(t, dir, smallest+strings.Repeat("#", strict.MaxFile-len(smallest)+1))
	_, err = Load(path, os.Getuid())
	require.EqualError(t, err, path+": larger than 64 KiB")

	write(t, dir, strings.ReplaceAll(smallest, "isolation:", "#"))
	_, err = Load(path, os.Getuid())
	if runtime.GOOS == "linux" {
		require.NoError(t, err)
	} else {
		require.EqualError(t, err, path+": isolation: a container's walls can't be checked on "+runtime.GOOS)
	}
}

// TestCheck: off Linux the operator has to say that there is no container.
func TestCheck(t *testing.T) {
	container, host := Settings{Isolation: Isolation{Expect: Container}}, Settings{Isolation: Isolation{Expect: Host}}
	require.NoError(t, container.check("linux"))
	require.NoError(t, host.check("linux"))
	require.NoError(t, host.check("darwin"))
	require.EqualError(t, container.check("darwin"), "isolation: a container's walls can't be checked on darwin")
}

// TestFindInstalled: what the hook would find, also where there is no hook.
func TestFindInstalled(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	lib, etc, elsewhere := filepath.Join(dir, "lib"), filepath.Join(dir, "etc"), filepath.Join(dir, "elsewhere")
	for _, d := range []string{lib, etc, elsewhere} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	hook, system := filepath.Join(lib, "pre-command"), filepath.Join(etc, fileName)

	_, err = findInstalled(hook, system)
	require.ErrorIs(t, err, ErrNone)
	require.EqualError(t, err, "no configuration: neither "+system+" nor the hook "+hook+" is there")
	write(t, etc, "")
	found, err := findInstalled(hook, system)
	require.NoError(t, err)
	require.Equal(t, system, found)

	require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "pre-command"), nil, 0o755))
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "pre-command"), hook))
	found, err = findInstalled(hook, system)
	require.NoError(t, err)
	require.Equal(t, system, found)
	own := write(t, elsewhere, "")
	_, err = findInstalled(hook, system)
	require.EqualError(t, err, "two configurations, "+own+" and "+system+": remove one")
	require.NoError(t, os.Remove(system))
	found, err = findInstalled(hook, system)
	require.NoError(t, err)
	require.Equal(t, own, found, "links of the hook are followed, as the hook does")
}

// TestFind states which of the two files are there.
func TestFind(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir()) // macOS: /var is a link
	require.NoError(t, err)
	bin, etc := filepath.Join(dir, "bin"), filepath.Join(dir, "etc")
	hooks := filepath.Join(bin, "hooks")
	require.NoError(t, os.MkdirAll(hooks, 0o755))
	require.NoError(t, os.Mkdir(etc, 0o755))
	program := filepath.Join(bin, "environment")
	require.NoError(t, os.WriteFile(program, nil, 0o755))
	own, system := filepath.Join(bin, fileName), filepath.Join(etc, fileName)

	_, err = find(program, system)
	require.ErrorIs(t, err, ErrNone)
	require.EqualError(t, err, "no configuration: neither "+own+" nor "+system+" is there")

	write(t, etc, "")
	found, err := find(program, system)
	require.NoError(t, err)
	require.Equal(t, system, found)

	write(t, bin, "")
	_, err = find(program, system)
	require.EqualError(t, err, "two configurations, "+own+" and "+system+": remove one")

	require.NoError(t, os.Remove(system))
	link := filepath.Join(hooks, "environment")
	require.NoError(t, os.Symlink("../environment", link))
	for _, executable := range []string{program, link} {
		found, err = find(executable, system)
		require.NoError(t, err)
		require.Equal(t, own, found, "for %s", executable)
	}

	// What can't be seen may be there.
	require.NoError(t, os.Remove(own))
	_, err = find(program, filepath.Join(program, fileName))
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrNone)
	_, err = find(filepath.Join(dir, "gone"), system)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, ErrNone, "a program that is nowhere is no reason to go on without a file")
	require.Equal(t, "/etc/juliagpu-secrets/config.yml", systemFile)
}

// TestErrorHoldsNoValue pastes a secret at every place of a full file.
func TestErrorHoldsNoValue(t *testing.T) {
	const secret = "Hunter2/Hunter2"
	lines := strings.Split(full, "\n")
	for i, line := range lines {
		for _, cut := range []string{": ", "- ", "file: ", "from: ", "expect: "} {
			before, _, ok := strings.Cut(line, cut)
			if !ok {
				continue
			}
			for _, pasted := range []string{secret, "@" + secret, "*" + secret, "&" + secret + " x", "!" + secret, "{" + secret, "[" + secret + "]", `"` + secret, "\t" + secret, "%" + secret, "|" + secret} {
				text := strings.Join(lines[:i], "\n") + "\n" + before + cut + pasted + "\n" + strings.Join(lines[i+1:], "\n")
				_, err := Parse([]byte(text))
				if e, ok := err.(*strict.Error); ok {
					assert.NotContains(t, strings.ToLower(err.Error()+e.Hint()), "hunter2", "line %d: %s", i+1, pasted)
				} else if err != nil {
					t.Errorf("%T", err)
				}
			}
		}
	}
}
