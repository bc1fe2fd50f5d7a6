package tests

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// The users of the tests' jobs. The machine has no names for them.
const (
	trusted = 4711
	other   = 4712
)

// The groups of the tests' agent: one owns a GPU's node, the other a disk's.
const (
	render = 109
	disk   = 6
)

// stage says how far a process is on its way into a machine of its own.
const stage = "TEST_LAUNCH_STAGE"

// TestLaunch: what the launcher and the hooks of the agent's own do.
func TestLaunch(t *testing.T) { inMachine(t, machine.test) }

// inMachine runs a test that has to be root in a mount and pid namespace of its
// own, so that nothing of the machine is touched: /run, /tmp, /var/lib and /dev are
// its own. The agent there has the capabilities that a container's has.
func inMachine(t *testing.T, test func(machine)) {
	need.Root(t, "to start jobs as other users")
	switch os.Getenv(stage) {
	case "":
		binaries, agent := programs(t)
		for _, name := range []string{"cmd/launch", "cmd/agent-startup", "tests/probe"} {
			require.NoError(t, agenttest.Build(t.Context(), "./"+name, filepath.Join(binaries, filepath.Base(name))))
		}
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=170s")
		cmd.Env = append(os.Environ(), stage+"=1", "TEST_LAUNCH_PROGRAMS="+binaries, "TEST_LAUNCH_AGENT="+filepath.Dir(agent))
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		t.Logf("%s", out)
	case "1":
		enter(t)
	default:
		test(newMachine(t))
	}
}

