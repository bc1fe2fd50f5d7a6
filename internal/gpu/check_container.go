package gpu

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// The controls: of these the answer is known.
var (
	devNull = devnode.C(1, 3) // every container may
	devMem  = devnode.C(1, 1) // none may
)

// probeBroken: the way in which the kernel is asked gives no true answers.
func probeBroken(w *world) []found {
	var all []found
	fix := []string{"remove a custom seccomp profile (security_opt: [seccomp:…]) from compose.yml", "give the container a tmpfs to make nodes in: tmpfs: [/run]"}
	if w.Process.UID != w.Process.EUID {
		all = append(all, found{what: fmt.Sprintf("the hook runs with real user %d and effective user %d; the kernel answers for the real one", w.Process.UID, w.Process.EUID),
			fix: []string{"remove the setuid bit: chmod u-s,g-s of the hook's binary"}})
	}
	if cause, ok := w.Unread[FromScratch]; ok && w.Method != Listed {
		all = append(all, found{what: "no tmpfs to make nodes in: " + escape.Text(cause), fix: fix[1:]})
	}
	if a := w.Access(devNull); !a.Both() && len(all) == 0 && w.Method != NotAsked {
		what := "the kernel refuses /dev/null (1:3), which every container may open"
		if !a.Known() {
			what += ": " + escape.Text(a.Cause)
		}
		all = append(all, found{what: what, fix: fix})
	}
	return all
}

// unrestricted: no device cgroup keeps anything from this container.
func unrestricted(w *world) []found {
	a := w.access(devMem)
	if w.Method == Probed && !a.Known() {
		return []found{{what: fmt.Sprintf("the kernel could not be asked about /dev/mem (%s): %s", devMem, escape.Text(a.Cause)), unknown: true,
			fix: []string{"remove a custom seccomp profile (security_opt: [seccomp:…]) from compose.yml"}}}
	}
	if !a.Any() {
		return nil
	}
	return []found{{what: fmt.Sprintf("the device cgroup allows /dev/mem (%s), and so everything; CapBnd %016x", devMem, w.Process.CapBnd),
		fix: []string{"in compose.yml, this agent's service: delete privileged: true (and devices: or device_cgroup_rules with *), and name what it needs:",
			"    runtime: nvidia   # and environment: {NVIDIA_VISIBLE_DEVICES: \"GPU-…\"}",
			"    devices: [\"/dev/kfd\", " + renderNode("…") + "]   # AMD",
			"then: docker compose up -d --force-recreate"}}}
}

// probeUnknown: the hook can't ask about nodes that are not there, and the job
// could make them.
func probeUnknown(w *world) []found {
	switch {
	case w.Method == NotAsked && w.Unread[FromScratch] != "": // which probe.broken says
	case w.Method == NotAsked:
		return []found{{what: fmt.Sprintf("the hook (user %d, CapEff %016x) can't make device nodes, but the job might: CapBnd %016x, no_new_privs %t",
			w.Process.UID, w.Process.CapEff, w.Process.CapBnd, w.Process.NoNewPrivs), unknown: true,
			fix: []string{"in compose.yml, this agent's service:", "    cap_drop: [MKNOD]", "    security_opt: [no-new-privileges:true]"}}}
	case w.Method == Listed && w.rootless() && (w.Policy == nil || !w.Policy.Absence):
		return []found{{what: "a rootless engine: no device cgroup enforces what this container can open", unknown: true,
			fix: []string{"if what is not in the container is kept from it well enough, in the policy: enforcement: absence"}}}
	}
	return nil
}

// rootless tells whether an ordinary user runs the engine: root here is one user
// outside, and the others are that user's subordinates.
func (w *world) rootless() bool {
	if w.Namespaces.User == procfs.InitialUser || len(w.Process.Users) == 0 {
		return false
	}
	first := w.Process.Users[0]
	return first.Inside == 0 && first.Count == 1
}

