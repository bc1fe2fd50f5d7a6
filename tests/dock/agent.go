//go:build linux

package dock

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// ErrMissing says that this machine lacks what the image of an agent is built with.
var ErrMissing = errors.New("this machine cannot build the image of an agent")

// Stray is what lies beside the files of an image here, as it may with operators,
// by its path in the build's context. Nothing of it belongs into an image.
var Stray = map[string]string{
	"identity":              "AGE-SECRET-KEY-1" + strings.Repeat("STRAY", 11) + "STR\n",
	"credentials/agent.cfg": "token=\"stray-agent-token-in-the-context\"\n",
	".env":                  "AGENT_NAME=stray-agent-in-the-context\n",
	"../api-token":          "stray-api-token-beside-the-context\n",
	"../.env":               "BUILDKITE_AGENT_TOKEN=stray-agent-token-beside-the-context\n",
}

// StrayToken is in the environment of each build.
const StrayToken = "stray-agent-token-in-the-environment"

// A Builder is one of the two that Docker has.
type Builder string

const (
	BuildKit Builder = "buildkit" // the engine's, asked by Compose
	Classic  Builder = "classic"
)

// Agent is what this machine builds the image of an agent from.
type Agent struct {
	Base    string // an image made of Debian's packages, the larger ones of the Dockerfile included
	Context string // what make image-context writes, and Stray
	Version string // of the agent that tests run
	Address string // where containers reach this machine
	Release []byte // of Version, as Buildkite's releases are: a tar.gz

	compose string
	key     string // of all of it
}

// AgentImage is the name of an image of an agent: deploy/image of this checkout on
// Agent.Base. It is built where it is not there yet. The error may be ErrMissing.
func AgentImage(ctx context.Context) (name string, err error) {
	a, err := NewAgent()
	if err != nil {
		return "", err
	}
	return a.Kept(ctx, "", BuildKit)
}

// NewAgent prepares what the image is built from, once in a process. The error may
// be ErrMissing.
var NewAgent = sync.OnceValues(func() (Agent, error) {
	root, err := agenttest.Root()
	if err != nil {
		return Agent{}, err
	}
	if err := os.MkdirAll(filepath.Join(root, "build"), 0o755); err != nil {
		return Agent{}, err
	}
	unlock, err := agenttest.Lock(filepath.Join(root, "build", "image.lock"), func() {})
	if err != nil {
		return Agent{}, err
	}
	defer unlock()
	return newAgent(context.Background(), root)
})

func newAgent(ctx context.Context, root string) (a Agent, err error) {
	engine, err := Own(ctx)
	if err != nil {
		return a, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if bridge, err := net.InterfaceByName("docker0"); err == nil {
		if addresses, err := bridge.Addrs(); err == nil && len(addresses) > 0 {
			a.Address, _, _ = strings.Cut(addresses[0].String(), "/")
		}
	}
	if a.Address == "" {
		return a, fmt.Errorf("%w: its Docker Engine has no network docker0", ErrMissing)
	}
	if a.compose, err = agenttest.Tool(ctx, "docker-compose", os.Stderr); err != nil {
		return a, err
	}
	if a.Base, err = engine.base(ctx); err != nil {
		return a, err
	}
	if err := a.pack(ctx); err != nil {
		return a, err
	}
	a.Context = filepath.Join(root, "build", "image-test", "context")
	sum := sha256.New()
	fmt.Fprintln(sum, root, a.Base, a.SHA256())
	if out, err := exec.CommandContext(ctx, "make", "-s", "-C", root, "image-context").CombinedOutput(); err != nil {
		return a, fmt.Errorf("make image-context: %w\n%s", err, out)
	}
	all := map[string][]byte{}
	for name, text := range Stray {
		all[name] = []byte(text)
	}
	for _, name := range []string{".dockerignore", "Dockerfile", "rootfs.tar"} {
		if all[name], err = os.ReadFile(filepath.Join(root, "build", "image", name)); err != nil {
			return a, err
		}
		fmt.Fprintf(sum, "%s %x\n", name, sha256.Sum256(all[name]))
	}
	for name, text := range all {
		path := filepath.Join(a.Context, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return a, err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return a, err
		}
	}
	a.key = fmt.Sprintf("%x", sum.Sum(nil))[:16]
	return a, nil
}

// base is the image that the others stand on, made of the packages of this
// machine's own distribution. It stays with the engine.
func (e Engine) base(ctx context.Context) (name string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	suite := "stable"
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			suite = cmp.Or(name, suite)
		}
	}
	// The larger packages of the Dockerfile are in it, since an engine's file systems
	// are slow; the smaller ones are left to the Dockerfile.
	args := []string{"--quiet", "--variant=minbase", "--include=ca-certificates,gdb,git,gnupg,python3", "--dpkgopt=force-unsafe-io"}
	for _, dir := range []string{"doc", "info", "locale", "man", "zoneinfo"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	args = append(args, suite, "-")
	// As odd as the images of GPUs' vendors, and odder.
	changes := []string{"USER 65534", `ENTRYPOINT ["/bin/false"]`, "ENV NVIDIA_VISIBLE_DEVICES=all LD_LIBRARY_PATH=/usr/local/nvidia/lib64"}
	name = fmt.Sprintf("juliagpu-test-base:%.8x", sha256.Sum256(fmt.Append(nil, args, changes)))
	if _, err := e.Docker(ctx, nil, "image", "inspect", name); err == nil {
		return name, nil
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", fmt.Errorf("%w: needs mmdebstrap", ErrMissing)
	}
	fmt.Fprintln(os.Stderr, "making a base of", suite+"'s packages (once, about a minute)")
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	var log, archive bytes.Buffer
	cmd.Stdout, cmd.Stderr = &archive, &log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: mmdebstrap %s: %w: %s", ErrMissing, suite, err, log.String())
	}
	into := []string{"import"}
	for _, change := range changes {
		into = append(into, "--change", change)
	}
	_, err = e.Docker(ctx, &archive, append(into, "-", name)...)
	return name, err
}

