package grant

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// TestAskClosesFirst: the token is in no process that its neighbours can read.
func TestAskClosesFirst(t *testing.T) {
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	config := settings.Settings{Attest: settings.Attest{Token: filepath.Join(t.TempDir(), "nowhere")}}
	Case{Undecided: true}.Ask(config, os.Getuid(), job.ID{}, "/nowhere/attest")
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	require.Zero(t, dumpable)
}
