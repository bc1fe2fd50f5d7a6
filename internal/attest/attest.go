// Package attest asks Buildkite's REST API what a job's build is, and what the
// builds are that it came from, to their very beginning.
//
// Where to look the job itself says, and so may say what it likes: what is found
// must hold the id of the job that the agent states. Nothing is attested in part.
package attest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/restapi"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/witness"
)

// Answer answers a question, whatever it holds, within its deadline.
func Answer(ctx context.Context, q witness.Question) witness.Answer {
	var limit restapi.Limit
	if q.PerMinute != 0 {
		limit = restapi.Limit{PerMinute: q.PerMinute, File: q.LimitFile}
	}
	client, err := restapi.New(restapi.Server{URL: q.URL, Roots: q.Roots}, q.Token, limit)
	if err != nil {
		return witness.Answer{Refusal: toRefusal(err)}
	}
	attestation, err := Follow(ctx, client, q)
	if err != nil {
		return witness.Answer{Refusal: toRefusal(err)}
	}
	return witness.Answer{Attestation: attestation}
}

// Follow reads the build of a question, and those that it came from: with one
// request, unless it was triggered or is a rebuild, and at most witness.MaxBuilds.
// The error is a *witness.Refusal.
func Follow(ctx context.Context, client *restapi.Client, q witness.Question) (*trust.Attestation, error) {
	ctx, cancel := context.WithTimeout(ctx, q.Deadline)
	defer cancel()
	own, err := ownPlace(q)
	if err != nil {
		return nil, err
	}
	f := follower{ctx: ctx, client: client, known: make(map[string]build)}
	b, err := f.read(own, url.Values{"job_states[]": {"running", "accepted"}}, q.Job.String())
	if err != nil {
		return nil, toRefusal(err)
	}
	if err := identify(b, own, cmp.Or(q.Build, b.ID)); err != nil {
		return nil, err
	}
	if err := holds(b, own, q.Job); err != nil {
		return nil, err
	}
	f.known[b.ID] = b
	return f.follow(b, own)
}

// A place is where the API has a build.
type place struct{ organization, pipeline, number string }

func (p place) path() string {
	return "organizations/" + p.organization + "/pipelines/" + p.pipeline + "/builds/" + p.number
}

func (p place) slug() string   { return p.organization + "/" + p.pipeline }
func (p place) String() string { return "build " + p.number + " of " + p.slug() }

// ownPlace is where the job says that its build is.
func ownPlace(q witness.Question) (place, error) {
	if !isSlug(q.Organization) {
		return place{}, &witness.Refusal{Reason: "the configured organization makes no sense: " + escape.Text(q.Organization), Hint: "write its slug, as in its address on buildkite.com", Outage: true}
	}
	if !isSlug(q.Pipeline) {
		return place{}, refuse(hintJob, "%s makes no sense: %s", job.VarPipeline, escape.Text(q.Pipeline))
	}
	if !isBuildNumber(q.Number) {
		return place{}, refuse(hintJob, "%s makes no sense: %s", job.VarBuildNumber, escape.Text(q.Number))
	}
	return place{q.Organization, q.Pipeline, q.Number}, nil
}

// isSlug bounds what becomes part of a path.
func isSlug(s string) bool { return names.IsSlug(s) && len(s) <= 200 }

func isBuildNumber(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && isCount(n) && strconv.Itoa(n) == s
}

// isCount accepts the number of a build.
func isCount(n int) bool { return 0 < n && n < 1e9 }

const (
	hintJob    = "see how this job was started"
	hintServer = "see whether the configured server is Buildkite's REST API"
)

// refuse says why a build is not attested, and that it is its own fault. What
// somebody else chose must be escaped.
func refuse(hint, format string, args ...any) error {
	return &witness.Refusal{Reason: fmt.Sprintf(format, args...), Hint: hint}
}

// toRefusal turns restapi's errors.
func toRefusal(err error) *witness.Refusal {
	if own := (*witness.Refusal)(nil); errors.As(err, &own) {
		return own
	}
	if api := (*restapi.Error)(nil); errors.As(err, &api) {
		return &witness.Refusal{Reason: api.Error(), Hint: api.Hint, Outage: api.Outage}
	}
	return &witness.Refusal{Reason: escape.Text(err.Error()), Outage: true}
}

