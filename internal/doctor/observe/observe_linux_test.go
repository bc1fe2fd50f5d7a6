package observe

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

var update = flag.Bool("update", false, "write the golden files anew; read them in the diff")

// always is of every host whose credentials are files.
const always = "credential.plain"

// TestHosts breaks a host in one way after the other: the first line names how, and
// nothing else is said of it.
func TestHosts(t *testing.T) {
	for _, name := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			f := load(t, name)
			r := judged(t, f, Ask{})
			var got []string
			for _, finding := range r.Findings {
				if finding.ID != always {
					got = append(got, fmt.Sprint(finding.Severity, " ", finding.ID))
				}
				for _, text := range []string{finding.What, finding.Why, finding.Fix} {
					assert.Regexp(t, `^[ -~]+$`, text, finding.ID)
					assert.NotContains(t, text, t.TempDir()[:strings.LastIndex(t.TempDir(), "/")], "no path of the test's")
					assert.NotContains(t, text, "of-no-use")
					assert.NotContains(t, text, "14P5WUTZ")
				}
			}
			require.Equal(t, strings.TrimSpace(f["want"]), strings.Join(got, "\n"), r.Text(0, false, 0))
			status := 0
			if strings.HasPrefix(f["want"], "fault") {
				status = 1
			} else if strings.HasPrefix(f["want"], "unknown") {
				status = 75
			}
			require.Equal(t, status, r.Status())
			if len(got) > 0 && r.Findings[0].ID != always {
				_, id, _ := strings.Cut(lines(f["want"])[0], " ")
				first, _, _ := strings.Cut(r.Text(80, false, 0), "\n")
				require.Contains(t, first, id+":")
			}
		})
	}
}

// TestEffects: an engine that is down leaves unknown what only it knows.
func TestEffects(t *testing.T) {
	r := judged(t, load(t, "engine-down"), Ask{})
	skipped := map[string]string{}
	for _, s := range r.Skipped {
		skipped[s.ID] = s.Because
	}
	for _, id := range []string{"runc.old", "docker.runtime", "image.missing", "container.open", "unit.looping", "unit.failed"} {
		require.Equal(t, "engine.down", skipped[id], id)
	}
	require.NotContains(t, skipped, "config.wrong")
	require.Contains(t, r.Findings[0].What, "Is the docker daemon running?; docker.service is failed")
}

// TestOneAgent leaves the others out, but for what they share with it.
func TestOneAgent(t *testing.T) {
	r := judged(t, load(t, "agent-wrong"), Ask{Agent: "gpuci.3"})
	require.Equal(t, 0, r.Status(), r.Text(0, false, 0))
	r = judged(t, load(t, "agent-wrong"), Ask{Agent: "upload"})
	require.Equal(t, "agent.wrong", r.Findings[0].ID)
	r = judged(t, load(t, "agent-shared"), Ask{Agent: "gpuci.4"})
	require.Equal(t, "agent.shared-gpu", r.Findings[0].ID)
}

// TestNotRoot: what a user can't see is unknown, and not missing.
func TestNotRoot(t *testing.T) {
	f := load(t, "ok")
	f["@mode"] += "\n0700 etc/juliagpu-secrets"
	f["$ docker version"] = "!1 permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock\n"
	for _, c := range []string{"info", "image inspect", "container inspect"} {
		f["$ docker "+c] = f["$ docker version"]
	}
	m := f.machine(t)
	need.Root(t, "to own what another user is to look at")
	// The folders above are the test's own alone.
	for dir := filepath.Dir(m.Root); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	need.AnotherUser(t)
	m.UID = 4711
	// The test's own thread is another user's; what is looked at beside it is still root's.
	r := doctor.Judge(Facts(m, Ask{}))
	require.Equal(t, doctor.StatusUnknown, r.Status(), r.Text(0, false, 0))
	require.Equal(t, "doctor.partial", r.Findings[0].ID)
	require.Contains(t, r.Findings[0].What, "the Docker Engine")
	require.Contains(t, r.Findings[0].What, "the configuration")
	require.Contains(t, r.Findings[0].What, "credentials/agent-token")
	for _, finding := range r.Findings[1:] {
		require.NotEqual(t, doctor.Fault, finding.Severity, finding)
	}
}

