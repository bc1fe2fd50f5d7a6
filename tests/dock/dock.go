//go:build linux

// Package dock runs programs of this repository in containers of a real Docker
// Engine, with device nodes that no driver has, and with what a driver shows in
// /proc and /sys put over the kernel's own.
//
// Nothing is pulled: the image is made of static programs. Nothing of it needs a
// GPU, since what is asked is the device cgroup, which comes before any driver.
package dock

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// Where the image has its programs.
const (
	Lib    = "/usr/lib/juliagpu-secrets/"
	Check  = Lib + "pre-command"
	Inside = Lib + "inside"
	Idle   = Lib + "idle" // does nothing
	Policy = "/etc/juliagpu-secrets/gpu.yml"
	Config = "/etc/juliagpu-secrets/config.yml"
)

// An Engine is a Docker Engine with our image.
type Engine struct {
	flags []string // of docker, that lead to it
	image string
}

// Own is the machine's engine. The error says in a line why there is none.
func Own(ctx context.Context) (Engine, error) {
	var e Engine
	_, err := e.Docker(ctx, nil, "version", "--format", "{{.Server.Version}}")
	if err != nil {
		err = fmt.Errorf("no Docker Engine answers: %w", err)
	}
	return e, err
}

// Start starts an engine of our own in a directory that everybody may pass through,
// with further flags of dockerd. It has namespaces of its own, so that it can't touch
// the machine's: of the network, since dockerd removes docker0 where it is to have
// no bridge, and of mounts. There subordinate users are nobody's, for userns-remap,
// and /dev has the nodes besides: with userns-remap runc mounts them from there.
func Start(ctx context.Context, dir, nodes string, flags ...string) (e Engine, stop func(), err error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	e.flags = []string{"-H", "unix://" + at("docker.sock")}
	for name, text := range map[string]string{"daemon.json": "{}", "subid": "nobody:100000:65536\n"} {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			return e, nil, err
		}
	}
	args := append([]string{"dockerd", "--config-file", at("daemon.json"), "--data-root", at("data"), "--exec-root", at("exec"), "--pidfile", at("pid"),
		"--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip-masq=false", "--log-level", "warn"}, append(flags, e.flags...)...)
	cmd := exec.Command("unshare", append([]string{"--net", "--mount", "--propagation", "private", "sh", "-ec", `
cd "$0"
mount --bind subid /etc/subuid
mount --bind subid /etc/subgid
cp -ax /dev dev
cp -a "$1/." dev; shift
for d in pts shm mqueue; do [ ! -d /dev/$d ] || mount --rbind /dev/$d dev/$d; done
mount --rbind dev /dev
exec "$@"`, dir, nodes}, args...)...)
	log, err := os.Create(at("log"))
	if err != nil {
		return e, nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return e, nil, err
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
		}
	}
	for range 300 {
		if _, err = e.Docker(ctx, nil, "version"); err == nil {
			return e, stop, nil
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(at("log"))
			return e, nil, fmt.Errorf("dockerd ended: %s", text)
		case <-time.After(100 * time.Millisecond):
		}
	}
	stop()
	return e, nil, err
}

// Docker runs a command of docker's, and returns what it prints.
func (e Engine) Docker(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := e.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return stdout.String(), fmt.Errorf("docker %s: %w: %s", args[0], err, first)
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (e Engine) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "docker", append(e.flags[:len(e.flags):len(e.flags)], args...)...)
}

