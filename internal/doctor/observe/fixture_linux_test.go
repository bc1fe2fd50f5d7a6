package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	gpuobserve "github.com/juliagpu/secrets-buildkite-plugin/internal/gpu/observe"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// A fixture is one host, a file for each of its files. It holds what differs from
// the fixture that @base names. What is not a file of the host:
//
//	@remove    files and programs that are not there after all; with a / at the end
//	           all below that path
//	@mode      0600 PATH; other files have 0644, folders and programs 0755
//	@owner     UID:GID PATH; others are the test's own
//	@links     PATH TARGET
//	@programs  programs of ours that are there
//	@builds    PATH BUILD; others are of one build
//	@space     what each disk has, free and in all: 500g 1000g; with a PATH behind what
//	           that one has, and with numbers of free and all files
//	@clock     unsynced
//	$ PROGRAM ARGUMENT…  what a program prints that begins so; in a first line
//	           "!STATUS COMPLAINT" or "!hangs"
//	want       the findings, the first line first: fault engine.down
//
// A file whose name ends in + goes behind the one that is there.
type fixture map[string]string

func load(t testing.TB, name string) fixture {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/" + name + ".txtar")
	require.NoError(t, err)
	all := fixture{}
	for _, f := range archive.Files {
		if f.Name == "@base" {
			all = load(t, strings.TrimSpace(string(f.Data)))
		}
	}
	for _, f := range archive.Files {
		switch path, more := strings.CutSuffix(f.Name, "+"); {
		case path == "@base":
		case path == "@remove":
			for line := range strings.Lines(string(f.Data)) {
				all.drop(strings.TrimSpace(line))
			}
		case more:
			all[path] += string(f.Data)
		default:
			all[path] = string(f.Data)
		}
	}
	return all
}

func (all fixture) drop(gone string) {
	for path := range all {
		if path == gone || strings.HasSuffix(gone, "/") && strings.HasPrefix(path, gone) {
			delete(all, path)
		}
	}
	for _, list := range []string{"@links", "@programs", "@mode"} {
		var left []string
		for _, line := range lines(all[list]) {
			if !strings.Contains(line+" ", gone+" ") && !(strings.HasSuffix(gone, "/") && strings.Contains(line, gone)) {
				left = append(left, line)
			}
		}
		all[list] = strings.Join(left, "\n")
	}
}

