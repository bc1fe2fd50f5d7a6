//go:build unix

package tests

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// An attestingHost asks an API before it opens anything.
type attestingHost struct {
	*host
	api   *restserver.Server
	to    envelope.Recipient
	value string
}

// The job that every row runs, and what it says of its build.
const attestedJob = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"

// newAttestingHost starts an API, and a host that waits so long for its answer. more
// is for its configuration.
func newAttestingHost(t *testing.T, m mode, certificate restserver.Certificate, deadline, more string) *attestingHost {
	t.Helper()
	api, err := restserver.StartWith(t.TempDir(), "127.0.0.1", certificate)
	require.NoError(t, err)
	t.Cleanup(func() { api.Close() })
	h := &attestingHost{host: newHost(t, m), api: api, value: canary("token")}
	require.NoError(t, os.WriteFile(filepath.Join(h.identities, "api-token"), []byte(api.Token+"\n"), 0o600))
	to, entry := h.identity("identity", false)
	h.to = to
	run := h.identities
	if m == split {
		run = runFolder
	}
	h.configure(fmt.Sprintf("attest: {token: %s/api-token, organization: juliagpu, deadline: %s, api: %q, roots: %s}\n", run, deadline, api.URL, api.Roots)+more, entry)
	return h
}

// build makes the build in which the job runs, and returns it as the API has it.
func (h *attestingHost) build(b restserver.Build) restserver.Build {
	b.Pipeline, b.Number = "cuda-dot-jl", 7
	b.Jobs = append(b.Jobs, restserver.Job{ID: attestedJob, State: "running"})
	return h.api.AddBuild(b)
}

// states is what an honest job of a build says, besides what a push to main does.
func states(b restserver.Build) map[string]string {
	env := map[string]string{
		"BUILDKITE_BUILD_ID": b.ID, "BUILDKITE_BUILD_NUMBER": fmt.Sprint(b.Number), "BUILDKITE_COMMIT": b.Commit,
		"BUILDKITE_BRANCH": b.Branch, "BUILDKITE_TAG": b.Tag, "BUILDKITE_SOURCE": b.Source,
	}
	if b.PullRequest != nil {
		env["BUILDKITE_PULL_REQUEST"] = b.PullRequest.ID
		env["BUILDKITE_PULL_REQUEST_REPO"] = b.PullRequest.Repository
		env["BUILDKITE_PULL_REQUEST_BASE_BRANCH"] = b.PullRequest.Base
	}
	if b.TriggeredBy != nil {
		env["BUILDKITE_TRIGGERED_FROM_BUILD_ID"] = b.TriggeredBy.ID
	}
	if b.RebuiltFrom != nil {
		env["BUILDKITE_REBUILT_FROM_BUILD_ID"] = b.RebuiltFrom.ID
	}
	return env
}

// run runs a job with one sealed value: granted, or withheld for a reason. requests is
// how many the API got.
func (h *attestingHost) run(env map[string]string, reason string, requests int) string {
	h.t.Helper()
	before := len(h.api.Requests())
	r := row{id: attestedJob, env: env, secrets: map[string]string{"SECRET_TOKEN": seal(h.t, h.to, "TOKEN", h.value, nil)}}
	if reason == "" {
		r.values, r.outcome, r.log = map[string]string{"TOKEN": h.value}, "granted", []string{"SECRET_TOKEN: granted"}
	} else {
		r.absent, r.noOpen, r.outcome, r.log = []string{"TOKEN"}, []string{h.value}, "withheld", []string{"SECRET_TOKEN: withheld: " + reason}
	}
	result := h.host.run(r)
	if requests >= 0 {
		require.Len(h.t, h.api.Requests()[before:], requests*max(1, result.Runs), "requests to the API")
	}
	return result.Text()
}

var (
	ownRequest  = &restserver.PullRequest{ID: "17", Base: "main", Repository: "git://github.com/JuliaGPU/CUDA.jl.git"}
	forkRequest = &restserver.PullRequest{ID: "17", Base: "main", Repository: "https://github.com/mallory/CUDA.jl.git"}
)

