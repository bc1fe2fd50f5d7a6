//go:build linux

// Package crew starts agents in containers as operators do: the shipped Compose
// templates, read by the real Compose, with the image that deploy/image makes, on
// the machine's Docker Engine. Each has an Agent API server of its own here.
package crew

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/kept"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
)

// A Crew is what its members share.
type Crew struct {
	compose   string // the program
	templates string // deploy/compose
	image     string
	gateway   string // this machine, for containers
	dir       string // the agents' folders
	memory    string // a tmpfs, for what is in /run on a host
	identity  []byte
}

// New needs root, an engine, and a directory. identity is what all members hold.
// The error wraps dock.ErrMissing where this machine lacks something.
func New(ctx context.Context, dir string, identity []byte) (c *Crew, err error) {
	c = &Crew{dir: dir, identity: identity}
	if c.image, err = dock.AgentImage(ctx); err != nil {
		return nil, err
	}
	if c.compose, err = agenttest.Tool(ctx, "docker-compose", os.Stderr); err != nil {
		return nil, err
	}
	if c.gateway = dock.Gateway(); c.gateway == "" {
		return nil, fmt.Errorf("%w: its Docker Engine has no network docker0", dock.ErrMissing)
	}
	root, err := agenttest.Root()
	if err != nil {
		return nil, err
	}
	c.templates = filepath.Join(root, "deploy", "compose")
	if c.memory, err = os.MkdirTemp("/dev/shm", "crew-"); err != nil {
		return nil, err
	}
	return c, write(filepath.Join(dir, "host.env"), "BUILDKITE_AGENT_VERSION=3.81.0\nBUILDKITE_AGENT_SHA256=0\n"+
		"BUILDKITE_AGENT_EXPERIMENT=polyglot-hooks\n", 0o644)
}

// Close removes what members held.
func (c *Crew) Close() { os.RemoveAll(c.memory) }

// Memory is the folder of a tmpfs below which members' credentials lie.
func (c *Crew) Memory() string { return c.memory }

// A Member is one agent.
type Member struct {
	*Crew
	Name   string
	Server *agenttest.Server
}

const config = `mode: split
consume: true
identities: [{file: /run/juliagpu-secrets/credentials/identity}]
users: {trusted: "4711:4711", other: "4712:4712"}
`

// here is what differs from an operator's agent: where the files of the host are,
// and whom the agent talks to. There is no checkout.
const here = `services:
  agent:
    command: [--endpoint=%s, --no-pty, --no-color, --no-ssh-keyscan]
    environment: {BUILDKITE_BOOTSTRAP_PHASES: "plugin,command"}
    volumes:
      - {type: bind, source: %s, target: /run/juliagpu-secrets/credentials, bind: {create_host_path: false}}
      - {type: bind, source: %s, target: /var/lib/juliagpu-secrets, bind: {create_host_path: false}}
      - {type: bind, source: %s, target: /etc/juliagpu-secrets/gpu.yml, read_only: true, bind: {create_host_path: false}}
      - {type: bind, source: %s, target: /etc/juliagpu-secrets/config.yml, read_only: true, bind: {create_host_path: false}}
`

// Hire makes the folder of an agent without a GPU, of that name.
func (c *Crew) Hire(name string) (*Member, error) {
	server, err := agenttest.NewServerOn(c.gateway)
	if err != nil {
		return nil, err
	}
	m := &Member{Crew: c, Name: name, Server: server}
	folder := filepath.Join(c.dir, name)
	return m, errors.Join(
		os.Mkdir(folder, 0o755), os.Mkdir(m.Room(), 0o755),
		write(filepath.Join(folder, ".env"), "AGENT_NAME="+name+"\nAGENT_KIND=cpu\nAGENT_TAGS=queue=cpu\nAGENT_BASE=none\nAGENT_IMAGE="+c.image+
			"\nAGENT_CPUS=1\nAGENT_MEMORY=1g\nAGENT_SHM=2g\nJULIA_CPU_THREADS=2\nJULIA_NUM_THREADS=1\n", 0o644),
		write(filepath.Join(folder, "compose.yml"),
			"include:\n  - path: [\"${TEMPLATES:-/usr/share/juliagpu-secrets/compose}/${AGENT_KIND}.yml\", here.yml]\n    env_file: [../host.env, .env]\n", 0o644),
		write(filepath.Join(folder, "here.yml"), fmt.Sprintf(here, server.URL, m.Held(""), m.room().Jobs(), m.Policy(), m.Config()), 0o644),
		write(m.Config(), config, 0o644),
		write(m.Policy(), "gpu: {vendor: none}\n", 0o644),
	)
}

func write(path, text string, mode os.FileMode) error { return os.WriteFile(path, []byte(text), mode) }

// Held is a file among its credentials, Room where its jobs write.
func (m *Member) Held(name string) string { return filepath.Join(m.memory, m.Name, name) }
func (m *Member) Room() string            { return filepath.Join(m.dir, m.Name+".room") }
func (m *Member) Policy() string          { return filepath.Join(m.dir, m.Name+".gpu.yml") }
func (m *Member) Config() string          { return filepath.Join(m.dir, m.Name+".config.yml") }

func (m *Member) room() kept.Room {
	return kept.Room{Image: m.Room() + ".img", Dir: m.Room(), Size: 64 << 20}
}

// Container is the name of its container.
func (m *Member) Container() string { return "buildkite-agent-" + m.Name }

// Prepare gives the agent what its next start needs: credentials, and room for jobs.
func (m *Member) Prepare() error {
	if err := m.room().Ready(context.Background(), func(string, ...any) {}); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Held("")); err != nil {
		return err
	}
	return errors.Join(
		os.Mkdir(m.Held(""), 0o700),
		write(m.Held("agent.cfg"), "token=\""+m.Server.Token+"\"\n", 0o600),
		os.WriteFile(m.Held("identity"), m.identity, 0o600))
}

// Up starts the agent and waits for its end, which comes with that of its job. It
// returns what Compose and the agent print, and Compose's status: the agent's
// where there was one.
func (m *Member) Up(ctx context.Context) (log string, status int) {
	return m.run(ctx, "up", "--force-recreate", "--abort-on-container-exit", "--exit-code-from=agent", "--no-build", "--pull=never", "--no-log-prefix")
}

// Dismiss ends what runs, and removes the container and its network.
func (m *Member) Dismiss() {
	m.run(context.Background(), "down", "--timeout=0")
	exec.Command("docker", "rm", "-f", "-v", m.Container()).Run()
	unix.Unmount(m.Room(), unix.MNT_DETACH)
	m.Server.Close()
}

func (m *Member) run(ctx context.Context, args ...string) (log string, status int) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.compose, append([]string{"--ansi=never", "--progress=plain"}, args...)...)
	cmd.Dir = filepath.Join(m.dir, m.Name)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TEMPLATES=" + m.templates}
	cmd.WaitDelay = time.Second
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return err.Error(), -1
	}
	return both.String(), cmd.ProcessState.ExitCode()
}
