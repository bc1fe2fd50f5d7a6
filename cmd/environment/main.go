// Environment is the agent's hook that gives a job its secrets: it opens the
// SECRET_* of a build that may have them, masks the values in the log, and sets
// the variables over the agent's Job API.
//
// In split mode pre-bootstrap has opened them, and this hook takes them over. It
// runs as a static binary in the environment phase, with a job's environment:
// of that nothing but the facts that trust judges reaches a decision, and nothing
// but the agent's own socket is where a value goes.
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

	"github.com/juliagpu/secrets-buildkite-plugin/internal/agentcmd"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/grant"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/isolation"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

// The statuses of the hook, which become the job's.
const (
	statusGo      = 0  // each sealed value was delivered or withheld
	statusRefused = 1  // a commit made a sealed value wrong
	statusMachine = 75 // the machine is at fault (EX_TEMPFAIL, sysexits.h): a retry may help
)

// What the job sees beside its secrets.
const (
	varOutcome = "JULIAGPU_SECRETS"       // granted, withheld or none
	varNames   = "JULIAGPU_SECRETS_NAMES" // of the granted variables, separated by blanks
	varRetry   = "JULIAGPU_SECRETS_RETRY" // 1 where the same job may get later what it does not get now; else not set
)

func main() {
	// The hook lives for milliseconds: collecting garbage costs more than it frees,
	// until there is much of it.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(10 << 20)
	os.Exit(run(os.Args, os.Environ(), os.Stdout))
}

// run is the whole hook. It prints one log group and returns the status.
func run(args, environ []string, stdout io.Writer) int {
	started := time.Now()
	log := &report{}
	status := hook(args, environ, log)
	log.print(stdout, status, time.Since(started))
	if len(log.missing) > 0 {
		annotate(environ, log.annotation(), stdout)
	}
	return status
}

const hintWishes = "plugin.yml of the plugin lists what it takes"

// hook takes over what pre-bootstrap opened, split mode, or does everything in this
// one process, direct mode: then the identity is opened with the job's user, which
// is why the operator has to state a reason for it.
func hook(args, environ []string, log *report) (status int) {
	// First: where the job's environment has settings for Go's runtime, this
	// starts the hook anew without them.
	if err := harden.CleanRuntime(args, environ); err != nil {
		return log.machine(err, "")
	}
	theJob := job.Parse(environ)
	wishes, wishErr := wish.Find(theJob.Plugins), error(nil)
	var required wish.Wishes // at agent level the plugin's own hook checks them
	// An argument and not BUILDKITE_HOOK_SCOPE, which the agent does not set for
	// hooks that are shell scripts: there it is the pipeline's.
	if len(args) == 2 && args[1] == "plugin" {
		wishes, wishErr = wish.Parse(theJob.PluginConfig)
		required = wishes
		// The agent's own hook, or an earlier entry of the plugin, has done the
		// work: never twice, since by now the sealed values are emptied.
		if wishErr == nil && job.Lookup(environ, varOutcome) != "" {
			log.outage = job.Lookup(environ, varRetry) != ""
			return log.require(required.Missing(strings.Fields(job.Lookup(environ, varNames))))
		}
	}

	config, err := loadSettings(log)
	switch {
	case errors.Is(err, settings.ErrNone):
		results := unseal.Withhold(theJob.Sealed, "this agent has no configuration",
			"the agent's operator writes /etc/juliagpu-secrets/config.yml, see the README, \"Run an agent\"")
		return deliver(connect(environ), required, results, log)
	case err != nil:
		// Without it nobody knows which identity to give up, so no job may start.
		return log.machine(err, "the agent's operator corrects it; until then no job starts here")
	}
	defer func() {
		if recover() != nil { // no stack, which could show a value
			err := errors.New("a bug stopped this hook")
			if config.Mode == settings.Direct {
				err = errors.Join(err, grant.GiveUp(config))
			}
			status = log.machine(err, "please report it: SECURITY.md of juliagpu/secrets says how")
		}
	}()
	if config.Mode == settings.Split {
		return takeOver(config, theJob, required, wishErr, environ, log)
	}

	judged := grant.Judge(theJob, wishes, config.Rules)
	if judged.Wanted() || judged.Undecided {
		// Before anything is opened: a neighbour who can read this container would have it.
		if reason, hint := isolation.Why(isolation.Early(config, environ)); reason != "" {
			judged.Withhold(reason, hint)
		}
	}
	judged = ask(judged, config, environ)
	keys, err := judged.Keys(config, os.Getuid())
	switch {
	case err != nil:
		return log.machine(err, "")
	case wishErr != nil: // only now: even a step that is wrong must not reach an identity
		return log.refuse(wishErr, hintWishes)
	}
	api := connect(environ)
	results := judged.Open(keys, config, time.Now(), api.mask)
	log.outage = judged.Outage
	return deliver(api, required, results, log)
}

// ask has Buildkite's API attest an undecided job, direct mode.
func ask(judged grant.Case, config settings.Settings, environ []string) grant.Case {
	if !judged.Undecided {
		return judged
	}
	id, err := job.StatedID(environ)
	if err != nil {
		return judged.Unattested(err.Error(), "the agent sets "+job.VarEnvFile+" for each hook; see what stands between it and this one", false)
	}
	executable, err := os.Executable()
	if err != nil {
		return judged.Unattested(err.Error(), "the agent's operator installs the hooks anew", true)
	}
	return judged.Ask(config, os.Getuid(), id, filepath.Join(filepath.Dir(executable), "attest"))
}

// loadSettings reads the operator's configuration, and notes what every job has
// to say about it.
func loadSettings(log *report) (settings.Settings, error) {
	config, err := settings.Installed(os.Getuid())
	if err != nil {
		return settings.Settings{}, err
	}
	if config.Mode == settings.Split {
		return config, nil // pre-bootstrap says what there is to say
	}
	log.note("mode direct: %s", config.Reason)
	if !config.Consume {
		log.note("the identity is not consumed: jobs on this agent can read it")
		if config.Rules.Attest {
			log.note("nor is the API token: jobs on this agent can read it")
		}
	}
	if config.Isolation.Expect == settings.Host {
		log.note("isolation expected of the host: %s", config.Isolation.Reason)
	}
	if config.Changeable || os.Getuid() == 0 {
		log.note("the configuration or this hook belongs to the user that jobs run as: they can change it")
	}
	return config, nil
}

// annotate puts the text on the build's page. It is an extra: the log has it, too.
func annotate(environ []string, text string, stdout io.Writer) {
	err := agentcmd.Run(environ, strings.NewReader(text), "", "annotate", "--style", "error", "--context", "juliagpu-secrets-"+job.Lookup(environ, job.VarID))
	if err != nil {
		fmt.Fprintln(stdout, "no annotation: the agent did not take it")
	}
}
