// Package observe reads what a container shows of itself, or a host of its GPUs,
// as gpu.Facts, through small seams. It judges nothing.
package observe

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// Limits of what is read: what is beyond is Unread.
const (
	mostBytes     = 64 << 10
	mostTable     = 256 << 10 // of the long tables: mig-minors, mountinfo, net/unix
	mostProcesses = 4096
	mostMounts    = 512
	mostNodes     = 4096 // entries of directories where nodes may be
	mostFiles     = 4096 // that processes have open
	mostEntries   = 1024 // of any other directory
)

// Facts reads what the host h shows to this process. The policy, where there
// is one, names further numbers to ask about. It never fails: what could not be
// read is in Unread. It reads nothing that may hold a secret: no process's
// environment, arguments or memory, and of files in home directories their names
// alone.
func Facts(h Host, p *gpu.Policy, want gpu.Want) gpu.Facts {
	o := observer{Host: h, facts: gpu.Facts{Platform: h.Platform, RDMA: -1}}
	if h.Platform != "linux" {
		return o.facts
	}
	f := &o.facts
	f.Unread = map[gpu.Source]string{}
	f.Scratch, f.Env = h.Scratch, h.Env
	f.BootID = o.bootID()
	f.Process = o.process()
	f.Namespaces = o.namespaces()
	f.Mounts = o.mounts()
	f.Majors = o.majors()
	f.RDMA = o.rdma()
	f.NVIDIA = o.nvidia()
	f.DRM = o.drm()
	f.KFD = o.kfd()

	f.Method, f.MethodCause = o.method()
	f.Readings = o.readings(p)

	f.Peers = o.peers()
	f.Sockets = o.sockets()
	f.Net = o.net()
	f.Preload = o.preload()
	f.Homes = o.homes()
	f.Limits = o.limits()
	if want.SMI {
		f.SMI = o.smi()
	}
	return o.facts
}

type observer struct {
	Host
	facts gpu.Facts
}

// unread keeps the first cause of each source.
func (o *observer) unread(s gpu.Source, cause string) {
	if o.facts.Unread[s] == "" {
		o.facts.Unread[s] = cause
	}
}

// missed is unread where err says so. That something is not there is no miss.
func (o *observer) missed(s gpu.Source, at string, err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		o.unread(s, at+": "+cause(err))
	}
}

// cause is an error without the path, which the caller knows.
func cause(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return err.Error()
}

var (
	errLarge   = errors.New("too large")
	errNotFile = errors.New("not a regular file")
)

// read returns a file, or with errLarge its first most bytes. Nothing but a
// regular file is opened: a job could have left a FIFO, whose open waits.
func (o *observer) read(name string, most int64) ([]byte, error) {
	info, err := fs.Stat(o.FS, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotFile
	}
	f, err := o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		text, err = text[:most], errLarge
	}
	return text, err
}

// line returns a file of one line.
func (o *observer) line(name string) (string, error) {
	text, err := o.read(name, mostBytes)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(text), "\x00\n"), nil
}

