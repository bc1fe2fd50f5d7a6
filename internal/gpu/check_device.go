package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// policyTrust: without a policy that can be trusted, a GPU that is open may be
// anybody's.
func policyTrust(w *world) []found {
	const mount = "    volumes: [\"/run/juliagpu-secrets/gpu/AGENT.yml:/etc/juliagpu-secrets/gpu.yml:ro\"]"
	if w.PolicyError != nil {
		one := found{what: escape.Text(w.PolicyError.Error()), fix: []string{"chown root:root and chmod 0644 the file, and mount it read-only:", mount}}
		var e *strict.Error
		switch h, ok := w.PolicyError.(interface{ Hint() string }); {
		case errors.Is(w.PolicyError, fs.ErrNotExist):
			one.fix = []string{"juliagpu gpu policy prints one to look at; mount it where the configuration expects it:", mount}
		case errors.As(w.PolicyError, &e) && e.Hint() != "":
			one.fix = []string{escape.Text(e.Hint())}
		case ok && h.Hint() != "":
			one.fix = append([]string{escape.Text(h.Hint())}, one.fix...)
		}
		return []found{one}
	}
	if w.Policy != nil && w.jobsWrite(w.Policy.Path) {
		return []found{{what: "jobs here are root, and " + escape.Text(w.Policy.Path) + " is on no read-only mount: a job can change the policy of all later ones",
			fix: []string{"in compose.yml, this agent's service:", mount}}}
	}
	if w.Policy != nil || w.Host != "" {
		return nil
	}
	open := w.open(func(devnode.Number) bool { return true })
	if len(open) == 0 || w.access(devMem).Any() { // everything is open: devices.unrestricted
		return nil
	}
	one := found{what: "this container can open " + list(open) + ", and no policy says which GPU is meant"}
	suggested := Suggest(w.Facts)
	if suggested.Vendor == VendorNone { // as good as nothing to paste: each of them would be somebody else's
		one.fix = []string{"in compose.yml, this agent's service: no privileged: true and no device_cgroup_rules with *; no driver here knows these numbers"}
		return []found{one}
	}
	one.fix = []string{"look whether this is the agent's own GPU and no other; then, in config.yml:"}
	for line := range strings.Lines(suggested.YAML()) {
		one.fix = append(one.fix, "    "+strings.TrimRight(line, "\n"))
	}
	return []found{one}
}

// jobsWrite tells whether the jobs' user may write to a file of root's: that it is
// root's says nothing where jobs are root.
func (w *world) jobsWrite(path string) bool {
	if path == "" || w.Settled || w.Host != "" || w.Process.UID != 0 || w.Unread[FromMounts] != "" {
		return false
	}
	m, ok := procfs.MountOf(w.Mounts, path)
	return ok && !m.ReadOnly()
}

// open are the numbers of GPUs that are open in either way, in order. (For the
// nodes that all GPUs share see companions.)
func (w *world) open(counts func(devnode.Number) bool) []devnode.Number {
	var open []devnode.Number
	for _, r := range w.Readings {
		if isGPU(r.Number) && w.access(r.Number).Any() && counts(r.Number) {
			open = append(open, r.Number)
		}
	}
	return open
}

// isGPU tells whether a number is that of one GPU.
func isGPU(n devnode.Number) bool {
	return n.Kind == devnode.Char && (n.Major == MajorNVIDIA && n.Minor <= MaxNVIDIAMinor || n.Major == MajorDRM)
}

func list(numbers []devnode.Number) string {
	var words []string
	for _, r := range runs(numbers) {
		words = append(words, r.String())
	}
	return strings.Join(words, ", ")
}

// A span is a run of numbers without a gap.
type span struct{ first, last devnode.Number }

func (s span) String() string {
	if s.first == s.last {
		return s.first.String()
	}
	return s.first.String() + " to " + s.last.String()
}