// A follower goes from a build to those that it came from.
type follower struct {
	ctx    context.Context
	client *restapi.Client
	known  map[string]build // that were read, by id
	way    []string         // ids from the job's own build to this one
	count  int              // of builds in the tree, one that stands there twice counts twice
}

func (f *follower) read(at place, query url.Values, job string) (build, error) {
	b := build{Jobs: jobs{want: job}}
	_, err := f.client.Get(f.ctx, at.path(), query, &b)
	return b, err
}

// maxFacts bounds what a build may have to say, in bytes. So even the longest chain
// fits into an answer, where a character takes six at most.
const maxFacts = 8 << 10

// identify makes sure that an answer is of the build that was asked for.
func identify(b build, at place, id string) error {
	if b.size() > maxFacts {
		return refuse(hintServer, "what Buildkite's API says of %s is too long", at)
	}
	if _, err := job.ParseID(b.ID); err != nil {
		return refuse(hintServer, "Buildkite's API states no id of %s", at)
	}
	if b.ID != id {
		return refuse(hintJob, "%s has the id %s, not %s", at, b.ID, escape.Text(id))
	}
	if n := strconv.Itoa(b.Number); n != at.number {
		return refuse(hintServer, "asked for %s, Buildkite's API answers with number %s", at, n)
	}
	if b.Pipeline.Slug != at.pipeline {
		return refuse(hintServer, "asked for %s, Buildkite's API answers with pipeline %s", at, escape.Text(b.Pipeline.Slug))
	}
	if b.URL != "" && !isURLOf(b.URL, at) {
		return refuse(hintServer, "asked for %s, Buildkite's API answers with %s", at, escape.Text(b.URL))
	}
	return nil
}

// isURLOf looks at a URL's path; its host is the server's own affair.
func isURLOf(text string, at place) bool {
	u, err := url.Parse(text)
	return err == nil && u.EscapedPath() == "/v2/"+at.path()
}

// holds ties the build to the job that the agent runs. A job is accepted, and then
// running, when an agent starts its hooks. One that was canceled since, or that some
// other agent ran before, is not the job that asks.
func holds(b build, at place, id job.ID) error {
	switch {
	case b.Jobs.count == 0:
		return refuse(hintJob, "%s has no running job %s", at, id)
	case b.Jobs.count > 1:
		return refuse(hintServer, "%s has two jobs %s", at, id)
	case b.Jobs.state != "running" && b.Jobs.state != "accepted":
		return refuse(hintJob, "job %s of %s is %s, not running", id, at, escape.Text(b.Jobs.state))
	}
	return nil
}

