package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// All facts of all fixtures, on both heads: read the golden files like code.
func TestFacts(t *testing.T) {
	for _, name := range fixtures(t) {
		for _, head := range []string{"a", "b"} {
			t.Run(name+"/"+head, func(t *testing.T) {
				h, policy, _ := load(t, name, head)
				require.NotEmpty(t, policy)
				got := golden(t, Facts(h, nil, gpu.Want{SMI: strings.HasPrefix(name, "f2")}))
				file := filepath.Join("testdata", "facts", name+"-"+head+".json")
				if *update {
					require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
					require.NoError(t, os.WriteFile(file, got, 0o644))
				}
				want, err := os.ReadFile(file)
				require.NoError(t, err)
				require.Equal(t, string(want), string(got), "go test ./internal/gpu/observe -update rewrites it")
			})
		}
	}
}

// golden is JSON with a line for each fact and each entry of a list.
func golden(t *testing.T, f gpu.Facts) []byte {
	t.Helper()
	text, err := json.Marshal(f)
	require.NoError(t, err)
	var b bytes.Buffer
	depth, quoted := 0, false
	for i, c := range text {
		switch {
		case c == '"' && text[i-1] != '\\':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			depth++
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
		b.WriteByte(c)
		deep := depth <= 1 || depth <= 3 && text[i] == ',' && (bytes.HasSuffix(text[:i], []byte("}")))
		if !quoted && deep && (c == ',' || depth == 1 && c == '{') {
			b.WriteString("\n" + strings.Repeat("  ", min(depth, 2)))
		}
	}
	return append(b.Bytes(), '\n')
}

// TestFixtures: each container as seen from inside gives the finding that its
// fixture names, and no other deny or warn; under both heads.
func TestFixtures(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, name := range fixtures(t) {
		for _, head := range []string{"a", "b"} {
			t.Run(name+"-"+head, func(t *testing.T) {
				host, text, want := load(t, name, head)
				d := gpu.Demand{Now: now}
				if text != "" {
					policy, err := gpu.ParsePolicy([]byte(text))
					require.NoError(t, err)
					d.Policy = &policy
				}
				r := gpu.Check(Facts(host, d.Policy, d.Want()), d)
				var got []string
				for _, f := range r.Findings {
					require.Empty(t, f.Waived)
					if f.Severity != gpu.Info {
						require.False(t, f.Unknown, f.What)
						got = append(got, f.Severity.String()+" "+f.ID)
					}
				}
				require.ElementsMatch(t, linesOf(want), slices.Compact(got), "%s", strings.Join(r.Lines(), "\n"))
			})
		}
	}
}

func TestNothingElsewhere(t *testing.T) {
	require.Equal(t, gpu.Facts{Platform: "darwin", RDMA: -1}, Facts(Host{Platform: "darwin"}, nil, gpu.Want{SMI: true}))
}

func TestAccess(t *testing.T) {
	f := see(t, "f1", "a", "")
	require.Equal(t, gpu.Probed, f.Method)
	require.True(t, f.Access(devnode.C(195, 2)).Both())
	require.Equal(t, devnode.Denied, f.Access(devnode.C(195, 3)).Read, "asked about though there is no node")
	require.Equal(t, devnode.Access{Cause: "not asked about"}, f.Access(devnode.C(195, 300)))

	f = see(t, "f1", "b", "")
	require.Equal(t, gpu.Listed, f.Method)
	require.Equal(t, devnode.MknodEPERM, f.MethodCause)
	require.True(t, f.Access(devnode.C(195, 2)).Both())
	require.Equal(t, devnode.Absent, f.Access(devnode.C(195, 3)).Read, "no node, and nobody can make one")
	require.Equal(t, devnode.Absent, f.Access(devnode.C(195, 300)).Write)

	f.Unread[gpu.FromNodes] = "more than 4096 files"
	require.Equal(t, devnode.Unknown, f.Access(devnode.C(195, 3)).Read, "there may be a node that was not found")

	f.Method, f.MethodCause = gpu.NotAsked, "no way"
	require.Equal(t, devnode.Access{Cause: "no way"}, f.Access(devnode.C(195, 3)))
	require.True(t, f.Access(devnode.C(195, 2)).Both(), "what has an answer keeps it")
}

// see observes a variant.
func see(t *testing.T, name, head, text string) gpu.Facts {
	t.Helper()
	return Facts(variant(t, name, head, text), nil, gpu.Want{})
}

// status is a process's, with these capabilities that matter.
func status(inh, prm, eff, bnd, amb uint64, nnp int) string {
	return fmt.Sprintf("-- proc/self/status --\nPPid:\t12\nUid:\t1000\t1000\t1000\t1000\nCapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\nNoNewPrivs:\t%d\nSeccomp:\t2\n",
		inh, prm, eff, bnd, amb, nnp)
}

func TestMethod(t *testing.T) {
	const mknod = 1 << procfs.MKNOD
	for _, tt := range []struct {
		name, change string
		want         gpu.Method
	}{
		{"may make nodes", status(0, mknod, mknod, mknod, 0, 0), gpu.Probed},
		{"may not, and nobody can be given it", status(0, 0, 0, 0, 0, 0), gpu.Listed},
		{"may not, and no program gives anything", status(0, 0, 0, mknod, 0, 1), gpu.Listed},
		{"may not, but a setuid program could", status(0, 0, 0, mknod, 0, 0), gpu.NotAsked},
		{"could take it up", status(0, mknod, 0, mknod, 0, 1), gpu.NotAsked},
		{"could inherit it", status(mknod, 0, 0, mknod, 0, 1), gpu.NotAsked},
		{"could inherit it, by a file's capabilities", status(mknod, 0, 0, 0, 0, 0), gpu.NotAsked},
		{"could pass it on", status(0, 0, 0, mknod, mknod, 1), gpu.NotAsked},
		{"another user namespace", status(0, mknod, mknod, mknod, 0, 0) + "-- @links+ --\nproc/self/ns/user user:[4026532664]\n", gpu.Listed},
		{"a cgroup without m, or seccomp", status(0, mknod, mknod, mknod, 0, 0) + "-- @cgroup --\nc 1:3 rw\n", gpu.NotAsked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := see(t, "f1", "a", tt.change)
			require.Equal(t, tt.want, f.Method)
			require.Equal(t, tt.want == gpu.Probed, f.MethodCause == "", f.MethodCause)
			require.Empty(t, f.Unread)
			require.Equal(t, devnode.Allowed, f.Access(devnode.C(1, 3)).Read, "what is there is asked about in any case")
			if tt.want == gpu.NotAsked {
				require.Equal(t, devnode.Access{Cause: f.MethodCause}, f.Access(devnode.C(195, 3)))
			}
		})
	}

	t.Run("a security module", func(t *testing.T) {
		h := variant(t, "f1", "a", "")
		k := h.Kernel.(fakeKernel)
		k.mknod = devnode.MknodEACCES
		h.Kernel = k
		f := Facts(h, nil, gpu.Want{})
		require.Equal(t, gpu.Listed, f.Method)
		require.Equal(t, devnode.MknodEACCES, f.MethodCause)
	})
	t.Run("no status", func(t *testing.T) {
		h := variant(t, "f1", "b", "")
		h.FS.(fakeRoot).errs["proc/"+ownPID+"/status"] = syscall.EIO
		f := Facts(h, nil, gpu.Want{})
		require.Equal(t, gpu.NotAsked, f.Method)
		require.Equal(t, "input/output error", f.Unread[gpu.FromStatus])
	})
	t.Run("no tmpfs", func(t *testing.T) {
		for head, want := range map[string]gpu.Method{"a": gpu.NotAsked, "b": gpu.Listed} {
			h := variant(t, "f1", head, "")
			k := h.Kernel.(fakeKernel)
			k.mknod = devnode.NoDirectory
			h.Kernel, h.Scratch, h.NoScratch = k, "", errors.New("/run: no tmpfs")
			f := Facts(h, nil, gpu.Want{})
			require.Equal(t, want, f.Method)
			require.Equal(t, want == gpu.NotAsked, f.Unread[gpu.FromScratch] == "/run: no tmpfs", "it is missed where it would be of use")
		}
	})
}