// nsPID: the processes of the host are in sight.
func nsPID(w *world) []found {
	if w.Namespaces.PID != procfs.InitialPID {
		return nil
	}
	return []found{{what: fmt.Sprintf("this container is in the host's process namespace and sees all of its %d processes", w.Peers.Visible),
		fix: []string{"in compose.yml, this agent's service: delete pid: host",
			"what it was for: memory in use per GPU needs no host processes, and a process's own CUDA memory it can ask itself"}}}
}

// peerReadable: another container's environment and files are open.
func peerReadable(w *world) []found {
	if len(w.Peers.Readable) == 0 && w.Peers.Shared && w.Namespaces.PID != procfs.InitialPID {
		return []found{{what: "this container shares its processes with another container, whose own it can't read; but that one may read this job's", as: Warn,
			fix: []string{"in compose.yml, this agent's service: delete pid: service:… and pid: container:…"}}}
	}
	if len(w.Peers.Readable) == 0 {
		return nil
	}
	return []found{{what: fmt.Sprintf("%d processes of other containers or of the host are open to this job: %s", len(w.Peers.Readable), peers(w.Peers.Readable)),
		fix: []string{"in compose.yml, this agent's service: delete pid: host, pid: service:… and pid: container:…",
			"or, for all of the host: userns-remap in /etc/docker/daemon.json"}}}
}

// hostSocket: a program that rules the host takes orders from this container.
func hostSocket(w *world) []found {
	var all []found
	for _, s := range w.Sockets {
		if s.Of != Engine && s.Of != Systemd {
			continue
		}
		one := found{what: fmt.Sprintf("%s at %s", s.Of, escape.Text(s.Path)), match: escape.Text(s.Path),
			fix: []string{"in compose.yml, this agent's service: delete the volume of the socket; build images elsewhere"}}
		if !s.Answers {
			one.as = Warn
			one.what = fmt.Sprintf("the socket of a %s is at %s; nobody answers now: %s", s.Of, escape.Text(s.Path), escape.Text(s.Cause))
		}
		all = append(all, one)
	}
	return all
}

// Capabilities that end isolation, by their bits (linux/capability.h).
var badCaps = []struct {
	bit  int
	name string
}{
	{2, "DAC_READ_SEARCH"}, {12, "NET_ADMIN"}, {16, "SYS_MODULE"}, {17, "SYS_RAWIO"}, {19, "SYS_PTRACE"}, {21, "SYS_ADMIN"}, {22, "SYS_BOOT"},
	{25, "SYS_TIME"}, {32, "MAC_OVERRIDE"}, {33, "MAC_ADMIN"}, {34, "SYSLOG"}, {38, "PERFMON"}, {39, "BPF"}, {40, "CHECKPOINT_RESTORE"},
}

// containerCaps looks at the bounding set: what a job could win back counts.
func containerCaps(w *world) []found {
	var all []found
	for _, c := range badCaps {
		if w.Process.CapBnd>>c.bit&1 == 0 || c.name == "NET_ADMIN" && !w.hostNet() {
			continue
		}
		all = append(all, found{what: c.name, match: c.name,
			fix: []string{"in compose.yml, this agent's service: delete privileged: true, and keep what a job needs alone:",
				"    cap_drop: [ALL]", "    cap_add: [CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, KILL]"}})
	}
	return all
}

// containerLSM: nothing filters system calls, or no security module confines.
func containerLSM(w *world) []found {
	var all []found
	if w.Process.Seccomp == 0 {
		all = append(all, found{what: "no seccomp filter: every system call is open", match: "seccomp",
			fix: []string{"in compose.yml: delete seccomp:unconfined from security_opt, and privileged: true",
				"if jobs place memory on NUMA nodes: a profile that adds mbind, set_mempolicy and get_mempolicy"}})
	}
	switch mode := w.Process.LSM; {
	case mode == "":
		all = append(all, found{what: "the kernel has no AppArmor or SELinux", as: Info, match: "lsm", fix: []string{"nothing, or a kernel that has one"}})
	case strings.HasPrefix(mode, "unconfined"), strings.Contains(mode, "unconfined_t"), strings.Contains(mode, "spc_t"):
		all = append(all, found{what: "the container is " + escape.Text(mode), as: Warn, match: "lsm",
			fix: []string{"in compose.yml: delete apparmor:unconfined and label:disable from security_opt, and privileged: true"}})
	}
	return all
}

