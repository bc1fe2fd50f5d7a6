package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/crew"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// aCrew skips a test where there is no engine, or no root to fill what agents hold.
func aCrew(t *testing.T) (c *crew.Crew, to envelope.Recipient, identities [][]byte, hire func() *crew.Member) {
	t.Helper()
	need.Root(t, "to fill what agents hold")
	h := &host{t: t, identities: t.TempDir()}
	to, _ = h.identity("identity", false)
	identity, err := os.ReadFile(filepath.Join(h.identities, "identity"))
	require.NoError(t, err)
	c, err = crew.New(t.Context(), t.TempDir(), identity)
	if errors.Is(err, dock.ErrMissing) {
		need.Skip(t, err.Error())
	}
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, to, h.identityTexts(), func() *crew.Member {
		m, err := c.Hire("crew-" + canary("name")[12:24])
		require.NoError(t, err)
		t.Cleanup(m.Dismiss)
		return m
	}
}

// TestAgents: a trusted job and a fork's, each in a container of its own, and no
// canary outside the granted job.
func TestAgents(t *testing.T) {
	t.Parallel()
	c, to, identities, hire := aCrew(t)
	m, value := hire(), canary("value")
	secret := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}
	command := show("TOKEN") + `id -un | sed 's/^/user /'; hostname | sed 's/^/host /'
ls -a /run/juliagpu-secrets/credentials 2>&1 | sed 's/^/credentials: /'
{ cat /run/juliagpu-secrets/credentials/* /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/self/mountinfo; env; } 2>/dev/null | tr '\0' '\n' | grep -v ^TOKEN=
ls -R /tmp /var/tmp /dev/shm /var/lib/juliagpu-secrets 2>/dev/null | sed 's/^/left: /'
touch /usr/bin/x 2>&1 | sed 's/^/image: /'; echo x >/tmp/trap; mkdir -p "$HOME" && echo x >"$HOME/trap"; echo end-of-job`
	var hosts []string
	for _, tt := range []struct {
		name, user, says, value string
		env                     map[string]string
	}{
		{"trusted", "buildkite-trusted", "SECRET_TOKEN: granted\n", value, nil},
		{"a fork's", "buildkite-other", "SECRET_TOKEN: withheld: pull request 17 is from", "", fork},
	} {
		id := m.Server.Add(agenttest.Job{Env: mergeEnv(secret, tt.env), Command: command})
		require.NoError(t, m.Prepare())
		log, status := m.Up(t.Context())
		r := m.Server.Record(id)
		require.Equal(t, 0, status, log)
		require.True(t, r.Finished, log)
		require.Equal(t, 0, r.ExitStatus, r.Text()+log)
		for _, part := range []string{tt.says, sum("TOKEN", tt.value), "user " + tt.user + "\n", "end-of-job", "Read-only file system", "~~~ :lock: GPU isolation: no GPU, 39 checks"} {
			require.Contains(t, r.Text(), part, tt.name)
		}
		require.NotContains(t, r.Text(), "left: trap", tt.name)
		require.NotContains(t, r.Text(), "credentials: identity", tt.name)
		_, host, _ := strings.Cut(r.Text(), "\nhost ")
		host, _, _ = strings.Cut(host, "\n")
		require.NotContains(t, hosts, host, "a container of its own")
		hosts = append(hosts, host)
		require.NoFileExists(t, m.Held("identity"), "consumed, and so gone from the host")
		require.NoFileExists(t, m.Held("agent.cfg"), "as is the agent's token")

		inspect, err := exec.CommandContext(t.Context(), "docker", "inspect", m.Container()).Output()
		require.NoError(t, err)
		changed, err := exec.CommandContext(t.Context(), "docker", "export", m.Container()).Output()
		require.NoError(t, err)
		for _, needle := range append(identities, []byte(value), []byte(m.Server.Token)) {
			for what, text := range map[string][]byte{"the job's log": []byte(r.Text()), "the agent's log": []byte(log), "docker inspect": inspect, "the container's files": changed} {
				require.False(t, agenttest.Contains(text, needle), "%s, %s: %.12s…", tt.name, what, needle)
			}
		}
		for _, dir := range []string{m.Room(), c.Memory()} {
			hits, err := agenttest.Search(dir, append(identities, []byte(value))...)
			require.NoError(t, err)
			require.Empty(t, hits, "%s: %s", tt.name, dir)
		}
	}
}