func runs(numbers []devnode.Number) []span {
	var spans []span
	for _, n := range numbers {
		if i := len(spans) - 1; i >= 0 && spans[i].last.Kind == n.Kind && spans[i].last.Major == n.Major && spans[i].last.Minor+1 == n.Minor {
			spans[i].last = n
		} else {
			spans = append(spans, span{n, n})
		}
	}
	return spans
}

// gpuForeign: a GPU that is not the policy's can be opened.
func gpuForeign(w *world) []found {
	fix := w.fixForeign()
	var all []found
	add := func(what string) { all = append(all, found{what: what, fix: fix}) }

	foreign := w.open(func(n devnode.Number) bool { return !w.own[n] })
	var nvidia []devnode.Number
	cards := map[string][]devnode.Number{} // by PCI address
	var addresses []string
	var nameless []devnode.Number
	for _, n := range foreign {
		card := w.card(n)
		switch {
		case n.Major == MajorNVIDIA:
			nvidia = append(nvidia, n)
		case card == nil || card.PCI == "":
			nameless = append(nameless, n)
		case w.ownsPCI(card.PCI):
			// The own GPU by its other door: see devFamily, and several render nodes below.
			if strings.HasPrefix(card.Name, "renderD") && w.Policy.Vendor != VendorNVIDIA {
				add(fmt.Sprintf("this container can open another part of the GPU at %s (%s)", escape.Text(card.PCI), n))
			}
		default:
			if cards[card.PCI] == nil {
				addresses = append(addresses, card.PCI)
			}
			cards[card.PCI] = append(cards[card.PCI], n)
		}
	}
	for _, run := range runs(nvidia) {
		add(fmt.Sprintf("this container can open %s", w.whose(run)))
	}
	for _, pci := range addresses {
		add(fmt.Sprintf("this container can open the GPU at %s (%s)%s", escape.Text(pci), list(cards[pci]), w.agentOf(-1, "", pci)))
	}
	for _, run := range runs(nameless) {
		add(fmt.Sprintf("this container can open a GPU of which nothing else is known (%s)", run))
	}
	if w.Policy.Vendor == VendorNone {
		all = append(all, w.shared(fix)...)
	}
	if len(all) == 0 {
		if n := len(w.open(func(n devnode.Number) bool { return w.own[n] })); n > w.Policy.Max && w.Policy.Vendor != VendorNone {
			add(fmt.Sprintf("this container can open %d GPUs, and the policy's count.max is %d", n, w.Policy.Max))
		}
	}
	all = append(all, w.driverShows(all, fix)...)
	return append(all, w.unasked(fix)...)
}

// fixForeign says how a container gets its own GPU alone.
func (w *world) fixForeign() []string {
	switch w.Policy.Vendor {
	case VendorNVIDIA:
		visible := w.Policy.Devices[0].visible()
		for _, d := range w.Policy.Devices[1:] {
			visible += "," + d.visible()
		}
		return []string{"in compose.yml, this agent's service: the own GPU by name, never \"all\" and never an index; no privileged: true; no",
			"device_cgroup_rules with *; no /dev/dri:/dev/dri under volumes: or devices:",
			"    environment: {NVIDIA_VISIBLE_DEVICES: \"" + visible + "\"}",
			"then: docker compose up -d --force-recreate"}
	case VendorNone:
		return []string{"in compose.yml, this agent's service: no runtime: nvidia, no devices: of a GPU, and",
			"    environment: {NVIDIA_VISIBLE_DEVICES: \"void\"}",
			"then: docker compose up -d --force-recreate"}
	}
	fix := []string{"in compose.yml, this agent's service: the own render node by its PCI address, never the whole of /dev/dri:"}
	for _, d := range w.Policy.Devices {
		fix = append(fix, "    devices: ["+renderNode(d.PCI)+"]")
	}
	return append(fix, "then: docker compose up -d --force-recreate")
}

// renderNode gives a container the node of the GPU at an address, in Compose's long
// form: the short one takes the address's colons for its own.
func renderNode(pci string) string {
	return `{source: "/dev/dri/by-path/pci-` + pci + `-render", target: /dev/dri/renderD128, permissions: rw}`
}

