// Launch is the agent's bootstrap script on agents that run forks. The agent
// starts it as root with a job's environment; it gives up root for the user whom
// pre-bootstrap chose for the job, and becomes the agent's own bootstrap.
//
// Nothing of the job's environment reaches a decision but the id that the agent
// states. Which user it is says the owner of the job's hand-off, a directory that
// pre-bootstrap left; what that holds launch does not read. The process stays one
// and the same, so the agent's signals and the job's status need nobody in between.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/agent"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/drop"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/handoff"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/jobfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// The statuses of a job that does not start.
const (
	statusRefused = 1  // the job's own environment is at fault
	statusMachine = 75 // the machine is (EX_TEMPFAIL, sysexits.h): a retry may help
)

func main() {
	environ, err := environ()
	if err != nil {
		os.Exit(report(os.Stdout, err))
	}
	os.Exit(run(os.Args, environ, os.Stdout))
}

// run returns where the bootstrap could not be started: it says so in the job's
// log, and returns the job's status.
func run(args, environ []string, stdout io.Writer) int {
	return report(stdout, launch(args, environ))
}

// A refusal is an error with what it takes to mend it.
type refusal struct {
	status int
	err    error
	hint   string
}

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }
func (r refusal) Hint() string  { return r.hint }

func report(w io.Writer, err error) (status int) {
	status, hint := statusMachine, ""
	if r := (refusal{}); errors.As(err, &r) {
		status = r.status
	}
	if own := (interface{ Hint() string })(nil); errors.As(err, &own) {
		hint = own.Hint()
	}
	if hint == "" {
		hint = "the agent's operator can mend this; running the job again does not, unless on another agent"
	}
	fmt.Fprintf(w, "+++ :key: Secrets\nlaunch: error: the job can't start: %s\nlaunch: hint: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "), hint)
	return status
}

// machine is an error that is the machine's fault.
func machine(hint, format string, args ...any) error {
	return refusal{statusMachine, fmt.Errorf(format, args...), hint}
}

// launch returns only if it fails.
func launch(args, environ []string) error {
	// First: root obeys no setting that a job has for Go's runtime. They are the
	// job's own, though, and the agent's bootstrap gets them again: as arguments,
	// in which no job can put anything.
	aside := args[1:]
	if len(harden.RuntimeVariables(aside)) != len(aside) {
		return machine("in the agent's configuration write bootstrap-script="+args[0]+" and nothing behind it", "it takes no arguments")
	}
	again := append([]string{args[0]}, harden.RuntimeVariables(environ)...)
	if err := harden.CleanRuntime(again, environ); err != nil {
		return err
	}
	if os.Getuid() != 0 || os.Geteuid() != 0 {
		return machine("start the agent as root, or take bootstrap-script out of its configuration", "the agent that started it is not root's")
	}
	syscall.Umask(0o022)

	config, err := settings.Installed(0)
	if err != nil {
		return err
	}
	if config.Users == (settings.Users{}) {
		return machine("name them under users, or take bootstrap-script out of the agent's configuration", "%s: names no users for jobs", config.Path)
	}
	if names := forged(environ); len(names) > 0 {
		return refusal{statusRefused,
			fmt.Errorf("what the agent says in %s may be the job's own", strings.Join(names, ", ")),
			"take variables whose name holds = or a line break out of the pipeline's env"}
	}
	parent, err := agent.Parent(rootfile.Rule{})
	if err != nil {
		return err
	}
	id, err := job.StatedID(environ)
	if err != nil {
		return err
	}
	var store handoff.Store
	uid, err := store.Owner(id)
	if err != nil {
		return err
	}
	who, err := pick(config.Users, uid)
	if err != nil {
		return machine("pre-bootstrap and launch read the same configuration: was it changed just now?", "%s: %w", store.Path(id), err)
	}
	dirs, err := home.Make(who.UID, who.GID)
	if err != nil {
		return err
	}
	hooks, err := hooksPath()
	if err != nil {
		return err
	}
	groups, err := gpuGroups()
	if err != nil {
		return err
	}
	set := variables(dirs, parent, hooks, who.UID, job.Lookup(environ, "BUILDKITE_GIT_MIRRORS_PATH") != "")
	if job.Lookup(environ, "JULIA_DEPOT_PATH") == "" {
		// Julia's own is below HOME, of which nothing is kept. Behind the colon come
		// the depots that Julia brings along.
		set["JULIA_DEPOT_PATH"] = dirs.Cache + "/julia:"
	}
	environ = change(append(environ, aside...), set)

	giveStreams(who.UID, who.GID)
	if err := drop.To(drop.User{UID: who.UID, GID: who.GID, Groups: groups}); err != nil {
		return err
	}
	// Another repository's job may have had them. What it has closed to its own user
	// can't be removed, and must not keep that user's jobs from running for ever.
	_ = jobfile.RemoveLeft()
	if err := leaveBehind(dirs.Builds); err != nil {
		return err
	}
	// For who does not ask for XDG_CACHE_HOME: the Julia plugin keeps its Julia and its
	// depots there. A home that was here before may have a directory of its own.
	_ = os.Symlink(dirs.Cache, filepath.Join(dirs.Home, ".cache"))
	return fmt.Errorf("start %s: %w", parent.Exe, syscall.Exec(parent.Exe, []string{parent.Exe, "bootstrap"}, environ))
}

// pick returns the user that the operator named, and no other.
func pick(users settings.Users, uid int) (settings.User, error) {
	for _, u := range []settings.User{users.Trusted, users.Other} {
		if u.UID == uid && uid != 0 {
			return u, nil
		}
	}
	return settings.User{}, fmt.Errorf("for uid %d, and jobs run as uid %d or %d", uid, users.Trusted.UID, users.Other.UID)
}

// hooksPath returns the folder of hooks beside this program, for which
// agent-startup has made sure that it is the agent's.
func hooksPath() (string, error) {
	executable, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(executable), "hooks"), nil
}

// variables are those that differ for each user, and those by which the
// bootstrap finds the agent's programs: what the agent itself says there is meant
// for root. An empty one is left out of the job's environment.
func variables(dirs home.Home, parent agent.Agent, hooks string, uid int, mirrors bool) map[string]string {
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	set := map[string]string{
		"BUILDKITE_BUILD_PATH": dirs.Builds, "BUILDKITE_PLUGINS_PATH": dirs.Plugins, "BUILDKITE_SOCKETS_PATH": dirs.Sockets,
		"BUILDKITE_HOOKS_PATH": hooks, "BUILDKITE_BIN_PATH": filepath.Dir(parent.Exe),
		"HOME": dirs.Home, "USER": name, "LOGNAME": name, "TMPDIR": dirs.Temp, "PWD": dirs.Builds, "OLDPWD": "",
		"XDG_CACHE_HOME": dirs.Cache, "XDG_RUNTIME_DIR": dirs.Runtime,
		// Their defaults are below HOME; root's own are not for jobs.
		"XDG_CONFIG_HOME": "", "XDG_DATA_HOME": "", "XDG_STATE_HOME": "",
	}
	if mirrors {
		set["BUILDKITE_GIT_MIRRORS_PATH"] = dirs.Mirrors
	}
	return set
}