func TestPolicyNamesNumbers(t *testing.T) {
	p := &gpu.Policy{
		Devices:   []gpu.Device{{Render: 300}, {Render: -1}},
		Inventory: []gpu.Known{{Minor: 301}, {Minor: -1}},
		Numbers:   []gpu.Pattern{{Major: 510, Minor: 3}, {Major: 511, AllMinor: true}},
	}
	f := Facts(variant(t, "f1", "a", ""), p, gpu.Want{})
	for _, n := range []devnode.Number{devnode.C(226, 300), devnode.C(195, 301), devnode.C(510, 3)} {
		require.Equal(t, devnode.Denied, f.Access(n).Read, "%s", n)
	}
	require.False(t, f.Access(devnode.C(511, 0)).Known())
}

// Numbers that no listing shows are asked about all the same.
func TestNumbers(t *testing.T) {
	f := see(t, "f2", "a", `
-- proc/devices --
Character devices:
195 nvidia
231 infiniband_mad
231 infiniband_verbs
234 kfd
235 nvidia-caps
236 nvidia-caps-imex-channels
237 nvidia-nvswitch
238 nvidia-nvlink
239 nvidia-fs0
240 gdrdrv
242 vfio
508 nvidia-uvm

Block devices:
  8 sd
 65 sd
-- sys/class/misc/rdma_cm/dev --
10:58
-- sys/dev/block/8:17 --
-- sys/class/drm/renderD700/dev --
226:700
`)
	require.Empty(t, f.Unread)
	require.Equal(t, 58, f.RDMA)
	var all []devnode.Number
	all = append(all, numbersOf(195, 0, 31)...)
	all = append(all, devnode.C(195, 200), devnode.C(195, 254), devnode.C(195, 255))
	for m := range uint32(64) {
		all = append(all, devnode.C(226, m), devnode.C(226, 128+m))
	}
	for g := range 32 {
		for i := range 15 {
			all = append(all, devnode.C(235, uint32(3+135*g+9*i)))
		}
	}
	for c := range uint32(8) {
		all = append(all, devnode.C(235, 85+c)) // of the own GPU instance
	}
	all = append(all,
		devnode.C(1, 1), devnode.C(1, 3), devnode.C(1, 4), devnode.C(10, 58), devnode.C(10, 196), devnode.C(10, 200), devnode.C(10, 229),
		devnode.C(10, 232), devnode.C(10, 237), devnode.C(10, 238), devnode.C(10, 241), devnode.C(226, 700),
		devnode.C(231, 0), devnode.C(231, 192), devnode.C(231, 223), devnode.C(234, 0),
		devnode.C(235, 0), devnode.C(235, 1), devnode.C(235, 2), devnode.C(235, 4323),
		devnode.C(236, 0), devnode.C(236, 3), devnode.C(237, 0), devnode.C(237, 15), devnode.C(237, 255), devnode.C(238, 0),
		devnode.C(239, 0), devnode.C(239, 15), devnode.C(240, 0), devnode.C(242, 31), devnode.C(261, 7), devnode.C(508, 0), devnode.C(508, 1),
		devnode.B(7, 0), devnode.B(8, 0), devnode.B(8, 17), devnode.B(65, 0), devnode.B(253, 0), devnode.B(259, 0))
	for _, n := range all {
		require.True(t, f.Access(n).Known(), "%s", n)
	}
	require.False(t, f.Access(devnode.C(235, 76)).Known(), "a compute instance in a GPU instance that is denied")
}

