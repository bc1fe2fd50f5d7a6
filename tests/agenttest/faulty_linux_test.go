package agenttest

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFaultOwner is about what a hook can see of a socket's owner (SO_PEERCRED):
// the wrapper, which is an ancestor of the hook, but not for "sibling".
func TestFaultOwner(t *testing.T) {
	program, err := BuildFaultyJobAPI(t.Context(), t.TempDir())
	require.NoError(t, err)
	owner := func(name string) (owner int32, wrapper int) {
		f := startFault(t, program, name)
		conn, err := net.Dial("unix", f.socket)
		require.NoError(t, err)
		defer conn.Close()
		file, err := conn.(*net.UnixConn).File()
		require.NoError(t, err)
		defer file.Close()
		cred, err := syscall.GetsockoptUcred(int(file.Fd()), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		require.NoError(t, err)
		return cred.Pid, f.cmd.Process.Pid
	}
	pid, wrapper := owner("ok")
	assert.EqualValues(t, wrapper, pid)
	pid, wrapper = owner("sibling")
	assert.NotEqualValues(t, wrapper, pid)
}
