package observe

import (
	"path/filepath"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// units asks systemd for the agents' units, and the engine's. A machine that it did
// not start has none.
func (o *observer) units(agents []*doctor.Agent) {
	if !o.there("/run/systemd/system") {
		return
	}
	args := []string{"show", "--property=Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,FragmentPath,DropInPaths,NeedDaemonReload", "--", "docker.service"}
	for _, a := range agents {
		args = append(args, "buildkite-agent@"+a.Name+".service")
	}
	answer := o.Run("systemctl", args...)
	if answer.why() != "" {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.facts.Unread = append(o.facts.Unread, doctor.Problem{What: "systemctl: " + o.plain(answer.why())})
		return
	}
	for _, block := range strings.Split(strings.TrimSpace(string(answer.Out)), "\n\n") {
		is := map[string]string{}
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			is[name] = value
		}
		if is["Id"] == "docker.service" && is["LoadState"] == "loaded" && is["ActiveState"] != "active" {
			o.facts.Engine.Service = escape.Text(is["ActiveState"])
		}
		for _, a := range agents {
			if is["Id"] != "buildkite-agent@"+a.Name+".service" {
				continue
			}
			u := &a.Unit
			u.Asked, u.Missing = true, is["LoadState"] == "not-found"
			u.Active, u.Sub, u.Enabled, u.Result, u.Status = is["ActiveState"], is["SubState"], is["UnitFileState"], is["Result"], is["ExecMainStatus"]
			u.Reload = is["NeedDaemonReload"] == "yes"
			if path := is["FragmentPath"]; strings.HasPrefix(path, "/etc/") {
				u.Copied = escape.Text(path)
			}
			for _, path := range strings.Fields(is["DropInPaths"]) {
				if strings.HasPrefix(path, "/etc/") || strings.HasPrefix(path, "/run/") {
					u.DropIns = append(u.DropIns, escape.Text(filepath.Base(path)))
				}
			}
		}
	}
}
