//go:build unix

// Package agenttest runs real Buildkite jobs on loopback: a released agent against
// an Agent API server of its own, with the hooks under test. No account, no network.
//
//	bin, err := agenttest.Tool(ctx, "buildkite-agent", os.Stderr)
//	agent := agenttest.Agent{Binary: bin, Dir: dir, HooksPath: hooks, Polyglot: true}
//	result, err := agent.RunWhole(ctx, agenttest.Job{Command: "echo hi"}, nil)
//	// result.ExitStatus, result.Text(), …
//
// It serves tests and demonstrations; nothing that is shipped imports it.
package agenttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// agentName is the name under which every agent registers.
const agentName = "agenttest"

// maxSocketPath is what fits into a unix socket's address on Linux, without its
// terminating zero byte (man 7 unix).
const maxSocketPath = 107

// An Agent is how a job is run. Each run starts an agent of its own, in a new
// directory, and that agent takes one job.
type Agent struct {
	Binary          string            // the program, from Tool; its file name must be buildkite-agent
	Dir             string            // existing directory for the runs' directories, below 50 bytes long: os.MkdirTemp("", "bk-") is, t.TempDir() often is not
	HooksPath       string            // --hooks-path; empty: no hooks
	Flags           []string          // more flags of `buildkite-agent start`, after the harness's own
	Env             []string          // more variables of the agent's own environment, "NAME=value"; every job sees them
	Polyglot        bool              // --experiment=polyglot-hooks: hooks may be programs
	BootstrapScript string            // --bootstrap-script; empty: the agent's own bootstrap
	NoPTY           bool              // --no-pty
	Setup           string            // shell commands to run as root before the agent starts, where /run is an empty tmpfs that nobody else sees, as in a fresh container; empty: /run is the machine's (Linux, as root)
	Repos           map[string]string // address of a repository to a local one (GitRepo) that is checked out in its place; nil: jobs have no checkout phase and start in an empty directory, which takes no time
	Watch           bool              // fills Result.Processes
	KeepProcesses   bool              // what a job left running lives on; otherwise it is killed
	Before          func() error      // is called before each run, to put in place what the one before has used up; nil: nothing is
	Timeout         time.Duration     // for one run; 0: a minute
}

// A Result is how a run went.
type Result struct {
	Record
	AgentLog    string    // what the agent itself printed
	AgentStatus int       // of `buildkite-agent start`; -1 where a signal ended it
	AgentToken  string    // the registration token, which no job may see
	Dir         string    // the run's directory: home, tmp, builds, plugins, sockets
	Requests    []Request // every call of the Agent API
	Processes   []Process // with Agent.Watch: what ran meanwhile
	Runs        int       // how many runs RunWhole needed
}

var (
	// ErrUnfinished: the agent ended, or was ended at the deadline, without saying
	// how the job ended. The Result has what is known, such as AgentLog.
	ErrUnfinished = errors.New("the job was not finished")

	// ErrLostLog: in none of the runs of RunWhole was the log whole.
	ErrLostLog = errors.New("the log lacks its end")
)

// Run runs one job to its end, and the agent to its own. The agent's environment
// holds PATH, HOME, TMPDIR (both below the run's directory), LANG and a.Env. A job
// that fails is no error; see ErrUnfinished for what is one.
//
// In a pseudo-terminal agent v3.81 may lose the last lines of a short job: where
// the log matters use RunWhole.
func (a Agent) Run(ctx context.Context, job Job) (Result, error) {
	timeout := a.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	if a.Before != nil {
		if err := a.Before(); err != nil {
			return Result{}, err
		}
	}
	dir, err := os.MkdirTemp(a.Dir, "run-")
	if err != nil {
		return Result{}, err
	}
	if len(dir)+len("/sockets/job-api/4194304-99999.sock") > maxSocketPath {
		return Result{}, fmt.Errorf("work directory %s: too long for a unix socket below it", a.Dir)
	}
	server, err := NewServer()
	if err != nil {
		return Result{}, err
	}
	defer server.Close()
	id := server.Add(job)
	cmd, err := a.command(dir, server, server.Record(id).Env)
	if err != nil {
		return Result{}, err
	}
	// A file, because waiting for a pipe would wait for what the job left running too.
	log, err := os.Create(filepath.Join(dir, "agent.log"))
	if err != nil {
		return Result{}, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	tree := &processTree{agent: cmd.Process.Pid, dir: dir}
	var watched func() []Process
	if a.Watch {
		watched = tree.watch()
	}

	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
		if !a.KeepProcesses {
			tree.kill()
		}
	case <-ctx.Done():
		tree.kill()
		err = <-ended
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Result{}, err
	}

	r := Result{
		Record:      server.Record(id),
		AgentStatus: cmd.ProcessState.ExitCode(),
		AgentToken:  server.Token,
		Dir:         dir,
		Requests:    server.Requests(),
		Runs:        1,
	}
	if watched != nil {
		r.Processes = watched()
	}
	text, err := os.ReadFile(log.Name())
	if err != nil {
		return r, err
	}
	r.AgentLog = string(text)
	switch {
	case !r.Finished && ctx.Err() != nil:
		return r, fmt.Errorf("%w: %w", ErrUnfinished, context.Cause(ctx))
	case !r.Finished:
		return r, fmt.Errorf("%w: the agent ended with status %d", ErrUnfinished, r.AgentStatus)
	}
	return r, nil
}