// enter makes the machine, and starts this test anew in it.
func enter(t *testing.T) {
	runtime.LockOSThread()
	mount := func(source, target, kind string, flags uintptr, data string) {
		t.Helper()
		require.NoError(t, unix.Mount(source, target, kind, flags, data), "mount %s", target)
	}
	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	mount("proc", "/proc", "proc", 0, "")
	mount("tmpfs", "/var/lib", "tmpfs", 0, "mode=755")
	mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
	for to, from := range map[string]string{"/run/programs": os.Getenv("TEST_LAUNCH_PROGRAMS"), "/run/agent": os.Getenv("TEST_LAUNCH_AGENT")} {
		require.NoError(t, os.Mkdir(to, 0o755))
		mount(from, to, "", unix.MS_BIND, "")
	}
	mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777") // they lay there, perhaps
	mount("tmpfs", "/root", "tmpfs", 0, "mode=700")
	require.NoError(t, os.MkdirAll("/run/dev/dri", 0o755))
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		require.NoError(t, os.WriteFile("/run/dev/"+name, nil, 0o644))
		mount("/dev/"+name, "/run/dev/"+name, "", unix.MS_BIND, "")
	}
	for _, name := range []string{"pts", "shm"} {
		require.NoError(t, os.Mkdir("/run/dev/"+name, 0o755))
	}
	mount("tmpfs", "/run/dev/shm", "tmpfs", 0, "mode=1777")
	mount("devpts", "/run/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
	require.NoError(t, os.Symlink("pts/ptmx", "/run/dev/ptmx"))
	require.NoError(t, os.Symlink("/proc/self/fd", "/run/dev/fd"))
	require.NoError(t, os.Symlink("/proc/self/fd/1", "/run/dev/stdout"))
	for name, group := range map[string]int{"dri/renderD128": render, "dri/card0": 0, "nvidia0": 0, "sda": disk} {
		// A pipe where the machine makes no nodes: then no group is a GPU's.
		if unix.Mknod("/run/dev/"+name, unix.S_IFCHR|0o660, int(unix.Mkdev(226, 128))) != nil {
			require.NoError(t, unix.Mknod("/run/dev/"+name, unix.S_IFIFO|0o660, 0))
		}
		require.NoError(t, os.Lchown("/run/dev/"+name, 0, group))
		require.NoError(t, os.Chmod("/run/dev/"+name, 0o660)) // whatever the umask
	}
	mount("/run/dev", "/dev", "", unix.MS_BIND|unix.MS_REC, "")
	require.NoError(t, syscall.Setgroups([]int{0, disk, render}))
	// What a container has by the Compose file, and no more.
	have := map[int]bool{unix.CAP_CHOWN: true, unix.CAP_DAC_OVERRIDE: true, unix.CAP_FOWNER: true, unix.CAP_FSETID: true,
		unix.CAP_SETGID: true, unix.CAP_SETUID: true, unix.CAP_KILL: true}
	for c := range 64 {
		if !have[c] {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != unix.EINVAL {
				require.NoError(t, err)
			}
		}
	}
	require.NoError(t, os.Setenv(stage, "2"))
	require.NoError(t, syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// A machine has an agent of root's with split mode set up as an operator does it.
type machine struct {
	*testing.T
	lib   string // our programs, hooks and configuration
	agent agenttest.Agent
}

const splitConfig = `mode: split
isolation: {expect: host, reason: a test's machine}
identities: [{file: /run/identity}]
users: {trusted: "4711:4711", other: "4712:4712"}
`

func newMachine(t *testing.T) machine {
	m := machine{T: t, lib: "/run/lib"}
	hooks := filepath.Join(m.lib, "hooks")
	require.NoError(t, os.MkdirAll(hooks, 0o755))
	for _, name := range []string{"launch", "agent-startup", "pre-bootstrap", "environment", "pre-command", "pre-exit", "attest", "probe"} {
		m.copy(filepath.Join("/run/programs", name), filepath.Join(m.lib, name))
	}
	require.NoError(t, os.MkdirAll("/run/fake", 0o755))
	m.copy(filepath.Join(m.lib, "probe"), "/run/fake/buildkite-agent")
	m.write("config.yml", splitConfig, 0o644)
	m.reset()
	require.NoError(t, os.Mkdir("/run/a", 0o700))
	m.agent = agenttest.Agent{Binary: "/run/agent/buildkite-agent", Dir: "/run/a", HooksPath: hooks, Polyglot: true,
		BootstrapScript: filepath.Join(m.lib, "launch")}
	return m
}

func (m machine) copy(from, to string) {
	m.Helper()
	text, err := os.ReadFile(from)
	require.NoError(m, err)
	require.NoError(m, os.WriteFile(to, text, 0o755))
}

func (m machine) write(name, text string, mode fs.FileMode) {
	m.Helper()
	path := filepath.Join(m.lib, name)
	os.Remove(path)
	require.NoError(m, os.WriteFile(path, []byte(text), mode))
	require.NoError(m, os.Chmod(path, mode))
}

// reset leaves what the agent has before its first job, and a hook that gives
// each job to the user of its kind.
func (m machine) reset() {
	m.Helper()
	m.write("hooks/pre-bootstrap", `#!/bin/sh
umask 022
id=${BUILDKITE_ENV_FILE##*/job-env-}
dir=/run/juliagpu-secrets/job/$(printf %.36s "$id")
mkdir -p /run/juliagpu-secrets/job
mkdir -m 700 "$dir"
user=4712
grep -q '^BUILDKITE_PULL_REQUEST="false"$' "$BUILDKITE_ENV_FILE" && user=4711
chown $user:$user "$dir"
`, 0o755)
	for _, dir := range []string{home.Lasting, home.Fleeting, "/run/juliagpu-secrets"} {
		require.NoError(m, os.RemoveAll(dir))
	}
	for _, name := range []string{"agent-startup", "environment", "checkout", "pre-command", "pre-exit"} {
		os.Remove(filepath.Join(m.lib, "hooks", name))
	}
	require.NoError(m, os.Symlink("../pre-exit", filepath.Join(m.lib, "hooks/pre-exit")))
	for _, uid := range []int{trusted, other} {
		h, err := home.Make(uid, uid)
		require.NoError(m, err)
		// Where a checkout would be: these jobs have none.
		for _, dir := range []string{"agenttest", "agenttest/juliagpu", "agenttest/juliagpu/cuda-dot-jl"} {
			require.NoError(m, os.Mkdir(filepath.Join(h.Builds, dir), 0o755))
			require.NoError(m, os.Chown(filepath.Join(h.Builds, dir), uid, uid))
		}
	}
}

// job runs one with the real agent.
func (m machine) job(job agenttest.Job) agenttest.Result {
	m.Helper()
	r, err := m.agent.RunWhole(m.Context(), job, nil)
	require.NoError(m, err, "%s\n%s", r.Text(), r.AgentLog)
	return r
}

// refused runs a job that must not start.
func (m machine) refused(job agenttest.Job, status int, says ...string) {
	m.Helper()
	job.Command = "echo RAN"
	r, err := m.agent.RunWhole(m.Context(), job, agenttest.Says(says...))
	require.NoError(m, err, "%s\n%s", r.Text(), r.AgentLog)
	require.Equal(m, status, r.ExitStatus, r.Text())
	require.NotContains(m, r.Text(), "RAN")
}

func (m machine) test() {
	for _, tt := range []struct {
		name string
		run  func(machine)
	}{
		{"who the job is", machine.who},
		{"what the job can't do to the agent", machine.attack},
		{"shell hooks and the Job API", machine.hooks},
		{"statuses", machine.statuses},
		{"two users", machine.twoUsers},
		{"checkout, plugins and mirrors", machine.checkout},
		{"no terminal", machine.noTerminal},
		{"settings of Go's runtime", machine.runtimeVariables},
		{"names with =", machine.names},
		{"no hand-off", machine.noHandoff},
		{"cancel", machine.cancel},
		{"what launch leaves behind", machine.leaves},
		{"what launch refuses", machine.refuses},
		{"who may start it", machine.starters},
		{"agent-startup", machine.startup},
		{"secrets", machine.secrets},
	} {
		m.T.Run(tt.name, func(t *testing.T) {
			m := m
			m.T = t
			m.reset()
			tt.run(m)
		})
	}
}

// status returns one line of /proc/PID/status in text.
func status(text, name string) string {
	found := regexp.MustCompile(`(?m)^` + name + `:[ \t]*(.*?)[ \t]*$`).FindStringSubmatch(text)
	if found == nil {
		return "no " + name
	}
	return found[1]
}

func (m machine) checkStatus(text string, uid int) {
	m.Helper()
	four := strings.Repeat(fmt.Sprintf("%d\t", uid), 4)
	none := strings.Repeat("0", 16)
	for name, want := range map[string]string{
		"Uid": strings.TrimSpace(four), "Gid": strings.TrimSpace(four), "Groups": strconv.Itoa(render),
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none, "NoNewPrivs": "1",
	} {
		if info, err := os.Lstat("/dev/sda"); name == "Groups" && (err != nil || info.Mode()&fs.ModeCharDevice == 0) {
			want = "" // no nodes on this machine, so none of a GPU
		}
		assert.Equal(m, want, status(text, name), name)
	}
}

func (m machine) who() {
	const command = `set +e; cat /proc/self/status; env | sed 's/^/env /'; pwd -P; umask; ulimit -c; ls -l /proc/self/fd | sed 's/^/fd /'`
	for _, tt := range []struct {
		uid int
		env map[string]string
	}{{trusted, nil}, {other, fork}} {
		m.Logf("uid %d", tt.uid)
		r := m.job(agenttest.Job{Command: command, Env: tt.env})
		text := r.Text()
		require.Equal(m, 0, r.ExitStatus, text)
		m.checkStatus(text, tt.uid)
		base, run := fmt.Sprintf("/var/lib/juliagpu-secrets/%d/", tt.uid), fmt.Sprintf("/run/juliagpu-secrets/user/%d/", tt.uid)
		for _, line := range []string{
			"env HOME=" + base + "home", "env TMPDIR=" + base + "tmp", "env XDG_CACHE_HOME=" + base + "cache", "env JULIA_DEPOT_PATH=" + base + "cache/julia:", "env XDG_RUNTIME_DIR=" + run + "runtime",
			fmt.Sprintf("env USER=%d", tt.uid), fmt.Sprintf("env LOGNAME=%d", tt.uid),
			"env BUILDKITE_BUILD_PATH=" + base + "builds", "env BUILDKITE_PLUGINS_PATH=" + base + "plugins", "env BUILDKITE_SOCKETS_PATH=" + run + "sockets",
			"env BUILDKITE_HOOKS_PATH=/run/lib/hooks", "env BUILDKITE_BIN_PATH=" + filepath.Dir(m.agent.Binary),
			base + "builds/agenttest/juliagpu/cuda-dot-jl", "0022",
		} {
			require.Contains(m, text, "\n"+line+"\n")
		}
		link, err := os.Readlink(base + "home/.cache")
		require.NoError(m, err)
		require.Equal(m, base+"cache", link)
		require.NotContains(m, text, "env BUILDKITE_GIT_MIRRORS_PATH=/")
		require.NotContains(m, text, r.AgentToken, "the registration token")
		for _, line := range regexp.MustCompile(`(?m)^env .*/run/a/`).FindAllString(text, -1) {
			require.Regexp(m, `^env BUILDKITE_(ENV_FILE|CONFIG_PATH)=`, line, "nothing else of the agent's own directories")
		}
		m.notIn("/var/lib/juliagpu-secrets", r.AgentToken)
	}
}

// notIn searches files for a text that must not be there.
func (m machine) notIn(dir, text string) {
	m.Helper()
	hits, err := agenttest.Search(dir, []byte(text))
	require.NoError(m, err)
	require.Empty(m, hits)
}

func (m machine) attack() {
	r := m.job(agenttest.Job{Command: "set +e; /run/lib/probe $BUILDKITE_AGENT_PID; head -c1 $BUILDKITE_ENV_FILE; ls /run/a; cat /proc/$BUILDKITE_AGENT_PID/cmdline"})
	text := r.Text()
	require.Contains(m, text, "ptrace: ", text)
	require.NotContains(m, text, "ALLOWED", text)
	require.GreaterOrEqual(m, strings.Count(text, ": operation not permitted\n")+strings.Count(text, ": permission denied\n"), 19, text)
	require.Regexp(m, `head: .*Permission denied`, text, "the environment file is root's")
	require.Regexp(m, `ls: .*Permission denied`, text)
	require.NotContains(m, text, r.AgentToken)
}

func (m machine) hooks() {
	m.write("hooks/pre-command", `#!/bin/bash
id -u | sed 's/^/hook runs as /'
export FROM_HOOK=hook
buildkite-agent env set FROM_API=api
buildkite-agent redactor add --help >/dev/null 2>&1
`, 0o755)
	r := m.job(agenttest.Job{Command: `echo "got $FROM_HOOK $FROM_API"; buildkite-agent annotate note; ls -ld $BUILDKITE_SOCKETS_PATH/job-api`})
	require.Equal(m, 0, r.ExitStatus, r.Text())
	require.Contains(m, r.Text(), "hook runs as 4711\n")
	require.Contains(m, r.Text(), "got hook api\n")
	require.Regexp(m, `drwx------ . 4711 4711 .*/job-api`, r.Text())
	require.Len(m, r.Annotations, 1)
}

func (m machine) statuses() {
	for _, want := range []int{0, 3, 255} {
		require.Equal(m, want, m.job(agenttest.Job{Command: fmt.Sprintf("exit %d", want)}).ExitStatus)
	}
}

// twoUsers lets a trusted job open its directories to everybody, and a fork's
// look for them; then the other way round.
func (m machine) twoUsers() {
	spread := agenttest.Job{Command: `set +e; umask 0
for d in $BUILDKITE_BUILD_PATH $BUILDKITE_PLUGINS_PATH $HOME $XDG_CACHE_HOME $TMPDIR $BUILDKITE_SOCKETS_PATH $XDG_RUNTIME_DIR; do
	echo CANARY > $d/leak; chmod 777 $d && echo opened $d
done; id -u | sed 's/^/uid /'`}
	look := func(uid int) agenttest.Job {
		return agenttest.Job{Command: fmt.Sprintf(`set +e; id -u | sed 's/^/uid /'
for d in /var/lib/juliagpu-secrets/%[1]d/{builds,plugins,home,cache,tmp} /run/juliagpu-secrets/user/%[1]d/{sockets,runtime}; do
	cat $d/leak; ls $d; echo x > $d/planted; mv $d $d.old; rmdir $d
done 2>&1
mv /var/lib/juliagpu-secrets/%[1]d /var/lib/juliagpu-secrets/x; ls /var/lib/juliagpu-secrets/%[1]d; ls /run/juliagpu-secrets/job; mkdir /var/lib/juliagpu-secrets/4713`, uid)}
	}
	for _, tt := range []struct {
		from, to int
		env      [2]map[string]string
	}{{trusted, other, [2]map[string]string{nil, fork}}, {other, trusted, [2]map[string]string{fork, nil}}} {
		m.reset()
		spread.Env = tt.env[0]
		r := m.job(spread)
		require.Contains(m, r.Text(), fmt.Sprintf("uid %d\n", tt.from))
		require.Equal(m, 7, strings.Count(r.Text(), "opened /"), r.Text())
		job := look(tt.from)
		job.Env = tt.env[1]
		r = m.job(job)
		require.Contains(m, r.Text(), fmt.Sprintf("uid %d\n", tt.to))
		require.NotContains(m, r.Text(), "CANARY")
		require.NotContains(m, r.Text(), "leak\n")
		planted, err := filepath.Glob(fmt.Sprintf("/*/*/juliagpu-secrets/%d/*/planted", tt.from))
		require.NoError(m, err)
		require.Empty(m, planted)
		require.GreaterOrEqual(m, strings.Count(r.Text(), "Permission denied"), 7*4, r.Text())
		// And for the next job of its own user they are closed again.
		m.job(agenttest.Job{Env: tt.env[0]})
		info, err := os.Stat(home.Of(tt.from).Builds)
		require.NoError(m, err)
		require.Equal(m, fs.FileMode(0o700), info.Mode().Perm())
	}
}

// checkout lets Git and the agent do theirs as the job's user.
func (m machine) checkout() {
	_, err := agenttest.GitRepo("/run/repo", map[string]string{"file": "text"})
	require.NoError(m, err)
	_, err = agenttest.GitRepo("/run/plug-buildkite-plugin", map[string]string{"hooks/pre-command": "#!/bin/bash\nid -u | sed 's/^/plugin runs as /'\n"}, "v1")
	require.NoError(m, err)
	// Both belong to root, and Git asks.
	config := filepath.Join(home.Of(trusted).Home, ".gitconfig")
	require.NoError(m, os.WriteFile(config, []byte("[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n[url \"/run/repo\"]\n\tinsteadOf = https://github.com/JuliaGPU/CUDA.jl.git\n"), 0o644))
	m.agent.Repos, m.agent.Flags = map[string]string{}, []string{"--git-mirrors-path", "/run/a/mirrors"}
	r := m.job(agenttest.Job{
		Env:     map[string]string{"BUILDKITE_PLUGINS": `[{"file:///run/plug-buildkite-plugin#v1":null}]`},
		Command: `stat -c '%u %n' "$PWD/file" $BUILDKITE_PLUGINS_PATH/*/* $BUILDKITE_GIT_MIRRORS_PATH/*`,
	})
	require.Equal(m, 0, r.ExitStatus, r.Text())
	for _, pattern := range []string{
		`(?m)^plugin runs as 4711$`, `(?m)^4711 /var/lib/juliagpu-secrets/4711/builds/agenttest/juliagpu/cuda-dot-jl/file$`,
		`(?m)^4711 /var/lib/juliagpu-secrets/4711/plugins/agenttest/`, `(?m)^4711 /var/lib/juliagpu-secrets/4711/git-mirrors/https---github-com-JuliaGPU`,
	} {
		require.Regexp(m, pattern, r.Text())
	}
}

func (m machine) noTerminal() {
	m.agent.NoPTY = true
	r := m.job(agenttest.Job{Command: "cat /proc/self/status; echo by name > /dev/stdout"})
	m.checkStatus(r.Text(), trusted)
	require.Equal(m, 0, r.ExitStatus, r.Text())
	require.Contains(m, r.Text(), "by name\n")
}

// runtimeVariables: the job's own reach its command, and root's program obeys none.
func (m machine) runtimeVariables() {
	r := m.job(agenttest.Job{
		Command: `echo "got $GODEBUG $GOMAXPROCS $GOGC"`,
		Env:     map[string]string{"GODEBUG": "inittrace=1", "GOMAXPROCS": "1", "GOGC": "50"},
	})
	require.Contains(m, r.Text(), "got inittrace=1 1 50\n")
	m.write("config.yml", "mode: split\n", 0o644)
	defer m.write("config.yml", splitConfig, 0o644)
	r, err := m.agent.RunWhole(m.Context(), agenttest.Job{Env: map[string]string{"GODEBUG": "inittrace=1"}}, agenttest.Says("launch: error: "))
	require.NoError(m, err)
	// Once, by the program that started it anew; a second time would be by root's doing.
	require.LessOrEqual(m, strings.Count(r.Text(), "init runtime @"), 1, r.Text())
}

// names are of variables that take the place of the agent's own, half of the time.
func (m machine) names() {
	var outcomes [2]int
	for name, value := range map[string]string{
		"BUILDKITE_HOOKS_PATH=/n":                               "",
		"BUILDKITE_ENV_FILE=/tmp/x":                             "/job-env-01234567-89ab-cdef-0123-456789abcdef1",
		"BUILDKITE_BIN_PATH=/tmp":                               "x",
		"BUILDKITE_SHELL=\"/bin/false\"\nX":                     "y",
		"BUILDKITE_BUILD_PATH=\"/etc\"\nBUILDKITE_PULL_REQUEST": "false",
	} {
		for range 3 {
			mark := canary("end")
			job := agenttest.Job{Env: map[string]string{name: value}, Command: "id -u; env | grep ^BUILDKITE_HOOKS; echo " + mark}
			r, err := m.agent.RunWhole(m.Context(), job, func(r agenttest.Result) bool {
				return strings.Contains(r.Text(), "\n"+mark) || strings.Contains(r.Text(), "launch: hint: ")
			})
			require.NoError(m, err, r.Text())
			outcomes[min(r.ExitStatus, 1)]++
			if r.ExitStatus == 0 {
				require.Contains(m, r.Text(), "\nBUILDKITE_HOOKS_PATH=/run/lib/hooks\n")
				continue
			}
			variable, _, _ := strings.Cut(name, "=")
			require.Equal(m, 1, r.ExitStatus, r.Text())
			require.Contains(m, r.Text(), "launch: error: the job can't start: what the agent says in "+variable+" may be the job's own\n")
		}
	}
	m.Logf("%d jobs ran with what the agent says, %d were refused", outcomes[0], outcomes[1])
}

func (m machine) noHandoff() {
	m.write("hooks/pre-bootstrap", "#!/bin/sh\nmkdir -p /run/juliagpu-secrets/job\n", 0o755)
	m.refused(agenttest.Job{}, 75, "no hand-off for this job\n", "launch: hint: the agent's operator sees in the agent's log")
}

// cancel ends jobs in each phase, and looks for what is left of them.
func (m machine) cancel() {
	sleep := "#!/bin/bash\ntrap 'echo caught; exit 1' TERM\necho now-sleeping\nsleep 600 & wait\n"
	for _, phase := range []string{"environment", "checkout", "pre-command", "command", "pre-exit"} {
		for _, noPTY := range []bool{false, true} {
			if noPTY && phase != "command" {
				continue // it takes seconds, and the difference is in one place
			}
			m.Logf("%s, no terminal: %v", phase, noPTY)
			m.reset()
			m.agent.NoPTY, m.agent.Repos = noPTY, nil
			if phase == "checkout" {
				m.agent.Repos = map[string]string{} // a checkout phase
			}
			job := agenttest.Job{CancelOn: "now-sleeping"}
			if phase == "command" {
				job.Command = "echo now-slee''ping; sleep 600"
			} else {
				m.write("hooks/"+phase, sleep, 0o755)
			}
			started := time.Now()
			r, err := m.agent.Run(m.Context(), job)
			require.NoError(m, err, r.AgentLog)
			require.Less(m, time.Since(started), 30*time.Second)
			require.NotEqual(m, 0, r.ExitStatus, r.Text())
			require.Equal(m, "cancel", r.SignalReason)
			require.Empty(m, m.processesOf(trusted), "left of the job")
		}
	}
}

func (m machine) processesOf(uid int) []string {
	m.Helper()
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/status")
	require.NoError(m, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(status(string(text), "Uid"), strconv.Itoa(uid)+"\t") && !strings.HasPrefix(status(string(text), "State"), "Z") {
			found = append(found, string(text))
		}
	}
	return found
}

// A start is one of launch by a stand-in of an agent, which is quicker.
const startID = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"

func (m machine) start(environ ...string) (text string, status int) {
	m.Helper()
	environ = append([]string{"PATH=/usr/bin:/bin", "HOME=/root", "USER=root", "XDG_CONFIG_HOME=/root/.config", "BUILDKITE_ENV_FILE=/run/a/tmp/job-env-" + startID + "12345"}, environ...)
	cmd := exec.Command("/run/fake/buildkite-agent", append([]string{"/run/lib/launch"}, environ...)...)
	out, err := cmd.Output()
	if err != nil {
		require.IsType(m, (*exec.ExitError)(nil), err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// give makes the hand-off of start's job.
func (m machine) give(uid int) string {
	m.Helper()
	dir := "/run/juliagpu-secrets/job/" + startID
	require.NoError(m, os.MkdirAll(filepath.Dir(dir), 0o711))
	require.NoError(m, os.RemoveAll(dir))
	require.NoError(m, os.Mkdir(dir, 0o700))
	require.NoError(m, os.Chown(dir, uid, uid))
	return dir
}

func (m machine) leaves() {
	m.give(trusted)
	text, code := m.start("BUILDKITE_GIT_MIRRORS_PATH=/root/mirrors", "KEPT=a=b", "GOGC=50", "=odd")
	require.Equal(m, 0, code, text)
	m.checkStatus(text, trusted)
	for _, line := range []string{
		"cwd /var/lib/juliagpu-secrets/4711/builds", "core 0", "umask 022", "args [/run/fake/buildkite-agent bootstrap]",
		"env BUILDKITE_GIT_MIRRORS_PATH=/var/lib/juliagpu-secrets/4711/git-mirrors", "env KEPT=a=b", "env GOGC=50", "env HOME=/var/lib/juliagpu-secrets/4711/home",
	} {
		require.Contains(m, text, "\n"+line+"\n")
	}
	require.NotContains(m, text, "XDG_CONFIG_HOME")
	require.NotContains(m, text, "root/")
	// The stand-in leaves descriptor 3 open on its program; what is seen above 2 is the runtime's own.
	require.NotRegexp(m, `(?m)^fd \d+ /run/fake/buildkite-agent$`, text)
}

func (m machine) refuses() {
	dir := "/run/juliagpu-secrets/job/" + startID
	for _, tt := range []struct {
		name   string
		change func()
		env    []string
		status int
		says   string
	}{
		{"a user that is not configured", func() { m.give(4713) }, nil, 75, dir + ": for uid 4713, and jobs run as uid 4711 or 4712"},
		{"root's hand-off", func() { m.give(0) }, nil, 75, dir + ": for uid 0, and jobs run as uid 4711 or 4712"},
		{"no hand-off", func() { m.give(trusted); require.NoError(m, os.Remove(dir)) }, nil, 75, dir + ": no hand-off for this job"},
		{"nobody's", func() { require.NoError(m, os.RemoveAll("/run/juliagpu-secrets")) }, nil, 75, "/run/juliagpu-secrets: not there, so there is no hand-off"},
		{"a link to one", func() {
			m.give(trusted)
			require.NoError(m, os.Rename(dir, dir+"x"))
			require.NoError(m, os.Symlink(dir+"x", dir))
		}, nil, 75, dir + ": no hand-off for this job"},
		{"a file", func() {
			m.give(trusted)
			require.NoError(m, os.Remove(dir))
			require.NoError(m, os.WriteFile(dir, nil, 0o600))
		}, nil, 75, dir + ": no hand-off for this job"},
		{"one that others can enter", func() { m.give(trusted); require.NoError(m, os.Chmod(dir, 0o750)) }, nil, 75, dir + ": mode 0750, others can enter"},
		{"a folder of the job's", func() { m.give(trusted); require.NoError(m, os.Chown(filepath.Dir(dir), other, 0)) }, nil, 75,
			"/run/juliagpu-secrets/job: owned by uid 4712"},
		{"a folder that is everybody's", func() { m.give(trusted); require.NoError(m, os.Chmod(filepath.Dir(dir), 0o777)) }, nil, 75,
			"/run/juliagpu-secrets/job: mode 0777, others can write"},
		{"a folder that is a link", func() {
			m.give(trusted)
			require.NoError(m, os.Rename("/run/juliagpu-secrets/job", "/run/juliagpu-secrets/x"))
			require.NoError(m, os.Symlink("x", "/run/juliagpu-secrets/job"))
		}, nil, 75, "/run/juliagpu-secrets/job: not a directory"},

		{"no id", func() { m.give(trusted) }, []string{"BUILDKITE_ENV_FILE="}, 1, "what the agent says in BUILDKITE_ENV_FILE may be the job's own"},
		{"an agent's variable twice", func() { m.give(trusted) }, []string{"BUILDKITE_SHELL=/bin/sh", "BUILDKITE_SHELL=/bin/sh"}, 1, "what the agent says in BUILDKITE_SHELL may be the job's own"},
		{"an agent's variable with two =", func() { m.give(trusted) }, []string{"BUILDKITE_PLUGINS_PATH=/n="}, 1, "what the agent says in BUILDKITE_PLUGINS_PATH may be the job's own"},

		{"configuration of another", func() { m.give(trusted); require.NoError(m, os.Chown("/run/lib/config.yml", trusted, trusted)) }, nil, 75,
			"/run/lib/config.yml: owned by uid 4711, not by root"},
		{"no configuration", func() { m.give(trusted); require.NoError(m, os.Remove("/run/lib/config.yml")) }, nil, 75, "no configuration"},
		{"no users", func() {
			m.give(trusted)
			m.write("config.yml", "mode: split\nconsume: true\nisolation: {expect: host, reason: a test}\nidentities: [{file: /i}]\n", 0o644)
		}, nil, 75, "/run/lib/config.yml: names no users for jobs"},
		{"an agent that jobs can change", func() { m.give(trusted); require.NoError(m, os.Chown("/run/fake", trusted, trusted)) }, nil, 75,
			"/run/fake/buildkite-agent: by way of /run/fake: owned by uid 4711, not by root"},
	} {
		m.Logf("%s", tt.name)
		m.reset()
		m.write("config.yml", splitConfig, 0o644)
		require.NoError(m, os.Chown("/run/fake", 0, 0))
		tt.change()
		env := tt.env
		text, code := m.start(env...)
		require.Equal(m, tt.status, code, text)
		require.Contains(m, text, "+++ :key: Secrets\nlaunch: error: the job can't start: "+tt.says)
		require.Regexp(m, `\nlaunch: hint: .+\n$`, text)
		require.NotContains(m, text, "args [")
	}
	require.NoError(m, os.Chown("/run/fake", 0, 0))
	m.write("config.yml", splitConfig, 0o644)

	// Each directory that it makes, taken by somebody else.
	for _, dir := range []string{
		"/var/lib/juliagpu-secrets", "/var/lib/juliagpu-secrets/4711", "/run/juliagpu-secrets/user", "/run/juliagpu-secrets/user/4711",
		home.Of(trusted).Builds, home.Of(trusted).Plugins, home.Of(trusted).Mirrors, home.Of(trusted).Home,
		home.Of(trusted).Cache, home.Of(trusted).Temp, home.Of(trusted).Sockets, home.Of(trusted).Runtime,
	} {
		m.reset()
		m.give(trusted)
		require.NoError(m, os.MkdirAll("/run/victim", 0o755))
		require.NoError(m, os.RemoveAll(dir))
		require.NoError(m, os.Symlink("/run/victim", dir))
		text, code := m.start()
		require.Equal(m, 75, code, text)
		require.Contains(m, text, "launch: error: the job can't start: "+dir+": not a directory of ours: a link or a file\n")
		info, err := os.Stat("/run/victim")
		require.NoError(m, err)
		require.Equal(m, uint32(0), info.Sys().(*syscall.Stat_t).Uid)
		require.Equal(m, fs.FileMode(0o755), info.Mode().Perm())
		entries, err := os.ReadDir("/run/victim")
		require.NoError(m, err)
		require.Empty(m, entries)
	}
}

// starters are processes other than an agent of root's that start launch.
func (m machine) starters() {
	m.give(trusted)
	run := func(cmd *exec.Cmd) string {
		cmd.Env = []string{"BUILDKITE_ENV_FILE=/run/a/tmp/job-env-" + startID + "12345"}
		out, err := cmd.Output()
		require.Error(m, err)
		require.Equal(m, 75, cmd.ProcessState.ExitCode(), "%s", out)
		return string(out)
	}
	require.Contains(m, run(exec.Command("/run/lib/launch")), "not started by an agent: process 1 is another program\n")
	require.Contains(m, run(exec.Command("/run/lib/launch", "bootstrap")), "launch: error: the job can't start: it takes no arguments\n")
	cmd := exec.Command("/run/lib/launch")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: trusted, Gid: trusted}}
	require.Contains(m, run(cmd), "the agent that started it is not root's\n")
}

// startup starts agents that must not start, and one that may.
func (m machine) startup() {
	const lib, lost = "/run/lib", "agent-startup: error: no agent here: "
	id, err := age.GenerateX25519Identity()
	require.NoError(m, err)
	attest := func(token string, mode fs.FileMode) {
		m.write("config.yml", splitConfig+"attest: {token: /run/api-token, organization: juliagpu}\n", 0o644)
		m.write("../api-token", token, mode)
	}
	for _, tt := range []struct {
		name   string
		change func(a *agenttest.Agent)
		says   string // "": a job runs
	}{
		{"as it must be", func(*agenttest.Agent) {}, ""},
		{"one worker, said aloud", func(a *agenttest.Agent) { a.Flags = []string{"--spawn=1", "--spawn-per-cpu", "0"} }, ""},
		{"no configuration", func(*agenttest.Agent) { os.Remove(lib + "/config.yml") }, "no configuration: neither " + lib + "/config.yml nor /etc/juliagpu-secrets/config.yml is there"},
		{"a key too many", func(*agenttest.Agent) { m.write("config.yml", splitConfig+"moode: x\n", 0o644) }, lib + "/config.yml:5:1: moode: unknown key: write mode"},
		{"a user that is not there", func(*agenttest.Agent) {
			m.write("config.yml", strings.Replace(splitConfig, `"4712:4712"`, "hunter2", 1), 0o644)
		}, lib + "/config.yml: users.other: no such user on this machine: make the user, or write both numbers, as in \"4711:4711\""},
		{"one group", func(*agenttest.Agent) {
			m.write("config.yml", strings.Replace(splitConfig, "4712:4712", "4712:4711", 1), 0o644)
		},
			lib + "/config.yml: users: one group for both: make a group for each"},
		{"no identity", func(*agenttest.Agent) { os.Remove("/run/identity") }, "identity /run/identity: no such file or directory"},
		{"an identity for all", func(*agenttest.Agent) { os.Chmod("/run/identity", 0o644) }, "identity /run/identity: mode 0644, readable by others: chmod 600 /run/identity"},
		{"an identity that is none", func(*agenttest.Agent) { os.WriteFile("/run/identity", []byte("hunter2\n"), 0o600) },
			"identity /run/identity: not an identity file: line 1 is neither an identity nor a comment"},
		{"two workers", func(a *agenttest.Agent) { a.Flags = []string{"--spawn", "2"} }, "--spawn: its workers would share users, directories and /run: start an agent for each"},
		{"two workers, by a variable", func(a *agenttest.Agent) { a.Env = []string{"BUILDKITE_AGENT_SPAWN=2"} }, "--spawn: its workers"},
		{"as many as there are cores", func(a *agenttest.Agent) { a.Env = []string{"BUILDKITE_AGENT_SPAWN_PER_CPU=1"} }, "--spawn-per-cpu: its workers"},
		{"two workers, by a file", func(a *agenttest.Agent) { a.Flags = []string{"--config", m.file("agent.cfg", "spawn=2\n", 0o644)} }, "--spawn: its workers"},
		{"other hooks", func(a *agenttest.Agent) {
			require.NoError(m, os.MkdirAll("/run/hooks", 0o755))
			a.HooksPath = "/run/hooks"
			m.write("../hooks/agent-startup", "#!/run/lib/agent-startup", 0o755)
		}, "the agent's hooks are those in /run/hooks: start it with --hooks-path " + lib + "/hooks"},
		{"a hook of a job's", func(*agenttest.Agent) {
			m.write("hooks/post-command", "#!/bin/sh\n", 0o755)
			require.NoError(m, os.Chown(lib+"/hooks/post-command", trusted, trusted))
		}, lib + "/hooks/post-command: owned by uid 4711, not by root: chown -h root"},
		{"no pre-bootstrap", func(*agenttest.Agent) { os.Remove(lib + "/hooks/pre-bootstrap") }, lib + "/hooks: there is no hook pre-bootstrap: make install puts it there"},
		{"hooks that this agent can't run", func(a *agenttest.Agent) { a.Polyglot = false }, "agent 3.81 does not run hooks that are programs: every job would fail: install 3.85"},
		{"no launcher", func(a *agenttest.Agent) { a.BootstrapScript = "" }, "jobs would run as root: start the agent with --bootstrap-script " + lib + "/launch"},
		{"another launcher", func(a *agenttest.Agent) { a.BootstrapScript = "/run/lib/probe" }, "jobs would run as root"},
		{"a token that jobs can read, in a file", func(a *agenttest.Agent) {
			a.Flags = []string{"--config", m.file("agent.cfg", "token=\"x\"\n", 0o640)}
		}, "it holds the agent's token: /run/cfg/agent.cfg: mode 0640, readable by its group: chmod 600 /run/cfg/agent.cfg"},
		{"a token in a file of root's", func(a *agenttest.Agent) { a.Flags = []string{"--config", m.file("agent.cfg", "token=\"x\"\n", 0o600)} }, ""},
		{"a hook that jobs can't run", func(*agenttest.Agent) { require.NoError(m, os.Chmod(lib+"/environment", 0o700)) },
			lib + "/environment: by way of " + lib + "/environment: mode 0700: jobs can't run it: chmod o+x " + lib + "/environment"},
		{"a directory that is taken", func(*agenttest.Agent) {
			require.NoError(m, os.RemoveAll("/var/lib/juliagpu-secrets/4712"))
			require.NoError(m, os.Symlink("/etc", "/var/lib/juliagpu-secrets/4712"))
		}, "/var/lib/juliagpu-secrets/4712: not a directory of ours: a link or a file"},
		{"a hand-off's folder that is a job's", func(*agenttest.Agent) {
			require.NoError(m, os.MkdirAll("/run/juliagpu-secrets/job", 0o711))
			require.NoError(m, os.Chown("/run/juliagpu-secrets/job", trusted, trusted))
		}, "/run/juliagpu-secrets/job: owned by uid 4711"},
		{"identities for one job, and an agent for many", func(a *agenttest.Agent) {
			m.write("config.yml", splitConfig+"consume: true\n", 0o644)
			a.Flags = []string{"--disconnect-after-job=false"}
		}, "consume: true, and the agent takes more than one job: from the second on there is no identity: start it with --disconnect-after-job"},
		{"attestation", func(*agenttest.Agent) { attest("bkua_x\n", 0o600) }, ""},
		{"no API token", func(*agenttest.Agent) { attest("", 0o600); os.Remove("/run/api-token") }, "API token /run/api-token: no such file or directory"},
		{"an API token for all", func(*agenttest.Agent) { attest("bkua_x\n", 0o644) }, "API token /run/api-token: mode 0644, readable by others: chmod 600 /run/api-token"},
		{"an API token that is none", func(*agenttest.Agent) { attest("token: hunter2\n", 0o600) }, "API token /run/api-token: it does not hold one word on one line"},
		{"nobody to ask for us", func(*agenttest.Agent) { attest("bkua_x\n", 0o600); os.Remove(lib + "/attest") }, lib + "/attest: no such file or directory: make install puts it there"},
		{"direct mode", func(a *agenttest.Agent) {
			a.BootstrapScript = ""
			m.write("config.yml", "mode: direct\nreason: a test\nisolation: {expect: host, reason: a test}\nidentities: [{file: /run/identity}]\n", 0o644)
		}, ""},
	} {
		m.Logf("%s", tt.name)
		m.reset()
		m.write("config.yml", splitConfig, 0o644)
		m.write("hooks/agent-startup", "#!/run/lib/agent-startup", 0o755)
		os.Remove(lib + "/hooks/post-command")
		require.NoError(m, os.Chmod(lib+"/environment", 0o755))
		require.NoError(m, os.Symlink("../environment", lib+"/hooks/environment"))
		require.NoError(m, os.WriteFile("/run/identity", []byte(id.String()+"\n"), 0o600))
		require.NoError(m, os.Chmod("/run/identity", 0o600))
		a := m.agent
		tt.change(&a)
		r, err := a.Run(m.Context(), agenttest.Job{})
		if tt.says == "" {
			require.Contains(m, r.AgentLog, "agent-startup: ready: ", err)
			require.NotContains(m, r.AgentLog, lost)
			continue
		}
		require.ErrorIs(m, err, agenttest.ErrUnfinished, r.AgentLog)
		require.Equal(m, 1, r.AgentStatus, r.AgentLog)
		require.Contains(m, r.AgentLog, lost+tt.says)
		require.Equal(m, 1, strings.Count(r.AgentLog, "agent-startup: "), r.AgentLog)
		require.NotContains(m, r.AgentLog, "hunter2\n")
	}
	m.reset()
	m.write("config.yml", splitConfig, 0o644)
	m.write("hooks/agent-startup", "#!/run/lib/agent-startup", 0o755)
	require.NoError(m, os.Symlink("../environment", lib+"/hooks/environment"))
	// By a stand-in, because the real agent takes the token that it is given. What
	// it is to start has its own arguments for an environment.
	start := func(arguments ...string) string {
		out, err := exec.Command("/run/fake/buildkite-agent", append([]string{lib + "/hooks/agent-startup", "--experiment=polyglot-hooks", "--bootstrap-script=" + lib + "/launch"}, arguments...)...).Output()
		if err != nil {
			require.IsType(m, (*exec.ExitError)(nil), err)
		}
		return string(out)
	}
	require.Equal(m, "agent-startup: ready: split mode, jobs run as uid 4711, or 4712 where they are not trusted\n", start())
	require.Equal(m, lost+"--token: jobs can read the agent's arguments: put the token into BUILDKITE_AGENT_TOKEN, or into a file of root's, mode 600\n", start("--token", "x"))
	out, err := exec.Command(lib + "/agent-startup").Output()
	require.Error(m, err)
	require.Contains(m, string(out), lost+"the agent did not start this as its hook")
}

// file writes a file of the agent's.
func (m machine) file(name, text string, mode fs.FileMode) string {
	m.Helper()
	path := filepath.Join("/run/cfg", name)
	require.NoError(m, os.MkdirAll("/run/cfg", 0o755))
	require.NoError(m, os.WriteFile(path, []byte(text), mode))
	require.NoError(m, os.Chmod(path, mode))
	return path
}

// whole installs all hooks as an operator does, with an identity.
func (m machine) whole() (*host, envelope.Recipient) {
	m.Helper()
	h := &host{t: m.T, identities: "/run/identities"}
	require.NoError(m, os.MkdirAll(h.identities, 0o700))
	to, entry := h.identity("identity", false)
	m.write("config.yml", strings.Replace(splitConfig, "{file: /run/identity}", entry, 1), 0o644)
	for _, name := range []string{"pre-bootstrap", "agent-startup"} {
		m.write("hooks/"+name, "#!/run/lib/"+name+"\n", 0o755)
	}
	for _, name := range []string{"environment", "pre-command"} {
		require.NoError(m, os.Symlink("../"+name, filepath.Join(m.lib, "hooks", name)))
	}
	return h, to
}

// secrets runs the whole of split mode, as an operator installs it: a trusted job
// gets its secret by way of pre-bootstrap and its user, a fork's gets none, and
// neither gets at anything else.
func (m machine) secrets() {
	h, to := m.whole()
	value := canary("token")
	job := agenttest.Job{
		Env: map[string]string{"SECRET_TOKEN": seal(m.T, to, "TOKEN", value, nil)},
		Command: show("TOKEN") + `set +e; id -u | sed 's/^/uid /'
cat /run/identities/identity; ls /run/identities; ls /run/juliagpu-secrets /run/juliagpu-secrets/job
find /run/juliagpu-secrets/job/* /run/juliagpu-secrets/user/*/ -name handoff
head -c 64 > left-$(id -u) < /dev/zero; (sleep 300 > /dev/null 2>&1 < /dev/null & ) ; true`,
	}
	r := m.job(job)
	require.Equal(m, 0, r.ExitStatus, r.Text())
	for _, part := range []string{"SECRET_TOKEN: granted\n", "raw TOKEN: [REDACTED]", sum("TOKEN", value), "outcome: granted; names: TOKEN.", "uid 4711\n"} {
		require.Contains(m, r.Text(), part)
	}
	require.Contains(m, r.AgentLog, "agent-startup: ready: split mode, jobs run as uid 4711, or 4712 where they are not trusted")
	h.notSeen(r, value)

	maps.Copy(job.Env, fork)
	r = m.job(job)
	require.Equal(m, 0, r.ExitStatus, r.Text())
	for _, part := range []string{"SECRET_TOKEN: withheld: ", sum("TOKEN", ""), "outcome: withheld; names: .", "uid 4712\n"} {
		require.Contains(m, r.Text(), part)
	}
	h.notSeen(r, value)

	// Whatever a job leaves running, in a group of its own, a later one of the same
	// user would have to share its secrets with.
	m.agent.KeepProcesses = true
	for name := range fork {
		delete(job.Env, name)
	}
	job.Command = strings.Replace(job.Command, "(sleep 300", "(trap '' HUP; setsid sleep 300", 1)
	r, err := m.agent.Run(m.Context(), job) // once: again, it would be the later one
	require.NoError(m, err)
	require.Contains(m, r.Text(), "SECRET_TOKEN: granted\n")
	require.NotEmpty(m, m.processesOf(trusted))
	r = m.job(job)
	require.Regexp(m, `SECRET_TOKEN: withheld: process \d+ of the user that jobs run as \(uid 4711\) is left from an earlier job`, r.Text())
}

// notSeen searches what a job left for a value and for identities.
func (h *host) notSeen(r agenttest.Result, value string) {
	h.t.Helper()
	for _, c := range append(h.identityTexts(), []byte(value)) {
		require.False(h.t, agenttest.Contains([]byte(r.Log), c), "in the job's log")
		require.False(h.t, agenttest.Contains([]byte(r.AgentLog), c), "in the agent's log")
		for _, dir := range []string{"/run/a", "/run/juliagpu-secrets", "/var/lib/juliagpu-secrets"} {
			hits, err := agenttest.Search(dir, c)
			require.NoError(h.t, err)
			require.Empty(h.t, hits)
		}
	}
}
