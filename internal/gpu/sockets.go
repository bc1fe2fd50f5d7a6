package gpu

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// runSockets are where daemons listen below /run.
var runSockets = []struct {
	path string
	of   Daemon
}{
	{"docker.sock", Engine},
	{"containerd/containerd.sock", Engine},
	{"containerd/containerd.sock.ttrpc", Engine},
	{"docker/containerd/containerd.sock", Engine},
	{"docker/containerd/containerd.sock.ttrpc", Engine},
	{"k3s/containerd/containerd.sock", Engine},
	{"crio/crio.sock", Engine},
	{"cri-dockerd.sock", Engine},
	{"podman/podman.sock", Engine},
	{"buildkit/buildkitd.sock", Engine},
	{"systemd/private", Systemd},
	{"dbus/system_bus_socket", Systemd},
	{"nvidia-persistenced/socket", Persistenced},
	{"nvidia-fabricmanager/socket", FabricManager},
}

// sockets finds those of programs that rule the host or the GPU: where they
// usually are, and where the host's were mounted to.
func (o *observer) sockets() []Socket {
	var all []Socket
	done := map[string]bool{}
	look := func(at string, of Daemon) {
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
		o.missed(FromSockets, at, err)
		// A container may run a message bus of its own.
		if m, _ := mountOf(o.facts.Mounts, at); strings.HasSuffix(at, "/system_bus_socket") && (m.Point == "/" || m.Point == "/run" || m.Point == "/var/run") {
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
		if m.Point == "/" || slices.Contains(pseudo, m.Type) {
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
	if base == "private" || base == "socket" {
		base = path.Base(dir) + "/" + base
	}
	return strings.HasSuffix(at, "/"+base)
}

// mps looks at all sockets in a directory of the CUDA multi-process service.
func (o *observer) mps(dir string, look func(string, Daemon)) {
	name, ok := within(dir)
	if !ok {
		return
	}
	if info, err := fs.Stat(o.FS, name); err != nil || !info.IsDir() {
		return // nothing there, or a file that nobody can connect through
	}
	entries, err := o.list(name, mostEntries)
	if !errors.Is(err, fs.ErrPermission) {
		o.missed(FromSockets, dir, err)
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			look(dir+"/"+e.Name(), MPS)
		}
	}
}

func (o *observer) connect(at string, of Daemon) Socket {
	s := Socket{Path: at, Of: of}
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