// change puts what @unit and @info say into the answers of programs.
func (all fixture) change(t testing.TB) {
	const show, info = "$ systemctl show", "$ docker info"
	blocks := strings.Split(all[show], "\n\n")
	for _, line := range lines(all["@unit"]) {
		unit, setting, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(setting, "=")
		for i, block := range blocks {
			if strings.HasPrefix(block, "Id="+unit+".service\n") {
				blocks[i] = strings.Join(append(slices.DeleteFunc(lines(block), func(l string) bool { return strings.HasPrefix(l, name+"=") }), setting), "\n")
			}
		}
	}
	all[show] = strings.Join(blocks, "\n\n")
	if all["@info"] != "" {
		var is map[string]any
		require.NoError(t, json.Unmarshal([]byte(all[info]), &is))
		require.NoError(t, json.Unmarshal([]byte(all["@info"]), &is))
		text, err := json.Marshal(is)
		require.NoError(t, err)
		all[info] = string(text)
	}
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// machine makes a fixture's files in a folder of the test's.
func (all fixture) machine(t testing.TB) Machine {
	t.Helper()
	root := t.TempDir()
	at := func(path string) string { return filepath.Join(root, path) }
	write := func(path, text string, mode fs.FileMode) {
		require.NoError(t, os.MkdirAll(filepath.Dir(at(path)), 0o755))
		require.NoError(t, os.WriteFile(at(path), []byte(text), mode))
	}
	for path, text := range all {
		if path != "want" && !strings.HasPrefix(path, "@") && !strings.HasPrefix(path, "$ ") {
			mode := fs.FileMode(0o644)
			if strings.Contains(path, "/hooks/") {
				mode = 0o755
			}
			write(path, text, mode)
		}
	}
	for _, path := range lines(all["@programs"]) {
		write(path, "(a program)", 0o755)
	}
	for _, line := range lines(all["@links"]) {
		path, target, _ := strings.Cut(line, " ")
		require.NoError(t, os.Symlink(target, at(path)))
	}
	builds := map[string]string{}
	for _, line := range lines(all["@builds"]) {
		path, build, _ := strings.Cut(line, " ")
		builds[at(path)] = build
	}
	for _, line := range lines(all["@owner"]) {
		need.Root(t, "to give files away")
		var uid, gid int
		var path string
		_, err := fmt.Sscanf(line, "%d:%d %s", &uid, &gid, &path)
		require.NoError(t, err)
		require.NoError(t, os.Chown(at(path), uid, gid))
	}
	for _, line := range lines(all["@mode"]) {
		octal, path, _ := strings.Cut(line, " ")
		mode, err := strconv.ParseUint(octal, 8, 12)
		require.NoError(t, err)
		perm := fs.FileMode(mode & 0o777)
		if mode&0o4000 != 0 {
			perm |= fs.ModeSetuid
		}
		require.NoError(t, os.Chmod(at(path), perm))
	}
	all.change(t)
	run := func(program string, args ...string) Answer {
		line, best := strings.Join(append([]string{"$", program}, args...), " "), ""
		for name := range all {
			if strings.HasPrefix(name, "$ ") && strings.HasPrefix(line, name) && len(name) > len(best) {
				best = name
			}
		}
		if best == "" {
			return Answer{Missing: true, Err: fs.ErrNotExist}
		}
		first, rest, _ := strings.Cut(all[best], "\n")
		said, odd := strings.CutPrefix(first, "!")
		switch {
		case !odd:
			return Answer{Out: []byte(all[best])}
		case said == "hangs":
			return Answer{Hangs: true}
		}
		status, said, _ := strings.Cut(said, " ")
		n, err := strconv.Atoi(status)
		require.NoError(t, err)
		return Answer{Status: n, Said: said, Out: []byte(rest)}
	}
	return Machine{
		Root: root, UID: os.Getuid(), Run: run,
		Now: func() time.Time { return time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC) },
		SMI: func(args ...string) ([]byte, error) {
			a := run("nvidia-smi", args...)
			switch {
			case a.Missing:
				return nil, fs.ErrNotExist
			case a.Status != 0:
				return nil, &gpuobserve.StatusError{Status: a.Status, Said: a.Said}
			}
			return a.Out, nil
		},
		Space:    func(path string) (Space, error) { return all.space(t, strings.TrimPrefix(path, root)) },
		Devices:  devices(root),
		Patience: time.Minute,
		Synced:   func() (bool, error) { return all["@clock"] == "", nil },
		Build: func(path string) (string, error) {
			if b := builds[path]; b != "" {
				return b, nil
			}
			if text, _ := os.ReadFile(path); !bytes.Equal(text, []byte("(a program)")) {
				return "", errors.New("no program")
			}
			return "v1.0.0, go1.26.0", nil
		},
	}
}

// space is what @space says of a path.
func (all fixture) space(t testing.TB, path string) (s Space, err error) {
	for i, line := range lines(all["@space"]) {
		var unit, units rune
		var of string
		var is Space
		if n, err := fmt.Sscanf(line, "%d%c %d%c %s %d %d", &is.Free, &unit, &is.Total, &units, &of, &is.FreeFiles, &is.Files); n < 4 {
			return s, err
		}
		shift := map[rune]int{'m': 20, 'g': 30}
		is.Free, is.Total, is.Device = is.Free<<shift[unit], is.Total<<shift[units], uint64(i)
		if of == "" || of == path {
			s = is
		}
	}
	return s, nil
}

func fixtures(t testing.TB) (names []string) {
	entries, err := os.ReadDir("testdata")
	require.NoError(t, err)
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".txtar"); ok {
			names = append(names, name)
		}
	}
	return names
}

func judged(t testing.TB, f fixture, ask Ask) doctor.Report {
	t.Helper()
	return doctor.Judge(Facts(f.machine(t), ask))
}
