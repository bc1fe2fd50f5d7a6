package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

func engineMissing(f *Facts) []found {
	if !f.Engine.Missing {
		return nil
	}
	return one("there is no docker in /usr/bin and the like")
}

func engineHangs(f *Facts) []found {
	if !f.Engine.Hangs {
		return nil
	}
	return one("docker says nothing for seconds")
}

func engineDown(f *Facts) []found {
	if f.Engine.Down == "" {
		return nil
	}
	what := f.Engine.Down
	if f.Engine.Service != "" {
		what += "; docker.service is " + f.Engine.Service
	}
	return one("%s", what)
}

func engineOld(f *Facts) []found {
	if !older(f.Engine.Version, "20.10.10") {
		return nil
	}
	return one("Docker Engine %s", f.Engine.Version)
}

func composeMissing(f *Facts) []found {
	switch {
	case f.Compose.Missing:
		return one("docker has no command compose")
	case f.Compose.Silent != "":
		return one("docker compose: %s", f.Compose.Silent)
	}
	return nil
}

func composeOld(f *Facts) []found {
	if !older(f.Compose.Version, "2.20") {
		return nil
	}
	return one("Compose %s", f.Compose.Version)
}

// nvidia are the kinds of agents that the NVIDIA driver serves, and whether NVIDIA's
// own runtime does.
var nvidia = map[string]bool{"nvidia": true, "mig": true, "graphics": true, "benchmark": true, "nvidia-cdi": false}

// of are the names of agents whose kind needs the runtime, or just NVIDIA's driver.
func (f *Facts) of(runtime bool) (all []string) {
	for _, a := range f.Agents {
		if a.Settings == nil {
			continue
		}
		if needs, has := nvidia[a.Settings.Kind]; has && (needs || !runtime) {
			all = append(all, a.Name)
		}
	}
	return all
}

func cgroupV1(f *Facts) []found {
	if f.Engine.Cgroup != "1" {
		return nil
	}
	return one("cgroup v1")
}

// cgroupDriver: see docs/gpu.md, gpu.denied.
func cgroupDriver(f *Facts) []found {
	t := f.Toolkit
	legacy := t.Mode == "legacy" || (t.Mode == "" || t.Mode == "auto") && older(t.Version, "1.18")
	if f.Engine.Driver != "systemd" || !legacy || len(f.of(true)) == 0 {
		return nil
	}
	return one("the cgroup driver is systemd, and nvidia-container-toolkit %s works in legacy mode for %s", t.Version, names(f.of(true)))
}

func runcOld(f *Facts) []found {
	if holes := gpu.Holes("runc", plain(f.Engine.RunC)); len(holes) > 0 {
		return one("runc %s has %s", f.Engine.RunC, strings.Join(holes, "; "))
	}
	return nil
}

func dockerSocket(f *Facts) []found {
	if !f.Socket.Others {
		return nil
	}
	return one("/run/docker.sock has mode %s", f.Socket.Mode)
}

func dockerGroup(f *Facts) []found {
	if len(f.Socket.People) == 0 {
		return nil
	}
	return one("group %s: %s", f.Socket.Group, names(f.Socket.People))
}

func driverMissing(f *Facts) []found {
	if agents := f.of(false); f.Driver.Version == "" && len(agents) > 0 {
		return one("there is no /proc/driver/nvidia/version, and NVIDIA GPUs are for %s", names(agents))
	}
	return nil
}

func driverMismatch(f *Facts) []found {
	if !f.Driver.Differs {
		return nil
	}
	return one("the driver that is loaded is %s: %s", f.Driver.Version, f.Driver.Silent.What)
}

func driverSilent(f *Facts) []found { return if1(f.Driver.Silent) }

func driverOld(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.MinDriver != "" && older(f.Driver.Version, a.MinDriver) {
			p.What = fmt.Sprintf("the driver is %s, and min_driver %s", f.Driver.Version, a.MinDriver)
		}
		return p
	})
}

func toolkitMissing(f *Facts) []found {
	agents := f.of(false)
	switch {
	case len(agents) == 0:
	case f.Toolkit.Missing:
		return one("NVIDIA GPUs are for %s", names(agents))
	case f.Toolkit.Silent != "":
		return one("nvidia-ctk: %s", f.Toolkit.Silent)
	}
	return nil
}

func toolkitOld(f *Facts) []found {
	if holes := gpu.Holes("toolkit", plain(f.Toolkit.Version)); len(holes) > 0 {
		return one("nvidia-container-toolkit %s has %s", f.Toolkit.Version, strings.Join(holes, "; "))
	}
	return nil
}

