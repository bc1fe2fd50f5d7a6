package observe

import (
	"os"
	"strings"

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
	for _, dir := range []string{"/etc/cdi", "/var/run/cdi", "/run/cdi"} {
		entries, _ := os.ReadDir(o.path(dir))
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "nvidia") {
				t.Spec = dir + "/" + e.Name()
			}
		}
	}
}
