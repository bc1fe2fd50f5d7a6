//go:build unix

package agent

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSetup(t *testing.T) {
	t.Parallel()
	s := Setup{
		args: []string{"/usr/bin/buildkite-agent", "start", "--spawn", "2", "-experiment=a", "--experiment", "b,c", "--no-pty", "--hooks-path=/h=x", "--disconnect-after-job=false", "--queue"},
		env:  []string{"BUILDKITE_AGENT_SPAWN=3", "BUILDKITE_BOOTSTRAP_SCRIPT_PATH=/launch", "BUILDKITE_EMPTY=", "BUILDKITE_NO_SSH_KEYSCAN=1"},
		file: parse(`
# token="no"
token="secret" # the agent's
  name=%hostname-%spawn # a comment
tags='queue=gpu,a#b'
priority: 5
export spawn=4
build-path = /b
disconnect-after-job=true
no-plugins=true
bootstrap-script="/other"
nonsense
`),
	}
	for _, tt := range []struct {
		flag, variable string
		want           []string
	}{
		{"spawn", "BUILDKITE_AGENT_SPAWN", []string{"2"}},
		{"experiment", "BUILDKITE_AGENT_EXPERIMENT", []string{"a", "b,c"}},
		{"hooks-path", "", []string{"/h=x"}},
		{"bootstrap-script", "BUILDKITE_BOOTSTRAP_SCRIPT_PATH", []string{"/launch"}},
		{"tags", "BUILDKITE_AGENT_TAGS", []string{"queue=gpu,a#b"}},
		{"name", "", []string{"%hostname-%spawn"}},
		{"priority", "", []string{"5"}},
		{"build-path", "BUILDKITE_EMPTY", []string{"/b"}},
		{"queue", "", nil},
		{"start", "", nil},
		{"absent", "ABSENT", nil},
	} {
		assert.Equal(t, tt.want, s.Values(tt.flag, tt.variable), tt.flag)
	}
	assert.True(t, s.On("no-pty", "BUILDKITE_NO_PTY"))
	assert.True(t, s.On("no-plugins", "BUILDKITE_NO_PLUGINS"))
	assert.True(t, s.On("no-ssh-keyscan", "BUILDKITE_NO_SSH_KEYSCAN"))
	assert.False(t, s.On("disconnect-after-job", "BUILDKITE_AGENT_DISCONNECT_AFTER_JOB"), "the argument before the file")
	assert.False(t, s.On("absent", "ABSENT"))
	assert.True(t, s.InArguments("spawn"))
	assert.False(t, s.InArguments("token"))
	assert.True(t, s.InFile("token"))
	require.Equal(t, "secret", s.file["token"])
}

func TestFindFile(t *testing.T) {
	t.Parallel()
	s := Setup{args: []string{"a", "start", "--config", "/x/agent.cfg"}}
	require.NoError(t, s.find("/bin"))
	require.Equal(t, "/x/agent.cfg", s.File)
	s = Setup{env: []string{"BUILDKITE_AGENT_CONFIG=agent.cfg"}}
	require.Error(t, s.find("/bin"))
}