func toolkitMode(f *Facts) (all []found) {
	if len(f.of(true)) == 0 {
		return nil
	}
	if f.Toolkit.NoCgroups {
		all = append(all, one("no-cgroups = true: the kernel refuses the GPU to every container")...)
	}
	if f.Toolkit.NoEnv {
		all = append(all, one("accept-nvidia-visible-devices-envvar-when-unprivileged = false: NVIDIA_VISIBLE_DEVICES, by which agents name their GPU, does not count")...)
	}
	return all
}

func dockerRuntime(f *Facts) []found {
	if agents := f.of(true); f.Engine.Answers() && len(agents) > 0 && !slices.Contains(f.Engine.Runtimes, "nvidia") {
		return one("it knows %s; the runtime nvidia is for %s", names(f.Engine.Runtimes), names(agents))
	}
	return nil
}

func cdiMissing(f *Facts) []found {
	var agents []string
	for _, a := range f.Agents {
		if a.Settings != nil && a.Settings.Kind == "nvidia-cdi" {
			agents = append(agents, a.Name)
		}
	}
	switch {
	case len(agents) == 0 || !f.Engine.Answers():
	case len(f.Engine.CDI) == 0:
		return []found{{Problem: Problem{fmt.Sprintf("Docker %s does not do CDI, which is for %s", f.Engine.Version, names(agents)),
			`Docker 28.2 or later does; from 25 on with "features": {"cdi": true} in /etc/docker/daemon.json`}}}
	case f.Toolkit.Spec == "":
		return one("no specification in %s; CDI is for %s", names(f.Engine.CDI), names(agents))
	}
	return nil
}

func tmpfsRun(f *Facts) []found {
	if f.RunType == "" || f.RunType == "tmpfs" || f.RunType == "ramfs" {
		return nil
	}
	return one("/run is %s", f.RunType)
}

func swapOn(f *Facts) []found {
	if len(f.Swap) == 0 {
		return nil
	}
	return one("swap: %s", names(f.Swap))
}

func diskFull(f *Facts) (all []found) {
	for _, d := range f.Disks {
		if d.Free < 1<<30 || d.Free < d.Total/50 {
			all = append(all, one("%s: %s of %s are free", d.Path, fleet.Bytes(int64(d.Free)), fleet.Bytes(int64(d.Total)))...)
		}
	}
	return all
}

func clockOff(f *Facts) []found {
	if off := f.Clock.Off; f.Clock.Asked && off.Abs() > time.Minute {
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		return one("it is %s %s Buildkite's", off.Abs().Round(time.Second), way)
	}
	return nil
}

func clockUnsynced(f *Facts) []found {
	if !f.Clock.Unsynced {
		return nil
	}
	return one("the kernel says that its clock is not synchronized")
}

func agentsNone(f *Facts) []found {
	if len(f.Agents) > 0 {
		return nil
	}
	return one("no folder in %s has an .env", fleet.Dir)
}

func agentWrong(f *Facts) []found { return each(f, func(a Agent) Problem { return a.Wrong }) }

func permAgents(f *Facts) []found {
	return append(if1(f.Fleet), each(f, func(a Agent) Problem { return a.Open })...)
}

func permRun(f *Facts) []found { return each(f, func(a Agent) Problem { return a.RunOpen }) }

func agentIncomplete(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if len(a.Incomplete) > 0 {
			p.What = "not there: " + names(a.Incomplete)
		}
		return p
	})
}

func agentProject(f *Facts) (all []found) {
	for i, a := range f.Agents {
		for _, b := range f.Agents[:i] {
			if a.Settings != nil && b.Settings != nil && a.Settings.Project == b.Settings.Project {
				all = append(all, found{both: []string{b.Name, a.Name}, Problem: Problem{What: fmt.Sprintf("Compose calls both %s and %s %s", b.Name, a.Name, a.Settings.Project)}})
			}
		}
	}
	return all
}

func agentGPU(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Settings == nil || a.NoIntent || a.Intent.What != "" {
			return p
		}
		has, named := slices.Sorted(slices.Values(a.Settings.GPUs)), slices.Sorted(slices.Values(a.Named))
		if !slices.Equal(has, named) {
			none := func(all []string) string {
				if len(all) == 0 {
					return "none"
				}
				return names(all)
			}
			p.What = fmt.Sprintf("AGENT_GPU= says %s, and gpu.yml %s", none(has), none(named))
		}
		return p
	})
}

