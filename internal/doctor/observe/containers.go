package observe

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
)

// rootfsLabel is on an image that says which rootfs.tar it holds, by its SHA-256.
const rootfsLabel = "com.github.juliagpu.secrets.rootfs"

// objects decodes one JSON text after the other.
func objects[T any](text []byte) (all []T) {
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var one T
		if d.Decode(&one) != nil {
			return all
		}
		all = append(all, one)
	}
}

// images finds the agents' images, and holds them against what is installed here.
func (o *observer) images(agents []*doctor.Agent) {
	args := []string{"image", "inspect", "--format", "{{json .}}"}
	for _, a := range agents {
		if a.Settings != nil && !slices.Contains(args, a.Settings.Image) {
			args = append(args, a.Settings.Image)
		}
	}
	if len(args) == 4 {
		return
	}
	type image struct {
		RepoTags []string
		Created  time.Time
		Config   struct{ Labels map[string]string }
	}
	answer := o.Run("docker", args...)
	if answer.why() != "" && !strings.Contains(strings.ToLower(answer.Said), "no such ") {
		return
	}
	all := objects[image](answer.Out)
	rootfs, err := os.Stat(o.path(inImage))
	sum := sync.OnceValue(func() string { return sumOf(o.path(inImage)) })
	for _, a := range agents {
		if a.Settings == nil {
			continue
		}
		a.Image.Asked = true
		name := a.Settings.Image
		if last := name[strings.LastIndex(name, "/")+1:]; !strings.ContainsAny(last, ":@") {
			name += ":latest"
		}
		i := slices.IndexFunc(all, func(i image) bool { return slices.Contains(i.RepoTags, name) })
		if i < 0 {
			continue
		}
		a.Image.There = true
		switch label := all[i].Config.Labels[rootfsLabel]; {
		case err != nil:
		case label != "" && label != sum():
			a.Image.Old = "holds another " + inImage
		case label == "" && all[i].Created.Before(rootfs.ModTime()):
			a.Image.Old = "is of " + all[i].Created.UTC().Format(time.DateTime) + ", and " + inImage + " of " + rootfs.ModTime().UTC().Format(time.DateTime)
		}
	}
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

// containers looks for doors that agents' containers have open. What pre-command
// measures inside counts more: this is for those in which it does not run.
func (o *observer) containers(agents []*doctor.Agent) {
	if len(agents) == 0 {
		return
	}
	args := []string{"container", "inspect", "--format", "{{json .}}"}
	for _, a := range agents {
		args = append(args, fleet.Container(a.Name))
	}
	type container struct {
		Name       string
		HostConfig struct {
			Privileged                    bool
			PidMode, IpcMode, NetworkMode string
			RestartPolicy                 struct{ Name string }
		}
		Mounts []struct{ Source, Destination string }
	}
	for _, c := range objects[container](o.Run("docker", args...).Out) {
		r := &doctor.Running{Restart: escape.Text(c.HostConfig.RestartPolicy.Name)}
		if r.Restart == `""` {
			r.Restart = ""
		}
		if c.HostConfig.Privileged {
			r.Open = append(r.Open, "privileged: true")
		}
		for _, ns := range [][2]string{{"pid", c.HostConfig.PidMode}, {"ipc", c.HostConfig.IpcMode}, {"network_mode", c.HostConfig.NetworkMode}} {
			if ns[1] == "host" {
				r.Open = append(r.Open, ns[0]+": host")
			}
		}
		for _, m := range c.Mounts {
			if strings.HasSuffix(m.Source, "/docker.sock") || m.Source == "/" {
				r.Open = append(r.Open, "volume "+escape.Text(m.Source))
			}
		}
		for _, a := range agents {
			if c.Name == "/"+fleet.Container(a.Name) {
				a.Container = r
			}
		}
	}
}
