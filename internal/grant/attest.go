package grant

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/witness"
)

// Ask has the program attest tell what Buildkite's API knows of an undecided case,
// and judges it anew. id is the job's as the agent states it. It takes a second more
// than the deadline at most (witness.Grace), and closes the process to its neighbours
// before it reads the token.
//
// It may wait for a minute, in which a job can be canceled. Then it returns at once,
// so that the credentials are still given up.
func (c Case) Ask(config settings.Settings, uid int, id job.ID, attest string) Case {
	if !c.Undecided {
		return c
	}
	const operator = "the agent's operator mends this; running the job again does not, unless on another agent"
	if err := harden.Process(); err != nil {
		return c.Unattested(err.Error(), operator, true)
	}
	a := config.Attest
	token, err := a.Credential().Word(uid)
	if err != nil {
		hint := operator
		if own := (interface{ Hint() string })(nil); errors.As(err, &own) && own.Hint() != "" {
			hint = own.Hint()
		}
		return c.Unattested(err.Error(), hint, true)
	}
	if c.job.Facts.Organization != a.Organization {
		return c.Unattested("this agent's token is for the organization "+a.Organization, "see how this job was started", false)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	attested, err := witness.Ask(ctx, attest, witness.Question{
		URL: a.URL, Roots: a.Roots, Token: token, PerMinute: a.PerMinute, LimitFile: a.Limit,
		Organization: a.Organization, Pipeline: c.job.Facts.Pipeline, Number: c.job.BuildNumber, Build: c.job.Build,
		Job: id, Deadline: a.Deadline,
	})
	if refusal := (*witness.Refusal)(nil); errors.As(err, &refusal) {
		hint := refusal.Hint
		if refusal.Outage {
			hint = "run the job again; for the agent's operator: " + hint
		}
		return c.Unattested(refusal.Reason, hint, refusal.Outage)
	} else if err != nil {
		return c.Unattested(err.Error(), operator, true)
	}
	return c.Attested(attested)
}