// A layout that the formula does not know is asked about where the driver says.
func TestNumbersOfAnotherLayout(t *testing.T) {
	f := see(t, "f2", "a", `
-- proc/driver/nvidia-caps/mig-minors --
config 5001
monitor 5002
gpu0/gi9/access 5003
gpu0/gi9/ci0/access 5004
-- proc/driver/nvidia-caps/sys-minors --
fabric-imex-mgmt 5005
-- proc/driver/nvidia/capabilities/gpu0/mig/gi3/access --
DeviceFileMinor: 5006
-- @cgroup+ --
c 235:5003 r
`)
	for _, minor := range []uint32{1, 2, 84, 4323, 5001, 5002, 5003, 5004, 5005, 5006} {
		require.True(t, f.Access(devnode.C(235, minor)).Known(), "%d", minor)
	}
}

func TestNodes(t *testing.T) {
	planted := `
-- proc/self/mountinfo+ --
1300 1101 254:0 /srv/depot /depot rw,nosuid - ext4 /dev/vda rw
1301 1101 254:0 /srv/safe /safe rw,nosuid,nodev - ext4 /dev/vda rw
1302 1301 254:0 /srv/inner /safe/inner rw - ext4 /dev/vda rw
1303 1101 0:5 /nvidia4 /opt/gpu rw - devtmpfs udev rw
1304 1103 0:99 / /dev/shm/open rw - tmpfs tmpfs rw
-- depot/README --
-- @links+ --
depot/link /safe
-- @dev+ --
c 195:3 0666 depot/a/b/x; c 195:5 0666 safe/y; c 195:6 0666 safe/inner/z; c 195:4 0600 opt/gpu
c 195:7 0666 dev/shm/q; c 195:8 0666 dev/shm/open/r; c 195:9 0666 opt/mapped; c 195:10 0666 opt/a/image
`
	for _, tt := range []struct {
		head string
		want []string
	}{
		{"a", []string{"/dev/shm/open/r"}},
		{"b", []string{"/depot/a/b/x", "/dev/shm/open/r", "/opt/gpu", "/opt/mapped", "/safe/inner/z"}},
	} {
		f := see(t, "f6", tt.head, planted)
		var got []string
		for _, r := range f.Readings {
			if r.Major == gpu.MajorNVIDIA {
				got = append(got, r.Nodes...)
			}
		}
		slices.Sort(got)
		require.Equal(t, tt.want, got)
		require.Empty(t, f.Unread)
	}

	// Two nodes of one number: the one that may be asked about decides.
	f := see(t, "f6", "b", status(0, 0, 0, 0, 0, 1)+"-- @dev+ --\nc 195:3 0600 dev/a; c 195:3 0604 dev/b; c 195:4 0600 dev/c\n-- @cgroup+ --\nc 195:3 rw\n")
	require.Equal(t, devnode.Access{Read: devnode.Allowed, Cause: "access: permission denied"}, f.Access(devnode.C(195, 3)))
	require.Equal(t, devnode.Access{Cause: "access: permission denied"}, f.Access(devnode.C(195, 4)))

	// More than can be looked at is no answer.
	h := variant(t, "f6", "b", planted)
	for i := range mostNodes {
		h.FS.(fakeRoot).MapFS[fmt.Sprintf("depot/%d", i)] = &fstest.MapFile{}
	}
	f = Facts(h, nil, gpu.Want{})
	require.Equal(t, "more than 4096 files in /dev and on volumes without nodev", f.Unread[gpu.FromNodes])
	require.Equal(t, devnode.Unknown, f.Access(devnode.C(195, 3)).Read)

	// Without mounts nobody knows of volumes.
	h = variant(t, "f6", "b", "")
	h.FS.(fakeRoot).errs["proc/"+ownPID+"/mountinfo"] = syscall.EACCES
	f = Facts(h, nil, gpu.Want{})
	require.Equal(t, "volumes are unknown", f.Unread[gpu.FromNodes])
	require.Equal(t, "permission denied", f.Unread[gpu.FromMounts])
}

