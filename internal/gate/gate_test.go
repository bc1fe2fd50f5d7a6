package gate

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestReplaces(t *testing.T) {
	for name, want := range map[string]bool{
		"BUILDKITE_HOOKS_PATH":               true,
		"BUILDKITE_HOOKS_PATH=/n":            true,
		"BUILDKITE_HOOKS_PATH=":              true,
		"BUILDKITE_KUBERNETES_EXEC":          true,
		"BUILDKITE_GIT_CLONE_FLAGS":          false, // the agent's, too, and pipelines set it in vain
		"BUILDKITE_GIT_CLONE_FLAGS=-c x=y":   true,
		"BUILDKITE_PULL_REQUEST_REPO=x":      true,
		"BUILDKITE=x":                        true,
		"BUILDKITE_COMMAND":                  false,
		"MY_BUILDKITE_HOOKS_PATH":            false,
		"buildkite_hooks_path":               false,
		"BUILDKITE_HOOKS_PATHS":              false,
		"X=BUILDKITE_HOOKS_PATH":             false,
		"X\nBUILDKITE_HOOKS_PATH":            false, // another variable, in the bootstrap as in the file
		"BUILDKITE_HOOKS_PATH=\"x\"\nY":      true,
		"BUILDKITE_AGENT_META_DATA_QUEUE":    false,
		"BUILDKITE_AGENT_META_DATA_QUEUE= x": true,
	} {
		assert.Equal(t, want, Replaces(name), "%q", name)
	}
}

func TestGroup(t *testing.T) {
	for name, want := range map[string]string{
		"LD_PRELOAD": "loader", "LD_": "loader", "GCONV_PATH": "loader", "MY_LD_PRELOAD": "",
		"BASH_ENV": "shell", "ENV": "shell", "BASH_FUNC_git%%": "shell", "ENVIRONMENT": "",
		"PATH": "path", "PATH=/x": "path", "GOPATH": "",
		"GIT_CONFIG_COUNT": "git", "GIT_SSH_COMMAND": "git", "HOME": "git", "GIT_AUTHOR_NAME": "", "GIT_COMMIT": "",
		"BUILDKITE_BUILD_CHECKOUT_PATH": "checkout", "BUILDKITE_AGENT_NO_JOB_API": "agent", "": "",
	} {
		assert.Equal(t, want, Group(name), "%q", name)
	}
	assert.Equal(t, []string{"loader", "shell", "path", "git", "checkout", "agent"}, Groups())
}
