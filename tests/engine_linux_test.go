package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/barehost"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// A site is a host of its own, with a real engine, on which everything is where
// operators have it, and one agent, cpu.1.
type site struct {
	t *testing.T
	*barehost.Host
	server     *agenttest.Server
	to         envelope.Recipient
	identities [][]byte
	project    string // where this project lies, here
}

func newSite(t *testing.T) *site {
	t.Helper()
	need.Root(t, "to boot a host")
	image, err := dock.AgentImage(t.Context())
	if errors.Is(err, dock.ErrMissing) {
		need.Skip(t, err.Error())
	}
	require.NoError(t, err)
	compose, err := agenttest.Tool(t.Context(), "docker-compose", os.Stderr)
	require.NoError(t, err)
	root, err := agenttest.Root()
	require.NoError(t, err)
	bin := filepath.Join(t.TempDir(), "juliagpu")
	require.NoError(t, agenttest.Build(t.Context(), "./cmd/juliagpu", bin))

	s := &site{t: t, project: root, Host: barehost.Boot(t,
		barehost.Bind{From: bin, To: "/usr/bin/juliagpu", ReadOnly: true},
		barehost.Bind{From: compose, To: "/usr/libexec/docker/cli-plugins/docker-compose", ReadOnly: true},
		barehost.Bind{From: filepath.Join(root, "deploy", "compose"), To: "/usr/share/juliagpu-secrets/compose", ReadOnly: true},
		barehost.Bind{From: filepath.Join(root, "deploy", "systemd", "buildkite-agent@.service"), To: "/usr/lib/systemd/system/buildkite-agent@.service", ReadOnly: true},
	)}
	s.server, err = agenttest.NewServerOn(s.Gateway)
	require.NoError(t, err)
	t.Cleanup(func() { s.server.Close() })

	keys := &host{t: t, identities: t.TempDir()}
	s.to, _ = keys.identity("identity", false)
	s.identities = keys.identityTexts()
	identity, err := os.ReadFile(filepath.Join(keys.identities, "identity"))
	require.NoError(t, err)
	for path, text := range map[string]string{
		"config.yml":              "mode: split\nconsume: true\nidentities: [{file: /run/juliagpu-secrets/credentials/identity}]\nusers: {trusted: \"4711:4711\", other: \"4712:4712\"}\n",
		"credentials/agent-token": s.server.Token + "\n",
		"credentials/identity":    string(identity),
		"agents/host.env":         "BUILDKITE_AGENT_VERSION=3.81.0\nBUILDKITE_AGENT_SHA256=0\nBUILDKITE_AGENT_EXPERIMENT=polyglot-hooks\n",
		"agents/cpu.1/.env": "AGENT_NAME=cpu.1\nAGENT_KIND=cpu\nAGENT_TAGS=queue=cpu\nAGENT_BASE=none\nAGENT_IMAGE=" + image +
			"\nAGENT_CPUS=1\nAGENT_MEMORY=1g\nAGENT_CACHE=64m\nJULIA_CPU_THREADS=2\nJULIA_NUM_THREADS=1\n",
		"agents/cpu.1/gpu.yml":     "gpu: {vendor: none}\n",
		"agents/cpu.1/compose.yml": "include:\n  - path: [/usr/share/juliagpu-secrets/compose/cpu.yml, here.yml]\n    env_file: [../host.env, .env]\n",
	} {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(path, "credentials") {
			mode = 0o600
		}
		s.write(filepath.Join("etc/juliagpu-secrets", path), text, mode)
	}
	s.talks(s.server.URL)
	s.load(image)
	return s
}

// talks says whom the agent talks to from its next start on, and that there is no checkout.
func (s *site) talks(url string) {
	s.t.Helper()
	s.write("etc/juliagpu-secrets/agents/cpu.1/here.yml", fmt.Sprintf("services:\n  agent:\n    command: [--endpoint=%s, --no-pty, --no-color, --no-ssh-keyscan]\n"+
		"    environment: {BUILDKITE_BOOTSTRAP_PHASES: \"plugin,command\"}\n", url), 0o644)
}

// load gives the host's engine an image of this machine's.
func (s *site) load(image string) {
	s.t.Helper()
	save := exec.CommandContext(s.t.Context(), "docker", "save", image)
	load := s.Command(s.t.Context(), "docker", "load")
	var err error
	load.Stdin, err = save.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, save.Start())
	out, err := load.CombinedOutput()
	require.NoError(s.t, err, string(out))
	require.NoError(s.t, save.Wait())
}

// must runs a command on the host that has to succeed.
func (s *site) must(command ...string) string {
	s.t.Helper()
	out, status := s.Run(command...)
	require.Zero(s.t, status, "%v: %s", command, out)
	return out
}

// An end is what a start of the agent came to.
type end struct {
	log    string
	status int
}

// up starts the agent as its unit does.
func (s *site) up() <-chan end {
	s.t.Helper()
	s.must("juliagpu", "agent", "prepare", "cpu.1")
	cmd := s.Command(context.Background(), "docker", "compose", "--ansi=never", "--progress=plain", "--project-directory=/etc/juliagpu-secrets/agents/cpu.1", "up",
		"--force-recreate", "--abort-on-container-exit", "--exit-code-from=agent", "--no-build", "--pull=never", "--no-log-prefix")
	done := make(chan end, 1)
	go func() {
		out, _ := cmd.CombinedOutput()
		done <- end{string(out), cmd.ProcessState.ExitCode()}
	}()
	return done
}

