package trust

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

func name(s string) repo.Name {
	n, err := repo.Parse(s)
	if err != nil {
		panic(err)
	}
	return n
}

// The world: a push to a repository whose operator restricted nothing.
var push = job.Facts{
	Organization: "juliagpu", Pipeline: "cuda-jl", Repo: "https://github.com/JuliaGPU/CUDA.jl.git",
	Branch: "main", PullRequest: "false", Source: "webhook", Event: "push", Commit: commit,
}

const commit = "83a20ec058e2fb00e7fa4558c4c6e81e2dcf253d"

func with(f job.Facts, change func(*job.Facts)) job.Facts { change(&f); return f }

// A pull request from a branch of the same repository, as GitHub's webhook
// spells its head.
var own = with(push, func(f *job.Facts) {
	f.Branch, f.PullRequest, f.PullRequestBase = "fix", "17", "main"
	f.PullRequestRepo, f.Event = "git://github.com/JuliaGPU/CUDA.jl.git", "pull_request"
})

var mallory = with(own, func(f *job.Facts) { f.PullRequestRepo = "https://github.com/mallory/CUDA.jl" })

var triggeredPush = with(push, func(f *job.Facts) { f.Source, f.TriggeredFrom, f.Event = "trigger_job", "0190", "" })

func trigger(f *job.Facts) { f.Source, f.TriggeredFrom, f.Event = "trigger_job", "0191", "" }

var other = with(push, func(f *job.Facts) { f.Pipeline, f.Repo = "gpuarrays-jl", "https://github.com/JuliaGPU/GPUArrays.jl" })

// attest is what the API says of a build, and of those up its trigger chain. Each
// has the id that its child names.
func attest(build job.Facts, chain ...job.Facts) *Attestation {
	build.Origin, build.Event = job.Attested, "" // which the API does not state
	a := &Attestation{ID: "0199", Build: build}
	if len(chain) > 0 {
		a.TriggeredBy = attest(chain[0], chain[1:]...)
		a.TriggeredBy.ID = build.TriggeredFrom
	}
	return a
}

// rebuilt attests a rebuild of another build.
func rebuilt(build job.Facts, original *Attestation) *Attestation {
	a := attest(build)
	original.ID = build.RebuiltFrom
	a.RebuiltFrom = original
	return a
}

var rebuild = with(push, func(f *job.Facts) { f.Source, f.Event, f.RebuiltFrom = "ui", "", "0180" })

