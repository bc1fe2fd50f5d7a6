package gpu

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// An Offer is a GPU, or a slice of one, that an agent could have.
type Offer struct {
	Vendor Vendor
	Name   string // UUID of NVIDIA's GPU or slice, else the PCI address
	Slice  bool
	About  string
	Render int      // the number of its /dev/dri/renderD*; -1: none, as of a slice
	Agents []string // those that are to have it, a part of it, or the whole that it is part of
}

// Offers are all that a host has to give: NVIDIA's GPUs or, where they are divided,
// their slices, and AMD's and Intel's by their render nodes.
func Offers(intents []Intent, h Hardware) (all []Offer) {
	r := newResolver(intents, h)
	for _, s := range r.spots() {
		l, _ := r.listing(s.pci)
		o := Offer{Vendor: VendorNVIDIA, Name: s.uuid, About: r.model(s.pci) + " at " + escape.Text(s.pci), Render: r.render(s.pci), Agents: r.overlapping(s)}
		mib := l.MiB
		if s.gi >= 0 {
			i := slices.IndexFunc(l.Slices, func(one Slice) bool { return one.GI == s.gi && one.CI == s.ci })
			mib = l.Slices[i].MiB
			o.Name, o.Slice, o.About, o.Render = s.mig, true, fmt.Sprintf("gi%d/ci%d of %s", s.gi, s.ci, o.About), -1
		}
		if mib > 0 {
			o.About += fmt.Sprintf(", %d MiB", mib)
		}
		if o.Name != "" && (o.Slice || !l.MIG) { // without slices such a GPU is of no use to anybody
			all = append(all, o)
		}
	}
	for _, card := range r.DRM {
		v := vendorOf(card)
		if !strings.HasPrefix(card.Name, "renderD") || card.PCI == "" || v != VendorAMD && v != VendorIntel ||
			slices.ContainsFunc(all, func(o Offer) bool { return o.Name == card.PCI }) {
			continue
		}
		minor := int(card.Number.Minor)
		all = append(all, Offer{Vendor: v, Name: card.PCI, About: fmt.Sprintf("%s's, %s", map[Vendor]string{VendorAMD: "AMD", VendorIntel: "Intel"}[v], card.Name), Render: minor,
			Agents: r.overlapping(spot{pci: card.PCI, gi: -1, ci: -1, render: minor})})
	}
	return all
}

func (r resolver) model(pci string) string {
	i := slices.IndexFunc(r.NVIDIA.GPUs, func(g NVIDIAGPU) bool { return g.PCI == pci })
	return escape.Text(cmp.Or(r.NVIDIA.GPUs[i].Model, "a GPU of NVIDIA's"))
}

func (r resolver) render(pci string) int {
	for _, card := range r.DRM {
		if card.PCI == pci && strings.HasPrefix(card.Name, "renderD") {
			return int(card.Number.Minor)
		}
	}
	return -1
}

func (r resolver) overlapping(s spot) (agents []string) {
	for _, c := range r.claims {
		if s.overlaps(c.spot) && !slices.Contains(agents, c.Agent) {
			agents = append(agents, c.Agent)
		}
	}
	return agents
}