// Image is a file system with the check and what a test needs beside it.
func Image(ctx context.Context, dir string) ([]byte, error) {
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	for _, d := range []string{"dev", "etc", "etc/juliagpu-secrets", "home", "proc", "root", "run", "sys", "tmp", "usr", "usr/lib", "usr/lib/juliagpu-secrets", "var", "var/tmp"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for path, pkg := range map[string]string{Check: "./cmd/pre-command", Inside: "./tests/dock/inside", Idle: "./tests/bench/exits"} {
		out := filepath.Join(dir, filepath.Base(path))
		if err := agenttest.Build(ctx, pkg, out); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(out)
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path[1:], Mode: 0o755, Size: int64(len(text))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return image.Bytes(), err
}

// Import gives the engine an image, until remove.
func (e *Engine) Import(ctx context.Context, image []byte) (remove func(), err error) {
	e.image = name()
	_, err = e.Docker(ctx, bytes.NewReader(image), "import", "-", e.image)
	return func() { e.Docker(context.Background(), nil, "rmi", "-f", e.image) }, err
}

// name is one that nobody else has.
func name() string { return "juliagpu-test-" + strings.ToLower(rand.Text()[:12]) }

// A Result is what a program in a container came to.
type Result struct {
	Log    string
	Status int
}

// Run runs a program in a container with those flags, and removes the container.
// Where there are files they are put over /proc and /sys first.
func (e Engine) Run(ctx context.Context, flags []string, files Files, program ...string) (Result, error) {
	if files == nil {
		return result(e.command(ctx, e.run(flags, program)...))
	}
	c, err := e.Begin(ctx, flags, files, program...)
	if err != nil {
		return Result{}, err
	}
	return c.End()
}

func (e Engine) run(flags, program []string) []string {
	args := []string{"run", "--rm"}
	if !slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, "--network") }) {
		args = append(args, "--network=none")
	}
	return slices.Concat(args, flags, []string{e.image}, program)
}

func result(cmd *exec.Cmd) (Result, error) {
	out, err := cmd.CombinedOutput()
	r := Result{Log: string(out), Status: cmd.ProcessState.ExitCode()}
	return r, failed(r, err)
}

// failed tells an engine's error from a program's status.
func failed(r Result, err error) error {
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && r.Status >= 0 && r.Status < 125 {
		return nil
	}
	return fmt.Errorf("%w: %s", err, r.Log)
}

// A Container is one that waits.
type Container struct {
	Name   string
	PID    int // of its first process, here
	engine Engine
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	stderr *bytes.Buffer
}

// Begin starts a container that waits with its program for End.
func (e Engine) Begin(ctx context.Context, flags []string, files Files, program ...string) (*Container, error) {
	c := &Container{Name: name(), engine: e, stderr: &bytes.Buffer{}}
	c.cmd = e.command(ctx, e.run(append([]string{"-i", "--name", c.Name}, flags...), append([]string{Inside, "wait"}, program...))...)
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.stdin, c.stdout, c.cmd.Stderr = stdin, bufio.NewReader(stdout), c.stderr
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := c.stdout.ReadString('\n'); err != nil {
		c.cmd.Wait()
		return nil, fmt.Errorf("%s: %s", strings.Join(c.cmd.Args, " "), c.stderr)
	}
	pid, err := e.Docker(ctx, nil, "inspect", "--format", "{{.State.Pid}}", c.Name)
	if err == nil {
		c.PID, err = strconv.Atoi(pid)
	}
	if err == nil && files != nil {
		err = files.over(c.PID)
	}
	if err != nil {
		c.Remove()
		return nil, err
	}
	return c, nil
}

// Exec runs another program in the container.
func (c *Container) Exec(ctx context.Context, program ...string) (Result, error) {
	return result(c.engine.command(ctx, append([]string{"exec", c.Name}, program...)...))
}

// End lets the container's program run.
func (c *Container) End() (Result, error) {
	c.stdin.Close()
	out, readErr := io.ReadAll(c.stdout)
	err := c.cmd.Wait()
	r := Result{Log: string(out) + c.stderr.String(), Status: c.cmd.ProcessState.ExitCode()}
	return r, errors.Join(readErr, failed(r, err))
}

// Remove ends the container without its program.
func (c *Container) Remove() {
	c.engine.Docker(context.Background(), nil, "rm", "-f", c.Name)
	c.stdin.Close()
	c.cmd.Wait()
}
