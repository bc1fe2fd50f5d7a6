package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// Judge says what the facts come to.
func Judge(f Facts) Report {
	r := Report{Place: f.Place}
	for _, c := range checks {
		if c.place != "" && c.place != f.Place {
			continue
		}
		if cause := r.cause(c, nil); cause != "" {
			r.Skipped = append(r.Skipped, Skip{c.id, cause})
			continue
		}
		r.Checks++
		for _, found := range c.run(&f) {
			if found.agent != "" {
				found.about = []string{found.agent}
			}
			if cause := r.cause(c, found.about); cause != "" {
				r.Skipped = append(r.Skipped, Skip{c.id, cause})
				continue
			}
			r.Findings = append(r.Findings, Finding{c.id, c.severity, found.agent, found.What, c.why, cmp.Or(found.Fix, c.fix), found.about})
		}
	}
	if f.GPU != nil {
		r.Checks += f.GPU.Checks
		r.Findings = append(r.Findings, isolation(*f.GPU)...)
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return int(b.Severity) - int(a.Severity) })
	r.Skipped = slices.Compact(r.Skipped)
	r.Seen = seen(&f)
	return r
}

// cause is the finding of which this check's would be effects: of the whole host, or
// of all agents that these would be about. No agents: the whole host, too.
func (r Report) cause(c check, agents []string) string {
	for _, f := range r.Findings {
		other := func(agent string) bool { return !slices.Contains(f.about, agent) }
		if len(f.about) > 0 && (len(agents) == 0 || slices.ContainsFunc(agents, other)) {
			continue
		}
		for _, after := range c.after {
			if f.ID == after || strings.HasSuffix(after, ".") && strings.HasPrefix(f.ID, after) {
				return f.ID
			}
		}
	}
	return ""
}

// isolation is what pre-command says of a container.
func isolation(r gpu.Report) (all []Finding) {
	for _, f := range r.Findings {
		severity := map[gpu.Severity]Severity{gpu.Deny: Fault, gpu.Warn: Warn, gpu.Info: Info}[f.Severity]
		what := f.What
		if f.Waived != "" {
			severity, what = Info, what+"; waived: "+f.Waived
		}
		all = append(all, Finding{f.ID, severity, "", what, f.Why, strings.Join(append(slices.Clone(f.Fix), f.Link()), "; "), nil})
	}
	return all
}

func one(what string, args ...any) []found {
	return []found{{Problem: Problem{What: fmt.Sprintf(what, args...)}}}
}

// if1 is a finding where there is a problem.
func if1(p Problem) []found {
	if p.What == "" {
		return nil
	}
	return []found{{Problem: p}}
}

func ifs(all []Problem) (list []found) {
	for _, p := range all {
		list = append(list, found{Problem: p})
	}
	return list
}

// each is a finding for each agent of which problem returns one.
func each(f *Facts, problem func(Agent) Problem) (all []found) {
	for _, a := range f.Agents {
		if p := problem(a); p.What != "" {
			all = append(all, found{agent: a.Name, Problem: p})
		}
	}
	return all
}

