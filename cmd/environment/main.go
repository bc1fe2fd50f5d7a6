// Environment is the agent's hook that gives a job its secrets: it opens the
// SECRET_* of a build that may have them, masks the values in the log, and sets
// the variables over the agent's Job API.
//
// It runs as a static binary in the environment phase, with a job's environment:
// of that nothing but the facts that trust judges reaches a decision, and nothing
// but the agent's own socket is where a value goes.
package main

import (
	"errors"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/jobenv"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
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
)

func main() {
	// The hook lives for milliseconds: collecting garbage costs more than it frees.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(128 << 20)
	os.Exit(run(os.Args, os.Environ(), os.Stdout))
}

// run is the whole hook. It prints one log group and returns the status.
func run(args, environ []string, stdout io.Writer) int {
	started := time.Now()
	log := &report{}
	status := direct(args, environ, log)
	log.print(stdout, status, time.Since(started))
	return status
}

// direct does everything in this one process: the identity is opened here, with
// the job's user, which is why the operator has to state a reason for it.
func direct(args, environ []string, log *report) int {
	// First: where the job's environment has settings for Go's runtime, this
	// starts the hook anew without them.
	if err := harden.CleanRuntime(args, environ); err != nil {
		return log.machine(err, "")
	}
	theJob, err := job.Parse(environ)
	if err != nil {
		return log.machine(err, "")
	}
	executable, err := os.Executable()
	if err != nil {
		return log.machine(err, "")
	}
	config, err := loadSettings(executable, log)
	switch {
	case errors.Is(err, settings.ErrNone):
		results := unseal.Withhold(theJob.Sealed, "this agent has no configuration",
			"the agent's operator writes /etc/juliagpu-secrets/config.yml, see the README, \"Run an agent\"")
		return deliver(environ, results, log)
	case err != nil:
		// Without it nobody knows which identity to give up, so no job may start.
		return log.machine(err, "the agent's operator corrects it; until then no job starts here")
	}

	verdict := trust.Decide(theJob.Facts, nil, config.Rules)
	if verdict.Trusted && theJob.Upload {
		verdict = trust.Verdict{
			Reason: "this step only uploads a pipeline, where $NAME would be replaced by the secret and stored",
			Hint:   "write $$NAME in the pipeline, and have the secret in the step that uses it",
		}
	}
	wanted := verdict.Trusted && unseal.AnySealed(theJob.Sealed)
	identities, err := takeIdentities(config, wanted)
	if err != nil {
		return log.machine(err, "")
	}
	var results []unseal.Result
	if wanted {
		results = unseal.Open(theJob.Sealed, theJob.Facts, unseal.Policy{
			Identities: identities, ScopeAny: config.ScopeAny, Rules: config.Rules, Now: time.Now(),
		})
	} else {
		results = unseal.Withhold(theJob.Sealed, verdict.Reason, verdict.Hint)
	}
	return deliver(environ, results, log)
}

// loadSettings reads the operator's configuration, and notes what every job has
// to say about it.
func loadSettings(executable string, log *report) (settings.Settings, error) {
	path, err := settings.Find(executable)
	if err != nil {
		return settings.Settings{}, err
	}
	config, err := settings.Load(path, os.Getuid())
	if err != nil {
		return settings.Settings{}, err
	}
	binary, err := rootfile.Check(executable, rootfile.Rule{User: os.Getuid()})
	if err != nil {
		return settings.Settings{}, err
	}
	log.note("mode direct: %s", config.Reason)
	if config.Isolation.Expect == settings.Host {
		log.note("isolation expected of the host: %s", config.Isolation.Reason)
	}
	if config.Changeable || binary.Changeable || os.Getuid() == 0 {
		log.note("the configuration or this hook belongs to the user that jobs run as: they can change it")
	}
	return config, nil
}

// takeIdentities loads the identities if they are wanted, and gives their files
// up where the operator said so: for every job, whether it gets secrets or not.
func takeIdentities(config settings.Settings, wanted bool) ([]identity.Identity, error) {
	var identities []identity.Identity
	var loadErr error
	if wanted {
		if loadErr = harden.Process(); loadErr == nil {
			identities, loadErr = identity.Load(config.Identities, os.Getuid())
		}
	}
	if config.Consume {
		if err := identity.Consume(config.Identities); err != nil {
			return nil, errors.Join(err, loadErr)
		}
	}
	return identities, loadErr
}

// deliver sets what was granted, all or nothing, and what the job sees in any case.
func deliver(environ []string, results []unseal.Result, log *report) int {
	log.results = results
	granted, withheld, refused, set := unseal.AllOrNone(results)
	if refused > 0 {
		return statusRefused
	}
	delivery := jobenv.Delivery{Plain: map[string]string{varOutcome: "none", varNames: ""}}
	if withheld > 0 {
		delivery.Plain[varOutcome] = "withheld"
	}
	for _, r := range results {
		// A variable of the job's environment can't be taken back, only emptied.
		if r.Sealed() && utf8.ValidString(r.Variable) {
			delivery.Plain[r.Variable] = ""
		}
		delivery.Secrets = append(delivery.Secrets, r.Set...)
	}
	if set {
		delivery.Plain[varOutcome] = "granted"
		delivery.Plain[varNames] = strings.Join(names(delivery.Secrets), " ")
	}
	unmasked, err := send(environ, delivery)
	if err != nil && granted > 0 {
		return log.machine(err, hintAPI(err))
	}
	if err != nil && withheld > 0 {
		log.note("%s and the sealed values stay in the environment as they are: %s", varOutcome+" is not set,", err)
	}
	if unmasked != "" {
		log.note("not masked in the log: %s", unmasked)
	}
	return statusGo
}

func send(environ []string, delivery jobenv.Delivery) (unmasked string, err error) {
	client, err := jobenv.Dial(jobenv.AddressFrom(environ))
	if err != nil {
		return "", err
	}
	defer client.Close()
	return client.Deliver(delivery)
}

func hintAPI(err error) string {
	switch {
	case errors.Is(err, jobenv.ErrNoAPI):
		return "agents from 3.64 on have the Job API, older ones with --experiment=job-api; a pipeline must not set " + jobenv.VarNoAPI
	case errors.Is(err, jobenv.ErrNotTheAgent):
		return "nothing was sent; see who sets " + jobenv.VarSocket + " in this job"
	}
	return "run the job again; if it fails again, see the agent's log"
}

func names(vars []envelope.Variable) []string {
	var names []string
	for _, v := range vars {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names
}
