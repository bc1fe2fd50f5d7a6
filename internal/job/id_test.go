package job

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatedID(t *testing.T) {
	const id = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"
	for _, tt := range []struct {
		name, file string
		ok         bool
	}{
		{"as the agent writes it", "/tmp/job-env-" + id + "2950382716", true},
		{"elsewhere", "/var/lib/buildkite-agent/tmp/job-env-" + id + "0", true},
		{"no file", "", false},
		{"without the digits that make it unique", "/tmp/job-env-" + id, false},
		{"letters behind it", "/tmp/job-env-" + id + "12x", false},
		{"another file", "/tmp/env-" + id + "1", false},
		{"upper case", "/tmp/job-env-" + strings.ToUpper(id) + "1", false},
		{"no UUID", "/tmp/job-env-0190b5c41f2e4c3d9a8b7c6d5e4f3a2bxxxx1", false},
		{"a dash elsewhere", "/tmp/job-env-0190b5c-41f2e-4c3d-9a8b-7c6d5e4f3a2b1", false},
		{"a way up", "/tmp/job-env-../../../../../../../../etc/shadow/..1", false},
		{"a job's variable named BUILDKITE_ENV_FILE=/tmp/x", "/tmp/x=/job-env-" + id + "1", false},
		{"the newer agents' other file", "/tmp/job-env-json-" + id + "1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The job's own word is never asked.
			got, err := StatedID([]string{"BUILDKITE_JOB_ID=" + id, "BUILDKITE_ENV_FILE=" + tt.file})
			if !tt.ok {
				require.ErrorIs(t, err, ErrNoID)
				require.Zero(t, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, id, got.String())
		})
	}
	_, err := StatedID([]string{"BUILDKITE_JOB_ID=" + id})
	require.ErrorIs(t, err, ErrNoID)
	file := "BUILDKITE_ENV_FILE=/tmp/job-env-" + id + "1"
	_, err = StatedID([]string{file, file})
	require.ErrorIs(t, err, ErrNoID, "stated twice")
}