// Doors to the host that are no disks.
var hostDoors = []struct {
	number devnode.Number
	name   string
}{
	{devnode.C(1, 2), "/dev/kmem"}, {devnode.C(1, 4), "/dev/port"}, {devnode.C(10, 232), "/dev/kvm"}, {devnode.C(10, 229), "/dev/fuse"},
	{devnode.C(10, 196), "/dev/vfio/vfio"}, {devnode.C(10, 237), "/dev/loop-control"}, {devnode.C(10, 238), "/dev/vhost-net"}, {devnode.C(10, 241), "/dev/vhost-vsock"},
	{devnode.C(10, 203), "/dev/cuse"}, {devnode.C(10, 223), "/dev/uinput"},
}

// hostBlock: disks of the host, or doors to its kernel.
func hostBlock(w *world) []found {
	var all []found
	add := func(n devnode.Number, name string) {
		if !w.access(n).Any() {
			return
		}
		all = append(all, found{what: name, match: name,
			fix: []string{"in compose.yml, this agent's service: delete them from devices: and device_cgroup_rules:, and privileged: true"}})
	}
	for _, r := range w.Readings {
		name := "disk " + strings.TrimPrefix(r.Number.String(), "block ")
		if len(r.Nodes) > 0 {
			name += " (" + escape.Text(r.Nodes[0]) + ")"
		}
		if r.Kind == devnode.Block {
			add(r.Number, name)
		}
	}
	for _, door := range hostDoors {
		add(door.number, door.name)
	}
	for _, name := range HostDrivers {
		for _, n := range w.named(name) {
			add(n, "/dev/"+name+" of "+n.String())
		}
	}
	for _, r := range w.Readings {
		if r.Kind == devnode.Char && r.Major == MajorTTY && r.Minor < 64 { // above are serial ports
			add(r.Number, fmt.Sprintf("/dev/tty%d", r.Minor))
		}
	}
	return all
}

// hostMounts: a part of the host's files that leads out of the container.
func hostMounts(w *world) []found {
	var all []found
	for _, m := range w.Mounts {
		why := w.leadsOut(m)
		if why == "" {
			continue
		}
		mode := "rw"
		if m.ReadOnly() {
			mode = "ro"
		}
		all = append(all, found{what: fmt.Sprintf("%s is %s (%s %s of %s, %s)", escape.Text(m.Point), why, escape.Text(m.Type), escape.Text(m.Root), escape.Text(m.Source), mode),
			match: escape.Text(m.Point),
			fix:   []string{"in compose.yml, this agent's service: delete these volumes, or privileged: true where there are none", "files that a job needs: a named volume, or a directory of their own below /srv"}})
	}
	return all
}

