package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// TestSplitAttacks: in split mode with users of their own a job that looks
// everywhere, at any time, finds nothing of anybody else's.
func TestSplitAttacks(t *testing.T) { inMachine(t, machine.attacks) }

func (m machine) attacks() {
	for _, tt := range []struct {
		name string
		run  func(scene)
	}{
		{"Git before the first hook", scene.earlyGit},
		{"from everywhere in a job", scene.everywhere},
		{"what a fork leaves for a trusted job", scene.planted},
		{"what a job leaves for one of its own user", scene.watched},
		{"core files", scene.cores},
		{"canceled jobs", scene.canceled},
		{"killed agents", scene.killed},
		{"forged variables", scene.forged},
		{"a protection less", scene.without},
	} {
		m.T.Run(tt.name, func(t *testing.T) {
			m := m
			m.T = t
			tt.run(m.scene())
		})
	}
}

// A scene is a machine with everything installed, a plugin that looks around in
// each of its hooks, and a sealed value.
type scene struct {
	machine
	host   *host
	value  string
	secret map[string]string // the value, sealed for trusted builds
	// The same as a file, and a job's use of the plugin.
	sealedFile, plugin map[string]string
}

const (
	seeker = "/run/lib/probe seek "
	// leave leaves a seeker running, until it is enough: one, though a job may run again.
	leave = "[ -e /tmp/left ] || (trap '' HUP; setsid " + seeker + "/tmp/enough >/tmp/left </dev/null 2>&1 &); true"
)

