package observe

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

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
}

// mostSpec is how long a CDI specification may be, in bytes: those of hosts with many
// slices are long.
const mostSpec = 4 << 20

// driverLibrary is one of the driver's in a specification: libcuda.so.580.159.03.
var driverLibrary = regexp.MustCompile(`lib(?:cuda|nvidia-ml)\.so\.([0-9]+(?:\.[0-9]+)+)`)

// specs finds the CDI specifications of NVIDIA's GPUs, where the engine and NVIDIA's
// runtime look for them: files of two kinds alone
// (github.com/cncf-tags/container-device-interface, SPEC.md).
func (o *observer) specs() {
	dirs := slices.Concat(o.facts.Engine.CDI, doctor.SpecDirs)
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		entries, err := os.ReadDir(o.path(dir))
		o.unseen(escape.Text(dir), err)
		for _, e := range entries {
			path := dir + "/" + e.Name()
			if ext := filepath.Ext(path); ext != ".yaml" && ext != ".json" {
				continue
			}
			s, ours, err := o.spec(path)
			switch {
			case o.unseen(escape.Text(path), err):
			case err != nil:
				o.unread(path + ": " + err.Error())
			case ours:
				s.Dir, s.Path = dir, escape.Text(path)
				o.facts.Toolkit.Specs = append(o.facts.Toolkit.Specs, s)
			}
		}
	}
}

// spec reads one, and tells whether it is of NVIDIA's GPUs.
func (o *observer) spec(path string) (s doctor.Spec, ours bool, err error) {
	f, err := os.Open(o.path(path))
	if err != nil {
		return s, false, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostSpec))
	if err != nil {
		return s, false, err
	}
	var is struct {
		Kind    string                  `yaml:"kind"`
		Devices []struct{ Name string } `yaml:"devices"`
	}
	if err := yaml.Unmarshal(text, &is); err != nil {
		return s, false, errors.New("not a CDI specification")
	}
	for _, d := range is.Devices {
		s.Devices = append(s.Devices, d.Name)
	}
	for _, m := range driverLibrary.FindAllSubmatch(text, -1) {
		if version := string(m[1]); !slices.Contains(s.Drivers, version) {
			s.Drivers = append(s.Drivers, version)
		}
	}
	return s, is.Kind == "nvidia.com/gpu", nil
}