// TestAgentsKeep: a repository's jobs meet the caches of its earlier ones of the same
// verdict, in a container of their own, and nothing else that any job has left.
func TestAgentsKeep(t *testing.T) {
	t.Parallel()
	_, _, _, hire := aCrew(t)
	m := hire()
	elsewhere := map[string]string{"BUILDKITE_REPO": "https://github.com/JuliaGPU/AMDGPU.jl.git"}
	for _, tt := range []struct {
		by, meets string
		env       map[string]string
	}{
		{"first", "", nil},
		{"second", "first\n", nil},
		{"fork", "", fork},
		{"elsewhere", "", elsewhere},
		{"third", "first\nsecond\n", nil},
		{"the fork again", "fork\n", fork},
		{"another fork", "", mergeEnv(fork, map[string]string{"BUILDKITE_PULL_REQUEST_REPO": "https://github.com/eve/CUDA.jl.git"})},
	} {
		id := m.Server.Add(agenttest.Job{Env: tt.env, Command: fmt.Sprintf(`cat "$HOME/.cache/who" "$BUILDKITE_GIT_MIRRORS_PATH/who" 2>/dev/null | sort -u | sed 's/^/met: /'
ls -A "$HOME" "$TMPDIR" | grep -v : | sed 's/^/left: /'
for d in "$XDG_CACHE_HOME" "$BUILDKITE_GIT_MIRRORS_PATH" "$HOME" "$TMPDIR"; do echo %q >>"$d/who"; done
ls /var/lib/juliagpu-secrets/kept 2>&1; echo end-of-job`, tt.by)})
		require.NoError(t, m.Prepare())
		log, status := m.Up(t.Context())
		require.Equal(t, 0, status, log)
		text := m.Server.Record(id).Text()
		_, text, _ = strings.Cut(text, "~~~ Running commands")
		var want strings.Builder
		for line := range strings.Lines(tt.meets) {
			want.WriteString("\nmet: " + strings.TrimSpace(line))
		}
		require.Contains(t, text, want.String(), tt.by)
		require.Equal(t, strings.Count(tt.meets, "\n"), strings.Count(text, "\nmet: "), text)
		require.NotContains(t, text, "\nleft: who", tt.by)
		require.Contains(t, text, "kept': Permission denied", tt.by)
	}
}

// TestAgentsFail: what is missing or wrong ends the agent with the reason, before it
// takes a job; a container that is killed leaves nothing that the next one meets.
func TestAgentsFail(t *testing.T) {
	t.Parallel()
	_, to, identities, hire := aCrew(t)
	value := canary("value")
	secret := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}
	for _, tt := range []struct {
		name  string
		spoil func(*crew.Member) error
		says  string
	}{
		{"no credentials", func(m *crew.Member) error { return os.RemoveAll(m.Held("")) }, "bind source path does not exist"},
		{"no token", func(m *crew.Member) error { return os.Remove(m.Held("agent.cfg")) }, "agent.cfg"},
		{"no identity", func(m *crew.Member) error { return os.Remove(m.Held("identity")) }, "/run/juliagpu-secrets/credentials/identity"},
		{"no policy", func(m *crew.Member) error { return os.Remove(m.Policy()) }, "bind source path does not exist"},
		{"a wrong policy", func(m *crew.Member) error { return os.WriteFile(m.Policy(), []byte("gpu: {vendor: some}\n"), 0o644) }, "/etc/juliagpu-secrets/gpu.yml:1:15"},
		{"a policy of anybody's", func(m *crew.Member) error { return os.Chmod(m.Policy(), 0o666) }, "/etc/juliagpu-secrets/gpu.yml"},
		{"a wrong configuration", func(m *crew.Member) error { return os.WriteFile(m.Config(), []byte("mode: splitt\n"), 0o644) }, "/etc/juliagpu-secrets/config.yml:1:7"},
		{"no room for jobs", func(m *crew.Member) error {
			return unix.Unmount(m.Room(), 0)
		}, "bind source path does not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := hire()
			id := m.Server.Add(agenttest.Job{Env: secret, Command: "echo ran"})
			require.NoError(t, m.Prepare())
			require.NoError(t, tt.spoil(m))
			log, status := m.Up(t.Context())
			require.NotEqual(t, 0, status, log)
			require.Contains(t, log, tt.says)
			require.False(t, m.Server.Record(id).Finished)
			state, _ := exec.CommandContext(t.Context(), "docker", "inspect", "--format", "{{.State.Running}} {{.RestartCount}}", m.Container()).Output()
			require.Contains(t, []string{"", "false 0"}, strings.TrimSpace(string(state)))
			for _, needle := range append(identities, []byte(m.Server.Token)) {
				require.False(t, agenttest.Contains([]byte(log), needle))
			}
		})
	}
	t.Run("killed", func(t *testing.T) {
		m := hire()
		first := m.Server.Add(agenttest.Job{Env: secret, Command: "echo started; sleep 300"})
		require.NoError(t, m.Prepare())
		ended := make(chan int, 1)
		go func() { _, status := m.Up(t.Context()); ended <- status }()
		require.Eventually(t, func() bool { return strings.Contains(m.Server.Record(first).Text(), "started\n") }, time.Minute, 20*time.Millisecond)
		require.NoFileExists(t, m.Held("identity"))
		require.NoError(t, exec.CommandContext(t.Context(), "docker", "kill", m.Container()).Run())
		require.Equal(t, 137, <-ended)
		second := m.Server.Add(agenttest.Job{Env: secret, Command: show("TOKEN")})
		require.NoError(t, m.Prepare())
		log, status := m.Up(t.Context())
		require.Equal(t, 0, status, log)
		require.Contains(t, m.Server.Record(second).Text(), sum("TOKEN", value), log)
	})
}

