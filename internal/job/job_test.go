package job

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	j := Parse([]string{
		"PATH=/usr/bin", "", "no name", "=no name either",
		"BUILDKITE_ORGANIZATION_SLUG=juliagpu",
		"BUILDKITE_PIPELINE_SLUG=cuda-jl",
		"BUILDKITE_REPO=https://github.com/JuliaGPU/CUDA.jl.git",
		"BUILDKITE_BRANCH=main",
		"BUILDKITE_TAG=",
		"BUILDKITE_PULL_REQUEST=17",
		"BUILDKITE_PULL_REQUEST_REPO=git://github.com/mallory/CUDA.jl",
		"BUILDKITE_PULL_REQUEST_BASE_BRANCH=main",
		"BUILDKITE_SOURCE=webhook",
		"BUILDKITE_GITHUB_EVENT=pull_request",
		"BUILDKITE_TRIGGERED_FROM_BUILD_ID=0190",
		"BUILDKITE_COMMAND=make test",
		"SECRET_B=b=c",
		"SECRET_A=",
		"SECRET_=x",
		"MY_SECRET_X=not ours",
		"secret_y=not ours",
	})
	require.Equal(t, Facts{
		Origin: Claimed, Organization: "juliagpu", Pipeline: "cuda-jl", Repo: "https://github.com/JuliaGPU/CUDA.jl.git",
		Branch: "main", PullRequest: "17", PullRequestRepo: "git://github.com/mallory/CUDA.jl", PullRequestBase: "main",
		Source: "webhook", Event: "pull_request", TriggeredFrom: "0190",
	}, j.Facts)
	require.Equal(t, []Sealed{{"SECRET_", "x"}, {"SECRET_A", ""}, {"SECRET_B", "b=c"}}, j.Sealed, "by prefix only, sorted")
	require.False(t, j.Upload)

	require.True(t, j.Facts.IsPullRequest())
	require.Equal(t, "juliagpu/cuda-jl", j.Facts.Slug())
	name, err := j.Facts.Repository()
	require.NoError(t, err)
	require.Equal(t, "github.com/juliagpu/cuda.jl", name.String())
}

func TestParseSeesWhatIsStatedTwice(t *testing.T) {
	j := Parse([]string{"BUILDKITE_PULL_REQUEST=17", "B=1", "BUILDKITE_PULL_REQUEST=false", "B=1"})
	require.Equal(t, []string{"B", "BUILDKITE_PULL_REQUEST"}, j.Facts.Twice)
}

func TestUpload(t *testing.T) {
	for command, want := range map[string]bool{
		"buildkite-agent pipeline upload":                        true,
		"  buildkite-agent  pipeline upload .buildkite/x.yml \n": true,
		"buildkite-agent pipeline upload --replace x.yml":        true,
		"":                         false,
		"make test":                false,
		"buildkite-agent pipeline": false,
		"buildkite-agent pipeline upload && make deploy":                               false,
		"buildkite-agent pipeline upload\nmake deploy":                                 false,
		"echo buildkite-agent pipeline upload":                                         false,
		"buildkite-agent artifact upload x":                                            false,
		"buildkite-agent pipeline upload x.yml; curl example.org":                      false,
		"buildkite-agent pipeline upload a.yml\nbuildkite-agent pipeline upload b.yml": true,
		"buildkite-agent pipeline upload || true":                                      true,
		"buildkite-agent pipeline upload a.yml # one; two":                             false, // "two" may be anything
		"buildkite-agent pipeline upload a.yml # just one":                             true,
		"/usr/bin/buildkite-agent pipeline upload":                                     true,
		`"buildkite-agent" pipeline upload`:                                            true,
		"buildkite-agent --debug pipeline upload":                                      true,
		"true": false,
	} {
		require.Equal(t, want, IsUpload(command), "%q", command)
	}
}
