package tests

import (
	"archive/tar"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// TestSplitInDocker runs split mode as it is meant to be run: one agent in one
// container of a real engine, with what docs/operators.md gives that container.
func TestSplitInDocker(t *testing.T) {
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		need.Skip(t, "no Docker Engine answers: "+strings.SplitN(string(out), "\n", 2)[0])
	}
	gateway := ""
	if bridge, err := net.InterfaceByName("docker0"); err == nil {
		if addresses, err := bridge.Addrs(); err == nil && len(addresses) > 0 {
			gateway, _, _ = strings.Cut(addresses[0].String(), "/")
		}
	}
	if gateway == "" {
		need.Skip(t, "the Docker Engine has no network docker0 on this machine")
	}
	binaries, agent := programs(t)
	h := &host{t: t, identities: t.TempDir()}
	to, _ := h.identity("identity", false)
	image := "split-" + strings.ToLower(canary("image")[13:])
	cmd := exec.Command("docker", "import", "-", image)
	cmd.Stdin = bytes.NewReader(splitImage(t, binaries, agent, filepath.Join(h.identities, "identity")))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { exec.Command("docker", "rmi", "-f", image).Run() })

	value := canary("value")
	sealed := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}
	for _, tt := range []struct {
		name, says, value string
		env               map[string]string
		uid               string
	}{
		{"trusted", "SECRET_TOKEN: granted\n", value, nil, "4711"},
		{"a fork", "SECRET_TOKEN: withheld: pull request 17 is from", "", fork, "4712"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, err := agenttest.NewServerOn(gateway)
			require.NoError(t, err)
			defer server.Close()
			id := server.Add(agenttest.Job{Env: mergeEnv(sealed, tt.env),
				Command: show("TOKEN") + "id -u | sed 's/^/uid /'; grep NoNewPrivs /proc/self/status; /usr/lib/juliagpu-secrets/probe seek; sleep 0.3"})
			name := image + "-" + tt.uid
			t.Cleanup(func() { exec.Command("docker", "rm", "-f", name).Run() })
			args := []string{"run", "--name", name, "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--pids-limit=8192", "--memory=1g",
				"--tmpfs=/root:mode=700", "--tmpfs=/run:mode=755", "--shm-size=64m"}
			for _, c := range []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID", "KILL"} {
				args = append(args, "--cap-add="+c)
			}
			args = append(args, "-e", "BUILDKITE_AGENT_TOKEN="+server.Token, "-e", "BUILDKITE_BOOTSTRAP_PHASES=plugin,command", image, "/bin/bash", "-c",
				`mkdir -m 711 /run/juliagpu-secrets && mv /identity /run/juliagpu-secrets/ && for u in 4711 4712; do
d=/var/lib/juliagpu-secrets/$u; mkdir -p $d/builds/agenttest/juliagpu/cuda-dot-jl; chown -R $u:$u $d/builds; chown 0:$u $d; done
exec /usr/bin/buildkite-agent start --name agenttest --endpoint `+server.URL+` --disconnect-after-job --build-path /builds --plugins-path /plugins \
--hooks-path /usr/lib/juliagpu-secrets/hooks --bootstrap-script /usr/lib/juliagpu-secrets/launch --experiment polyglot-hooks --no-ssh-keyscan --no-color --no-pty`)
			cmd := exec.CommandContext(t.Context(), "docker", args...)
			cmd.WaitDelay = time.Second
			out, err := cmd.CombinedOutput()
			log := string(out)
			require.NoError(t, err, log)
			r := server.Record(id)
			text := r.Text()
			require.True(t, r.Finished, log)
			require.Equal(t, 0, r.ExitStatus, text+log)
			for _, part := range []string{tt.says, sum("TOKEN", tt.value), "uid " + tt.uid + "\n", "NoNewPrivs:\t1", "SOUGHT in", ":lock: GPU isolation"} {
				require.Contains(t, text, part)
			}
			require.NotContains(t, text, "secrets.readable")
			require.Equal(t, map[bool]string{true: "value"}[tt.value != ""], finds(text), text)
			for _, c := range append(h.identityTexts(), []byte(value)) {
				require.False(t, agenttest.Contains([]byte(text+log), c), "in a log")
			}
		})
	}
}

// splitImage is an image with our programs, the agent, and what a job needs of
// this machine's own: a shell, some tools, their libraries.
func splitImage(t *testing.T, binaries, agent, identity string) []byte {
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	made := map[string]bool{"/": true}
	dir := func(path string, mode int64) {
		if !made[path] {
			made[path] = true
			require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path[1:] + "/", Mode: mode}))
		}
	}
	var parents func(string)
	parents = func(path string) {
		if path != "/" {
			parents(filepath.Dir(path))
			dir(path, 0o755)
		}
	}
	file := func(path string, mode int64, text []byte) {
		if made[path] {
			return
		}
		made[path] = true
		parents(filepath.Dir(path))
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path[1:], Mode: mode, Size: int64(len(text))}))
		_, err := w.Write(text)
		require.NoError(t, err)
	}
	copied := func(from, to string) {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		file(to, 0o755, text)
	}
	dir("/tmp", 0o1777)
	for _, d := range []string{"/proc", "/sys", "/dev", "/run", "/root", "/etc", "/var/lib"} {
		parents(d)
	}
	for _, name := range []string{"launch", "agent-startup", "probe"} {
		from := "./cmd/" + name
		if name == "probe" {
			from = "./tests/probe"
		}
		require.NoError(t, agenttest.Build(t.Context(), from, filepath.Join(binaries, name)))
	}
	const lib = "/usr/lib/juliagpu-secrets/"
	for _, name := range []string{"launch", "agent-startup", "pre-bootstrap", "environment", "pre-command", "pre-exit", "probe"} {
		copied(filepath.Join(binaries, name), lib+name)
	}
	parents(lib + "hooks")
	for _, name := range []string{"agent-startup", "pre-bootstrap"} {
		file(lib+"hooks/"+name, 0o755, []byte("#!"+lib+name+"\n"))
	}
	for _, name := range []string{"environment", "pre-command", "pre-exit"} {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: lib[1:] + "hooks/" + name, Linkname: "../" + name}))
	}
	copied(agent, "/usr/bin/buildkite-agent")
	text, err := os.ReadFile(identity)
	require.NoError(t, err)
	file("/identity", 0o600, text)
	file("/etc/juliagpu-secrets/config.yml", 0o644, []byte("mode: split\nisolation: {expect: container}\nconsume: true\n"+
		"identities: [{file: /run/juliagpu-secrets/identity}]\nusers: {trusted: \"4711:4711\", other: \"4712:4712\"}\ngpu: {vendor: none}\n"))
	library := regexp.MustCompile(`(/\S+) \(0x`)
	for _, name := range []string{"bash", "cat", "env", "sed", "sha256sum", "base64", "id", "grep", "mkdir", "mv", "chown", "sleep"} {
		path, err := exec.LookPath(name)
		require.NoError(t, err)
		copied(path, "/bin/"+name)
		out, err := exec.Command("ldd", path).Output()
		require.NoError(t, err)
		for _, found := range library.FindAllStringSubmatch(string(out), -1) {
			copied(found[1], found[1])
		}
	}
	require.NoError(t, w.Close())
	return image.Bytes()
}
