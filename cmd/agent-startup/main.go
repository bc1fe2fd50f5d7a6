// Agent-startup is the hook that keeps an agent from starting where its jobs would
// fail, or would not be safe: one line says what is wrong and what to do.
//
// The agent runs it once, with its own privilege and environment, after it has
// registered and before it asks for a job. A status other than 0 ends the agent,
// which stays listed as lost (seen with v3.81.0): whatever starts it again must
// wait longer each time.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/agent"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/drop"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/grant"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/handoff"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/isolation"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

func main() {
	status := run(os.Args, os.Environ(), os.Stdout)
	if status != 0 {
		// The agent ends at once when a hook fails, and does not wait until it has
		// logged what that printed (seen with v3.81.0, a line in some dozens lost).
		time.Sleep(200 * time.Millisecond)
	}
	os.Exit(status)
}

// run prints one line. Its status is 1 where the agent must not start.
func run(args, environ []string, stdout io.Writer) int {
	ready, err := check(args, environ)
	if err != nil {
		line := strings.ReplaceAll(err.Error(), "\n", "; ")
		if own := (interface{ Hint() string })(nil); errors.As(err, &own) && own.Hint() != "" {
			line += ": " + own.Hint()
		}
		fmt.Fprintf(stdout, "agent-startup: error: no agent here: %s\n", line)
		return 1
	}
	fmt.Fprintf(stdout, "agent-startup: %s\n", ready)
	return 0
}

// A fault is what is wrong, and what to do.
type fault struct{ what, hint string }

func (f fault) Error() string { return f.what }
func (f fault) Hint() string  { return f.hint }

// A host is what the checks look at.
type host struct {
	config  settings.Settings
	lib     string // the folder of our programs
	hook    string // this hook, as the agent named it
	agent   agent.Agent
	setup   agent.Setup
	environ []string
}

// check makes the checks in turn; the first that fails counts.
func check(args, environ []string) (ready string, err error) {
	if err := errors.Join(harden.CleanRuntime(args, environ), harden.Process()); err != nil {
		return "", err
	}
	if len(args) != 2 { // the kernel puts the script's path behind the interpreter's
		return "", fault{"the agent did not start this as its hook", "install the hook as one line, #!" + args[0]}
	}
	h := host{hook: args[1], environ: environ}
	executable, err := os.Executable()
	if err != nil {
		return "", err
	}
	h.lib = filepath.Dir(executable)
	if h.config, err = settings.Installed(os.Getuid()); err != nil {
		return "", err
	}
	checks := []func() error{h.hooks, h.identities, h.attest, h.isolation}
	if runtime.GOOS == "linux" { // elsewhere nobody tells how another process was started
		if h.agent, err = agent.Parent(h.owners()); err != nil {
			return "", err
		}
		if h.setup, err = h.agent.Setup(); err != nil {
			return "", err
		}
		checks = append(checks, h.workers, h.version, h.split)
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return "", err
		}
	}
	return h.String(), h.giveUp()
}

// giveUp removes the agent's configuration file, which holds its token, where it was
// put among credentials that are consumed. The agent has read it, and does not read
// it again (v3.81.0: clicommand/agent_start.go).
func (h host) giveUp() error {
	if !h.config.Consume || !h.setup.InFile("token") {
		return nil
	}
	for _, held := range h.config.Credentials() {
		if filepath.Dir(held.Path) == filepath.Dir(h.setup.File) {
			return credential.GiveUp([]credential.File{{Kind: "the agent's token", Path: h.setup.File}})
		}
	}
	return nil
}

// String says what jobs find here.
func (h host) String() string {
	switch {
	case h.config.Mode == settings.Direct:
		return "ready: direct mode: " + h.config.Reason
	case h.config.Users == (settings.Users{}):
		return "ready: split mode, jobs run as the agent's user"
	}
	u := h.config.Users
	return fmt.Sprintf("ready: split mode, jobs run as uid %d, or %d where they are not trusted", u.Trusted.UID, u.Other.UID)
}

// owners says who may own what the agent runs. In split mode nobody but root.
func (h host) owners() rootfile.Rule {
	if h.config.Mode == settings.Split {
		return rootfile.Rule{}
	}
	return rootfile.Rule{User: os.Getuid()}
}

// hooks looks for the hooks that this mode needs in the folder that the agent
// uses, and for others who could change any of them.
func (h host) hooks() error {
	folder, err := filepath.EvalSymlinks(filepath.Dir(h.hook))
	if err != nil {
		return err
	}
	if own := filepath.Join(h.lib, "hooks"); folder != own {
		return fault{"the agent's hooks are those in " + folder, "start it with --hooks-path " + own}
	}
	needed := []string{"environment", "pre-exit"}
	if h.config.Mode == settings.Split {
		needed = append(needed, "pre-bootstrap")
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			continue // no hook
		}
		path := filepath.Join(folder, e.Name())
		if _, err := rootfile.Check(path, h.owners()); err != nil {
			return err
		}
		needed = slices.DeleteFunc(needed, func(name string) bool { return name == e.Name() })
	}
	if len(needed) > 0 {
		return fault{folder + ": there is no hook " + needed[0], "make install puts it there"}
	}
	return nil
}

// identities loads them, and gives none up: that is for the first job.
func (h host) identities() error {
	if _, err := identity.Load(h.config.Identities, os.Getuid()); err != nil {
		return err
	}
	if h.config.Older.Key == "" {
		return nil
	}
	_, err := grant.OlderKey(h.config, os.Getuid())
	return err
}

