package gpu

import (
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
)

// Suggest is a policy for the GPUs that this container can open, for a person to
// look at: that they can be opened does not make them the agent's own.
func Suggest(f Facts) Policy {
	p := Policy{Vendor: VendorNone}
	for _, g := range f.NVIDIA.GPUs {
		if g.Minor >= 0 && f.Access(devnode.C(MajorNVIDIA, uint32(g.Minor))).Any() {
			p.Vendor = VendorNVIDIA
			p.Devices = append(p.Devices, suggestSlices(f, g)...)
		}
	}
	if p.Vendor == VendorNone {
		for _, card := range f.DRM {
			vendor := vendorOf(card)
			if vendor == "" || !strings.HasPrefix(card.Name, "renderD") || !f.Access(card.Number).Any() || p.Vendor != VendorNone && p.Vendor != vendor {
				continue
			}
			p.Vendor = vendor
			p.Devices = append(p.Devices, suggestCard(f, card))
		}
	}
	p.Min, p.IdleMiB, p.Busy = p.defaults()
	p.Max = p.Min
	return p
}

// suggestSlices are the slices of a GPU that are open, or the whole of it.
func suggestSlices(f Facts, g NVIDIAGPU) []Device {
	var open []Device
	w := world{Facts: f}
	if major, ok := w.major("nvidia-caps"); ok {
		opens := func(minor int) bool { return f.Access(devnode.C(major, uint32(minor))).Any() }
		for gi := range MaxGIs {
			for ci := range MaxCIs {
				if opens(CapMinor(g.Minor, gi, -1)) && opens(CapMinor(g.Minor, gi, ci)) {
					open = append(open, Device{PCI: g.PCI, GI: gi, CI: ci, Render: -1})
				}
			}
		}
	}
	if len(open) > 0 {
		return open
	}
	return []Device{{UUID: g.knownUUID(), PCI: g.PCI, GI: -1, CI: -1, Render: -1}}
}

// knownUUID is empty for whatever the driver says that is not a UUID in its one
// spelling: logs print it.
func (g NVIDIAGPU) knownUUID() string {
	if rest, ok := strings.CutPrefix(g.UUID, "GPU-"); ok && IsUUID(rest) {
		return g.UUID
	}
	return ""
}

// suggestCard is one render node, with what else the driver knows it by.
func suggestCard(f Facts, card DRM) Device {
	d := Device{PCI: card.PCI, GI: -1, CI: -1, Render: -1}
	for _, other := range f.DRM {
		if other.PCI == card.PCI && other.Name != card.Name && strings.HasPrefix(other.Name, "renderD") {
			d.Render = int(card.Number.Minor)
		}
	}
	for _, k := range f.KFD.Nodes {
		if k.Render == int(card.Number.Minor) {
			d.UniqueID = k.UniqueID
		}
	}
	return d
}

// vendorOf is the maker of a card, by its driver.
func vendorOf(card DRM) Vendor {
	switch card.Driver {
	case "amdgpu":
		return VendorAMD
	case "i915", "xe":
		return VendorIntel
	}
	return ""
}

// HostGPUs are those that the drivers show, each PCI address once, for messages:
// in some containers that is all of the host, in others not even the own ones.
func HostGPUs(f Facts) []Known {
	var all []Known
	add := func(k Known) {
		if k.PCI != "" && !slices.ContainsFunc(all, func(other Known) bool { return other.PCI == k.PCI }) {
			all = append(all, k)
		}
	}
	for _, g := range f.NVIDIA.GPUs {
		add(Known{Minor: g.Minor, UUID: g.knownUUID(), PCI: g.PCI, GI: -1, CI: -1})
	}
	for _, card := range f.DRM {
		if strings.HasPrefix(card.Name, "renderD") {
			add(Known{Minor: -1, PCI: card.PCI, GI: -1, CI: -1})
		}
	}
	return all
}