// command prepares the run's directory, and the agent's process.
func (a Agent) command(dir string, s *Server, env map[string]string) (*exec.Cmd, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{
		"home", "tmp", "plugins", "sockets",
		// Where the checkout would be: without one, jobs start here.
		filepath.Join("builds", agentName, filepath.Clean("/"+env["BUILDKITE_ORGANIZATION_SLUG"]), filepath.Clean("/"+env["BUILDKITE_PIPELINE_SLUG"])),
	} {
		if err := os.MkdirAll(in(name), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(in("home/.gitconfig"), []byte(gitConfig(a.Repos)), 0o644); err != nil {
		return nil, err
	}
	// An empty configuration: the machine may have one for an agent of its own.
	if err := os.WriteFile(in("agent.cfg"), nil, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command(a.Binary, "start",
		"--config", in("agent.cfg"), "--name", agentName, "--endpoint", s.URL, "--disconnect-after-job",
		"--build-path", in("builds"), "--plugins-path", in("plugins"), "--sockets-path", in("sockets"),
		"--hooks-path", a.HooksPath, "--no-ssh-keyscan", "--no-color")
	if a.Polyglot {
		cmd.Args = append(cmd.Args, "--experiment=polyglot-hooks")
	}
	if a.BootstrapScript != "" {
		cmd.Args = append(cmd.Args, "--bootstrap-script", a.BootstrapScript)
	}
	if a.NoPTY {
		cmd.Args = append(cmd.Args, "--no-pty")
	}
	cmd.Args = append(cmd.Args, a.Flags...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + in("home"), "TMPDIR=" + in("tmp"), "LANG=C.UTF-8",
		"BUILDKITE_AGENT_TOKEN=" + s.Token, // the agent removes it from its environment
	}
	if a.Repos == nil {
		// The bootstrap's own setting (v3.81, clicommand/bootstrap.go), from the
		// agent's environment, so that it is no fact of the job.
		cmd.Env = append(cmd.Env, "BUILDKITE_BOOTSTRAP_PHASES=plugin,command")
	}
	cmd.Env = append(cmd.Env, a.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.Setup != "" {
		// The shell becomes the agent, so the process stays the same.
		const shell = "mount -t tmpfs -o mode=755,size=16m tmpfs /run && {\n%s\n} && exec \"$@\""
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", fmt.Sprintf(shell, a.Setup), "sh", a.Binary}, cmd.Args[1:]...)
		return cmd, ownMounts(cmd)
	}
	return cmd, nil
}

// maxRuns bounds RunWhole. Under load v3.81 lost the end of a third of the logs.
const maxRuns = 5

// RunWhole runs a job as Run does, again in a new directory where the end of the log
// was lost, with a new id unless job.ID states one: what it does outside of that
// directory happens once more. Whole says whether a run's log has all that must be
// there; nil is for a job whose command runs: it prints a mark when it ends, with
// whatever status. A job that does not come to its command, or prints something
// after it that matters, needs Says or a function of the caller's own.
//
// The mark is printed by a trap on EXIT: a command that execs or sets that trap
// never prints it. After five runs the error is ErrLostLog, with the last Result.
func (a Agent) RunWhole(ctx context.Context, job Job, whole func(Result) bool) (Result, error) {
	return runWhole(ctx, job, whole, a.Run)
}

func runWhole(ctx context.Context, job Job, whole func(Result) bool, run func(context.Context, Job) (Result, error)) (Result, error) {
	if whole == nil {
		mark := randomHex(8)
		command := job.Command
		if c, ok := job.Env["BUILDKITE_COMMAND"]; ok {
			command = c
		}
		job.Env = maps.Clone(job.Env)
		delete(job.Env, "BUILDKITE_COMMAND")
		// The agent prints the command into the log: the mark must not stand in it.
		job.Command = fmt.Sprintf("trap 'printf \"\\n%%s-%%s\\n\" end %s' EXIT\n%s", mark, command)
		whole = Says("end-" + mark)
	}
	for runs := 1; ; runs++ {
		r, err := run(ctx, job)
		r.Runs = runs
		if err != nil || whole(r) {
			return r, err
		}
		if runs == maxRuns {
			return r, fmt.Errorf("%w in %d runs", ErrLostLog, runs)
		}
	}
}

// Says is for RunWhole: the log's text holds each of texts.
func Says(texts ...string) func(Result) bool {
	return func(r Result) bool {
		log := r.Text()
		for _, text := range texts {
			if !strings.Contains(log, text) {
				return false
			}
		}
		return true
	}
}

// escapes matches what a terminal obeys instead of showing: the agent's timestamps
// (ESC _bk;t=… BEL), colours and other control sequences.
var escapes = regexp.MustCompile("\x1b_bk;[^\x07]*\x07|\x1b\\[[0-?]*[ -/]*[@-~]")

// lineEnds matches what became of a \n in the agent's pseudo-terminals, of which a
// command has two.
var lineEnds = regexp.MustCompile("\r+\n")

// Text is the job's log as a person reads it: without escape sequences, with \n
// between lines.
func (r Record) Text() string {
	return lineEnds.ReplaceAllString(escapes.ReplaceAllString(r.Log, ""), "\n")
}
