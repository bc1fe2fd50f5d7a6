package observe

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// asChild makes the test binary a program: what it is told to print.
const asChild = "GPU_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(asChild) {
	case "":
		os.Exit(m.Run())
	case "facts":
		if err := tellPeers(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
	case "wait":
		os.Stdout.Write([]byte{'\n'})
		os.Stdin.Read(make([]byte, 1)) // until the parent ends
	}
}

// tellPeers prints the PID of a child with a mount namespace of its own, and what
// Facts says of processes.
func tellPeers() error {
	child := exec.Command("/proc/self/exe")
	child.Env = []string{asChild + "=wait"}
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	in, err := child.StdinPipe()
	if err != nil {
		return err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		return err
	}
	h, done := Machine(nil)
	f := Facts(h, nil, gpu.Want{})
	done()
	in.Close()
	if err := child.Wait(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(told{Child: child.Process.Pid, Peers: f.Peers, Unread: f.Unread[gpu.FromProcesses]})
}

type told struct {
	Child  int
	Peers  gpu.Peers
	Unread string
}

func TestMachine(t *testing.T) {
	h, done := Machine([]string{"HOME=/tmp", "SECRET_X=hunter2", "HOME=/"})
	require.Equal(t, map[string]string{"HOME": "/"}, h.Env, "nothing but what it names, and the last one")
	f := Facts(h, nil, gpu.Want{})
	done()
	require.NoDirExists(t, h.Scratch)
	for _, source := range []gpu.Source{gpu.FromStatus, gpu.FromNamespaces, gpu.FromUserMap, gpu.FromLSM, gpu.FromMounts, gpu.FromDevices, gpu.FromProcesses, gpu.FromBootID, gpu.FromNVIDIA, gpu.FromNet} {
		require.Empty(t, f.Unread[source], source)
	}
	require.Equal(t, os.Getuid(), f.Process.UID)
	require.Equal(t, os.Getppid(), f.Process.PPID)
	require.NotZero(t, f.Namespaces.Mount)
	require.True(t, f.Access(devnode.C(1, 3)).Both())
	require.GreaterOrEqual(t, f.Peers.Visible, 1)
	require.False(t, slices.ContainsFunc(f.Peers.Readable, func(p gpu.Peer) bool { return p.PID == os.Getpid() }))
	i := slices.IndexFunc(f.Readings, func(r gpu.Reading) bool { return r.Number == devnode.C(1, 3) })
	require.Contains(t, f.Readings[i].Nodes, "/dev/null")
}

// A process with a mount namespace of its own looks at this one, which is open to
// it, and at its own child with yet another, which is no stranger.
func TestMachinePeers(t *testing.T) {
	need.Root(t, "to make mount namespaces")
	program := exec.Command("/proc/self/exe")
	program.Env = []string{asChild + "=facts"}
	program.Stderr = os.Stderr
	program.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := program.Output()
	require.NoError(t, err)
	var said told
	require.NoError(t, json.Unmarshal(out, &said))
	require.Empty(t, said.Unread)
	peers := map[int]string{}
	for _, p := range said.Peers.Readable {
		peers[p.PID] = p.Name
	}
	require.Equal(t, "observe.test", peers[os.Getpid()], "this process is in another container, so to say")
	require.NotContains(t, peers, program.Process.Pid)
	require.NotContains(t, peers, said.Child)
}

func TestDial(t *testing.T) {
	dir := t.TempDir()
	live, dead, packets := filepath.Join(dir, "live"), filepath.Join(dir, "dead"), filepath.Join(dir, "packets")
	l, err := net.Listen("unix", live)
	require.NoError(t, err)
	defer l.Close()
	p, err := net.ListenPacket("unixgram", packets)
	require.NoError(t, err)
	defer p.Close()
	d, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	require.NoError(t, err)
	d.SetUnlinkOnClose(false)
	d.Close()
	o := observer{Host: Host{Dial: dial}}
	require.Equal(t, gpu.Socket{Path: live, Of: gpu.Engine, Answers: true}, o.connect(live, gpu.Engine))
	require.Equal(t, gpu.Socket{Path: packets, Of: gpu.Engine, Answers: true}, o.connect(packets, gpu.Engine))
	require.Equal(t, gpu.Socket{Path: dead, Of: gpu.Engine, Cause: "connection refused"}, o.connect(dead, gpu.Engine))
	require.Equal(t, gpu.Socket{Path: dir, Of: gpu.Engine, Cause: "connection refused"}, o.connect(dir, gpu.Engine))
}