func TestPeers(t *testing.T) {
	stat := func(pid int, name string, ppid int) string {
		return fmt.Sprintf("-- proc/%d/stat --\n%d (%s) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 4 0 222317 0 496 0\n", pid, pid, name, ppid)
	}
	f := see(t, "f1", "a", stat(20, "sh", 17)+stat(21, "bwrap", 12)+stat(22, "in bwrap", 21)+stat(30, "orphan\x1b of a stranger's", 1)+
		stat(31, "", 30)+stat(40, "trainer", 1)+stat(41, "dri user", 21)+stat(50, "hidden", 0)+stat(60, "lost", 61)+`
-- @links+ --
proc/20/ns/mnt mnt:[4026532668]
proc/21/ns/mnt mnt:[4026539999]
proc/22/ns/mnt mnt:[4026539999]
proc/30/ns/mnt mnt:[4026538888]
proc/31/ns/mnt mnt:[4026538888]
proc/1/ns/mnt mnt:[4026538888]
proc/40/ns/mnt mnt:[4026532668]
proc/41/ns/mnt mnt:[4026539999]
proc/50/ns/mnt EACCES
proc/60/ns/mnt mnt:[4026537777]
proc/61/ns/mnt ESRCH
proc/17/fd/3 /dev/nvidia2
proc/12/fd/3 /dev/nvidia2
proc/20/fd/3 /dev/nvidia2
proc/40/fd/0 /dev/null
proc/40/fd/7 /dev/nvidia-uvm
proc/41/fd/7 /dev/dri/renderD128
proc/30/fd/7 /dev/nvidia2
`)
	require.Equal(t, gpu.Peers{
		Visible: 12,
		Readable: []gpu.Peer{
			{PID: 1, Name: "docker-init"}, {PID: 30, Name: "orphan\x1b"}, {PID: 31}, {PID: 60, Name: "lost"},
		},
		// Not this process, its ancestors and descendants, nor other containers'.
		Holders: []gpu.Peer{{PID: 40, Name: "trainer"}, {PID: 41, Name: "dri"}},
	}, f.Peers)
	require.Empty(t, f.Unread)

	f = see(t, "f6", "a", stat(40, "trainer", 1)+"-- @links+ --\nproc/40/ns/mnt mnt:[4026532668]\nproc/40/fd/7 /dev/nvidia0\n")
	require.Empty(t, f.Peers.Holders, "no GPU is open here")

	f = see(t, "f1", "a", "-- @links+ --\nproc/12/ns/mnt EIO\n")
	require.Equal(t, "12: input/output error", f.Unread[gpu.FromProcesses])

	f = see(t, "f1", "a", "-- @links+ --\nproc/self/ns/mnt EACCES\n")
	require.Equal(t, "mnt: permission denied", f.Unread[gpu.FromNamespaces])
	require.Equal(t, "the own mount namespace is unknown", f.Unread[gpu.FromProcesses])

	h := variant(t, "f1", "a", "")
	for pid := 100; pid < 100+mostProcesses; pid++ {
		h.FS.(fakeRoot).MapFS[fmt.Sprintf("proc/%d", pid)] = &fstest.MapFile{Mode: fs.ModeDir | 0o555}
	}
	require.Equal(t, errLarge.Error(), Facts(h, nil, gpu.Want{}).Unread[gpu.FromProcesses])
}

