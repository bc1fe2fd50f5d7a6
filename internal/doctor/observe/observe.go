package observe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
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
	if synced, err := m.Synced(); err == nil {
		f.Clock.Unsynced = !synced
	}
	if f.Place == doctor.Container {
		o.given()
		o.api(credential.File{Kind: "API token", Path: o.tokenHere()})
		return o.facts
	}
	o.atRest()
	o.own()
	agents := o.agents()
	var group sync.WaitGroup
	group.Go(func() { o.api(credential.File{Kind: "API token", Path: o.path(atRest + "/api-token")}) })
	group.Go(func() { o.engine(agents) })
	group.Go(func() { o.units(agents) })
	group.Go(func() { o.gpus(agents) })
	o.socket()
	o.swap()
	group.Wait()
	o.disks()
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

// runType is the file system of /run.
func (o *observer) runType() string {
	text, err := os.ReadFile(o.path("/proc/self/mountinfo"))
	if err != nil {
		o.unseen("/proc/self/mountinfo", err)
		return ""
	}
	mounts, err := procfs.ParseMounts(text)
	if err != nil {
		return ""
	}
	m, _ := procfs.MountOf(mounts, starts)
	return m.Type
}

// credential looks at one that must be private.
func (o *observer) credential(c *doctor.Credential) bool {
	_, err := rootfile.Check(o.path(c.Path), rootfile.Rule{User: o.UID, Private: true})
	switch {
	case o.unseen(c.Path, err):
		c.Needed = false // nobody knows
	case err == nil:
		c.There = true
	case !errors.Is(err, fs.ErrNotExist):
		c.There, c.Open = true, o.problem(err)
	}
	return err == nil
}

// atRest looks at what units load for each start.
func (o *observer) atRest() {
	f := &o.facts
	attests := f.Config.Is != nil && f.Config.Is.Rules.Attest
	for _, name := range []string{"agent-token", "identity", "api-token"} {
		c := doctor.Credential{Name: name, Path: atRest + "/" + name, Needed: name != "api-token" || attests}
		for _, path := range []string{c.Path + ".cred", "/etc/credstore.encrypted/juliagpu-secrets." + name} {
			if !o.there(c.Path) && o.there(path) {
				c.Path, c.Encrypted = path, true
			}
		}
		if o.credential(&c) && !c.Encrypted {
			if name == "identity" {
				o.identity(&c)
			} else if _, err := (credential.File{Kind: name, Path: o.path(c.Path)}).Word(o.UID); err != nil {
				c.Wrong = o.problem(err)
			}
		}
		f.Credentials = append(f.Credentials, c)
	}
}

// identity reads one, for what it is called in labels.
func (o *observer) identity(c *doctor.Credential) {
	all, err := identity.Load([]settings.IdentityFile{{Path: o.path(c.Path)}}, o.UID)
	if err != nil {
		c.Wrong = o.problem(err)
		return
	}
	for _, i := range all {
		o.facts.Identities = append(o.facts.Identities, doctor.Identity{Fingerprint: i.Fingerprint})
	}
}

// own finds users of the host that have jobs' numbers: of the configuration, or
// those of the image.
func (o *observer) own() {
	numbers := map[int]string{4711: "buildkite-trusted", 4712: "buildkite-other"}
	if c := o.facts.Config.Is; c != nil {
		for _, u := range []settings.User{c.Users.Trusted, c.Users.Other} {
			if u.UID != 0 {
				numbers[u.UID] = u.Name
			}
		}
	}
	for _, fields := range o.table("/etc/passwd") {
		uid, err := strconv.Atoi(fields[2%len(fields)])
		if name := numbers[uid]; err == nil && name != "" && !strings.HasPrefix(fields[0], "buildkite-") {
			o.facts.Own = append(o.facts.Own, doctor.Problem{What: fmt.Sprintf("user %s has number %d", escape.Text(fields[0]), uid)})
		}
	}
	for _, fields := range o.table("/etc/subuid") {
		if len(fields) != 3 {
			continue
		}
		first, err := strconv.Atoi(fields[1])
		count, countErr := strconv.Atoi(fields[2])
		for uid := range numbers {
			if err == nil && countErr == nil && first <= uid && uid < first+count {
				o.facts.Own = append(o.facts.Own, doctor.Problem{What: "/etc/subuid gives such numbers to " + escape.Text(fields[0]), Fix: "give that user a range from 100000 on"})
				break
			}
		}
	}
}

