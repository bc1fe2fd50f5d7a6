//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/agent"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/handoff"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/isolation"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// The users of split mode's jobs. The machine has no names for them.
const (
	trusted = 47110
	other   = 47120
)

const (
	splitRounds = 100
	splitConfig = `mode: split
isolation: {expect: host, reason: a benchmark}
identities: [{file: %s}]
users: {trusted: "47110:47110", other: "47120:47120"}
`
	containerConfig = "mode: direct\nreason: a benchmark\nidentities: [{file: /nonexistent}]\n"
)

// What is measured in both modes: so many secrets, and beside so many processes.
var splitCases = []struct {
	title     string
	n, beside int
}{{"N = 1", 1, 0}, {"N = 10", 10, 0}, {"N = 1, busy", 1, 100}}

// errAlone says that this machine does not let us have one of our own.
var errAlone = errors.New("needs root, and namespaces of its own")

// split measures split mode beside direct mode, and returns a table. The launcher
// asks for a parent that is an agent, and hand-offs lie in one place of the machine:
// so this program does it under an agent's name, where /run, /var/lib and the
// processes are its own, as in a container.
func split(ctx context.Context, dir string) (string, error) {
	if os.Geteuid() != 0 {
		return "", errAlone
	}
	dir, err := os.MkdirTemp(dir, "split-")
	if err != nil {
		return "", err
	}
	// Jobs' users start the hooks in it.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711)); err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{
		"environment": "./cmd/environment", "pre-bootstrap": "./cmd/pre-bootstrap", "launch": "./cmd/launch", "pre-command": "./cmd/pre-command",
		"exits": "./tests/bench/exits",
	} {
		if err := agenttest.Build(ctx, pkg, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	own, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, agent.Name), own, 0o755)
	}
	if err != nil {
		return "", err
	}
	var out, stderr strings.Builder
	cmd := exec.CommandContext(ctx, filepath.Join(dir, agent.Name), dir)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if errors.Is(err, unix.EPERM) || cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == alone {
		return "", errAlone
	}
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return out.String(), nil
}

// alone is the status of asAgent where nothing can be mounted.
const alone = 3

// asAgent is this program under an agent's name.
func asAgent(dir string, stdout, stderr io.Writer) int {
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, "mode=755"))
	if err != nil {
		return alone
	}
	var table string
	w, err := newSplitplace(dir)
	if err == nil {
		table, err = w.table()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	io.WriteString(stdout, table)
	return 0
}

// A splitplace is a workplace with hooks installed for both modes.
type splitplace struct {
	workplace
	split kind
}