// leadsOut says what of the host a mount opens, or nothing.
func (w *world) leadsOut(m procfs.Mount) string {
	if engines(m) {
		return ""
	}
	switch m.Type {
	case "proc":
		switch {
		case m.Point == "/proc" && w.settingsOpen():
			return "writable in /proc/sys: the kernel's own settings"
		case strings.HasPrefix(m.Point, "/proc/") && m.Root != "/" && m.ReadOnly(), m.Point == "/proc":
			return ""
		}
		if strings.HasPrefix(m.Point, "/proc/") {
			return "writable: the kernel's own settings"
		}
		return "another /proc"
	case "cgroup", "cgroup2":
		// With userns-remap Docker leaves them writable, since they can't be mounted
		// otherwise there; the files are still root's outside.
		if !m.ReadOnly() && w.isHostRoot() {
			return "writable: the kernel's own settings"
		}
		return ""
	case "sysfs", "debugfs", "tracefs", "bpf", "securityfs", "configfs", "efivarfs", "pstore":
		if !m.ReadOnly() {
			return "writable: the kernel's own settings"
		}
		return ""
	case "devtmpfs":
		return devLeads(m)
	case "devpts":
		// An engine's own has another mode: Linux gives this one where none is stated.
		if m.Root == "/" && slices.Contains(m.Super, "ptmxmode=000") {
			return "the host's terminals"
		}
	case "overlay", "fuse.fuse-overlayfs":
		if root, ok := procfs.MountOf(w.Mounts, "/"); m.Point == "/" || ok && m.Root != "/" && m.Device == root.Device {
			return "" // the container's own
		}
		if m.Root == "/" {
			return "the root of another container"
		}
	case "tmpfs", "ramfs":
		if m.Root == "/" || ours(m) || w.isSocket(m) || isNVIDIA(m.Root) || !slices.Contains(m.Super, "mode=755") {
			return "" // the container's own, or of a directory that anybody may write to
		}
		if dev, ok := procfs.MountOf(w.Mounts, "/dev"); ok && dev.Point == "/dev" && dev.Device == m.Device {
			return "" // the container's own /dev/null, where the engine hides a file
		}
		return "of the host's /run"
	}
	if m.IsPseudo() || ours(m) || w.isSocket(m) {
		return ""
	}
	root := onHost(m)
	switch {
	case m.Root == "/" && isDisk(m), root == "/" && m.Type == "btrfs":
		return "a whole file system of the host"
	case m.Has("nosuid") && m.Has("nodev") && procfs.Under(root, "/home"):
		return "" // a cache
	case m.ReadOnly() && isNVIDIA(m.Root):
		return ""
	}
	for _, dir := range []string{"/etc", "/proc", "/sys", "/run", "/var/run", "/var/spool", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/home", "/root", "/dev", "/boot"} {
		switch {
		case procfs.Under(root, dir):
			return "of the host's " + dir
		case root != "/" && procfs.Under(dir, root):
			return "the host's " + root + ", with " + dir
		}
	}
	for _, dir := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"} {
		if !m.ReadOnly() && procfs.Under(root, dir) {
			return "writable: programs of the host's " + dir
		}
	}
	return ""
}

// onHost is where on its host a mount's files are, as far as the file system
// tells: Btrfs puts the name of the subvolume in front, @, root or @home.
func onHost(m procfs.Mount) string {
	if m.Type != "btrfs" {
		return m.Root
	}
	for _, option := range m.Super {
		volume, ok := strings.CutPrefix(option, "subvol=")
		if !ok || volume == "/" || !procfs.Under(m.Root, volume) {
			continue
		}
		rest := strings.TrimPrefix(m.Root, volume)
		if volume == "/@" || volume == "/root" {
			return path.Clean("/" + rest)
		}
		return strings.Replace(volume, "/@", "/", 1) + rest
	}
	return m.Root
}

// settingsOpen tells whether root here may write to /proc/sys, by which it rules
// the host: core_pattern names a program that the kernel runs. Root of another user
// namespace may not. Engines put a read-only mount there, unless
// systempaths=unconfined says that they should not.
func (w *world) settingsOpen() bool {
	m, ok := procfs.MountOf(w.Mounts, "/proc/sys")
	return ok && m.Point == "/proc" && !m.ReadOnly() && w.isHostRoot()
}

// isHostRoot tells whether root here is root on the host, or may be.
func (w *world) isHostRoot() bool {
	return w.Namespaces.User == procfs.InitialUser || w.Namespaces.User == 0
}

// devLeads judges a mount from a host's /dev: single nodes are the device
// cgroup's business.
func devLeads(m procfs.Mount) string {
	name := strings.TrimPrefix(m.Root, "/")
	for _, known := range []string{"nvidia", "dri", "kfd", "infiniband", "gdrdrv", "accel"} {
		if strings.HasPrefix(name, known) {
			return ""
		}
	}
	switch name {
	case "null", "zero", "full", "random", "urandom", "tty", "console", "fuse", "kvm", "shm": // rootless engines bind the first ones
		return ""
	}
	return "of the host's /dev"
}

