package tests

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// A yard is where containers run: an engine with our image, and a directory of
// this machine with nodes of GPUs that it has not.
type yard struct {
	dock.Engine
	image     []byte
	root, dir string
}

// theYard is made once for all tests of the package.
var theYard struct {
	sync.Once
	yard
	missing string // why there is none
	err     error
}

// containers skips a test where there is no engine, or no root to make nodes.
func containers(t *testing.T) yard {
	t.Helper()
	need.Root(t, "to make device nodes")
	theYard.Do(func() {
		ctx, y := context.Background(), &theYard.yard
		var err error
		for _, name := range []string{"dockerd", "unshare"} { // for engines of our own
			if _, err := exec.LookPath(name); err != nil {
				theYard.missing = "needs " + name
				return
			}
		}
		if y.Engine, err = dock.Own(ctx); err != nil {
			theYard.missing = err.Error()
			return
		}
		theYard.err = func() error {
			if y.root, err = agenttest.Root(); err != nil {
				return err
			}
			if y.dir, err = os.MkdirTemp("", "bk-yard-"); err != nil {
				return err
			}
			built.end = append(built.end, func() { os.RemoveAll(y.dir) })
			if err := os.Chmod(y.dir, 0o711); err != nil { // users of other namespaces pass through
				return err
			}
			if err := dock.Nodes(filepath.Join(y.dir, "dev")); err != nil {
				return err
			}
			if y.image, err = dock.Image(ctx, y.dir); err != nil {
				return err
			}
			remove, err := y.Import(ctx, y.image)
			built.end = append(built.end, remove)
			return err
		}()
	})
	if theYard.missing != "" {
		need.Skip(t, theYard.missing)
	}
	require.NoError(t, theYard.err)
	return theYard.yard
}

// start starts an engine of our own, with our image.
func (y yard) start(t *testing.T, flags ...string) dock.Engine {
	t.Helper()
	dir, err := os.MkdirTemp(y.dir, "engine-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711))
	// Another engine could take this machine's bridge away.
	before, _ := net.InterfaceByName("docker0")
	t.Cleanup(func() {
		after, _ := net.InterfaceByName("docker0")
		require.Equal(t, before == nil, after == nil, "docker0")
	})
	e, stop, err := dock.Start(t.Context(), dir, filepath.Join(y.dir, "dev"), flags...)
	require.NoError(t, err)
	t.Cleanup(stop)
	_, err = e.Import(t.Context(), y.image)
	require.NoError(t, err)
	return e
}

// file writes one for a container, as root's.
func (y yard) file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	f, err := os.CreateTemp(y.dir, "file-*.yml")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Chmod(mode))
	return f.Name()
}

func (y yard) files(t *testing.T, fixture string) dock.Files {
	t.Helper()
	if fixture == "" {
		return nil
	}
	files, err := dock.Fixture(y.root, fixture)
	require.NoError(t, err)
	return files
}

// device gives a node as the engine's --device does, in its own place.
func (y yard) device(names ...string) (flags []string) {
	for _, name := range names {
		flags = append(flags, "--device="+filepath.Join(y.dir, "dev", name)+":/dev/"+name)
	}
	return flags
}

// bind mounts a node, which the device cgroup does not know of.
func (y yard) bind(name string) string {
	return "--volume=" + filepath.Join(y.dir, "dev", name) + ":/dev/" + name + ":ro"
}

// nvidia are the nodes of one GPU and what all programs on it need.
func (y yard) nvidia(minors ...int) (flags []string) {
	for _, minor := range minors {
		flags = append(flags, y.device(fmt.Sprint("nvidia", minor))...)
	}
	return append(flags, y.device("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")...)
}

// The policies of the fixtures.
const (
	noGPUs     = "gpu: {vendor: none}\n"
	ownNVIDIA  = "gpu: {vendor: nvidia, devices: [{uuid: GPU-1b7ad372-8d21-4239-8e32-63449f713690, pci: \"0000:81:00.0\"}]}\n"
	ownAMD     = "gpu: {vendor: amd, devices: [{pci: \"0000:03:00.0\", unique_id: 7193870286350716105}]}\n"
	ownIntel   = "gpu: {vendor: intel, devices: [{pci: \"0000:00:02.0\"}], busy: off}\n"
	ownSlice   = "gpu: {vendor: nvidia, devices: [{mig: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9, pci: \"0000:01:00.0\", gi: 9, ci: 0}]}\n"
	waivedCaps = "gpu: {vendor: none, waivers: [{id: container.caps, match: SYS_PTRACE, reason: \"the tests attach to children\"}]}\n"
)

