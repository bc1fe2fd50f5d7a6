// Package observe looks at a host of agents, or an agent's container, for package
// doctor. It changes nothing, and waits for no program that hangs.
package observe

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	gpuobserve "github.com/juliagpu/secrets-buildkite-plugin/internal/gpu/observe"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// A Machine is where Facts looks: this one, or one that a test made up.
type Machine struct {
	Root string // its root directory
	UID  int
	// Run runs docker and the like, found in folders of root's.
	Run     func(program string, args ...string) Answer
	SMI     func(args ...string) ([]byte, error) // nvidia-smi
	Devices func() gpu.Facts                     // what drivers show in /proc and /sys
	Space   func(path string) (Space, error)
	Synced  func() (bool, error)              // whether the kernel's clock is
	Build   func(path string) (string, error) // what a program was built from
	Now     func() time.Time
	// Patience is for questions to the kernel that a disk or a driver may never answer.
	Patience time.Duration
}

// An Answer is what a program said.
type Answer struct {
	Missing bool
	Hangs   bool
	Err     error // why it was not run, or the system's
	Status  int
	Out     []byte
	Said    string // the first line of its complaint that is no mere warning
}

// why is why there is no answer; empty: there is one.
func (a Answer) why() string {
	switch {
	case a.Missing:
		return "not there"
	case a.Hangs:
		return "no answer in time"
	case a.Err != nil:
		return a.Err.Error()
	case a.Status != 0 && a.Said != "":
		return a.Said
	case a.Status != 0:
		return "it ended with a status that is not 0"
	}
	return ""
}

// This is this machine.
func This() Machine {
	return Machine{
		Root: "/", UID: os.Getuid(), Run: runner{patience}.run, SMI: smi, Devices: devices("/"), Space: space, Build: build, Now: time.Now, Synced: synced, Patience: 5 * time.Second,
	}
}

// patience is for one program. docker info alone takes seconds where many containers
// start.
const patience = 15 * time.Second

// within gives a call so long. One that hangs, in a driver or on a disk that does not
// answer, is left behind: nothing ends it.
func within[T any](patience time.Duration, call func() T) (answer T, ok bool) {
	answers := make(chan T, 1)
	go func() { answers <- call() }()
	select {
	case answer = <-answers:
		return answer, true
	case <-time.After(patience):
		return answer, false
	}
}

// folders are where programs are that root may run. No PATH is asked.
var folders = []string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"}

// find is a program that nobody but root, or the user that looks, could have changed.
func find(program string) (string, error) {
	var wrong error
	for _, dir := range folders {
		path := filepath.Join(dir, program)
		_, err := rootfile.Check(path, rootfile.Rule{User: os.Getuid()})
		if err == nil {
			return path, nil
		}
		if wrong == nil && errors.Is(err, rootfile.ErrUntrusted) {
			wrong = err
		}
	}
	if wrong == nil {
		wrong = os.ErrNotExist
	}
	return "", wrong
}

// mostSaid is how much of what a program prints is looked at, in bytes.
const mostSaid = 4 << 20

// A runner runs programs, and waits so long for each.
type runner struct{ patience time.Duration }

// environment is what programs get: nothing of the caller's, and of no user's
// configuration, so that docker asks the engine that the agents' units ask.
var environment = []string{"LANG=C", "HOME=/nonexistent", "DOCKER_CONFIG=/nonexistent", "DOCKER_HOST=unix:///var/run/docker.sock"}

func (r runner) run(program string, args ...string) Answer {
	// Where a program waits for a disk or a driver not even a kill ends it.
	a, ok := within(r.patience+time.Second, func() Answer { return r.wait(program, args) })
	if !ok {
		a.Hangs = true
	}
	return a
}

// wait runs a program, and kills it when its time is over.
func (r runner) wait(program string, args []string) Answer {
	path, err := find(program)
	if err != nil {
		return Answer{Missing: errors.Is(err, os.ErrNotExist), Err: err}
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir = environment, "/"
	cmd.SysProcAttr = child()
	runtime.LockOSThread() // it ends with the goroutine of within
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 200 * time.Millisecond
	var out, said limited
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	a := Answer{Out: out.text.Bytes(), Said: complaint(said.text.String())}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		a.Hangs = true
	case errors.As(err, &exit):
		a.Status = exit.ExitCode()
	default:
		a.Err = err
	}
	return a
}

// complaint is the first line that is no mere warning of docker's or of Compose's.
func complaint(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "WARNING:") && !strings.Contains(line, "level=warning") {
			return line
		}
	}
	return ""
}

// limited keeps so much of what a program prints, and forgets the rest.
type limited struct{ text bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.text.Write(p[:min(len(p), mostSaid-l.text.Len())])
	return len(p), nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(line)
}

func smi(args ...string) ([]byte, error) {
	path, err := find("nvidia-smi")
	if err != nil {
		return nil, err
	}
	return gpuobserve.HostSMI(path)(args...)
}

func devices(root string) func() gpu.Facts {
	return func() gpu.Facts { return gpuobserve.Devices(os.DirFS(root).(fs.ReadLinkFS)) }
}

// A Space is what the file system of a path has: bytes, and files (inodes).
type Space struct {
	Device           uint64
	Free, Total      uint64
	FreeFiles, Files uint64
}

func space(path string) (Space, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return Space{}, err
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return Space{}, err
	}
	size := uint64(disk.Bsize)
	return Space{uint64(file.Dev), disk.Bavail * size, disk.Blocks * size, disk.Ffree, disk.Files}, nil
}

// build is a program's version, and the Go that it was built with: what one make
// gives all of them.
func build(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := info.Main.Version + ", " + info.GoVersion
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += ", " + s.Value[:min(len(s.Value), 12)]
		}
	}
	return text, nil
}