// whose names the GPUs of a run of NVIDIA's numbers, as far as they are known.
func (w *world) whose(run span) string {
	var names []string
	for _, g := range w.NVIDIA.GPUs {
		if g.Minor >= int(run.first.Minor) && g.Minor <= int(run.last.Minor) {
			name := escape.Text(g.PCI)
			if g.UUID != "" {
				name += " " + short(g.UUID)
			}
			names = append(names, name+w.agentOf(g.Minor, g.UUID, g.PCI))
		}
	}
	for _, k := range w.Policy.Inventory {
		inRun := k.Minor >= int(run.first.Minor) && k.Minor <= int(run.last.Minor)
		listed := slices.ContainsFunc(w.NVIDIA.GPUs, func(g NVIDIAGPU) bool { return g.Minor == k.Minor })
		if inRun && !listed && !k.slice() {
			names = append(names, k.words()+w.agentOf(k.Minor, k.UUID, k.PCI))
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("somebody else's GPU (%s)", run)
	}
	return fmt.Sprintf("GPU %s (%s)", strings.Join(names, ", GPU "), run)
}

func (k Known) words() string {
	switch {
	case k.PCI != "":
		return escape.Text(k.PCI)
	case k.UUID != "":
		return short(k.UUID)
	}
	return strconv.Itoa(k.Minor)
}

// agentOf says whose a GPU is, by the policy's inventory.
func (w *world) agentOf(minor int, uuid, pci string) string {
	for _, k := range w.Policy.Inventory {
		if k.Agent != "" && !k.slice() && (minor >= 0 && k.Minor == minor || uuid != "" && k.UUID == uuid || pci != "" && k.PCI == pci) {
			return " of agent " + escape.Text(k.Agent)
		}
	}
	return ""
}

// slice tells whether an entry is a part of a GPU: whose that is says nothing of
// the rest.
func (k Known) slice() bool { return k.GI >= 0 || strings.HasPrefix(k.UUID, "MIG-") }

// agentsOf says whose GPU instances are, by the policy's inventory.
func (w *world) agentsOf(instances []Instance) string {
	var names []string
	for _, i := range instances {
		for _, k := range w.Policy.Inventory {
			ours := k.Minor == i.GPU && k.GI == i.GI && (i.CI < 0 || k.CI == i.CI)
			if name := escape.Text(k.Agent); ours && k.Agent != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " of agent " + strings.Join(names, ", ")
}

// card is what sysfs says of a DRM number.
func (w *world) card(n devnode.Number) *DRM {
	for i := range w.Facts.DRM {
		if w.Facts.DRM[i].Number == n {
			return &w.Facts.DRM[i]
		}
	}
	return nil
}

// ownsPCI tells whether the policy's GPU is at that address. Of a slice's GPU the
// DRM nodes open what is not the slice, too: only graphics makes them the agent's.
func (w *world) ownsPCI(pci string) bool {
	owns := func(d Device) bool { return !d.slice() || w.Policy.Graphics }
	for _, g := range w.gpus {
		if g.pci == pci && owns(g.Device) {
			return true
		}
	}
	return slices.ContainsFunc(w.Policy.Devices, func(d Device) bool { return d.PCI != "" && d.PCI == pci && owns(d) })
}

// allowedBesides tells whether the policy allows a number by itself. It excuses
// families alone: a GPU or a slice is named as such, or it is somebody else's.
func (w *world) allowedBesides(n devnode.Number) bool {
	return n.Kind == devnode.Char && slices.ContainsFunc(w.Policy.Numbers, func(p Pattern) bool {
		return p.Major == n.Major && (p.AllMinor || p.Minor == n.Minor)
	})
}

// shared are the nodes that all GPUs of a vendor share, where none is meant.
func (w *world) shared(fix []string) []found {
	var all []found
	add := func(n devnode.Number, path string) {
		if w.access(n).Any() {
			all = append(all, found{what: fmt.Sprintf("this container can open %s (%s), which only agents with a GPU need", path, n), fix: fix})
		}
	}
	add(nvidiaCtl, "/dev/nvidiactl")
	for _, named := range [][2]string{{"nvidia-uvm", "/dev/nvidia-uvm"}, {"kfd", "/dev/kfd"}} {
		if major, ok := w.major(named[0]); ok {
			add(devnode.C(major, 0), named[1])
		}
	}
	return all
}

// driverShows is AMD's own verdict: its driver keeps from us what the device
// cgroup denies. It is heard where no number says the same.
func (w *world) driverShows(said []found, fix []string) []found {
	if w.Policy.Absence || w.Host != "" || len(said) > 0 {
		return nil
	}
	var all []found
	for _, k := range w.KFD.Nodes {
		if k.Denied || k.Render < 0 {
			continue
		}
		if n := devnode.C(MajorDRM, uint32(k.Render)); !w.own[n] {
			all = append(all, found{what: fmt.Sprintf("AMD's driver opens GPU %d (gpu_id %d, %s) to this container", k.Node, k.GPUID, n), fix: fix})
		}
	}
	return all
}

// unasked are GPUs' numbers of which the kernel has not told. Where there was no
// way to ask at all, probe.unknown says so.
func (w *world) unasked(fix []string) []found {
	if w.Method != Probed {
		fix = []string{"let the hook run as root in the container, or as a user who may open the node"}
	}
	var silent []devnode.Number
	cause := ""
	for _, r := range w.Readings {
		if a := w.access(r.Number); isGPU(r.Number) && !a.Known() && !a.Any() && !w.own[r.Number] && (w.Method == Probed || len(r.Nodes) > 0) {
			silent = append(silent, r.Number)
			cause = cmp.Or(cause, r.Cause)
		}
	}
	if len(silent) == 0 {
		return nil
	}
	return []found{{what: fmt.Sprintf("the kernel could not be asked about %s: %s", list(silent), escape.Text(cause)), fix: fix, unknown: true}}
}

// migForeign: the memory of another slice can be opened.
func migForeign(w *world) []found {
	major, ok := w.major("nvidia-caps")
	if !ok || len(w.differ) > 0 {
		return nil
	}
	fix := w.fixForeign()
	whole := map[int]bool{} // GPUs that are the job's as a whole, with their slices
	for _, g := range w.gpus {
		if !g.slice() && w.Policy.Vendor == VendorNVIDIA {
			whole[g.minor] = true
		}
	}
	opens := func(minor int) bool {
		n := devnode.C(major, uint32(minor))
		return !w.ownCaps[minor] && w.access(n).Any()
	}
	var all []found
	var open []Instance // a run of instances
	flush := func() {
		if len(open) == 0 {
			return
		}
		first, last := open[0], open[len(open)-1]
		what := fmt.Sprintf("this container can open slice %s%s (%d:%d)", first.words(), w.agentsOf(open), major, first.Minor)
		if first != last {
			what = fmt.Sprintf("this container can open slices %s to %s%s (%d:%d to %d:%d)", first.words(), last.words(), w.agentsOf(open), major, first.Minor, major, last.Minor)
		}
		all = append(all, found{what: what, fix: fix})
		open = nil
	}
	for gpu := range MaxMIGGPUs {
		for gi := range MaxGIs {
			if minor := CapMinor(gpu, gi, -1); !whole[gpu] && opens(minor) {
				open = append(open, Instance{gpu, gi, -1, minor})
			} else {
				flush()
			}
		}
	}
	flush()
	if w.Policy.AllowSharedGI {
		return all
	}
	for _, g := range w.gpus {
		for ci := range MaxCIs {
			if minor := CapMinor(g.minor, g.GI, ci); g.GI >= 0 && opens(minor) {
				part := Instance{g.minor, g.GI, ci, minor}
				all = append(all, found{what: fmt.Sprintf("this container can open another part of its slice, %s%s (%d:%d)", part.words(), w.agentsOf([]Instance{part}), major, minor),
					fix: append(slices.Clone(fix), "where all of the slice is this agent's: allow_shared_gi: true in the policy")})
			}
		}
	}
	return all
}

// migAdmin: slices can be made, removed and watched, for all.
func migAdmin(w *world) []found {
	var all []found
	add := func(n devnode.Number, name, fix string) {
		if w.access(n).Any() {
			all = append(all, found{what: fmt.Sprintf("this container has the driver's capability %s (%s)", name, n), match: name, fix: []string{fix}})
		}
	}
	if major, ok := w.major("nvidia-caps"); ok {
		const unset = "in compose.yml and in the image: unset NVIDIA_MIG_CONFIG_DEVICES and NVIDIA_MIG_MONITOR_DEVICES; drop SYS_ADMIN"
		minor := func(stated, table int) devnode.Number {
			if stated >= 0 {
				table = stated
			}
			return devnode.C(major, uint32(table))
		}
		add(devnode.C(major, MinorFabric), "fabric-mgmt", "in compose.yml: no /dev/nvidia-caps under devices: or volumes:")
		add(minor(w.NVIDIA.Config, MinorConfig), "mig/config", unset)
		add(minor(w.NVIDIA.Monitor, MinorMonitor), "mig/monitor", unset)
		add(minor(w.NVIDIA.IMEX, MinorIMEXMgmt), "fabric-imex-mgmt", "in compose.yml: no /dev/nvidia-caps under devices: or volumes:")
	}
	if slices.Contains(w.Policy.Families, "nvidia-imex") {
		return all
	}
	for _, m := range w.Majors {
		if m.Block || m.Name != "nvidia-caps-imex-channels" {
			continue
		}
		for _, r := range w.Readings {
			if r.Kind == devnode.Char && r.Major == m.Number {
				add(r.Number, "imex channel "+strconv.Itoa(int(r.Minor)), "in compose.yml and in the image: unset NVIDIA_IMEX_CHANNELS")
			}
		}
	}
	return all
}

// migLayout: this driver numbers slices otherwise than the table that all
// verdicts on slices rest on.
func migLayout(w *world) []found {
	differ := w.differ
	if len(differ) == 0 {
		return nil
	}
	i := differ[0]
	what := fmt.Sprintf("the driver says minor %d for %s, the table of older drivers %d", i.Minor, i.words(), CapMinor(i.GPU, i.GI, i.CI))
	if len(differ) > 1 {
		what += fmt.Sprintf(", and %d more", len(differ)-1)
	}
	return []found{{what: what, fix: []string{"pin the driver to the version before, and report this: SECURITY.md says how"}}}
}

// problemsOf is a check whose findings divide has made.
func problemsOf(id string) func(*world) []found {
	return func(w *world) []found { return w.problems[id] }
}

// gpuMissing adds what a step demands to what the policy does.
func gpuMissing(w *world) []found {
	all := w.problems["gpu.missing"]
	none := w.Policy == nil || w.Policy.Off != "" || w.Policy.Vendor == VendorNone
	if w.Step.GPU && none {
		all = append(all, found{what: "this step demands a GPU, and the agent has none by its policy", why: "a step that needs a GPU must not run without one",
			fix: []string{"send the step to agents with a GPU, by its agents: rules (queue: …)"}, step: true})
	}
	if none || w.Step.MinVRAMMiB == 0 {
		return all
	}
	for _, g := range w.gpus {
		_, total := w.memory(g)
		switch {
		case total < 0:
			all = append(all, found{what: fmt.Sprintf("this step demands %d MiB, and how much %s has is not known", w.Step.MinVRAMMiB, g.words()), unknown: true, step: true,
				fix: []string{"leave min_vram_mib out of the step, or let nvidia-smi work in the container"}})
		case total < w.Step.MinVRAMMiB:
			all = append(all, found{what: fmt.Sprintf("this step demands %d MiB, and %s has %d MiB", w.Step.MinVRAMMiB, g.words(), total), step: true,
				fix: []string{"send the step to agents with larger GPUs, by its agents: rules (queue: …)"}})
		}
	}
	return all
}

// memory of an own GPU or slice in MiB; -1 where it is not known.
func (w *world) memory(g ownGPU) (used, total int) {
	used, total = -1, -1
	if g.drm != nil {
		if g.drm.VRAMUsed >= 0 {
			used = int(g.drm.VRAMUsed >> 20)
		}
		if g.drm.VRAMTotal >= 0 {
			total = int(g.drm.VRAMTotal >> 20)
		}
		return used, total
	}
	for _, i := range w.SMI.Instances {
		if g.slice() && i.PCI == g.pci && i.GI == g.GI && i.CI == g.CI {
			return i.UsedMiB, i.TotalMiB
		}
	}
	if s := w.smi(g); s != nil && !g.slice() {
		return s.UsedMiB, s.TotalMiB
	}
	return used, total
}

// smi is what nvidia-smi says of an own GPU.
func (w *world) smi(g ownGPU) *SMIGPU {
	for i, s := range w.SMI.GPUs {
		if g.uuid != "" && s.UUID == g.uuid || g.uuid == "" && s.PCI == g.pci {
			return &w.SMI.GPUs[i]
		}
	}
	return nil
}

// devFamily: a device that is no GPU, but opens more than the own one.
func devFamily(w *world) []found {
	var all []found
	add := func(family string, as Severity, fix string, open ...devnode.Number) {
		open = slices.DeleteFunc(open, func(n devnode.Number) bool { return w.own[n] || w.allowedBesides(n) || !w.access(n).Any() })
		if len(open) == 0 || slices.Contains(w.Policy.Families, family) {
			return
		}
		slices.SortFunc(open, devnode.Number.Compare)
		all = append(all, found{what: fmt.Sprintf("this container can open devices of the family %s (%s)", family, list(open)), match: family, as: as,
			fix: []string{fix, "where it is meant, in the policy: extra_devices: [" + family + "]"}})
	}
	const utility = "in compose.yml and in the image: environment: {NVIDIA_DRIVER_CAPABILITIES: \"compute,utility\"}"
	unset := func(name string) string {
		return "in compose.yml and in the image: unset " + name + "; no such node under devices: or volumes:"
	}
	if !w.Policy.Graphics {
		add("nvidia-modeset", Warn, utility, nvidiaModeset)
	}
	add("nvidia-nvswitch", 0, unset("NVIDIA_NVSWITCH"), w.named("nvidia-nvswitch")...)
	add("nvidia-nvlink", 0, unset("NVIDIA_NVSWITCH"), w.named("nvidia-nvlink")...)
	add("nvidia-fs", 0, unset("NVIDIA_GDS"), w.named("nvidia-fs")...)
	add("gdrdrv", 0, unset("NVIDIA_GDRCOPY"), w.named("gdrdrv")...)
	add("infiniband", 0, unset("NVIDIA_MOFED"), append(w.named("infiniband"), w.under("/dev/infiniband/")...)...)
	var cards []devnode.Number
	for _, card := range w.Facts.DRM {
		if strings.HasPrefix(card.Name, "card") && w.ownsPCI(card.PCI) && !w.Policy.Graphics {
			cards = append(cards, card.Number)
		}
	}
	add("dri.card", Warn, "in compose.yml, under devices: the render node alone: "+renderNode("…"), cards...)
	add("accel", Warn, "in compose.yml: no /dev/accel under devices: or volumes:", w.named("accel")...)
	for _, m := range w.Majors {
		if m.Name == "nvidia-uvm" && !m.Block && w.Policy.Vendor != VendorNVIDIA {
			add("nvidia-uvm-tools", Info, utility, devnode.C(m.Number, 1))
		}
	}
	return all
}

// named are the numbers that were asked about of all majors with that name, or
// that name and a number.
func (w *world) named(name string) []devnode.Number {
	var numbers []devnode.Number
	for _, m := range w.Majors {
		if m.Block || strings.TrimRight(m.Name, "0123456789") != name && !strings.HasPrefix(m.Name, name+"_") {
			continue
		}
		for _, r := range w.Readings {
			if r.Kind == devnode.Char && r.Major == m.Number {
				numbers = append(numbers, r.Number)
			}
		}
	}
	return numbers
}

// under are the numbers of nodes below a directory.
func (w *world) under(dir string) []devnode.Number {
	var numbers []devnode.Number
	for _, r := range w.Readings {
		if slices.ContainsFunc(r.Nodes, func(path string) bool { return strings.HasPrefix(path, dir) }) {
			numbers = append(numbers, r.Number)
		}
	}
	return numbers
}

// gpuBusy: memory of an own GPU is in use before the job.
func gpuBusy(w *world) []found {
	busy := w.Policy.Busy
	if w.Step.BusyDeny {
		busy = BusyDeny
	}
	if busy == BusyOff || w.Policy.Vendor == VendorIntel || w.Policy.Vendor == VendorNone {
		return nil // Intel's memory is the machine's
	}
	as := Warn
	if busy == BusyDeny {
		as = Deny
	}
	var all []found
	for _, g := range w.gpus {
		used, total := w.memory(g)
		one := found{as: as, match: g.pci, step: w.Step.BusyDeny,
			fix: []string{"on the host: nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv names the owner; end it, or reset the GPU",
				"where that much is normal, in the policy: idle_vram_mib: " + strconv.Itoa(max(used, 0)+64)}}
		if w.Policy.Vendor == VendorAMD {
			one.fix[0] = "on the host: rocm-smi --showpids names the owner; end it, or reset the GPU"
		}
		switch {
		case used < 0:
			one.unknown = true
			one.what = fmt.Sprintf("how much memory of %s is in use is not known%s", g.words(), w.because())
			one.fix = []string{"let nvidia-smi work in the container, or say busy: off in the policy"}
		case used > w.Policy.IdleMiB:
			one.what = fmt.Sprintf("%d of %d MiB of %s are in use before the job, and %d are normal", used, total, g.words(), w.Policy.IdleMiB)
		default:
			continue
		}
		all = append(all, one)
	}
	return all
}

// because says why nvidia-smi was no help.
func (w *world) because() string {
	if cause := w.Unread[FromSMI]; cause != "" {
		return ": nvidia-smi: " + escape.Text(cause)
	}
	return ""
}

// gpuLeftover: somebody computes on the own GPU before the job does.
func gpuLeftover(w *world) []found {
	var all []found
	fix := []string{"start each job in a fresh container: buildkite-agent start --disconnect-after-job, and init: true in compose.yml"}
	for _, g := range w.gpus {
		var pids []string
		for _, use := range w.KFD.Used {
			if use.GPUID == g.gpuID && g.gpuID != 0 && use.Bytes > 0 {
				pids = append(pids, strconv.Itoa(use.PID))
			}
		}
		if len(pids) > 0 {
			all = append(all, found{what: fmt.Sprintf("%d of the host's processes hold memory of %s: %s", len(pids), g.words(), strings.Join(first(pids, 8), ", ")), fix: fix})
		}
	}
	if n := len(w.Peers.Holders); n > 0 && w.Policy.Vendor != VendorNone {
		all = append(all, found{what: fmt.Sprintf("%d processes of this container that are not this job's have a GPU open: %s", n, peers(w.Peers.Holders)), fix: fix})
	}
	if n := w.SMI.Processes; n > 0 && len(w.gpus) > 0 {
		all = append(all, found{what: fmt.Sprintf("nvidia-smi counts %d processes that compute on the agent's GPUs before the job", n), fix: fix})
	}
	return all
}

// first are the first n, and how many there are besides.
func first(words []string, n int) []string {
	if more := len(words) - n; more > 0 {
		return append(slices.Clone(words[:n]), fmt.Sprintf("and %d more", more))
	}
	return words
}

func peers(all []Peer) string {
	var words []string
	for _, p := range all {
		words = append(words, fmt.Sprintf("%d (%s)", p.PID, escape.Text(p.Name)))
	}
	return strings.Join(first(words, 5), ", ")
}

// gpuHealth: the GPU itself says that it is not well.
func gpuHealth(w *world) []found {
	var all []found
	drain := []string{"on the host: take the agent out of service, nvidia-smi -r -i GPU, or reboot"}
	add := func(as Severity, format string, args ...any) {
		all = append(all, found{what: fmt.Sprintf(format, args...), as: as, fix: drain})
	}
	if cause, ok := w.Unread[FromSMI]; ok && w.SMI.Asked {
		all = append(all, found{what: "not known: nvidia-smi: " + escape.Text(cause), unknown: true,
			fix: []string{"on the host: does nvidia-smi answer there? A GPU that hangs it needs a reset"}})
	}
	for _, g := range w.gpus {
		if g.drm != nil && g.drm.Uncorrected > 0 {
			add(Warn, "%s had %d memory errors that could not be corrected", g.words(), g.drm.Uncorrected)
		}
		s := w.smi(g)
		if s == nil {
			continue
		}
		switch r := strings.ToLower(s.Recovery); {
		case strings.Contains(r, "reset"), strings.Contains(r, "reboot"):
			add(Deny, "gpu_recovery_action of %s = %s", g.words(), escape.Text(s.Recovery))
		case r != "" && r != "none" && !strings.Contains(r, "n/a"):
			add(Warn, "gpu_recovery_action of %s = %s", g.words(), escape.Text(s.Recovery))
		}
		if s.Uncorrected > 0 {
			add(Warn, "ecc.errors.uncorrected.volatile.total of %s = %d", g.words(), s.Uncorrected)
		}
		for _, remap := range [][2]string{{"pending", s.RemapWaits}, {"failure", s.RemapFailed}} {
			if v := strings.ToLower(remap[1]); v == "yes" || v == "1" {
				add(Warn, "remapped_rows.%s of %s = %s", remap[0], g.words(), escape.Text(remap[1]))
			}
		}
	}
	return all
}

// gpuMode: how the driver shares the GPU among processes.
func gpuMode(w *world) []found {
	var all []found
	for _, g := range w.gpus {
		s := w.smi(g)
		if s == nil {
			continue
		}
		switch strings.ToLower(s.ComputeMode) {
		case "prohibited":
			all = append(all, found{what: "compute mode of " + g.words() + " is Prohibited", as: Deny, fix: []string{"on the host: nvidia-smi -c 0"}})
		case "exclusive_process", "exclusive_thread":
			all = append(all, found{what: "compute mode of " + g.words() + " is " + escape.Text(s.ComputeMode) + ": tests with several processes fail", fix: []string{"on the host: nvidia-smi -c 0"}})
		}
		if strings.EqualFold(s.Persistence, "disabled") {
			all = append(all, found{what: "persistence mode of " + g.words() + " is off: each first use of the GPU is slow", as: Info, fix: []string{"on the host: systemctl enable --now nvidia-persistenced"}})
		}
	}
	return all
}

// policyStale: the resolver has written the policy for another boot, or for
// another driver, which makes slices and device numbers anew as a boot does.
func policyStale(w *world) []found {
	if w.Policy.Resolved == nil {
		return nil // a policy written by hand is for any boot
	}
	fix := []string{"in buildkite-agent@.service: ExecStartPre=+/usr/bin/juliagpu gpu resolve --agent %i", "now: systemctl restart buildkite-agent@AGENT"}
	if w.Policy.Resolved.BootID == w.BootID {
		if was, is := w.Policy.Resolved.Driver, w.NVIDIA.Driver; was != "" && is != "" && was != is {
			return []found{{what: "the policy was resolved with the NVIDIA driver " + escape.Text(was) + ", and this is " + escape.Text(is), fix: fix}}
		}
		return nil
	}
	if cause, ok := w.Unread[FromBootID]; ok {
		return []found{{what: "which boot this is, is not known: " + escape.Text(cause), unknown: true,
			fix: []string{"let the hook read " + string(FromBootID)}}}
	}
	return []found{{what: fmt.Sprintf("the policy was resolved in boot %.8s, and this is boot %.8s", escape.Text(w.Policy.Resolved.BootID), escape.Text(w.BootID)),
		fix: fix}}
}
