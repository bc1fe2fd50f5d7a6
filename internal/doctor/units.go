package doctor

import (
	"fmt"
	"strings"
)

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

func unitBroken(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		switch unit := unitOf(a); a.Unit.Load {
		case "masked":
			p = Problem{unit + " is masked", "systemctl unmask " + unit + "; systemctl enable --now " + unit + "; or juliagpu agent remove " + a.Name}
		case "bad-setting", "error":
			p = Problem{unit + ": " + a.Unit.Load, "systemd-analyze verify " + unit + ".service says in which line; correct it there, then systemctl daemon-reload"}
		}
		return p
	})
}

// systemdOld: LoadCredential= is of systemd 247, that of a folder of 250, and so is
// LoadCredentialEncrypted= (systemd.exec(5)). What it does not know at all it leaves out,
// and agent prepare reads the folder.
func systemdOld(f *Facts) []found {
	if !older(f.Systemd, "250") {
		return nil
	}
	var agents []string
	for _, a := range f.Agents {
		if l := a.Unit.Loads; l != nil && (l.Folder && !older(f.Systemd, "247") || len(l.Encrypted) > 0) {
			agents = append(agents, a.Name)
		}
	}
	if agents == nil {
		return nil
	}
	return ofThese(agents, "systemd %s, and the units of %s load the folder of credentials, or encrypted ones", f.Systemd, names(agents))
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
		if a.Unit.Enabled == "disabled" {
			p = Problem{unitOf(a) + " is disabled, and " + a.Unit.Active, "systemctl enable " + unitOf(a) + ", or juliagpu agent remove " + a.Name}
		}
		return p
	})
}

func unitLooping(f *Facts) []found {
	return units(f, func(a Agent) (p Problem) {
		switch u := a.Unit; {
		case u.Failures > 1 && u.Active != "active": // the count ends with the next job
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
		if a.Unit.Active == "inactive" && a.Unit.Enabled != "disabled" {
			p = Problem{unitOf(a) + " is not running", "systemctl start " + unitOf(a) + ", if nobody drained it"}
		}
		return p
	})
}
