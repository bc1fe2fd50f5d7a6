package attest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/witness"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

const uuid = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"

func mustID(s string) job.ID {
	id, err := job.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// ours is a build that the job is in.
func ours(b restserver.Build) restserver.Build {
	b.Jobs = append(b.Jobs, restserver.Job{ID: restserver.RandomID(), State: "passed"}, restserver.Job{ID: uuid, State: "running"})
	return b
}

// A world is a server, and what the job asks it.
type world struct {
	*restserver.Server
	q witness.Question
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := restserver.Start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return &world{s, witness.Question{
		URL: s.URL, Roots: s.Roots, Token: s.Token,
		Organization: "juliagpu", Pipeline: "cuda-jl", Number: "1", Job: mustID(uuid), Deadline: 30 * time.Second,
	}}
}

// facts are those of the server's zero build.
func facts() job.Facts {
	return job.Facts{
		Origin: job.Attested, Organization: "juliagpu", Pipeline: "cuda-jl", Repo: "https://github.com/JuliaGPU/CUDA.jl.git",
		Branch: "main", PullRequest: "false", Source: "webhook", Commit: strings.Repeat("c", 40),
	}
}

func TestFollow(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build restserver.Build
		want  func(*job.Facts)
		asked func(*witness.Question)
	}{
		{name: "a push"},
		{name: "a job that is about to start", build: restserver.Build{Jobs: []restserver.Job{{ID: uuid, State: "accepted"}}}},
		{name: "a tag", build: restserver.Build{Tag: "v1.0", Branch: "v1.0"}, want: func(f *job.Facts) { f.Tag, f.Branch = "v1.0", "v1.0" }},
		{name: "no word of tags", build: restserver.Build{Branch: "v1.0", Change: map[string]any{"tag": restserver.Absent}}, want: func(f *job.Facts) { f.Branch = "v1.0" }},
		{name: "a pull request", build: restserver.Build{Branch: "fix", PullRequest: &restserver.PullRequest{ID: "17", Base: "main", Repository: "git://github.com/mallory/CUDA.jl.git"}},
			want: func(f *job.Facts) {
				f.Branch, f.PullRequest, f.PullRequestBase, f.PullRequestRepo = "fix", "17", "main", "git://github.com/mallory/CUDA.jl.git"
			}},
		{name: "a pull request's number as a number", build: restserver.Build{Change: map[string]any{"pull_request": map[string]any{"id": 17}}},
			want: func(f *job.Facts) { f.PullRequest = "17" }},
		{name: "no pull request: null", build: restserver.Build{Change: map[string]any{"pull_request": nil}}},
		{name: "no pull request: nothing", build: restserver.Build{Change: map[string]any{"pull_request": restserver.Absent}}},
		{name: "no pull request: id null", build: restserver.Build{Change: map[string]any{"pull_request": map[string]any{"id": nil, "base": nil}}}},
		{name: "no word of triggers and rebuilds", build: restserver.Build{Change: map[string]any{"triggered_from": restserver.Absent, "rebuilt_from": restserver.Absent}}},
		{name: "no word of triggers and rebuilds: empty", build: restserver.Build{Change: map[string]any{"triggered_from": map[string]any{}, "rebuilt_from": map[string]any{}}}},
		{name: "no URL", build: restserver.Build{Change: map[string]any{"url": restserver.Absent}}},
		{name: "no id in the job's word", asked: func(q *witness.Question) { q.Build = "" }},
		{name: "what an attacker chose", build: restserver.Build{Branch: "\x1b[31m\n+++ \u202e"}, want: func(f *job.Facts) { f.Branch = "\x1b[31m\n+++ \u202e" }},
		{name: "many jobs", build: restserver.Build{Jobs: manyJobs(3000)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			b := w.AddBuild(ours(tt.build))
			if len(tt.build.Jobs) == 1 {
				b = w.AddBuild(tt.build)
			}
			w.q.Build = b.ID
			if tt.asked != nil {
				tt.asked(&w.q)
			}
			want := facts()
			if tt.want != nil {
				tt.want(&want)
			}
			answer := Answer(t.Context(), w.q)
			require.Nil(t, answer.Refusal)
			require.Equal(t, &trust.Attestation{ID: b.ID, Build: want}, answer.Attestation)
			require.Len(t, w.Requests(), 1)
			_, err := answer.Marshal()
			require.NoError(t, err)
		})
	}
}

