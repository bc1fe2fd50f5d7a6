// Package grant works out what each sealed value of a job comes to: the way from
// facts to plaintext, for whichever hook goes it.
package grant

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope/openssl"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

// A Case is a job that was judged, and the values that may be opened for it.
type Case struct {
	// Verdict is trust's on the build, whatever may be opened.
	Verdict trust.Verdict
	// Undecided says that attested facts could turn the verdict, and that there is
	// something to open then: whoever can asks for them.
	Undecided bool
	// Outage says that the values are kept back because nobody could be asked: in a
	// while, or on another agent, the same job may have them.
	Outage bool

	job          job.Job
	wishes       wish.Wishes
	rules        trust.Rules
	open         []job.Sealed
	keep         []job.Sealed
	reason, hint string // for what is kept
	all          bool   // is kept
}

// Judge decides which sealed values of a job may be opened: none where the build
// is not trusted, and where a step only uploads a pipeline those that it lists.
func Judge(theJob job.Job, wishes wish.Wishes, rules trust.Rules) Case {
	c := judge(theJob, wishes, rules, trust.Decide(theJob.Facts, nil, rules))
	if rules.Attest && trust.Claimed(theJob.Facts, rules).Trusted {
		open, _ := listed(theJob, wishes)
		c.Undecided = unseal.AnySealed(open)
		if !c.Undecided {
			c.Verdict.Reason = "nobody asks Buildkite's API for a job that has nothing to open"
			c.reason, c.hint = onlyUploads, onlyUploadsHint // for what it has all the same
		}
	}
	return c
}

const (
	onlyUploads     = "this step only uploads a pipeline, where $NAME would be replaced by the secret and stored"
	onlyUploadsHint = "write $$NAME in the pipeline; a step that needs it all the same lists it for this plugin, under optional"
)

// Attested judges the case anew, with what Buildkite's API says.
func (c Case) Attested(a *trust.Attestation) Case {
	return judge(c.job, c.wishes, c.rules, trust.Decide(c.job.Facts, a, c.rules))
}

// Unattested says why nobody could tell, for the values that are kept back. outage: it
// is not the build's fault.
func (c Case) Unattested(reason, hint string, outage bool) Case {
	c.Verdict.Reason = "Buildkite's API does not attest this build: " + reason
	if outage {
		c.Verdict.Reason = "Buildkite's API could not be asked: " + reason
	}
	c.reason, c.hint, c.Undecided, c.Outage = c.Verdict.Reason, hint, false, outage
	return c
}

func judge(theJob job.Job, wishes wish.Wishes, rules trust.Rules, verdict trust.Verdict) Case {
	c := Case{Verdict: verdict, job: theJob, wishes: wishes, rules: rules, open: theJob.Sealed}
	if !verdict.Trusted {
		c.Withhold(verdict.Reason, verdict.Hint)
		return c
	}
	c.open, c.keep = listed(theJob, wishes)
	c.reason, c.hint = onlyUploads, onlyUploadsHint
	return c
}

// listed parts the sealed values that a trusted job's step may have from those that
// it would have to list first.
func listed(theJob job.Job, wishes wish.Wishes) (open, keep []job.Sealed) {
	if !theJob.Upload {
		return theJob.Sealed, nil
	}
	for _, s := range theJob.Sealed {
		name := strings.TrimPrefix(s.Variable, names.Prefix)
		if wishes.Lists(name) || wishes.Lists(strings.TrimSuffix(name, names.SealedSuffix)) {
			open = append(open, s)
		} else {
			keep = append(keep, s)
		}
	}
	return open, keep
}

// Withhold keeps every value back, whatever was decided, and whatever anybody could
// attest. The first reason stays.
func (c *Case) Withhold(reason, hint string) {
	if c.all && !c.Undecided {
		return
	}
	c.Undecided = false
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

// Keys are what values are opened with.
type Keys struct {
	Identities []identity.Identity
	Older      *openssl.Key // nil: none is configured, or nothing is sealed for it
}

// Keys loads what is wanted, and gives the operator's credentials up where the
// operator said so: for every job, whether it gets secrets or not. It closes the
// process to its neighbours first.
func (c Case) Keys(config settings.Settings, uid int) (Keys, error) {
	var keys Keys
	var loadErr error
	if c.Wanted() {
		if loadErr = harden.Process(); loadErr == nil {
			keys, loadErr = c.load(config, uid)
		}
	}
	if err := GiveUp(config); err != nil {
		return Keys{}, errors.Join(err, loadErr)
	}
	return keys, loadErr
}

func (c Case) load(config settings.Settings, uid int) (keys Keys, err error) {
	if keys.Identities, err = identity.Load(config.Identities, uid); err != nil {
		return Keys{}, err
	}
	older := func(s job.Sealed) bool {
		form := envelope.FormOf(s.Text)
		return form == envelope.FormRSA || form == envelope.FormRSAHybrid
	}
	if config.Older.Key == "" || !slices.ContainsFunc(c.open, older) {
		return keys, nil
	}
	if keys.Older, err = OlderKey(config, uid); err != nil {
		return Keys{}, err
	}
	return keys, nil
}

// OlderKey loads the key of the older forms. Its errors are credential.File's, or wrap
// openssl.ErrKey.
func OlderKey(config settings.Settings, uid int) (*openssl.Key, error) {
	const most = 16 << 10 // bytes, of a file of 2
	text, err := config.Older.Credential().Read(uid, most)
	if err != nil {
		return nil, err
	}
	key, err := openssl.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("RSA key %s: %w", config.Older.Key, err)
	}
	return key, nil
}

// GiveUp gives the operator's credentials up where the operator said so.
func GiveUp(config settings.Settings) error {
	if !config.Consume {
		return nil
	}
	return credential.GiveUp(config.Credentials())
}

// Open opens what may be opened, and calls granted as unseal.OpenEach does.
func (c Case) Open(keys Keys, config settings.Settings, now time.Time, granted func([]envelope.Variable)) []unseal.Result {
	results := unseal.OpenEach(c.open, c.job.Facts, unseal.Policy{
		Identities: keys.Identities, Older: keys.Older, Serves: config.Older.Serves, ScopeAny: config.ScopeAny, Rules: config.Rules, Now: now,
	}, granted)
	kept := unseal.Withhold(c.keep, c.reason, c.hint)
	for i := range kept {
		kept[i].Loud = c.Outage && kept[i].Outcome == unseal.Withheld
	}
	return append(results, kept...)
}