// cases show every row from both sides. row 11 is "yes".
var cases = []struct {
	name     string
	claimed  job.Facts
	attested *Attestation
	rules    Rules
	row      int
	reason   string // part of it
}{
	{name: "push", claimed: push, row: 11},
	{name: "own pull request, head spelled git://", claimed: own, row: 11},
	{name: "tag", claimed: with(push, func(f *job.Facts) { f.Branch, f.Tag = "v1.2", "v1.2" }), row: 11},
	{name: "merge queue", claimed: with(push, func(f *job.Facts) {
		f.Branch, f.Event = "gh-readonly-queue/main/pr-17-0123", "merge_group"
	}), row: 11},

	{name: "1 no pull-request flag", claimed: with(push, func(f *job.Facts) { f.PullRequest = "" }), row: 1, reason: "BUILDKITE_PULL_REQUEST is not stated"},
	{name: "1 flag that is neither false nor a number", claimed: with(push, func(f *job.Facts) { f.PullRequest = "true" }), row: 1, reason: "BUILDKITE_PULL_REQUEST makes no sense: true"},
	{name: "1 flag in another case", claimed: with(push, func(f *job.Facts) { f.PullRequest = "False" }), row: 1},
	{name: "1 flag with a zero before it", claimed: with(own, func(f *job.Facts) { f.PullRequest = "017" }), row: 1},
	{name: "1 no repository", claimed: with(push, func(f *job.Facts) { f.Repo = "" }), row: 1, reason: "BUILDKITE_REPO is not stated"},
	{name: "1 local repository", claimed: with(push, func(f *job.Facts) { f.Repo = "/srv/git/cuda.jl" }), row: 1, reason: "BUILDKITE_REPO makes no sense"},
	{name: "1 no organization", claimed: with(push, func(f *job.Facts) { f.Organization = "" }), row: 1, reason: "ORGANIZATION"},
	{name: "1 organization that is no slug", claimed: with(push, func(f *job.Facts) { f.Organization = "a/b" }), row: 1, reason: "ORGANIZATION"},
	{name: "1 no pipeline", claimed: with(push, func(f *job.Facts) { f.Pipeline = "" }), row: 1, reason: "PIPELINE"},
	{name: "1 pipeline that is no slug", claimed: with(push, func(f *job.Facts) { f.Pipeline = "../x" }), row: 1, reason: "PIPELINE"},
	{name: "1 no branch", claimed: with(push, func(f *job.Facts) { f.Branch = "" }), row: 1, reason: "BUILDKITE_BRANCH is not stated"},
	{name: "1 branch with a line break", claimed: with(push, func(f *job.Facts) { f.Branch = "a\n+++ b" }), row: 1, reason: `"a\n+++ b"`},
	{name: "1 stated twice", claimed: with(push, func(f *job.Facts) { f.Twice = []string{"BUILDKITE_PULL_REQUEST"} }), row: 1, reason: "BUILDKITE_PULL_REQUEST is stated twice"},
	{name: "1 doubted", claimed: with(push, func(f *job.Facts) { f.Doubt = "a name is none" }), row: 1, reason: "a name is none"},

	{name: "1 another variable in a head's place", claimed: with(mallory, func(f *job.Facts) { f.PullRequestRepo = "https://x1=y@github.com/JuliaGPU/CUDA.jl" }), row: 1, reason: "BUILDKITE_PULL_REQUEST_REPO holds an ="},
	{name: "1 another variable in a branch's place", claimed: with(push, func(f *job.Facts) { f.Branch = "main=x" }), row: 1, reason: "BUILDKITE_BRANCH holds an ="},
	{name: "1 another variable in a source's place", claimed: with(push, func(f *job.Facts) { f.Source = "webhook=" }), row: 1},

	{name: "2 head without pull request", claimed: with(push, func(f *job.Facts) { f.PullRequestRepo = push.Repo }), row: 2, reason: "PULL_REQUEST_REPO"},
	{name: "2 base without pull request", claimed: with(push, func(f *job.Facts) { f.PullRequestBase = "main" }), row: 2, reason: "BASE_BRANCH"},
	{name: "2 trigger without the build", claimed: with(push, func(f *job.Facts) { f.Source = "trigger_job" }), row: 2, reason: "TRIGGERED_FROM"},
	{name: "2 the build without trigger", claimed: with(push, func(f *job.Facts) { f.TriggeredFrom = "0190" }), row: 2, reason: "BUILDKITE_SOURCE=webhook contradicts BUILDKITE_TRIGGERED_FROM_BUILD_ID=0190"},
	{name: "2 tag with another branch", claimed: with(push, func(f *job.Facts) { f.Tag = "v1.2" }), row: 2, reason: "BUILDKITE_TAG=v1.2 contradicts BUILDKITE_BRANCH=main"},

	{name: "2 tag and pull request", claimed: with(own, func(f *job.Facts) { f.Branch, f.Tag = "v1.2", "v1.2" }), row: 2, reason: "BUILDKITE_TAG=v1.2 contradicts BUILDKITE_PULL_REQUEST=17"},

	{name: "3 attested repository differs", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Repo = other.Repo })), row: 3, reason: "gpuarrays"},
	{name: "3 attested repository is the same", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Repo = "git@github.com:juliagpu/cuda.jl" })), row: 11},
	{name: "3 map differs", claimed: push, rules: Rules{Pipelines: map[string]repo.Name{"juliagpu/cuda-jl": name("github.com/juliagpu/amdgpu.jl")}}, row: 3, reason: "github.com/juliagpu/amdgpu.jl"},
	{name: "3 map lacks the pipeline", claimed: push, rules: Rules{Pipelines: map[string]repo.Name{}}, row: 3, reason: "juliagpu/cuda-jl"},
	{name: "3 map agrees", claimed: push, rules: Rules{Pipelines: map[string]repo.Name{"juliagpu/cuda-jl": name("github.com/juliagpu/cuda.jl")}}, row: 11},
	{name: "3 a fork names itself as the pipeline's repository", claimed: with(mallory, func(f *job.Facts) { f.Repo = f.PullRequestRepo }),
		rules: Rules{Pipelines: map[string]repo.Name{"juliagpu/cuda-jl": name("github.com/juliagpu/cuda.jl")}}, row: 3, reason: "mallory"},

	{name: "4 no head", claimed: with(own, func(f *job.Facts) { f.PullRequestRepo = "" }), row: 4, reason: "pull request 17 does not state its head"},
	{name: "4 head that is no address", claimed: with(own, func(f *job.Facts) { f.PullRequestRepo = "/srv/git/cuda.jl" }), row: 4, reason: "/srv/git"},

	{name: "5 fork", claimed: mallory, row: 5, reason: "pull request 17 is from github.com/mallory/cuda.jl, not from github.com/juliagpu/cuda.jl"},
	{name: "5 fork on another forge", claimed: with(own, func(f *job.Facts) { f.PullRequestRepo = "https://gitlab.com/juliagpu/cuda.jl" }), row: 5},
	{name: "5 renamed repository", claimed: with(own, func(f *job.Facts) { f.PullRequestRepo = "https://github.com/JuliaGPU/CUDAnative.jl" }),
		rules: Rules{Aliases: map[repo.Name]repo.Name{name("github.com/juliagpu/cudanative.jl"): name("github.com/juliagpu/cuda.jl")}}, row: 11},

	{name: "6 user:branch", claimed: with(push, func(f *job.Facts) { f.Branch = "mallory:main" }), row: 6, reason: "mallory:main"},
	{name: "6 pull/N/head", claimed: with(push, func(f *job.Facts) { f.Branch = "pull/17/head" }), row: 6},
	{name: "6 refs/pull", claimed: with(push, func(f *job.Facts) { f.Branch = "refs/pull/17/merge" }), row: 6},
	{name: "6 merge-requests", claimed: with(push, func(f *job.Facts) { f.Branch = "merge-requests/17/head" }), row: 6},
	{name: "6 refs/merge-requests", claimed: with(push, func(f *job.Facts) { f.Branch = "refs/merge-requests/17/head" }), row: 6},
	{name: "6 with a plus", claimed: with(push, func(f *job.Facts) { f.Branch = "+refs/pull/17/head" }), row: 6},
	{name: "6 refs with two slashes", claimed: with(push, func(f *job.Facts) { f.Branch = "refs//pull/17/head" }), row: 6},
	{name: "6 Bitbucket's", claimed: with(push, func(f *job.Facts) { f.Branch = "refs/pull-requests/17/from" }), row: 6},
	{name: "6 a branch that only sounds so", claimed: with(push, func(f *job.Facts) { f.Branch = "pull/request-template" }), row: 11},

	{name: "7 triggered", claimed: triggeredPush, row: 7, reason: "0190"},
	{name: "7 attested, but no chain", claimed: triggeredPush, attested: attest(triggeredPush), row: 7},
	{name: "7 attested chain of the same repository", claimed: triggeredPush, attested: attest(triggeredPush, push), row: 11},
	{name: "7 attested chain of two", claimed: triggeredPush, attested: attest(triggeredPush, triggeredPush, push), row: 11},
	{name: "7 chain that begins in a fork", claimed: triggeredPush, attested: attest(triggeredPush, mallory), row: 7, reason: "mallory"},
	{name: "7 chain that begins in a fork, two up", claimed: triggeredPush, attested: attest(triggeredPush, triggeredPush, mallory), row: 7, reason: "mallory"},
	{name: "7 chain that ends early", claimed: triggeredPush, attested: attest(triggeredPush, triggeredPush), row: 7},
	{name: "7 chain of another repository", claimed: triggeredPush, attested: attest(triggeredPush, other), row: 7, reason: "gpuarrays"},
	{name: "7 trusted pair", claimed: triggeredPush, attested: attest(triggeredPush, other),
		rules: Rules{Triggers: []Trigger{{name("github.com/juliagpu/gpuarrays.jl"), name("github.com/juliagpu/cuda.jl")}}}, row: 11},
	{name: "7 trusted pair, of which one was renamed", claimed: triggeredPush, attested: attest(triggeredPush, with(other, func(f *job.Facts) { f.Repo = "https://github.com/JuliaGPU/Arrays.jl" })),
		rules: Rules{
			Aliases:  map[repo.Name]repo.Name{name("github.com/juliagpu/arrays.jl"): name("github.com/juliagpu/gpuarrays.jl")},
			Triggers: []Trigger{{name("github.com/juliagpu/gpuarrays.jl"), name("github.com/juliagpu/cuda.jl")}}}, row: 11},
	{name: "7 trusted pair the other way round", claimed: triggeredPush, attested: attest(triggeredPush, other),
		rules: Rules{Triggers: []Trigger{{name("github.com/juliagpu/cuda.jl"), name("github.com/juliagpu/gpuarrays.jl")}}}, row: 7},

	{name: "7 the parent is another build", claimed: triggeredPush, attested: func() *Attestation {
		a := attest(triggeredPush, push)
		a.TriggeredBy.ID = "0191"
		return a
	}(), row: 7, reason: "which is not known"},
	{name: "7 pair, and the parent's own parent a stranger", claimed: triggeredPush, attested: attest(triggeredPush, with(other, trigger), push),
		rules: Rules{Triggers: []Trigger{{name("github.com/juliagpu/gpuarrays.jl"), name("github.com/juliagpu/cuda.jl")}}}, row: 7, reason: "github.com/juliagpu/cuda.jl, not of github.com/juliagpu/gpuarrays.jl"},
	{name: "7 parent of a pipeline that the map lacks", claimed: triggeredPush, attested: attest(triggeredPush, other), rules: Rules{
		Pipelines: map[string]repo.Name{"juliagpu/cuda-jl": name("github.com/juliagpu/cuda.jl")},
		Triggers:  []Trigger{{name("github.com/juliagpu/gpuarrays.jl"), name("github.com/juliagpu/cuda.jl")}}}, row: 7, reason: "juliagpu/gpuarrays-jl is not among"},
	{name: "7 parent with an = in its branch", claimed: triggeredPush, attested: attest(triggeredPush, with(push, func(f *job.Facts) { f.Branch = "a=b" })), row: 11},
	{name: "7 parent without a branch", claimed: triggeredPush, attested: attest(triggeredPush, with(push, func(f *job.Facts) { f.Branch = "" })), row: 7, reason: "BUILDKITE_BRANCH is not stated"},
	{name: "7 a rebuild, which nobody attests", claimed: rebuild, row: 11},
	{name: "7 a rebuild of a push", claimed: rebuild, attested: rebuilt(rebuild, attest(push)), row: 11},
	{name: "7 a rebuild of a fork's", claimed: rebuild, attested: rebuilt(rebuild, attest(mallory)), row: 7, reason: "a rebuild of a build of juliagpu/cuda-jl that is not trusted: pull request 17 is from github.com/mallory"},
	{name: "7 a rebuild of a build that a fork triggered", claimed: rebuild, attested: rebuilt(rebuild, attest(triggeredPush, mallory)), row: 7, reason: "mallory"},
	{name: "7 a rebuild of a build that a push triggered", claimed: rebuild, attested: rebuilt(rebuild, attest(triggeredPush, push)), row: 11},
	{name: "7 a rebuild of a build that is not known", claimed: rebuild, attested: attest(rebuild), row: 7, reason: "a rebuild of build 0180, which is not known"},
	{name: "7 a rebuild of another repository's, even of a pair", claimed: rebuild, attested: rebuilt(rebuild, attest(other)),
		rules: Rules{Triggers: []Trigger{{name("github.com/juliagpu/gpuarrays.jl"), name("github.com/juliagpu/cuda.jl")}}}, row: 7, reason: "gpuarrays"},
	{name: "7 triggered by a rebuild of a fork's", claimed: triggeredPush, attested: func() *Attestation {
		a := attest(triggeredPush)
		a.TriggeredBy = rebuilt(rebuild, attest(mallory))
		a.TriggeredBy.ID = triggeredPush.TriggeredFrom
		return a
	}(), row: 7, reason: "mallory"},

	{name: "8 comment", claimed: with(push, func(f *job.Facts) { f.Event = "issue_comment" }), row: 8, reason: "issue_comment"},
	{name: "8 review", claimed: with(own, func(f *job.Facts) { f.Event = "pull_request_review" }), row: 8},
	{name: "8 comment, attested", claimed: with(push, func(f *job.Facts) { f.Event = "issue_comment" }), attested: attest(push), row: 11},
	{name: "8 no event", claimed: with(push, func(f *job.Facts) { f.Event = "" }), row: 11},

	{name: "9 attestation is on and there is none", claimed: push, rules: Rules{Attest: true}, row: 9},
	{name: "9 attestation is on and agrees", claimed: push, attested: attest(push), rules: Rules{Attest: true}, row: 11},
	{name: "9 another branch", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Branch = "dev" })), row: 9, reason: "the job states main for BUILDKITE_BRANCH, but Buildkite's API dev"},
	{name: "9 a pull request", claimed: push, attested: attest(mallory), row: 9},
	{name: "9 another head", claimed: own, attested: attest(mallory), row: 9, reason: "mallory"},
	{name: "9 another pipeline", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Pipeline = "x" })), row: 9},
	{name: "9 another organization", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Organization = "x" })), row: 9},
	{name: "9 another tag", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Tag = "v1" })), row: 9},
	{name: "9 another source", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Source = "ui" })), row: 9},
	{name: "9 a rebuild, says only the API", claimed: push, attested: rebuilt(rebuild, attest(push)), row: 9},
	{name: "9 a rebuild, says only the API, and all else agrees", claimed: with(rebuild, func(f *job.Facts) { f.RebuiltFrom = "" }), attested: rebuilt(rebuild, attest(push)),
		row: 9, reason: "the job states nothing for BUILDKITE_REBUILT_FROM_BUILD_ID, but Buildkite's API 0180"},
	{name: "9 a rebuild, says only the job", claimed: rebuild, attested: attest(push), row: 7, reason: "not known"},
	{name: "9 another commit", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Commit = strings.Repeat("0", 40) })), row: 9, reason: "BUILDKITE_COMMIT"},
	{name: "9 a commit that is resolved since", claimed: with(push, func(f *job.Facts) { f.Commit = "HEAD" }), attested: attest(push), row: 11},
	{name: "9 a commit that the API has not resolved", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.Commit = "HEAD" })), row: 9},
	{name: "9 no commit", claimed: with(push, func(f *job.Facts) { f.Commit = "" }), attested: attest(push), row: 9, reason: "the job states nothing for BUILDKITE_COMMIT"},
	{name: "9 triggered, says only the API", claimed: push, attested: attest(with(push, func(f *job.Facts) { f.TriggeredFrom = "0190" })), row: 9},

	{name: "10 no source", claimed: with(push, func(f *job.Facts) { f.Source = "" }), row: 10, reason: "BUILDKITE_SOURCE is not stated"},
	{name: "10 unknown source", claimed: with(push, func(f *job.Facts) { f.Source = "email" }), row: 10, reason: "email"},
	{name: "10 source not listed", claimed: with(push, func(f *job.Facts) { f.Source = "ui" }), rules: Rules{Sources: []string{"webhook"}}, row: 10, reason: "ui"},
	{name: "10 source listed", claimed: push, rules: Rules{Sources: []string{"webhook"}}, row: 11},
	{name: "10 repository not listed", claimed: push, rules: Rules{Repositories: []Pattern{"github.com/juliaparallel/*"}}, row: 10, reason: "github.com/juliagpu/cuda.jl"},
	{name: "10 repository listed", claimed: push, rules: Rules{Repositories: []Pattern{"github.com/juliagpu/cuda.jl"}}, row: 11},
	{name: "10 owner listed", claimed: push, rules: Rules{Repositories: []Pattern{"github.com/juliagpu/*"}}, row: 11},
	{name: "10 owner that begins the same", claimed: push, rules: Rules{Repositories: []Pattern{"github.com/julia/*"}}, row: 10},
}

