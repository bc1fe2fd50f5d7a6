package tests

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/barehost"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// A world is what a host finds on the network: github.com with its repositories and
// the agent's releases, and Buildkite's REST API.
type world struct {
	*restserver.Server
	repositories string // a folder of bare ones
	plain        string // github.com by plain HTTP, for containers
	closed       string // HOST:PORT of both by HTTPS
	roots        []byte // who vouches for them
}

// version is the agent's release on the page. In its place stands the one that tests run.
const version = "3.137.0"

func newWorld(t *testing.T, gateway string, agent dock.Agent) world {
	t.Helper()
	w := world{repositories: t.TempDir()}
	var err error
	w.Server, err = restserver.StartWith(t.TempDir(), gateway, restserver.Good)
	require.NoError(t, err)
	t.Cleanup(func() { w.Server.Close() })
	path, err := exec.Command("git", "--exec-path").Output()
	require.NoError(t, err)
	github := http.NewServeMux()
	github.Handle("/", &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + w.repositories, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=op",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	at, release := "/buildkite/agent/releases/download/v"+version+"/", "buildkite-agent-linux-"+runtime.GOARCH+"-"+version+".tar.gz"
	github.HandleFunc(at+release, func(out http.ResponseWriter, _ *http.Request) { out.Write(agent.Release) })
	github.HandleFunc(at+"buildkite-agent-"+version+".SHA256SUMS", func(out http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(out, "%s  %s\n", agent.SHA256(), release)
	})
	roots, certificate, err := restserver.Certify("github.com", "api.buildkite.com")
	require.NoError(t, err)
	w.roots = roots
	server := &http.Server{
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{certificate}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // Git's program speaks HTTP/1
		ErrorLog:     log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if r.Host == "api.buildkite.com" {
				w.ServeHTTP(out, r)
				return
			}
			github.ServeHTTP(out, r)
		}),
	}
	t.Cleanup(func() { server.Close() })
	for _, closed := range []bool{false, true} {
		l, err := net.Listen("tcp", gateway+":0")
		require.NoError(t, err)
		if closed {
			w.closed = l.Addr().String()
			go server.ServeTLS(l, "", "")
		} else {
			w.plain = "http://" + l.Addr().String() + "/"
			go server.Serve(l)
		}
	}
	return w
}

// repository makes one of github.com's.
func (w world) repository(t *testing.T, name string, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	_, err := agenttest.GitRepo(dir, files)
	require.NoError(t, err)
	w.publish(t, name, dir)
}

