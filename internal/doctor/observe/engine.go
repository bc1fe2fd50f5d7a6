package observe

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// engine asks docker: of itself, of Compose, and of the agents' images and containers.
func (o *observer) engine(agents []*doctor.Agent) {
	var version, info, compose Answer
	var images, containers, projects []string // why nothing is known of them
	var group sync.WaitGroup
	// {{json .}}: --format json is younger than the oldest docker that will do.
	group.Go(func() { version = o.Run("docker", "version", "--format", "{{json .}}") })
	group.Go(func() { info = o.Run("docker", "info", "--format", "{{json .}}") })
	group.Go(func() { compose = o.Run("docker", "compose", "version", "--short") })
	group.Go(func() { images = o.images(agents) })
	group.Go(func() { containers = o.containers(agents) })
	group.Go(func() { projects = o.projects(agents) })
	group.Go(o.toolkit)
	group.Wait()

	o.facts.Compose = composeOf(compose)
	o.answers(version, info)
	if o.facts.Engine.Missing {
		o.facts.Compose.Missing = false // another finding's
	}
	if !o.facts.Engine.Answers() {
		return // and nothing else can be known
	}
	if why := o.facts.Compose.Silent; why != "" {
		o.unread("docker compose version: " + why)
	}
	for _, why := range slices.Concat(images, containers, projects) {
		o.unread(why)
	}
}

// answers says what docker version and docker info come to.
func (o *observer) answers(version, info Answer) {
	e := &o.facts.Engine
	var v struct {
		Server *struct {
			Version    string
			Components []struct{ Name, Version string }
		}
	}
	err := json.Unmarshal(version.Out, &v)
	switch {
	case version.Missing:
		e.Missing = true
		if o.there("/snap/bin/docker") {
			e.Instead = doctor.Problem{What: "docker is a snap, which can't read /etc/juliagpu-secrets", Fix: "snap remove docker; then install Docker Engine, from Docker's packages or the distribution's"}
		}
		return
	case errors.Is(version.Err, fs.ErrPermission) || errors.Is(version.Err, syscall.ENOEXEC) || errors.Is(version.Err, rootfile.ErrUntrusted):
		e.Missing, e.Instead = true, o.problem(version.Err)
		e.Instead.Fix = cmp.Or(e.Instead.Fix, "install Docker Engine anew, from packages: docker is root's, of mode 755")
		return
	case v.Server == nil && podman(version, info):
		e.Missing, e.Instead = true, doctor.Problem{What: "docker is Podman's", Fix: "remove podman-docker; then install Docker Engine, from Docker's packages or the distribution's"}
		return
	case version.Hangs:
		e.Hangs = "docker version"
		return
	case info.Hangs:
		e.Hangs = "docker info"
		return
	case strings.Contains(version.Said, "permission denied") && o.UID != 0:
		o.hide("the Docker Engine")
		return
	case version.why() != "" || err != nil || v.Server == nil:
		e.Down = cmp.Or(o.plain(version.why()), "docker version says nothing of an engine")
		return
	}
	e.Version = escape.Text(v.Server.Version)
	o.info(info)
	if !e.Answers() {
		return
	}
	for _, c := range v.Server.Components {
		// Docker calls it what the default runtime is called: NVIDIA's runs runc, and
		// passes on what that says.
		if c.Name == "runc" || c.Name == e.Default && strings.HasPrefix(c.Name, "nvidia") {
			e.RunC = escape.Text(c.Version)
		}
	}
	if e.RunC == "" {
		o.runc()
	}
}

// podman tells whether what answers to docker is Podman's: its docker info begins with
// the host.
func podman(version, info Answer) bool {
	var i struct{ Host map[string]any }
	return strings.Contains(strings.ToLower(version.Said), "podman") || json.Unmarshal(info.Out, &i) == nil && i.Host != nil
}

// info reads what docker info says.
func (o *observer) info(answer Answer) {
	e := &o.facts.Engine
	var i struct {
		ServerVersion, DefaultRuntime              string
		CgroupDriver, CgroupVersion, DockerRootDir string
		Runtimes                                   map[string]any
		CDISpecDirs                                []string
		NCPU                                       int
		MemTotal                                   int64
		ServerErrors, Warnings, SecurityOptions    []string
		LiveRestoreEnabled                         bool
	}
	if err := json.Unmarshal(answer.Out, &i); err != nil || answer.why() != "" || len(i.ServerErrors) > 0 || i.ServerVersion == "" {
		e.Down = "docker info: " + o.plain(firstOf(append(i.ServerErrors, answer.why(), "an answer that makes no sense")))
		return
	}
	e.Driver, e.Cgroup, e.Root, e.Default = escape.Text(i.CgroupDriver), escape.Text(i.CgroupVersion), i.DockerRootDir, i.DefaultRuntime
	e.CPUs, e.Memory, e.CDI, e.Restores = i.NCPU, i.MemTotal, i.CDISpecDirs, i.LiveRestoreEnabled
	for name := range i.Runtimes {
		e.Runtimes = append(e.Runtimes, escape.Text(name))
	}
	slices.Sort(e.Runtimes)
	for _, warning := range i.Warnings {
		// WARNING: API is accessible on http://0.0.0.0:2375 without encryption.
		if _, after, ok := strings.Cut(warning, "API is accessible on "); ok {
			e.Exposed = append(e.Exposed, o.plain(strings.TrimSuffix(firstLine(after), ".")))
		}
	}
	e.Unconfined = i.SecurityOptions != nil
	for _, option := range i.SecurityOptions {
		// name=seccomp,profile=builtin
		name, rest, _ := strings.Cut(strings.TrimPrefix(option, "name="), ",")
		switch name {
		case "rootless", "userns":
			e.Mapped = name
		case "seccomp":
			e.Unconfined = rest == "profile=unconfined"
		}
	}
}

// runc asks the program itself.
func (o *observer) runc() {
	a := o.Run("runc", "--version")
	_, version, ok := strings.Cut(firstLine(string(a.Out)), "runc version ")
	if a.why() != "" || !ok {
		o.unread("runc, of which docker does not say the version: " + cmp.Or(a.why(), "it does not say it either"))
		return
	}
	o.facts.Engine.RunC = escape.Text(strings.TrimSpace(version))
}

func (o *observer) hide(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.facts.Hidden = append(o.facts.Hidden, what)
}

func firstOf(texts []string) string {
	return texts[slices.IndexFunc(texts, func(t string) bool { return t != "" })]
}

// composeOf reads the answer of docker compose version --short. A docker without it
// complains of a flag, or of a command.
func composeOf(a Answer) doctor.Tool {
	version := strings.TrimSpace(string(a.Out))
	switch {
	case a.Missing, strings.Contains(a.Said, "unknown flag"), strings.Contains(a.Said, "unknown shorthand"), strings.Contains(a.Said, "is not a docker command"),
		strings.Contains(a.Said, "unknown command"):
		return doctor.Tool{Missing: true}
	case a.why() != "":
		return doctor.Tool{Silent: escape.Text(a.why())}
	}
	return doctor.Tool{Version: escape.Text(strings.TrimPrefix(version, "v"))}
}
