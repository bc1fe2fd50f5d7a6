package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/grant"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

func TestRejection(t *testing.T) {
	name := func(s string) repo.Name {
		n, err := repo.Parse(s)
		require.NoError(t, err)
		return n
	}
	push := []string{"BUILDKITE_REPO=https://github.com/JuliaGPU/CUDA.jl", "BUILDKITE_PULL_REQUEST=false",
		"BUILDKITE_ORGANIZATION_SLUG=juliagpu", "BUILDKITE_PIPELINE_SLUG=cuda"}
	fork := []string{"BUILDKITE_REPO=https://github.com/JuliaGPU/CUDA.jl", "BUILDKITE_PULL_REQUEST=1", "BUILDKITE_PULL_REQUEST_REPO=git://github.com/Mallory/CUDA.jl.git"}
	repositories := func(patterns ...trust.Pattern) settings.Reject { return settings.Reject{Repositories: patterns} }
	const cuda = "this agent's operator rejects repository github.com/juliagpu/cuda.jl"
	for _, tt := range []struct {
		name   string
		file   envfile.Environment
		reject settings.Reject
		want   string
	}{
		{"nothing to reject", envfile.Environment{Vars: push, Doubt: "a name is none"}, settings.Reject{}, ""},
		{"the agent's own, always", envfile.Environment{Vars: push, Replaced: "BUILDKITE_HOOKS_PATH"}, settings.Reject{},
			"it has a variable that would take the place of BUILDKITE_HOOKS_PATH, and might run without the hooks"},
		{"doubt", envfile.Environment{Vars: push, Doubt: "a name is none"}, repositories("github.com/x/y"), "a name is none, and this agent's operator rejects some jobs"},
		{"twice", envfile.Environment{Vars: append(push, "A=1", "A=2")}, repositories("github.com/x/y"), "A is stated twice, and this agent's operator rejects some jobs"},
		{"another repository", envfile.Environment{Vars: push}, repositories("github.com/x/y"), ""},
		{"this repository", envfile.Environment{Vars: push}, repositories("github.com/x/y", "github.com/juliagpu/cuda.jl"), cuda},
		{"all of the owner's", envfile.Environment{Vars: push}, repositories("github.com/juliagpu/*"), cuda},
		{"by today's name", envfile.Environment{Vars: push}, repositories("github.com/juliagpu/today.jl"), cuda},
		{"the head's", envfile.Environment{Vars: fork}, repositories("github.com/mallory/*"), "this agent's operator rejects repository github.com/mallory/cuda.jl"},
		{"no repository", envfile.Environment{}, repositories("github.com/x/y"), "it states no repository that could be compared, and this agent's operator rejects some"},
		{"the pipeline", envfile.Environment{Vars: push}, settings.Reject{Pipelines: []string{"juliagpu/cuda"}}, "this agent's operator rejects pipeline juliagpu/cuda"},
		{"another pipeline", envfile.Environment{Vars: push}, settings.Reject{Pipelines: []string{"juliagpu/cud"}}, ""},
		{"a variable", envfile.Environment{Vars: append(push, "BASH_ENV=$(id)")}, settings.Reject{Variables: []string{"loader", "shell"}}, "it sets BASH_ENV, and this agent's operator rejects the group shell"},
		{"a variable of another group", envfile.Environment{Vars: append(push, "BASH_ENV=$(id)")}, settings.Reject{Variables: []string{"loader"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			facts := job.Parse(tt.file.Vars).Facts
			facts.Doubt = tt.file.Doubt
			config := settings.Settings{Reject: tt.reject}
			config.Rules.Aliases = map[repo.Name]repo.Name{name("github.com/juliagpu/cuda.jl"): name("github.com/juliagpu/today.jl")}
			require.Equal(t, tt.want, rejection(tt.file, facts, config))
		})
	}
}

// TestNoAgent: outside an agent no job can start, and the identity is not there for
// whatever does.
func TestNoAgent(t *testing.T) {
	file := t.TempDir() + "/identity"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	var log bytes.Buffer
	h := hook{log: &log, environ: []string{"BUILDKITE_JOB_ID=0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"},
		config: settings.Settings{Mode: settings.Split, Consume: true, Identities: []settings.IdentityFile{{Path: file}}}}
	require.Equal(t, statusMachine, h.run())
	require.Contains(t, log.String(), "pre-bootstrap: error: no file with the job's environment: BUILDKITE_ENV_FILE is not set\n")
	require.NoFileExists(t, file)
}

// TestDeadline: the program ends, with the status that refuses the job.
func TestDeadline(t *testing.T) {
	var log bytes.Buffer
	h := hook{log: &log}
	status := make(chan int)
	h.endAfter(time.Microsecond, func(n int) { status <- n })
	require.Equal(t, statusMachine, <-status)
	require.Contains(t, log.String(), "pre-bootstrap: error: no end in time")
}

// TestDeadlineOfAsking: the hook's own time does not run out while the API has more.
func TestDeadlineOfAsking(t *testing.T) {
	h := hook{log: io.Discard, config: settings.Settings{Attest: settings.Attest{Token: t.TempDir() + "/nowhere", Deadline: time.Hour}}}
	ended := make(chan int, 1)
	h.endAfter(200*time.Millisecond, func(status int) { ended <- status })
	defer h.end.Stop()
	_, err := h.ask(grant.Case{Undecided: true}, job.ID{})
	require.NoError(t, err)
	time.Sleep(300 * time.Millisecond)
	require.Empty(t, ended)
}

// TestFail: joined errors are a line each, and an error's own hint comes first.
func TestFail(t *testing.T) {
	var log bytes.Buffer
	h := hook{log: &log}
	require.Equal(t, 75, h.fail(errors.Join(errors.New("one"), &hinted{}), "another"))
	require.Equal(t, "pre-bootstrap: error: one\npre-bootstrap: error: two\npre-bootstrap: hint: its own\n", log.String())
}

type hinted struct{}

func (*hinted) Error() string { return "two" }
func (*hinted) Hint() string  { return "its own" }