// pack makes the release of the agent that tests run.
func (a *Agent) pack(ctx context.Context) error {
	agent, err := agenttest.Tool(ctx, "buildkite-agent", os.Stderr)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, agent, "--version").Output() // buildkite-agent version 3.81.0+x.…
	if err != nil {
		return err
	}
	words := strings.Fields(string(out))
	a.Version, _, _ = strings.Cut(words[len(words)-1], "+")
	program, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		mode int64
		text []byte
	}{{"./bootstrap.sh", 0o755, nil}, {"./buildkite-agent", 0o775, program}, {"./buildkite-agent.cfg", 0o664, nil}, {"./hooks/environment", 0o775, nil}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Uid: 1000, Gid: 1000, Size: int64(len(f.text))}); err != nil {
			return err
		}
		if _, err := w.Write(f.text); err != nil {
			return err
		}
	}
	err = errors.Join(w.Close(), z.Close())
	a.Release = packed.Bytes()
	return err
}

// SHA256 is the release's checksum.
func (a Agent) SHA256() string { return fmt.Sprintf("%x", sha256.Sum256(a.Release)) }

// Kept builds an image of these parts, and keeps it until one of them changes. A
// word tells it from others that were built in another way. Where containers have
// no network the error is ErrMissing.
func (a Agent) Kept(ctx context.Context, word string, b Builder, flags ...string) (name string, err error) {
	root, err := agenttest.Root()
	if err != nil {
		return "", err
	}
	lock := filepath.Join(root, "build", "image"+word+".lock")
	unlock, err := agenttest.Lock(lock, func() {})
	if err != nil {
		return "", err
	}
	defer unlock()
	// The older ones of this checkout, and of no other, go.
	var e Engine
	images := fmt.Sprintf("juliagpu-test-agent%s-%.4x", word, sha256.Sum256([]byte(root)))
	name = images + ":" + a.key
	older, err := e.Docker(ctx, nil, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", images)
	if err != nil {
		return "", err
	}
	if slices.Contains(strings.Fields(older), name) {
		return name, nil
	}
	if log, err := a.Build(ctx, b, name, nil, flags...); err != nil {
		if _, apt := e.Docker(ctx, nil, "run", "--rm", "--user=0", "--entrypoint=apt-get", a.Base, "-o", "APT::Update::Error-Mode=any", "update"); apt != nil {
			return "", fmt.Errorf("%w: its containers do not reach any packages: %w", ErrMissing, apt)
		}
		return "", fmt.Errorf("%w: %s", err, log)
	}
	for _, image := range strings.Fields(older) {
		e.Docker(ctx, nil, "rmi", image)
	}
	return name, nil
}

// Build builds an image of these parts; args are build arguments in the place of
// the right ones. It returns what the builder prints.
func (a Agent) Build(ctx context.Context, b Builder, name string, args map[string]string, flags ...string) (log string, err error) {
	listener, err := net.Listen("tcp", a.Address+":0")
	if err != nil {
		return "", err
	}
	path := fmt.Sprintf("/v%s/buildkite-agent-linux-%s-%[1]s.tar.gz", a.Version, runtime.GOARCH)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			http.NotFound(w, r)
			return
		}
		w.Write(a.Release)
	})}
	go server.Serve(listener)
	defer server.Close()
	all := map[string]string{"base": a.Base, "agent_version": a.Version, "agent_sha256": a.SHA256(), "agent_url": "http://" + listener.Addr().String()}
	maps.Copy(all, args)
	cmd := exec.CommandContext(ctx, "docker", append([]string{"build", "--force-rm", "-t", name}, flags...)...)
	cmd.Env = append(os.Environ(), "BUILDKITE_AGENT_TOKEN="+StrayToken, "DOCKER_BUILDKIT=0")
	if b == Classic {
		for _, arg := range slices.Sorted(maps.Keys(all)) {
			cmd.Args = append(cmd.Args, "--build-arg", arg+"="+all[arg])
		}
		cmd.Args = append(cmd.Args, a.Context)
	} else {
		service := map[string]any{"image": name, "build": map[string]any{"context": a.Context, "args": all}}
		file, err := json.Marshal(map[string]any{"services": map[string]any{"agent": service}}) // which is YAML, too
		if err != nil {
			return "", err
		}
		cmd = exec.CommandContext(ctx, a.compose, append([]string{"--project-name", "juliagpu-test", "--progress", "plain", "--file", "-", "build"}, flags...)...)
		cmd.Stdin = bytes.NewReader(file)
		cmd.Env = append(os.Environ(), "BUILDKITE_AGENT_TOKEN="+StrayToken, "COMPOSE_BAKE=false") // whatever buildx there is
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
