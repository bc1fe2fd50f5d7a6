package pipeline

import (
	"slices"
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
		{Name: "up", Line: 5, Command: "buildkite-agent pipeline upload", Own: []Sealed{{Name: "SECRET_U", Text: "u", Line: 8, Column: 5, Steps: []string{"up"}}}},
		{Name: "all", Line: 9},
		{Name: ":rocket: deploy", Line: 11, Command: "make\nmake deploy", Own: []Sealed{{Name: "SECRET_A", Text: "a", Line: 1, Column: 13, Steps: []string{":rocket: deploy"}}}},
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

// TestTriggered: what a triggered build gets is told, wherever it is written.
func TestTriggered(t *testing.T) {
	for file, want := range map[string]bool{
		"steps: [{trigger: x, build: {env: {SECRET_A: a}}}]":                                    true,
		"steps: [{group: g, steps: [{build: {env: {SECRET_A: a}}, trigger: x}]}]":               true,
		"- {trigger: x, build: {env: {SECRET_A: a}}}":                                           true,
		"trigger: x\nbuild: {env: {SECRET_A: a}}":                                               true,
		"env: &e {SECRET_A: a}\nsteps: [{trigger: x, build: {env: *e}}]":                        true,
		"env: &e {SECRET_A: a}\nsteps: [{trigger: x, build: {env: {<<: *e}}}]":                  true,
		"x: &x {trigger: x}\nsteps: [{<<: *x, build: {env: {SECRET_A: a}}}]":                    true,
		"env: {SECRET_A: &a a}\nsteps: [{trigger: x, build: {env: {SECRET_B: *a}}}]":            true,
		"env: {SECRET_A: a}\nsteps: [{trigger: x, build: {branch: main}}]":                      false,
		"steps: [{command: x, plugins: [{p#v1: {build: {env: {SECRET_A: a}}}}]}]":               false,
		"steps: [{command: x, env: {SECRET_A: a}}, {trigger: x, build: {env: {B: b}}, key: a}]": false,
	} {
		found, err := Scalars([]byte(file))
		require.NoError(t, err, file)
		require.Len(t, found, 1, file)
		require.Equal(t, want, slices.ContainsFunc(found[0].Entries, func(e Sealed) bool { return e.Triggered }), file)
	}
}