func manyJobs(n int) (jobs []restserver.Job) {
	for range n {
		jobs = append(jobs, restserver.Job{ID: restserver.RandomID(), State: "running"})
	}
	return jobs
}

// TestFollowAsks: what is asked for keeps the answer small, and a server that gives
// more all the same is understood.
func TestFollowAsks(t *testing.T) {
	w := newWorld(t)
	parent := w.AddBuild(restserver.Build{Number: 7, Pipeline: "other", Jobs: manyJobs(3)})
	w.AddBuild(ours(restserver.Build{TriggeredBy: &parent, Change: map[string]any{"jobs": []any{
		map[string]any{"type": "waiter", "id": nil}, map[string]any{"id": uuid, "state": "running"}, map[string]any{"id": restserver.RandomID(), "state": "passed"},
	}}}))
	require.Nil(t, Answer(t.Context(), w.q).Refusal)
	var urls []string
	for _, r := range w.Requests() {
		require.Equal(t, "GET", r.Method)
		urls = append(urls, r.URL)
	}
	require.Equal(t, []string{
		"/v2/organizations/juliagpu/pipelines/cuda-jl/builds/1?job_states%5B%5D=running&job_states%5B%5D=accepted",
		"/v2/organizations/juliagpu/pipelines/other/builds/7?exclude_jobs=true",
	}, urls)
}

// TestFollowTree: a build that was triggered by a rebuild, and is one itself.
func TestFollowTree(t *testing.T) {
	w := newWorld(t)
	pr := restserver.PullRequest{ID: "17", Repository: "https://github.com/mallory/CUDA.jl"}
	first := w.AddBuild(restserver.Build{Pipeline: "other", Number: 3, PullRequest: &pr})
	trigger := w.AddBuild(restserver.Build{Pipeline: "other", Number: 4, RebuiltFrom: &first, Source: "ui"})
	original := w.AddBuild(restserver.Build{Number: 5, TriggeredBy: &trigger})
	own := w.AddBuild(ours(restserver.Build{Number: 6, TriggeredBy: &trigger, RebuiltFrom: &original}))
	w.q.Number = "6"

	answer := Answer(t.Context(), w.q)
	require.Nil(t, answer.Refusal)
	a := answer.Attestation
	require.Equal(t, own.ID, a.ID)
	require.Equal(t, trigger.ID, a.TriggeredBy.ID)
	require.Equal(t, trigger.ID, a.Build.TriggeredFrom)
	require.Equal(t, first.ID, a.TriggeredBy.RebuiltFrom.ID)
	require.Equal(t, "https://github.com/mallory/CUDA.jl", a.TriggeredBy.RebuiltFrom.Build.PullRequestRepo)
	require.Equal(t, original.ID, a.RebuiltFrom.ID)
	require.Equal(t, original.ID, a.Build.RebuiltFrom)
	require.Equal(t, a.TriggeredBy, a.RebuiltFrom.TriggeredBy, "the same build again")
	require.Len(t, w.Requests(), 4, "and each is asked for once")
	data, err := answer.Marshal()
	require.NoError(t, err)
	parsed, err := witness.ParseAnswer(data)
	require.NoError(t, err)
	require.Equal(t, answer, parsed)
}

// addChain adds so many builds, each triggered by the next, and the last one by last.
func addChain(w *world, n int, last *restserver.Build) {
	parent := last
	for i := n; i > 0; i-- {
		b := restserver.Build{Number: i, TriggeredBy: parent, Branch: strings.Repeat("x", 7<<10)}
		if i == 1 {
			b = ours(b)
		}
		b = w.AddBuild(b)
		parent = &b
	}
}

func TestFollowChain(t *testing.T) {
	w := newWorld(t)
	addChain(w, witness.MaxBuilds, nil)
	answer := Answer(t.Context(), w.q)
	require.Nil(t, answer.Refusal)
	require.Len(t, w.Requests(), witness.MaxBuilds)
	_, err := answer.Marshal()
	require.NoError(t, err)

	w = newWorld(t)
	addChain(w, 50, nil)
	answer = Answer(t.Context(), w.q)
	require.Equal(t, &witness.Refusal{Reason: "it comes from a chain of more than 10 builds", Hint: "start the build itself"}, answer.Refusal)
	require.Len(t, w.Requests(), witness.MaxBuilds)
}