// TestContainer looks at an agent's container, before a job, with one, and after.
func TestContainer(t *testing.T) {
	status := func(uid int) string {
		return fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\nPPid:\t1\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n", uid, uid, uid, uid)
	}
	for _, tt := range []struct {
		name string
		do   func(fixture)
		want string
	}{
		{"before a job", func(fixture) {}, ""},
		{"with a job", func(f fixture) {
			f.drop("run/juliagpu-secrets/credentials/identity")
			f["run/juliagpu-secrets/credentials/other"] = ""
			f["proc/42/status"] = status(4712)
		}, ""},
		{"with a job that could take the identity", func(f fixture) { f["proc/42/status"] = status(4711) }, "fault credential.kept"},
		{"after a job", func(f fixture) {
			f.drop("run/juliagpu-secrets/credentials/identity")
			f["run/juliagpu-secrets/credentials/other"] = ""
		}, "warn credential.gone"},
		{"an identity for everyone", func(f fixture) { f["@mode"] = "" }, "fault credential.readable"},
		{"an image without the users", func(f fixture) {
			f["etc/juliagpu-secrets/config.yml"] = strings.Replace(f["etc/juliagpu-secrets/config.yml"], "\"4711:4711\"", "buildkite-nobody", 1)
		}, "fault users.missing"},
		{"an image without a hook", func(f fixture) { f.drop("usr/lib/juliagpu-secrets/hooks/pre-command") }, "fault hooks.missing"},
		{"no tmpfs", func(f fixture) { f["proc/self/mountinfo"] = "27 1 0:40 / / rw - overlay overlay rw\n" }, "fault tmpfs.run"},
		{"no configuration", func(f fixture) { f.drop("etc/juliagpu-secrets/config.yml") }, "fault config.missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := fixture{"proc/self/mountinfo": "27 1 0:40 / / rw - overlay overlay rw\n30 27 0:26 / /run rw - tmpfs tmpfs rw\n"}
			for path, text := range load(t, "ok") {
				if strings.HasPrefix(path, "usr/lib/") || path == "etc/juliagpu-secrets/config.yml" || path == "@links" || path == "@programs" {
					f[path] = text
				}
			}
			f["run/juliagpu-secrets/credentials/identity"] = load(t, "ok")["etc/juliagpu-secrets/credentials/identity"]
			f["@mode"] = "0600 run/juliagpu-secrets/credentials/identity"
			f["proc/1/status"] = status(0)
			tt.do(f)
			r := judged(t, f, Ask{})
			require.Equal(t, doctor.Container, r.Place)
			got := ""
			if len(r.Findings) > 0 {
				got = fmt.Sprint(r.Findings[0].Severity, " ", r.Findings[0].ID)
			}
			require.Equal(t, tt.want, got, r.Text(0, false, 0))
			require.LessOrEqual(t, len(r.Findings), 1, r.Text(0, false, 0))
		})
	}
}

// TestText: golden pages, of any width, that fit where words permit.
func TestText(t *testing.T) {
	for _, name := range []string{"ok", "engine-down", "many", "agent-shared"} {
		r := judged(t, load(t, name), Ask{})
		for _, width := range []int{40, 80, 200} {
			got := r.Text(width, false, 312*time.Millisecond)
			for _, line := range lines(got) {
				if strings.Contains(strings.TrimSpace(line), " ") {
					assert.LessOrEqual(t, utf8.RuneCountInString(line), width, line)
				}
			}
			golden(t, fmt.Sprintf("text/%s-%d.txt", name, width), got)
		}
	}
	r := judged(t, load(t, "many"), Ask{})
	golden(t, "text/many-colour.txt", r.Text(80, true, 312*time.Millisecond))
	golden(t, "text/many.json", string(r.JSON(312*time.Millisecond)))
	empty := doctor.Report{}.JSON(0)
	require.True(t, json.Valid(empty))
	for _, list := range []string{"findings", "not_checked", "seen"} {
		require.Contains(t, string(empty), `"`+list+`": []`)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, name)
}

