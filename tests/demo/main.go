//go:build unix

// Demo shows the main job for real: it seals two values with encrypt, runs a
// trusted build and a fork's on a released buildkite-agent with our hooks, and one
// on an agent whose GPU is gone; it prints the job logs as a person would see
// them, and checks what they show.
package main

import (
	"context"
	"crypto/sha256"
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
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

// The values that an author seals. The key is made up.
const (
	token = "2f6c1d0e-demo-token-9a8b7c6d5e4f"
	key   = "-----BEGIN OPENSSH PRIVATE KEY-----\nZGVtbyBrZXksIGZpcnN0IGxpbmU6IG5vdCBhIHJlYWwga2V5\nc2Vjb25kIGxpbmUgb2YgdGhlIGRlbW8ga2V5\n-----END OPENSSH PRIVATE KEY-----\n"
)

// command is the step of both builds.
const command = `echo "outcome: $JULIAGPU_SECRETS"
echo "token: $CODECOV_TOKEN"
echo "in base64: $(printf %s "$CODECOV_TOKEN" | base64)"
echo "key:"; echo "$DEPLOY_KEY"
echo "sha256: $(printf '%s' "$CODECOV_TOKEN$DEPLOY_KEY" | sha256sum | cut -c1-16)"`

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "bk-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	fmt.Fprintln(out, "demo: building encrypt and the hooks")
	lib := filepath.Join(dir, "lib")
	if err := os.MkdirAll(filepath.Join(lib, "hooks"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"encrypt", "environment", "pre-command"} {
		if err := agenttest.Build(ctx, "./cmd/"+name, filepath.Join(lib, name)); err != nil {
			return err
		}
	}
	agent, err := agenttest.Tool(ctx, "buildkite-agent", out)
	if err != nil {
		return err
	}

	recipient, err := operator(out, dir, lib)
	if err != nil {
		return err
	}
	sealed, err := author(ctx, out, dir, filepath.Join(lib, "encrypt"), recipient)
	if err != nil {
		return err
	}

	host := agenttest.Agent{Binary: agent, Dir: dir, HooksPath: filepath.Join(lib, "hooks"), Polyglot: true}
	trusted, err := build(ctx, out, host, "A push to github.com/JuliaGPU/CUDA.jl", sealed, nil)
	if err != nil {
		return err
	}
	forked, err := build(ctx, out, host, "A pull request from a fork of it", sealed, map[string]string{
		"BUILDKITE_PULL_REQUEST": "17", "BUILDKITE_PULL_REQUEST_REPO": "https://github.com/mallory/CUDA.jl.git",
		"BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main", "BUILDKITE_BRANCH": "mallory:fix",
	})
	if err != nil {
		return err
	}
	if err := losesItsGPU(lib); err != nil {
		return err
	}
	stopped, err := build(ctx, out, host, "A push, on an agent whose GPU is gone", nil, nil)
	if err != nil {
		return err
	}
	if err := check(dir, trusted, forked, stopped); err != nil {
		return err
	}
	fmt.Fprintln(out, "demo: ok: the trusted build had both values, masked in its log; the fork's had none, and says why; without its GPU nothing runs")
	return nil
}

// operator makes an identity and installs the hook with its configuration.
func operator(out io.Writer, dir, lib string) (recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	identity := filepath.Join(dir, "identity")
	config := "mode: direct\nreason: a demonstration\n" +
		"isolation: {expect: host, reason: a demonstration}\n" +
		"identities:\n  - file: " + identity + "\n"
	return id.Recipient().String(), errors.Join(
		os.WriteFile(identity, []byte(id.String()+"\n"), 0o600),
		os.WriteFile(filepath.Join(lib, "config.yml"), []byte(config), 0o644),
		os.Symlink("../environment", filepath.Join(lib, "hooks", "environment")),
		os.Symlink("../pre-command", filepath.Join(lib, "hooks", "pre-command")),
	)
}

// losesItsGPU gives the agent a policy for a GPU that no machine has.
func losesItsGPU(lib string) error {
	f, err := os.OpenFile(filepath.Join(lib, "config.yml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("gpu: {vendor: nvidia, devices: [{uuid: GPU-1b7ad372-8d21-4239-8e32-63449f713690}]}\n")
	return errors.Join(err, f.Close())
}

// author seals the two values, and returns the lines for pipeline.yml as the
// agent would put them into a job's environment.
func author(ctx context.Context, out io.Writer, dir, encrypt, recipient string) (map[string]string, error) {
	file := filepath.Join(dir, "deploy_key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		return nil, err
	}
	sealed := map[string]string{}
	for _, tt := range []struct {
		shown, stdin string
		args         []string
	}{
		{"printf %s \"$TOKEN\" | encrypt CODECOV_TOKEN", token, []string{"CODECOV_TOKEN"}},
		{"encrypt DEPLOY_KEY --file deploy_key", "", []string{"DEPLOY_KEY", "--file", file}},
	} {
		fmt.Fprintf(out, "\n$ %s \\\n    --repo github.com/juliagpu/cuda.jl -r %s…\n", tt.shown, recipient[:12])
		cmd := exec.CommandContext(ctx, encrypt, append(tt.args, "--repo", "github.com/juliagpu/cuda.jl", "-r", recipient)...)
		cmd.Stdin = strings.NewReader(tt.stdin)
		var yaml, notes strings.Builder
		cmd.Stdout, cmd.Stderr = &yaml, &notes
		err := cmd.Run()
		fmt.Fprint(out, notes.String()+shortened(yaml.String()))
		if err != nil {
			return nil, fmt.Errorf("encrypt: %w", err)
		}
		for line := range strings.Lines(yaml.String()) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(name, "SECRET_") {
				sealed[name] = strings.Trim(value, `"`)
			}
		}
	}
	if len(sealed) != 2 {
		return nil, fmt.Errorf("encrypt printed %d sealed values, want 2", len(sealed))
	}
	return sealed, nil
}

// shortened cuts long lines: a ciphertext is worth seeing, not reading.
func shortened(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if len(line) > 80 {
			line = line[:75] + "…\"\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// build runs one job and prints its log.
func build(ctx context.Context, out io.Writer, host agenttest.Agent, title string, sealed, facts map[string]string) (agenttest.Result, error) {
	env := map[string]string{}
	for _, m := range []map[string]string{sealed, facts} {
		for name, value := range m {
			env[name] = value
		}
	}
	// A job that is stopped does not come to its end mark.
	whole := func(r agenttest.Result) bool { return r.ExitStatus == 0 || strings.Contains(r.Text(), "^^^ +++") }
	result, err := host.RunWhole(ctx, agenttest.Job{Env: env, Command: command}, whole)
	if err != nil {
		return result, err
	}
	fmt.Fprintf(out, "\n── %s ──\n", title)
	for line := range strings.Lines(seen(result.Text())) {
		fmt.Fprint(out, "  "+line)
	}
	fmt.Fprintf(out, "── exit status %d ──\n", result.ExitStatus)
	return result, nil
}

// seen is the part of a log that is about the job: the hook's group and what the
// command printed, without the end mark that the harness puts there.
func seen(text string) string {
	if start := regexp.MustCompile(`(?m)^(~~~|\+\+\+) :(key|lock|no_entry): `).FindStringIndex(text); start != nil {
		text = text[start[0]:]
	}
	text = regexp.MustCompile(`(?m)^~~~ Running global .* hook\n\$ /.*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^\$ cd .*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^\$ trap .*\n`).ReplaceAllString(text, "$ ")
	return regexp.MustCompile(`\n+end-[0-9a-f]+\n$`).ReplaceAllString(text, "\n")
}

func check(dir string, trusted, forked, stopped agenttest.Result) error {
	sum := fmt.Sprintf("sha256: %x", sha256.Sum256([]byte(token+key)))[:len("sha256: ")+16]
	var wrong []error
	expect := func(ok bool, what string) {
		if !ok {
			wrong = append(wrong, errors.New(what))
		}
	}
	expect(trusted.ExitStatus == 0, "the trusted build failed")
	expect(strings.Contains(trusted.Text(), sum), "the trusted build did not have the values")
	expect(strings.Contains(trusted.Text(), "token: [REDACTED]"), "the trusted build's log does not mask the token")
	expect(forked.ExitStatus == 0, "the fork's build failed")
	expect(strings.Contains(forked.Text(), "token: \n"), "the fork's build had the token")
	expect(strings.Contains(forked.Text(), "withheld: pull request 17 is from github.com/mallory/cuda.jl"), "the fork's log does not say why")
	expect(stopped.ExitStatus == 75, "the job without its GPU had another status than 75")
	expect(strings.Contains(stopped.Text(), "gpu.missing: GPU GPU-1b7ad372-8d21-4239-8e32-63449f713690 is not here"), "the job without its GPU does not say why")
	expect(!strings.Contains(stopped.Text(), "outcome: "), "the job without its GPU ran its command")
	for line := range strings.Lines(token + "\n" + key) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "-----") {
			continue
		}
		for _, log := range []string{trusted.Log, forked.Log, trusted.AgentLog, forked.AgentLog} {
			expect(!agenttest.Contains([]byte(log), []byte(line)), "a log shows a value")
		}
		hits, err := agenttest.Search(filepath.Dir(trusted.Dir), []byte(line))
		if err != nil {
			return err
		}
		for _, hit := range hits {
			expect(hit.Path == "deploy_key", "a file holds a value: "+hit.Path)
		}
	}
	return errors.Join(wrong...)
}
