package pipeline

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSteps(t *testing.T) {
	const file = `x: &shared {SECRET_A: a, OTHER: b}
env: {SECRET_P: p}
steps:
- wait
- key: up
  command: buildkite-agent pipeline upload
  env:
    SECRET_U: u
- group: all
  steps:
  - label: ":rocket: deploy"
    commands: [make, make deploy]
    env:
      <<: *shared
  - trigger: cuda-jl
    build: {env: {SECRET_T: t}}
- {trigger: [x], command: {a: b}, env: [c]}
`
	steps, err := Steps([]byte(file))
	require.NoError(t, err)
	require.Equal(t, []Step{
		{Name: "up", Line: 5, Command: "buildkite-agent pipeline upload", Own: []Sealed{{"SECRET_U", "u", 8, 5, []string{"up"}}}},
		{Name: "all", Line: 9},
		{Name: ":rocket: deploy", Line: 11, Command: "make\nmake deploy", Own: []Sealed{{"SECRET_A", "a", 1, 13, []string{":rocket: deploy"}}}},
		{Name: "cuda-jl", Line: 15, Trigger: "cuda-jl"},
		{Name: "the step on line 17", Line: 17},
	}, steps)

	bare, err := Steps([]byte("- command: make\n- wait\n"))
	require.NoError(t, err)
	require.Len(t, bare, 1)

	for text, want := range map[string]string{
		"steps: [": "not YAML", "steps: &a [{steps: *a}]": "unfold", "": "an empty file",
		"steps: " + strings.Repeat("[{steps: ", 60) + strings.Repeat("}]", 60): "unfold",
	} {
		_, err := Steps([]byte(text))
		var e *Error
		require.ErrorAs(t, err, &e, text)
		assert.Contains(t, err.Error(), want)
	}
}

// FuzzSteps: a file has an error, or steps that stand in it.
func FuzzSteps(f *testing.F) {
	f.Add("steps: [{command: a, env: {SECRET_A: b}}]")
	f.Add("a: &a {env: {SECRET_A: b}}\nsteps: [{<<: *a}, *a, {steps: [*a]}]")
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := Steps([]byte(text))
		if err != nil {
			require.ErrorAs(t, err, new(*Error))
			return
		}
		for _, s := range steps {
			for _, of := range append(s.Own, Sealed{Line: s.Line}) {
				require.True(t, 1 <= of.Line && of.Line <= strings.Count(text, "\n")+1, "%+v", s)
			}
		}
	})
}
