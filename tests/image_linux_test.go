package tests

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// agentParts are what an agent's image is built from.
func agentParts(t *testing.T) dock.Agent {
	t.Helper()
	a, err := dock.NewAgent()
	if errors.Is(err, dock.ErrMissing) {
		need.Skip(t, err.Error())
	}
	require.NoError(t, err)
	return a
}

// agentImage is the name of an agent's image; the word tells it from others.
func agentImage(t *testing.T, a dock.Agent, word string, b dock.Builder, flags ...string) string {
	t.Helper()
	name, err := a.Kept(t.Context(), word, b, flags...)
	if errors.Is(err, dock.ErrMissing) {
		need.Skip(t, err.Error())
	}
	require.NoError(t, err)
	return name
}

// imageTime is the time of what is ours in an image.
var imageTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// ours are the entries of the layers that are ours: users, agent, programs.
var ours = [][]string{
	{
		"drwxr-xr-x 0:0 etc/",
		"-rw-r--r-- 0:0 etc/group",
		"-rw-r----- 0:42 etc/gshadow",
		"-rw-r--r-- 0:0 etc/passwd",
		"-rw-r----- 0:42 etc/shadow",
	}, {
		"drwxr-xr-x 0:0 usr/",
		"drwxr-xr-x 0:0 usr/bin/",
		"-rwxr-xr-x 0:0 usr/bin/buildkite-agent",
	}, {
		"drwxr-xr-x 0:0 etc/",
		"drwxr-xr-x 0:0 etc/juliagpu-secrets/",
		"drwxr-xr-x 0:0 usr/",
		"drwxr-xr-x 0:0 usr/bin/",
		"-rwxr-xr-x 0:0 usr/bin/juliagpu",
		"drwxr-xr-x 0:0 usr/lib/",
		"drwxr-xr-x 0:0 usr/lib/juliagpu-secrets/",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/agent-startup",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/attest",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/environment",
		"drwxr-xr-x 0:0 usr/lib/juliagpu-secrets/hooks/",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/hooks/agent-startup",
		"Lrwxrwxrwx 0:0 usr/lib/juliagpu-secrets/hooks/environment -> ../environment",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/hooks/pre-bootstrap",
		"Lrwxrwxrwx 0:0 usr/lib/juliagpu-secrets/hooks/pre-command -> ../pre-command",
		"Lrwxrwxrwx 0:0 usr/lib/juliagpu-secrets/hooks/pre-exit -> ../pre-exit",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/launch",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/pre-bootstrap",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/pre-command",
		"-rwxr-xr-x 0:0 usr/lib/juliagpu-secrets/pre-exit",
		"drwxr-xr-x 0:0 var/",
		"drwxr-xr-x 0:0 var/lib/",
		"drwxr-xr-x 0:0 var/lib/juliagpu-secrets/",
	},
}

// An entry is one of a layer: how it looks, and what is in it.
type entry struct {
	looks string
	time  time.Time
	text  []byte
}

// saved returns the layers of an image, the base's first, and what the image says
// of itself.
func saved(t *testing.T, image string) (layers [][]entry, config []byte) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", "save", image)
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	files := map[string][]byte{}
	for r := tar.NewReader(pipe); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if h.Typeflag == tar.TypeReg {
			files[h.Name], err = io.ReadAll(r)
			require.NoError(t, err)
		}
	}
	require.NoError(t, cmd.Wait())
	var manifest []struct {
		Config string
		Layers []string
	}
	require.NoError(t, json.Unmarshal(files["manifest.json"], &manifest))
	for _, name := range manifest[0].Layers {
		var layer []entry
		for r := tar.NewReader(bytes.NewReader(files[name])); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			text, err := io.ReadAll(r)
			require.NoError(t, err)
			looks := h.FileInfo().Mode().String() + " " + strconv.Itoa(h.Uid) + ":" + strconv.Itoa(h.Gid) + " " + h.Name
			if h.Linkname != "" {
				looks += " -> " + h.Linkname
			}
			layer = append(layer, entry{looks, h.ModTime, text})
		}
		layers = append(layers, layer)
	}
	return layers, files[manifest[0].Config]
}

