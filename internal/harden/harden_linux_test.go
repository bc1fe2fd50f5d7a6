package harden

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func dumpable() bool {
	d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return err != nil || d != 0
}

// TestNeighbours lets a process of the same user look into the program, before
// and after it is hardened. Root looks into everything, so it becomes nobody.
func TestNeighbours(t *testing.T) {
	var nobody *syscall.SysProcAttr
	if os.Getuid() == 0 {
		nobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	look := func(pid int, file string) error {
		cmd := exec.Command("head", "-c1", fmt.Sprintf("/proc/%d/%s", pid, file))
		cmd.SysProcAttr = nobody
		return cmd.Run()
	}
	program := func(mode string) int {
		cmd := exec.Command("/proc/self/exe", mode) // by name, nobody may not reach it
		cmd.SysProcAttr = nobody
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { stdin.Close(); cmd.Wait() })
		_, err = stdout.Read(make([]byte, len("ready")))
		require.NoError(t, err)
		return cmd.Process.Pid
	}
	open := program("wait")
	hardened := program("wait hardened")
	for _, file := range []string{"environ", "maps", "auxv"} {
		require.NoError(t, look(open, file), "%s is open to a neighbour, or this test shows nothing", file)
		assert.Error(t, look(hardened, file), file)
	}
	assert.Error(t, look(hardened, "mem"))
	require.NoError(t, look(hardened, "status"), "what is left to a neighbour")
}