// attest looks for the API token, and for the program that uses it.
func (h host) attest() error {
	if !h.config.Rules.Attest {
		return nil
	}
	if _, err := h.config.Attest.Credential().Word(os.Getuid()); err != nil {
		return err
	}
	program := filepath.Join(h.lib, "attest")
	_, err := rootfile.Check(program, h.owners())
	if errors.Is(err, fs.ErrNotExist) {
		return fault{program + ": no such file or directory", "make install puts it there"}
	}
	return err
}

func (h host) isolation() error {
	f, ok := isolation.Early(h.config, h.environ).First()
	if !ok {
		return nil
	}
	return fault{f.ID + ": " + f.What, strings.Join(f.Fix, "; ") + "; " + f.Link()}
}

// workers makes sure that this agent runs one job at a time, and that where the
// first job takes the identities there is no second one.
func (h host) workers() error {
	for _, setting := range []struct{ flag, variable, one string }{
		{"spawn", "BUILDKITE_AGENT_SPAWN", "1"}, {"spawn-per-cpu", "BUILDKITE_AGENT_SPAWN_PER_CPU", "0"},
	} {
		for _, value := range h.setup.Values(setting.flag, setting.variable) {
			if n, err := strconv.Atoi(value); err != nil || n != 0 && strconv.Itoa(n) != setting.one {
				return fault{"--" + setting.flag + ": its workers would share users, directories and /run", "start an agent for each, in a container of its own"}
			}
		}
	}
	if h.config.Consume && !h.setup.On("disconnect-after-job", "BUILDKITE_AGENT_DISCONNECT_AFTER_JOB") &&
		h.setup.Values("acquire-job", "BUILDKITE_AGENT_ACQUIRE_JOB") == nil {
		return fault{"consume: true, and the agent takes more than one job: from the second on there is no identity", "start it with --disconnect-after-job"}
	}
	return nil
}

// polyglot is from which version on agents run hooks that are programs.
var polyglot = [2]int{3, 85}

// version makes sure that the agent runs hooks that are programs.
func (h host) version() error {
	for _, list := range h.setup.Values("experiment", "BUILDKITE_AGENT_EXPERIMENT") {
		if slices.Contains(strings.Split(list, ","), "polyglot-hooks") {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.agent.Exe, "--version")
	cmd.Env = []string{}
	text, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", h.agent.Exe, err)
	}
	var have [2]int
	_, after, _ := bytes.Cut(text, []byte(" version "))
	if _, err := fmt.Sscanf(string(after), "%d.%d.", &have[0], &have[1]); err != nil {
		return fault{h.agent.Exe + " does not say which version it is", "install a released agent, or start it with --experiment=polyglot-hooks"}
	}
	if slices.Compare(have[:], polyglot[:]) < 0 {
		return fault{fmt.Sprintf("agent %d.%d does not run hooks that are programs: every job would fail", have[0], have[1]),
			fmt.Sprintf("install %d.%d or newer, or start it with --experiment=polyglot-hooks", polyglot[0], polyglot[1])}
	}
	return nil
}

// split makes sure that jobs run as their users, and reach nothing of root's.
func (h host) split() error {
	if h.config.Mode != settings.Split {
		return nil
	}
	// Nothing of an earlier agent's jobs is for one of this agent's. It also makes
	// the folder, which has to be in memory.
	if err := (handoff.Store{}).Sweep(); err != nil {
		return err
	}
	if h.config.Users == (settings.Users{}) {
		return nil
	}
	if os.Getuid() != 0 {
		return fault{"the agent is not root's, and can't start jobs as other users", "start it as root"}
	}
	launch := filepath.Join(h.lib, "launch")
	if _, err := rootfile.Check(launch, rootfile.Rule{}); err != nil {
		return err
	}
	script := h.setup.Values("bootstrap-script", "BUILDKITE_BOOTSTRAP_SCRIPT_PATH")
	if len(script) == 0 || script[len(script)-1] != launch {
		return fault{"jobs would run as root", "start the agent with --bootstrap-script " + launch}
	}
	if h.setup.InArguments("token") {
		return fault{"--token: jobs can read the agent's arguments", "put the token into BUILDKITE_AGENT_TOKEN, or into a file of root's, mode 600"}
	}
	if h.setup.InFile("token") {
		f, _, err := rootfile.Open(h.setup.File, rootfile.Rule{Private: true})
		if err != nil {
			return fmt.Errorf("it holds the agent's token: %w", err)
		}
		f.Close()
	}
	if err := drop.Able(); err != nil {
		return err
	}
	for _, path := range []string{h.agent.Exe, filepath.Join(h.lib, "environment"), filepath.Join(h.lib, "pre-exit")} {
		if err := forAll(path); err != nil {
			return err
		}
	}
	for _, u := range []settings.User{h.config.Users.Trusted, h.config.Users.Other} {
		if _, err := home.Make(u.UID, u.GID); err != nil {
			return err
		}
	}
	return nil
}

// forAll makes sure that every user can run a program. Its path holds no link.
func forAll(path string) error {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fault{fmt.Sprintf("%s: by way of %s: mode %#o: jobs can't run it", path, at, info.Mode().Perm()), "chmod o+x " + at}
		}
		if at == "/" {
			return nil
		}
	}
}
