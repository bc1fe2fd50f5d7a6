// Pre-bootstrap is the agent's hook that opens a job's secrets before a process of
// the job exists, with the agent's privilege and the agent's own environment: split
// mode. It leaves them in a hand-off, for environment to take as the job's user.
//
// The agent starts it before each job, and starts no job for which its status is
// not 0. So status 0 says: the identity is given up, and a hand-off is there, even
// if only to say why the job has nothing. In direct mode it opens nothing, and
// rejects what the operator wants rejected.
//
// It is installed by a file of one line, #!/usr/lib/juliagpu-secrets/pre-bootstrap:
// agents hand a binary there to a shell.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/grant"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/handoff"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/isolation"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/kept"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/leftover"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

// The statuses of the hook. The agent tells them apart only in its log.
const (
	statusGo      = 0  // the job may start
	statusReject  = 1  // this job must not
	statusMachine = 75 // no job can, here (EX_TEMPFAIL, sysexits.h)
)

// timeout is how long the hook may take, besides what the operator gives Buildkite's
// API. The agent sets it none, and does not see a canceled job before it ends.
const timeout = 20 * time.Second

func main() {
	debug.SetGCPercent(-1) // as in environment
	debug.SetMemoryLimit(10 << 20)
	os.Exit(run(os.Args, os.Environ(), os.Stdout))
}

// run is the whole hook. What it prints goes to the agent's log.
func run(args, environ []string, stdout io.Writer) int {
	h := &hook{log: stdout, environ: environ, uid: os.Getuid()}
	h.endAfter(timeout, os.Exit)
	if err := harden.CleanRuntime(args, environ); err != nil {
		return h.fail(err, "")
	}
	var err error
	h.config, err = settings.Installed(h.uid)
	switch {
	case errors.Is(err, settings.ErrNone): // and so nobody opens anything
		fmt.Fprintln(h.log, "pre-bootstrap: this agent has no configuration: nothing is opened")
		return statusGo
	case err != nil:
		return h.fail(err, "correct it; until then no job starts here")
	}
	return h.run()
}

// A hook is one run of pre-bootstrap.
type hook struct {
	log     io.Writer
	environ []string
	uid     int
	config  settings.Settings
	end     *time.Timer
	gaveUp  bool // the identity, or tried to
}

// endAfter ends the program, whatever hangs: a mount or a device may. No job
// starts then, and what is half done nobody but us can reach.
func (h *hook) endAfter(d time.Duration, exit func(int)) {
	h.end = time.AfterFunc(d, func() {
		exit(h.fail(errors.New("no end in time"), "see what this machine waits for"))
	})
}

// run lets the job start, or not.
func (h *hook) run() (status int) {
	// The identity is given up for jobs that are rejected, too.
	defer func() {
		if recover() != nil { // no stack, which could show a value
			status = h.fail(errors.New("a bug stopped this hook"), "please report it: SECURITY.md of juliagpu/secrets says how")
		}
		if status != statusGo && !h.gaveUp {
			if err := grant.GiveUp(h.config); err != nil {
				h.fail(err, "")
			}
		}
	}()
	id, environment, err := envfile.Read(h.environ)
	if err != nil {
		return h.fail(err, "this hook is for agents from 3.66 on, which set "+job.VarEnvFile)
	}
	theJob := job.Parse(environment.Vars)
	theJob.Facts.Doubt = environment.Doubt
	if reason := rejection(environment, theJob.Facts, h.config); reason != "" {
		fmt.Fprintf(h.log, "pre-bootstrap: job %s rejected: %s\n", id, reason)
		return statusReject
	}
	if h.config.Mode != settings.Split {
		return statusGo
	}
	return h.open(id, theJob)
}

// open leaves a hand-off for the job.
func (h *hook) open(id job.ID, theJob job.Job) int {
	own := h.config.Users != settings.Users{}
	var store handoff.Store
	if !own {
		store.By = h.uid
	}
	// Before anything else: what an earlier job did not take.
	switch err := store.Sweep(); {
	case errors.Is(err, handoff.ErrUntrusted): // the folder itself
		return h.fail(err, "")
	case err != nil: // nobody else can reach what is left
		h.warn(err)
	}
	judged := grant.Judge(theJob, wish.Find(theJob.Plugins), h.config.Rules)
	h.isolation(&judged)
	notes, err := h.fresh(store, &judged)
	if err != nil {
		return h.fail(err, "")
	}
	if judged, err = h.ask(judged, id); err != nil {
		return h.fail(err, "")
	}
	user := h.user(judged)
	if own {
		// Without caches a job is slow, and else as it is with them.
		if err := kept.Lend(user.UID, kept.Of(theJob.Facts, judged.Verdict.Trusted)); err != nil {
			h.warn(fmt.Errorf("caches: %w", err))
		}
	}
	if !h.config.Consume {
		// They stay, beside this job too, whether it gets secrets or not: its own
		// early processes must not find one that everybody can read.
		if err := credential.Check(h.config.Credentials(), h.uid); err != nil {
			return h.fail(err, "")
		}
	}
	left := grant.Answer{Job: id, Facts: theJob.Facts.Stated(), Notes: notes}
	h.leftover(&judged, user)

	keys, err := judged.Keys(h.config, h.uid)
	h.gaveUp = true
	switch resists := (*credential.KeptError)(nil); {
	case errors.As(err, &resists):
		return h.fail(err, "")
	case err != nil:
		h.warn(err)
		left.Fault = &grant.Fault{Text: err.Error(), Hint: hint(err)}
	default:
		left.Results = judged.Open(keys, h.config, time.Now(), func([]envelope.Variable) {})
		left.Reason, left.Hint = judged.Reason()
		left.Outage = judged.Outage
	}
	text, err := left.Marshal()
	if err == nil {
		err = store.Leave(id, text, user)
	}
	if err != nil {
		return h.fail(err, "")
	}
	h.say(left, judged)
	return statusGo
}