// change is of the build that the job is in.
type change = map[string]any

// TestRefusals: a build whose facts don't hold together, or that is not the job's.
// None of it is an outage.
func TestRefusals(t *testing.T) {
	other := restserver.RandomID()
	id := func(n int) string { return fmt.Sprintf("%s%012d", uuid[:24], n) }
	triggered := func(change change) change {
		return map[string]any{"source": "trigger_job", "triggered_from": change}
	}
	for _, tt := range []struct {
		name    string
		change  change
		build   restserver.Build
		ask     func(*witness.Question)
		prepare func(*world)
		reason  string
	}{
		{name: "another id than the job's word", ask: func(q *witness.Question) { q.Build = other }, reason: "build 1 of juliagpu/cuda-jl has the id " + id(1) + ", not " + other},
		{name: "no such build", ask: func(q *witness.Question) { q.Number = "2" }, reason: "there is no such thing, or the token's user may not see it (404)"},
		{name: "another organization's", prepare: func(w *world) {
			w.AddBuild(ours(restserver.Build{Organization: "mallory", Number: 9}))
			w.q.Number = "9"
		}, reason: "there is no such thing, or the token's user may not see it (404)"},
		{name: "another build of the same pipeline", prepare: func(w *world) {
			w.AddBuild(restserver.Build{Number: 2, ID: other, Jobs: manyJobs(2)})
			w.q.Number, w.q.Build = "2", other
		}, reason: "build 2 of juliagpu/cuda-jl has no running job " + uuid},
		{name: "the job has ended", build: restserver.Build{Jobs: []restserver.Job{{ID: uuid, State: "passed"}}}, reason: "has no running job " + uuid},
		{name: "the job has ended, and the server ignores the states", change: change{"jobs": []any{map[string]any{"id": uuid, "state": "canceled\n"}}}, reason: "job " + uuid + ` of build 1 of juliagpu/cuda-jl is "canceled\n", not running`},
		{name: "a job without a state", change: change{"jobs": []any{map[string]any{"id": uuid}}}, reason: "job " + uuid + ` of build 1 of juliagpu/cuda-jl is "", not running`},
		{name: "the job twice", change: change{"jobs": []any{map[string]any{"id": uuid, "state": "running"}, map[string]any{"id": uuid, "state": "running"}}}, reason: "has two jobs"},
		{name: "no jobs", change: change{"jobs": nil}, reason: "has no running job"},
		{name: "no word of jobs", change: change{"jobs": restserver.Absent}, reason: "has no running job"},
		{name: "another number", change: change{"number": 2}, reason: "asked for build 1 of juliagpu/cuda-jl, Buildkite's API answers with number 2"},
		{name: "another pipeline", change: change{"pipeline": change{"slug": "other", "repository": "x"}}, reason: "asked for build 1 of juliagpu/cuda-jl, Buildkite's API answers with pipeline other"},
		{name: "another organization in its URL", change: change{"url": "https://api.buildkite.com/v2/organizations/mallory/pipelines/cuda-jl/builds/1"}, reason: "answers with https://api.buildkite.com/v2/organizations/mallory"},
		{name: "another form of URL", change: change{"url": "\x1b"}, reason: `answers with "\x1b"`},
		{name: "no id", change: change{"id": nil}, reason: "states no id"},
		{name: "an id of another form", change: change{"id": "1"}, reason: "states no id"},
		{name: "no number", change: change{"number": restserver.Absent}, reason: "answers with number 0"},
		{name: "no pipeline", change: change{"pipeline": nil}, reason: `answers with pipeline ""`},
		{name: "no repository", change: change{"pipeline": change{"slug": "cuda-jl"}}, reason: "states no repository"},
		{name: "no branch", change: change{"branch": nil}, reason: "states no branch"},
		{name: "no commit", change: change{"commit": ""}, reason: "states no commit"},
		{name: "no source", change: change{"source": restserver.Absent}, reason: "states no source"},
		{name: "too long", change: change{"branch": strings.Repeat("x", 1<<20)}, reason: "what Buildkite's API says of build 1 of juliagpu/cuda-jl is too long"},
		{name: "a pull request without a number", change: change{"pull_request": change{"repository": "https://github.com/mallory/CUDA.jl"}}, reason: "is of a pull request without a number"},
		{name: "a pull request named false", change: change{"pull_request": change{"id": "false", "repository": "https://github.com/mallory/CUDA.jl"}}, reason: "is of pull request false, which makes no sense"},
		{name: "a pull request of no number", change: change{"pull_request": change{"id": -1.5e3}}, reason: "is of pull request -1500, which makes no sense"},
		{name: "a trigger without its build", change: change{"source": "trigger_job"}, reason: "has the source trigger_job, and no build that triggered it"},
		{name: "a triggering build without its source", change: change{"triggered_from": change{"build_id": other, "build_number": 2, "build_pipeline_slug": "x"}}, reason: "has the source webhook, and a build that triggered it"},
		{name: "a triggering build without an id", change: triggered(change{"build_number": 2, "build_pipeline_slug": "x"}), reason: "was triggered by a build without an id"},
		{name: "a triggering build with a bad id", change: triggered(change{"build_id": "../x", "build_number": 2, "build_pipeline_slug": "x"}), reason: "was triggered by a build without an id"},
		{name: "a triggering build without a number", change: triggered(change{"build_id": other, "build_pipeline_slug": "x"}), reason: "was triggered by build 0 of x, which makes no sense"},
		{name: "a triggering build with a large number", change: triggered(change{"build_id": other, "build_number": 1e9, "build_pipeline_slug": "x"}), reason: "was triggered by build 1000000000 of x, which makes no sense"},
		{name: "a triggering build of no pipeline", change: triggered(change{"build_id": other, "build_number": 2, "build_pipeline_slug": ".."}), reason: "was triggered by build 2 of .., which makes no sense"},
		{name: "a triggering build that nobody may read", change: triggered(change{"build_id": other, "build_number": 2, "build_pipeline_slug": "x"}), reason: "build 2 of juliagpu/x triggered build 1 of juliagpu/cuda-jl, and the API token may not read it (404)"},
		{name: "a triggering build that the token may not read", change: triggered(change{"build_id": other, "build_number": 2, "build_pipeline_slug": "x"}),
			prepare: func(w *world) { w.Fail("/x/", -1, restserver.Status(403)) }, reason: "the API token may not read it (403)"},
		{name: "a triggering build with another id", change: triggered(change{"build_id": other, "build_number": 2, "build_pipeline_slug": "x"}),
			prepare: func(w *world) { w.AddBuild(restserver.Build{Pipeline: "x", Number: 2, ID: id(2)}) }, reason: "build 2 of juliagpu/x has the id " + id(2) + ", not " + other},
		{name: "a triggering build in another organization", change: triggered(change{"build_id": other, "build_number": 2, "build_pipeline_slug": "x"}),
			prepare: func(w *world) {
				w.AddBuild(restserver.Build{Organization: "mallory", Pipeline: "x", Number: 2, ID: other})
			}, reason: "may not read it (404)"},
		{name: "a triggering build of contradictions", change: triggered(change{"build_id": other, "build_number": 2, "build_pipeline_slug": "x"}),
			prepare: func(w *world) {
				w.AddBuild(restserver.Build{Pipeline: "x", Number: 2, ID: other, Change: change{"source": "trigger_job"}})
			}, reason: "build 2 of juliagpu/x has the source trigger_job, and no build that triggered it"},
		{name: "an original without an id", change: change{"rebuilt_from": change{"number": 2}}, reason: "is a rebuild of a build without an id"},
		{name: "an original of another pipeline", change: change{"rebuilt_from": change{"id": other, "number": 2, "url": "https://api.buildkite.com/v2/organizations/juliagpu/pipelines/x/builds/2"}}, reason: "which is none of the same pipeline"},
		{name: "an original of another organization", change: change{"rebuilt_from": change{"id": other, "number": 2, "url": "https://api.buildkite.com/v2/organizations/mallory/pipelines/cuda-jl/builds/2"}}, reason: "which is none of the same pipeline"},
		{name: "an original of another number", change: change{"rebuilt_from": change{"id": other, "number": 2, "url": "https://api.buildkite.com/v2/organizations/juliagpu/pipelines/cuda-jl/builds/3"}}, reason: "which is none of the same pipeline"},
		{name: "an original that nobody may read", change: change{"rebuilt_from": change{"id": other, "number": 2}}, reason: "build 2 of juliagpu/cuda-jl was rebuilt as build 1 of juliagpu/cuda-jl, and the API token may not read it (404)"},
		{name: "itself", change: change{"rebuilt_from": change{"id": id(1), "number": 1}}, reason: "build 1 of juliagpu/cuda-jl comes from itself"},
		{name: "itself under another number", change: change{"rebuilt_from": change{"id": id(1), "number": 2}}, reason: "asked for build 2 of juliagpu/cuda-jl, Buildkite's API answers with number 1"},
		{name: "a loop", change: triggered(change{"build_id": other, "build_number": 2, "build_pipeline_slug": "x"}),
			prepare: func(w *world) {
				w.AddBuild(restserver.Build{Pipeline: "x", Number: 2, ID: other, TriggeredBy: &restserver.Build{ID: id(1), Number: 1, Pipeline: "cuda-jl"}})
			}, reason: "build 1 of juliagpu/cuda-jl comes from itself"},
		{name: "no number in the job's word", ask: func(q *witness.Question) { q.Number = "" }, reason: `BUILDKITE_BUILD_NUMBER makes no sense: ""`},
		{name: "a number that leads elsewhere", ask: func(q *witness.Question) { q.Number = "1/../2" }, reason: `BUILDKITE_BUILD_NUMBER makes no sense: 1/../2`},
		{name: "a leading zero", ask: func(q *witness.Question) { q.Number = "01" }, reason: `BUILDKITE_BUILD_NUMBER makes no sense: 01`},
		{name: "a sign", ask: func(q *witness.Question) { q.Number = "+1" }, reason: `BUILDKITE_BUILD_NUMBER makes no sense: +1`},
		{name: "a large number", ask: func(q *witness.Question) { q.Number = "1000000000" }, reason: `BUILDKITE_BUILD_NUMBER makes no sense: 1000000000`},
		{name: "a pipeline that leads elsewhere", ask: func(q *witness.Question) { q.Pipeline = ".." }, reason: `BUILDKITE_PIPELINE_SLUG makes no sense: ..`},
		{name: "a pipeline with a query", ask: func(q *witness.Question) { q.Pipeline = "cuda-jl?x" }, reason: `BUILDKITE_PIPELINE_SLUG makes no sense: cuda-jl?x`},
		{name: "a pipeline of two lines", ask: func(q *witness.Question) { q.Pipeline = "a\nb" }, reason: `BUILDKITE_PIPELINE_SLUG makes no sense: "a\nb"`},
		{name: "an id of two lines", ask: func(q *witness.Question) { q.Build = "\n+++" }, reason: `not "\n+++"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			b := tt.build
			if b.Jobs == nil {
				b = ours(b)
			}
			b.ID, b.Change = id(1), tt.change
			w.AddBuild(b)
			if tt.ask != nil {
				tt.ask(&w.q)
			}
			if tt.prepare != nil {
				tt.prepare(w)
			}
			answer := Answer(t.Context(), w.q)
			require.Nil(t, answer.Attestation)
			assert.Contains(t, answer.Refusal.Reason, tt.reason)
			assert.False(t, answer.Refusal.Outage)
			assert.NotEmpty(t, answer.Refusal.Hint)
			w.judge(t, answer)
		})
	}
}

// judge looks at what every refusal must keep to.
func (w *world) judge(t *testing.T, answer witness.Answer) {
	t.Helper()
	data, err := answer.Marshal()
	require.NoError(t, err)
	require.NotContains(t, string(data), w.Token)
	for _, r := range w.Requests() {
		require.True(t, strings.HasPrefix(r.URL, "/v2/organizations/juliagpu/"), r.URL)
	}
	require.LessOrEqual(t, len(w.Requests()), witness.MaxBuilds)
}

// TestOutages: whatever is wrong with the API or the way to it, at whichever build.
func TestOutages(t *testing.T) {
	stranger := newWorld(t)
	for _, tt := range []struct {
		name   string
		fault  restserver.Fault
		reason string
	}{
		{"slow", restserver.Slow, "no answer in time"},
		{"silent", restserver.Silent, "no answer in time"},
		{"half-closed", restserver.HalfClosed, "it ended the connection"},
		{"cut", restserver.Cut, "it ended the connection"},
		{"401", restserver.Status(401), "the API token is not valid (401)"},
		{"422", restserver.Status(422), "an answer that makes no sense here (422)"},
		{"429", restserver.Status(429), "too many requests (429)"},
		{"429 with a time", restserver.Status(429, "Retry-After: 30"), "it wants 30 s until the next request, and there is no time for that"},
		{"429 with a reset", restserver.Status(429, "RateLimit-Remaining: 0", "RateLimit-Reset: 30"), "it wants 30 s until the next request"},
		{"500", restserver.Status(500), "the server has a fault (500)"},
		{"HTML", restserver.HTML, "the answer is not JSON"},
		{"another shape", restserver.Body("application/json", `{"id":17}`), "the answer is not the JSON that Buildkite documents"},
		{"jobs of another shape", restserver.Body("application/json", `{"jobs":{"id":"x"}}`), "the answer is not the JSON that Buildkite documents"},
		{"a pull request of another shape", restserver.Body("application/json", `{"pull_request":{"id":true}}`), "the answer is not the JSON that Buildkite documents"},
		{"a number with a fraction", restserver.Body("application/json", `{"number":1.5}`), "the answer is not the JSON that Buildkite documents"},
		{"deep", restserver.Body("application/json", strings.Repeat("[", 1<<20)), "the answer is not the JSON that Buildkite documents"},
		{"large", restserver.Large(100 << 20), "the answer is larger than 16 MiB"},
		{"a bomb", restserver.Bomb(100 << 20), "the answer is larger than 16 MiB"},
		{"a redirect", restserver.Redirect(307, stranger.URL+"%s"), "it points to another server or scheme"},
	} {
		for _, part := range []string{"/cuda-jl/", "/other/"} {
			t.Run(tt.name+" at"+part, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				parent := w.AddBuild(restserver.Build{Number: 7, Pipeline: "other"})
				w.AddBuild(ours(restserver.Build{TriggeredBy: &parent}))
				w.Fail(part, -1, tt.fault)
				w.q.Deadline = 500 * time.Millisecond
				if strings.Contains(tt.reason, "larger") || strings.Contains(tt.reason, "no time") {
					w.q.Deadline = 15 * time.Second // it comes at once
				}
				answer := Answer(t.Context(), w.q)
				require.Nil(t, answer.Attestation)
				assert.Contains(t, answer.Refusal.Reason, tt.reason)
				assert.True(t, answer.Refusal.Outage)
				assert.NotEmpty(t, answer.Refusal.Hint)
				assert.Contains(t, answer.Refusal.Reason, "127.0.0.1:")
				w.judge(t, answer)
			})
		}
	}
	t.Cleanup(func() { assert.Empty(t, stranger.Requests()) })
}

// TestOnceIsNothing: what goes by is waited for.
func TestOnceIsNothing(t *testing.T) {
	w := newWorld(t)
	w.AddBuild(ours(restserver.Build{}))
	w.Fail("", 1, restserver.Status(502))
	w.Fail("", 1, restserver.Status(429, "Retry-After: 0"))
	w.Fail("", 1, restserver.Cut)
	require.Nil(t, Answer(t.Context(), w.q).Refusal)
	require.Len(t, w.Requests(), 4)
}

// TestConfiguration: what the operator wrote wrong is no build's fault.
func TestConfiguration(t *testing.T) {
	for name, change := range map[string]func(*witness.Question){
		"no server":           func(q *witness.Question) { q.URL = "http://127.0.0.1" },
		"no roots":            func(q *witness.Question) { q.Roots = "/nowhere/rööts\n" },
		"roots of others":     func(q *witness.Question) { q.Roots = "" },
		"no token":            func(q *witness.Question) { q.Token = "" },
		"a token of lines":    func(q *witness.Question) { q.Token += "\r\nX-Forwarded-For: x" },
		"a limit nowhere":     func(q *witness.Question) { q.PerMinute, q.LimitFile = 5, "/nowhere/limit" },
		"a limit of no file":  func(q *witness.Question) { q.PerMinute = 5 },
		"no organization":     func(q *witness.Question) { q.Organization = "" },
		"an organization up":  func(q *witness.Question) { q.Organization = ".." },
		"an organization's /": func(q *witness.Question) { q.Organization = "a/b" },
	} {
		w := newWorld(t)
		w.AddBuild(ours(restserver.Build{}))
		change(&w.q)
		answer := Answer(t.Context(), w.q)
		require.Nil(t, answer.Attestation, name)
		require.True(t, answer.Refusal.Outage, name)
		require.Empty(t, w.Requests(), name)
		w.judge(t, answer)
	}
}

// TestLimit: the question's limit counts.
func TestLimit(t *testing.T) {
	w := newWorld(t)
	w.AddBuild(ours(restserver.Build{}))
	w.q.PerMinute, w.q.LimitFile = 1, t.TempDir()+"/limit"
	require.Nil(t, Answer(t.Context(), w.q).Refusal)
	refusal := Answer(t.Context(), w.q).Refusal
	require.Contains(t, refusal.Reason, "the 1 requests a minute that the configuration grants are used up")
	require.True(t, refusal.Outage)
	require.Len(t, w.Requests(), 1)
}

// TestManyJobs: entries that are nearly nothing must not become much.
func TestManyJobs(t *testing.T) {
	w := newWorld(t)
	w.Fail("", -1, func(rw http.ResponseWriter, r *http.Request) {
		restserver.Body("application/json", `{"jobs":[`+strings.Repeat("{},", 5<<20)+`{}]}`)(rw, r)
	})
	refusal := Answer(t.Context(), w.q).Refusal
	require.Contains(t, refusal.Reason, "states no id")
}

// FuzzBuild: whatever the API says, what is accepted is the build that was asked
// for, with the job in it, and facts that contradict neither it nor each other.
func FuzzBuild(f *testing.F) {
	at := place{"juliagpu", "cuda-jl", "1"}
	seed := map[string]any{
		"id": uuid, "number": 1, "url": "https://api.buildkite.com/v2/" + at.path(), "commit": "c", "branch": "main", "source": "webhook", "tag": nil,
		"pipeline": map[string]any{"slug": "cuda-jl", "repository": "git@github.com:JuliaGPU/CUDA.jl"}, "pull_request": map[string]any{}, "triggered_from": nil, "rebuilt_from": nil,
		"jobs": []any{map[string]any{"id": uuid, "state": "running"}},
	}
	add := func() {
		data, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add()
	seed["pull_request"] = map[string]any{"id": 17, "base": "main", "repository": "x"}
	add()
	seed["pull_request"], seed["source"] = map[string]any{"id": "17"}, "trigger_job"
	seed["triggered_from"] = map[string]any{"build_id": uuid, "build_number": 2, "build_pipeline_slug": "x"}
	seed["rebuilt_from"] = map[string]any{"id": uuid, "number": 2, "url": "x"}
	add()
	f.Fuzz(func(t *testing.T, data []byte) {
		b := build{Jobs: jobs{want: uuid}}
		if json.Unmarshal(data, &b) != nil || identify(b, at, b.ID) != nil || holds(b, at, mustID(uuid)) != nil {
			return
		}
		facts, err := factsOf(b, at)
		if err != nil {
			return
		}
		_, err = job.ParseID(b.ID)
		require.NoError(t, err)
		require.Equal(t, 1, b.Number)
		require.Equal(t, "cuda-jl", facts.Pipeline)
		require.Equal(t, "juliagpu", facts.Organization)
		require.Equal(t, job.Attested, facts.Origin)
		require.Equal(t, facts.Source == "trigger_job", facts.TriggeredFrom != "")
		require.True(t, facts.PullRequest == "false" || isNumber(facts.PullRequest))
		require.False(t, facts.PullRequest == "false" && facts.PullRequestRepo+facts.PullRequestBase != "")
		require.NotEmpty(t, facts.Repo)
		a := &trust.Attestation{ID: b.ID, Build: facts}
		if facts.TriggeredFrom+facts.RebuiltFrom == "" {
			_, err := witness.Answer{Attestation: a}.Marshal()
			require.NoError(t, err)
		}
	})
}
