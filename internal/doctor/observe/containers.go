package observe

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// rootfsLabel is on an image that says which rootfs.tar it holds, by its SHA-256.
const rootfsLabel = "com.github.juliagpu.secrets.rootfs"

// inspected decodes what docker inspected: one JSON text after the other. What is not
// there is no error; why is what else there is instead of an answer.
func inspected[T any](a Answer) (all []T, why string) {
	if why := a.why(); why != "" && !strings.Contains(strings.ToLower(a.Said), "no such ") {
		return nil, why
	}
	for d := json.NewDecoder(bytes.NewReader(a.Out)); ; {
		var one T
		switch err := d.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all, ""
		case err != nil:
			return nil, "an answer that makes no sense"
		}
		all = append(all, one)
	}
}

// images finds the agents' images, and holds them against what is installed here. Each
// is asked for by itself: the engine knows which is meant by a name.
func (o *observer) images(agents []*doctor.Agent) (silent []string) {
	var names []string
	for _, a := range agents {
		if a.Settings != nil && !slices.Contains(names, a.Settings.Image) {
			names = append(names, a.Settings.Image)
		}
	}
	type image struct {
		Created time.Time
		Config  struct{ Labels map[string]string }
	}
	found, whys := make([][]image, len(names)), make([]string, len(names))
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			found[i], whys[i] = inspected[image](o.Run("docker", "image", "inspect", "--format", "{{json .}}", "--", name))
		})
	}
	rootfs, err := os.Stat(o.path(inImage))
	sum := sync.OnceValue(func() string { return sumOf(o.path(inImage)) })
	group.Wait()
	for i, name := range names {
		if whys[i] != "" {
			silent = append(silent, "docker image inspect "+escape.Text(name)+": "+whys[i])
		}
	}
	for _, a := range agents {
		if a.Settings == nil {
			continue
		}
		i := slices.Index(names, a.Settings.Image)
		a.Image.Asked, a.Image.There = whys[i] == "", len(found[i]) > 0
		if !a.Image.There || err != nil {
			continue
		}
		switch is := found[i][0]; {
		case is.Config.Labels[rootfsLabel] != "":
			if is.Config.Labels[rootfsLabel] != sum() {
				a.Image.Old = "holds another " + inImage
			}
		case is.Created.Before(rootfs.ModTime()):
			a.Image.Old = "is of " + is.Created.UTC().Format(time.DateTime) + ", and " + inImage + " of " + rootfs.ModTime().UTC().Format(time.DateTime)
		}
	}
	return silent
}

func sumOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// projects asks Compose whether it would start each agent: it reads all files, and
// starts nothing.
func (o *observer) projects(agents []*doctor.Agent) (silent []string) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, a := range agents {
		if a.Settings == nil {
			continue
		}
		group.Go(func() {
			dir := fleet.Dir + "/" + a.Name
			answer := o.Run("docker", "compose", "--project-directory="+dir, "config", "--quiet")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case answer.Missing:
			case o.UID != 0 && strings.Contains(answer.Said, "permission denied"):
				o.hide("what Compose says of " + a.Name)
			case answer.Hangs || answer.Err != nil:
				silent = append(silent, "docker compose of "+a.Name+": "+answer.why())
			case answer.Status != 0:
				a.Compose = doctor.Problem{What: o.plain(unquoted(answer.why())), Fix: "docker compose --project-directory=" + dir + " config names all of it; what is missing belongs into its .env, or into host.env beside it"}
			}
		})
	}
	group.Wait()
	slices.Sort(silent)
	return silent
}

// unquoted is what Compose says of a file of variables, without the part of it that it
// quotes: somebody may have put a token there.
func unquoted(said string) string {
	if before, _, cut := strings.Cut(said, `"`); cut && strings.HasPrefix(said, "failed to read ") {
		return before + "…"
	}
	return said
}

// containers looks for doors that agents' containers have open. What pre-command
// measures inside counts more: this is for those in which it does not run.
func (o *observer) containers(agents []*doctor.Agent) (silent []string) {
	if len(agents) == 0 {
		return nil
	}
	args := []string{"container", "inspect", "--format", "{{json .}}", "--"}
	for _, a := range agents {
		args = append(args, fleet.Container(a.Name))
	}
	all, why := inspected[container](o.Run("docker", args...))
	if why != "" {
		return []string{"docker container inspect: " + why}
	}
	for _, c := range all {
		for _, a := range agents {
			if c.Name == "/"+fleet.Container(a.Name) {
				a.Container = &doctor.Running{Restart: escape.Text(c.HostConfig.RestartPolicy.Name), Open: c.doors(a.Name)}
				if c.HostConfig.RestartPolicy.Name == "" {
					a.Container.Restart = ""
				}
			}
		}
	}
	return nil
}

// A container is what docker shows of one.
type container struct {
	Name       string
	HostConfig struct {
		Privileged                                bool
		PidMode, IpcMode, NetworkMode, UsernsMode string
		CapAdd, SecurityOpt                       []string
		RestartPolicy                             struct{ Name string }
	}
	Mounts []struct{ Source string }
}

// granted are the capabilities that deploy/compose/agent.yml adds.
var granted = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID", "KILL"}

// What leads out of a container: what is below these, and what they are in; and others
// that are only for what they are in.
var (
	inside = []string{"/etc/juliagpu-secrets/agents", "/etc/juliagpu-secrets/credentials", "/root", "/proc", "/sys", "/dev", "/boot"}
	above  = []string{"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", starts + "/agents", "/var/lib/docker"}
)

// doors are what an agent's container has open, as its compose.yml would say it.
func (c container) doors(agent string) (open []string) {
	h := c.HostConfig
	if h.Privileged {
		open = append(open, "privileged: true")
	}
	for _, ns := range [][2]string{{"pid", h.PidMode}, {"ipc", h.IpcMode}, {"network_mode", h.NetworkMode}, {"userns_mode", h.UsernsMode}} {
		if ns[1] == "host" {
			open = append(open, ns[0]+": host")
		}
	}
	for _, capability := range h.CapAdd {
		if name := strings.TrimPrefix(strings.ToUpper(capability), "CAP_"); !slices.Contains(granted, name) {
			open = append(open, "cap_add: "+escape.Text(name))
		}
	}
	for _, option := range h.SecurityOpt {
		if strings.HasSuffix(option, "unconfined") || option == "label=disable" || option == "label:disable" {
			open = append(open, "security_opt: "+escape.Text(option))
		}
	}
	for _, m := range c.Mounts {
		source := path.Clean(m.Source)
		leads := func(to string) bool { return procfs.Under(to, source) }
		others := procfs.Under(source, starts+"/agents") && source != starts+"/agents/"+agent
		if m.Source != "" && (others || slices.ContainsFunc(above, leads) || slices.ContainsFunc(inside, func(to string) bool { return leads(to) || procfs.Under(source, to) })) {
			open = append(open, "volume "+escape.Text(m.Source))
		}
	}
	return open
}
