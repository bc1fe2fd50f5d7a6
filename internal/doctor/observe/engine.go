package observe

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// engine asks docker: of itself, of Compose, and of the agents' images and containers.
func (o *observer) engine(agents []*doctor.Agent) {
	var version, info, compose Answer
	var group sync.WaitGroup
	// {{json .}}: --format json is younger than the oldest docker that will do.
	group.Go(func() { version = o.Run("docker", "version", "--format", "{{json .}}") })
	group.Go(func() { info = o.Run("docker", "info", "--format", "{{json .}}") })
	group.Go(func() { compose = o.Run("docker", "compose", "version", "--short") })
	group.Go(func() { o.images(agents) })
	group.Go(func() { o.containers(agents) })
	group.Go(o.toolkit)
	group.Wait()

	e := &o.facts.Engine
	o.facts.Compose = composeOf(compose)
	denied := strings.Contains(version.Said, "permission denied")
	var v struct {
		Server *struct {
			Version    string
			Components []struct{ Name, Version string }
		}
	}
	switch err := json.Unmarshal(version.Out, &v); {
	case version.Missing:
		e.Missing, o.facts.Compose.Missing = true, false
		return
	case version.Hangs || info.Hangs:
		e.Hangs = true
		return
	case denied && o.UID != 0:
		o.hide("the Docker Engine")
		return
	case version.why() != "" || err != nil || v.Server == nil:
		e.Down = o.plain(version.why())
		if e.Down == "" {
			e.Down = "docker version says nothing of an engine"
		}
		return
	}
	e.Version = escape.Text(v.Server.Version)
	for _, c := range v.Server.Components {
		if c.Name == "runc" {
			e.RunC = escape.Text(c.Version)
		}
	}
	var i struct {
		CgroupDriver, CgroupVersion, DockerRootDir string
		Runtimes                                   map[string]any
		CDISpecDirs                                []string
		NCPU                                       int
		MemTotal                                   int64
		ServerErrors                               []string
	}
	if err := json.Unmarshal(info.Out, &i); err != nil || info.why() != "" || len(i.ServerErrors) > 0 {
		e.Down = "docker info: " + o.plain(firstOf(append(i.ServerErrors, info.why(), "an answer that makes no sense")))
		return
	}
	e.Driver, e.Cgroup, e.Root = escape.Text(i.CgroupDriver), escape.Text(i.CgroupVersion), i.DockerRootDir
	e.CPUs, e.Memory, e.CDI = i.NCPU, i.MemTotal, i.CDISpecDirs
	for name := range i.Runtimes {
		e.Runtimes = append(e.Runtimes, escape.Text(name))
	}
	slices.Sort(e.Runtimes)
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
	case a.Hangs:
		return doctor.Tool{} // the engine's finding
	case a.Missing, strings.Contains(a.Said, "unknown flag"), strings.Contains(a.Said, "unknown shorthand"), strings.Contains(a.Said, "is not a docker command"),
		strings.Contains(a.Said, "unknown command"):
		return doctor.Tool{Missing: true}
	case a.why() != "":
		return doctor.Tool{Silent: escape.Text(a.why())}
	}
	return doctor.Tool{Version: escape.Text(strings.TrimPrefix(version, "v"))}
}
