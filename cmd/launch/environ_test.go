package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestForged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		environ []string
		want    []string
	}{
		{"as the agent has them", []string{"BUILDKITE_HOOKS_PATH=/h", "BUILDKITE_GIT_CLONE_FLAGS=-v --filter=blob:none", "BUILDKITE_PLUGINS_PATH="}, nil},
		{"the job's own", []string{"A=b=c", "A=", "BUILDKITE_COMMAND=a=b\nc", "=", "", "B"}, nil},
		{"named BUILDKITE_HOOKS_PATH=/n", []string{"BUILDKITE_HOOKS_PATH=/n="}, []string{"BUILDKITE_HOOKS_PATH"}},
		{"with a line break in its name", []string{"BUILDKITE_GIT_CLONE_FLAGS=\"-v\"\nX=y"}, []string{"BUILDKITE_GIT_CLONE_FLAGS"}},
		{"twice, and three times", []string{"BUILDKITE_SHELL=a", "BUILDKITE_BIN_PATH=/b", "BUILDKITE_SHELL=a", "BUILDKITE_BIN_PATH=/b", "BUILDKITE_BIN_PATH=/b"},
			[]string{"BUILDKITE_BIN_PATH", "BUILDKITE_SHELL"}},
		{"a value that is another's name", []string{"X=BUILDKITE_SHELL=a", "BUILDKITE_SHELLX=a=b", "BUILDKITE_SHEL=L=b"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, forged(tt.environ))
		})
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	got := change([]string{"HOME=/root", "A=1", "A=2", "B", "HOME=/x", "XDG_DATA_HOME=/root", "HOMER=/h"}, map[string]string{"HOME": "/h", "XDG_DATA_HOME": ""})
	require.Equal(t, []string{"A=1", "A=2", "B", "HOMER=/h", "HOME=/h"}, got)
}
