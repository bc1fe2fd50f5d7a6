package tests

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

const unit = "buildkite-agent@cpu.1"

// eventually waits until a command on the host prints a text.
func (s *site) eventually(text string, command ...string) (out string) {
	s.t.Helper()
	for range 600 {
		if out, _ = s.Run(command...); strings.Contains(out, text) {
			return out
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.Fail(s.t, "not within a minute", "%v: no %q in: %s\n%s", command, text, out, s.journal())
	return ""
}

// journal is what the unit has said so far.
func (s *site) journal() string {
	out, _ := s.Run("journalctl", "--no-pager", "--output=cat", "--unit="+unit)
	return out
}

// log waits for a text in a job's log.
func (s *site) log(job, text string) {
	s.t.Helper()
	for range 600 {
		if strings.Contains(s.server.Record(job).Text(), text) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.Fail(s.t, "not within a minute", "no %q in: %s\n%s", text, s.server.Record(job).Text(), s.journal())
}

// finished waits for a job's end.
func (s *site) finished(job string) agenttest.Record {
	s.t.Helper()
	for range 600 {
		if r := s.server.Record(job); r.Finished {
			return r
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.Fail(s.t, "not within a minute", "%s\n%s", s.server.Record(job).Text(), s.journal())
	return agenttest.Record{}
}

// write writes a file of the host's.
func (s *site) write(path, text string, mode os.FileMode) {
	s.t.Helper()
	path = filepath.Join(s.Root, path)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(s.t, os.WriteFile(path, []byte(text), mode))
}

// TestUnits: an agent's unit under a real systemd. Whatever ends it, a job that runs
// ends first, and the next start is fresh.
func TestUnits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	value := canary("value")
	secret := map[string]string{"SECRET_TOKEN": seal(t, s.to, "TOKEN", value, nil)}
	granted := func(then string) string {
		return s.server.Add(agenttest.Job{Env: secret, Command: show("TOKEN") + "hostname | sed 's/^/host /'; echo started; " + then + "echo end-of-job"})
	}
	good := func(r agenttest.Record) {
		t.Helper()
		require.Contains(t, r.Text(), sum("TOKEN", value), s.journal())
		require.Contains(t, r.Text(), "\nend-of-job")
		require.Zero(t, r.ExitStatus)
	}
	is := func(state string) {
		t.Helper()
		s.eventually(state, "systemctl", "show", "--property=ActiveState,SubState,Result", unit)
	}

	// A step that fails is the last one.
	step := func(name string, run func()) {
		t.Helper()
		t.Log(name)
		run()
	}

	step("systemd has nothing against it", func() {
		require.Empty(t, s.must("systemd-analyze", "verify", "--recursive-errors=yes", unit+".service"))
		out := s.must("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=29", unit+".service")
		_, score, _ := strings.Cut(out, "Overall exposure level")
		t.Log(strings.TrimSpace(score))
	})

	step("a container for each job", func() {
		one, two := granted(""), granted("")
		s.must("systemctl", "start", unit)
		a, b := s.finished(one), s.finished(two)
		good(a)
		good(b)
		host := func(r agenttest.Record) string {
			_, host, _ := strings.Cut(r.Text(), "\nhost ")
			host, _, _ = strings.Cut(host, "\n")
			return host
		}
		require.NotEmpty(t, host(a))
		require.NotEqual(t, host(a), host(b))
		require.Contains(t, s.journal(), "Assigned job "+one)
		out := s.eventually(`"ended"`, "juliagpu", "agent", "list", "--json")
		require.Contains(t, out, `"id": "`+two+`"`)
		s.eventually(`"is": "running, not at boot"`, "juliagpu", "agent", "list", "--json")
	})

	step("stopped while idle", func() {
		s.eventually("cpu.1", "docker", "ps", "--format={{.Names}}")
		s.must("systemctl", "stop", unit)
		is("Result=success\nActiveState=inactive")
		require.Empty(t, s.must("docker", "ps", "--quiet"))
		require.Empty(t, s.must("ls", "-A", "/run/juliagpu-secrets/agents/cpu.1"), "nobody consumed them")
	})

	step("stopped while it starts", func() {
		for range 5 { // at once, and while Compose makes the container
			s.must("systemctl", "start", unit)
			s.must("timeout", "60", "systemctl", "stop", unit)
			is("Result=success\nActiveState=inactive")
			require.Empty(t, s.must("docker", "ps", "--quiet"))
		}
	})

	step("stopped while it registers", func() { // before it hears signals
		silent, err := net.Listen("tcp", net.JoinHostPort(s.Gateway, "0"))
		require.NoError(t, err)
		defer silent.Close()
		require.NoError(t, silent.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)))
		s.talks("http://" + silent.Addr().String() + "/v3")
		s.must("systemctl", "start", unit)
		agent, err := silent.Accept()
		require.NoError(t, err, s.journal())
		defer agent.Close()
		s.must("timeout", "60", "systemctl", "stop", unit)
		is("Result=success\nActiveState=inactive")
		require.Empty(t, s.must("docker", "ps", "--quiet"))
		s.talks(s.server.URL)
	})

	step("drained under a job", func() {
		id := granted("sleep 4; ")
		s.must("systemctl", "start", unit)
		s.log(id, "started\n")
		s.eventually("runs for ", "juliagpu", "agent", "list")
		s.must("systemctl", "stop", unit)
		good(s.server.Record(id))
		is("Result=success\nActiveState=inactive")
		require.Contains(t, s.journal(), "cpu.1: draining: a job has 6h0m0s to end")
	})

	step("killed while it drains", func() {
		id := granted("sleep 6; ")
		s.must("systemctl", "start", unit)
		s.log(id, "started\n")
		container := s.must("docker", "ps", "--quiet", "--no-trunc")
		s.must("systemctl", "stop", "--no-block", unit)
		s.eventually(container, "cat", "/run/juliagpu-secrets/failures/cpu.1.drain")
		s.Run("systemctl", "kill", "--kill-who=all", "--signal=KILL", unit)
		s.eventually("cpu.1: draining, which it was asked for before: ", "journalctl", "--no-pager", "--output=cat", "--unit="+unit)
		good(s.finished(id)) // asked twice, the agent would cancel it
		is("ActiveState=failed")
	})

	step("drained no longer than its limit", func() {
		dropIn := "etc/systemd/system/buildkite-agent@.service.d/limit.conf"
		s.write(dropIn, "[Service]\nEnvironment=DRAIN_SECONDS=2\n", 0o644)
		s.must("systemctl", "daemon-reload")
		id := granted("sleep 600; ")
		s.must("systemctl", "start", unit)
		s.log(id, "started\n")
		s.must("systemctl", "stop", unit)
		require.NotContains(t, s.server.Record(id).Text(), "\nend-of-job")
		require.Contains(t, s.journal(), "cpu.1: killed with its job, which did not end within 2s")
		is("Result=exit-code\nActiveState=failed")
		require.Empty(t, s.must("docker", "ps", "--quiet"))
		require.NoError(t, os.Remove(filepath.Join(s.Root, dropIn)))
		s.must("systemctl", "daemon-reload")
		s.must("systemctl", "reset-failed", unit)
	})

	step("killed under a job", func() {
		id := granted("sleep 4; ")
		s.must("systemctl", "restart", unit)
		s.log(id, "started\n")
		s.must("systemctl", "kill", "--kill-who=main", "--signal=KILL", unit)
		next := granted("")
		good(s.finished(id))
		require.NotContains(t, s.server.Record(next).Text(), "started")
		good(s.finished(next))
		require.Contains(t, s.journal(), "cpu.1: failures in a row: 1; starts in 5s")
	})

	step("the engine restarted under a job", func() {
		id := granted("sleep 4; ")
		s.log(id, "started\n")
		s.must("systemctl", "restart", "docker")
		good(s.finished(id))
		good(s.finished(granted("")))
	})

	step("a credential missing", func() {
		s.must("systemctl", "stop", unit)
		s.must("mv", "/etc/juliagpu-secrets/credentials/identity", "/root/")
		s.Run("systemctl", "start", unit)
		s.eventually("failures in a row: 2; starts in 10s", "journalctl", "--no-pager", "--output=cat", "--unit="+unit)
		require.Contains(t, s.journal(), "identity: no such file")
		require.Empty(t, s.must("docker", "ps", "--quiet"))
		require.Empty(t, s.must("ls", "-A", "/run/juliagpu-secrets/agents/cpu.1"))
		s.must("mv", "/root/identity", "/etc/juliagpu-secrets/credentials/")
		s.must("systemctl", "restart", unit) // which does not wait
		good(s.finished(granted("")))
	})

	step("encrypted credentials", func() {
		s.must("systemctl", "stop", unit)
		s.must("sh", "-ec", "cd /etc/juliagpu-secrets/credentials; mv identity agent-token /root; ls -A")
		s.must("juliagpu", "keys", "install", "/root/identity", "--encrypt")
		s.must("sh", "-ec", "cd /etc/juliagpu-secrets/credentials; systemd-creds encrypt --name=agent-token /root/agent-token agent-token.cred; rm /root/identity /root/agent-token")
		shipped, err := os.ReadFile(filepath.Join(s.project, "deploy/systemd/encrypted.conf"))
		require.NoError(t, err)
		s.write("etc/systemd/system/buildkite-agent@.service.d/encrypted.conf", string(shipped), 0o644)
		s.must("systemctl", "daemon-reload")
		require.Empty(t, s.must("systemd-analyze", "verify", "--recursive-errors=yes", unit+".service"))
		id := granted("")
		s.must("systemctl", "start", unit)
		good(s.finished(id))
		s.must("systemctl", "stop", unit)
		for _, needle := range append(s.identities, []byte(s.server.Token)) {
			hits, err := agenttest.Search(filepath.Join(s.Root, "etc"), needle)
			require.NoError(t, err)
			require.Empty(t, hits)
		}
	})

	// systemd itself can't load it, and so runs nothing that has credentials.
	step("an encrypted credential missing", func() {
		since := fmt.Sprintf("--since=@%d", time.Now().Unix())
		s.must("mv", "/etc/juliagpu-secrets/credentials/identity.cred", "/root/")
		s.Run("systemctl", "start", unit)
		out := s.eventually("failures in a row: 2; starts in 10s", "journalctl", "--no-pager", "--output=cat", "--unit="+unit, since)
		require.Contains(t, out, "243/CREDENTIALS")
		s.must("mv", "/root/identity.cred", "/etc/juliagpu-secrets/credentials/")
		s.must("systemctl", "restart", unit)
		good(s.finished(granted("")))
		s.must("systemctl", "stop", unit)
	})

	inspect := s.must("docker", "inspect", "buildkite-agent-cpu.1")
	step("removed under a job", func() {
		id := granted("sleep 4; ")
		s.must("systemctl", "enable", "--now", unit)
		s.log(id, "started\n")
		out := s.must("juliagpu", "agent", "remove", "cpu.1", "--yes")
		good(s.server.Record(id))
		require.Contains(t, out, "cpu.1: draining: ")
		require.Contains(t, out, "cpu.1: removed; its folder is now /etc/juliagpu-secrets/removed/cpu.1-")
		require.Empty(t, s.must("docker", "ps", "--all", "--quiet"))
		require.Empty(t, s.must("sh", "-c", "ls -A /var/lib/juliagpu-secrets/agents /run/juliagpu-secrets/agents/ /run/juliagpu-secrets/gpu /run/juliagpu-secrets/failures | grep cpu.1; losetup --list | grep 'cpu.1.img (deleted)'; true"), "loop devices are those of all hosts")
		out, _ = s.Run("systemctl", "is-enabled", unit)
		require.Contains(t, out, "disabled")
	})

	for what, text := range map[string]string{
		"the journal":    s.must("journalctl", "--no-pager", "--output=export"),
		"docker inspect": inspect,
		"what is left":   s.must("sh", "-c", "grep -ra . /run/juliagpu-secrets /run/credentials 2>/dev/null; systemctl show "+unit),
	} {
		for _, needle := range append(s.identities, []byte(value), []byte(s.server.Token)) {
			require.False(t, agenttest.Contains([]byte(text), needle), "%s: %.12s…", what, needle)
		}
	}
}
