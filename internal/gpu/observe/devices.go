package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// Majors that are only asked about; package gpu has those that it judges.
const (
	majorMem   = 1
	majorMisc  = 10
	majorVerbs = 231
	majorAccel = 261
)

// Minors of NVIDIA's.
const (
	maxNVIDIAGPUs = 32  // of one machine (nvlimits.h), with the lowest minors
	minorBeyond   = 200 // no GPU's: it is open only where a rule has a wildcard
)

// controls are asked about first. An engine allows null everywhere; the others
// are the host's (Linux include/linux/miscdevice.h, devices.txt).
var controls = []devnode.Number{
	devnode.C(majorMem, 3),     // null
	devnode.C(majorMem, 1),     // mem
	devnode.C(majorMem, 4),     // port
	devnode.C(gpu.MajorTTY, 0), // the console that is in front
	devnode.C(gpu.MajorTTY, 1), // the first one
	devnode.C(majorMisc, 196),  // vfio
	devnode.C(majorMisc, 200),  // net/tun
	devnode.C(majorMisc, 203),  // cuse
	devnode.C(majorMisc, 223),  // uinput
	devnode.C(majorMisc, 229),  // fuse
	devnode.C(majorMisc, 232),  // kvm
	devnode.C(majorMisc, 237),  // loop-control
	devnode.C(majorMisc, 238),  // vhost-net
	devnode.C(majorMisc, 241),  // vhost-vsock
	devnode.B(7, 0),            // loop0
	devnode.B(8, 0),            // sda
	devnode.B(253, 0),          // often a device mapper's
	devnode.B(259, 0),          // often an NVMe disk's
}

// method says how the kernel can be asked, and why no node can be made.
func (o *observer) method() (gpu.Method, string) {
	// Whether it works is better than what capabilities should allow.
	control := o.Kernel.Number(controls[0])
	if control.Made() {
		return gpu.Probed, ""
	}
	cause := control.Cause
	p, user := o.facts.Process, o.facts.Namespaces.User
	held := procfs.MKNOD.In(p.CapEff | p.CapPrm | p.CapInh | p.CapAmb)
	switch {
	case o.facts.Unread[gpu.FromStatus] != "":
		return gpu.NotAsked, cause
	case user != 0 && user != procfs.InitialUser:
		return gpu.Listed, cause // mknod(2) wants the capability in the initial user namespace
	case held && control.Cause == devnode.MknodEACCES:
		return gpu.Listed, cause // a security module, which forbids it to the job as well
	case held && o.NoScratch != nil:
		o.unread(gpu.FromScratch, o.NoScratch.Error())
		return gpu.NotAsked, o.NoScratch.Error()
	case held:
		return gpu.NotAsked, cause
	case !procfs.MKNOD.In(p.CapBnd), p.NoNewPrivs:
		return gpu.Listed, cause // nobody here has it, and no program can give it
	}
	return gpu.NotAsked, "no CAP_MKNOD here, but a setuid program could have it"
}

// readings asks about all that matters, in order of numbers.
func (o *observer) readings(p *gpu.Policy) gpu.Readings {
	q := questions{observer: o, paths: map[devnode.Number][]string{}, asked: map[devnode.Number]devnode.Access{}}
	for _, n := range o.nodes() {
		q.paths[n.Number] = append(q.paths[n.Number], n.Path)
	}
	q.ask(slices.Collect(maps.Keys(q.paths)))
	if o.facts.Method == gpu.Probed {
		q.ask(o.numbers(p))
		// A rule with a wildcard opens what no GPU has, too, and is told in full.
		if beyond := q.asked[devnode.C(gpu.MajorNVIDIA, minorBeyond)]; beyond.Any() || !beyond.Known() {
			q.ask(numbersOf(gpu.MajorNVIDIA, 0, gpu.MaxNVIDIAMinor))
		}
		// A compute instance is of no use without its GPU instance.
		q.ask(o.computeInstances(q.asked))
	}
	all := make(gpu.Readings, 0, len(q.asked))
	for n, a := range q.asked {
		all = append(all, gpu.Reading{Number: n, Access: a, Nodes: q.paths[n]})
	}
	slices.SortFunc(all, func(a, b gpu.Reading) int { return a.Number.Compare(b.Number) })
	return all
}

