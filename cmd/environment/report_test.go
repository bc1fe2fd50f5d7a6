package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
)

var update = flag.Bool("update", false, "write the golden files anew; read them in the diff")

// TestReport shows what a job's log shows, for each end that a job can come to.
func TestReport(t *testing.T) {
	set := func(names ...string) []envelope.Variable {
		var vars []envelope.Variable
		for _, n := range names {
			vars = append(vars, envelope.Variable{Name: n, Value: plaintext.New("canary")})
		}
		return vars
	}
	const forkHint = "expected for forks; a maintainer can push the branch to the repository"
	fork := func(name string) unseal.Result {
		return unseal.Result{Variable: name, Outcome: unseal.Withheld, Hint: forkHint,
			Reason: "pull request 17 is from github.com/mallory/cuda.jl, not from github.com/juliagpu/cuda.jl"}
	}
	granted := []unseal.Result{
		{Variable: "SECRET_CI", Outcome: unseal.Granted, Set: set("CODECOV_TOKEN", "DOCUMENTER_KEY")},
		{Variable: "SECRET_NPM_TOKEN", Outcome: unseal.Granted, Set: set("NPM_TOKEN"), Warning: "expires on 2026-12-20; seal it again before"},
		{Variable: "SECRET_NOTE", Reason: "not a sealed value, left as it is"},
	}
	for name, tt := range map[string]struct {
		report  report
		status  int
		machine error
	}{
		"nothing": {},
		"none":    {report: report{notes: []string{"mode direct: builds of branches only"}, results: granted[2:]}},
		"granted": {report: report{notes: []string{"mode direct: builds of branches only"}, results: granted}},
		"fork":    {report: report{results: []unseal.Result{fork("SECRET_CODECOV_TOKEN"), fork("SECRET_DOCUMENTER_KEY")}}},
		"expired": {report: report{results: append(granted[:1:1], unseal.Result{Variable: "SECRET_OLD", Outcome: unseal.Withheld, Loud: true,
			Reason: "expired on 2026-11-01", Hint: "seal it again with a later --expires"})}},
		"refused": {status: statusRefused, report: report{results: append(granted[:1:1],
			unseal.Result{Variable: "SECRET_X\n+++ hello", Outcome: unseal.Refused, Reason: "not a sealed value: the text ends early",
				Hint: "copy the whole line that encrypt printed, with its closing quote"})}},
		"machine": {status: statusMachine, machine: errors.New("set: the Job API did not do what it was asked: it answered 500"), report: report{results: granted[1:2]}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.machine != nil {
				require.Equal(t, statusMachine, tt.report.machine(tt.machine, hintAPI(tt.machine)))
			}
			var b strings.Builder
			tt.report.print(&b, tt.status, 3*time.Millisecond)
			require.NotContains(t, b.String(), "canary")
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), b.String())
		})
	}
}
