package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/grant"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
)

// TestReconcile: what no longer fits the job is withheld, and nothing is granted.
func TestReconcile(t *testing.T) {
	const sealed = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCg=="
	facts := job.Facts{Repo: "https://github.com/JuliaGPU/CUDA.jl", Branch: "main"}
	changed := facts
	changed.PullRequestRepo = "\"https://github.com/JuliaGPU/CUDA.jl\"\nY=z"
	granted := unseal.Result{Variable: "SECRET_A", Outcome: unseal.Granted, Set: []envelope.Variable{{Name: "A", Value: plaintext.New("hunter2")}}}
	a, b, note := job.Sealed{Variable: "SECRET_A", Text: sealed}, job.Sealed{Variable: "SECRET_B", Text: sealed}, job.Sealed{Variable: "SECRET_NOTE", Text: "plain"}
	for _, tt := range []struct {
		name string
		left grant.Answer
		job  job.Job
		want []string // variable and reason; "granted"
	}{
		{"as it was", grant.Answer{Results: []unseal.Result{granted}}, job.Job{Facts: facts, Sealed: []job.Sealed{a}}, []string{"SECRET_A granted"}},
		{"another fact", grant.Answer{Results: []unseal.Result{granted}}, job.Job{Facts: changed, Sealed: []job.Sealed{a}},
			[]string{"SECRET_A BUILDKITE_PULL_REQUEST_REPO is not what it was before the job began"}},
		{"one that was not there", grant.Answer{Results: []unseal.Result{granted}}, job.Job{Facts: facts, Sealed: []job.Sealed{a, b, note}},
			[]string{"SECRET_A granted", "SECRET_B it was not in the job's environment before the job began", "SECRET_NOTE not a sealed value, left as it is"}},
		{"nothing was read", grant.Answer{Reason: "the agent's file can't be read"}, job.Job{Facts: facts, Sealed: []job.Sealed{a}},
			[]string{"SECRET_A the agent's file can't be read"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.left.Facts = facts.Stated()
			var got []string
			for _, r := range reconcile(tt.left, tt.job) {
				text := r.Variable + " " + r.Reason
				if r.Outcome == unseal.Granted {
					text = r.Variable + " granted"
				}
				got = append(got, text)
			}
			require.Equal(t, tt.want, got)
		})
	}
}