// A verdict is a finding in a log: "deny gpu.foreign".
var verdict = regexp.MustCompile(`(?m)^(warning: |info: |waived: )?([a-z]+\.[a-z]+|limits): `)

// verdicts are those of a log, but for information.
func verdicts(log string) []string {
	var all []string
	for _, m := range verdict.FindAllStringSubmatch(log, -1) {
		switch m[1] {
		case "":
			all = append(all, "deny "+m[2])
		case "warning: ":
			all = append(all, "warn "+m[2])
		case "waived: ":
			all = append(all, "waived "+m[2])
		}
	}
	return all
}

// A contained is a container, what the check says of it, and its remedy.
type contained struct {
	name   string
	engine string // of our own; empty: the machine's
	files  string // the fixture of what the driver shows
	policy string // empty: noGPUs
	flags  []string
	want   []string // findings that refuse, warn, or are waived
	says   []string
	status int // where it is not what follows from want: 75

	fix  []string // what must be printed of the remedy
	drop []string // flags to leave out for it, by how they begin
	add  []string
	then string // the driver's fixture then, where it is another
}

func with(some []string, more ...string) []string { return append(slices.Clone(some), more...) }

// hardened is the least that each container of the matrix has.
var hardened = []string{"--security-opt=no-new-privileges"}