func TestSockets(t *testing.T) {
	f := see(t, "f6", "a", `
-- proc/self/mountinfo+ --
1300 1109 0:27 /docker.sock /run/docker.sock rw - tmpfs tmpfs rw
1301 1101 0:27 /docker.sock /tmp/elsewhere rw - tmpfs tmpfs rw
1302 1101 0:27 /containerd /ctr rw - tmpfs tmpfs rw
1303 1101 0:27 / /host/run rw - tmpfs tmpfs rw
1304 1109 0:27 /dbus/system_bus_socket /run/dbus/system_bus_socket rw - tmpfs tmpfs rw
1305 1101 254:0 /srv/podman.sock /x/podman.sock rw - ext4 /dev/vda rw
1306 1101 254:0 /srv/private /private rw - ext4 /dev/vda rw
1307 1101 0:27 /nvidia-mps /mps rw - tmpfs tmpfs rw
1308 1101 254:0 /run /r rw - ext4 /dev/vda rw
1309 1101 254:0 / /h rw - ext4 /dev/vda rw
1310 1101 254:0 /srv/run /s rw - ext4 /dev/vda rw
1311 1101 254:0 /srv/engine /engine rw - ext4 /dev/vda rw
1312 1101 0:71 / /user rw - tmpfs tmpfs rw,mode=700,uid=1000
-- run/crio/crio.sock --
a file
-- run/buildkit/buildkitd.sock/nothing --
-- @sockets --
run/docker.sock answers
tmp/elsewhere ECONNREFUSED
ctr/containerd.sock answers
ctr/containerd.sock.ttrpc answers
host/run/systemd/private answers
host/run/dbus/system_bus_socket answers
run/dbus/system_bus_socket answers
x/podman.sock EACCES
private answers
r/docker.sock answers
h/run/docker.sock answers
s/docker.sock answers
engine/docker.sock answers
user/bus answers
mps/control answers
tmp/nvidia-mps/control ECONNREFUSED
data/pipes/control answers
run/nvidia-fabricmanager/socket answers
-- data/pipes/log --
-- @env+ --
CUDA_MPS_PIPE_DIRECTORY=/data/pipes/
`)
	require.Empty(t, f.Unread)
	require.ElementsMatch(t, []gpu.Socket{
		{Path: "/run/docker.sock", Of: gpu.Engine, Answers: true},
		{Path: "/tmp/elsewhere", Of: gpu.Engine, Cause: "connection refused"},
		{Path: "/ctr/containerd.sock", Of: gpu.Engine, Answers: true},
		{Path: "/ctr/containerd.sock.ttrpc", Of: gpu.Engine, Answers: true},
		{Path: "/host/run/systemd/private", Of: gpu.Systemd, Answers: true},
		{Path: "/host/run/dbus/system_bus_socket", Of: gpu.Systemd, Answers: true},
		{Path: "/run/dbus/system_bus_socket", Of: gpu.Systemd, Answers: true},
		{Path: "/x/podman.sock", Of: gpu.Engine, Cause: "permission denied"},
		{Path: "/r/docker.sock", Of: gpu.Engine, Answers: true},
		{Path: "/h/run/docker.sock", Of: gpu.Engine, Answers: true},
		{Path: "/s/docker.sock", Of: gpu.Engine, Answers: true},
		{Path: "/engine/docker.sock", Of: gpu.Engine, Answers: true},
		{Path: "/user/bus", Of: gpu.Systemd, Answers: true},
		{Path: "/mps/control", Of: gpu.MPS, Answers: true},
		{Path: "/tmp/nvidia-mps/control", Of: gpu.MPS, Cause: "connection refused"},
		{Path: "/data/pipes/control", Of: gpu.MPS, Answers: true},
		{Path: "/run/nvidia-fabricmanager/socket", Of: gpu.FabricManager, Answers: true},
	}, f.Sockets)

	// A message bus of the container's own, and /var/run that is no link.
	f = see(t, "f6", "a", "-- @links+ --\nvar/run ENOENT\n-- @sockets --\nrun/dbus/system_bus_socket answers\nvar/run/docker.sock answers\n")
	require.Equal(t, []gpu.Socket{{Path: "/var/run/docker.sock", Of: gpu.Engine, Answers: true}}, f.Sockets)
}

