package doctor

import (
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

func engineMissing(f *Facts) []found {
	switch e := f.Engine; {
	case !e.Missing:
		return nil
	case e.Instead.What != "":
		return if1(e.Instead)
	}
	return one("there is no docker in /usr/bin and the like")
}

func engineHangs(f *Facts) []found {
	if f.Engine.Hangs == "" {
		return nil
	}
	return one("%s says nothing for 15 seconds", f.Engine.Hangs)
}

func engineDown(f *Facts) []found {
	e := f.Engine
	if e.Down == "" {
		return nil
	}
	p := Problem{What: e.Down}
	if f.Service.State != "" {
		p.What += "; docker.service is " + f.Service.State
	}
	switch {
	case f.Service.State == "masked":
		p.Fix = "systemctl unmask docker.service docker.socket; systemctl start docker"
	case strings.HasPrefix(e.Down, "docker info: "):
		p.Fix = "docker info shows all that it says; journalctl -u docker says more"
	}
	return if1(p)
}

func engineOld(f *Facts) []found {
	if !older(f.Engine.Version, "20.10.10") {
		return nil
	}
	return one("Docker Engine %s", f.Engine.Version)
}

// engineStop: dockerd waits for containers, which wait for their jobs. Where systemd
// does not let it, the next dockerd sends each of them a second SIGTERM, upon which an
// agent cancels its job.
func engineStop(f *Facts) []found {
	if stop := f.Service.Stop; stop > 0 && stop < time.Hour && !f.Engine.Restores && len(f.Agents) > 0 {
		return one("docker.service has %s to stop", stop)
	}
	return nil
}

func composeMissing(f *Facts) []found {
	if !f.Compose.Missing {
		return nil
	}
	return one("docker has no command compose")
}

func composeOld(f *Facts) []found {
	if !older(f.Compose.Version, "2.20") {
		return nil
	}
	return one("Compose %s", f.Compose.Version)
}

func cgroupV1(f *Facts) []found {
	if f.Engine.Cgroup != "1" {
		return nil
	}
	return one("cgroup v1")
}

func runcOld(f *Facts) []found {
	if holes := gpu.Holes("runc", plain(f.Engine.RunC)); len(holes) > 0 {
		return one("runc %s has %s", f.Engine.RunC, strings.Join(holes, "; "))
	}
	return nil
}

func dockerSocket(f *Facts) (all []found) {
	if f.Socket.Others {
		all = one("/run/docker.sock has mode %s", f.Socket.Mode)
	}
	if exposed := f.Engine.Exposed; len(exposed) > 0 {
		all = append(all, found{Problem: Problem{"it takes orders on " + names(exposed),
			`take hosts: out of /etc/docker/daemon.json, and -H of docker.service back to fd://: systemctl edit docker; or demand certificates (docs.docker.com/engine/security/protect-access)`}})
	}
	return all
}

func dockerMapped(f *Facts) []found {
	switch f.Engine.Mapped {
	case "rootless":
		return one("the engine is rootless")
	case "userns":
		return one("the engine maps users (userns-remap)")
	}
	return nil
}

func dockerSeccomp(f *Facts) []found {
	if !f.Engine.Unconfined {
		return nil
	}
	return one("the engine has no seccomp profile for containers")
}

func dockerGroup(f *Facts) []found {
	if len(f.Socket.People) == 0 {
		return nil
	}
	return one("group %s: %s", f.Socket.Group, names(f.Socket.People))
}