func TestAttested(t *testing.T) { inEachMode(t, testAttested) }

// What a job claims is what the API says, or nothing is opened.
func testAttested(t *testing.T, m mode) {
	h := newAttestingHost(t, m, restserver.Good, "20s", "")
	h.api.AddPipeline(restserver.Pipeline{Slug: "cuda-dot-jl"})

	for name, b := range map[string]restserver.Build{
		"push":             {},
		"own pull request": {Branch: "fix", PullRequest: ownRequest},
		"tag":              {Branch: "v1.2", Tag: "v1.2"},
		"by hand":          {Source: "ui"},
	} {
		t.Log(name)
		h.run(states(h.build(b)), "", 1)
	}
	for _, r := range h.api.Requests() {
		require.Equal(t, http.MethodGet, r.Method)
		require.True(t, strings.HasPrefix(r.URL, "/v2/organizations/juliagpu/pipelines/cuda-dot-jl/builds/7"), r.URL)
		require.Equal(t, "Bearer "+h.api.Token, r.Header.Get("Authorization"))
	}

	// Lies: the job says a push, the API what it is.
	honest := states(h.build(restserver.Build{}))
	lie := func(name string, b restserver.Build, env map[string]string, reason string) {
		t.Helper()
		t.Log(name)
		b = h.build(b)
		h.run(mergeEnv(mergeEnv(honest, map[string]string{"BUILDKITE_BUILD_ID": b.ID}), env), reason, 1)
	}
	const says = ", but Buildkite's API "
	lie("a fork's", restserver.Build{Branch: "mallory:fix", PullRequest: forkRequest}, nil, "the job states false for BUILDKITE_PULL_REQUEST"+says+"17")
	lie("another head", restserver.Build{Branch: "fix", PullRequest: forkRequest}, states(restserver.Build{Number: 7, Branch: "fix", PullRequest: ownRequest, Source: "webhook", Commit: strings.Repeat("c", 40)}),
		"the job states github.com/juliagpu/cuda.jl as its head repository"+says+"https://github.com/mallory/CUDA.jl.git")
	lie("another branch", restserver.Build{Branch: "dev"}, nil, "the job states main for BUILDKITE_BRANCH"+says+"dev")
	lie("another commit", restserver.Build{Commit: strings.Repeat("d", 40)}, nil, "the job states "+strings.Repeat("c", 40)+" for BUILDKITE_COMMIT")
	lie("another source", restserver.Build{Source: "api"}, nil, "the job states webhook for BUILDKITE_SOURCE"+says+"api")
	lie("another repository", restserver.Build{}, map[string]string{"BUILDKITE_REPO": "https://github.com/JuliaGPU/AMDGPU.jl"}, "Buildkite says that pipeline juliagpu/cuda-dot-jl builds github.com/juliagpu/cuda.jl, but this job states github.com/juliagpu/amdgpu.jl")

	lie("a fork that says it is all there is", restserver.Build{Branch: "mallory:fix", PullRequest: forkRequest}, mergeEnv(fork, map[string]string{"BUILDKITE_REPO": "https://github.com/mallory/CUDA.jl"}),
		"Buildkite says that pipeline juliagpu/cuda-dot-jl builds github.com/juliagpu/cuda.jl, but this job states github.com/mallory/cuda.jl")

	// Another's build: this job is not in it.
	h.api.AddBuild(restserver.Build{Pipeline: "cuda-dot-jl", Number: 8, Jobs: []restserver.Job{{ID: restserver.RandomID(), State: "running"}}})
	h.run(mergeEnv(honest, map[string]string{"BUILDKITE_BUILD_NUMBER": "8", "BUILDKITE_BUILD_ID": ""}), "Buildkite's API does not attest this build: ", 1)
	// And the job says that it were.
	theirs := h.api.AddBuild(restserver.Build{Pipeline: "cuda-dot-jl", Number: 8, Jobs: []restserver.Job{{ID: restserver.RandomID(), State: "running"}}})
	said, requests := "Buildkite's API does not attest this build: build 8 of juliagpu/cuda-dot-jl has no running job "+attestedJob, 1
	if m == split { // which sees it beside the agent's word
		said, requests = "the job states BUILDKITE_JOB_ID="+theirs.Jobs[0].ID+", but the agent "+attestedJob, 0
	}
	h.run(mergeEnv(states(theirs), map[string]string{"BUILDKITE_JOB_ID": theirs.Jobs[0].ID}), said, requests)
	// Its own, but it is over.
	over := h.api.AddBuild(restserver.Build{Pipeline: "cuda-dot-jl", Number: 7, Jobs: []restserver.Job{{ID: attestedJob, State: "passed"}}})
	h.run(states(over), "Buildkite's API does not attest this build: ", 1)
	// Another organization's, which this token is not for.
	h.run(mergeEnv(honest, map[string]string{"BUILDKITE_ORGANIZATION_SLUG": "mallory"}), "Buildkite's API does not attest this build: this agent's token is for the organization juliagpu", 0)

	// Where the answer would change nothing nobody asks.
	h.run(mergeEnv(honest, fork), "pull request 17 is from github.com/mallory/cuda.jl", 0)
	before := len(h.api.Requests())
	h.host.run(row{id: attestedJob, env: honest, outcome: "none", secrets: map[string]string{"SECRET_NOTE": "plain"}})
	require.Len(t, h.api.Requests(), before)
}

