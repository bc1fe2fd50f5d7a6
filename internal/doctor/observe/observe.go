package observe

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// Our places.
const (
	configFile = "/etc/juliagpu-secrets/config.yml"
	library    = "/usr/lib/juliagpu-secrets"
	atRest     = "/etc/juliagpu-secrets/credentials"
	given      = doctor.Given
	inImage    = "/usr/share/juliagpu-secrets/image/rootfs.tar"
	starts     = "/run/juliagpu-secrets"
)

// An Ask says what is to be looked at.
type Ask struct {
	Agent   string // this one of a host's alone; empty: all
	Offline bool   // Buildkite is not asked
}

// An observer looks at one machine. Its facts are written by one goroutine at a time.
type observer struct {
	Machine
	ask   Ask
	mu    sync.Mutex
	facts doctor.Facts
}

// Facts looks at a machine.
func Facts(m Machine, ask Ask) doctor.Facts {
	o := &observer{Machine: m, ask: ask}
	f := &o.facts
	f.Place, f.UID, f.Now = o.where(), m.UID, m.Now()
	o.config()
	o.hooks()
	f.RunType = o.runType()
	synced, err := m.Synced()
	f.Clock.Unknown, f.Clock.Unsynced = err != nil, err == nil && !synced
	if f.Place == doctor.Container {
		o.given()
		o.api(o.tokenHere())
		return o.facts
	}
	o.own()
	agents := o.agents()
	var group sync.WaitGroup
	group.Go(func() { o.api(o.tokenAtRest()) })
	group.Go(func() { o.engine(agents) })
	group.Go(func() { o.units(agents) })
	group.Go(func() { o.gpus(agents) })
	o.socket()
	o.swap()
	group.Wait()
	o.disks()
	o.specs()
	o.atRest(agents)
	for _, a := range agents {
		if ask.Agent == "" || a.Name == ask.Agent {
			f.Agents = append(f.Agents, *a)
		}
	}
	return o.facts
}

// where tells an agent's container from a host: that has agents, or systemd, or
// the kernel's first namespace of processes. A host may be a container itself.
func (o *observer) where() doctor.Place {
	if o.there(given) {
		return doctor.Container
	}
	for _, path := range []string{"/etc/juliagpu-secrets/agents", "/run/systemd/system"} {
		if o.there(path) {
			return doctor.Host
		}
	}
	link, err := os.Readlink(o.path("/proc/self/ns/pid"))
	if _, n, nsErr := procfs.ParseNamespace(link); err == nil && nsErr == nil && n != procfs.InitialPID {
		return doctor.Container
	}
	return doctor.Host
}

func (o *observer) path(path string) string { return filepath.Join(o.Root, path) }

func (o *observer) there(path string) bool {
	_, err := os.Lstat(o.path(path))
	return err == nil
}

func (o *observer) rule() rootfile.Rule { return rootfile.Rule{User: o.UID} }

// plain takes what was put in front of paths out of a text, and makes it safe to print.
func (o *observer) plain(text string) string {
	if o.Root != "/" {
		text = strings.ReplaceAll(text, o.Root, "")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		text = strings.Trim(strconv.QuoteToASCII(text), `"`)
	}
	return text
}

// problem is an error in words.
func (o *observer) problem(err error) doctor.Problem {
	p := doctor.Problem{What: o.plain(err.Error())}
	if hinted := (interface{ Hint() string })(nil); errors.As(err, &hinted) {
		p.Fix = o.plain(hinted.Hint())
	}
	return p
}

// unseen notes what could not be read, and tells whether that is all that is to be
// said of it.
func (o *observer) unseen(what string, err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, rootfile.ErrUntrusted):
		return false
	case errors.Is(err, fs.ErrPermission) && o.UID != 0:
		if !slices.Contains(o.facts.Hidden, what) {
			o.facts.Hidden = append(o.facts.Hidden, what)
		}
	default:
		var kernel *fs.PathError
		if !errors.As(err, &kernel) {
			return false
		}
		o.facts.Unread = append(o.facts.Unread, doctor.Problem{What: what + ": " + o.plain(err.Error())})
	}
	return true
}

// unread notes what could not be asked.
func (o *observer) unread(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.facts.Unread = append(o.facts.Unread, doctor.Problem{What: o.plain(what)})
}

// read is a file that nobody else could have changed.
func (o *observer) read(path string) ([]byte, error) {
	f, _, err := rootfile.Open(o.path(path), o.rule())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, strict.MaxFile+1))
}

func (o *observer) config() {
	c := &o.facts.Config
	c.Path = configFile
	c.Two = o.there(library+"/config.yml") && o.there(configFile)
	if !o.there(configFile) && o.there(library+"/config.yml") {
		c.Path = library + "/config.yml"
	}
	text, err := o.read(c.Path)
	switch {
	case o.unseen("the configuration", err):
		return
	case errors.Is(err, fs.ErrNotExist):
		c.Missing = true
		return
	case err != nil:
		c.Open = o.problem(err)
		return
	}
	s, err := settings.Parse(text)
	if at := (*strict.Error)(nil); errors.As(err, &at) {
		at.Path = c.Path
	}
	if err != nil {
		c.Wrong = o.problem(err)
		return
	}
	c.Is = &s
	// The users of jobs are the container's.
	if o.facts.Place == doctor.Container {
		_, err := settings.Load(o.path(c.Path), o.UID)
		if at := (*strict.Error)(nil); errors.As(err, &at) && strings.HasPrefix(at.Key, "users") {
			c.Users = o.problem(err)
		} else if err != nil {
			c.Wrong = o.problem(err)
		}
	}
}