// isDisk tells file systems with a device from those that live in memory.
func isDisk(m procfs.Mount) bool { return strings.HasPrefix(m.Source, "/dev/") || m.Type == "zfs" }

// ours are the mounts that this project's own documentation asks for.
func ours(m procfs.Mount) bool {
	return m.ReadOnly() && (procfs.Under(m.Point, "/etc/juliagpu-secrets") || procfs.Under(m.Point, "/usr/lib/juliagpu-secrets")) || procfs.Under(m.Point, "/run/juliagpu-secrets")
}

// engines are the mounts that an engine makes for every container, and its
// volumes, which are nobody's but the containers'.
func engines(m procfs.Mount) bool {
	switch m.Point {
	case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv":
		return true
	case "/sbin/docker-init", "/dev/init":
		return m.ReadOnly()
	}
	// An ordinary user's engine has them at home.
	for _, volumes := range []string{"/docker/volumes/", "/containers/storage/volumes/"} {
		if _, rest, ok := strings.Cut(m.Root, volumes); ok {
			_, data, _ := strings.Cut(rest, "/")
			return procfs.Under("/"+data, "/_data")
		}
	}
	// Podman's and CRI-O's own files for a container.
	return strings.Contains(m.Root, "/overlay-containers/") && strings.Contains(m.Root, "/userdata/")
}

// isNVIDIA tells whether a path is one of those that NVIDIA's runtime binds.
func isNVIDIA(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(part, "nvidia") || slices.Contains([]string{"vulkan", "glvnd", "OpenCL", "egl"}, part) {
			return true
		}
	}
	return false
}

// isSocket tells whether a mount is a socket that has a check of its own.
func (w *world) isSocket(m procfs.Mount) bool {
	return slices.ContainsFunc(w.Sockets, func(s Socket) bool { return s.Path == m.Point })
}

// ipcMPS: a daemon lets processes of several containers share one GPU context.
func ipcMPS(w *world) []found {
	var all []found
	for _, s := range w.Sockets {
		one := found{what: fmt.Sprintf("%s answers at %s", s.Of, escape.Text(s.Path)), match: escape.Text(s.Path)}
		switch s.Of {
		case MPS:
			one.fix = []string{"on the host: echo quit | nvidia-cuda-mps-control; the runtime mounts its directory into every container"}
		case FabricManager:
			one.as, one.fix = Warn, []string{"in compose.yml: environment: {NVIDIA_DRIVER_CAPABILITIES: \"compute\"}"}
		case Persistenced:
			one.as, one.fix = Info, []string{"nothing"}
		default:
			continue
		}
		if !s.Answers {
			if s.Of != MPS {
				continue
			}
			one.as, one.what = Warn, fmt.Sprintf("a socket of %s is at %s; nobody answers now: %s", s.Of, escape.Text(s.Path), escape.Text(s.Cause))
		}
		all = append(all, one)
	}
	return all
}

// nsIPC: shared memory and semaphores of others.
func nsIPC(w *world) []found {
	fix := []string{"in compose.yml, this agent's service: delete ipc: host and volumes at /dev/shm; for more shared memory: shm_size: 2gb"}
	if w.Namespaces.IPC == procfs.InitialIPC {
		return []found{{what: "this container is in the host's IPC namespace", match: "ipc", fix: fix}}
	}
	for _, m := range w.Mounts {
		if m.Point == "/dev/shm" && (m.Root != "/" || m.Type != "tmpfs" || isHostShm(m)) {
			return []found{{what: fmt.Sprintf("/dev/shm is a volume (%s of %s)", escape.Text(m.Root), escape.Text(m.Source)), match: "shm", fix: fix}}
		}
	}
	return nil
}