// list returns the entries of a directory in order of their names, or with
// errLarge some of them, at most most.
func (o *observer) list(name string, most int) ([]fs.DirEntry, error) {
	f, err := o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dir, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, syscall.ENOTDIR
	}
	all, err := dir.ReadDir(most + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil && len(all) > most {
		all, err = all[:most], errLarge
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return all, err
}

// within makes an absolute path one of FS.
func within(absolute string) (string, bool) {
	if !path.IsAbs(absolute) {
		return "", false
	}
	name := strings.TrimPrefix(path.Clean(absolute), "/")
	if name == "" {
		name = "."
	}
	return name, fs.ValidPath(name)
}

func (o *observer) bootID() string {
	id, err := o.line("proc/sys/kernel/random/boot_id")
	switch {
	case err != nil:
		o.unread(gpu.FromBootID, cause(err))
		return ""
	case !gpu.IsUUID(id):
		o.unread(gpu.FromBootID, "not a UUID")
		return ""
	}
	return id
}

func (o *observer) process() gpu.Process {
	var p gpu.Process
	text, err := o.read("proc/self/status", mostBytes)
	if err == nil {
		p.Status, err = procfs.ParseStatus(text)
	}
	if err != nil {
		o.unread(gpu.FromStatus, cause(err))
	}
	text, err = o.read("proc/self/uid_map", mostBytes)
	if err == nil {
		p.Users, err = procfs.ParseIDMap(text)
	}
	if err != nil {
		o.unread(gpu.FromUserMap, cause(err))
	}
	p.LSM = o.lsm()
	return p
}

// lsm asks AppArmor first, then whichever module answers. A kernel without one
// has no such file, or says EINVAL.
func (o *observer) lsm() string {
	for _, name := range []string{"proc/self/attr/apparmor/current", "proc/self/attr/current"} {
		label, err := o.line(name)
		switch {
		case err == nil:
			return label
		case !errors.Is(err, syscall.EINVAL):
			o.missed(gpu.FromLSM, "/"+name, err)
		}
	}
	return ""
}

func (o *observer) namespaces() gpu.Namespaces {
	var ns gpu.Namespaces
	for _, one := range []struct {
		kind   string
		number *uint64
	}{
		{"pid", &ns.PID}, {"user", &ns.User}, {"ipc", &ns.IPC}, {"uts", &ns.UTS},
		{"net", &ns.Net}, {"mnt", &ns.Mount}, {"cgroup", &ns.Cgroup},
	} {
		n, err := o.namespace("self", one.kind)
		if err != nil {
			o.unread(gpu.FromNamespaces, one.kind+": "+cause(err))
		}
		*one.number = n
	}
	return ns
}

func (o *observer) namespace(pid, kind string) (uint64, error) {
	link, err := o.FS.ReadLink("proc/" + pid + "/ns/" + kind)
	if err != nil {
		return 0, err
	}
	of, n, err := procfs.ParseNamespace(link)
	if err == nil && of != kind {
		err = procfs.ErrMalformed
	}
	return n, err
}

func (o *observer) mounts() []procfs.Mount {
	text, err := o.read("proc/self/mountinfo", mostTable)
	if errors.Is(err, errLarge) {
		o.unread(gpu.FromMounts, errLarge.Error())
		text, err = text[:bytes.LastIndexByte(text, '\n')+1], nil
	}
	var all []procfs.Mount
	if err == nil {
		all, err = procfs.ParseMounts(text)
	}
	if err != nil {
		o.unread(gpu.FromMounts, cause(err))
	}
	if len(all) > mostMounts {
		o.unread(gpu.FromMounts, fmt.Sprintf("more than %d mounts", mostMounts))
		all = all[:mostMounts]
	}
	return all
}

func (o *observer) majors() []procfs.Major {
	var all []procfs.Major
	text, err := o.read("proc/devices", mostBytes)
	if err == nil {
		all, err = procfs.ParseMajors(text)
	}
	if err != nil {
		o.unread(gpu.FromDevices, cause(err))
	}
	return all
}

// rdma is a dynamic minor, and sysfs says which.
func (o *observer) rdma() int {
	text, err := o.line("sys/class/misc/rdma_cm/dev")
	o.missed(gpu.FromDevices, "/sys/class/misc/rdma_cm/dev", err)
	if n, ok := numberOf(text); ok && n.Major == majorMisc {
		return int(n.Minor)
	}
	return -1
}

// numberOf reads 195:3.
func numberOf(text string) (devnode.Number, bool) {
	major, minor, found := strings.Cut(text, ":")
	ma, err := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	return devnode.C(uint32(ma), uint32(mi)), found && err == nil && err2 == nil
}

func (o *observer) preload() string {
	text, err := o.read("etc/ld.so.preload", mostBytes)
	o.missed(gpu.FromPreload, "/etc/ld.so.preload", err)
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return first
}