// table is a file of lines with fields between colons.
func (o *observer) table(path string) (rows [][]string) {
	text, err := os.ReadFile(o.path(path))
	if err != nil {
		return nil
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if line := s.Text(); line != "" && line[0] != '#' {
			rows = append(rows, strings.Split(line, ":"))
		}
	}
	return rows
}

// socket tells who may give the engine orders.
func (o *observer) socket() {
	path := o.path("/run/docker.sock")
	info, err := os.Stat(path)
	if err != nil {
		if path = o.path("/var/run/docker.sock"); o.Root != "/" {
			return
		}
		if info, err = os.Stat(path); err != nil {
			return
		}
	}
	s := &o.facts.Socket
	s.Mode, s.Others = fmt.Sprintf("%#o", info.Mode().Perm()), info.Mode().Perm()&0o002 != 0
	_, gid := ownerOf(info)
	if gid == 0 || info.Mode().Perm()&0o020 == 0 {
		return
	}
	for _, g := range o.table("/etc/group") {
		if len(g) == 4 && g[2] == strconv.Itoa(gid) {
			s.Group = escape.Text(g[0])
			for name := range strings.SplitSeq(g[3], ",") {
				if name != "" && name != "root" {
					s.People = append(s.People, escape.Text(name))
				}
			}
		}
	}
	for _, u := range o.table("/etc/passwd") {
		if len(u) > 3 && u[3] == strconv.Itoa(gid) && u[2] != "0" && !slices.Contains(s.People, u[0]) {
			s.People = append(s.People, escape.Text(u[0]))
		}
	}
}

// swap finds what is swapped to a disk in the clear. zram is memory, and a mapped
// device says in its name's sake what it is (dm-crypt: CRYPT-…).
func (o *observer) swap() {
	text, err := os.ReadFile(o.path("/proc/swaps"))
	if err != nil {
		return
	}
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) == 0 || strings.HasPrefix(fields[0], "/dev/zram") {
			continue
		}
		kind, _ := os.ReadFile(o.path("/sys/block/" + filepath.Base(fields[0]) + "/dm/uuid"))
		if !strings.HasPrefix(string(kind), "CRYPT-") {
			o.facts.Swap = append(o.facts.Swap, escape.Text(fields[0]))
		}
	}
}

// disks are those that jobs fill, each once.
func (o *observer) disks() {
	f := &o.facts
	seen := map[string]bool{}
	for _, path := range []string{f.Engine.Root, "/var/lib/juliagpu-secrets", "/"} {
		if path == "" || !o.there(path) {
			continue
		}
		free, total, err := o.Space(path)
		if err != nil {
			o.unseen(path, &fs.PathError{Op: "statfs", Path: path, Err: err})
			continue
		}
		if key := fmt.Sprint(free, total); total > 0 && !seen[key] {
			seen[key] = true
			f.Disks = append(f.Disks, doctor.Disk{Path: path, Free: free, Total: total})
		}
	}
}

// given looks at a container's credentials, and for a job beside them.
func (o *observer) given() {
	f := &o.facts
	f.JobRuns = o.jobRuns()
	if f.Config.Is == nil {
		return
	}
	for _, file := range f.Config.Is.Credentials() {
		c := doctor.Credential{Name: file.Kind, Path: file.Path, Needed: true}
		if o.credential(&c) && file.Kind == "identity" {
			o.identity(&c)
		}
		f.Credentials = append(f.Credentials, c)
	}
}

// jobRuns tells whether a process of jobs' users is alive here: with the host's
// processes in sight there may be others of the same numbers, in other cgroups.
func (o *observer) jobRuns() bool {
	c := o.facts.Config.Is
	if c == nil || c.Users == (settings.Users{}) {
		return false
	}
	entries, _ := os.ReadDir(o.path("/proc"))
	own, _ := os.ReadFile(o.path("/proc/self/cgroup"))
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		if group, err := os.ReadFile(o.path("/proc/" + e.Name() + "/cgroup")); err == nil && !bytes.Equal(group, own) {
			continue
		}
		text, err := os.ReadFile(o.path("/proc/" + e.Name() + "/status"))
		if err != nil {
			continue
		}
		status, err := procfs.ParseStatus(text)
		if err == nil && (status.UID == 4711 || status.UID == 4712 || status.UID != 0 && (status.UID == c.Users.Trusted.UID || status.UID == c.Users.Other.UID)) {
			return true
		}
	}
	return false
}

func (o *observer) tokenHere() string {
	if c := o.facts.Config.Is; c != nil && c.Rules.Attest {
		return o.path(c.Attest.Token)
	}
	return ""
}
