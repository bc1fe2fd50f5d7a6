package observe

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
)

// rootfsLabel is on an image that says which rootfs.tar it holds, by its SHA-256.
const rootfsLabel = "com.github.juliagpu.secrets.rootfs"

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

// toolkit asks NVIDIA's, and reads how its runtime is configured.
func (o *observer) toolkit() {
	t := &o.facts.Toolkit
	a := o.Run("nvidia-ctk", "--version")
	// NVIDIA Container Toolkit CLI version 1.17.8
	_, after, ok := strings.Cut(firstLine(string(a.Out)), "version ")
	switch {
	case a.Missing:
		t.Missing = true
		return
	case a.why() != "" || !ok:
		t.Silent = escape.Text(firstOf([]string{a.why(), "it does not say which version it is"}))
	default:
		t.Version = escape.Text(strings.TrimSpace(after))
	}
	text, err := os.ReadFile(o.path("/etc/nvidia-container-runtime/config.toml"))
	o.unseen("/etc/nvidia-container-runtime/config.toml", err)
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		value, _, _ = strings.Cut(value, "#")
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		switch section + ":" + strings.TrimSpace(name) {
		case "nvidia-container-runtime:mode":
			t.Mode = escape.Text(value)
		case "nvidia-container-cli:no-cgroups":
			t.NoCgroups = value == "true"
		case ":accept-nvidia-visible-devices-envvar-when-unprivileged":
			t.NoEnv = value == "false"
		}
	}
	for _, dir := range []string{"/etc/cdi", "/var/run/cdi", "/run/cdi"} {
		entries, _ := os.ReadDir(o.path(dir))
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "nvidia") {
				t.Spec = dir + "/" + e.Name()
			}
		}
	}
}

// objects decodes one JSON text after the other.
func objects[T any](text []byte) (all []T) {
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var one T
		if d.Decode(&one) != nil {
			return all
		}
		all = append(all, one)
	}
}

// images finds the agents' images, and holds them against what is installed here.
func (o *observer) images(agents []*doctor.Agent) {
	args := []string{"image", "inspect", "--format", "{{json .}}"}
	for _, a := range agents {
		if a.Settings != nil && !slices.Contains(args, a.Settings.Image) {
			args = append(args, a.Settings.Image)
		}
	}
	if len(args) == 4 {
		return
	}
	type image struct {
		RepoTags []string
		Created  time.Time
		Config   struct{ Labels map[string]string }
	}
	answer := o.Run("docker", args...)
	if answer.why() != "" && !strings.Contains(strings.ToLower(answer.Said), "no such ") {
		return
	}
	all := objects[image](answer.Out)
	rootfs, err := os.Stat(o.path(inImage))
	sum := sync.OnceValue(func() string { return sumOf(o.path(inImage)) })
	for _, a := range agents {
		if a.Settings == nil {
			continue
		}
		a.Image.Asked = true
		name := a.Settings.Image
		if last := name[strings.LastIndex(name, "/")+1:]; !strings.ContainsAny(last, ":@") {
			name += ":latest"
		}
		i := slices.IndexFunc(all, func(i image) bool { return slices.Contains(i.RepoTags, name) })
		if i < 0 {
			continue
		}
		a.Image.There = true
		switch label := all[i].Config.Labels[rootfsLabel]; {
		case err != nil:
		case label != "" && label != sum():
			a.Image.Old = "holds another " + inImage
		case label == "" && all[i].Created.Before(rootfs.ModTime()):
			a.Image.Old = "is of " + all[i].Created.UTC().Format(time.DateTime) + ", and " + inImage + " of " + rootfs.ModTime().UTC().Format(time.DateTime)
		}
	}
}

func sumOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// containers looks for doors that agents' containers have open. What pre-command
// measures inside counts more: this is for those in which it does not run.
func (o *observer) containers(agents []*doctor.Agent) {
	if len(agents) == 0 {
		return
	}
	args := []string{"container", "inspect", "--format", "{{json .}}"}
	for _, a := range agents {
		args = append(args, fleet.Container(a.Name))
	}
	type container struct {
		Name       string
		HostConfig struct {
			Privileged                    bool
			PidMode, IpcMode, NetworkMode string
			RestartPolicy                 struct{ Name string }
		}
		Mounts []struct{ Source, Destination string }
	}
	for _, c := range objects[container](o.Run("docker", args...).Out) {
		r := &doctor.Running{Restart: escape.Text(c.HostConfig.RestartPolicy.Name)}
		if r.Restart == `""` {
			r.Restart = ""
		}
		if c.HostConfig.Privileged {
			r.Open = append(r.Open, "privileged: true")
		}
		for _, ns := range [][2]string{{"pid", c.HostConfig.PidMode}, {"ipc", c.HostConfig.IpcMode}, {"network_mode", c.HostConfig.NetworkMode}} {
			if ns[1] == "host" {
				r.Open = append(r.Open, ns[0]+": host")
			}
		}
		for _, m := range c.Mounts {
			if strings.HasSuffix(m.Source, "/docker.sock") || m.Source == "/" {
				r.Open = append(r.Open, "volume "+escape.Text(m.Source))
			}
		}
		for _, a := range agents {
			if c.Name == "/"+fleet.Container(a.Name) {
				a.Container = r
			}
		}
	}
}
