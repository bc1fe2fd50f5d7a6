// Package isolation judges the container that this process is in by the
// operator's configuration: it joins settings and gpu for every program that has
// to know before it goes on.
package isolation

import (
	"errors"
	"os"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu/observe"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// An Ask says who wants to know, and what for.
type Ask struct {
	Environ []string // of a few names in it the report gives advice; no verdict rests on it
	Step    gpu.Step
	Advice  bool // a plugin's own check: nothing but the step's demands refuses
	Early   bool // only what matters before secrets are opened
	All     bool // ask nvidia-smi whether the policy wants it or not
}

// A Result is what was seen, and what it comes to.
type Result struct {
	Report gpu.Report
	Facts  gpu.Facts
	Took   time.Duration
}

// Check measures this machine and judges it by the configuration that was loaded,
// or by the error that this gave. Without any configuration a container is
// expected, and the policy is in its default place or nowhere.
func Check(config settings.Settings, configErr error, ask Ask) Result {
	started := time.Now()
	demand := gpu.Demand{Step: ask.Step, Advice: ask.Advice, Early: ask.Early, Now: started}
	switch {
	case configErr == nil:
		user := 0
		if config.Mode == settings.Direct {
			user = os.Getuid()
		}
		demand.Settled = config.Mode == settings.Direct || config.Users != settings.Users{}
		demand.Policy, demand.PolicyError = config.Policy(user)
		demand.Waivers = config.Waivers
		if config.Isolation.Expect == settings.Host {
			demand.Host = config.Isolation.Reason
		}
	case errors.Is(configErr, settings.ErrNone):
		demand.Policy, demand.PolicyError = settings.DefaultPolicy(0)
	default:
		demand.PolicyError = configErr
	}
	if demand.Early && demand.Host != "" && demand.Policy == nil && demand.PolicyError == nil {
		return Result{Took: time.Since(started)} // nothing that could refuse
	}
	want := demand.Want()
	want.SMI = want.SMI || ask.All
	host, done := observe.Machine(ask.Environ)
	defer done()
	facts := observe.Facts(host, demand.Policy, want)
	report := gpu.Check(facts, demand)
	return Result{report, facts, time.Since(started)}
}

// Early makes the checks that matter before a secret is opened. A status other
// than 0 means that nothing may be opened here.
func Early(config settings.Settings, environ []string) gpu.Report {
	return Check(config, nil, Ask{Environ: environ, Early: true}).Report
}

// Why says in a sentence each why a report keeps secrets closed, and what to do.
// Both are empty where it does not.
func Why(r gpu.Report) (reason, hint string) {
	f, ok := r.First()
	if !ok {
		return "", ""
	}
	return "no secret is opened in this container: " + f.ID + ": " + f.What,
		"the group GPU isolation of this log says what the agent's operator changes; " + f.Link()
}