func TestLaundering(t *testing.T) { inEachMode(t, testLaundering) }

// Nobody gets more by having a build start another, or by starting it again.
func testLaundering(t *testing.T, m mode) {
	h := newAttestingHost(t, m, restserver.Good, "20s", "triggers:\n- {from: github.com/juliagpu/gpuarrays.jl, to: github.com/juliagpu/cuda.jl}\n")
	h.api.AddPipeline(restserver.Pipeline{Slug: "cuda-dot-jl"})
	for slug, repository := range map[string]string{
		"cuda-jl": "https://github.com/JuliaGPU/CUDA.jl", "gpuarrays": "https://github.com/JuliaGPU/GPUArrays.jl", "amdgpu": "https://github.com/JuliaGPU/AMDGPU.jl",
	} {
		h.api.AddPipeline(restserver.Pipeline{Slug: slug, Repository: repository})
	}
	number := 100
	add := func(b restserver.Build) *restserver.Build {
		number++
		b.Number = number
		b = h.api.AddBuild(b)
		return &b
	}
	ask := func(b restserver.Build, reason string, requests int) {
		t.Helper()
		h.run(states(h.build(b)), reason, requests)
	}
	ofFork := restserver.Build{Branch: "mallory:fix", PullRequest: forkRequest}
	inPairOf := func(b restserver.Build) restserver.Build { b.Pipeline = "gpuarrays"; return b }

	t.Log("honest chains")
	ask(restserver.Build{TriggeredBy: add(restserver.Build{})}, "", 2)
	ask(restserver.Build{TriggeredBy: add(restserver.Build{TriggeredBy: add(restserver.Build{Branch: "fix", PullRequest: ownRequest})})}, "", 3)
	ask(restserver.Build{TriggeredBy: add(restserver.Build{Pipeline: "gpuarrays"})}, "", 2)
	ask(restserver.Build{Source: "ui", RebuiltFrom: add(restserver.Build{Pipeline: "cuda-dot-jl"})}, "", 2)
	ask(restserver.Build{Source: "ui", RebuiltFrom: add(restserver.Build{Pipeline: "cuda-dot-jl", TriggeredBy: add(restserver.Build{})})}, "", 3)

	t.Log("a fork triggers its parent's pipeline")
	ask(restserver.Build{TriggeredBy: add(ofFork)}, "triggered by a build of juliagpu/cuda-jl that is not trusted: pull request 17 is from github.com/mallory/cuda.jl", 2)
	ask(restserver.Build{TriggeredBy: add(restserver.Build{TriggeredBy: add(ofFork)})}, "triggered by a build of juliagpu/cuda-jl that is not trusted: triggered by a build of", 3)

	t.Log("a collaborator of another repository triggers this one, with variables and a fork's commit of their choice")
	b := h.build(restserver.Build{TriggeredBy: add(restserver.Build{Pipeline: "amdgpu"}), Commit: strings.Repeat("e", 40)})
	h.run(mergeEnv(states(b), map[string]string{"BASH_ENV": "/tmp/x", "BUILDKITE_TRIGGERED_FROM_BUILD_ID": b.TriggeredBy.ID}),
		"triggered by a build of github.com/juliagpu/amdgpu.jl, not of github.com/juliagpu/cuda.jl", 2)
	t.Log("and hides that it was triggered")
	h.run(mergeEnv(states(b), map[string]string{"BUILDKITE_SOURCE": "webhook", "BUILDKITE_TRIGGERED_FROM_BUILD_ID": ""}),
		"the job states webhook for BUILDKITE_SOURCE, but Buildkite's API trigger_job", 2)
	t.Log("by way of a repository of a pair")
	ask(restserver.Build{TriggeredBy: add(inPairOf(restserver.Build{TriggeredBy: add(restserver.Build{Pipeline: "amdgpu"})}))},
		"triggered by a build of juliagpu/gpuarrays that is not trusted: triggered by a build of github.com/juliagpu/amdgpu.jl", 3)
	t.Log("a fork of a pair's")
	theirs := inPairOf(restserver.Build{PullRequest: &restserver.PullRequest{ID: "3", Base: "main", Repository: "https://github.com/mallory/GPUArrays.jl"}})
	ask(restserver.Build{TriggeredBy: add(theirs)}, "triggered by a build of juliagpu/gpuarrays that is not trusted: pull request 3 is from", 2)

	t.Log("a fork's build, again")
	ofFork.Pipeline = "cuda-dot-jl"
	original := add(ofFork)
	ask(restserver.Build{Source: "ui", RebuiltFrom: original}, "a rebuild of a build of juliagpu/cuda-dot-jl that is not trusted: pull request 17", 2)
	t.Log("and hides that it is a rebuild")
	b = h.build(restserver.Build{Source: "ui", RebuiltFrom: original})
	h.run(mergeEnv(states(b), map[string]string{"BUILDKITE_REBUILT_FROM_BUILD_ID": ""}), "the job states nothing for BUILDKITE_REBUILT_FROM_BUILD_ID", 2)

	t.Log("no beginning")
	last := add(restserver.Build{})
	for range 50 {
		last = add(restserver.Build{TriggeredBy: last})
	}
	ask(restserver.Build{TriggeredBy: last}, "Buildkite's API does not attest this build: ", 10)
	t.Log("no such parent")
	ask(restserver.Build{TriggeredBy: &restserver.Build{Pipeline: "cuda-jl", Number: 4711, ID: restserver.RandomID()}}, "Buildkite's API does not attest this build: ", 2)
}