func newSplitplace(dir string) (*splitplace, error) {
	w := &splitplace{workplace: workplace{dir: dir, tools: map[string]string{"environment": filepath.Join(dir, "environment")}}}
	// What launch becomes is in our own file's place, as after an agent's update.
	if err := os.Rename(w.in("exits"), w.in(agent.Name)); err != nil {
		return nil, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	if w.x25519, err = w.install("direct", id.String(), id.Recipient().String()); err != nil {
		return nil, err
	}
	if w.split, err = w.install("both", id.String(), id.Recipient().String()); err != nil {
		return nil, err
	}
	lib, container := w.in("both"), w.in("container")
	for _, lib := range []string{lib, w.in("direct")} { // as make install has it
		err = errors.Join(err,
			os.Link(w.in("pre-bootstrap"), filepath.Join(lib, "pre-bootstrap")),
			os.WriteFile(filepath.Join(lib, "hooks", "pre-bootstrap"), []byte("#!"+lib+"/pre-bootstrap\n"), 0o755))
	}
	err = errors.Join(err,
		os.Link(w.in("launch"), filepath.Join(lib, "launch")),
		os.WriteFile(filepath.Join(lib, "config.yml"), fmt.Appendf(nil, splitConfig, w.split.identity), 0o644),
		os.Mkdir(container, 0o755),
		os.Link(w.in("pre-command"), filepath.Join(container, "pre-command")),
		os.WriteFile(filepath.Join(container, "config.yml"), []byte(containerConfig), 0o644))
	if err != nil {
		return nil, err
	}
	if w.facts, err = facts(); err != nil {
		return nil, err
	}
	if w.api, err = serve(w.in("sockets")); err != nil {
		return nil, err
	}
	// The agent's bootstrap would serve it as the job's user.
	for _, name := range []string{w.api.sockets, filepath.Dir(w.api.socket), w.api.socket} {
		err = errors.Join(err, os.Chown(name, trusted, trusted))
	}
	return w, err
}

// A chain is the processes that give a job its secrets, in their order. What one
// of them takes is not part of it.
type chain struct {
	gate, direct              contender
	before, launch, exits, of contender
}

// A lap is how long each took in one round, in milliseconds.
type lap struct{ gate, direct, before, launch, exits, of float64 }

func (l lap) own() float64   { return l.launch - l.exits }
func (l lap) split() float64 { return l.before + l.own() + l.of }
func (l lap) both() float64  { return l.gate + l.direct } // direct mode's two hooks

func (w *splitplace) chain(n int) (chain, error) {
	vars := values(n)
	own, err := sealed(w.x25519, w.facts, vars)
	if err != nil {
		return chain{}, err
	}
	file := w.in(fmt.Sprintf("job-env-%s%d", job.Lookup(w.facts, job.VarID), 100+n))
	var b strings.Builder
	for _, entry := range own { // agent/job_runner.go of v3.81.0
		name, value, _ := strings.Cut(entry, "=")
		if name != "PATH" && name != "HOME" && name != "BUILDKITE_HOOK_PHASE" {
			fmt.Fprintf(&b, "%s=%q\n", name, value)
		}
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return chain{}, err
	}
	stated := job.VarEnvFile + "=" + file
	env := slices.Concat(own, []string{stated}, w.api.environ())
	agents := []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", stated}
	set := func(name string) func() error {
		return func() error { return w.delivered(name, vars, nil) }
	}
	left := func() error {
		uid, err := new(handoff.Store).Owner(mustID(w.facts))
		if err == nil && uid != trusted {
			err = fmt.Errorf("the hand-off is for uid %d", uid)
		}
		return err
	}
	return chain{
		gate:   contender{name: "pre-bootstrap, direct", args: []string{filepath.Join(w.in("direct"), "hooks", "pre-bootstrap")}, env: agents, check: nothing},
		direct: contender{name: "direct", args: []string{w.x25519.hook}, env: env, check: set("direct")},
		before: contender{name: "pre-bootstrap", args: []string{filepath.Join(w.in("both"), "hooks", "pre-bootstrap")}, env: agents, check: left},
		launch: contender{name: "launch", args: []string{filepath.Join(w.in("both"), "launch")}, env: env, check: nothing},
		exits:  contender{name: "exits", args: []string{w.in(agent.Name)}, env: env, check: nothing},
		of:     contender{name: "environment", args: []string{w.split.hook}, env: env, user: trusted, check: set("split")},
	}, nil
}

func nothing() error { return nil }

func mustID(facts []string) job.ID {
	id, _ := job.ParseID(job.Lookup(facts, job.VarID))
	return id
}

// ms runs a contender once, and returns how long it took.
func (w *splitplace) ms(c contender) (float64, error) {
	took, err := w.time(c)
	if err == nil {
		err = c.check()
	}
	return float64(took) / float64(time.Millisecond), err
}

// lap runs both modes once, in one order or the other.
func (w *splitplace) lap(c chain) (l lap, err error) {
	run := func(to *float64, c contender) {
		if err == nil {
			*to, err = w.ms(c)
		}
	}
	directLast := rand.IntN(2) == 0
	if !directLast {
		run(&l.gate, c.gate)
		run(&l.direct, c.direct)
	}
	run(&l.before, c.before)
	run(&l.launch, c.launch)
	run(&l.of, c.of)
	run(&l.exits, c.exits)
	if directLast {
		run(&l.gate, c.gate)
		run(&l.direct, c.direct)
	}
	return l, err
}

// table measures, and is 80 columns wide at most.
func (w *splitplace) table() (string, error) {
	laps := make([][]lap, len(splitCases))
	for i, of := range splitCases {
		c, err := w.chain(of.n)
		if err != nil {
			return "", err
		}
		for range of.beside { // they end with the first process of their namespace: us
			if err := exec.Command("sleep", "infinity").Start(); err != nil {
				return "", err
			}
		}
		for round := range splitRounds + 3 {
			l, err := w.lap(c)
			if err != nil {
				return "", err
			}
			if round >= 3 { // the first ones warm the caches
				laps[i] = append(laps[i], l)
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s", "Milliseconds, median")
	for _, of := range splitCases {
		fmt.Fprintf(&b, "%13s", of.title)
	}
	b.WriteByte('\n')
	for _, row := range []struct {
		title string
		of    func(lap) float64
	}{
		{"direct", lap.both},
		{"  pre-bootstrap", func(l lap) float64 { return l.gate }},
		{"  environment", func(l lap) float64 { return l.direct }},
		{"split", lap.split},
		{"  pre-bootstrap", func(l lap) float64 { return l.before }},
		{"  launch, until it is the bootstrap", lap.own},
		{"  environment", func(l lap) float64 { return l.of }},
		{"split - direct", func(l lap) float64 { return l.split() - l.both() }},
		{"split - direct's environment alone", func(l lap) float64 { return l.split() - l.direct }},
	} {
		fmt.Fprintf(&b, "  %-34s", row.title)
		for _, all := range laps {
			var times []float64
			for _, l := range all {
				times = append(times, row.of(l))
			}
			fmt.Fprintf(&b, "%13.1f", median(times))
		}
		b.WriteByte('\n')
	}
	checks, err := w.checks()
	return b.String() + checks, err
}

// checks measures those of the container, as where nothing but a container may
// stand between jobs. Here nobody cares what they find.
func (w *splitplace) checks() (string, error) {
	container := filepath.Join(w.in("container"), "pre-command")
	process := contender{name: "pre-command", args: []string{container}, env: w.facts, user: trusted, status: 1, check: nothing}
	path, err := settings.Find(container)
	if err != nil {
		return "", err
	}
	config, err := settings.Load(path, 0)
	if err != nil {
		return "", err
	}
	var whole, early []float64
	for range splitRounds {
		started := time.Now()
		isolation.Early(config, nil)
		early = append(early, float64(time.Since(started))/float64(time.Millisecond))
		took, err := w.ms(process)
		if err != nil {
			return "", err
		}
		whole = append(whole, took)
	}
	return fmt.Sprintf("\nIn a container that is to be checked, %.1f ms for pre-command, as the job's user,\nand %.1f ms for the checks before secrets, as root, who can ask about more.\n", median(whole), median(early)), nil
}
