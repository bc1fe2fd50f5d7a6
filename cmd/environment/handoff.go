package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/grant"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/handoff"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

// takeOver delivers what pre-bootstrap opened, split mode. It opens nothing itself.
func takeOver(config settings.Settings, theJob job.Job, required wish.Wishes, wishErr error, environ []string, log *report) int {
	if err := harden.Process(); err != nil {
		return log.machine(err, "")
	}
	id, err := job.StatedID(environ)
	if err != nil {
		return log.machine(err, "the agent sets "+job.VarEnvFile+" for each hook; see what stands between it and this one")
	}
	var store handoff.Store
	if (config.Users == settings.Users{}) {
		store.By = os.Getuid()
	}
	text, err := store.Take(id)
	if err != nil {
		return log.machine(err, "")
	}
	left, err := grant.ParseAnswer(text)
	switch {
	case err != nil:
		return log.machine(fmt.Errorf("%s: %w", store.Path(id), err), "the agent's operator installs all hooks from one release")
	case left.Job != id:
		return log.machine(fmt.Errorf("%s: it is for job %s", store.Path(id), left.Job), "two agents must not share one folder of hand-offs")
	}
	log.notes = append(log.notes, left.Notes...)
	switch {
	case left.Fault != nil:
		return log.machine(errors.New(left.Fault.Text), left.Fault.Hint)
	case wishErr != nil:
		return log.refuse(wishErr, hintWishes)
	}
	results := reconcile(left, theJob)
	log.outage = left.Outage
	api := connect(environ)
	for _, r := range results {
		api.mask(r.Set)
	}
	return deliver(api, required, results, log)
}

// reconcile compares what pre-bootstrap read in the agent's file with what the job
// has come to since. It can only withhold: a name in that file may have forged a
// line, but in the job's environment it shows.
func reconcile(left grant.Answer, theJob job.Job) []unseal.Result {
	results := left.Results
	stated := theJob.Facts.Stated()
	for _, name := range slices.Sorted(maps.Keys(stated)) {
		if left.Facts[name] == stated[name] {
			continue
		}
		for i, r := range results {
			if r.Outcome == unseal.Granted {
				results[i] = unseal.Result{Variable: r.Variable, Outcome: unseal.Withheld, Loud: true,
					Reason: fmt.Sprintf("%s is not what it was before the job began", name), Hint: "see who sets it in this job"}
			}
		}
		break
	}
	reason, hint := left.Reason, left.Hint
	if reason == "" {
		reason, hint = "it was not in the job's environment before the job began", "see who sets it in this job"
	}
	var unseen []job.Sealed
	for _, s := range theJob.Sealed {
		if !slices.ContainsFunc(results, func(r unseal.Result) bool { return r.Variable == s.Variable }) {
			unseen = append(unseen, s)
		}
	}
	return append(results, unseal.Withhold(unseen, reason, hint)...)
}