// follow turns an answer into facts, and reads what it names.
func (f *follower) follow(b build, at place) (*trust.Attestation, error) {
	if f.count++; f.count > witness.MaxBuilds {
		return nil, refuse("start the build itself", "it comes from a chain of more than %d builds", witness.MaxBuilds)
	}
	if slices.Contains(f.way, b.ID) {
		return nil, refuse(hintServer, "%s comes from itself", at)
	}
	f.way = append(f.way, b.ID)
	defer func() { f.way = f.way[:len(f.way)-1] }()

	facts, err := factsOf(b, at)
	if err != nil {
		return nil, err
	}
	a := &trust.Attestation{ID: b.ID, Build: facts}
	if t := b.TriggeredFrom; t.ID != "" {
		from, err := placeOf(at.organization, t.Pipeline, t.Number, t.ID)
		if err != nil {
			return nil, refuse(hintServer, "%s was triggered by %v", at, err)
		}
		if a.TriggeredBy, err = f.parent(from, t.ID, "triggered "+at.String()); err != nil {
			return nil, err
		}
	}
	if r := b.RebuiltFrom; r.ID != "" {
		from, err := placeOf(at.organization, at.pipeline, r.Number, r.ID)
		if err != nil {
			return nil, refuse(hintServer, "%s is a rebuild of %v", at, err)
		}
		if r.URL != "" && !isURLOf(r.URL, from) {
			return nil, refuse(hintServer, "%s is a rebuild of %s, which is none of the same pipeline", at, escape.Text(r.URL))
		}
		if a.RebuiltFrom, err = f.parent(from, r.ID, "was rebuilt as "+at.String()); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// placeOf says in its error what is not a place.
func placeOf(organization, pipeline string, number int, id string) (place, error) {
	if _, err := job.ParseID(id); err != nil {
		return place{}, fmt.Errorf("a build without an id")
	}
	if !isSlug(pipeline) || !isCount(number) {
		return place{}, fmt.Errorf("build %d of %s, which makes no sense", number, escape.Text(pipeline))
	}
	return place{organization, pipeline, strconv.Itoa(number)}, nil
}

// parent reads a build that another came from.
func (f *follower) parent(at place, id, relation string) (*trust.Attestation, error) {
	b, ok := f.known[id]
	if !ok {
		if len(f.known) >= witness.MaxBuilds {
			return nil, refuse("start the build itself", "it comes from a chain of more than %d builds", witness.MaxBuilds)
		}
		var err error
		b, err = f.read(at, url.Values{"exclude_jobs": {"true"}}, "")
		if api := (*restapi.Error)(nil); errors.As(err, &api) && (api.Status == http.StatusNotFound || api.Status == http.StatusForbidden) {
			return nil, refuse("let the token's user read pipeline "+at.slug()+", or start the build itself",
				"%s %s, and the API token may not read it (%d)", at, relation, api.Status)
		}
		if err != nil {
			return nil, toRefusal(err)
		}
	}
	if err := identify(b, at, id); err != nil {
		return nil, err
	}
	f.known[id] = b
	return f.follow(b, at)
}

// factsOf takes nothing for granted but that trust judges what it returns.
func factsOf(b build, at place) (job.Facts, error) {
	facts := job.Facts{
		Origin: job.Attested, Organization: at.organization, Pipeline: b.Pipeline.Slug, Repo: b.Pipeline.Repository,
		Branch: b.Branch, Tag: b.Tag, PullRequest: "false", Source: b.Source, Commit: b.Commit,
		TriggeredFrom: b.TriggeredFrom.ID, RebuiltFrom: b.RebuiltFrom.ID,
	}
	for _, fact := range []struct{ name, value string }{
		{"repository", facts.Repo}, {"branch", facts.Branch}, {"source", facts.Source}, {"commit", facts.Commit},
	} {
		if fact.value == "" {
			return job.Facts{}, refuse(hintServer, "Buildkite's API states no %s of %s", fact.name, at)
		}
	}
	// A build without a pull request answers null, or an object without an id.
	if p := b.PullRequest; p.ID != "" {
		if !isNumber(string(p.ID)) {
			return job.Facts{}, refuse(hintServer, "%s is of pull request %s, which makes no sense", at, escape.Text(string(p.ID)))
		}
		facts.PullRequest, facts.PullRequestRepo, facts.PullRequestBase = string(p.ID), p.Repository, p.Base
	} else if p.Repository != "" || p.Base != "" {
		return job.Facts{}, refuse(hintServer, "%s is of a pull request without a number", at)
	}
	// So do these; but one that is there has an id.
	if t := b.TriggeredFrom; t.ID == "" && (t.Number != 0 || t.Pipeline != "") {
		return job.Facts{}, refuse(hintServer, "%s was triggered by a build without an id", at)
	}
	if r := b.RebuiltFrom; r.ID == "" && (r.Number != 0 || r.URL != "") {
		return job.Facts{}, refuse(hintServer, "%s is a rebuild of a build without an id", at)
	}
	const trigger = "trigger_job"
	if facts.Source == trigger && facts.TriggeredFrom == "" {
		return job.Facts{}, refuse(hintServer, "%s has the source %s, and no build that triggered it", at, trigger)
	}
	if facts.Source != trigger && facts.TriggeredFrom != "" {
		return job.Facts{}, refuse(hintServer, "%s has the source %s, and a build that triggered it", at, escape.Text(facts.Source))
	}
	return facts, nil
}