// questions are what is asked of the kernel, each number once.
type questions struct {
	*observer
	paths map[devnode.Number][]string
	asked map[devnode.Number]devnode.Access
}

// ask asks several at once: making nodes is most of what Facts does.
func (q *questions) ask(numbers []devnode.Number) {
	numbers = slices.DeleteFunc(numbers, func(n devnode.Number) bool { _, done := q.asked[n]; return done })
	slices.SortFunc(numbers, devnode.Number.Compare)
	numbers = slices.Compact(numbers)
	answers := make([]devnode.Access, len(numbers))
	var wait sync.WaitGroup
	for first := range devnode.Parallel {
		wait.Go(func() {
			for i := first; i < len(numbers); i += devnode.Parallel {
				answers[i] = q.one(numbers[i])
			}
		})
	}
	wait.Wait()
	for i, n := range numbers {
		q.asked[n] = answers[i]
	}
}

// one asks by number where that can be, and else by the nodes that there are.
func (q *questions) one(n devnode.Number) devnode.Access {
	a := devnode.Access{Cause: devnode.NoNode}
	if q.facts.Method == gpu.Probed {
		a = q.Kernel.Number(n)
	}
	if paths := q.paths[n]; !a.Made() && paths != nil {
		return q.askPaths(paths)
	}
	return a
}

// askPaths asks about nodes of one number. Their modes may differ, but the
// cgroup's answer is one: whichever node shows it decides.
func (o *observer) askPaths(paths []string) devnode.Access {
	a := o.Kernel.Path(paths[0])
	for _, path := range paths[1:] {
		b := o.Kernel.Path(path)
		a.Read, a.Write = firmer(a.Read, b.Read), firmer(a.Write, b.Write)
	}
	if a.Known() {
		a.Cause = ""
	}
	return a
}

func firmer(a, b devnode.Answer) devnode.Answer {
	for _, answer := range []devnode.Answer{devnode.Allowed, devnode.Denied, devnode.Unknown} {
		if a == answer || b == answer {
			return answer
		}
	}
	return a
}

// numbersOf are the numbers of a major from one minor through another.
func numbersOf(major, from, to uint32) []devnode.Number {
	var all []devnode.Number
	for m := from; m <= to; m++ {
		all = append(all, devnode.C(major, m))
	}
	return all
}

