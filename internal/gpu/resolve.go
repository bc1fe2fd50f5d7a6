package gpu

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// Hardware is what a host has now.
type Hardware struct {
	Facts            // as observe.Devices reads them
	Listed bool      // nvidia-smi was asked, and answered
	SMI    []Listing // what it said
	Now    time.Time
}

// Unresolved says why there is no policy for an agent.
type Unresolved struct {
	Cause   string
	Remedy  string
	Machine bool   // the machine is at fault, and not what an operator wrote
	With    string // another agent that is to have the same, if that is why
}

func (e *Unresolved) Error() string { return e.Cause }

// Hint is the remedy.
func (e *Unresolved) Hint() string { return e.Remedy }

func gone(remedy, format string, args ...any) error {
	return &Unresolved{Cause: fmt.Sprintf(format, args...), Remedy: remedy, Machine: true}
}

func wrong(remedy, format string, args ...any) error {
	return &Unresolved{Cause: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Resolve makes the policy of an agent, whose intent is among all of the host's.
// Each of its devices is found on this host and agrees with all that the intent
// states, and no other agent has it, unless both say that they share; else the
// error is an *Unresolved. That others contradict each other is theirs: a mistake
// stops the agents that it is about. Of a policy that is off the only question is
// whether another agent has what the container is given.
func Resolve(agent string, intents []Intent, h Hardware) (Policy, error) {
	i := slices.IndexFunc(intents, func(i Intent) bool { return i.Agent == agent })
	if i < 0 {
		return Policy{}, wrong("docs/gpu.md says how to write one", "no intent of agent %s", agent)
	}
	own := intents[i]
	p := own.Policy
	if p.Off != "" {
		r := newResolver(intents, h)
		for _, c := range r.claims {
			if c.Agent == agent {
				if err := r.disputed(c.Intent, c.spot); err != nil {
					return Policy{}, err
				}
			}
		}
		return p, nil
	}
	if h.BootID == "" {
		return Policy{}, gone("let it be read", "%s: %s", FromBootID, escape.Text(h.Unread[FromBootID]))
	}
	p.Resolved = &Resolved{BootID: h.BootID, At: h.Now.UTC()}
	if p.Vendor == VendorNVIDIA {
		p.Resolved.Driver = h.NVIDIA.Driver
	}
	r := newResolver(intents, h)
	var err error
	p.Devices = nil
	for _, d := range own.Policy.Devices {
		at, findErr := r.find(p.Vendor, d)
		if err = findErr; err == nil {
			err = r.usable(p.Vendor, at)
		}
		if err == nil && slices.ContainsFunc(p.Devices, at.device(d).overlaps) {
			err = wrong("keep one", "%s is listed twice, under two names", at.words())
		}
		if err == nil {
			err = r.disputed(own, at)
		}
		if err != nil {
			return Policy{}, err
		}
		p.Devices = append(p.Devices, at.device(d))
	}
	p.Inventory = r.inventory()
	return p, nil
}

// A resolver finds what intents name.
type resolver struct {
	Hardware
	claims []claim
}

func newResolver(intents []Intent, h Hardware) resolver {
	r := resolver{h, nil}
	for _, intent := range intents {
		for _, d := range intent.Policy.Devices {
			// Who looks for a device that is gone will be told by his own run.
			if at, err := r.find(intent.Policy.Vendor, d); err == nil {
				r.claims = append(r.claims, claim{intent, at})
			}
		}
	}
	for _, intent := range intents { // after all others, which say more
		intent.Path = filepath.Join(filepath.Dir(intent.Path), ".env")
		for _, name := range intent.Given {
			for _, v := range []Vendor{VendorNVIDIA, VendorAMD, VendorIntel} {
				if d := given(name); (v == VendorNVIDIA) == (d.PCI == "") {
					if at, err := r.find(v, d); err == nil {
						r.claims = append(r.claims, claim{intent, at})
					}
				}
			}
		}
	}
	return r
}

// A claim is what an agent means to have, where it was found.
type claim struct {
	Intent
	spot
}

// A spot is a GPU, or a part of it, on this host.
type spot struct {
	pci      string
	uuid     string // the GPU's
	minor    int    // NVIDIA's; -1
	gi, ci   int    // of a slice; -1
	mig      string
	render   int  // AMD's and Intel's; -1
	several  bool // render nodes at the same address
	uniqueID uint64
	gpuID    uint32
}

func (s spot) words() string {
	switch {
	case s.gi >= 0:
		return fmt.Sprintf("slice %s (gi%d/ci%d of %s)", escape.Text(cmp.Or(s.mig, "MIG-?")), s.gi, s.ci, escape.Text(s.pci))
	case s.several:
		return fmt.Sprintf("the GPU at %s, renderD%d", escape.Text(s.pci), s.render)
	}
	return NVIDIAGPU{PCI: s.pci, UUID: s.uuid}.words()
}

// device is what a policy says of the spot, where the intent said d.
func (s spot) device(d Device) Device {
	d.PCI, d.UUID, d.MIG, d.GI, d.CI = s.pci, s.uuid, s.mig, s.gi, s.ci
	if s.uniqueID != 0 {
		d.UniqueID = s.uniqueID
	}
	if s.several {
		d.Render = s.render
	}
	return d
}

// overlaps tells whether who has one has a part of the other. Slices of one GPU
// instance share its memory.
func (s spot) overlaps(t spot) bool {
	switch {
	case s.pci != t.pci:
		return false
	case s.gi >= 0 && t.gi >= 0:
		return s.gi == t.gi
	case s.several: // which t is then, too
		return s.render == t.render
	}
	return true
}

// disputed says who else means to have what an agent has.
func (r resolver) disputed(own Intent, at spot) error {
	for _, c := range r.claims {
		if c.Agent == own.Agent || !at.overlaps(c.spot) ||
			slices.Contains(own.SharedWith, c.Agent) && slices.Contains(c.SharedWith, own.Agent) {
			continue
		}
		what := "both have " + at.words()
		if at != c.spot {
			what = fmt.Sprintf("overlap: %s and %s", at.words(), c.words())
		}
		return &Unresolved{fmt.Sprintf("agents %s and %s %s", own.Agent, c.Agent, what),
			fmt.Sprintf("take it out of one of %s and %s; where their jobs may read each other's memory: shared_with: in both", escape.Text(own.Path), escape.Text(c.Path)),
			false, c.Agent}
	}
	return nil
}

// find finds what an intent names.
func (r resolver) find(v Vendor, d Device) (spot, error) {
	if v == VendorNVIDIA {
		return r.findNVIDIA(d)
	}
	return r.findDRM(v, d)
}

// spots are NVIDIA's GPUs and slices: what the driver shows, with what nvidia-smi
// knows besides.
func (r resolver) spots() []spot {
	var all []spot
	for _, g := range r.NVIDIA.GPUs {
		s := spot{pci: g.PCI, uuid: g.knownUUID(), minor: g.Minor, gi: -1, ci: -1, render: -1}
		l, listed := r.listing(g.PCI)
		if listed && s.uuid == "" {
			s.uuid = l.UUID
		}
		all = append(all, s)
		for _, slice := range l.Slices {
			s.gi, s.ci, s.mig = slice.GI, slice.CI, slice.UUID
			all = append(all, s)
		}
	}
	return all
}

func (r resolver) listing(pci string) (Listing, bool) {
	i := slices.IndexFunc(r.SMI, func(l Listing) bool { return l.PCI == pci })
	if i < 0 {
		return Listing{}, false
	}
	return r.SMI[i], true
}

// findNVIDIA finds a GPU or a slice by whatever names it, and holds what else the
// intent states against what is there.
func (r resolver) findNVIDIA(d Device) (spot, error) {
	for _, s := range r.spots() {
		if d.slice() != (s.gi >= 0) {
			continue
		}
		switch {
		case d.MIG != "" && d.MIG != s.mig:
			continue
		case d.MIG != "":
		case d.slice() && (d.GI != s.gi || d.CI != s.ci):
			continue
		case d.UUID != "" && d.UUID != s.uuid:
			// Who swaps a GPU leaves its place, and a GPU that moves its name.
			if !d.slice() && d.PCI == s.pci && s.uuid != "" {
				return spot{}, gone("if it was swapped on purpose, correct uuid", "at %s is %s, and not %s", s.pci, s.uuid, d.UUID)
			}
			continue
		case d.UUID == "" && d.PCI != s.pci:
			continue
		}
		switch {
		case d.PCI != "" && d.PCI != s.pci, d.UUID != "" && s.uuid != d.UUID:
			return spot{}, gone("if it was moved on purpose, correct pci and uuid, or leave them out", "%s is at %s (%s), and not where the intent says", d.nameless(), s.pci, s.uuid)
		case d.GI >= 0 && d.GI != s.gi, d.CI >= 0 && d.CI != s.ci:
			return spot{}, gone("leave gi and ci out: they change", "slice %s is gi%d/ci%d, and not gi%d/ci%d", d.MIG, s.gi, s.ci, d.GI, d.CI)
		}
		return s, nil
	}
	return spot{}, r.missing(VendorNVIDIA, d)
}

// nameless is what d is called where its address is in doubt.
func (d Device) nameless() string {
	if d.MIG != "" {
		return "slice " + d.MIG
	}
	return "GPU " + d.UUID
}

// findDRM finds an AMD or Intel GPU by its address.
func (r resolver) findDRM(v Vendor, d Device) (spot, error) {
	var nodes []DRM
	for _, card := range r.DRM {
		if card.PCI == d.PCI && strings.HasPrefix(card.Name, "renderD") {
			nodes = append(nodes, card)
		}
	}
	for _, card := range nodes {
		if d.Render >= 0 && card.Number.Minor != uint32(d.Render) {
			continue
		}
		if vendorOf(card) != v {
			return spot{}, wrong("correct vendor or pci", "the GPU at %s is not %s's: its driver is %s", d.PCI, v, escape.Text(card.Driver))
		}
		if d.Render < 0 && len(nodes) > 1 {
			return spot{}, wrong(fmt.Sprintf("write which one, as in render: %d", card.Number.Minor), "the GPU at %s has %d render nodes", d.PCI, len(nodes))
		}
		s := spot{pci: d.PCI, minor: -1, gi: -1, ci: -1, render: int(card.Number.Minor), several: len(nodes) > 1}
		for _, k := range r.KFD.Nodes {
			if k.Render == s.render {
				s.uniqueID, s.gpuID = k.UniqueID, k.GPUID
			}
		}
		if d.UniqueID != 0 && s.uniqueID != 0 && d.UniqueID != s.uniqueID || d.GPUID != 0 && s.gpuID != 0 && d.GPUID != s.gpuID {
			return spot{}, gone("if it was swapped on purpose, correct unique_id and gpu_id, or leave them out",
				"at %s is unique_id %d, gpu_id %d, and not what the intent says", d.PCI, s.uniqueID, s.gpuID)
		}
		return s, nil
	}
	return spot{}, r.missing(v, d)
}

// missing says that a device is not there, and what is.
func (r resolver) missing(v Vendor, d Device) error {
	remedy := "on the host: ls -l /dev/dri/by-path, and dmesg for a GPU that is gone; if it was changed on purpose, correct the intent"
	source := FromDRM
	if v == VendorNVIDIA {
		source = FromNVIDIA
		remedy = "on the host: nvidia-smi -L, and dmesg for a GPU that fell off the bus (Xid 79); if it was changed on purpose, correct the intent"
		if d.slice() {
			remedy = "slices do not survive a reboot: make them anew (nvidia-smi mig, mig-parted) before the agent starts; if they were changed on purpose, correct the intent"
		}
	}
	text := d.words() + " is not on this host, which has " + r.there(v)
	if cause, unread := r.Unread[source]; unread {
		text += fmt.Sprintf("; not all was read: %s: %s", source, escape.Text(cause))
	}
	return gone(remedy, "%s", text)
}

// there is all that the host has of a vendor, and whose it is.
func (r resolver) there(v Vendor) string {
	var names []string
	add := func(s spot) {
		name := s.words()
		if agents := r.agentsOf(s); agents != "" {
			name += " of agent " + agents
		}
		names = append(names, name)
	}
	if v == VendorNVIDIA {
		for _, s := range r.spots() {
			add(s)
		}
	} else {
		for _, card := range r.DRM {
			if strings.HasPrefix(card.Name, "renderD") && vendorOf(card) == v {
				add(spot{pci: card.PCI, gi: -1, ci: -1, render: int(card.Number.Minor)})
			}
		}
	}
	switch {
	case len(names) == 0 && v == VendorNVIDIA && r.NVIDIA.Driver == "":
		return "no NVIDIA driver that is loaded"
	case len(names) == 0:
		return fmt.Sprintf("no GPU with a driver of %s's", v)
	}
	return strings.Join(first(names, 32), ", ")
}

// agentsOf are the agents that mean to have exactly that.
func (r resolver) agentsOf(s spot) string {
	var names []string
	for _, c := range r.claims {
		if c.pci == s.pci && c.gi == s.gi && c.ci == s.ci && !slices.Contains(names, c.Agent) {
			names = append(names, c.Agent)
		}
	}
	return strings.Join(names, ", ")
}

// inventory is all GPUs of the host, and the slices that somebody means to have.
func (r resolver) inventory() []Known {
	var all []Known
	spots := r.spots()
	for _, k := range HostGPUs(r.Facts) {
		for _, s := range spots {
			if s.pci == k.PCI && s.gi < 0 {
				k.UUID = s.uuid
			}
		}
		k.Agent = r.agentsOf(spot{pci: k.PCI, gi: -1, ci: -1})
		all = append(all, k)
		for _, s := range spots {
			if agents := r.agentsOf(s); s.pci == k.PCI && s.gi >= 0 && s.minor >= 0 && agents != "" {
				all = append(all, Known{Minor: s.minor, UUID: s.mig, PCI: s.pci, GI: s.gi, CI: s.ci, Agent: agents})
			}
		}
	}
	return all
}

// usable says why a device that is there would be of no use, or of another use
// than the check thinks.
func (r resolver) usable(v Vendor, at spot) error {
	switch {
	case v == VendorAMD && !r.has("kfd"):
		return gone("on the host: modprobe amdgpu", "the kernel has no driver kfd, which every program on an AMD GPU needs")
	case v != VendorNVIDIA:
		return nil
	case at.minor < 0:
		return gone("on the host: look at /proc/driver/nvidia/gpus/"+escape.Text(at.pci)+"/information", "the driver does not say which device node %s has", at.words())
	}
	if l, listed := r.listing(at.pci); r.Listed {
		switch {
		case !listed:
			return gone("on the host: dmesg, for a GPU that fell off the bus (Xid 79)", "the driver shows %s, and nvidia-smi does not", at.words())
		case l.Minor >= 0 && l.Minor != at.minor, l.UUID != at.uuid:
			return gone("reboot, or load the driver anew", "nvidia-smi says that at %s is %s with minor %d, and the driver %s with minor %d", at.pci, l.UUID, l.Minor, at.uuid, at.minor)
		case l.MIG && len(l.Slices) == 0:
			return gone("make slices (nvidia-smi mig -cgi …), or turn MIG off (nvidia-smi -mig 0)", "%s is in MIG mode and has no slices, so no program can use it", at.words())
		}
	}
	if at.gi < 0 {
		return nil
	}
	return r.slice(at)
}

func (r resolver) has(driver string) bool {
	return slices.ContainsFunc(r.Majors, func(m procfs.Major) bool { return !m.Block && m.Name == driver })
}

// slice says why the nodes of a slice are not those that the check would ask for:
// it goes by the driver's table of capabilities.
func (r resolver) slice(at spot) error {
	if !r.has("nvidia-caps") {
		return gone("on the host: modprobe nvidia; nvidia-smi mig -lgi", "the kernel knows no nvidia-caps, which opens MIG slices")
	}
	for _, source := range []Source{FromNVIDIA, FromCaps} {
		if cause, unread := r.Unread[source]; unread {
			return gone("run it as root, on the host", "%s: %s", source, escape.Text(cause))
		}
	}
	if differ := r.NVIDIA.layout(); len(differ) > 0 {
		return gone("pin the driver to the version before, and report this: SECURITY.md",
			"this driver gives %s the minor %d, and the table that all checks of slices rest on %d: see docs/gpu.md, mig.layout",
			differ[0].words(), differ[0].Minor, CapMinor(differ[0].GPU, differ[0].GI, differ[0].CI))
	}
	for _, ci := range []int{-1, at.ci} {
		want := Instance{GPU: at.minor, GI: at.gi, CI: ci, Minor: CapMinor(at.minor, at.gi, ci)}
		if !slices.Contains(r.NVIDIA.Instances, want) {
			return gone("on the host: nvidia-smi mig -lci, and ls /proc/driver/nvidia/capabilities/"+fmt.Sprintf("gpu%d/mig", at.minor),
				"nvidia-smi shows %s, and the driver has no capability %s", at.words(), want.words())
		}
	}
	return nil
}

// Nodes are the device nodes of a policy's device on the host that resolved it,
// as an engine's devices: would name them.
func (h Hardware) Nodes(d Device) []string {
	for _, g := range h.NVIDIA.GPUs {
		if g.PCI != d.PCI || g.Minor < 0 {
			continue
		}
		nodes := []string{fmt.Sprintf("/dev/nvidia%d", g.Minor)}
		if d.slice() {
			for _, ci := range []int{-1, d.CI} {
				nodes = append(nodes, fmt.Sprintf("/dev/nvidia-caps/nvidia-cap%d", CapMinor(g.Minor, d.GI, ci)))
			}
		}
		return nodes
	}
	return []string{"/dev/dri/by-path/pci-" + d.PCI + "-render"}
}