func agentSharedGPU(f *Facts) (all []found) {
	told := map[string]bool{}
	for _, a := range f.Agents {
		if a.Shares != "" && !told[a.Shares+"\n"+a.Name] {
			told[a.Name+"\n"+a.Shares] = true
			all = append(all, found{both: []string{a.Name, a.Shares}, Problem: a.Gone})
		}
	}
	return all
}

func agentBudget(f *Facts) (all []found) {
	var agents []fleet.Agent
	for _, a := range f.Agents {
		if a.Settings != nil {
			agents = append(agents, *a.Settings)
		}
	}
	for _, line := range fleet.Over(agents, fleet.Host{CPUs: f.Engine.CPUs, Memory: f.Engine.Memory}) {
		all = append(all, one("%s", line)...)
	}
	return all
}

func policyMissing(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.NoIntent {
			p.What = fmt.Sprintf("%s/%s/gpu.yml is not there", fleet.Dir, a.Name)
		}
		return p
	})
}

func policyWrong(f *Facts) []found {
	return append(each(f, func(a Agent) Problem { return a.Intent }), each(f, func(a Agent) Problem { return a.Policy.Wrong })...)
}

func gone(f *Facts, slice bool) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Shares == "" && a.Slice == slice {
			p = a.Gone
		}
		return p
	})
}

func gpuGone(f *Facts) []found { return gone(f, false) }
func migGone(f *Facts) []found { return gone(f, true) }

func policyStale(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Policy.Stale {
			p = Problem{fmt.Sprintf("/run/juliagpu-secrets/gpu/%s.yml", a.Name), "systemctl restart " + unitOf(a)}
		}
		return p
	})
}

func imageMissing(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Image.Asked && !a.Image.There {
			p.What = "the engine has no image " + a.Settings.Image
		}
		return p
	})
}

func imageOld(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Image.Old != "" {
			p.What = a.Settings.Image + " " + a.Image.Old
		}
		return p
	})
}

func containerOpen(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Container != nil && len(a.Container.Open) > 0 {
			p.What = names(a.Container.Open)
		}
		return p
	})
}

func containerRestart(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Container != nil && a.Container.Restart != "" && a.Container.Restart != "no" {
			p.What = "restart: " + a.Container.Restart
		}
		return p
	})
}

func unitOf(a Agent) string { return "buildkite-agent@" + a.Name }

// units is a finding for each agent's unit, where systemd knows of it.
func units(f *Facts, problem func(Agent) Problem) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Unit.Asked && !a.Unit.Missing {
			p = problem(a)
		}
		return p
	})
}

func unitMissing(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Unit.Missing {
			p.What = "there is no " + unitOf(a) + ".service"
		}
		return p
	})
}

func unitReload(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		if a.Unit.Reload {
			p.What = unitOf(a) + " changed on disk"
		}
		return p
	})
}

func unitEdited(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		var parts []string
		if a.Unit.Copied != "" {
			parts = append(parts, a.Unit.Copied+" stands in the place of the installed one")
		}
		if len(a.Unit.DropIns) > 0 {
			parts = append(parts, "drop-ins: "+names(a.Unit.DropIns))
		}
		p.What = strings.Join(parts, "; ")
		return p
	})
}

func unitDisabled(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		if a.Unit.Enabled == "disabled" || a.Unit.Enabled == "masked" {
			p = Problem{unitOf(a) + " is " + a.Unit.Enabled, "systemctl enable " + unitOf(a) + ", or juliagpu agent remove " + a.Name}
		}
		return p
	})
}

func unitLooping(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		switch u := a.Unit; {
		case u.Failures > 1:
			p.What = fmt.Sprintf("%s failed %d times in a row", unitOf(a), u.Failures)
		case u.Sub == "auto-restart" && u.Result != "success":
			p.What = fmt.Sprintf("%s ended with %s (status %s), and is to start again", unitOf(a), u.Result, u.Status)
		}
		if p.What != "" {
			p.Fix = "journalctl -u " + unitOf(a) + " says why; juliagpu agent prepare " + a.Name + " makes the steps before it by hand"
		}
		return p
	})
}

func unitFailed(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		if u := a.Unit; u.Active == "failed" {
			p = Problem{fmt.Sprintf("%s: %s (status %s)", unitOf(a), u.Result, u.Status), "journalctl -u " + unitOf(a) + " says why; then systemctl start " + unitOf(a)}
		}
		return p
	})
}

func unitStopped(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		if a.Unit.Active == "inactive" {
			p = Problem{unitOf(a) + " is not running", "systemctl start " + unitOf(a) + ", if nobody drained it"}
		}
		return p
	})
}
