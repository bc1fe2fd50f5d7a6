package gpu

import (
	"fmt"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

var (
	nvidiaCtl     = devnode.C(MajorNVIDIA, MinorCtl)
	nvidiaModeset = devnode.C(MajorNVIDIA, MinorModeset)
)

// A share is what the policy gives this agent, on this machine.
type share struct {
	own      map[devnode.Number]bool // the policy's, and what a finding about the policy's devices explains
	ownCaps  map[int]bool            // minors of nvidia-caps, likewise
	gpus     []ownGPU                // those of the policy's devices that were found
	problems map[string][]found      // by check
}

// An ownGPU is one of the policy's devices, found on this machine.
type ownGPU struct {
	Device
	number devnode.Number
	minor  int // NVIDIA's device minor
	pci    string
	uuid   string
	gpuID  uint32 // AMD's
	drm    *DRM
}

// divide finds the policy's devices. Of each it notes the first of what is wrong:
// identity, denied, missing, unusable.
func (w *world) divide() share {
	s := share{own: map[devnode.Number]bool{}, ownCaps: map[int]bool{}, problems: map[string][]found{}}
	p := w.Policy
	if p == nil || p.Off != "" {
		return s
	}
	d := divider{w, &s}
	var lost []Device // not found at all
	for _, device := range p.Devices {
		if !d.find(device) {
			lost = append(lost, device)
		}
	}
	strangers := d.strangers()
	for i, device := range lost {
		// Something else in the place of what was promised is one cause, not two;
		// more of it than was promised is not.
		if len(strangers) > 0 && len(strangers) <= len(lost) && i < len(strangers) {
			s.own[strangers[i].number] = true
			d.problem("gpu.identity", fmt.Sprintf("the policy says %s, but this container has %s", device.words(), strangers[i].words),
				"the agent's jobs may be computing on somebody else's GPU", d.fixIdentity()...)
			continue
		}
		d.missing(device, "the driver shows "+d.instead())
	}
	d.companions()
	d.tolerate()
	return s
}

// A divider fills a share.
type divider struct {
	*world
	s *share
}

func (d divider) problem(id, what, why string, fix ...string) {
	d.s.problems[id] = append(d.s.problems[id], found{what: what, why: why, fix: fix})
}

func (d divider) unknown(id, what string, fix ...string) {
	d.s.problems[id] = append(d.s.problems[id], found{what: what, fix: fix, unknown: true})
}

// find notes one device and what is wrong with it; false: there is nothing of it.
func (d divider) find(device Device) bool {
	if d.Policy.Vendor == VendorNVIDIA {
		return d.findNVIDIA(device)
	}
	return d.findDRM(device)
}

func (d divider) findNVIDIA(device Device) bool {
	gpu, ok := d.listed(device)
	if !ok {
		return false
	}
	if gpu.Minor < 0 {
		d.unknown("gpu.missing", fmt.Sprintf("the driver does not say which device node %s has", device.words()),
			"look at /proc/driver/nvidia/gpus/"+escape.Text(gpu.PCI)+"/information on the host: Device Minor")
		return true
	}
	own := ownGPU{Device: device, number: devnode.C(MajorNVIDIA, uint32(gpu.Minor)), minor: gpu.Minor, pci: gpu.PCI, uuid: gpu.UUID}
	d.s.own[own.number] = true
	if device.UUID != "" && gpu.UUID != "" && device.UUID != gpu.UUID {
		d.problem("gpu.identity", fmt.Sprintf("the policy says %s, but at %s is %s", escape.Text(device.UUID), escape.Text(gpu.PCI), escape.Text(gpu.UUID)),
			"the GPU was swapped, or the agent has somebody else's", d.fixIdentity()...)
		return true
	}
	if device.PCI != "" && device.PCI != gpu.PCI {
		d.problem("gpu.identity", fmt.Sprintf("the policy says that %s is at %s, but it is at %s", escape.Text(gpu.UUID), device.PCI, escape.Text(gpu.PCI)),
			"the GPU has moved, and what is in its old place may be somebody else's", d.fixIdentity()...)
		return true
	}
	if !d.reachable(own) {
		return true
	}
	d.s.gpus = append(d.s.gpus, own)
	if device.slice() {
		d.findSlice(own)
	}
	return true
}

// listed is the policy's GPU, or a slice's, among those that the driver shows: by
// UUID, else by PCI address.
func (d divider) listed(device Device) (NVIDIAGPU, bool) {
	var byPCI, bySlice []NVIDIAGPU
	for _, g := range d.NVIDIA.GPUs {
		if device.UUID != "" && g.UUID == device.UUID {
			return g, true
		}
		if device.PCI != "" && g.PCI == device.PCI {
			byPCI = append(byPCI, g)
		}
		if device.slice() && device.UUID == "" && device.PCI == "" && d.hasSlice(g.Minor, device) {
			bySlice = append(bySlice, g)
		}
	}
	switch {
	case len(byPCI) == 1:
		return byPCI[0], true
	case len(bySlice) == 1:
		return bySlice[0], true
	}
	return NVIDIAGPU{}, false
}

// hasSlice tells whether the kernel opens the slice of that GPU.
func (d divider) hasSlice(gpu int, device Device) bool {
	major, ok := d.major("nvidia-caps")
	return ok && gpu >= 0 && device.GI >= 0 && d.access(devnode.C(major, uint32(CapMinor(gpu, device.GI, -1)))).Read == devnode.Allowed
}

// reachable notes what is wrong with the main node of an own GPU.
func (d divider) reachable(own ownGPU) bool {
	a, nodes := d.access(own.number), d.nodes(own.number)
	switch {
	case a.Both() && len(nodes) > 0:
		return true
	case a.Both():
		d.missing(own.Device, fmt.Sprintf("the kernel allows %s, but /dev has no node for it", own.number))
	case !a.Known():
		d.unknown("gpu.denied", fmt.Sprintf("%s (%s): the kernel could not be asked: %s", own.words(), own.number, escape.Text(a.Cause)),
			"let the hook run as root in the container, or as a user who may open the node")
	case len(nodes) > 0:
		d.problem("gpu.denied", fmt.Sprintf("%s (%s) is there, but the kernel refuses to open it", escape.Text(nodes[0]), own.number),
			"the engine's device rules are gone: systemctl daemon-reload, also by unattended upgrades, or docker update rewrote them; every CUDA call says \"Unknown Error\"",
			"now: systemctl restart buildkite-agent@AGENT on the host, which makes the container anew",
			"for good: nvidia-container-toolkit 1.18 or newer, or CDI devices, or the node under devices: in compose.yml, too:",
			"    devices: [\""+escape.Text(nodes[0])+"\"]")
	default:
		d.missing(own.Device, fmt.Sprintf("the driver shows it at %s, but the kernel refuses %s and /dev has no node for it", escape.Text(own.pci), own.number))
	}
	return false
}

func (d divider) missing(device Device, what string) {
	fix := []string{"on the host: nvidia-smi -L, and dmesg for a GPU that fell off the bus (Xid 79)",
		"in compose.yml, this agent's service: environment: {NVIDIA_VISIBLE_DEVICES: \"" + device.visible() + "\"}"}
	if d.Policy.Vendor != VendorNVIDIA {
		fix = []string{"on the host: ls -l /dev/dri/by-path, and dmesg for a GPU that is gone",
			"in compose.yml, this agent's service: devices: [" + renderNode(device.PCI) + "]"}
	}
	d.problem("gpu.missing", device.words()+" is not here: "+what, "", fix...)
}

// instead names what is there, for the one who looks for what is not.
func (d divider) instead() string {
	var names []string
	for _, g := range d.NVIDIA.GPUs {
		names = append(names, escape.Text(g.PCI))
	}
	if d.Policy.Vendor != VendorNVIDIA {
		names = nil
		for _, card := range d.DRM {
			if strings.HasPrefix(card.Name, "renderD") && d.access(card.Number).Any() {
				names = append(names, escape.Text(card.PCI))
			}
		}
	}
	if len(names) == 0 {
		return "no GPU at all"
	}
	return strings.Join(names, ", ")
}

// A stranger is a GPU that is open, and of which the policy knows nothing.
type stranger struct {
	number devnode.Number
	words  string
}

// strangers are those whose identity is known: only they can be in another's place.
func (d divider) strangers() []stranger {
	var all []stranger
	for _, g := range d.NVIDIA.GPUs {
		n := devnode.C(MajorNVIDIA, uint32(max(g.Minor, 0)))
		if d.Policy.Vendor == VendorNVIDIA && g.Minor >= 0 && !d.s.own[n] && d.access(n).Any() {
			all = append(all, stranger{n, g.words()})
		}
	}
	for _, card := range d.DRM {
		if d.Policy.Vendor != VendorNVIDIA && strings.HasPrefix(card.Name, "renderD") && card.PCI != "" && !d.s.own[card.Number] && d.access(card.Number).Any() {
			all = append(all, stranger{card.Number, "the GPU at " + escape.Text(card.PCI)})
		}
	}
	return all
}

// findSlice notes the capabilities of a slice, and what is wrong with them.
func (d divider) findSlice(own ownGPU) {
	major, ok := d.major("nvidia-caps")
	if !ok {
		d.problem("gpu.unusable", "the kernel knows no nvidia-caps, which opens MIG slices", "", "on the host: modprobe nvidia; nvidia-smi mig -lgi")
		return
	}
	if own.GI < 0 || own.CI < 0 {
		d.unknown("mig.identity", fmt.Sprintf("the policy names %s without gi and ci", own.Device.words()),
			"on the host, at each start: juliagpu gpu resolve --agent AGENT writes them")
		return
	}
	gi, ci := CapMinor(own.minor, own.GI, -1), CapMinor(own.minor, own.GI, own.CI)
	d.s.ownCaps[gi], d.s.ownCaps[ci] = true, true
	if len(d.differ) > 0 {
		return // nobody knows what any minor means
	}
	reads := func(minor int) bool { return d.access(devnode.C(major, uint32(minor))).Read == devnode.Allowed }
	expected := fmt.Sprintf("gi%d/ci%d", own.GI, own.CI)
	switch others := d.otherSlices(own, reads); {
	case reads(gi) && reads(ci) && d.recreated(own):
		d.problem("mig.identity", fmt.Sprintf("the policy says %s of %s, which the driver does not have any more", expected, escape.Text(own.pci)),
			"MIG slices do not survive a reboot; what is in the place of this one now is not known", d.fixIdentity()...)
	case reads(gi) && reads(ci):
	case len(others) > 0:
		for _, o := range others {
			d.s.ownCaps[o.Minor] = true
		}
		d.problem("mig.identity", fmt.Sprintf("the policy says %s of %s, but this container has %s", expected, escape.Text(own.pci), others[0].words()),
			"MIG slices get new numbers when they are made anew; the agent may have somebody else's", d.fixIdentity()...)
	default:
		minor := ci
		if !reads(gi) {
			minor = gi
		}
		d.problem("gpu.unusable", fmt.Sprintf("the kernel refuses /dev/nvidia-caps/nvidia-cap%d (%d:%d), which opens %s", minor, major, minor, expected), "",
			"in compose.yml, this agent's service: environment: {NVIDIA_VISIBLE_DEVICES: \""+own.visible()+"\"}",
			"on the host: nvidia-smi -L must show the slice")
	}
}

// otherSlices are the instances of the same GPU that are open instead.
func (d divider) otherSlices(own ownGPU, reads func(int) bool) []Instance {
	var others []Instance
	for gi := range MaxGIs {
		for ci := -1; ci < MaxCIs; ci++ {
			minor := CapMinor(own.minor, gi, ci)
			if !d.s.ownCaps[minor] && reads(minor) && (gi != own.GI || !d.Policy.AllowSharedGI) {
				others = append(others, Instance{own.minor, gi, ci, minor})
			}
		}
	}
	if len(d.Policy.Devices) > 1 { // another device of the policy may have it
		return nil
	}
	return others
}

// recreated tells whether the driver shows this GPU's instances, and ours is not
// among them.
func (d divider) recreated(own ownGPU) bool {
	shown := false
	for _, i := range d.NVIDIA.Instances {
		if i.GPU != own.minor {
			continue
		}
		shown = true
		if i.GI == own.GI && i.CI == own.CI {
			return false
		}
	}
	return shown
}

// findDRM finds an AMD or Intel GPU by its PCI address.
func (d divider) findDRM(device Device) bool {
	var nodes []*DRM
	for i := range d.Facts.DRM {
		card := &d.Facts.DRM[i]
		if strings.HasPrefix(card.Name, "renderD") && card.PCI == device.PCI && (device.Render < 0 || card.Number.Minor == uint32(device.Render)) {
			nodes = append(nodes, card)
		}
	}
	switch len(nodes) {
	case 0:
		return false
	case 1:
	default:
		for _, node := range nodes {
			d.s.own[node.Number] = true
		}
		d.unknown("gpu.identity", fmt.Sprintf("%s has several render nodes, and the policy does not say which", device.words()),
			"in the policy, of this device: render: "+fmt.Sprint(nodes[0].Number.Minor))
		return true
	}
	own := ownGPU{Device: device, number: nodes[0].Number, pci: nodes[0].PCI, drm: nodes[0]}
	d.s.own[own.number] = true
	for _, k := range d.KFD.Nodes {
		if k.Render != int(own.number.Minor) || k.Denied {
			continue
		}
		own.gpuID = k.GPUID
		if device.UniqueID != 0 && k.UniqueID != 0 && device.UniqueID != k.UniqueID || device.GPUID != 0 && device.GPUID != k.GPUID {
			d.problem("gpu.identity", fmt.Sprintf("the policy says unique_id %d, gpu_id %d at %s, but there is unique_id %d, gpu_id %d",
				device.UniqueID, device.GPUID, device.PCI, k.UniqueID, k.GPUID), "the GPU was swapped, or the agent has somebody else's", d.fixIdentity()...)
			return true
		}
	}
	if d.reachable(own) {
		d.s.gpus = append(d.s.gpus, own)
	}
	return true
}

// companions notes the nodes without which an own GPU is of no use. Where none of
// the own GPUs can be opened the reason for that is finding enough.
func (d divider) companions() {
	if len(d.s.gpus) == 0 {
		return
	}
	need := func(n devnode.Number, path, fix string) {
		d.s.own[n] = true
		if a := d.access(n); !a.Both() {
			d.problem("gpu.unusable", fmt.Sprintf("the kernel does not open %s (%s), which every program on the GPU needs: %s", path, n, worst(a)), "", fix)
		}
	}
	named := func(name, path, fix string) {
		major, ok := d.major(name)
		if !ok {
			d.problem("gpu.unusable", "the kernel has no driver "+name+", which every program on the GPU needs", "", fix)
			return
		}
		need(devnode.C(major, 0), path, fix)
	}
	switch d.Policy.Vendor {
	case VendorNVIDIA:
		need(nvidiaCtl, "/dev/nvidiactl", "in compose.yml: runtime: nvidia, and environment: {NVIDIA_DRIVER_CAPABILITIES: \"compute,utility\"}")
		named("nvidia-uvm", "/dev/nvidia-uvm", "on the host: nvidia-modprobe -u -c0, then restart the agent")
	case VendorAMD:
		named("kfd", "/dev/kfd", "in compose.yml, this agent's service: devices: [\"/dev/kfd\", …]")
	}
}

func worst(a devnode.Access) string {
	if a.Read != devnode.Allowed {
		return "reading " + a.Read.String()
	}
	return "writing " + a.Write.String()
}

// tolerate takes back as many missing devices as the policy allows to be missing.
func (d divider) tolerate() {
	spare := len(d.Policy.Devices) - d.Policy.Min
	missing := d.s.problems["gpu.missing"]
	for i := range missing {
		if i < spare {
			missing[i].as = Info
		}
	}
}

func (d divider) fixIdentity() []string {
	changed := "if the GPU was changed on purpose: juliagpu gpu policy on the host, and its section into the policy"
	if d.Policy.Resolved != nil {
		changed = "now: systemctl restart buildkite-agent@AGENT on the host: juliagpu gpu resolve finds it, or says what is there instead"
	}
	return []string{changed, "else: name this agent's own GPU in compose.yml, by UUID or PCI address and never by index"}
}

// layout are the instances whose minors the driver states otherwise than the
// table says.
func (n NVIDIA) layout() []Instance {
	var differ []Instance
	for _, i := range slices.Concat(n.Table, n.Instances) {
		if i.Minor != CapMinor(i.GPU, i.GI, i.CI) {
			differ = append(differ, i)
		}
	}
	return differ
}

// slice tells whether a device is a part of a GPU.
func (d Device) slice() bool { return d.MIG != "" || d.GI >= 0 || d.CI >= 0 }

// words names a device of the policy.
func (d Device) words() string {
	switch {
	case d.MIG != "":
		return "slice " + escape.Text(d.MIG)
	case d.slice():
		return fmt.Sprintf("slice gi%d/ci%d of the GPU at %s", d.GI, d.CI, escape.Text(d.PCI))
	case d.UUID != "" && d.PCI != "":
		return "GPU " + escape.Text(d.UUID) + " at " + escape.Text(d.PCI)
	case d.UUID != "":
		return "GPU " + escape.Text(d.UUID)
	}
	return "the GPU at " + escape.Text(d.PCI)
}

// visible is the device as NVIDIA_VISIBLE_DEVICES takes it.
func (d Device) visible() string {
	for _, name := range []string{d.MIG, d.UUID} {
		if name != "" {
			return escape.Text(name)
		}
	}
	return "GPU-…"
}

func (g NVIDIAGPU) words() string {
	if g.UUID == "" {
		return "the GPU at " + escape.Text(g.PCI)
	}
	return "GPU " + escape.Text(g.UUID) + " at " + escape.Text(g.PCI)
}

func (i Instance) words() string {
	if i.CI < 0 {
		return fmt.Sprintf("gpu%d/gi%d", i.GPU, i.GI)
	}
	return fmt.Sprintf("gpu%d/gi%d/ci%d", i.GPU, i.GI, i.CI)
}

// words says what GPUs the job has.
func (w *world) words() string {
	switch p := w.Policy; {
	case w.Advice:
		return "advice alone, no hook of this agent enforces it"
	case p == nil && w.Host != "":
		return "expected of the host, and not enforced"
	case p == nil:
		return "no policy for GPUs"
	case p.Off != "":
		return "GPUs not checked"
	case p.Vendor == VendorNone:
		return "no GPU"
	}
	var names []string
	slices := 0
	for _, g := range w.gpus {
		bus := strings.TrimPrefix(escape.Text(g.pci), "0000:")
		switch {
		case g.slice():
			slices++
			names = append(names, strings.TrimPrefix(fmt.Sprintf("%s, gi%d/ci%d of %s", short(g.MIG), g.GI, g.CI, bus), ", "))
		case g.uuid != "":
			names = append(names, short(g.uuid)+", "+bus)
		default:
			names = append(names, bus)
		}
	}
	text := fmt.Sprint(len(w.gpus))
	kind := " GPU"
	if slices > 0 {
		kind = " MIG slice"
	}
	if all := w.onHost(); slices == 0 && all > len(w.gpus) {
		text += fmt.Sprintf(" of %d", all)
		kind += "s"
	} else if len(w.gpus) != 1 {
		kind += "s"
	}
	if len(names) == 0 {
		return text + kind
	}
	return text + kind + " (" + strings.Join(names, "; ") + ")"
}

// onHost counts the GPUs of the policy's vendor that the machine shows.
func (w *world) onHost() int {
	switch w.Policy.Vendor {
	case VendorNVIDIA:
		return len(w.NVIDIA.GPUs)
	case VendorAMD:
		return len(w.KFD.Nodes)
	}
	return 0
}

// short is an identifier's beginning, enough to tell one from another.
func short(id string) string {
	if id == "" {
		return ""
	}
	if i := strings.IndexByte(id, '-'); i >= 0 && len(id) > i+9 {
		id = id[:i+9]
	}
	return escape.Text(id)
}
