//go:build unix

package agenttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const module = "github.com/juliagpu/secrets-buildkite-plugin"

// A tool is a program of tests/tools: the package to build and its module.
type tool struct {
	pkg, module string
	folder      string // of the module that has it, below tests/tools
	cgo         bool   // it does not build without a C compiler
}

var tools = map[string]tool{
	"buildkite-agent": {pkg: "github.com/buildkite/agent/v3", module: "github.com/buildkite/agent/v3"},
	"age":             {pkg: "filippo.io/age/cmd/age", module: "filippo.io/age"},
	"docker-compose":  {pkg: "github.com/docker/compose/v2/cmd", module: "github.com/docker/compose/v2", folder: "compose"},
	"sops":            {pkg: "github.com/getsops/sops/v3/cmd/sops", module: "github.com/getsops/sops/v3", folder: "sops"},

	"nvidia-ctk":               {pkg: toolkit + "/cmd/nvidia-ctk", module: toolkit, folder: "nvidia", cgo: true},
	"nvidia-container-runtime": {pkg: toolkit + "/cmd/nvidia-container-runtime", module: toolkit, folder: "nvidia", cgo: true},
}

const toolkit = "github.com/NVIDIA/nvidia-container-toolkit"

// Root is the repository's root: the closest directory from the working directory
// upwards whose go.mod is this module's. A test and a program of the repository
// both run below it.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+module+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod of %s above %s", module, start)
		}
	}
}

// Tool is the path of a released program that tests run, "buildkite-agent", "age",
// "docker-compose" or one of NVIDIA's, or that make bench compares with, "sops", at
// the version that a go.mod below tests/tools names. All are static. It is built on first use into build/tools at the
// repository's root and kept there until go.mod, go.sum or the Go release changes.
// Several processes may ask at the same time. What takes long is said on log.
func Tool(ctx context.Context, name string, log io.Writer) (string, error) {
	t, ok := tools[name]
	if !ok {
		return "", fmt.Errorf("tool %q: tests/tools does not have it", name)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "tests", "tools", t.folder)
	version, stamp, err := toolVersion(source, t)
	if err != nil {
		return "", fmt.Errorf("tool %s: %w", name, err)
	}
	dir := filepath.Join(root, "build", "tools")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path, stampPath := filepath.Join(dir, name), filepath.Join(dir, name+".stamp")

	unlock, err := Lock(filepath.Join(dir, name+".lock"), func() {
		fmt.Fprintf(log, "waiting for another process, which builds %s\n", name)
	})
	if err != nil {
		return "", err
	}
	defer unlock()

	if have, err := os.ReadFile(stampPath); err == nil && bytes.Equal(have, stamp) {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	fmt.Fprintf(log, "building %s %s (once, some minutes where nothing is cached)\n", name, version)
	env := []string{"GOWORK=off"}
	if t.cgo {
		env = append(env, "CGO_ENABLED=1", `GOFLAGS="-ldflags=-linkmode=external -extldflags=-static -X=`+t.module+"/internal/info.version="+strings.TrimPrefix(version, "v")+`"`)
	}
	if err := build(ctx, source, t.pkg, path, env...); err != nil {
		return "", fmt.Errorf("tool %s: %w", name, err)
	}
	// After the program: a build that is cut short leaves no stamp that fits.
	return path, os.WriteFile(stampPath, stamp, 0o644)
}

// toolVersion is t's version in the go.mod below source, and the text that says
// what a build of it comes from.
func toolVersion(source string, t tool) (version string, stamp []byte, err error) {
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", nil, err
	}
	sum, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return "", nil, err
	}
	for line := range strings.Lines(string(mod)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == t.module {
			version = f[1]
		}
	}
	if version == "" {
		return "", nil, fmt.Errorf("go.mod does not require %s", t.module)
	}
	return version, fmt.Appendf(nil, "%s %s\n%s %s/%s\ngo.mod %x\ngo.sum %x\n",
		t.module, version, runtime.Version(), runtime.GOOS, runtime.GOARCH, sha256.Sum256(mod), sha256.Sum256(sum)), nil
}

// Build builds a package of this repository as releases are built: static,
// without paths of this machine. pkg is as go build takes it at the repository's
// root ("./cmd/environment"), out is the program's path, env adds variables
// ("GOOS=darwin").
func Build(ctx context.Context, pkg, out string, env ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	return build(ctx, root, pkg, out, env...)
}

// build replaces out in one step: another process may be running it.
func build(ctx context.Context, dir, pkg, out string, env ...string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(out), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, filepath.Base(out))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", built, pkg)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, text)
	}
	return os.Rename(built, out)
}

// Lock takes an exclusive lock on the file at path, which it makes, and calls
// busy first where that means waiting for another process.
func Lock(path string, busy func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		busy()
		for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