// TestDoors: what leads out of an agent's container, and what agents have anyway.
func TestDoors(t *testing.T) {
	const well = `"Mounts":[{"Source":"/run/juliagpu-secrets/agents/gpuci.3"},{"Source":"/var/lib/juliagpu-secrets/agents/gpuci.3/jobs"},{"Source":"/run/juliagpu-secrets/gpu/gpuci.3.yml"},
		{"Source":"/etc/juliagpu-secrets/config.yml"},{"Source":"/var/lib/docker/volumes/cache/_data"},{"Source":"/srv/data"}],
		"HostConfig":{"CapAdd":["CAP_CHOWN","DAC_OVERRIDE","SETUID"],"SecurityOpt":["no-new-privileges:true"],"RestartPolicy":{"Name":"no"}}`
	for _, tt := range []struct{ from, to, want string }{
		{"", "", ""},
		{`"HostConfig":{`, `"HostConfig":{"Privileged":true,`, "privileged: true"},
		{`"HostConfig":{`, `"HostConfig":{"UsernsMode":"host",`, "userns_mode: host"},
		{`"SETUID"`, `"SETUID","CAP_SYS_ADMIN","ALL"`, "cap_add: SYS_ADMIN, cap_add: ALL"},
		{`"no-new-privileges:true"`, `"seccomp=unconfined","apparmor:unconfined"`, "security_opt: seccomp=unconfined, security_opt: apparmor:unconfined"},
		{"/srv/data", "/var/run", "volume /var/run"},
		{"/srv/data", "/run/", "volume /run/"},
		{"/srv/data", "/", "volume /"},
		{"/srv/data", "/etc", "volume /etc"},
		{"/srv/data", "/etc/juliagpu-secrets", "volume /etc/juliagpu-secrets"},
		{"/srv/data", "/etc/juliagpu-secrets/credentials/identity", "volume /etc/juliagpu-secrets/credentials/identity"},
		{"/srv/data", "/root/.ssh", "volume /root/.ssh"},
		{"/srv/data", "/proc", "volume /proc"},
		{"/srv/data", "/dev/sda", "volume /dev/sda"},
		{"/srv/data", "/var/lib/docker", "volume /var/lib/docker"},
		{"/srv/data", "/run/juliagpu-secrets/agents/mig.1", "volume /run/juliagpu-secrets/agents/mig.1"},
	} {
		f := load(t, "ok")
		f["$ docker container inspect"] = `{"Name":"/buildkite-agent-gpuci.3",` + strings.Replace(well, tt.from, tt.to, 1) + "}"
		is := Facts(f.machine(t), Ask{}).Agents[0].Container
		require.NotNil(t, is, tt.to)
		require.Equal(t, tt.want, strings.Join(is.Open, ", "), tt.to)
	}
}

// TestRemedies: what to do is for what is wrong, and not for what else it could be.
func TestRemedies(t *testing.T) {
	first := func(f fixture) doctor.Finding { return judged(t, f, Ask{}).Findings[0] }
	require.Contains(t, first(load(t, "engine-masked")).Fix, "systemctl unmask docker.service")
	require.Contains(t, first(load(t, "engine-hangs")).Fix, "dmesg")
	require.Contains(t, first(load(t, "unit-masked")).Fix, "systemctl unmask buildkite-agent@gpuci.3")
	require.Contains(t, first(load(t, "unit-broken")).Fix, "systemd-analyze verify buildkite-agent@gpuci.3.service")
	require.Contains(t, first(load(t, "disk-run")).Fix, "du -xsh /run/*")
	require.Contains(t, first(load(t, "disk-files")).What, "inodes")
	require.Contains(t, first(load(t, "agent-render")).Fix, "AGENT_RENDER_GID=")
	require.Contains(t, first(load(t, "engine-podman")).What, "Podman")
	require.Contains(t, first(load(t, "engine-snap")).Fix, "snap remove docker")
	require.Contains(t, first(load(t, "engine-slow")).What, "docker info says nothing")
	require.Contains(t, first(load(t, "engine-tcp")).What, "http://0.0.0.0:2375 without encryption")
	require.NotContains(t, first(load(t, "engine-null")).Fix, "systemctl start")
	m := load(t, "ok").machine(t)
	run := m.Run
	m.Run = func(program string, args ...string) Answer {
		if program == "docker" {
			return Answer{Err: &fs.PathError{Op: "fork/exec", Path: "/usr/bin/docker", Err: fs.ErrPermission}}
		}
		return run(program, args...)
	}
	r := doctor.Judge(Facts(m, Ask{}))
	require.Equal(t, "engine.missing", r.Findings[0].ID, r.Text(0, false, 0))
	require.Contains(t, r.Findings[0].What, "/usr/bin/docker: permission denied")
}