func TestNet(t *testing.T) {
	f := see(t, "f6", "a", `
-- proc/net/dev+ --
  enp3s0:       0       0
  eth1: 0 0
-- sys/class/net/eth1/device/vendor --
-- proc/net/unix+ --
0000000000000000: 00000002 00000000 00010000 0001 01 17 /run/systemd/private
`)
	require.Equal(t, gpu.Net{Physical: []string{"enp3s0", "eth1"}, Systemd: true}, f.Net)
	require.Equal(t, gpu.Net{}, see(t, "f6", "a", "").Net)
}

func TestHomes(t *testing.T) {
	f := see(t, "f6", "a", `
-- @env --
HOME=/home/../data
BUILDKITE_BUILD_PATH=relative
BUILDKITE_BUILD_CHECKOUT_PATH=/b/x/
-- data/.bashrc --
-- data/.julia/config/startup.jl --
-- data/.vimrc --
-- b/x/.gitconfig --
-- @links+ --
root/.ssh/rc /nowhere
`)
	require.Equal(t, []gpu.Home{
		{Path: "/data", Startup: []string{".bashrc", ".julia/config/startup.jl"}},
		{Path: "/root", Startup: []string{".ssh/rc"}},
		{Path: "/b"},
	}, f.Homes)
	require.Empty(t, f.Unread)
}

