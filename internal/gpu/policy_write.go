package gpu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// YAML is a file that ParsePolicy reads as p, but for Path and Changeable. What is
// p's default is not in it.
func (p Policy) YAML() string {
	var b strings.Builder
	b.WriteString("gpu:\n")
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %s: %s\n", key, value)
		}
	}
	list := func(key string, items []string) {
		if len(items) > 0 {
			fmt.Fprintf(&b, "  %s:\n    - %s\n", key, strings.Join(items, "\n    - "))
		}
	}
	if p.Off != "" {
		line("off", strconv.Quote(p.Off))
		return b.String()
	}
	line("vendor", string(p.Vendor))
	list("devices", texts(p.Devices, Device.yaml))
	count, idle, busy := p.defaults()
	if p.Min != count || p.Max != count {
		line("count", fmt.Sprintf("{min: %d, max: %d}", p.Min, p.Max))
	}
	list("extra_devices", slices.Concat(p.Families, texts(p.Numbers, Pattern.String)))
	line("enforcement", when(p.Absence, "absence"))
	line("graphics", when(p.Graphics, "true"))
	line("allow_shared_gi", when(p.AllowSharedGI, "true"))
	line("idle_vram_mib", when(p.IdleMiB != idle, strconv.Itoa(p.IdleMiB)))
	line("busy", when(p.Busy != busy, string(p.Busy)))
	line("min_driver", quoted(p.MinDriver))
	if len(p.Host) > 0 {
		var versions []string
		for _, name := range slices.Sorted(maps.Keys(p.Host)) {
			versions = append(versions, name, quoted(p.Host[name]))
		}
		line("host", flow(versions...))
	}
	list("inventory", texts(p.Inventory, Known.yaml))
	if p.Resolved != nil {
		line("resolved", flow("boot_id", p.Resolved.BootID, "at", p.Resolved.At.UTC().Format(time.RFC3339Nano), "driver", quoted(p.Resolved.Driver)))
	}
	list("waivers", texts(p.Waivers, Waiver.yaml))
	return b.String()
}

func (d Device) yaml() string {
	return flow("uuid", d.UUID, "mig", d.MIG, "pci", quoted(d.PCI),
		"gi", when(d.GI >= 0, strconv.Itoa(d.GI)), "ci", when(d.CI >= 0, strconv.Itoa(d.CI)),
		"unique_id", when(d.UniqueID != 0, strconv.FormatUint(d.UniqueID, 10)),
		"render", when(d.Render >= 0, strconv.Itoa(d.Render)), "gpu_id", when(d.GPUID != 0, strconv.FormatUint(uint64(d.GPUID), 10)))
}

func (k Known) yaml() string {
	return flow("minor", when(k.Minor >= 0, strconv.Itoa(k.Minor)), "uuid", k.UUID, "pci", quoted(k.PCI),
		"gi", when(k.GI >= 0, strconv.Itoa(k.GI)), "ci", when(k.CI >= 0, strconv.Itoa(k.CI)), "agent", quoted(k.Agent))
}

func (w Waiver) yaml() string {
	return flow("id", w.ID, "match", quoted(w.Match), "reason", quoted(w.Reason), "until", when(!w.Until.IsZero(), w.Until.Format(time.DateOnly)))
}

// flow is a mapping in one line, of keys and values by turns, without what is empty.
func flow(pairs ...string) string {
	var members []string
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			members = append(members, pairs[i]+": "+pairs[i+1])
		}
	}
	return "{" + strings.Join(members, ", ") + "}"
}

// texts is what text makes of each item.
func texts[T any](items []T, text func(T) string) []string {
	var all []string
	for _, item := range items {
		all = append(all, text(item))
	}
	return all
}

// quoted is s in quotes, unless it is empty. Each escape of Go's is one of YAML's.
func quoted(s string) string {
	return when(s != "", strconv.Quote(s))
}

// when is s, where that is so.
func when(so bool, s string) string {
	if so {
		return s
	}
	return ""
}
