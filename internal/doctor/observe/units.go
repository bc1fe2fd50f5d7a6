package observe

import (
	"cmp"
	"errors"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// units asks systemd for the agents' units, and the engine's. A machine that it did
// not start has none.
func (o *observer) units(agents []*doctor.Agent) {
	if !o.there("/run/systemd/system") {
		return
	}
	args := []string{"show", "--property=Id,LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,FragmentPath,DropInPaths,NeedDaemonReload,TimeoutStopUSec", "--", "docker.service"}
	for _, a := range agents {
		args = append(args, "buildkite-agent@"+a.Name+".service")
	}
	answer := o.Run("systemctl", args...)
	if answer.why() != "" {
		o.unread("systemctl: " + answer.why())
		return
	}
	version := o.Run("systemctl", "--version")
	if fields := strings.Fields(firstLine(string(version.Out))); version.why() == "" && len(fields) > 1 { // systemd 255 (255.4-1ubuntu8)
		o.facts.Systemd = escape.Text(fields[1])
	} else {
		o.unread("systemctl --version: " + cmp.Or(version.why(), "an answer that makes no sense"))
	}
	for _, block := range strings.Split(strings.TrimSpace(string(answer.Out)), "\n\n") {
		is := map[string]string{}
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			is[name] = value
		}
		if is["Id"] == "docker.service" {
			o.service(is)
		}
		for _, a := range agents {
			if is["Id"] == "buildkite-agent@"+a.Name+".service" {
				o.unit(&a.Unit, is)
			}
		}
	}
}

// service is the engine's, by the properties that systemctl shows of it.
func (o *observer) service(is map[string]string) {
	switch load, active := is["LoadState"], is["ActiveState"]; {
	case load == "" || load == "not-found" || load == "loaded" && active == "active":
	case load == "loaded":
		o.facts.Service.State = escape.Text(active)
	default: // masked, bad-setting
		o.facts.Service.State = escape.Text(load)
	}
	stop, err := span(is["TimeoutStopUSec"])
	if is["LoadState"] == "loaded" && err != nil {
		o.unread("TimeoutStopUSec of docker.service: " + err.Error())
	}
	o.facts.Service.Stop = stop
}

// span reads a span of time as systemctl shows it: 1min 30s, 1.5s, infinity.
func span(text string) (time.Duration, error) {
	if text == "infinity" {
		return math.MaxInt64, nil
	}
	units := map[string]string{"y": "8766h", "month": "730h30m", "w": "168h", "d": "24h", "h": "1h", "min": "1m", "s": "1s", "ms": "1ms", "us": "1us"}
	var sum time.Duration
	for _, field := range strings.Fields(text) {
		digits := strings.IndexFunc(field, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		n, err := strconv.ParseFloat(field[:max(digits, 0)], 64)
		unit, unitErr := time.ParseDuration(units[field[max(digits, 0):]])
		if err != nil || unitErr != nil {
			return 0, errors.New("not a span of time")
		}
		sum += time.Duration(n * float64(unit))
	}
	return sum, nil
}

// unit is an agent's, by the properties that systemctl shows of it.
func (o *observer) unit(u *doctor.Unit, is map[string]string) {
	u.Asked, u.Load, u.Missing = true, is["LoadState"], is["LoadState"] == "not-found"
	u.Active, u.Sub, u.Enabled, u.Result, u.Status = is["ActiveState"], is["SubState"], is["UnitFileState"], is["Result"], is["ExecMainStatus"]
	u.Reload = is["NeedDaemonReload"] == "yes"
	if path := is["FragmentPath"]; strings.HasPrefix(path, "/etc/") {
		u.Copied = escape.Text(path)
	}
	dropIns := strings.Fields(is["DropInPaths"])
	for _, path := range dropIns {
		if strings.HasPrefix(path, "/etc/") || strings.HasPrefix(path, "/run/") {
			u.DropIns = append(u.DropIns, escape.Text(filepath.Base(path)))
		}
	}
	if u.Load == "loaded" && is["FragmentPath"] != "" {
		u.Loads = o.loads(append([]string{is["FragmentPath"]}, dropIns...))
	}
}

// loads reads what a unit's files say of credentials. systemctl knows it, too, but not
// that of systemd 249.
func (o *observer) loads(files []string) *doctor.Loads {
	var l doctor.Loads
	for _, path := range files {
		text, err := o.read(path)
		if err != nil {
			if !o.unseen("the agents' units", err) {
				o.unread(path + ": " + err.Error())
			}
			return nil
		}
		for line := range strings.Lines(string(text)) {
			setting, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			name, from, _ := strings.Cut(strings.TrimSpace(value), ":")
			switch setting = strings.TrimSpace(setting); {
			case setting != "LoadCredential" && setting != "LoadCredentialEncrypted":
			case name == "": // takes back all before it
				l = doctor.Loads{}
			case setting == "LoadCredential":
				l.Folder = l.Folder || filepath.Clean(from) == atRest
			default:
				if from = cmp.Or(from, name); !filepath.IsAbs(from) { // systemd.exec(5)
					from = "/etc/credstore.encrypted/" + from
				}
				if l.Encrypted == nil {
					l.Encrypted = map[string]string{}
				}
				l.Encrypted[name] = from
			}
		}
	}
	return &l
}