func TestLimits(t *testing.T) {
	f := see(t, "f6", "a", `
-- @remove --
sys/fs/cgroup/
-- sys/fs/cgroup/memory/memory.limit_in_bytes --
9223372036854771712
-- sys/fs/cgroup/pids/pids.max --
max
-- sys/fs/cgroup/cpu/cpu.cfs_quota_us --
150000
-- sys/fs/cgroup/cpu/cpu.cfs_period_us --
100000
`)
	require.Equal(t, gpu.Limits{CPU: "1.5"}, f.Limits)
	f = see(t, "f6", "a", "-- @remove --\nsys/fs/cgroup/\n")
	require.Contains(t, f.Unread, gpu.FromLimits)
}

func TestPreload(t *testing.T) {
	f := see(t, "f6", "a", "-- etc/ld.so.preload --\n\n/usr/lib/libjemalloc.so\n/evil.so\n")
	require.Equal(t, "/usr/lib/libjemalloc.so", f.Preload)
	h := variant(t, "f6", "a", "")
	h.FS.(fakeRoot).MapFS["etc/ld.so.preload"] = &fstest.MapFile{Mode: fs.ModeNamedPipe | 0o644}
	require.Equal(t, "/etc/ld.so.preload: not a regular file", Facts(h, nil, gpu.Want{}).Unread[gpu.FromPreload])
}

func TestLSM(t *testing.T) {
	h := variant(t, "f6", "a", "-- proc/self/attr/apparmor/current --\nmine (complain)\n")
	require.Equal(t, "mine (complain)", Facts(h, nil, gpu.Want{}).Process.LSM)
	for name, want := range map[error]string{syscall.EINVAL: "", syscall.ENOENT: "", syscall.EACCES: "/proc/self/attr/current: permission denied"} {
		h := variant(t, "f6", "a", "")
		h.FS.(fakeRoot).errs["proc/"+ownPID+"/attr/current"] = name
		f := Facts(h, nil, gpu.Want{})
		require.Empty(t, f.Process.LSM)
		require.Equal(t, want, f.Unread[gpu.FromLSM])
	}
}