// wait waits for the end, or for a text in a job's log before it.
func (s *site) wait(done <-chan end, job, text string) end {
	s.t.Helper()
	late := time.After(time.Minute)
	for {
		select {
		case e := <-done:
			require.Empty(s.t, text, "the agent has ended with status %d: %s\n%s", e.status, e.log, s.server.Record(job).Text())
			return e
		case <-late:
			all, _ := s.Run("docker", "ps", "--all")
			log, _ := s.Run("docker", "logs", "buildkite-agent-cpu.1")
			require.Fail(s.t, "not within a minute", all+log+s.server.Record(job).Text())
		case <-time.After(50 * time.Millisecond):
			if text != "" && strings.Contains(s.server.Record(job).Text(), text) {
				return end{}
			}
		}
	}
}

// TestEngineRestarts: what is asked of the engine, its agents are asked, too: to end
// after their jobs. One that was killed asks what lives on when it starts again, and
// nobody takes a job's room away until then. Nothing starts again by itself, and the
// next start stumbles on nothing.
func TestEngineRestarts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	value := canary("value")
	secret := map[string]string{"SECRET_TOKEN": seal(t, s.to, "TOKEN", value, nil)}
	// systemd kills an engine that takes too long to stop, and the next one asks agents once
	// more, which cancels their jobs. With the drop-in that is shipped it waits.
	shipped, err := os.ReadFile(filepath.Join(s.project, "deploy/systemd/docker.conf"))
	require.NoError(t, err)
	s.write("etc/systemd/system/docker.service.d/10-short.conf", "[Service]\nTimeoutStopSec=3\n", 0o644)
	for _, waits := range []bool{false, true} {
		if waits {
			s.write("etc/systemd/system/docker.service.d/20-shipped.conf", string(shipped), 0o644)
		}
		s.must("systemctl", "daemon-reload")
		id := s.server.Add(agenttest.Job{Command: "echo started; sleep 10; echo end-of-job"})
		ended := s.up()
		s.wait(ended, id, "started\n")
		s.must("systemctl", "restart", "docker")
		s.wait(ended, id, "")
		require.True(t, s.server.Record(id).Finished)
		require.Equal(t, waits, strings.Contains(s.server.Record(id).Text(), "\nend-of-job"), s.server.Record(id).Text())
	}

	for _, tt := range []struct {
		name    string
		command string
		clean   bool
	}{
		{"restarted", "systemctl restart docker", true},
		{"killed",
			// systemctl fails where a process of them is gone before it gets to it.
			"systemctl kill --kill-who=all --signal=KILL docker || { sleep 1; ! pgrep -x dockerd; }; if PATH=/nowhere /usr/bin/juliagpu agent prepare cpu.1; then exit 1; fi; for i in 1 2 3 4 5; do sleep 1; systemctl reset-failed docker; ! systemctl start docker || exit 0; done; exit 2", false},
	} {
		id := s.server.Add(agenttest.Job{Env: secret, Command: show("TOKEN") + "echo trap >\"$HOME/trap\"; echo started; sleep 5; cat \"$HOME/trap\"; echo end-of-job"})
		ended := s.up()
		s.wait(ended, id, "started\n")
		require.Contains(t, s.server.Record(id).Text(), sum("TOKEN", value))
		out, status := s.Run("juliagpu", "agent", "prepare", "cpu.1")
		require.Equal(t, 75, status, out)
		require.Contains(t, out, "is in a container that has it")

		s.must("sh", "-ec", tt.command)
		e := s.wait(ended, id, "")
		if tt.clean { // the agent; docker compose may still ask an engine that has ended by then
			require.Equal(t, "0\n", s.must("docker", "inspect", "--format={{.State.ExitCode}}", "buildkite-agent-cpu.1"), e.log)
		} else {
			require.NotZero(t, e.status, "%s: %s", tt.name, e.log)
		}
		require.True(t, s.server.Record(id).Finished, tt.name)
		require.Contains(t, s.server.Record(id).Text(), "\ntrap\nend-of-job", tt.name)
		require.Equal(t, "false 0\n", s.must("docker", "inspect", "--format={{.State.Running}} {{.RestartCount}}", "buildkite-agent-cpu.1"))
		require.Empty(t, s.must("ls", "-A", "/run/juliagpu-secrets/agents/cpu.1"), "credentials are consumed")

		next := s.server.Add(agenttest.Job{Env: secret, Command: show("TOKEN") + "ls -A \"$HOME\" | sed 's/^/left: /'"})
		e = s.wait(s.up(), next, "")
		require.Zero(t, e.status, e.log)
		r := s.server.Record(next)
		require.Contains(t, r.Text(), sum("TOKEN", value), e.log)
		require.NotContains(t, r.Text(), "left: trap")
		for what, text := range map[string]string{
			"the agent's log":  e.log,
			"the engine's log": s.must("journalctl", "--no-pager", "--unit=docker"),
			"docker inspect":   s.must("docker", "inspect", "buildkite-agent-cpu.1"),
		} {
			for _, needle := range append(s.identities, []byte(value), []byte(s.server.Token)) {
				require.False(t, agenttest.Contains([]byte(text), needle), what)
			}
		}
	}
}