// names joins at most so many.
func names(all []string) string {
	const most = 8
	if more := len(all) - most; more > 0 {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(all, ", ")
}

func partial(f *Facts) []found {
	if len(f.Hidden) == 0 {
		return nil
	}
	return one("uid %d does not see %s", f.UID, names(f.Hidden))
}

func unread(f *Facts) []found {
	all := ifs(f.Unread)
	if f.Toolkit.Silent != "" && len(f.of(false)) > 0 {
		all = append(all, one("nvidia-ctk: %s", f.Toolkit.Silent)...)
	}
	return all
}

// seen is a line for each thing that was looked at, from top to bottom.
func seen(f *Facts) (all []Seen) {
	add := func(name, format string, args ...any) { all = append(all, Seen{name, fmt.Sprintf(format, args...)}) }
	if f.Place == Host {
		e := f.Engine
		switch {
		case e.Answers():
			add("engine", "Docker %s, cgroup v%s with %s, runc %s", e.Version, e.Cgroup, e.Driver, cmp.Or(e.RunC, "unknown"))
		case e.Missing:
			add("engine", "none")
		case e.Down != "" || e.Hangs != "":
			add("engine", "does not answer")
		default:
			add("engine", "not seen")
		}
		if !e.Missing {
			add("compose", "%s", tool(f.Compose))
		}
		if f.Driver.Version != "" || !f.Toolkit.Missing {
			mode := ""
			if f.Toolkit.Version != "" {
				mode = ", mode " + cmp.Or(f.Toolkit.Mode, "auto")
			}
			add("nvidia", "driver %s, toolkit %s%s", cmp.Or(f.Driver.Version, "none"), tool(f.Toolkit.Tool), mode)
		}
		for _, d := range f.Disks {
			add("disk", "%s: %s of %s free", d.Path, fleet.Bytes(int64(d.Free)), fleet.Bytes(int64(d.Total)))
		}
	}
	clock := "kept right"
	switch {
	case f.Clock.Unknown:
		clock = "the kernel does not say whether it is kept right"
	case f.Clock.Unsynced:
		clock = "nothing keeps it right"
	}
	if f.Clock.Asked {
		clock += fmt.Sprintf("; %s from Buildkite's", f.Clock.Off.Abs().Round(time.Second))
	}
	add("clock", "%s", clock)
	builds := make([]string, 0, len(f.Hooks.Builds))
	for b := range f.Hooks.Builds {
		builds = append(builds, b)
	}
	slices.Sort(builds)
	add("programs", "%s", cmp.Or(strings.Join(builds, " and "), "none"))
	if c := f.Config.Is; c != nil {
		text := string(c.Mode) + " mode"
		if c.Rules.Attest {
			text += ", attested"
		}
		add("configuration", "%s: %s", f.Config.Path, text)
	}
	for _, c := range f.Credentials {
		if c.There {
			how := ""
			if c.Encrypted {
				how = ", encrypted"
			}
			add("credential", "%s: %s%s", c.Kind, c.Path, how)
		}
	}
	for _, i := range f.Identities {
		add("identity", "opens what is sealed to %s", i.Fingerprint)
	}
	for _, a := range f.Agents {
		add("agent", "%s", a.line())
	}
	switch {
	case f.API.Asked && f.API.Silent.What == "":
		add("api", "%s, token with %s", f.API.Host, cmp.Or(strings.Join(f.API.Scopes, ", "), "no scope"))
	case f.API.Why != "":
		add("api", "not asked: %s", f.API.Why)
	}
	if f.GPU != nil {
		add("isolation", "%s", f.GPU.Summary())
	}
	return all
}

func tool(t Tool) string {
	switch {
	case t.Missing:
		return "none"
	case t.Silent != "":
		return "does not answer"
	}
	return cmp.Or(t.Version, "unknown")
}

// line is an agent in few words.
func (a Agent) line() string {
	words := []string{a.Name}
	if s := a.Settings; s != nil {
		words = append(words, s.Kind)
		if len(s.GPUs) > 0 {
			words = append(words, strings.Join(s.GPUs, " "))
		}
	}
	switch u := a.Unit; {
	case u.Missing:
		words = append(words, "no unit")
	case u.Active != "":
		words = append(words, u.Active)
	}
	return strings.Join(words, ", ")
}

// older tells whether a version is below another. What a distribution adds to it
// does not count.
func older(version, than string) bool {
	version = plain(version)
	return version != "" && gpu.CompareVersions(version, than) < 0
}

// plain is a version without what others put around it: v2.40.3-desktop.1,
// 20.10.24+dfsg1.
func plain(version string) string {
	version = strings.TrimPrefix(version, "v")
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		return version
	}
	if rest := version[end:]; strings.HasPrefix(rest, "-rc") {
		if stop := strings.IndexAny(rest, "+~"); stop >= 0 {
			rest = rest[:stop]
		}
		return version[:end] + rest
	}
	return version[:end]
}

func direct(c *settings.Settings) bool { return c != nil && c.Mode == settings.Direct }