// TestContainers is the matrix of what real containers show: the shipped hook in
// containers of a real engine, nodes without a driver, and the kernel's own answers.
func TestContainers(t *testing.T) {
	t.Parallel()
	y := containers(t)
	engines := map[string]dock.Engine{"": y.Engine}
	one := y.nvidia(2)

	peer, err := y.Begin(t.Context(), nil, nil, dock.Idle)
	require.NoError(t, err)
	defer peer.Remove()
	dead, live := filepath.Join(y.dir, "dead.sock"), "/var/run/docker.sock"
	listener, err := net.Listen("unix", dead)
	require.NoError(t, err)
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, listener.Close())
	home, err := os.MkdirTemp("/home", "bk-home-")
	require.NoError(t, err)
	defer os.RemoveAll(home)
	seccomp := func(calls string) string {
		return "--security-opt=seccomp=" + y.file(t, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [`+calls+`], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`, 0o644)
	}
	links := filepath.Join(y.dir, "links")
	require.NoError(t, os.Mkdir(links, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(links, "other.yml"), []byte(noGPUs), 0o644))
	require.NoError(t, os.Symlink("other.yml", filepath.Join(links, "gpu.yml")))

	const nobody = "4713:4713" // has no process on this machine
	rows := []contained{
		{name: "1 own GPU", files: "f1", policy: ownNVIDIA, flags: with(hardened, one...), says: []string{"~~~ :lock: GPU isolation: 1 GPU (GPU-1b7ad372, 81:00.0)"}},
		{name: "1 own GPU of four that are listed", files: "f1-cdi", policy: ownNVIDIA, flags: with(hardened, one...), says: []string{"1 of 4 GPUs"}},
		{name: "2 without MKNOD", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(one, "--cap-drop=MKNOD")...)},
		{name: "3 not root", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(one, "--user="+nobody, "--group-add=44")...)},
		{name: "3 not root, setuid programs", files: "f1", policy: ownNVIDIA, flags: with(one, "--user="+nobody, "--group-add=44"),
			want: []string{"deny probe.unknown", "warn container.nnp"}, fix: []string{"cap_drop: [MKNOD]", "security_opt: [no-new-privileges:true]"},
			add: []string{"--cap-drop=MKNOD", "--security-opt=no-new-privileges:true"}},
		{name: "4 a second GPU", files: "f1-cdi", policy: ownNVIDIA, flags: with(hardened, y.nvidia(2, 3)...), want: []string{"deny gpu.foreign"},
			says: []string{"GPU 0000:82:00.0 GPU-0a1b2c3d (195:3)"}, fix: []string{`NVIDIA_VISIBLE_DEVICES: "GPU-1b7ad372-8d21-4239-8e32-63449f713690"`},
			drop: y.device("nvidia3")},
		{name: "4 a second GPU, not listed", files: "f1", policy: ownNVIDIA, flags: with(hardened, y.nvidia(2, 3)...), want: []string{"deny gpu.foreign"},
			says: []string{"somebody else's GPU (195:3)"}, drop: y.device("nvidia3")},
		{name: "4 a second GPU, without MKNOD", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(y.nvidia(2, 3), "--cap-drop=MKNOD")...),
			want: []string{"deny gpu.foreign"}, drop: y.device("nvidia3")},
		{name: "4 a second GPU, to read", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(one, "--device-cgroup-rule=c 195:3 r")...),
			want: []string{"deny gpu.foreign"}, drop: []string{"--device-cgroup-rule"}},
		{name: "4 a second GPU, to write", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(one, "--device-cgroup-rule=c 195:3 w")...),
			want: []string{"deny gpu.foreign"}, drop: []string{"--device-cgroup-rule"}},
		{name: "5 all GPUs by number", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(one, "--device-cgroup-rule=c 195:* rw")...),
			want: []string{"deny gpu.foreign", "deny gpu.foreign", "warn dev.family"}, says: []string{"195:0 to 195:1)", "195:3 to 195:247)", "195:254"},
			fix: []string{"device_cgroup_rules with *"}, drop: []string{"--device-cgroup-rule"}},
		{name: "6 a node that the cgroup denies", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(one, y.bind("nvidia3"))...)},
		{name: "6 a node that the cgroup denies, without MKNOD", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(one, y.bind("nvidia3"), "--cap-drop=MKNOD")...)},
		{name: "7 the own node denied", files: "f1", policy: ownNVIDIA, flags: with(hardened, with(y.device("nvidiactl", "nvidia-uvm"), y.bind("nvidia2"))...),
			want: []string{"deny gpu.denied"}, status: 75, says: []string{"/dev/nvidia2 (195:2) is there", "daemon-reload"},
			fix: []string{`devices: ["/dev/nvidia2"]`}, drop: []string{y.bind("nvidia2")}, add: y.device("nvidia2")},
		{name: "9 privileged", engine: "ours", flags: []string{"--privileged", "--runtime=less"},
			want: []string{"deny devices.unrestricted", "deny container.caps", "deny container.lsm", "deny host.block", "deny host.mounts", "warn container.nnp"},
			says: []string{"/sys is writable", "SYS_ADMIN", "/dev/mem (1:1)"}, fix: []string{"delete privileged: true"},
			drop: []string{"--privileged"}, add: hardened},
		{name: "10 the host's processes", flags: with(hardened, "--pid=host"), want: []string{"deny ns.pid", "deny peer.readable"},
			fix: []string{"delete pid: host"}, drop: []string{"--pid"}},
		{name: "11 another container's processes", flags: with(hardened, "--pid=container:"+peer.Name), want: []string{"deny peer.readable"},
			says: []string{"1 processes of other containers"}, fix: []string{"pid: container:…"}, drop: []string{"--pid"}},
		{name: "12 the host's processes, not root", flags: with(hardened, "--pid=host", "--userns=host", "--user="+nobody), want: []string{"deny ns.pid"},
			fix: []string{"delete pid: host"}, drop: []string{"--pid"}},
		{name: "13 the engine's socket", flags: with(hardened, "--volume="+live+":/var/run/docker.sock"), want: []string{"deny host.socket"},
			fix: []string{"delete the volume of the socket"}, drop: []string{"--volume=" + live}},
		{name: "13 a dead socket", flags: with(hardened, "--volume="+dead+":/run/docker.sock"), want: []string{"warn host.socket"}},
		{name: "14 SYS_ADMIN", flags: with(hardened, "--cap-add=SYS_ADMIN"), want: []string{"deny container.caps"}, fix: []string{"cap_drop: [ALL]"}, drop: []string{"--cap-add"}},
		{name: "14 SYS_PTRACE", flags: with(hardened, "--cap-add=SYS_PTRACE"), want: []string{"deny container.caps"}, fix: []string{"cap_drop: [ALL]"}, drop: []string{"--cap-add"}},
		{name: "14 SYS_RAWIO", flags: with(hardened, "--cap-add=SYS_RAWIO"), want: []string{"deny container.caps"}, fix: []string{"cap_drop: [ALL]"}, drop: []string{"--cap-add"}},
		{name: "14 SYS_PTRACE, waived", policy: waivedCaps, flags: with(hardened, "--cap-add=SYS_PTRACE"), want: []string{"waived container.caps"}, says: []string{"because: the tests attach to children"}},
		{name: "15 no seccomp", flags: with(hardened, "--security-opt=seccomp=unconfined"), want: []string{"deny container.lsm"},
			fix: []string{"delete seccomp:unconfined"}, drop: []string{"--security-opt=seccomp"}},
		{name: "16 a seccomp profile without access", flags: with(hardened, seccomp(`"access", "faccessat"`)), want: []string{"deny probe.broken"},
			fix: []string{"remove a custom seccomp profile"}, drop: []string{"--security-opt=seccomp"}},
		{name: "17 a seccomp profile without faccessat2", flags: with(hardened, seccomp(`"faccessat2"`))},
		{name: "18 the host's IPC", flags: with(hardened, "--ipc=host"), want: []string{"deny ns.ipc"}, fix: []string{"delete ipc: host"}, drop: []string{"--ipc"}},
		{name: "18 the host's network", flags: with(hardened, "--network=host"), want: []string{"deny ns.net"}, fix: []string{"delete network_mode: host"}, drop: []string{"--network"}},
		{name: "18 the host's name", flags: with(hardened, "--uts=host"), says: []string{"info: ns.uts: this container has the host's name"}},
		{name: "19 the host's root", flags: with(hardened, "--volume=/:/host"), want: []string{"deny host.socket", "deny host.mounts", "warn container.userns"},
			says: []string{"/host is a whole file system of the host"}, fix: []string{"delete these volumes"}, drop: []string{"--volume=/"}},
		{name: "19 a home", flags: with(hardened, "--volume="+home+":/root"), want: []string{"deny host.mounts", "warn container.userns", "warn persist.home"},
			says: []string{"of the host's /home"}, fix: []string{"delete these volumes", `tmpfs: ["/root:`}, drop: []string{"--volume=" + home}, add: []string{"--tmpfs=/root:exec,mode=700"}},
		{name: "20 no shared memory to write to", flags: with(hardened, "--tmpfs=/dev/shm:ro", "--tmpfs=/run")},
		{name: "20 no tmpfs to write to", flags: with(hardened, "--tmpfs=/dev/shm:ro"), want: []string{"deny probe.broken"}, fix: []string{"tmpfs: [/run]"}, add: []string{"--tmpfs=/run"}},
		{name: "21 AMD", files: "f4", policy: ownAMD, flags: with(hardened, y.device("kfd", "dri/renderD128")...)},
		{name: "21 AMD, the whole of /dev/dri", files: "f4-dri", policy: ownAMD, flags: with(hardened, y.device("kfd", "dri")...),
			want: []string{"deny gpu.foreign", "warn dev.family"}, fix: []string{`{source: "/dev/dri/by-path/pci-0000:03:00.0-render", target: /dev/dri/renderD128, permissions: rw}`},
			drop: y.device("dri"), add: y.device("dri/renderD128"), then: "f4"},
		{name: "22 a slice", files: "f2", policy: ownSlice, flags: with(hardened, with(y.nvidia(0), "--device-cgroup-rule=c 235:84 r", "--device-cgroup-rule=c 235:85 r")...)},
		{name: "22 another slice", files: "f2", policy: ownSlice, want: []string{"deny mig.foreign"}, says: []string{"gpu0/gi8 (235:75)"},
			flags: with(hardened, with(y.nvidia(0), "--device-cgroup-rule=c 235:84 r", "--device-cgroup-rule=c 235:85 r", "--device-cgroup-rule=c 235:75 r")...),
			fix:   []string{`NVIDIA_VISIBLE_DEVICES: "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9"`}, drop: []string{"--device-cgroup-rule=c 235:75"}},
		{name: "22 the right over slices", files: "f2", policy: ownSlice, want: []string{"deny mig.admin"}, says: []string{"mig/config (235:1)"},
			flags: with(hardened, with(y.nvidia(0), "--device-cgroup-rule=c 235:84 r", "--device-cgroup-rule=c 235:85 r", "--device-cgroup-rule=c 235:1 r")...),
			fix:   []string{"unset NVIDIA_MIG_CONFIG_DEVICES"}, drop: []string{"--device-cgroup-rule=c 235:1 "}},
		{name: "23 a user namespace", engine: "userns", flags: hardened},
		{name: "23 a user namespace, own GPU", engine: "userns", files: "f1", policy: ownNVIDIA, flags: with(hardened, one...)},
		{name: "23 a user namespace, a second GPU", engine: "userns", files: "f1", policy: ownNVIDIA, flags: with(hardened, y.nvidia(2, 3)...),
			want: []string{"deny gpu.foreign"}, drop: y.device("nvidia3")},
		{name: "23 a user namespace, the policy writable", engine: "userns", policy: "-", flags: with(hardened, "--volume="+y.file(t, noGPUs, 0o644)+":"+dock.Policy),
			want: []string{"deny policy.trust"}, says: []string{"owned by uid 65534"}, fix: []string{"mount it read-only"},
			drop: []string{"--volume"}, add: []string{"--volume=" + y.file(t, noGPUs, 0o644) + ":" + dock.Policy + ":ro"}},
		{name: "25 a policy that everybody writes to", policy: "-", flags: with(hardened, "--volume="+y.file(t, noGPUs, 0o666)+":"+dock.Policy+":ro"),
			want: []string{"deny policy.trust"}, says: []string{"mode 0666"}, fix: []string{"chmod 0644"},
			drop: []string{"--volume"}, add: []string{"--volume=" + y.file(t, noGPUs, 0o644) + ":" + dock.Policy + ":ro"}},
		{name: "25 a link", policy: "-", flags: with(hardened, "--volume="+links+":/etc/juliagpu-secrets:ro"), want: []string{"deny policy.trust"}, says: []string{"a symbolic link"}},
		{name: "25 a policy that was missing", policy: "-", flags: with(hardened, "--volume="+filepath.Join(y.dir, "missing.yml")+":"+dock.Policy+":ro"),
			want: []string{"deny policy.trust"}, says: []string{"a directory, not a file"}, fix: []string{"remove it: Docker makes one where a file is missing"},
			drop: []string{"--volume"}, add: []string{"--volume=" + y.file(t, noGPUs, 0o644) + ":" + dock.Policy + ":ro"}},
		{name: "25 a policy that jobs write to", policy: "-", flags: with(hardened, "--volume="+y.file(t, noGPUs, 0o644)+":"+dock.Policy),
			want: []string{"deny policy.trust", "warn container.userns"}, fix: []string{":/etc/juliagpu-secrets/gpu.yml:ro"},
			drop: []string{"--volume"}, add: []string{"--volume=" + y.file(t, noGPUs, 0o644) + ":" + dock.Policy + ":ro"}},
		{name: "26 a GPU for an agent without one", flags: with(hardened, y.device("nvidia0")...), want: []string{"deny gpu.foreign"}, says: []string{"195:0"},
			fix: []string{`NVIDIA_VISIBLE_DEVICES: "void"`}, drop: []string{"--device"}},
	}
	outer := t
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			if _, ok := engines[tt.engine]; !ok {
				engines[tt.engine] = y.other(outer, tt.engine)
			}
			y.Engine = engines[tt.engine]
			y.judge(t, tt)
		})
	}
	t.Run("8 rules that were written anew", y.rewritten)
	t.Run("24 version of control groups", func(t *testing.T) {
		version, err := y.Docker(t.Context(), nil, "info", "--format", "{{.CgroupVersion}}")
		require.NoError(t, err)
		t.Log("all rows of this run: version " + version)
	})

	shown := map[int]bool{8: true, 24: true}
	for _, tt := range rows {
		n, err := strconv.Atoi(strings.Fields(tt.name)[0])
		require.NoError(t, err)
		shown[n] = true
	}
	for n := 1; n <= 26; n++ {
		require.True(t, shown[n], "row %d is not shown", n)
	}
}