// project makes this checkout, as it is, one of github.com's.
func (w world) project(t *testing.T, root string) {
	t.Helper()
	dir := t.TempDir()
	for _, args := range [][]string{{"init", "--quiet"}, {"--work-tree=" + root, "add", "--all"}, {"-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message=test"}} {
		out, err := exec.Command("git", append([]string{"-C", dir, "-c", "safe.directory=*"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	w.publish(t, "juliagpu/secrets-buildkite-plugin", dir)
}

// publish makes a repository of github.com's from a local one.
func (w world) publish(t *testing.T, name, dir string) {
	t.Helper()
	bare := filepath.Join(w.repositories, name)
	for _, args := range [][]string{{"clone", "--quiet", "--bare", dir, bare}, {"-C", bare, "config", "http.receivepack", "true"}} {
		out, err := exec.Command("git", append([]string{"-c", "safe.directory=*"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

// newWalk boots a host with what an operator finds on one, and what the world has.
func newWalk(t *testing.T) (*walk, world) {
	t.Helper()
	need.Root(t, "to boot a host")
	agent := agentParts(t)
	if _, err := exec.LookPath("gcc"); err != nil {
		need.Skip(t, "needs gcc, to build NVIDIA's programs")
	}
	tool := func(name string) string {
		path, err := agenttest.Tool(t.Context(), name, os.Stderr)
		require.NoError(t, err)
		return path
	}
	goEnv := func(name string) string {
		out, err := exec.Command("go", "env", name).Output()
		require.NoError(t, err)
		return strings.TrimSpace(string(out))
	}
	root, err := agenttest.Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "docs", "operators.md"))
	require.NoError(t, err)

	w := &walk{text: string(text), page: pieces(string(text)), dir: "/home/op", site: &site{t: t, project: root, Host: barehost.Boot(t,
		barehost.Bind{From: tool("docker-compose"), To: "/usr/libexec/docker/cli-plugins/docker-compose", ReadOnly: true},
		barehost.Bind{From: goEnv("GOROOT"), To: "/usr/local/go", ReadOnly: true},
		barehost.Bind{From: goEnv("GOMODCACHE"), To: "/root/go/pkg/mod"},
		barehost.Bind{From: goEnv("GOCACHE"), To: "/root/.cache/go-build"},
	)}}
	require.NotEmpty(t, w.page)
	w.server, err = agenttest.NewServerOn(w.Gateway)
	require.NoError(t, err)
	t.Cleanup(func() { w.server.Close() })
	world := newWorld(t, w.Gateway, agent)
	world.project(t, root)

	// The network: two names, and who vouches for them.
	w.write("usr/local/share/ca-certificates/world.crt", string(world.roots), 0o644)
	w.must("sh", "-ec", "update-ca-certificates >/dev/null 2>&1; echo '127.0.0.2 github.com api.buildkite.com' >>/etc/hosts")
	w.must("systemd-run", "--quiet", "--unit=world", "--socket-property=ListenStream=127.0.0.2:443", "/lib/systemd/systemd-socket-proxyd", world.closed)

	// What apt-get and snap would bring is there.
	w.write("usr/local/sbin/apt-get", `#!/bin/sh
case $1 in
update) exit 0 ;;
install) shift ;;
*) exit 100 ;;
esac
for package; do
	case $package in
	--yes) ;;
	docker-compose-v2) docker compose version >/dev/null || exit 100 ;; # Ubuntu's name for it
	*) dpkg --status "$package" >/dev/null || exit 100 ;;
	esac
done
`, 0o755)
	w.write("usr/local/sbin/snap", "#!/bin/sh\n[ \"$*\" = 'install go --classic' ] && ln -s /usr/local/go/bin/go /usr/local/bin/go\n", 0o755)
	w.must("useradd", "--create-home", "--shell=/bin/bash", "op")
	w.write("home/op/.gitconfig", "[user]\n\tname = op\n\temail = op@example.com\n", 0o644)

	for _, name := range []string{"nvidia-ctk", "nvidia-container-runtime"} {
		program, err := os.ReadFile(tool(name))
		require.NoError(t, err)
		w.write("usr/bin/"+name, string(program), 0o755)
	}

	// Bases that a registry would have.
	w.load(agent.Base)
	for _, name := range []string{"ubuntu:24.04", "nvidia/cuda:13.0.1-devel-ubuntu24.04"} {
		w.must("docker", "tag", agent.Base, name)
	}
	return w, world
}

// gpus plays those that a host of cmd/juliagpu's tests has, as far as the driver and
// nvidia-smi show them. Nodes and what a container is shown are of one GPU alone. No
// program can use any.
func (w *walk) gpus() {
	w.t.Helper()
	archive, err := txtar.ParseFile(filepath.Join(w.project, "cmd/juliagpu/testdata/host.txtar"))
	require.NoError(w.t, err)
	for _, f := range archive.Files {
		switch {
		case strings.HasPrefix(f.Name, "usr/bin/"):
			w.write(f.Name, string(f.Data), 0o755)
		case strings.HasPrefix(f.Name, "proc/driver/"):
			w.write("srv/"+f.Name, string(f.Data), 0o644)
		}
	}
	w.must("sh", "-ec", `mount --bind /srv/proc/driver /proc/driver
sed 's/^Character devices:/&\n195 nvidia\n235 nvidia-caps\n508 nvidia-uvm/' /proc/devices >/srv/devices
mount --bind /srv/devices /proc/devices
mknod -m 666 /dev/nvidia2 c 195 2; mknod -m 666 /dev/nvidiactl c 195 255; mknod -m 666 /dev/nvidia-uvm c 508 0; mknod -m 666 /dev/nvidia-uvm-tools c 508 1
mkdir -p /dev/dri/by-path`)
	// As nvidia-ctk cdi generate writes it where there is a driver, but for the last
	// line: there the kernel shows what this hook does.
	w.write("etc/cdi/nvidia.yaml", `cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
  - name: GPU-1b7ad372-8d21-4239-8e32-63449f713690
    containerEdits: {deviceNodes: [{path: /dev/nvidia2}]}
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  deviceNodes: [{path: /dev/nvidiactl}, {path: /dev/nvidia-uvm}, {path: /dev/nvidia-uvm-tools}]
  mounts: [{hostPath: /srv/nvidia-smi, containerPath: /usr/bin/nvidia-smi, options: [ro, nosuid, nodev, rbind, rprivate]}]
  hooks: [{hookName: createContainer, path: /srv/driver}]
`, 0o644)
	w.write("srv/driver", `#!/bin/sh
set -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin
bundle=$(sed -n 's/.*"bundle": *"\([^"]*\)".*/\1/p')
root=$(sed -n 's/.*"root":{"path":"\([^"]*\)".*/\1/p' "$bundle/config.json")
mount --bind /srv/proc/driver "$root/proc/driver"
mount -o remount,bind,ro,nosuid,nodev "$root/proc/driver"
mount --bind /srv/devices "$root/proc/devices"
mount -o remount,bind,ro,nosuid,nodev "$root/proc/devices"
`, 0o755)
	w.write("srv/nvidia-smi", `#!/bin/sh
case $1 in
--query-gpu=*gpu_recovery_action*) echo 'GPU-1b7ad372-8d21-4239-8e32-63449f713690, 00000000:81:00.0, 1, 16384, Default, Enabled, [N/A], 0, None, [N/A], [N/A]' ;;
esac
`, 0o755)
	w.write("etc/nvidia-container-runtime/config.toml", "[nvidia-container-runtime]\nmode = \"cdi\"\nruntimes = [\"runc\"]\n", 0o644)
}

// talks has an agent talk to the test's servers. Its folder is the one that
// juliagpu agent new made.
func (w *walk) talks(name string, world world) {
	w.t.Helper()
	folder := "etc/juliagpu-secrets/agents/" + name
	w.must("sed", "-i", `s/\.yml"\]/.yml", here.yml]/`, "/"+folder+"/compose.yml")
	w.write(folder+"/here.yml", fmt.Sprintf(`services:
  agent:
    build: {args: {agent_url: "%sbuildkite/agent/releases/download"}}
    command: [--endpoint=%s, --no-pty, --no-color, --no-ssh-keyscan]
    environment: {GIT_CONFIG_COUNT: "1", GIT_CONFIG_KEY_0: "url.%[1]s.insteadOf", GIT_CONFIG_VALUE_0: "https://github.com/"}
`, world.plain, w.server.URL), 0o644)
}