func TestAttestedIsolation(t *testing.T) { inEachMode(t, testAttestedIsolation) }

// Where a neighbour could read it, the token is not read, and nobody is asked.
func testAttestedIsolation(t *testing.T, m mode) {
	h := newAttestingHost(t, m, restserver.Good, "20s", noPolicy)
	h.host.run(row{id: attestedJob, env: states(h.build(restserver.Build{})), status: 1, noOpen: []string{h.value},
		secrets: map[string]string{"SECRET_TOKEN": seal(t, h.to, "TOKEN", h.value, nil)},
		log:     []string{"SECRET_TOKEN: withheld: no secret is opened in this container: policy.trust: "}})
	require.Empty(t, h.api.Requests())
}

func TestAPIDown(t *testing.T) { inEachMode(t, testAPIDown) }

// With the API down, or lying, nothing is opened that needs it; the job runs on, and
// a step that can't fails with the status for machines.
func testAPIDown(t *testing.T, m mode) {
	for name, tt := range map[string]struct {
		fault       restserver.Fault
		certificate restserver.Certificate
		reason      string
	}{
		"nobody there":                  {nil, restserver.Good, ""},
		"silent":                        {restserver.Silent, restserver.Good, ""},
		"HTML":                          {restserver.HTML, restserver.Good, ""},
		"500":                           {restserver.Status(500), restserver.Good, ""},
		"the token is revoked":          {restserver.Status(401), restserver.Good, "401"},
		"too many requests":             {restserver.Status(429, "Retry-After: 30"), restserver.Good, "429"},
		"a certificate of another host": {nil, restserver.OtherHost, "certificate"},
		"100 MB":                        {restserver.Bomb(100 << 20), restserver.Good, "16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newAttestingHost(t, m, tt.certificate, "2s", "")
			h.api.AddPipeline(restserver.Pipeline{Slug: "cuda-dot-jl"})
			honest := states(h.build(restserver.Build{}))
			if tt.fault != nil {
				h.api.Fail("", -1, tt.fault)
			} else if tt.certificate == restserver.Good {
				h.api.Close()
			}
			text := h.run(honest, "Buildkite's API could not be asked: ", -1)
			require.Regexp(t, `(?m)^\+\+\+ :key: Secrets$`, text, "the group is open")
			require.Contains(t, text, tt.reason)
			require.Regexp(t, `(?m)^hint: .`, text)
			require.Contains(t, text, "retry: 1\n")
		})
	}
	t.Run("a step that requires a secret", func(t *testing.T) {
		t.Parallel()
		h := newAttestingHost(t, m, restserver.Good, "2s", "")
		honest := states(h.build(restserver.Build{}))
		h.api.Close()
		r := h.host.run(row{id: attestedJob, env: mergeEnv(honest, use(h.plugin(), `{"required":["TOKEN"]}`)),
			secrets: map[string]string{"SECRET_TOKEN": seal(t, h.to, "TOKEN", h.value, nil)}, status: 75, noOpen: []string{h.value},
			log: []string{"SECRET_TOKEN: withheld: Buildkite's API could not be asked: ", "TOKEN: required by this step, and not granted: "}})
		require.Len(t, r.Annotations, 1)
	})
}