func (m machine) scene() scene {
	m.Helper()
	m.reset()
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		entries, err := os.ReadDir(dir)
		require.NoError(m, err)
		for _, e := range entries {
			require.NoError(m, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	m.copy("/run/programs/launch", filepath.Join(m.lib, "launch"))
	require.NoError(m, os.RemoveAll("/run/identities"))
	h, to := m.whole()
	value := canary("value")
	s := scene{machine: m, host: h, value: value,
		secret:     map[string]string{"SECRET_TOKEN": seal(m.T, to, "TOKEN", value, nil)},
		sealedFile: map[string]string{"SECRET_FILE": seal(m.T, to, "FILE", value, func(l *envelope.Label) { l.Type = envelope.TypeFile })},
		plugin:     map[string]string{"BUILDKITE_PLUGINS": `[{"file:///run/look-buildkite-plugin#v1":null}]`},
	}
	hooks := map[string]string{}
	for _, name := range []string{"environment", "pre-command", "pre-exit"} {
		hooks["hooks/"+name] = "#!/bin/bash\n" + seeker + "\n"
	}
	for dir, files := range map[string]map[string]string{"/run/look-buildkite-plugin": hooks, "/run/repo": {"file": "text"}} {
		require.NoError(m, os.RemoveAll(dir))
		_, err := agenttest.GitRepo(dir, files, "v1")
		require.NoError(m, err)
	}
	require.NoError(m, exec.Command("git", "-C", "/run/repo", "update-ref", "refs/pull/17/head", "HEAD").Run())
	// Both belong to root, and Git asks.
	s.agent.Env = []string{"GIT_CONFIG_SYSTEM=" + m.file("gitconfig", "[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n[url \"/run/repo\"]\n\tinsteadOf = https://github.com/JuliaGPU/CUDA.jl.git\n", 0o644)}
	return s
}

// finds returns the kinds of secrets that a seeker has reported, once each.
func finds(text string) (kinds string) {
	for _, kind := range []string{"identity", "token", "value"} {
		if strings.Contains(text, "FOUND "+kind) {
			kinds += kind + " "
		}
	}
	return strings.TrimSpace(kinds)
}

// a job of a kind; trusted ones may find their own value.
func (s scene) of(uid int, command string, env ...map[string]string) agenttest.Job {
	job := agenttest.Job{Command: "set +e; " + command, Env: mergeEnv(s.secret, nil)}
	if uid == other {
		env = append(env, fork)
	}
	for _, e := range env {
		job.Env = mergeEnv(job.Env, e)
	}
	return job
}

// nothing says that a seeker has looked, as this user, and found nothing.
func (s scene) nothing(text string, uid int, but ...string) {
	s.Helper()
	require.Contains(s, text, fmt.Sprintf("SEEKING as %d %[1]d\n", uid))
	require.Equal(s, strings.Count(text, "SEEKING as"), strings.Count(text, "SOUGHT in"), text)
	require.Equal(s, strings.Join(but, " "), finds(text), text)
}

// gone says that the value is nowhere where files are.
func (s scene) gone() {
	s.Helper()
	for _, dir := range []string{"/run/juliagpu-secrets", "/var/lib/juliagpu-secrets", "/run/a", "/tmp", "/dev/shm"} {
		s.notIn(dir, s.value)
	}
}

// end ends what jobs have left.
func (s scene) end() {
	for _, uid := range []int{trusted, other} {
		cmd := exec.Command("/bin/kill", "-KILL", "-1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		cmd.Run()
		require.Eventually(s, func() bool { return len(s.processesOf(uid)) == 0 }, 5*time.Second, time.Millisecond)
	}
}

func (s scene) read(path string) string {
	s.Helper()
	text, err := os.ReadFile(path)
	require.NoError(s, err)
	return string(text)
}

// preload is a library whose only deed is to start the seeker, once.
const preload = `#include <stdlib.h>
__attribute__((constructor)) static void look(void) {
	unsetenv("LD_PRELOAD");
	system("` + seeker + ` >>/tmp/early-$(id -u); true");
}`

// earlyGit: a pipeline can have the agent start Git before its first hook, by a
// PATH and with a library that an earlier job left.
func (s scene) earlyGit() {
	const git = "#!/bin/sh\n" + seeker + " >>/tmp/early-$(id -u)\nPATH=/usr/bin:/bin exec git \"$@\"\n"
	r := s.job(s.of(other, fmt.Sprintf("mkdir -p -m 755 /tmp/plant && printf %%s '%s' >/tmp/plant/git && chmod 755 /tmp/plant/git && echo planted", git)))
	require.Contains(s, r.Text(), "\nplanted\n")
	early := map[string]map[string]string{"PATH": {"PATH": "/tmp/plant:/usr/bin:/bin"}}
	if _, err := exec.LookPath("gcc"); err == nil {
		cmd := exec.Command("gcc", "-shared", "-fPIC", "-x", "c", "-o", "/tmp/plant/look.so", "-")
		cmd.Stdin = strings.NewReader(preload)
		out, err := cmd.CombinedOutput()
		require.NoError(s, err, "%s", out)
		early["LD_PRELOAD"] = map[string]string{"LD_PRELOAD": "/tmp/plant/look.so"}
	} else {
		s.T.Run("LD_PRELOAD", func(t *testing.T) { need.Skip(t, "no compiler for a library to preload") })
	}
	for name, env := range early {
		for _, uid := range []int{trusted, other} {
			s.Logf("%s, uid %d", name, uid)
			os.Remove(fmt.Sprintf("/tmp/early-%d", uid))
			r := s.job(s.of(uid, "true", env, map[string]string{"BUILDKITE_USE_GITHUB_APP_GIT_CREDENTIALS": "true"}))
			require.Equal(s, 0, r.ExitStatus, r.Text())
			but := []string{}
			if uid == trusted { // its own
				but = append(but, "value")
			}
			s.nothing(s.read(fmt.Sprintf("/tmp/early-%d", uid)), uid, but...)
		}
	}
}

// everywhere looks around in each hook of a plugin, in the command, and all the
// time from a process that a fork's job has left.
func (s scene) everywhere() {
	s.agent.KeepProcesses = true
	defer s.end()
	s.job(s.of(other, leave))
	require.NotEmpty(s, s.processesOf(other))
	for _, uid := range []int{trusted, other} {
		s.Logf("uid %d", uid)
		r := s.job(s.of(uid, show("TOKEN")+seeker, s.plugin))
		require.Equal(s, 0, r.ExitStatus, r.Text())
		require.Equal(s, 4, strings.Count(r.Text(), "SOUGHT"), "three hooks and the command")
		require.NotContains(s, r.Text(), "secrets.readable", "pre-command agrees")
		require.Contains(s, r.Text(), ":lock: GPU isolation")
		if uid == trusted {
			require.Contains(s, r.Text(), sum("TOKEN", s.value))
			s.nothing(r.Text(), uid, "value")
		} else {
			require.Contains(s, r.Text(), sum("TOKEN", ""))
			s.nothing(r.Text(), uid)
		}
	}
	s.nothing(s.enough(), other)
	s.gone()
}

// enough ends a seeker that a job has left, and returns what it says.
func (s scene) enough() string {
	s.Helper()
	require.NoError(s, os.WriteFile("/tmp/enough", nil, 0o644))
	require.Eventually(s, func() bool { return strings.Contains(s.read("/tmp/left"), "SOUGHT") }, 20*time.Second, 10*time.Millisecond)
	text := s.read("/tmp/left")
	require.NotRegexp(s, `, 1 times\n`, text, "it looked before, too")
	return text
}

// planted: a fork's job puts traps wherever it can, and a trusted one of the same
// pipeline goes over the same ground.
func (s scene) planted() {
	s.agent.Repos, s.agent.Flags = map[string]string{}, []string{"--git-mirrors-path", "/run/a/mirrors"}
	const trap = `/tmp/trap`
	plant := `printf '#!/bin/sh\nid -u >>/tmp/sprung\n` + seeker + `>>/tmp/found-$(id -u)\n' >` + trap + `; chmod 755 ` + trap + `
cp /run/lib/probe /tmp/setuid; chmod 6755 /tmp/setuid; : >/tmp/sprung; chmod 666 /tmp/sprung
for base in /var/lib/juliagpu-secrets/{4711,4712}; do
	cd $base/builds/agenttest/juliagpu/cuda-dot-jl && git config core.fsmonitor ` + trap + ` && git config core.hooksPath /tmp/githooks && cp ` + trap + ` .git/hooks/post-checkout
	for f in $base/plugins/*/*/hooks/environment; do cp ` + trap + ` $f; done
	for f in .bashrc .bash_profile .profile; do echo ` + trap + ` >>$base/home/$f; done
	printf '[core]\n\tfsmonitor = ` + trap + `\n' >$base/home/.gitconfig
	for d in $base/git-mirrors/*; do git -C $d config core.fsmonitor ` + trap + `; cp ` + trap + ` $d/hooks/post-checkout; done
	ln -s $base/builds $base/tmp/x; ln -s /run/lib/hooks $base/cache/hooks
done 2>/dev/null
git status >/dev/null; wc -l </tmp/sprung | sed 's/^/sprung here: /'`
	s.job(s.of(trusted, "true", s.plugin)) // so that there is something to change
	r := s.job(s.of(other, plant, s.plugin))
	require.Regexp(s, `sprung here: [1-9]`, r.Text(), "the traps work")
	require.Contains(s, s.read("/tmp/found-4712"), "SOUGHT", "and look")
	s.nothing(r.Text(), other)

	r = s.job(s.of(trusted, show("TOKEN")+`bash -lc 'git status' >/dev/null; bash -ic true 2>/dev/null; sh -c '/tmp/setuid seek'`, s.plugin))
	require.Equal(s, 0, r.ExitStatus, r.Text())
	require.Contains(s, r.Text(), sum("TOKEN", s.value))
	require.NotContains(s, s.read("/tmp/sprung"), "4711")
	require.NoFileExists(s, "/tmp/found-4711")
	s.nothing(r.Text(), trusted, "value")
	require.NotContains(s, r.Text(), "SEEKING as 4711 4712", "setuid means nothing")

	// The other way round: what a trusted job leaves with its own user's bit.
	s.job(s.of(trusted, "rm -f /tmp/setuid; cp /run/lib/probe /tmp/setuid-4711; chmod 6755 /tmp/setuid-4711; echo $TOKEN >$HOME/kept"))
	r = s.job(s.of(other, "/tmp/setuid-4711 seek"))
	s.nothing(r.Text(), other)
}

// watched: what a trusted job leaves running would see the next one's values, so
// that gets none.
func (s scene) watched() {
	s.agent.KeepProcesses = true
	defer s.end()
	r := s.job(agenttest.Job{Command: leave})
	require.Equal(s, 0, r.ExitStatus)
	require.NotEmpty(s, s.processesOf(trusted))
	r = s.job(s.of(trusted, show("TOKEN")+seeker, s.plugin))
	require.Regexp(s, `SECRET_TOKEN: withheld: process \d+ of the user that jobs run as \(uid 4711\) is left`, r.Text())
	require.Contains(s, r.Text(), sum("TOKEN", ""))
	s.nothing(r.Text(), trusted)
	s.nothing(s.enough(), trusted)
}

// cores: neither a hook of ours that is made to crash leaves a core file, nor can
// a fork's job read one that a trusted job makes of itself.
func (s scene) cores() {
	if !strings.HasPrefix(s.read("/proc/sys/kernel/core_pattern"), "core") {
		need.Skip(s, "core files go elsewhere on this machine")
	}
	// Git before the first hook leaves what shoots at it, and wishes for a core.
	s.file("git", `#!/bin/bash
prlimit --core=unlimited --pid $PPID; ulimit -c unlimited
(trap '' HUP; end=$((SECONDS+3)); while ((SECONDS < end)); do
	for f in /proc/[0-9]*/comm; do read -r name <$f; case $name in environment) p=${f%/comm}; kill -SEGV ${p#/proc/} && echo shot >>/tmp/shots;; esac; done
done) </dev/null >/dev/null 2>&1 &
PATH=/usr/bin:/bin exec git "$@"
`, 0o755)
	early := map[string]string{"PATH": "/run/cfg:/usr/bin:/bin", "BUILDKITE_USE_GITHUB_APP_GIT_CREDENTIALS": "true"}
	for range 5 {
		_, err := s.agent.Run(s.Context(), s.of(trusted, "true", s.sealedFile, early))
		require.NoError(s, err)
		s.end()
		s.notIn("/var/lib/juliagpu-secrets", s.value)
		s.notIn("/tmp", s.value)
	}
	require.FileExists(s, "/tmp/shots")

	r := s.job(s.of(trusted, `ulimit -c unlimited; bash -c 'kill -SEGV $$'; ls core*`))
	require.Contains(s, r.Text(), "\ncore")
	s.nothing(s.job(s.of(other, seeker)).Text(), other)
}

// canceled ends jobs in each phase: what is left for the next job, and for the one
// after, is nothing.
func (s scene) canceled() {
	sleep := "#!/bin/bash\ntrap 'exit 1' TERM\necho now-sleeping\nsleep 600 & wait\n"
	require.NoError(s, os.Mkdir("/tmp/plant", 0o755))
	require.NoError(s, os.WriteFile("/tmp/plant/git", []byte(sleep), 0o755))
	s.agent.Repos = map[string]string{}
	for _, phase := range []string{"Git", "environment", "checkout", "pre-command", "command", "pre-exit"} {
		s.Logf("%s", phase)
		job := s.of(trusted, "true", s.sealedFile)
		job.CancelOn = "now-sleeping"
		switch phase {
		case "Git":
			job.Env["PATH"], job.Env["BUILDKITE_USE_GITHUB_APP_GIT_CREDENTIALS"] = "/tmp/plant:/usr/bin:/bin", "true"
		case "command":
			job.Command = "echo now-slee''ping; sleep 600"
		default:
			dir := "/run/sleep-" + phase + "-buildkite-plugin"
			_, err := agenttest.GitRepo(dir, map[string]string{"hooks/" + phase: sleep}, "v1")
			require.NoError(s, err)
			job.Env["BUILDKITE_PLUGINS"] = `[{"file://` + dir + `#v1":null}]`
		}
		r, err := s.agent.Run(s.Context(), job)
		require.NoError(s, err, r.AgentLog)
		require.Equal(s, "cancel", r.SignalReason, r.Text())
		require.Empty(s, s.processesOf(trusted))
		if phase != "Git" { // a hand-off that nobody took is its user's alone, until the next job
			s.gone()
		}
		s.nothing(s.job(s.of(other, seeker)).Text(), other)
		s.gone()
	}
}

// killed ends agents at their worst moments. The next agent starts from nothing,
// or its jobs get nothing while something is left.
func (s scene) killed() {
	s.Logf("between opening and delivery")
	s.write("hooks/pre-bootstrap", "#!/bin/sh\n/run/lib/pre-bootstrap pre-bootstrap && kill -KILL $PPID\n", 0o755)
	r, err := s.agent.Run(s.Context(), s.of(trusted, "true"))
	require.ErrorIs(s, err, agenttest.ErrUnfinished)
	hits, err := agenttest.Search("/run/juliagpu-secrets/job", []byte(s.value))
	require.NoError(s, err)
	require.Len(s, hits, 1, "it was opened: "+r.AgentLog)
	s.write("hooks/pre-bootstrap", "#!/run/lib/pre-bootstrap\n", 0o755)
	s.nothing(s.job(s.of(other, seeker)).Text(), other)
	s.gone()

	s.Logf("while the command runs, which goes on")
	go func() {
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(time.Millisecond) {
			if _, err := os.Stat("/tmp/now"); err == nil {
				exec.Command("/bin/sh", "-c", "for p in /proc/[0-9]*; do grep -qzx start $p/cmdline && kill -KILL ${p#/proc/}; done").Run()
				return
			}
		}
	}()
	s.agent.KeepProcesses = true
	_, err = s.agent.Run(s.Context(), s.of(trusted, "trap '' HUP TERM PIPE; touch /tmp/now; sleep 600", s.sealedFile))
	require.ErrorIs(s, err, agenttest.ErrUnfinished)
	require.NotEmpty(s, s.processesOf(trusted))
	r = s.job(s.of(trusted, show("TOKEN")))
	require.Regexp(s, `SECRET_TOKEN: withheld: process \d+ of the user`, r.Text())
	s.nothing(s.job(s.of(other, seeker)).Text(), other)
	s.end()
	// Another repository's trusted build is of the same user.
	s.nothing(s.job(agenttest.Job{Command: seeker}).Text(), trusted)
	s.gone()
}

// forged: variables that would lead the agent, or a hook, astray.
func (s scene) forged() {
	const another = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"
	hooks := func() string {
		out, err := exec.Command("find", "/run/lib", "-printf", "%p %u %m %s %l\n").Output()
		require.NoError(s, err)
		return string(out)
	}
	before := hooks()
	for _, tt := range []struct {
		env      map[string]string
		rejected bool
	}{
		{map[string]string{"BUILDKITE_BUILD_CHECKOUT_PATH": "/run/lib/hooks"}, false},
		{map[string]string{"BUILDKITE_BUILD_CHECKOUT_PATH": "/run/lib", "BUILDKITE_CLEAN_CHECKOUT": "true"}, false},
		{map[string]string{"BUILDKITE_BUILD_CHECKOUT_PATH": home.Of(trusted).Builds + "/x"}, false},
		{map[string]string{"BUILDKITE_BUILD_CHECKOUT_PATH": home.Of(trusted).Plugins, "BUILDKITE_CLEAN_CHECKOUT": "true"}, false},
		{map[string]string{"BUILDKITE_BUILD_CHECKOUT_PATH": "/run/juliagpu-secrets/job"}, false},
		{map[string]string{"BUILDKITE_JOB_ID": another}, false},
		{map[string]string{"BUILDKITE_AGENT_NO_JOB_API": "true"}, false},
		{map[string]string{"BUILDKITE_AGENT_NO_JOB_API": "true", "BUILDKITE_AGENT_JOB_API_SOCKET": "/tmp/mine.sock", "BUILDKITE_AGENT_JOB_API_TOKEN": "x"}, true},
		{map[string]string{"BUILDKITE_ENV_FILE": "/tmp/job-env-" + another + "1"}, true},
		{map[string]string{"BUILDKITE_ENV_FILE=/tmp/job-env-" + another + "1": ""}, true},
		{map[string]string{"BUILDKITE_HOOKS_PATH": "/tmp/hooks"}, true},
		{map[string]string{"BUILDKITE_HOOKS_PATH=/tmp/hooks": ""}, true},
		{map[string]string{"X=\"y\"\nBUILDKITE_HOOKS_PATH": "/tmp/hooks"}, true},
		{map[string]string{"A=b": "c", "D\nE": "f", "BASH_FUNC_git%%": "() { /tmp/x; }"}, false},
		{map[string]string{"A=\"b\"\nBUILDKITE_PULL_REQUEST": "false"}, false},
		{map[string]string{"BUILDKITE_BOOTSTRAP_PHASES": "command"}, false},
	} {
		s.Logf("%q", tt.env)
		s.agent.Repos = map[string]string{}
		job := s.of(other, show("TOKEN")+seeker, tt.env)
		s.agent.Timeout = 4 * time.Second // it tries again and again to remove what it can't
		r, err := s.agent.Run(s.Context(), job)
		if tt.env["BUILDKITE_BUILD_CHECKOUT_PATH"] == "" {
			require.NoError(s, err, r.AgentLog)
		}
		s.end()
		s.agent.Timeout = 0
		require.Equal(s, tt.rejected, r.SignalReason == "agent_refused", r.Text()+r.AgentLog)
		require.Empty(s, finds(r.Text()))
		require.NotContains(s, r.Text(), sum("TOKEN", s.value))
		require.Equal(s, before, hooks())
		s.gone()
		s.agent.Repos = nil
	}
	r := s.job(s.of(trusted, show("TOKEN")))
	require.Contains(s, r.Text(), sum("TOKEN", s.value), "and all is as it was")
}

// without takes one protection away at a time, and shows that a job then finds what
// it does not find otherwise: that the seeker sees, and what each protection is for.
func (s scene) without() {
	// A launcher that does what ours does, and can be told not to.
	const all = "--reuid $u --regid $u --clear-groups --no-new-privs"
	launcher := func(s scene, drop, more string) {
		s.write("launch", `#!/bin/bash
id=${BUILDKITE_ENV_FILE##*/job-env-}; u=$(stat -c %u /run/juliagpu-secrets/job/${id:0:36}) d=/var/lib/juliagpu-secrets/$u r=/run/juliagpu-secrets/user/$u
export BUILDKITE_BUILD_PATH=$d/builds BUILDKITE_PLUGINS_PATH=$d/plugins BUILDKITE_SOCKETS_PATH=$r/sockets HOME=$d/home TMPDIR=$d/tmp
cd $d/builds
`+more+`
exec `+drop+` /run/agent/buildkite-agent bootstrap
`, 0o755)
	}
	setpriv := func(s scene, options string) { launcher(s, "setpriv "+options, "") }
	after := func(s scene, script string) { // pre-bootstrap
		s.write("hooks/pre-bootstrap", "#!/bin/sh\n/run/lib/pre-bootstrap pre-bootstrap\n"+script+"\n", 0o755)
	}
	run := func(s scene, job agenttest.Job) string {
		r, err := s.agent.Run(s.Context(), job)
		require.NoError(s, err, r.AgentLog)
		return r.Text()
	}
	kept := func(path string) string { text, _ := os.ReadFile(path); return string(text) }

	// What looks: each leaves what it found in /tmp/found.
	git := func(s scene) { // of a fork's, before the first hook
		s.write("../cfg/git", "#!/bin/sh\n[ -e /tmp/found ] || "+seeker+" >/tmp/found\nPATH=/usr/bin:/bin exec git \"$@\"\n", 0o755)
		run(s, s.of(other, "true", map[string]string{"PATH": "/run/cfg:/usr/bin:/bin", "BUILDKITE_USE_GITHUB_APP_GIT_CREDENTIALS": "true"}))
	}
	command := func(s scene) { run(s, s.of(other, seeker+">>/tmp/found")) }
	setuid := func(s scene) { // one of root's that is on the machine, such as sudo
		s.copy("/run/programs/probe", "/run/cfg/setuid")
		require.NoError(s, os.Chmod("/run/cfg/setuid", 0o4755|os.ModeSetuid))
		run(s, s.of(other, "/run/cfg/setuid seek >>/tmp/found"))
	}
	left := func(s scene) { // by a fork's, while a trusted job runs
		s.agent.KeepProcesses = true
		s.job(s.of(other, leave))
		run(s, s.of(trusted, "true"))
		require.NoError(s, os.WriteFile("/tmp/found", []byte(s.enough()), 0o644))
		s.end()
	}
	trap := func(s scene) { // in the plugin's checkout, for a trusted job
		run(s, s.of(other, "umask 0; for f in $BUILDKITE_PLUGINS_PATH/*/*/hooks/environment; do printf '#!/bin/bash\n"+seeker+">>/tmp/found\n' >$f; done; chmod -R a+rwX $BUILDKITE_PLUGINS_PATH", s.plugin))
		run(s, s.of(trusted, "true", s.plugin))
	}

	for _, tt := range []struct {
		name   string
		look   func(scene)
		remove func(*scene)
		finds  string // at least this
	}{
		{"pre-bootstrap: the environment hook opens, direct mode", git, func(s *scene) {
			s.agent.BootstrapScript = ""
			text := strings.Replace(s.read("/run/lib/config.yml"), "mode: split", "mode: direct\nreason: a test\nconsume: true", 1)
			text, _, _ = strings.Cut(text, "users:")
			s.write("config.yml", text, 0o644)
		}, "identity"},
		{"users of their own", command, func(s *scene) {
			s.agent.BootstrapScript = ""
			text := strings.Replace(s.read("/run/lib/config.yml"), "mode: split", "mode: split\nreason: a test\nconsume: true", 1)
			text, _, _ = strings.Cut(text, "users:")
			s.write("config.yml", text, 0o644)
		}, "token"},
		{"launch: a stand-in that does all of it", git, func(s *scene) { setpriv(*s, all) }, ""},
		{"launch: the user", git, func(s *scene) { launcher(*s, "", "") }, "identity token"},
		{"launch: no capability", git, func(s *scene) {
			setpriv(*s, all+" --inh-caps=+dac_override --ambient-caps=+dac_override")
		}, "identity"},
		{"launch: groups", git, func(s *scene) {
			require.NoError(s, os.Chown("/run/identities/identity", 0, disk))
			setpriv(*s, "--reuid $u --regid $u --keep-groups --no-new-privs")
			after(*s, "chmod 755 /run/identities; chmod 640 /run/identities/identity")
		}, "identity"},
		{"launch: no_new_privs", setuid, func(s *scene) { setpriv(*s, "--reuid $u --regid $u --clear-groups") }, "identity"},
		{"launch: directories of each user's own", trap, func(s *scene) {
			launcher(*s, "setpriv "+all, "umask 0; mkdir -p /tmp/plugins; export BUILDKITE_PLUGINS_PATH=/tmp/plugins")
		}, "value"},
		{"pre-bootstrap: a user for each kind", trap, func(s *scene) {
			after(*s, "chown 4711:4711 /run/juliagpu-secrets/job/*; chgrp 4711 /run/juliagpu-secrets/job/*/handoff")
		}, "value"},
		{"pre-bootstrap: a hand-off for one user", left, func(s *scene) {
			after(*s, `grep -q '^BUILDKITE_PULL_REQUEST="false"$' "$BUILDKITE_ENV_FILE" || exit 0; cd /run/juliagpu-secrets/job && chmod 755 . * && chmod 444 */handoff`)
		}, "value"},
		{"the identity's mode", git, func(s *scene) { after(*s, "chmod 755 /run/identities; chmod 644 /run/identities/identity") }, "identity"},
	} {
		s.T.Run(tt.name, func(t *testing.T) {
			m := s.machine
			m.T = t
			for _, removed := range []bool{false, true} {
				s := m.scene()
				want := ""
				if removed {
					tt.remove(&s)
					want = tt.finds
				}
				tt.look(s)
				found := kept("/tmp/found")
				if removed || found != "" { // nobody springs a trap that nobody can lay
					require.Contains(t, found, "SOUGHT")
				}
				if want == "" {
					require.Empty(t, finds(found), found)
				}
				require.Contains(t, finds(found), want, found)
			}
		})
	}
}