// numbers are those to ask about whether there is a node or not.
func (o *observer) numbers(p *gpu.Policy) []devnode.Number {
	all := slices.Clone(controls)
	add := func(major uint32, minors ...int) {
		for _, m := range minors {
			if m >= 0 {
				all = append(all, devnode.C(major, uint32(m)))
			}
		}
	}
	through := func(major uint32, from, to int) {
		for m := from; m <= to; m++ {
			add(major, m)
		}
	}
	through(gpu.MajorNVIDIA, 0, maxNVIDIAGPUs-1)
	add(gpu.MajorNVIDIA, minorBeyond, gpu.MinorModeset, gpu.MinorCtl)
	through(gpu.MajorDRM, 0, 63)    // cards
	through(gpu.MajorDRM, 128, 191) // render nodes
	for _, d := range o.facts.DRM {
		all = append(all, d.Number)
	}
	through(majorAccel, 0, 7)
	add(majorMisc, o.facts.RDMA)
	for _, m := range o.facts.Majors {
		switch {
		case m.Block:
			all = append(all, devnode.B(m.Number, 0))
		case m.Name == "nvidia-uvm":
			through(m.Number, 0, 1) // uvm, uvm-tools
		case m.Name == "nvidia-caps":
			add(m.Number, o.capMinors()...)
		case m.Name == "nvidia-caps-imex-channels":
			through(m.Number, 0, 3)
		case m.Name == "nvidia-nvswitch":
			through(m.Number, 0, 15)
			add(m.Number, 255) // nvswitchctl
		case m.Name == "nvidia-nvlink", m.Name == "gdrdrv", m.Name == "kfd":
			add(m.Number, 0)
		case strings.HasPrefix(m.Name, "nvidia-fs"):
			through(m.Number, 0, 15)
		case m.Name == "infiniband_verbs" && m.Number == majorVerbs:
			through(m.Number, 192, 223) // Linux drivers/infiniband/core/uverbs_main.c
		case slices.Contains(gpu.HostDrivers, m.Name), strings.HasPrefix(m.Name, "infiniband"), m.Name == "accel":
			through(m.Number, 0, 31)
		}
	}
	// The host's disks. Some are enough: an engine allows one by its node, which is
	// in /dev, or all of a major.
	blocks, _ := o.list("sys/dev/block", 64)
	for _, e := range blocks {
		if n, ok := numberOf(e.Name()); ok {
			all = append(all, devnode.B(n.Major, n.Minor))
		}
	}
	if p == nil {
		return all
	}
	for _, d := range p.Devices {
		add(gpu.MajorDRM, d.Render)
	}
	for _, k := range p.Inventory {
		add(gpu.MajorNVIDIA, k.Minor)
	}
	for _, n := range p.Numbers {
		if !n.AllMinor {
			all = append(all, devnode.C(n.Major, n.Minor))
		}
	}
	return all
}

// capMinors are the rights over MIG and all GPU instances: where the formula has
// them and where the driver says that they are. Instances of GPUs that no listing
// shows are among them; a listing is no verdict.
func (o *observer) capMinors() []int {
	n := &o.facts.NVIDIA
	all := []int{gpu.MinorFabric, gpu.MinorConfig, gpu.MinorMonitor, gpu.MinorIMEXMgmt, n.Config, n.Monitor, n.IMEX}
	for g := range gpu.MaxMIGGPUs {
		for gi := range gpu.MaxGIs {
			all = append(all, gpu.CapMinor(g, gi, -1))
		}
	}
	for _, i := range n.Table {
		if i.CI < 0 {
			all = append(all, i.Minor)
		}
	}
	for _, i := range n.Instances {
		all = append(all, i.Minor)
	}
	return all
}

// computeInstances are those in GPU instances that may be read.
func (o *observer) computeInstances(asked map[devnode.Number]devnode.Access) []devnode.Number {
	var all []devnode.Number
	for _, m := range o.facts.Majors {
		if m.Block || m.Name != "nvidia-caps" {
			continue
		}
		open := map[[2]int]bool{} // GPU and GPU instance
		for g := range gpu.MaxMIGGPUs {
			for gi := range gpu.MaxGIs {
				if asked[devnode.C(m.Number, uint32(gpu.CapMinor(g, gi, -1)))].Read == devnode.Allowed {
					open[[2]int{g, gi}] = true
					for ci := range gpu.MaxCIs {
						all = append(all, devnode.C(m.Number, uint32(gpu.CapMinor(g, gi, ci))))
					}
				}
			}
		}
		for _, i := range o.facts.NVIDIA.Table {
			if i.CI < 0 && asked[devnode.C(m.Number, uint32(i.Minor))].Read == devnode.Allowed {
				open[[2]int{i.GPU, i.GI}] = true
			}
		}
		for _, i := range o.facts.NVIDIA.Table {
			if i.CI >= 0 && open[[2]int{i.GPU, i.GI}] {
				all = append(all, devnode.C(m.Number, uint32(i.Minor)))
			}
		}
	}
	return all
}

