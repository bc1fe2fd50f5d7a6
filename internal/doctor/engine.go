package doctor

import (
	"strings"

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