// TestAgentsFull: a job that fills the container's memory, by its files there, ends;
// where the kernel ends the agent instead, that is the container's end. Whatever it
// is, the next start is as any.
func TestAgentsFull(t *testing.T) {
	t.Parallel()
	c, to, identities, hire := aCrew(t)
	m, value := hire(), canary("value")
	secret := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}
	for _, where := range []string{"/tmp", "/dev/shm", "$XDG_RUNTIME_DIR", "$HOME"} {
		full := m.Server.Add(agenttest.Job{Env: mergeEnv(secret, fork), Command: "cat /dev/zero >\"" + where + "/full\"; echo status $?; exit 7"})
		require.NoError(t, m.Prepare())
		log, status := m.Up(t.Context())
		r := m.Server.Record(full)
		require.True(t, status == 0 && r.ExitStatus != 0 || status == 137, "%s: %d %d %s%s", where, status, r.ExitStatus, r.Text(), log)
		require.NoFileExists(t, m.Held("identity"))

		next := m.Server.Add(agenttest.Job{Env: secret, Command: show("TOKEN")})
		require.NoError(t, m.Prepare())
		log, status = m.Up(t.Context())
		require.Equal(t, 0, status, log)
		require.Contains(t, m.Server.Record(next).Text(), sum("TOKEN", value), log)
		for _, needle := range append(identities, []byte(value), []byte(m.Server.Token)) {
			require.False(t, agenttest.Contains([]byte(r.Text()+log), needle), where)
		}
		hits, err := agenttest.Search(c.Memory(), append(identities, []byte(value))...)
		require.NoError(t, err)
		require.Empty(t, hits, where)
	}
}

// TestAgentsAtOnce: ten agents start, work and stop beside each other.
func TestAgentsAtOnce(t *testing.T) {
	t.Parallel()
	_, to, _, hire := aCrew(t)
	var all sync.WaitGroup
	results := make([]string, 10)
	for i := range results {
		m, name := hire(), fmt.Sprintf("TOKEN%d", i)
		value := canary("value")
		id := m.Server.Add(agenttest.Job{Env: map[string]string{"SECRET_" + name: seal(t, to, name, value, nil)}, Command: show(name)})
		require.NoError(t, m.Prepare())
		all.Go(func() {
			log, status := m.Up(t.Context())
			if r := m.Server.Record(id); status != 0 || r.ExitStatus != 0 || !strings.Contains(r.Text(), sum(name, value)) {
				results[i] = fmt.Sprint(status, "\n", r.Text(), log)
			}
		})
	}
	all.Wait()
	require.Equal(t, make([]string, 10), results)
}
