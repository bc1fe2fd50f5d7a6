package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// agents are all of a host's, as their folders say: others matter to one, too.
func (o *observer) agents() (all []*doctor.Agent) {
	dir := o.path(fleet.Dir)
	entries, err := os.ReadDir(dir)
	if o.unseen("the agents", err) || err != nil {
		return nil
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o022 != 0 {
		o.facts.Fleet = doctor.Problem{What: fmt.Sprintf("%s has mode %#o", fleet.Dir, info.Mode().Perm())}
	}
	templates := o.templates()
	for _, e := range entries {
		if !o.there(fleet.Dir + "/" + e.Name() + "/.env") {
			continue
		}
		a := &doctor.Agent{Name: escape.Text(e.Name())}
		all = append(all, a)
		s, err := fleet.Read(dir, e.Name())
		switch {
		case err == nil:
			a.Settings = &s
		case o.unseen("the agents", err):
		case errors.Is(err, rootfile.ErrUntrusted) && o.facts.Fleet.What == "":
			a.Open = o.problem(err)
		case !errors.Is(err, rootfile.ErrUntrusted):
			a.Wrong = o.problem(err)
		}
		needs := []string{fleet.Dir + "/" + e.Name() + "/compose.yml"}
		if a.Settings != nil {
			needs = append(needs, templates+"/"+s.Kind+".yml")
		}
		for _, path := range needs {
			if _, err := os.Lstat(o.path(path)); errors.Is(err, fs.ErrNotExist) {
				a.Incomplete = append(a.Incomplete, path)
			}
		}
		o.render(a)
		o.started(a, e.Name())
	}
	return all
}

// templates is where those of kinds are.
func (o *observer) templates() string {
	text, err := o.read(fleet.Dir + "/host.env")
	if err == nil {
		values, err := fleet.Parse(fleet.Dir+"/host.env", string(text))
		if err != nil {
			o.facts.Unread = append(o.facts.Unread, o.problem(err))
		}
		for _, v := range values {
			if v.Name == "TEMPLATES" {
				return v.Text
			}
		}
	}
	return "/usr/share/juliagpu-secrets/compose"
}

// render holds an agent's group of render nodes against that of its GPU's. Kinds whose
// GPU has no PCI address in .env have none in their template, or NVIDIA's.
func (o *observer) render(a *doctor.Agent) {
	s := a.Settings
	if s == nil || s.Kind != "amd" && s.Kind != "intel" || len(s.GPUs) != 1 || s.Render == 0 {
		return
	}
	node := "/dev/dri/by-path/pci-" + s.GPUs[0] + "-render"
	info, err := os.Stat(o.path(node))
	if err != nil {
		return // another finding's
	}
	if _, gid := ownerOf(info); gid != s.Render {
		a.Render = doctor.Problem{What: fmt.Sprintf("AGENT_RENDER_GID=%d, and %s is of group %d", s.Render, node, gid), Fix: fmt.Sprintf("AGENT_RENDER_GID=%d in its .env, and restart the agent", gid)}
	}
}

// started looks at the folder of an agent's credentials, and at its failures in a row.
func (o *observer) started(a *doctor.Agent, name string) {
	dir := starts + "/agents/" + name
	if info, err := os.Stat(o.path(dir)); err == nil {
		if info.Mode().Perm()&0o077 != 0 {
			a.RunOpen = doctor.Problem{What: fmt.Sprintf("%s has mode %#o", dir, info.Mode().Perm())}
		} else if owner, _ := ownerOf(info); owner != o.UID && o.UID == 0 {
			a.RunOpen = doctor.Problem{What: fmt.Sprintf("%s belongs to uid %d", dir, owner)}
		}
	}
	text, _ := os.ReadFile(o.path(starts + "/failures/" + name))
	a.Unit.Failures, _ = strconv.Atoi(strings.TrimSpace(string(text)))
}

// intent reads what an agent is to have, and from what juliagpu gpu resolve starts.
func (o *observer) intent(a *doctor.Agent) (gpu.Intent, bool) {
	path := fleet.Dir + "/" + a.Name + "/gpu.yml"
	text, err := o.read(path)
	switch {
	case o.unseen("the agents", err):
		return gpu.Intent{}, false
	case errors.Is(err, fs.ErrNotExist):
		a.NoIntent = true
		return gpu.Intent{}, false
	case err != nil:
		if a.Open.What == "" && o.facts.Fleet.What == "" {
			a.Open = o.problem(err)
		}
		return gpu.Intent{}, false
	}
	i, err := gpu.ParseIntent(text)
	if at := (*strict.Error)(nil); errors.As(err, &at) {
		at.Path = path
	}
	if err != nil {
		a.Intent = o.problem(err)
		return gpu.Intent{}, false
	}
	i.Agent, i.Path = a.Name, path
	if a.Settings != nil {
		i.Given = a.Settings.GPUs
	}
	a.Slice = slices.ContainsFunc(i.Policy.Devices, func(d gpu.Device) bool { return d.MIG != "" || d.GI >= 0 })
	a.MinDriver = i.Policy.MinDriver
	for _, d := range i.Policy.Devices {
		has := []string{d.MIG, d.UUID, d.PCI}
		// By the name that .env has for it, if any.
		name := slices.IndexFunc(has, func(n string) bool { return a.Settings != nil && slices.Contains(a.Settings.GPUs, n) })
		if name < 0 {
			name = slices.IndexFunc(has, func(n string) bool { return n != "" })
		}
		if name >= 0 {
			a.Named = append(a.Named, escape.Text(has[name]))
		}
	}
	return i, true
}

// policy looks at the one of an agent's last start.
func (o *observer) policy(a *doctor.Agent, boot string) {
	path := starts + "/gpu/" + a.Name + ".yml"
	text, err := o.read(path)
	if o.unseen("the agents' policies", err) || errors.Is(err, fs.ErrNotExist) {
		return
	}
	p, parseErr := gpu.ParsePolicy(text)
	if at := (*strict.Error)(nil); errors.As(parseErr, &at) {
		at.Path = path
	}
	if err == nil {
		err = parseErr
	}
	if err != nil {
		a.Policy.Wrong = o.problem(err)
		a.Policy.Wrong.Fix = "restart the agent, which writes it anew"
		return
	}
	a.Policy.There = true
	a.Policy.Stale = p.Resolved != nil && boot != "" && p.Resolved.BootID != boot
}