// rewritten: rules that the engine does not know of, as NVIDIA's older runtime
// writes them, are there until somebody writes the engine's anew. Here that is this
// test and not systemd, which this machine may not have.
func (y yard) rewritten(t *testing.T) {
	flags := with(hardened, with(y.device("nvidiactl", "nvidia-uvm"), y.bind("nvidia2"), "--volume="+y.file(t, ownNVIDIA, 0o644)+":"+dock.Policy+":ro")...)
	c, err := y.Begin(t.Context(), flags, y.files(t, "f1"), dock.Idle)
	require.NoError(t, err)
	defer c.Remove()
	check := func(status int, want ...string) {
		t.Helper()
		r, err := c.Exec(t.Context(), dock.Check)
		require.NoError(t, err)
		require.Equal(t, want, verdicts(r.Log), r.Log)
		require.Equal(t, status, r.Status, r.Log)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.PID))
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^\d+:devices:(/.+)$`).FindStringSubmatch(string(text))
	if m == nil {
		check(75, "deny gpu.denied")
		return // in version 2 the rules are a program, which nobody but systemd or runc writes anew
	}
	write := func(file, rule string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join("/sys/fs/cgroup/devices", m[1], file), []byte(rule), 0))
	}
	check(75, "deny gpu.denied")
	write("devices.allow", "c 195:2 rw")
	check(0)
	_, err = y.Docker(t.Context(), nil, "update", "--memory=1g", "--memory-swap=1g", c.Name)
	require.NoError(t, err)
	check(0) // runc 1.1.5 leaves device rules alone
	write("devices.deny", "c 195:2 rw")
	check(75, "deny gpu.denied")
}

// other starts an engine that this machine has not.
func (y yard) other(t *testing.T, name string) dock.Engine {
	if name == "userns" {
		return y.start(t, "--userns-remap", "nobody:nogroup")
	}
	return y.start(t, "--add-runtime", "less="+filepath.Join(y.root, "tests", "dock", "less"))
}

// judge runs a row's container, and then the one that its remedy makes of it.
func (y yard) judge(t *testing.T, tt contained) {
	t.Helper()
	r := y.check(t, tt, tt.flags)
	require.Equal(t, tt.want, verdicts(r.Log), r.Log)
	status := tt.status
	if status == 0 && slices.ContainsFunc(tt.want, func(v string) bool { return strings.HasPrefix(v, "deny ") }) {
		status = 1
	}
	require.Equal(t, status, r.Status, r.Log)
	for _, part := range slices.Concat(tt.says, tt.fix) {
		require.Contains(t, r.Log, part)
	}
	for _, v := range tt.want {
		severity, id, _ := strings.Cut(v, " ")
		require.Equal(t, severity != "waived", strings.Contains(r.Log, "/docs/gpu.md#"+strings.ReplaceAll(id, ".", "")+"\n"), "%s: where it is explained\n%s", id, r.Log)
	}
	if status == 0 || tt.drop == nil && tt.add == nil {
		return
	}
	flags := slices.DeleteFunc(slices.Clone(tt.flags), func(flag string) bool {
		return slices.ContainsFunc(tt.drop, func(begin string) bool { return strings.HasPrefix(flag, begin) })
	})
	tt.files = cmp.Or(tt.then, tt.files)
	r = y.check(t, tt, with(flags, tt.add...))
	require.Equal(t, 0, r.Status, "with the remedy applied: %s", r.Log)
	require.Empty(t, verdicts(r.Log), "with the remedy applied: %s", r.Log)
	require.True(t, strings.HasPrefix(r.Log, "~~~ :lock: GPU isolation: "), r.Log)
}

// check runs the hook in a container.
func (y yard) check(t *testing.T, tt contained, flags []string) dock.Result {
	t.Helper()
	if policy := tt.policy; policy != "-" {
		if policy == "" {
			policy = noGPUs
		}
		flags = with(flags, "--volume="+y.file(t, policy, 0o644)+":"+dock.Policy+":ro")
	}
	r, err := y.Run(t.Context(), flags, y.files(t, tt.files), dock.Check)
	require.NoError(t, err)
	return r
}
