package observe

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// runSockets are where daemons listen below /run.
var runSockets = []struct {
	path string
	of   gpu.Daemon
}{
	{"docker.sock", gpu.Engine},
	{"containerd/containerd.sock", gpu.Engine},
	{"containerd/containerd.sock.ttrpc", gpu.Engine},
	{"docker/containerd/containerd.sock", gpu.Engine},
	{"docker/containerd/containerd.sock.ttrpc", gpu.Engine},
	{"k3s/containerd/containerd.sock", gpu.Engine},
	{"crio/crio.sock", gpu.Engine},
	{"cri-dockerd.sock", gpu.Engine},
	{"podman/podman.sock", gpu.Engine},
	{"buildkit/buildkitd.sock", gpu.Engine},
	{"systemd/private", gpu.Systemd},
	{"dbus/system_bus_socket", gpu.Systemd},
	{"bus", gpu.Systemd}, // a user's, in /run/user/N, where docker.sock is without root
	{"nvidia-persistenced/socket", gpu.Persistenced},
	{"nvidia-fabricmanager/socket", gpu.FabricManager},
}

// sockets finds those of programs that rule the host or the GPU: where they
// usually are, and where the host's were mounted to.
func (o *observer) sockets() []gpu.Socket {
	var all []gpu.Socket
	done := map[string]bool{}
	look := func(at string, of gpu.Daemon) {
		name, ok := within(at)
		if !ok || done[at] {
			return
		}
		done[at] = true
		info, err := o.FS.Lstat(name)
		// A link may lead to a socket. What Docker makes where there was none is a directory.
		if err == nil && info.Mode()&(fs.ModeSocket|fs.ModeSymlink) == 0 || errors.Is(err, fs.ErrPermission) {
			return
		}
		o.missed(gpu.FromSockets, at, err)
		// A container may run a message bus of its own.
		if m, _ := procfs.MountOf(o.facts.Mounts, at); strings.HasSuffix(at, "/system_bus_socket") && (m.Point == "/" || m.Point == "/run" || m.Point == "/var/run") {
			return
		}
		if err == nil {
			all = append(all, o.connect(at, of))
		}
	}
	run := []string{"/run", "/var/run"}
	if target, err := o.FS.ReadLink("var/run"); err == nil && (target == "/run" || target == "../run") {
		run = run[:1]
	}
	for _, s := range runSockets {
		for _, dir := range run {
			look(dir+"/"+s.path, s.of)
		}
	}
	for _, m := range o.facts.Mounts {
		if m.Point == "/" || m.IsPseudo() {
			continue
		}
		for _, s := range runSockets {
			if known(m.Root, s.path) || known(m.Point, s.path) {
				look(m.Point, s.of)
			}
			// A directory of the host's: its /run is a tmpfs of its own, or a part of its root.
			for _, dir := range hostRun(m.Type) {
				if below, ok := strings.CutPrefix(dir+"/"+s.path, strings.TrimSuffix(m.Root, "/")+"/"); ok {
					look(path.Join(m.Point, below), s.of)
				}
			}
			// Any directory of the host's, since an engine listens where it is told to.
			if base := path.Base(s.path); strings.HasSuffix(base, ".sock") && (m.IsVolume() || m.Type == "tmpfs" && m.Root != "/") {
				look(path.Join(m.Point, base), s.of)
			}
		}
		if path.Base(m.Point) == "nvidia-mps" || path.Base(m.Root) == "nvidia-mps" {
			o.mps(m.Point, look)
		}
	}
	o.mps("/tmp/nvidia-mps", look)
	if dir := o.Env["CUDA_MPS_PIPE_DIRECTORY"]; dir != "" {
		o.mps(path.Clean(dir), look)
	}
	return all
}

// hostRun is where the host's /run is in a file system of that type.
func hostRun(kind string) []string {
	if kind == "tmpfs" {
		return []string{""}
	}
	return []string{"/run", "/var/run"}
}

// known tells whether a path is a known one's, by as much of its end as says what
// it is: a lone private or socket does not.
func known(at, of string) bool {
	dir, base := path.Split(of)
	if base == "private" || base == "socket" || base == "bus" {
		base = path.Base(dir) + "/" + base
	}
	return strings.HasSuffix(at, "/"+base)
}

// mps looks at all sockets in a directory of the CUDA multi-process service.
func (o *observer) mps(dir string, look func(string, gpu.Daemon)) {
	name, ok := within(dir)
	if !ok {
		return
	}
	if info, err := fs.Stat(o.FS, name); err != nil || !info.IsDir() {
		return // nothing there, or a file that nobody can connect through
	}
	entries, err := o.list(name, mostEntries)
	if !errors.Is(err, fs.ErrPermission) {
		o.missed(gpu.FromSockets, dir, err)
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			look(dir+"/"+e.Name(), gpu.MPS)
		}
	}
}

func (o *observer) connect(at string, of gpu.Daemon) gpu.Socket {
	s := gpu.Socket{Path: at, Of: of}
	if err := o.Dial(at); err != nil {
		var call *os.SyscallError
		if errors.As(err, &call) {
			err = call.Err
		}
		s.Cause = err.Error()
		return s
	}
	s.Answers = true
	return s
}
