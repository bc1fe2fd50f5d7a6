package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

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

// cgroupDriver: see docs/gpu.md, gpu.denied.
func cgroupDriver(f *Facts) []found {
	t := f.Toolkit
	legacy := t.Mode == "legacy" || (t.Mode == "" || t.Mode == "auto") && older(t.Version, "1.18")
	if f.Engine.Driver != "systemd" || !legacy || len(f.of(true)) == 0 {
		return nil
	}
	return one("the cgroup driver is systemd, and nvidia-container-toolkit %s works in legacy mode for %s", t.Version, names(f.of(true)))
}

// ofThese is a finding about agents that its words name: it is no cause for others.
func ofThese(agents []string, format string, args ...any) []found {
	return []found{{about: agents, Problem: Problem{What: fmt.Sprintf(format, args...)}}}
}

func driverMissing(f *Facts) []found {
	if agents := f.of(false); f.Driver.Version == "" && len(agents) > 0 {
		return ofThese(agents, "there is no /proc/driver/nvidia/version, and NVIDIA GPUs are for %s", names(agents))
	}
	return nil
}

func driverMismatch(f *Facts) []found {
	if !f.Driver.Differs {
		return nil
	}
	return ofThese(f.of(false), "the driver that is loaded is %s: %s", f.Driver.Version, f.Driver.Silent.What)
}

func driverSilent(f *Facts) []found {
	if f.Driver.Silent.What == "" {
		return nil
	}
	return []found{{about: f.of(false), Problem: f.Driver.Silent}}
}

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
		return ofThese(agents, "NVIDIA GPUs are for %s", names(agents))
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
		return ofThese(agents, "it knows %s; the runtime nvidia is for %s", names(f.Engine.Runtimes), names(agents))
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