// layerSums are the checksums of an image's layers, the base's first.
func layerSums(t *testing.T, image string) (sums []string) {
	t.Helper()
	out, err := dock.Engine{}.Docker(t.Context(), nil, "image", "inspect", "--format", "{{json .RootFS.Layers}}", image)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(out), &sums))
	return sums
}

// TestImage: what is in the image of an agent, and what is not.
func TestImage(t *testing.T) {
	t.Parallel()
	a := agentParts(t)
	root, err := agenttest.Root()
	require.NoError(t, err)
	image := agentImage(t, a, "", dock.BuildKit)
	layers, config := saved(t, image)
	base := len(layerSums(t, a.Base))
	require.Len(t, layers, base+4, "users, packages, agent, programs")
	added := layers[base:]

	var says struct {
		Config struct {
			User            string
			Env, Entrypoint []string
			Labels          map[string]string
		}
	}
	require.NoError(t, json.Unmarshal(config, &says))
	require.Equal(t, "0:0", says.Config.User)
	require.Equal(t, []string{"/usr/bin/buildkite-agent"}, says.Config.Entrypoint)
	require.Contains(t, says.Config.Env, "NVIDIA_VISIBLE_DEVICES=void")
	require.Equal(t, a.Version, says.Config.Labels["org.opencontainers.image.version"])

	for i, layer := range [][]entry{added[0], added[2], added[3]} {
		var looks []string
		for _, e := range layer {
			looks = append(looks, e.looks)
			require.Equal(t, imageTime, e.time.UTC(), e.looks)
		}
		require.Equal(t, ours[i], looks)
	}

	stray := []string{dock.StrayToken}
	for _, text := range dock.Stray {
		stray = append(stray, strings.TrimSpace(text))
	}
	key := regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{30}|AGE-SECRET-KEY-(PQ-)?1[A-Z0-9]{50}`)
	for i, layer := range append(added, []entry{{looks: "configuration", text: config}}) {
		for _, e := range layer {
			require.False(t, key.Match(e.text), "a key: %s", e.looks)
			for _, s := range stray {
				require.False(t, bytes.Contains(e.text, []byte(s)), "%s: %s", e.looks, s)
			}
			// The packages may have any text, but none of this machine's.
			require.False(t, i != 1 && bytes.Contains(e.text, []byte(root+"/")), "%s: a path of this machine", e.looks)
			require.NotRegexp(t, `/var/lib/apt/lists/.+[^/]$|\.deb$|/var/log/.*log$|/aux-cache$`, e.looks)
		}
	}
}

// TestImageAgain: what is ours is the same in each build, whoever builds.
func TestImageAgain(t *testing.T) {
	t.Parallel()
	a := agentParts(t)
	base := len(layerSums(t, a.Base))
	first := layerSums(t, agentImage(t, a, "", dock.BuildKit))[base:]
	for _, tt := range []struct {
		word    string
		builder dock.Builder
		flags   []string
	}{{"-again", dock.BuildKit, []string{"--no-cache"}}, {"-classic", dock.Classic, nil}} {
		t.Run(tt.word[1:], func(t *testing.T) {
			t.Parallel()
			again := layerSums(t, agentImage(t, a, tt.word, tt.builder, tt.flags...))[base:]
			for i, layer := range []string{"users", "packages", "agent", "programs"} {
				if i == 1 {
					t.Log("the layer of packages is the same: ", first[i] == again[i])
					continue
				}
				require.Equal(t, first[i], again[i], layer)
			}
		})
	}
}

// TestImageRefused: a build that can't be right ends with the reason, and without
// an image.
func TestImageRefused(t *testing.T) {
	t.Parallel()
	a := agentParts(t)
	agentImage(t, a, "", dock.BuildKit) // its packages are in the builder's cache
	var e dock.Engine
	name := "image-" + strings.ToLower(canary("image")[13:])
	taken := name + "-base"
	t.Cleanup(func() {
		e.Docker(context.Background(), nil, "rm", "-f", taken)
		e.Docker(context.Background(), nil, "rmi", "-f", taken)
	})
	_, err := e.Docker(t.Context(), nil, "run", "--name", taken, "--user=0", "--entrypoint=", a.Base, "sh", "-c", "echo bob:x:1000:4712::/home/bob:/bin/sh >>/etc/passwd")
	require.NoError(t, err)
	_, err = e.Docker(t.Context(), nil, "commit", taken, taken)
	require.NoError(t, err)
	for _, tt := range []struct {
		name string
		args map[string]string
		says string
	}{
		{"no version", map[string]string{"agent_version": ""}, "agent_version and agent_sha256 are missing: --build-arg agent_version=VERSION"},
		{"no checksum", map[string]string{"agent_sha256": ""}, "both are at https://github.com/buildkite/agent/releases"},
		{"another checksum", map[string]string{"agent_sha256": strings.Repeat("0", 64)}, "has the SHA-256 " + a.SHA256() + ", not 000"},
		{"no such release", map[string]string{"agent_version": "0.0.1"}, "/v0.0.1/buildkite-agent-linux-"},
		{"a base with a user of our number", map[string]string{"base": taken}, "in /etc/passwd of the base buildkite-other or 4712, which is to be a job's user, is another's: bob:x:1000:4712:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, err := a.Build(t.Context(), dock.BuildKit, name, tt.args)
			require.Error(t, err)
			require.Contains(t, log, tt.says)
			left, err := e.Docker(t.Context(), nil, "image", "ls", "-q", name)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestImageAgent: an agent of the image starts, and jobs of either user find what
// they need.
func TestImageAgent(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give an agent credentials in a tmpfs")
	a := agentParts(t)
	image := agentImage(t, a, "", dock.BuildKit)
	programs(t)
	for _, tt := range []struct {
		name, user, outcome string
		env                 map[string]string
	}{{"trusted", "buildkite-trusted", "granted", nil}, {"a fork", "buildkite-other", "withheld", fork}} {
		t.Run(tt.name, func(t *testing.T) {
			h := &host{t: t, identities: t.TempDir()}
			to, _ := h.identity("identity", false)
			server, err := agenttest.NewServerOn(a.Address)
			require.NoError(t, err)
			defer server.Close()
			value := canary("value")
			id := server.Add(agenttest.Job{Env: mergeEnv(map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}, tt.env), Command: `
echo "user $(whoami) secrets $JULIAGPU_SECRETS home $HOME $(getent passwd $(id -u) | cut -d : -f 6)"
for tool in bunzip2 curl gdb git gpg openssl ps python3 ssh unzip wget xz zstd; do $tool --version >/dev/null 2>&1 || command -v $tool || echo "lacks $tool"; done
curl -s --head ` + server.URL + ` | head -1; echo end`})

			credentials, err := os.MkdirTemp("/dev/shm", "bk-credentials-")
			require.NoError(t, err)
			defer os.RemoveAll(credentials)
			identity, err := os.ReadFile(filepath.Join(h.identities, "identity"))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(credentials, "identity"), identity, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(credentials, "agent.cfg"), []byte("token=\""+server.Token+"\"\n"), 0o600))
			config := filepath.Join(t.TempDir(), "config.yml")
			require.NoError(t, os.WriteFile(config, []byte("mode: split\nconsume: true\nidentities: [{file: /run/juliagpu-secrets/credentials/identity}]\n"+
				"users: {trusted: buildkite-trusted, other: buildkite-other}\ngpu: {vendor: none}\n"), 0o644))
			kept := t.TempDir()
			require.NoError(t, os.Chmod(kept, 0o755))
			for _, user := range []int{trusted, other} { // a job without a checkout
				dir := filepath.Join(kept, strconv.Itoa(user), "builds")
				require.NoError(t, os.MkdirAll(filepath.Join(dir, "agenttest/juliagpu/cuda-dot-jl"), 0o755))
				out, err := exec.Command("chown", "-R", fmt.Sprint(user, ":", user), dir).CombinedOutput()
				require.NoError(t, err, "%s", out)
				require.NoError(t, os.Chown(filepath.Dir(dir), 0, user))
			}
			args := []string{"run", "--rm", "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--pids-limit=8192", "--memory=1g",
				"--tmpfs=/root:mode=700", "--tmpfs=/run:mode=755", "--volume=" + credentials + ":/run/juliagpu-secrets/credentials",
				"--volume=" + kept + ":/var/lib/juliagpu-secrets", "--volume=" + config + ":" + dock.Config + ":ro", "--env=BUILDKITE_BOOTSTRAP_PHASES=plugin,command"}
			for _, c := range []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID", "KILL"} {
				args = append(args, "--cap-add="+c)
			}
			cmd := exec.CommandContext(t.Context(), "docker", append(args, image, "start", "--config=/run/juliagpu-secrets/credentials/agent.cfg", "--name=agenttest", "--endpoint="+server.URL,
				"--disconnect-after-job", "--build-path=/builds", "--plugins-path=/plugins", "--hooks-path="+dock.Lib+"hooks", "--bootstrap-script="+dock.Lib+"launch",
				"--experiment=polyglot-hooks", "--no-ssh-keyscan", "--no-color", "--no-pty")...)
			out, err := cmd.CombinedOutput()
			log := string(out)
			require.NoError(t, err, log)
			require.Contains(t, log, "agent-startup: ")
			r := server.Record(id)
			require.True(t, r.Finished, log)
			require.Equal(t, 0, r.ExitStatus, r.Text()+log)
			home := "/var/lib/juliagpu-secrets/" + map[string]string{"buildkite-trusted": "4711", "buildkite-other": "4712"}[tt.user] + "/home"
			require.Contains(t, r.Text(), "user "+tt.user+" secrets "+tt.outcome+" home "+home+" "+home+"\n")
			require.Contains(t, r.Text(), "\nend\n")
			require.NotRegexp(t, "(?m)^lacks ", r.Text())
			_, err = os.Stat(filepath.Join(credentials, "identity"))
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

// TestImageDerived: packages are added as docs/image.md says.
func TestImageDerived(t *testing.T) {
	t.Parallel()
	a := agentParts(t)
	image := agentImage(t, a, "", dock.BuildKit)
	root, err := agenttest.Root()
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(root, "docs", "image.md"))
	require.NoError(t, err)
	_, example, _ := strings.Cut(string(page), "```dockerfile\n")
	example, _, ok := strings.Cut(example, "```")
	require.True(t, ok)
	require.Contains(t, example, "FROM juliagpu-agent:cuda\n")
	name := "image-" + strings.ToLower(canary("derived")[15:])
	t.Cleanup(func() { exec.Command("docker", "rmi", name).Run() })
	cmd := exec.CommandContext(t.Context(), "docker", "build", "--force-rm", "-t", name, "-")
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	cmd.Stdin = strings.NewReader(strings.Replace(example, "juliagpu-agent:cuda", image, 1))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	log, err := dock.Engine{}.Docker(t.Context(), nil, "run", "--rm", "--user=4712:4712", "--entrypoint=/usr/bin/jq", name, "--version")
	require.NoError(t, err)
	require.Contains(t, log, "jq")
	log, err = dock.Engine{}.Docker(t.Context(), nil, "run", "--rm", name, "--version")
	require.NoError(t, err)
	require.Contains(t, log, "buildkite-agent version "+a.Version)
}
