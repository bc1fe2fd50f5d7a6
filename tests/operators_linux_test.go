package tests

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// A piece of a page is a command, or a file.
type piece struct {
	line int
	text string
	root bool   // behind #, and not behind $
	path string // of a file
}

// pieces are those of a page, in its order: what stands behind a prompt in blocks of
// the kind console, with the lines that continue it, and blocks that begin with
// "# PATH" or "# added to PATH".
func pieces(page string) (all []piece) {
	var block []string
	fence := ""
	for i, line := range strings.Split(page, "\n") {
		bare := strings.TrimLeft(line, " ")
		switch {
		case fence == "" && strings.HasPrefix(bare, "```"):
			fence, block = bare, nil
		case fence == "":
		case bare == "```":
			all = append(all, ofBlock(fence, block, i-len(block)+1)...)
			fence = ""
		default:
			block = append(block, line)
		}
	}
	return all
}

var ofFile = regexp.MustCompile(`^# (?:added to )?([/.]\S+)$`)

func ofBlock(fence string, block []string, line int) (all []piece) {
	indent := len(block[0]) - len(strings.TrimLeft(block[0], " "))
	for i := range block {
		block[i] = block[i][min(indent, len(block[i])):]
	}
	if m := ofFile.FindStringSubmatch(block[0]); m != nil && fence != "```console" {
		return []piece{{line: line, path: m[1], text: strings.Join(block[1:], "\n") + "\n"}}
	}
	if fence != "```console" {
		return nil
	}
	for i, text := range block {
		switch {
		case strings.HasPrefix(text, "# "), strings.HasPrefix(text, "$ "):
			all = append(all, piece{line: line + i, text: text[2:], root: text[0] == '#'})
		case i > 0 && strings.HasSuffix(block[i-1], `\`):
			all[len(all)-1].text += "\n" + text
		}
	}
	return all
}

// A walk is somebody who works a page through, on a host that has nothing of ours,
// as root, and as the user op.
type walk struct {
	*site
	text string // of the page
	page []piece
	dir  string // where op is
}

// next is the page's next piece, which has to begin so.
func (w *walk) next(text string) piece {
	w.t.Helper()
	require.NotEmpty(w.t, w.page, "the page ends before %q", text)
	p := w.page[0]
	w.page = w.page[1:]
	if p.path != "" {
		require.Equal(w.t, text, p.path, "docs/operators.md:%d has this file next", p.line)
	} else {
		require.True(w.t, strings.HasPrefix(p.text, text), "docs/operators.md:%d: the next command is %q, not %q", p.line, p.text, text)
	}
	return p
}

// run runs the page's next command, which has to begin so, with that on its standard
// input. It has to succeed.
func (w *walk) run(text string, typed ...string) (out string) {
	w.t.Helper()
	return w.ends(0, text, typed...)
}

// ends is run of a command that has to end with that status.
func (w *walk) ends(want int, text string, typed ...string) string {
	w.t.Helper()
	p := w.next(text)
	out, status := w.as(p.root, p.text, typed...)
	require.Equal(w.t, want, status, "docs/operators.md:%d: %s\n%s", p.line, p.text, out)
	return out
}

// asked runs the page's next command on a terminal, on which that is typed.
func (w *walk) asked(text string, typed string) string {
	w.t.Helper()
	p := w.next(text)
	bare, _, _ := strings.Cut(p.text, " #")
	out, status := w.as(p.root, fmt.Sprintf("script --quiet --return --command %q /dev/null", strings.TrimSpace(bare)), typed)
	require.Zero(w.t, status, "docs/operators.md:%d: %s\n%s", p.line, p.text, out)
	return out
}

// follows runs the page's next command, which does not end by itself, until it has
// printed that.
func (w *walk) follows(text, says string) {
	w.t.Helper()
	p := w.next(text)
	for range 60 {
		out, status := w.as(p.root, "timeout 1 "+p.text)
		require.Equal(w.t, 124, status, out)
		if strings.Contains(out, says) {
			return
		}
	}
	require.Fail(w.t, "not within a minute", "docs/operators.md:%d: %s: no %q", p.line, p.text, says)
}

// writes writes the page's next file, changed by pairs of older and newer texts.
func (w *walk) writes(path string, changes ...string) {
	w.t.Helper()
	p := w.next(path)
	for i := 0; i < len(changes); i += 2 {
		require.Contains(w.t, p.text, changes[i])
		p.text = strings.ReplaceAll(p.text, changes[i], changes[i+1])
	}
	if filepath.IsAbs(path) {
		w.mustAs(true, "cat >"+path, p.text)
	} else {
		w.mustAs(false, "mkdir -p "+filepath.Dir(path)+" && cat >"+path, p.text)
	}
}

// as runs a command line as root, or as op.
func (w *walk) as(root bool, text string, typed ...string) (string, int) {
	w.t.Helper()
	words := []string{"bash", "-c", "cd /root; " + text}
	if !root {
		words = []string{"runuser", "-u", "op", "--", "env", "HOME=/home/op", "BASH_ENV=/home/op/.environment", "bash", "-c", "cd " + w.dir + "; " + text}
	}
	cmd := w.Command(w.t.Context(), words...)
	cmd.Stdin = strings.NewReader(strings.Join(typed, ""))
	out, err := cmd.CombinedOutput()
	require.NotNil(w.t, cmd.ProcessState, "%v", err)
	return string(out), cmd.ProcessState.ExitCode()
}

// mustAs runs a command line of the test's own, which has to succeed.
func (w *walk) mustAs(root bool, text string, typed ...string) string {
	w.t.Helper()
	out, status := w.as(root, text, typed...)
	require.Zero(w.t, status, "%s: %s", text, out)
	return out
}

// block is what the page shows in a block that begins so.
func (w *walk) block(text string) string {
	w.t.Helper()
	_, rest, ok := strings.Cut(w.text, "```\n"+text)
	require.True(w.t, ok, text)
	rest, _, _ = strings.Cut(rest, "\n```")
	return text + rest + "\n"
}

// uploaded is the step of the pipeline that a job uploads from what op has pushed.
func (w *walk) uploaded() (step agenttest.Job) {
	w.t.Helper()
	env := map[string]string{"BUILDKITE_COMMIT": strings.TrimSpace(w.mustAs(false, "git rev-parse HEAD"))}
	defer func() { step.Env = mergeEnv(step.Env, env) }()
	r := w.finished(w.server.Add(agenttest.Job{Command: "buildkite-agent pipeline upload", Env: env}))
	require.Zero(w.t, r.ExitStatus, r.Text())
	require.Len(w.t, r.Pipelines, 1, r.Text())
	var uploaded struct {
		Pipeline struct {
			Steps []struct {
				Command string
				Env     map[string]string
			}
		}
	}
	require.NoError(w.t, json.Unmarshal([]byte(r.Pipelines[0]), &uploaded))
	require.Len(w.t, uploaded.Pipeline.Steps, 1)
	return agenttest.Job{Command: uploaded.Pipeline.Steps[0].Command, Env: uploaded.Pipeline.Steps[0].Env}
}

// TestOperators works docs/operators.md through from its top to its end: every command
// is run as it stands there, and every file is written.
//
// Outside of the host are stand-ins: for Buildkite, GitHub, a registry, Ubuntu's
// packages, and for the driver of GPUs, which no machine of these tests has.
func TestOperators(t *testing.T) {
	t.Parallel()
	w, world := newWalk(t)
	world.AddPipeline(restserver.Pipeline{Slug: "cuda-dot-jl"})
	world.repository(t, "JuliaGPU/CUDA.jl.git", map[string]string{"README.md": "# CUDA\n"})
	value := canary("value")

	// 2. Docker
	w.run("apt-get update")
	w.run("apt-get install")
	w.run("systemctl enable --now docker")
	w.run("iptables -I DOCKER-USER")
	private := w.next("iptables -I DOCKER-USER") // where the test's servers are
	w.must("sh", "-ec", private.text+"; "+strings.Replace(private.text, "-I", "-D", 1))
	w.run("iptables -I INPUT")

	// 3. GPUs
	w.gpus()
	require.Contains(t, w.run("nvidia-smi -L"), "GPU-1b7ad372-8d21-4239-8e32-63449f713690")
	w.run("nvidia-ctk runtime configure")
	w.run("systemctl restart docker")
	require.Contains(t, w.must("docker", "info", "--format={{json .Runtimes}}"), `"nvidia"`)
	w.run("nvidia-ctk cdi list")
	w.run("ls -l /dev/dri")

	// 4. Install
	w.run("snap install go")
	w.run("git clone")
	w.run("make -C secrets-buildkite-plugin install")
	w.run("install -D")
	w.run("systemctl daemon-reload")
	w.run("mkdir -p") // what systemd 249 needs does here as well
	w.run("printf")
	w.run("systemctl daemon-reload")
	w.must("sh", "-ec", `make -s -C /root/secrets-buildkite-plugin install DESTDIR=/srv/tree >/dev/null
cd /srv/tree; find . -type f -o -type l | while read -r file; do cmp "$file" "/$file"; done`)

	// 5. Key, token, configuration
	require.Contains(t, w.run("juliagpu keys new"), "age1")
	w.mustAs(true, "cp /home/op/identity-2026 .")
	require.Contains(t, w.run("juliagpu keys install"), "/run/juliagpu-secrets/credentials/identity-2026")
	w.run("shred -u")
	w.run("install -m 600", w.server.Token+"\n")
	w.run("install -d")
	w.writes("/etc/juliagpu-secrets/config.yml")
	sum, _, _ := strings.Cut(w.run("curl"), " ")
	w.writes("/etc/juliagpu-secrets/agents/host.env", strings.Repeat("0", 64), sum+"\nBUILDKITE_AGENT_EXPERIMENT=polyglot-hooks")

	// 6. The first agent
	require.Contains(t, w.run("juliagpu agent new upload.1"), "docker compose --project-directory /etc/juliagpu-secrets/agents/upload.1 build\n")
	w.talks("upload.1", world)
	w.run("docker compose")
	w.run("juliagpu doctor")
	w.run("systemctl enable --now")
	w.follows("journalctl -fu", "Waiting for work...")

	// 7. The first green job
	w.mustAs(false, "git clone --quiet https://github.com/JuliaGPU/CUDA.jl.git src/CUDA.jl")
	w.dir = "/home/op/src/CUDA.jl"
	w.writes(".buildkite/pipeline.yml")
	w.run("juliagpu keys recipients")
	require.Contains(t, w.run("encrypt", value), "encrypt: .buildkite/pipeline.yml:6: added SECRET_CODECOV_TOKEN\n")
	w.run("git add")
	w.run("git commit")
	w.run("git push")
	step := w.uploaded()
	r := w.finished(w.server.Add(step))
	require.Zero(t, r.ExitStatus, r.Text())
	shown := w.block("~~~ :key: Secrets\n")
	require.Contains(t, shown, "the token: [REDACTED]\n")
	for line := range strings.Lines(shown) {
		line, _, _ = strings.Cut(line, ", in ") // so many milliseconds
		require.Contains(t, r.Text(), strings.TrimSuffix(line, "\n"), "docs/operators.md shows it")
	}
	w.mustAs(false, "git push --quiet origin HEAD:refs/pull/17/head")
	step.Env = mergeEnv(step.Env, fork)
	r = w.finished(w.server.Add(step))
	require.Equal(t, 1, r.ExitStatus, r.Text())
	says, _, _ := strings.Cut(r.Text()[strings.Index(r.Text(), "SECRET_CODECOV_TOKEN: withheld: "):], "\n")
	require.Contains(t, w.text, "`"+says+"`")

	// 8. An agent for each GPU
	w.must("sh", "-ec", "rm -r /etc/systemd/system/buildkite-agent@.service.d; systemctl daemon-reload")
	w.run("juliagpu agent new gpuci.1")
	w.talks("gpuci.1", world)
	w.run("docker compose")
	w.run("juliagpu doctor --agent gpuci.1")
	w.must("systemctl", "stop", "buildkite-agent@upload.1")
	w.run("systemctl enable --now")
	require.Contains(t, w.run("juliagpu agent list"), "gpuci.1")
	w.must("systemd-run", "--quiet", "--unit=port", "--socket-property=ListenStream=0.0.0.0:7000", "/lib/systemd/systemd-socket-proxyd", world.closed)
	connect := func(to string) string {
		return "if timeout 5 bash -c ': </dev/tcp/" + to + "/7000'; then echo open; else echo shut; fi"
	}
	require.Equal(t, "open\n", w.mustAs(false, connect("127.0.0.1")))
	bridge := w.eventually("172.", "docker", "network", "inspect", "--format={{(index .IPAM.Config 0).Gateway}}", "gpuci1_default")
	r = w.finished(w.server.Add(agenttest.Job{Command: "ls /dev/nvidia?; " + connect(strings.TrimSpace(bridge))}))
	require.Zero(t, r.ExitStatus, r.Text())
	require.Contains(t, r.Text(), "~~~ :lock: GPU isolation: ")
	require.Contains(t, r.Text(), "\n/dev/nvidia2\n")
	require.Contains(t, r.Text(), "\nshut\n")
	w.must("systemctl", "start", "buildkite-agent@upload.1")

	// Updates
	w.run("git -C secrets-buildkite-plugin pull")
	w.run("make -C secrets-buildkite-plugin install")
	w.run("systemctl daemon-reload")
	w.run("for agent in")
	w.run("systemctl restart --no-block")
	w.run("juliagpu doctor")

	w.older(world, value)
	w.rest(world)
	require.Empty(t, w.page, "nothing runs these")
	w.idle()
	w.breakages()

	log := []byte(w.must("journalctl", "--no-pager", "--output=export"))
	for what, needle := range map[string]string{"a value": value, "the agents' token": w.server.Token, "the API token": world.Token, "an identity": w.mustAs(false, "grep ^AGE identity-2026")} {
		require.False(t, agenttest.Contains(log, []byte(strings.TrimSpace(needle))), "the journal has %s", what)
	}
}

// idle waits until agents wait for jobs. One that starts has the configuration half of
// before a change of it, and half of after.
func (w *walk) idle() {
	w.t.Helper()
	w.eventually("No jobs running", "systemctl", "list-jobs")
	for _, name := range []string{"upload.1", "gpuci.1"} {
		w.eventually("Waiting for work...", "docker", "logs", "buildkite-agent-"+name)
	}
}

// older is the way from the older set-up.
func (w *walk) older(world world, value string) {
	t := w.t
	other := canary("older")
	w.dir = "/home/op"
	w.must("systemctl", "disable", "--now", "buildkite-agent@upload.1", "buildkite-agent@gpuci.1")
	// Its key and a value, as its tool made them; its unit; its image.
	w.must("sh", "-ec", `mkdir -p /etc/buildkite/image; cd /etc/buildkite/image
openssl genrsa -out secrets.private.key 2048 2>/dev/null; chmod 600 secrets.private.key
openssl rsa -in secrets.private.key -pubout -out public 2>/dev/null
install -o op -m 600 secrets.private.key /home/op/
printf '[Unit]\nDescription=older %i\n[Service]\nExecStart=/bin/sleep infinity\nRestart=always\n[Install]\nWantedBy=multi-user.target\n' >/etc/buildkite/buildkite-agent@.service
ln -s /etc/buildkite/buildkite-agent@.service /etc/systemd/system/
systemctl daemon-reload; systemctl enable --quiet --now buildkite-agent@old.1
docker tag ubuntu:24.04 buildkite-old.1`)
	sealed := strings.TrimSpace(w.must("sh", "-c", "echo '"+other+"' | openssl pkeyutl -encrypt -pubin -inkey /etc/buildkite/image/public | base64 -w0"))
	w.mustAs(false, "sed -i '/^    env:/a\\      SECRET_DOCUMENTER_KEY: \""+sealed+"\"' src/CUDA.jl/.buildkite/pipeline.yml")

	require.Contains(t, w.run("juliagpu audit --checkouts"), "sealed.older")
	w.run("install -m 600")
	p := w.next("/etc/juliagpu-secrets/config.yml")
	w.mustAs(true, "cat >>/etc/juliagpu-secrets/config.yml", p.text)
	w.run("mkdir -p")
	w.run("printf")
	w.run("systemctl daemon-reload")
	w.must("systemctl", "kill", "--signal=KILL", "buildkite-agent@old.1") // as the agent ends that is stopped
	w.eventually("ActiveState=failed", "systemctl", "show", "--property=ActiveState", "buildkite-agent@old.1")
	w.run("systemctl disable --now")
	w.run("rm -r")
	w.run("systemctl daemon-reload")
	w.run("systemctl reset-failed")
	w.run("systemctl enable --now")
	w.run("juliagpu doctor")
	pushed := func() string {
		w.dir = "/home/op/src/CUDA.jl"
		defer func() { w.dir = "/home/op" }()
		w.mustAs(false, "git commit --quiet --all --message=x; git push --quiet origin HEAD")
		step := w.uploaded()
		step.Command = show("CODECOV_TOKEN", "DOCUMENTER_KEY")
		r := w.finished(w.server.Add(step))
		require.Zero(t, r.ExitStatus, r.Text())
		require.Contains(t, r.Text(), sum("CODECOV_TOKEN", value))
		require.Contains(t, r.Text(), sum("DOCUMENTER_KEY", other))
		return r.Text()
	}
	both := pushed()
	require.Contains(t, both, "SECRET_CODECOV_TOKEN: granted\nSECRET_DOCUMENTER_KEY: granted; sealed in the older RSA form")

	w.run("juliagpu keys recipients")
	require.Contains(t, w.run("juliagpu secrets migrate"), "DOCUMENTER_KEY")
	require.Contains(t, w.run("juliagpu secrets migrate"), "1 value sealed again")
	require.NotContains(t, w.run("juliagpu audit"), "sealed.older")
	w.mustAs(true, "sed -i '/^older:/,$d' /etc/juliagpu-secrets/config.yml")
	w.run("shred -u")
	w.run("systemctl restart --no-block")
	w.run("docker image rm")
	require.Contains(t, pushed(), "SECRET_CODECOV_TOKEN: granted\nSECRET_DOCUMENTER_KEY: granted\n")
}

// rest is what is behind the walk-through.
func (w *walk) rest(world world) {
	t := w.t

	// Split mode: what agents in containers are started with.
	p := w.next("buildkite-agent start")
	entry := w.must("docker", "compose", "--project-directory=/etc/juliagpu-secrets/agents/upload.1", "config")
	flags := regexp.MustCompile(`--\S+(?: /\S+)?`).FindAllString(p.text, -1)
	require.Len(t, flags, 3)
	for _, flag := range flags {
		require.Contains(t, entry, "- "+strings.Replace(flag, " ", "=", 1)+"\n")
	}

	// A new agent
	w.asked("juliagpu agent new", "cpu\n\n\n\n\n\ny\n")
	w.run("juliagpu agent new gpuci.4")
	require.Contains(t, w.run("juliagpu agent list"), "gpuci.4")
	w.asked("juliagpu agent remove", "y\n")
	w.talks("gpuci.3", world)

	// What a start prepares, The unit
	w.run("juliagpu agent prepare")
	w.must("docker", "compose", "--project-directory=/etc/juliagpu-secrets/agents/gpuci.3", "build")
	w.run("systemctl enable --now")
	w.follows("journalctl -fu", "Waiting for work...")
	w.run("systemctl stop")
	w.run("systemctl restart")

	// Identities
	w.mustAs(true, "cd /etc/juliagpu-secrets/credentials; mv identity-2026 /root/kept")
	w.mustAs(false, "mv identity-2026 kept")
	w.run("juliagpu keys new")
	w.mustAs(true, "mv /home/op/identity-2026 .")
	w.run("juliagpu keys install")
	w.must("rm", "/etc/juliagpu-secrets/credentials/identity-2026")
	w.run("juliagpu keys install")
	w.must("sh", "-ec", "cd /etc/juliagpu-secrets/credentials; rm identity-2026.cred; mv /root/kept identity-2026; mv /home/op/kept /home/op/identity-2026")
	w.run("juliagpu keys recipients")

	// Rotation
	w.run("juliagpu keys new")
	w.mustAs(true, "cp /home/op/identity-2027 .")
	w.run("juliagpu keys install")
	w.must("sed", "-i", "s|^  - file: .*identity-2026|  - file: /run/juliagpu-secrets/credentials/identity-2027\\n&|", "/etc/juliagpu-secrets/config.yml")
	w.run("systemctl restart --no-block")
	w.run("juliagpu keys recipients")
	require.Contains(t, w.run("juliagpu secrets rotate"), "2 values sealed again")
	w.write("home/op/.environment", "export BUILDKITE_API_TOKEN="+world.Token+"\n", 0o644)
	require.NotContains(t, w.run("juliagpu audit"), "sealed.unfamiliar")
	w.must("sed", "-i", "/identity-2026/d", "/etc/juliagpu-secrets/config.yml")
	w.run("juliagpu keys retire")
	w.run("install -m 600", w.server.Token+"\n")
	w.run("systemctl restart")

	// After a leak: TestLeakedHistory looks at what these find.
	w.dir = "/home/op/src/CUDA.jl"
	w.mustAs(false, "juliagpu keys recipients ~/identity-2026 | sed 's/$/ # leaked-key/' >leaked.recipients")
	w.run("git log")
	require.Contains(t, w.run("while read"), "(leaked-key)")
	w.dir = "/home/op"

	// Attestation
	w.idle()
	w.mustAs(true, "echo 'attest: {token: /run/juliagpu-secrets/credentials/api-token, organization: juliagpu}' >>/etc/juliagpu-secrets/config.yml")
	w.run("install -m 600", world.Token+"\n")
	require.NotRegexp(t, `(?m)^(warning: )?(api|credential)\.`, w.run("juliagpu doctor"))
	w.must("sed", "-i", "/^attest:/d", "/etc/juliagpu-secrets/config.yml") // no container reaches the API
	w.run("systemctl restart --no-block")

	// When something is wrong
	w.run("juliagpu doctor")

	// Re-sealing
	w.mustAs(false, "mv identity-2027 old.key; juliagpu keys new -o new.key; juliagpu keys recipients new.key >recipients")
	require.Contains(t, w.run("juliagpu secrets rotate"), "2 values to be sealed")
	require.Contains(t, w.run("juliagpu secrets rotate"), "2 values sealed again")
	require.Contains(t, w.run("juliagpu secrets migrate"), "nothing")
	require.Contains(t, w.run("juliagpu secrets migrate"), "nothing")

	// Audit
	require.Contains(t, w.run("juliagpu audit --organization juliagpu "), "cuda-dot-jl")
	w.run("juliagpu audit")
	require.Contains(t, w.mustAs(false, "cat a.html"), "cuda-dot-jl")
	w.run("juliagpu audit")
	w.run("juliagpu audit")
	require.Contains(t, w.mustAs(false, "cat config.yml"), "juliagpu/cuda-dot-jl: github.com/juliagpu/cuda.jl")
}
