package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// Our programs, and the hooks that run them.
var (
	programs = []string{"environment", "pre-bootstrap", "pre-command", "pre-exit", "launch", "agent-startup", "attest"}
	links    = []string{"environment", "pre-command", "pre-exit"}
	scripts  = []string{"pre-bootstrap", "agent-startup"}
)

func (o *observer) hooks() {
	h := &o.facts.Hooks
	h.Builds = map[string][]string{}
	wrong := func(fix, format string, args ...any) {
		h.Wrong = append(h.Wrong, doctor.Problem{What: o.plain(fmt.Sprintf(format, args...)), Fix: fix})
	}
	// check says whether a file is there and root's, to be run and nothing more.
	check := func(path string) bool {
		_, err := rootfile.Check(o.path(path), o.rule())
		switch info, statErr := os.Stat(o.path(path)); {
		case o.unseen(path, err):
		case errors.Is(err, fs.ErrNotExist):
			h.Missing = append(h.Missing, path)
		case err != nil:
			h.Wrong = append(h.Wrong, o.problem(err))
		case statErr != nil:
		case info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0:
			wrong("chmod 755 "+path, "%s: mode %v: whoever runs it becomes its owner", path, info.Mode())
		case info.Mode()&0o111 != 0o111:
			wrong("chmod 755 "+path, "%s: mode %v: not everybody may run it", path, info.Mode())
		default:
			return true
		}
		return false
	}
	paths := []string{"/usr/bin/encrypt", "/usr/bin/juliagpu"}
	if o.facts.Place == doctor.Container {
		paths = nil // the tools are the host's
	}
	for _, name := range programs {
		paths = append(paths, library+"/"+name)
	}
	for _, path := range paths {
		if !check(path) {
			continue
		}
		if b, err := o.Build(o.path(path)); err != nil {
			wrong("", "%s: not a program of ours", path)
		} else {
			h.Builds[b] = append(h.Builds[b], filepath.Base(path))
		}
	}
	for _, name := range links {
		path := library + "/hooks/" + name
		target, err := os.Readlink(o.path(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			h.Missing = append(h.Missing, path)
		case err != nil || target != "../"+name && target != library+"/"+name:
			wrong("", "%s: not a link to ../%s", path, name)
		}
	}
	for _, name := range scripts {
		path := library + "/hooks/" + name
		if !check(path) {
			continue
		}
		if text, err := o.read(path); err == nil && string(text) != "#!"+library+"/"+name+"\n" {
			wrong("", "%s: not the line #!%s/%s", path, library, name)
		}
	}
}