// Whatever cannot be read is said to be so, and nothing else fails of it.
func TestUnread(t *testing.T) {
	for path, source := range map[string]gpu.Source{
		"proc/17/status": gpu.FromStatus, "proc/17/uid_map": gpu.FromUserMap, "proc/17/attr/current": gpu.FromLSM, "proc/17/mountinfo": gpu.FromMounts,
		"proc/devices": gpu.FromDevices, "proc": gpu.FromProcesses, "dev": gpu.FromNodes, "proc/net/dev": gpu.FromNet, "proc/net/unix": gpu.FromNet,
		"proc/sys/kernel/random/boot_id": gpu.FromBootID, "sys/fs/cgroup/memory.max": gpu.FromLimits, "etc/passwd": gpu.FromHomes,
		"proc/driver/nvidia/version": gpu.FromNVIDIA, "proc/driver/nvidia/params": gpu.FromNVIDIA, "proc/driver/nvidia/gpus": gpu.FromNVIDIA,
		"proc/driver/nvidia/gpus/0000:01:00.0/information":        gpu.FromNVIDIA,
		"proc/driver/nvidia/capabilities":                         gpu.FromNVIDIA,
		"proc/driver/nvidia/capabilities/gpu0/mig/gi9/access":     gpu.FromNVIDIA,
		"proc/driver/nvidia/capabilities/gpu0/mig/gi9/ci0/access": gpu.FromNVIDIA,
		"proc/driver/nvidia-caps/mig-minors":                      gpu.FromCaps,
		"proc/driver/nvidia-caps/sys-minors":                      gpu.FromCaps,
	} {
		h := variant(t, "f2", "a", "")
		h.FS.(fakeRoot).errs[path] = syscall.EIO
		f := Facts(h, nil, gpu.Want{})
		require.Contains(t, f.Unread[source], "input/output error", path)
	}
	for path, source := range map[string]gpu.Source{
		"sys/class/drm": gpu.FromDRM, "sys/class/drm/card0/dev": gpu.FromDRM, "sys/class/drm/renderD128/device/uevent": gpu.FromDRM,
		"sys/class/drm/renderD128/device/mem_info_vram_used": gpu.FromDRM, "sys/class/drm/renderD128/device/ras/umc_err_count": gpu.FromDRM,
		"sys/class/kfd/kfd/topology/nodes": gpu.FromKFD, "sys/class/kfd/kfd/topology/nodes/1/gpu_id": gpu.FromKFD,
		"sys/class/kfd/kfd/topology/nodes/1/properties": gpu.FromKFD, "sys/class/kfd/kfd/proc": gpu.FromKFD,
		"sys/class/kfd/kfd/proc/30211/vram_3421": gpu.FromKFD,
	} {
		h := variant(t, "f4", "a", "")
		h.FS.(fakeRoot).errs[path] = syscall.EIO
		f := Facts(h, nil, gpu.Want{})
		require.Contains(t, f.Unread[source], "input/output error", path)
	}

	// Too large: what is there counts, and that there is more.
	h := variant(t, "f6", "a", "")
	mounts := h.FS.(fakeRoot).MapFS["proc/17/mountinfo"]
	line := "2000 1101 254:0 /d /d rw,nosuid,nodev - ext4 /dev/vda rw\n"
	mounts.Data = append(mounts.Data, strings.Repeat(line, mostMounts)...)
	f := Facts(h, nil, gpu.Want{})
	require.Equal(t, "more than 512 mounts", f.Unread[gpu.FromMounts])
	require.Len(t, f.Mounts, mostMounts)
	mounts.Data = append(mounts.Data, strings.Repeat(line, mostTable/len(line))...)
	f = Facts(h, nil, gpu.Want{})
	require.Equal(t, errLarge.Error(), f.Unread[gpu.FromMounts])
	require.Len(t, f.Mounts, mostMounts)
	h = variant(t, "f6", "a", "-- proc/devices --\n"+strings.Repeat("x", mostBytes+1))
	require.Equal(t, errLarge.Error(), Facts(h, nil, gpu.Want{}).Unread[gpu.FromDevices])

	// An empty root.
	h.FS = fakeRoot{MapFS: fstest.MapFS{}}
	f = Facts(h, &gpu.Policy{Vendor: gpu.VendorNVIDIA}, gpu.Want{SMI: true})
	for _, source := range []gpu.Source{gpu.FromStatus, gpu.FromUserMap, gpu.FromNamespaces, gpu.FromMounts, gpu.FromDevices, gpu.FromProcesses, gpu.FromBootID, gpu.FromNet, gpu.FromLimits, gpu.FromSMI} {
		require.NotEmpty(t, f.Unread[source], source)
	}
}

// No text of a process but its name, and of a home but the names of files, may
// get into the facts: it may be a secret.
func TestReadsNoSecret(t *testing.T) {
	h := variant(t, "f7", "a", `
-- proc/4711/environ --
BUILDKITE_AGENT_ACCESS_TOKEN=hunter2
-- proc/17/environ --
SECRET=hunter2
-- root/.netrc --
hunter2
-- root/.bashrc --
hunter2
`)
	seen := reads{h.FS.(fakeRoot), &sync.Map{}}
	h.FS = seen
	Facts(h, nil, gpu.Want{})
	seen.names.Range(func(name, _ any) bool {
		for _, no := range []string{"environ", "cmdline", "mem", "maps", "root/.netrc", "root/.bashrc"} {
			require.False(t, strings.HasSuffix(name.(string), "/"+no) && !strings.HasPrefix(name.(string), "sys/fs/cgroup"), name)
		}
		return true
	})
	_, ok := seen.names.Load("proc/4711/stat")
	require.True(t, ok, "the test sees what is read")
}

// reads keeps the names of what is opened.
type reads struct {
	fakeRoot
	names *sync.Map
}

func (r reads) Open(name string) (fs.File, error) {
	r.names.Store(name, true)
	return r.fakeRoot.Open(name)
}