// A node is a device node that was found.
type node struct {
	Path   string
	Number devnode.Number
	Mode   fs.FileMode
}

// nodes finds device nodes under /dev. Where the only answer is what exists, it
// also looks on volumes: an earlier job may have left a node there. Mounts with
// nodev are left out, where no node opens. Of the container's own root, which
// nobody but its image and its engine have put nodes into, only the top is looked
// at: that is where --device FROM:/opt/TO leads.
func (o *observer) nodes() []node {
	w := walk{observer: o, left: mostNodes, mounted: map[string]bool{}}
	seen := map[string]procfs.Mount{"/dev": {Point: "/dev"}} // where /dev is no mount
	for _, m := range o.facts.Mounts {
		seen[m.Point] = m // of two in one place the later one
		w.mounted[m.Point] = true
	}
	if o.facts.Unread[gpu.FromMounts] != "" && o.facts.Method != gpu.Probed {
		o.unread(gpu.FromNodes, "volumes are unknown")
	}
	var starts []string
	for point, m := range seen {
		volume := point != "/" && o.facts.Method != gpu.Probed
		if (procfs.Under(point, "/dev") || volume) && !m.Has("nodev") && !m.IsPseudo() {
			starts = append(starts, point)
		}
	}
	slices.Sort(starts)
	for _, start := range starts {
		w.start(start)
	}
	if root := seen["/"]; o.facts.Method != gpu.Probed && !root.Has("nodev") {
		w.top()
	}
	slices.SortFunc(w.found, func(a, b node) int { return strings.Compare(a.Path, b.Path) })
	return w.found
}

// A walk goes through directories and stays on the mount where it starts.
type walk struct {
	*observer
	mounted map[string]bool // mount points
	left    int             // entries that may still be looked at
	found   []node
}

func (w *walk) start(point string) {
	name, ok := within(point)
	if !ok {
		w.unread(gpu.FromNodes, "a mount point that is no path")
		return
	}
	info, err := w.FS.Lstat(name)
	if err != nil {
		w.missed(gpu.FromNodes, point, err)
		return
	}
	if !info.IsDir() {
		w.file(point, info)
		return
	}
	for dirs := []string{name}; len(dirs) > 0; {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		all, err := w.list(dir, w.left)
		w.left -= len(all)
		if err == errLarge {
			w.unread(gpu.FromNodes, fmt.Sprintf("more than %d files in /dev and on volumes without nodev", mostNodes))
		} else if !errors.Is(err, fs.ErrPermission) { // where it is shut to the job as well
			w.missed(gpu.FromNodes, "/"+dir, err)
		}
		for _, e := range all {
			at := path.Join(dir, e.Name())
			switch {
			case w.mounted["/"+at]: // a start of its own, or left out
			case e.IsDir():
				dirs = append(dirs, at)
			case e.Type()&fs.ModeDevice != 0:
				info, err := e.Info()
				w.missed(gpu.FromNodes, "/"+at, err)
				if err == nil {
					w.file("/"+at, info)
				}
			}
		}
	}
}

// top looks into the root directory and into those in it, as far as they are on
// its mount, and misses nothing: a job may have filled them.
func (w *walk) top() {
	for dirs := []string{"."}; len(dirs) > 0; dirs = dirs[1:] {
		all, _ := w.list(dirs[0], mostEntries)
		for _, e := range all {
			at := path.Join(dirs[0], e.Name())
			switch {
			case w.mounted["/"+at] || at == "dev":
			case e.IsDir() && dirs[0] == ".":
				dirs = append(dirs, at)
			case e.Type()&fs.ModeDevice != 0:
				if info, err := e.Info(); err == nil {
					w.file("/"+at, info)
				}
			}
		}
	}
}

func (w *walk) file(path string, info fs.FileInfo) {
	if n, ok := devnode.Of(info); ok {
		w.found = append(w.found, node{Path: path, Number: n, Mode: info.Mode()})
	}
}
