package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// peers looks at all processes that are listed. Whose mount namespace can be read
// is open to this process altogether: the kernel asks the same question before
// it shows an environment or a root directory (ptrace(2), PTRACE_MODE_READ), and
// the link's text is no secret.
func (o *observer) peers() gpu.Peers {
	entries, err := o.list("proc", mostProcesses)
	if err != nil {
		o.unread(gpu.FromProcesses, cause(err))
	}
	t := table{observer: o, mount: map[int]uint64{}, stats: map[int]procfs.Stat{}}
	var pids []int
	for _, e := range entries {
		if pid, ok := suffix32(e.Name()); ok {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	peers := gpu.Peers{Visible: len(pids)}
	t.own = o.facts.Namespaces.Mount
	self, err := t.statOf("self")
	if err == nil && t.own == 0 {
		err = errors.New("the own mount namespace is unknown")
	}
	if err != nil {
		o.unread(gpu.FromProcesses, cause(err))
		return peers
	}
	for _, pid := range pids {
		n, err := o.namespace(strconv.Itoa(pid), "mnt")
		switch {
		case err == nil:
			t.mount[pid] = n
		case gone(err), errors.Is(err, fs.ErrPermission):
		default:
			o.unread(gpu.FromProcesses, fmt.Sprintf("%d: %s", pid, cause(err)))
		}
	}
	var ours []int
	for _, pid := range pids {
		n, readable := t.mount[pid]
		switch {
		case !readable:
		case n == t.own, t.descends(pid, func(p int) bool { return t.mount[p] == t.own }):
			ours = append(ours, pid)
		default:
			if peer, alive := t.peer(pid); alive {
				peers.Readable = append(peers.Readable, peer)
			}
		}
	}
	above := map[int]bool{self.PID: true}
	t.descends(self.PID, func(p int) bool { above[p] = true; return false })
	peers.Shared = !above[1] && t.mount[1] != t.own
	if o.anyGPU() {
		peers.Holders = t.holders(self.PID, above, ours)
	}
	return peers
}

// suffix32 is a PID.
func suffix32(name string) (int, bool) {
	n, err := strconv.ParseUint(name, 10, 31)
	return int(n), err == nil
}

// gone tells whether a process ended meanwhile.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// A table is what was seen of processes.
type table struct {
	*observer
	own   uint64 // our mount namespace
	mount map[int]uint64
	stats map[int]procfs.Stat
}

func (t *table) statOf(pid string) (procfs.Stat, error) {
	text, err := t.read("proc/"+pid+"/stat", mostBytes)
	if err != nil {
		return procfs.Stat{}, err
	}
	return procfs.ParseStat(text)
}

func (t *table) stat(pid int) (procfs.Stat, error) {
	if s, ok := t.stats[pid]; ok {
		return s, nil
	}
	s, err := t.statOf(strconv.Itoa(pid))
	if err == nil {
		t.stats[pid] = s
	}
	return s, err
}

// descends tells whether one of the process's ancestors is as asked.
func (t *table) descends(pid int, from func(int) bool) bool {
	for range 3 {
		found, changed := t.climb(pid, from)
		if !changed {
			return found
		}
		clear(t.stats) // an ancestor ended, and its children have another parent now
	}
	return false
}

func (t *table) climb(pid int, from func(int) bool) (found, changed bool) {
	for range mostProcesses { // a circle can only be seen while processes change parents
		s, err := t.stat(pid)
		if err != nil {
			return false, gone(err)
		}
		if s.PPID == 0 {
			return false, false
		}
		if pid = s.PPID; from(pid) {
			return true, false
		}
	}
	return false, true
}

// peer names a process, or says that it has ended.
func (t *table) peer(pid int) (gpu.Peer, bool) {
	s, err := t.stat(pid)
	if err != nil {
		return gpu.Peer{PID: pid}, !gone(err)
	}
	name := s.Name
	if words := strings.Fields(name); len(words) > 0 {
		name = words[0]
	}
	return gpu.Peer{PID: pid, Name: name[:min(len(name), 16)]}, true
}

// anyGPU tells whether some GPU's node may be opened.
func (o *observer) anyGPU() bool {
	return slices.ContainsFunc(o.facts.Readings, func(r gpu.Reading) bool {
		return r.Kind == devnode.Char && (r.Major == gpu.MajorNVIDIA || r.Major == gpu.MajorDRM) && r.Any()
	})
}

// holders are processes of this container that have a GPU open and are not of
// this job: neither above this process nor a descendant.
func (t *table) holders(self int, above map[int]bool, ours []int) []gpu.Peer {
	left := mostFiles
	var all []gpu.Peer
	for _, pid := range ours {
		if above[pid] || !t.holds(pid, &left) || t.descends(pid, func(p int) bool { return p == self }) {
			continue
		}
		if peer, alive := t.peer(pid); alive {
			all = append(all, peer)
		}
	}
	return all
}

func (t *table) holds(pid int, left *int) bool {
	dir := "proc/" + strconv.Itoa(pid) + "/fd"
	files, err := t.list(dir, *left)
	if err != nil && !gone(err) && !errors.Is(err, fs.ErrPermission) {
		t.unread(gpu.FromFiles, cause(err))
	}
	*left -= len(files)
	for _, e := range files {
		target, err := t.FS.ReadLink(dir + "/" + e.Name())
		if err == nil && (strings.HasPrefix(target, "/dev/nvidia") || strings.HasPrefix(target, "/dev/dri/") || target == "/dev/kfd") {
			return true
		}
	}
	return false
}
