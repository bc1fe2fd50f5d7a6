//go:build linux

// Docker shows agents in containers for real: the image that deploy/image makes,
// one agent by the shipped Compose template, a trusted job and a fork's, each in a
// fresh container. It prints what a person would see, and checks it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"filippo.io/age"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/crew"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

const token = "2f6c1d0e-demo-token-9a8b7c6d5e4f"

// command is the step of both builds.
const command = `echo "outcome: $JULIAGPU_SECRETS"
echo "token: $CODECOV_TOKEN"
echo "sha256: $(printf %s "$CODECOV_TOKEN" | sha256sum | cut -c1-16)"
echo "user $(id -un), in container $(hostname)"
echo "capabilities $(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status), credentials here: $(ls /run/juliagpu-secrets/credentials 2>/dev/null | wc -l)"
touch /usr/bin/mine 2>&1 || true
[ ! -e "$HOME/trap" ] || echo "met what another job left"
touch "$HOME/trap"`

func run(ctx context.Context, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("it fills what an agent holds, which is root's: sudo make demo-docker")
	}
	dir, err := os.MkdirTemp("", "bk-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "demo: building the image, an agent and Docker Compose (once, some minutes)")
	c, err := crew.New(ctx, dir, []byte(id.String()+"\n"))
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := c.Hire("demo")
	if err != nil {
		return err
	}
	defer m.Dismiss()
	folder := filepath.Join(dir, m.Name)
	for _, name := range []string{".env", "compose.yml"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n── agents/demo/%s ──\n%s", name, text)
	}
	sealed, err := seal(ctx, dir, id.Recipient().String())
	if err != nil {
		return err
	}
	var wrong []error
	expect := func(ok bool, what string) {
		if !ok {
			wrong = append(wrong, errors.New(what))
		}
	}
	containers := map[string]bool{}
	for _, build := range []struct {
		title string
		facts map[string]string
		shows []string
	}{
		{"A push", nil, []string{"SECRET_CODECOV_TOKEN: granted", "token: [REDACTED]", "user buildkite-trusted"}},
		{"A pull request from a fork", map[string]string{
			"BUILDKITE_PULL_REQUEST": "17", "BUILDKITE_PULL_REQUEST_REPO": "https://github.com/mallory/CUDA.jl.git",
			"BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main", "BUILDKITE_BRANCH": "mallory:fix",
		}, []string{"withheld: pull request 17 is from github.com/mallory/cuda.jl", "token: \n", "user buildkite-other"}},
	} {
		env := map[string]string{"SECRET_CODECOV_TOKEN": sealed}
		for name, value := range build.facts {
			env[name] = value
		}
		job := m.Server.Add(agenttest.Job{Env: env, Command: command})
		if err := m.Prepare(); err != nil {
			return err
		}
		fmt.Fprintf(out, "\n── %s ──\n$ docker compose up --force-recreate --abort-on-container-exit --exit-code-from agent\n", build.title)
		log, status := m.Up(ctx)
		r := m.Server.Record(job)
		if status != 0 || !r.Finished {
			return fmt.Errorf("the agent ended with status %d\n%s", status, log)
		}
		text := r.Text()
		fmt.Fprint(out, seen(text))
		fmt.Fprintf(out, "── exit status %d ──\n", r.ExitStatus)
		for _, part := range build.shows {
			expect(strings.Contains(text, part), build.title+": the log lacks "+part)
		}
		expect(r.ExitStatus == 0, build.title+": failed")
		expect(strings.Contains(text, "credentials here: 0"), build.title+": found credentials")
		expect(strings.Contains(text, "Read-only file system") && !strings.Contains(text, "\nmet what"), build.title+": changed the image, or met what another job left")
		_, name, _ := strings.Cut(regexp.MustCompile(`user buildkite-\w+, in container \w+`).FindString(text), ", ")
		expect(name != "" && !containers[name], build.title+": had another's container")
		containers[name] = true
		inspect, err := exec.CommandContext(ctx, "docker", "inspect", m.Container()).Output()
		if err != nil {
			return err
		}
		for _, text := range []string{text, log, string(inspect)} {
			for _, secret := range []string{token, id.String(), m.Server.Token} {
				expect(!agenttest.Contains([]byte(text), []byte(secret)), build.title+": a log or the container's settings show a secret")
			}
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	fmt.Fprintln(out, "\ndemo: ok: two containers of one agent; the trusted job had the value, masked in its log, the fork's had none; neither saw identity or token")
	return nil
}

// seal seals the token as an author does.
func seal(ctx context.Context, dir, recipient string) (string, error) {
	encrypt := filepath.Join(dir, "encrypt")
	if err := agenttest.Build(ctx, "./cmd/encrypt", encrypt); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, encrypt, "CODECOV_TOKEN", "--repo", "github.com/juliagpu/cuda.jl", "-r", recipient)
	cmd.Stdin = strings.NewReader(token)
	lines, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("encrypt: %w", err)
	}
	m := regexp.MustCompile(`SECRET_CODECOV_TOKEN: "(.*)"`).FindSubmatch(lines)
	if m == nil {
		return "", errors.New("encrypt printed no line")
	}
	return string(m[1]), nil
}

// seen is the part of a log that is about the job.
func seen(text string) string {
	if start := regexp.MustCompile(`(?m)^(~~~|\+\+\+) :(key|lock|no_entry): `).FindStringIndex(text); start != nil {
		text = text[start[0]:]
	}
	text = regexp.MustCompile(`(?m)^~~~ Running global .* hook\n\$ /.*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^\$ cd .*\n`).ReplaceAllString(text, "")
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}