// isHostShm tells whether shared memory is what systemd mounts for its machine.
// What engines mount has the name shm, or noexec, or a size.
func isHostShm(m procfs.Mount) bool {
	sized := slices.ContainsFunc(m.Super, func(option string) bool { return strings.HasPrefix(option, "size=") })
	return m.Source == "tmpfs" && !m.Has("noexec") && !sized
}

// hostNet tells whether the network is the host's: by the namespace's number on
// recent kernels, else by what only a host has.
func (w *world) hostNet() bool {
	return w.Namespaces.Net == procfs.InitialNet || w.Net.Systemd && len(w.Net.Physical) > 0
}

// nsNet: abstract sockets and services that listen on the host alone.
func nsNet(w *world) []found {
	if !w.hostNet() {
		return nil
	}
	return []found{{what: "this container is in the host's network namespace", fix: []string{"in compose.yml, this agent's service: delete network_mode: host"}}}
}

func nsUTS(w *world) []found {
	if w.Namespaces.UTS != procfs.InitialUTS {
		return nil
	}
	return []found{{what: "this container has the host's name", fix: []string{"in compose.yml, this agent's service: delete uts: host"}}}
}

func containerNNP(w *world) []found {
	if w.Process.NoNewPrivs {
		return nil
	}
	return []found{{what: "no_new_privs is off: setuid programs give a job what its user has not",
		fix: []string{"in compose.yml, this agent's service:", "    security_opt: [no-new-privileges:true]"}}}
}

// containerUserns: root in the container is root of the host.
func containerUserns(w *world) []found {
	if w.Namespaces.User != procfs.InitialUser {
		return nil
	}
	one := found{what: "root in this container is root on the host", fix: []string{"on the host, in /etc/docker/daemon.json: \"userns-remap\": \"default\""}}
	for _, m := range w.Mounts {
		if m.IsVolume() && !m.ReadOnly() && !w.isSocket(m) && (!m.Has("nosuid") || !m.Has("nodev")) && !engines(procfs.Mount{Point: m.Point}) {
			one.as, one.match = Warn, escape.Text(m.Point)
			one.what += ", and " + escape.Text(m.Point) + " is a writable volume without nosuid and nodev: a setuid file there works on the host"
			one.fix = append(one.fix, "or mount it on the host with nosuid and nodev: a bind mount has what its source has")
			break
		}
	}
	return []found{one}
}

// persistHome: what an earlier job left may run in a later one.
func persistHome(w *world) []found {
	var all []found
	for _, h := range w.Homes {
		m, ok := procfs.MountOf(w.Mounts, h.Path)
		if !ok || !m.IsVolume() || m.ReadOnly() || h.Emptied {
			continue
		}
		one := found{what: escape.Text(h.Path) + " is on a volume that outlives the container", match: escape.Text(h.Path),
			fix: []string{"in compose.yml, this agent's service: no volume there, but", "    tmpfs: [\"" + escape.Text(h.Path) + ":exec,mode=700\"]",
				"and caches as named volumes with nosuid and nodev, one set for each trust level"}}
		if len(h.Startup) > 0 {
			var names []string
			for _, s := range h.Startup {
				names = append(names, escape.Text(s))
			}
			one.what += ", with files that programs run at their start: " + strings.Join(first(names, 8), ", ")
		}
		all = append(all, one)
	}
	return all
}

// loaderTampered: programs of this container run somebody's code first.
func loaderTampered(w *world) []found {
	var all []found
	if w.Preload != "" {
		all = append(all, found{what: "/etc/ld.so.preload makes every program load " + escape.Text(w.Preload), match: escape.Text(w.Preload),
			fix: []string{"rebuild the image without it"}})
	}
	for _, m := range w.Mounts {
		if m.Point == "/usr/bin/nvidia-smi" && !m.ReadOnly() {
			all = append(all, found{what: "/usr/bin/nvidia-smi is a writable mount: its answers are not asked for", match: m.Point, fix: []string{"let the NVIDIA runtime mount it"}})
		}
	}
	return all
}