func TestDecide(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			got := Decide(tt.claimed, tt.attested, tt.rules)
			require.Equal(t, tt.row, got.Row, "%+v", got)
			require.Equal(t, tt.row == 11, got.Trusted)
			require.Contains(t, got.Reason, tt.reason)
			require.NotEmpty(t, got.Reason)
			require.Equal(t, got.Trusted, got.Hint == "", "a no says what to do")
			require.NotContains(t, got.Reason, "\n")
		})
	}
}

// TestClaimed: nobody asks the API where its answer could not turn the "no".
func TestClaimed(t *testing.T) {
	for _, tt := range cases {
		got := Claimed(tt.claimed, tt.rules)
		if !got.Trusted {
			require.False(t, Decide(tt.claimed, tt.attested, tt.rules).Trusted, tt.name)
			require.NotContains(t, []int{7, 8, 9}, got.Row, tt.name)
		} else if tt.attested == nil {
			require.Contains(t, []int{7, 8, 9, 11}, tt.row, tt.name)
		}
	}
}

// TestEachRowCounts removes the rows one by one: some case must end differently,
// and, but for row 4, which row 5 would catch under another name, some case must
// be trusted that should not be.
func TestEachRowCounts(t *testing.T) {
	for i, removed := range rows {
		fewer := slices.Concat(rows[:i], rows[i+1:])
		changed, opened := false, false
		for _, tt := range cases {
			got := decide(fewer, tt.claimed, tt.attested, tt.rules)
			changed = changed || got.Row != tt.row
			opened = opened || got.Trusted && tt.row != 11
		}
		require.True(t, changed, "no case notices that row %d is gone", removed.number)
		if removed.number != 4 {
			require.True(t, opened, "row %d keeps nobody out", removed.number)
		}
	}
}

