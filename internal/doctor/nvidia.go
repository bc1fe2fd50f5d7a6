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

// ofThese is a finding about agents that its words name: it is no cause for others.
func ofThese(agents []string, format string, args ...any) []found {
	return []found{{about: agents, Problem: Problem{What: fmt.Sprintf(format, args...)}}}
}

func driverMissing(f *Facts) []found {
	if agents := f.of(false); f.Driver.Version == "" && !f.Driver.Hangs && len(agents) > 0 {
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
	if agents := f.of(false); len(agents) > 0 && f.Toolkit.Missing {
		return ofThese(agents, "NVIDIA GPUs are for %s", names(agents))
	}
	return nil
}

func toolkitOld(f *Facts) []found {
	if holes := gpu.Holes("toolkit", plain(f.Toolkit.Version)); len(holes) > 0 {
		return one("nvidia-container-toolkit %s has %s", f.Toolkit.Version, strings.Join(holes, "; "))
	}
	return nil
}

// legacy tells whether NVIDIA's runtime adds devices behind runc's back: up to 1.17 it
// does unless told otherwise.
func (t Toolkit) legacy() bool {
	return t.Mode == "legacy" || (t.Mode == "" || t.Mode == "auto") && older(t.Version, "1.18")
}

func toolkitMode(f *Facts) (all []found) {
	agents, t := f.of(true), f.Toolkit
	if len(agents) == 0 {
		return nil
	}
	switch t.Mode {
	case "", "auto", "legacy", "cdi", "jit-cdi":
	case "csv":
		all = append(all, ofThese(agents, "mode = \"csv\": it is for Tegra, and knows no GPU by its UUID")...)
	default:
		all = append(all, ofThese(agents, "mode = %q: there is no such mode", t.Mode)...)
	}
	if t.NoCgroups && t.legacy() {
		all = append(all, ofThese(agents, "no-cgroups = true: the kernel refuses the GPU to every container")...)
	}
	if t.NoEnv {
		all = append(all, ofThese(agents, "accept-nvidia-visible-devices-envvar-when-unprivileged = false: NVIDIA_VISIBLE_DEVICES, by which agents name their GPU, does not count")...)
	}
	return all
}

// cgroupDriver: see docs/gpu.md, gpu.denied.
func cgroupDriver(f *Facts) []found {
	if agents := f.of(true); f.Engine.Driver == "systemd" && f.Toolkit.legacy() && len(agents) > 0 {
		return ofThese(agents, "the cgroup driver is systemd, and nvidia-container-toolkit %s works in legacy mode for %s", f.Toolkit.Version, names(agents))
	}
	return nil
}

func dockerRuntime(f *Facts) []found {
	if agents := f.of(true); f.Engine.Answers() && len(agents) > 0 && !slices.Contains(f.Engine.Runtimes, "nvidia") {
		return ofThese(agents, "it knows %s; the runtime nvidia is for %s", names(f.Engine.Runtimes), names(agents))
	}
	return nil
}

// SpecDirs are the folders where NVIDIA's runtime looks for specifications.
var SpecDirs = []string{"/etc/cdi", "/var/run/cdi"}

// byCDI are the agents that get their GPU by CDI: from the engine, whose kind says so,
// and from NVIDIA's runtime, where that is in mode cdi.
func (f *Facts) byCDI() (engine, runtime []string) {
	for _, a := range f.Agents {
		if a.Settings != nil && a.Settings.Kind == "nvidia-cdi" {
			engine = append(engine, a.Name)
		}
	}
	if f.Toolkit.Mode == "cdi" {
		runtime = f.of(true)
	}
	return engine, runtime
}

// specs are the specifications in folders.
func (f *Facts) specs(dirs []string) (all []Spec) {
	for _, s := range f.Toolkit.Specs {
		if slices.Contains(dirs, s.Dir) {
			all = append(all, s)
		}
	}
	return all
}

func cdiMissing(f *Facts) (all []found) {
	engine, runtime := f.byCDI()
	switch {
	case len(engine) == 0 || !f.Engine.Answers():
	case len(f.Engine.CDI) == 0:
		all = append(all, found{about: engine, Problem: Problem{fmt.Sprintf("Docker %s does not do CDI, which is for %s", f.Engine.Version, names(engine)),
			`Docker 28.2 or later does; from 25 on with "features": {"cdi": true} in /etc/docker/daemon.json`}})
	case len(f.specs(f.Engine.CDI)) == 0:
		all = append(all, ofThese(engine, "no specification of nvidia.com/gpu in %s; CDI is for %s", names(f.Engine.CDI), names(engine))...)
	}
	if len(runtime) > 0 && len(f.specs(SpecDirs)) == 0 {
		all = append(all, ofThese(runtime, "no specification of nvidia.com/gpu in %s, and NVIDIA's runtime is in mode cdi, for %s", names(SpecDirs), names(runtime))...)
	}
	return all
}

func cdiStale(f *Facts) (all []found) {
	engine, runtime := f.byCDI()
	for _, s := range f.Toolkit.Specs {
		if driver := f.Driver.Version; len(engine)+len(runtime) > 0 && driver != "" && len(s.Drivers) > 0 && !slices.Contains(s.Drivers, driver) {
			all = append(all, ofThese(slices.Concat(engine, runtime), "%s mounts the files of driver %s, and %s is loaded", s.Path, names(s.Drivers), driver)...)
		}
	}
	for _, a := range f.Agents {
		dirs := f.Engine.CDI
		if slices.Contains(runtime, a.Name) {
			dirs = SpecDirs
		} else if !slices.Contains(engine, a.Name) {
			continue
		}
		for _, gpu := range a.Settings.GPUs {
			if !slices.ContainsFunc(f.specs(dirs), func(s Spec) bool { return slices.Contains(s.Devices, gpu) }) {
				all = append(all, found{agent: a.Name, Problem: Problem{What: "no specification has nvidia.com/gpu=" + gpu}})
			}
		}
	}
	return all
}

// runcDevices: with the cgroup driver systemd, runc 1.1.3 to 1.1.6 leave out the rule of
// a device that has no link in /dev/char (its changelog, 1.1.7). NVIDIA's have none.
func runcDevices(f *Facts) []found {
	agents, _ := f.byCDI()
	if !f.Toolkit.legacy() {
		agents = append(agents, f.of(true)...)
	}
	if version := f.Engine.RunC; len(agents) > 0 && f.Engine.Driver == "systemd" && version != "" && !older(version, "1.1.3") && older(version, "1.1.7") {
		return ofThese(agents, "runc %s, and the cgroup driver is systemd; GPUs are for %s", version, names(agents))
	}
	return nil
}