// TestSpan: spans as systemctl shows them.
func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"1min 30s": 90 * time.Second, "6h 5min": 6*time.Hour + 5*time.Minute, "infinity": math.MaxInt64, "1d": 24 * time.Hour, "500ms": time.Second / 2, "1.500000s": 1500 * time.Millisecond, "0": 0, "": 0} {
		got, err := span(text)
		require.Equal(t, want, got, text)
		require.Equal(t, text == "0", err != nil, text)
	}
}

// TestHangs: a disk or a driver that does not answer is not waited for.
func TestHangs(t *testing.T) {
	f := load(t, "ok")
	f["@info"] = `{"DockerRootDir":"/var/lib/docker"}`
	f["var/lib/docker/x"] = ""
	m := f.machine(t)
	m.Patience = 100 * time.Millisecond
	space, never := m.Space, make(chan struct{})
	defer close(never)
	m.Space = func(path string) (Space, error) {
		if strings.HasSuffix(path, "/var/lib/docker") {
			<-never
		}
		return space(path)
	}
	r := doctor.Judge(Facts(m, Ask{}))
	require.Equal(t, doctor.StatusUnknown, r.Status(), r.Text(0, false, 0))
	require.Equal(t, "/var/lib/docker: no answer in time", r.Findings[0].What)

	m = load(t, "ok").machine(t)
	m.Patience = 100 * time.Millisecond
	m.Devices = func() gpu.Facts {
		<-never
		return gpu.Facts{}
	}
	r = doctor.Judge(Facts(m, Ask{}))
	require.Equal(t, doctor.StatusUnknown, r.Status(), r.Text(0, false, 0))
	require.Contains(t, r.Findings[0].What, "what drivers show")
}

// TestClock: what the kernel does not say is not well.
func TestClock(t *testing.T) {
	m := load(t, "ok").machine(t)
	m.Synced = func() (bool, error) { return true, errors.ErrUnsupported }
	require.Contains(t, doctor.Judge(Facts(m, Ask{})).Text(0, false, 0), "the kernel does not say")
}

// TestOdd: answers and files that make no sense are unknown, or wrong, and no panic.
func TestOdd(t *testing.T) {
	f := load(t, "ok")
	f["$ systemctl show"] = "\x00\xff=\n\n=\n"
	f["$ docker container inspect"] = `[1,2,{"Name":3}]`
	f["$ docker compose --project-directory"] = "!1 \x1b[31m\n"
	f["$ nvidia-ctk"] = ""
	f["proc/swaps"] = ""
	f["etc/passwd"] = "::::\nx\n\n:\n"
	f["etc/group"] = "docker\n"
	f["etc/subuid"] = "a:b:c\n9:9223372036854775807:9223372036854775807\n"
	f["etc/cdi/x.json"] = "\xff"
	text := judged(t, f, Ask{}).Text(0, false, 0)
	require.Contains(t, text, "docker container inspect: an answer that makes no sense")
	require.Contains(t, text, "nvidia-ctk: it does not say which version it is")
	require.Contains(t, text, "/etc/cdi/x.json: not a CDI specification")
	require.NotContains(t, text, "\x1b")
}
