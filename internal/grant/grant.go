// Package grant works out what each sealed value of a job comes to: the way from
// facts to plaintext, for whichever hook goes it.
package grant

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

// A Case is a job that was judged, and the values that may be opened for it.
type Case struct {
	// Verdict is trust's on the build, whatever may be opened.
	Verdict trust.Verdict

	facts        job.Facts
	open         []job.Sealed
	keep         []job.Sealed
	reason, hint string // for what is kept
	all          bool   // is kept
}

// Judge decides which sealed values of a job may be opened: none where the build
// is not trusted, and where a step only uploads a pipeline those that it lists.
func Judge(theJob job.Job, wishes wish.Wishes, rules trust.Rules) Case {
	c := Case{Verdict: trust.Decide(theJob.Facts, nil, rules), facts: theJob.Facts, open: theJob.Sealed}
	if !c.Verdict.Trusted {
		c.Withhold(c.Verdict.Reason, c.Verdict.Hint)
	} else if theJob.Upload {
		c.open, c.keep = split(theJob.Sealed, wishes)
		c.reason = "this step only uploads a pipeline, where $NAME would be replaced by the secret and stored"
		c.hint = "write $$NAME in the pipeline; a step that needs it all the same lists it for this plugin, under optional"
	}
	return c
}

// split parts the sealed values that a step lists from those that it does not.
func split(sealed []job.Sealed, wishes wish.Wishes) (listed, others []job.Sealed) {
	for _, s := range sealed {
		name := strings.TrimPrefix(s.Variable, names.Prefix)
		if wishes.Lists(name) || wishes.Lists(strings.TrimSuffix(name, names.SealedSuffix)) {
			listed = append(listed, s)
		} else {
			others = append(others, s)
		}
	}
	return listed, others
}

// Withhold keeps every value back, whatever was decided. The first reason stays.
func (c *Case) Withhold(reason, hint string) {
	if c.all {
		return
	}
	c.keep, c.open = slices.Concat(c.open, c.keep), nil
	slices.SortFunc(c.keep, func(a, b job.Sealed) int { return strings.Compare(a.Variable, b.Variable) })
	c.reason, c.hint, c.all = reason, hint, true
}

// Reason says why every value is kept back, or nothing.
func (c Case) Reason() (reason, hint string) {
	if !c.all {
		return "", ""
	}
	return c.reason, c.hint
}

// Wanted tells whether there is a value to open.
func (c Case) Wanted() bool { return unseal.AnySealed(c.open) }

// Identities loads the identities if they are wanted, and gives their files up
// where the operator said so: for every job, whether it gets secrets or not. It
// closes the process to its neighbours first.
func (c Case) Identities(config settings.Settings, uid int) ([]identity.Identity, error) {
	var identities []identity.Identity
	var loadErr error
	if c.Wanted() {
		if loadErr = harden.Process(); loadErr == nil {
			identities, loadErr = identity.Load(config.Identities, uid)
		}
	}
	if err := GiveUp(config); err != nil {
		return nil, errors.Join(err, loadErr)
	}
	return identities, loadErr
}

// GiveUp gives the identities' files up where the operator said so.
func GiveUp(config settings.Settings) error {
	if !config.Consume {
		return nil
	}
	return credential.GiveUp(config.Credentials())
}

// Open opens what may be opened, and calls granted as unseal.OpenEach does.
func (c Case) Open(identities []identity.Identity, config settings.Settings, now time.Time, granted func([]envelope.Variable)) []unseal.Result {
	results := unseal.OpenEach(c.open, c.facts, unseal.Policy{
		Identities: identities, ScopeAny: config.ScopeAny, Rules: config.Rules, Now: now,
	}, granted)
	return append(results, unseal.Withhold(c.keep, c.reason, c.hint)...)
}