// TestCanceledWhileAsking: a job that is canceled while the API is asked leaves no
// credential for what still runs of it, its hooks at the end, and nobody who asks.
func TestCanceledWhileAsking(t *testing.T) {
	t.Parallel()
	h := newAttestingHost(t, direct, restserver.Good, "60s", "consume: true\n")
	honest := states(h.build(restserver.Build{}))
	h.api.Fail("", -1, restserver.Silent)
	credentials := h.identityTexts()
	require.Len(t, credentials, 2)
	r, err := h.agent.Run(t.Context(), agenttest.Job{
		ID: attestedJob, Command: "true", CancelOn: "environment hook",
		Env: mergeEnv(honest, map[string]string{"SECRET_TOKEN": seal(t, h.to, "TOKEN", h.value, nil)}),
	})
	require.NoError(t, err)
	require.Equal(t, "cancel", r.SignalReason, r.Text())
	require.Len(t, h.api.Requests(), 1, "it was canceled in time")
	require.Empty(t, h.identityTexts(), "the identity and the token are left")
	h.search(r, nil, append(credentials, []byte(h.value)))
}

// TestAttestedPlugin: where the plugin does the whole job, it asks, too.
func TestAttestedPlugin(t *testing.T) {
	t.Parallel()
	h := newAttestingHost(t, direct, restserver.Good, "2s", "")
	h.api.AddPipeline(restserver.Pipeline{Slug: "cuda-dot-jl"})
	h.agentLevel(false)
	plugin := use(h.plugin(), `{"required":["TOKEN"]}`)
	h.run(mergeEnv(states(h.build(restserver.Build{})), plugin), "", 1)
	h.api.Close()
	h.host.run(row{id: attestedJob, env: mergeEnv(states(h.build(restserver.Build{})), plugin),
		secrets: map[string]string{"SECRET_TOKEN": seal(t, h.to, "TOKEN", h.value, nil)}, status: 75, noOpen: []string{h.value},
		log: []string{"TOKEN: required by this step, and not granted: Buildkite's API could not be asked: "}})
}