func TestRowsStandInOrder(t *testing.T) {
	for i, r := range rows {
		require.Equal(t, i+1, r.number)
		require.NotEmpty(t, r.hint)
	}
}

func TestPattern(t *testing.T) {
	for _, s := range []string{"github.com/juliagpu/cuda.jl", "github.com/juliagpu/*", "gitlab.com/a/b/*"} {
		_, err := ParsePattern(s)
		require.NoError(t, err, s)
	}
	for _, s := range []string{"", "*", "/*", "github.com/*", "git.example.org/*", "github.com/*/cuda.jl", "github.com/JuliaGPU/*", "github.com/juliagpu/c*"} {
		_, err := ParsePattern(s)
		require.Error(t, err, s)
	}
}

// FuzzDecide: whatever an attacker states beside a fork's head, the build is
// not trusted; and no reason starts a line of its own.
func FuzzDecide(f *testing.F) {
	f.Add("juliagpu", "cuda-jl", "https://github.com/JuliaGPU/CUDA.jl", "main", "", "17", "https://github.com/mallory/CUDA.jl", "main", "webhook", "push", "")
	f.Fuzz(func(t *testing.T, org, pipeline, address, branch, tag, pr, head, base, source, event, from string) {
		facts := job.Facts{Organization: org, Pipeline: pipeline, Repo: address, Branch: branch, Tag: tag, PullRequest: pr,
			PullRequestRepo: head, PullRequestBase: base, Source: source, Event: event, TriggeredFrom: from}
		got := Decide(facts, nil, Rules{})
		require.NotContains(t, got.Reason, "\n")
		require.True(t, strings.IndexFunc(got.Reason, func(r rune) bool { return r < ' ' }) < 0)
		if !got.Trusted {
			return
		}
		ours, err := repo.FromURL(address)
		require.NoError(t, err)
		if pr != "false" {
			theirs, err := repo.FromURL(head)
			require.NoError(t, err)
			require.Equal(t, ours, theirs)
		}
		require.Empty(t, from)
		for _, fact := range facts.Stated() {
			require.NotContains(t, fact, "=")
		}
	})
}
