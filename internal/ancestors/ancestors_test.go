package ancestors

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPIDs(t *testing.T) {
	pids := PIDs()
	require.Equal(t, os.Getppid(), pids[0])
	grandparent, ok := parent(os.Getppid())
	require.True(t, ok)
	require.True(t, grandparent <= 0 || slices.Contains(pids, grandparent))
	require.NotContains(t, pids, os.Getpid())
	require.NotContains(t, pids, 0)
}