// user returns the user that the job runs as.
func (h *hook) user(judged grant.Case) handoff.User {
	if (h.config.Users == settings.Users{}) {
		return handoff.User{UID: h.uid, GID: os.Getgid()}
	}
	own := h.config.Users.Of(judged.Verdict.Trusted)
	return handoff.User{UID: own.UID, GID: own.GID}
}

// fresh returns what every job has to say about whom it runs beside. Where jobs have
// no users of their own, what is left for one is within reach of whatever an earlier
// one left running: then nobody is asked, either.
func (h *hook) fresh(store handoff.Store, judged *grant.Case) ([]string, error) {
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if (h.config.Users != settings.Users{}) {
		if h.config.Reason != "" {
			note("mode split: %s", h.config.Reason)
		}
	} else {
		first, err := store.First()
		switch {
		case err != nil:
			return nil, err
		case h.config.Reason != "":
			note("mode split, without users of their own for jobs: %s", h.config.Reason)
		case first:
			note("mode split, without users of their own for jobs: the first job in this container")
		default:
			judged.Withhold("jobs on this agent have no users of their own, and this is not the first one here",
				"the agent's operator starts a fresh container for each job, gives jobs users of their own, or writes a reason")
		}
	}
	if h.config.Isolation.Expect == settings.Host {
		note("isolation expected of the host: %s", h.config.Isolation.Reason)
	}
	return notes, nil
}

// isolation looks at the walls around this machine before anything of worth is read:
// a neighbour who can read this container would have it.
func (h *hook) isolation(judged *grant.Case) {
	if !judged.Wanted() && !judged.Undecided {
		return
	}
	if reason, hint := isolation.Why(isolation.Early(h.config, h.environ)); reason != "" {
		judged.Withhold(reason, hint)
	}
}

// ask has Buildkite's API attest an undecided job.
func (h *hook) ask(judged grant.Case, id job.ID) (grant.Case, error) {
	if !judged.Undecided {
		return judged, nil
	}
	executable, err := os.Executable()
	if err != nil {
		return judged, err
	}
	h.end.Reset(timeout + h.config.Attest.Deadline)
	return judged.Ask(h.config, h.uid, id, filepath.Join(filepath.Dir(executable), "attest")), nil
}

// leftover looks for what an earlier job left running. It could take the hand-off.
func (h *hook) leftover(judged *grant.Case, user handoff.User) {
	if !judged.Wanted() {
		return
	}
	if user.UID == h.uid {
		return // as root, or where jobs are the agent's own: ours run, too
	}
	const hint = "the agent's operator ends what runs as the jobs' user, or restarts the machine"
	switch pids, err := leftover.Find(leftover.Proc(), user.UID); {
	case err != nil:
		judged.Withhold(err.Error(), "the agent's operator lets its hooks see every process")
	case len(pids) > 0:
		judged.Withhold(fmt.Sprintf("process %d of the user that jobs run as (uid %d) is left from an earlier job", pids[0], user.UID), hint)
	}
}

// say tells the agent's log what came of the job.
func (h *hook) say(left grant.Answer, judged grant.Case) {
	granted, withheld, refused, _ := unseal.AllOrNone(left.Results)
	verdict := "trusted"
	if !judged.Verdict.Trusted {
		verdict = "not trusted"
	}
	if left.Reason != "" {
		verdict += ", " + left.Reason
	}
	fmt.Fprintf(h.log, "pre-bootstrap: job %s: %s: %d opened, %d withheld, %d refused\n", left.Job, verdict, granted, withheld, refused)
}

// fail prints an error that is the machine's fault, with its own hint or this one.
func (h *hook) fail(err error, remedy string) int {
	h.warn(err)
	if own := hint(err); own != "" {
		remedy = own
	}
	if remedy != "" {
		fmt.Fprintln(h.log, "pre-bootstrap: hint: "+remedy)
	}
	return statusMachine
}

func (h *hook) warn(err error) {
	for text := range strings.SplitSeq(err.Error(), "\n") { // errors may be joined
		fmt.Fprintln(h.log, "pre-bootstrap: error: "+text)
	}
}

func hint(err error) string {
	if own := (interface{ Hint() string })(nil); errors.As(err, &own) {
		return own.Hint()
	}
	return ""
}
