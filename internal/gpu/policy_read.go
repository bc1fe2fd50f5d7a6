package gpu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// What a policy says where it says nothing.
const (
	idleMiB    = 256 // what a driver may hold of an idle GPU
	idleMIGMiB = 64
)

// maxMiB is 16 TiB: more is a slip of the finger.
const maxMiB = 16 << 20

// maxMinor is the largest minor number that Linux has (MINORBITS, linux/kdev_t.h),
// maxMajor the largest major one.
const (
	maxMinor = 1<<20 - 1
	maxMajor = 1<<12 - 1
)

// minReason is the fewest characters of a reason that says something.
const minReason = 10

// ParsePolicy reads the text of a policy file, whose one key is gpu. The error is
// a *strict.Error. Path and Changeable stay empty.
func ParsePolicy(text []byte) (Policy, error) {
	root, err := strict.Parse(text, "write gpu: and below it vendor: nvidia, amd, intel or none")
	if err != nil {
		return Policy{}, err
	}
	var p Policy
	if err := root.Fields(strict.Key("gpu", strict.Into(&p, ReadPolicy))); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// ReadPolicy reads a gpu section: of a policy file, or of the configuration, whose
// gpu: {file: PATH} is not for it. The error is a *strict.Error.
func ReadPolicy(section strict.Value) (Policy, error) { return readPolicy(section, false) }

// readPolicy reads a policy, or what of one an intent may state.
func readPolicy(section strict.Value, intent bool) (Policy, error) {
	if off, ok := section.Only("off"); ok {
		reason, err := off.Text()
		return Policy{Off: reason}, err
	}
	p := Policy{Min: -1, Max: -1, IdleMiB: -1}
	// First, wherever it stands: what else is right depends on it.
	if v, ok := section.Get("vendor"); ok {
		word, err := v.Choice("not a vendor of GPUs", string(VendorNVIDIA), string(VendorAMD), string(VendorIntel), string(VendorNone))
		if err != nil {
			return Policy{}, err
		}
		p.Vendor = Vendor(word)
	}
	gpus := []Vendor{VendorNVIDIA, VendorAMD, VendorIntel}
	// found is a reader of what no person writes into an intent.
	found := func(read func(strict.Value) error) func(strict.Value) error {
		if !intent {
			return read
		}
		return func(v strict.Value) error { return v.Errorf("leave it out", "juliagpu gpu resolve writes it") }
	}
	err := section.Fields(
		strict.Key("vendor", func(strict.Value) error { return nil }),
		strict.Key("devices", p.only(func(v strict.Value) error { return p.readDevices(v, intent) }, gpus...)),
		strict.Key("count", p.only(p.readCount, gpus...)),
		strict.Key("extra_devices", p.readExtra),
		strict.Key("enforcement", func(v strict.Value) error {
			word, err := v.Choice("neither cgroup nor absence", "cgroup", "absence")
			p.Absence = word == "absence"
			return err
		}),
		strict.Key("graphics", p.only(strict.Into(&p.Graphics, strict.Value.Flag), gpus...)),
		strict.Key("allow_shared_gi", p.only(strict.Into(&p.AllowSharedGI, strict.Value.Flag), VendorNVIDIA)),
		strict.Key("idle_vram_mib", p.only(number(&p.IdleMiB, 0, maxMiB), gpus...)),
		strict.Key("busy", p.only(func(v strict.Value) error {
			word, err := v.Choice("neither off nor warn nor deny", string(BusyOff), string(BusyWarn), string(BusyDeny))
			p.Busy = Busy(word)
			return err
		}, gpus...)),
		strict.Key("min_driver", p.only(strict.Into(&p.MinDriver, readVersion), VendorNVIDIA)),
		strict.Key("host", p.readHost),
		strict.Key("inventory", found(p.readInventory)),
		strict.Key("resolved", found(strict.Into(&p.Resolved, readResolved))),
		strict.Key("waivers", strict.Into(&p.Waivers, ReadWaivers)),
		strict.Key("off", func(v strict.Value) error {
			return v.Errorf("leave it out, or all the rest", "stands beside other keys")
		}),
		strict.Key("file", func(v strict.Value) error {
			return v.Errorf("leave it out, or write gpu: {file: PATH} in config.yml and nothing else there", "stands beside other keys, or in a policy file")
		}),
	)
	switch {
	case err != nil:
	case p.Vendor == "":
		err = section.Below("vendor").Errorf("write vendor: nvidia, amd, intel or none", "missing")
	case p.Vendor != VendorNone && len(p.Devices) == 0:
		err = section.Below("devices").Errorf("list the GPUs that this agent's jobs have, or write vendor: none", "missing")
	default:
		err = p.complete(section)
	}
	if err != nil {
		return Policy{}, err
	}
	return p, nil
}

// only refuses a key that the policy's vendor has no use for.
func (p *Policy) only(read func(strict.Value) error, vendors ...Vendor) func(strict.Value) error {
	return func(v strict.Value) error {
		if p.Vendor != "" && !slices.Contains(vendors, p.Vendor) {
			return v.Errorf("leave it out", "does not go with vendor: %s", p.Vendor)
		}
		return read(v)
	}
}

// defaults are what p says where it says nothing.
func (p *Policy) defaults() (count, idle int, busy Busy) {
	busy, idle = BusyWarn, idleMiB
	if slices.ContainsFunc(p.Devices, Device.slice) {
		idle = idleMIGMiB
	}
	switch p.Vendor {
	case VendorNVIDIA:
		busy = BusyOff // only nvidia-smi knows, which takes its time
	case VendorNone:
		busy, idle = BusyOff, 0
	}
	return len(p.Devices), idle, busy
}

// complete fills in what section does not state, and compares the counts.
func (p *Policy) complete(section strict.Value) error {
	count, idle, busy := p.defaults()
	stated := func(key string) strict.Value { // asked only where it is
		v, _ := section.Get("count")
		v, _ = v.Get(key)
		return v
	}
	minStated := p.Min >= 0
	if !minStated {
		p.Min = count
	}
	if p.Max < 0 {
		p.Max = count
	}
	if p.IdleMiB < 0 {
		p.IdleMiB = idle
	}
	if p.Busy == "" {
		p.Busy = busy
	}
	switch {
	case p.Min > count:
		return stated("min").Errorf("write at most the number of devices", "more than there are devices")
	case p.Min > p.Max && minStated:
		return stated("max").Errorf("write min: and max: the other way round", "less than min")
	case p.Min > p.Max:
		return stated("max").Errorf("write min, too", "less than the number of devices, which is what min is where it is not stated")
	}
	return nil
}

// number is a reader that puts a whole number in its place.
func number(place *int, least, most int) func(strict.Value) error {
	return strict.Into(place, func(v strict.Value) (int, error) { return v.Number(least, most) })
}

func (p *Policy) readDevices(v strict.Value, intent bool) error {
	return v.Items(func(v strict.Value) error {
		d, err := p.readDevice(v, intent)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(p.Devices, d.overlaps) {
			return v.Errorf("keep one", "the same GPU or slice as another entry, or a part of it")
		}
		p.Devices = append(p.Devices, d)
		return nil
	})
}

func (p *Policy) readDevice(v strict.Value, intent bool) (Device, error) {
	d := Device{GI: -1, CI: -1, Render: -1}
	err := v.Fields(
		strict.Key("uuid", func(v strict.Value) error {
			if p.Vendor == VendorAMD {
				return v.Errorf("write the digits after GPU- as unique_id: 0x…", "does not go with vendor: amd")
			}
			return p.only(strict.Into(&d.UUID, readUUID), VendorNVIDIA)(v)
		}),
		strict.Key("pci", strict.Into(&d.PCI, readPCI)),
		strict.Key("mig", p.only(strict.Into(&d.MIG, readMIG), VendorNVIDIA)),
		// As many as the driver's table of capabilities has.
		strict.Key("gi", p.only(number(&d.GI, 0, MaxGIs-1), VendorNVIDIA)),
		strict.Key("ci", p.only(number(&d.CI, 0, MaxCIs-1), VendorNVIDIA)),
		strict.Key("unique_id", p.only(readID(64, func(id uint64) { d.UniqueID = id }), VendorAMD)),
		// Below are cards and, in older kernels, control nodes (drm_drv.c).
		strict.Key("render", p.only(number(&d.Render, 128, maxMinor), VendorAMD, VendorIntel)),
		strict.Key("gpu_id", p.only(readID(32, func(id uint64) { d.GPUID = uint32(id) }), VendorAMD)),
	)
	switch {
	case err != nil || p.Vendor == "":
		return d, err
	case intent && d.MIG != "" && d.GI < 0 && d.CI < 0: // to be resolved
	case d.slice() && d.MIG == "" && d.UUID == "" && d.PCI == "":
		err = v.Below("pci").Errorf("write the GPU's address or uuid, or the slice's UUID as mig", "missing")
	// Nothing inside a container leads from a slice's UUID to its numbers.
	case d.slice() && d.GI < 0:
		err = v.Below("gi").Errorf("juliagpu gpu resolve writes it; nvidia-smi -q shows it as GPU Instance ID", "missing")
	case d.slice() && d.CI < 0:
		err = v.Below("ci").Errorf("juliagpu gpu resolve writes it; nvidia-smi -q shows it as Compute Instance ID", "missing")
	case d.PCI == "" && p.Vendor != VendorNVIDIA: // an NVIDIA device without one has uuid or mig: it has no other keys
		err = v.Below("pci").Errorf(pciHint, "missing")
	}
	return d, err
}

// overlaps tells whether two entries can't both be right.
func (d Device) overlaps(e Device) bool {
	sameGPU := d.UUID != "" && d.UUID == e.UUID || d.PCI != "" && d.PCI == e.PCI || d.UniqueID != 0 && d.UniqueID == e.UniqueID
	switch {
	case d.slice() && e.slice():
		unstated := d.UUID == "" && d.PCI == "" && e.UUID == "" && e.PCI == ""
		return d.MIG != "" && d.MIG == e.MIG || (sameGPU || unstated) && d.GI >= 0 && d.GI == e.GI && d.CI == e.CI
	case d.Render >= 0 && e.Render >= 0: // partitions of one GPU have a node each
		return d.Render == e.Render || d.GPUID != 0 && d.GPUID == e.GPUID
	}
	return sameGPU || d.GPUID != 0 && d.GPUID == e.GPUID
}

func (p *Policy) readCount(v strict.Value) error {
	return v.Fields(strict.Key("min", number(&p.Min, 0, maxMinor)), strict.Key("max", number(&p.Max, 1, maxMinor)))
}

func (p *Policy) readExtra(v strict.Value) error {
	return v.Items(func(v strict.Value) error {
		text, err := v.Text()
		if err != nil {
			return err
		}
		twice := v.Errorf("keep one", "listed twice")
		if rule, ok := strings.CutPrefix(text, "c "); ok {
			pattern, ok := parsePattern(rule)
			switch {
			case !ok:
				return v.Errorf("write it as in c 510:0, or c 510:* for all of a major number", "not a character device's numbers")
			case pattern.Major == 195 || pattern.Major == 226: // NVIDIA's and DRM's: Documentation/admin-guide/devices.txt
				return v.Errorf("list the GPU under devices; write nvidia-modeset or dri.card for those", "a number that GPUs have")
			case slices.Contains(p.Numbers, pattern):
				return twice
			}
			p.Numbers = append(p.Numbers, pattern)
			return nil
		}
		family, err := v.Choice("neither a family of devices nor numbers as in c 510:0", Families...)
		switch {
		case err != nil:
			return err
		case slices.Contains(p.Families, family):
			return twice
		}
		p.Families = append(p.Families, family)
		return nil
	})
}

// parsePattern reads MAJOR:MINOR or MAJOR:*.
func parsePattern(s string) (Pattern, bool) {
	major, minor, ok := strings.Cut(s, ":")
	first, err := strconv.ParseUint(major, 10, 32)
	p := Pattern{Major: uint32(first), AllMinor: minor == "*"}
	if !p.AllMinor {
		second, minorErr := strconv.ParseUint(minor, 10, 32)
		p.Minor, ok = uint32(second), ok && minorErr == nil
	}
	// Major 0 is no device's. One spelling: no zeros before a number.
	return p, ok && err == nil && 0 < p.Major && p.Major <= maxMajor && p.Minor <= maxMinor && p.String() == "c "+s
}

// String is as in a policy: c 510:0, c 510:*.
func (p Pattern) String() string {
	if p.AllMinor {
		return fmt.Sprintf("c %d:*", p.Major)
	}
	return fmt.Sprintf("c %d:%d", p.Major, p.Minor)
}

// hostVersions are the parts of the host whose versions a policy may state.
var hostVersions = []string{"toolkit", "runc", "docker"}

func (p *Policy) readHost(v strict.Value) error {
	p.Host = map[string]string{}
	var fields []strict.Field
	for _, name := range hostVersions {
		fields = append(fields, strict.Key(name, func(v strict.Value) (err error) { p.Host[name], err = readVersion(v); return err }))
	}
	return v.Fields(fields...)
}

func (p *Policy) readInventory(v strict.Value) error {
	return v.Items(func(v strict.Value) error {
		k := Known{Minor: -1, GI: -1, CI: -1}
		err := v.Fields(
			strict.Key("minor", number(&k.Minor, 0, 247)), // of /dev/nvidiaN
			strict.Key("uuid", strict.Into(&k.UUID, func(v strict.Value) (string, error) {
				if s, _ := v.Text(); strings.HasPrefix(s, "MIG-") {
					return readMIG(v)
				}
				return readUUID(v)
			})),
			strict.Key("pci", strict.Into(&k.PCI, readPCI)),
			strict.Key("gi", number(&k.GI, 0, MaxGIs-1)),
			strict.Key("ci", number(&k.CI, 0, MaxCIs-1)),
			strict.Key("agent", strict.Into(&k.Agent, strict.Value.Text)),
		)
		switch {
		case err != nil:
			return err
		case k.Minor < 0 && k.UUID == "" && k.PCI == "":
			return v.Errorf("write one of them", "none of minor, uuid and pci")
		case k.GI < 0 && k.CI >= 0:
			return v.Below("gi").Errorf("write the slice's GPU instance, too", "missing")
		case k.GI >= 0 && k.Minor < 0: // a slice's nodes have numbers by its GPU's
			return v.Below("minor").Errorf("write the N of its GPU's /dev/nvidiaN", "missing")
		case slices.Contains(p.Inventory, k):
			return v.Errorf("keep one", "listed twice")
		}
		p.Inventory = append(p.Inventory, k)
		return nil
	})
}

func readResolved(v strict.Value) (*Resolved, error) {
	var r Resolved
	err := v.Fields(
		strict.Key("boot_id", strict.Into(&r.BootID, func(v strict.Value) (string, error) {
			s, err := v.Text()
			if err == nil && !IsUUID(s) {
				err = v.Errorf("copy it from /proc/sys/kernel/random/boot_id", "not a boot ID")
			}
			return s, err
		})),
		strict.Key("at", strict.Into(&r.At, func(v strict.Value) (time.Time, error) {
			return readTime(v, time.RFC3339, "write it as in 2026-11-23T13:00:00Z", "not a time with its zone")
		})),
		strict.Key("driver", strict.Into(&r.Driver, readVersion)),
	)
	switch {
	case err != nil:
		return nil, err
	case r.BootID == "":
		return nil, v.Below("boot_id").Errorf("juliagpu gpu resolve writes it; a policy written by hand has no resolved", "missing")
	case r.At.IsZero():
		return nil, v.Below("at").Errorf("juliagpu gpu resolve writes it; a policy written by hand has no resolved", "missing")
	}
	return &r, nil
}

// ReadWaivers reads a list of waivers: of a policy, or of the configuration. The
// error is a *strict.Error.
func ReadWaivers(v strict.Value) ([]Waiver, error) {
	var waivers []Waiver
	err := v.Items(func(v strict.Value) error {
		w, err := readWaiver(v)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(waivers, func(other Waiver) bool { return other.ID == w.ID && other.Match == w.Match }) {
			return v.Errorf("keep one", "waived twice")
		}
		waivers = append(waivers, w)
		return nil
	})
	return waivers, err
}

func readWaiver(v strict.Value) (Waiver, error) {
	var w Waiver
	err := v.Fields(
		strict.Key("id", strict.Into(&w.ID, readWaivable)),
		strict.Key("match", strict.Into(&w.Match, strict.Value.Text)),
		strict.Key("reason", strict.Into(&w.Reason, func(v strict.Value) (string, error) {
			s, err := v.Text()
			if err == nil && utf8.RuneCountInString(s) < minReason {
				err = v.Errorf("say why this is right here: every job prints it", "shorter than %d characters", minReason)
			}
			return s, err
		})),
		strict.Key("until", strict.Into(&w.Until, func(v strict.Value) (time.Time, error) {
			return readTime(v, time.DateOnly, "write it as in 2027-03-31", "not a day")
		})),
	)
	switch _, _, needsMatch := Waivable(w.ID); {
	case err != nil:
	case w.ID == "":
		err = v.Below("id").Errorf("write the finding's ID, as the log shows it", "missing")
	case w.Match == "" && needsMatch:
		err = v.Below("match").Errorf("write the exact evidence, as the log shows it", "missing, and this finding is never waived as a whole")
	case w.Reason == "":
		err = v.Below("reason").Errorf("say why this is right here: every job prints it", "missing")
	}
	return w, err
}

// readWaivable reads the ID of a finding that an operator may accept.
func readWaivable(v strict.Value) (string, error) {
	s, err := v.Text()
	if err != nil {
		return "", err
	}
	if known, waivable, _ := Waivable(s); known && !waivable {
		return "", v.Errorf("remove its cause; docs/gpu.md says how", "nobody can waive this finding")
	}
	var ids []string
	for _, c := range checks {
		if c.waive != never {
			ids = append(ids, c.id)
		}
	}
	return v.Choice("not the ID of a finding", ids...)
}

// readTime reads a time in one layout, of this millennium.
func readTime(v strict.Value, layout, hint, cause string) (time.Time, error) {
	s, err := v.Word() // YAML takes it for a date
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(layout, s)
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 2999 {
		return time.Time{}, v.Errorf(hint, "%s", cause)
	}
	return t, nil
}

// readUUID reads a GPU's UUID as nvidia-smi -L prints it.
func readUUID(v strict.Value) (string, error) {
	s, err := v.Text()
	switch rest, ok := strings.CutPrefix(s, "GPU-"); {
	case err != nil:
		return "", err
	case strings.HasPrefix(s, "MIG-"):
		return "", v.Errorf("write it as mig; a policy needs its gi and ci, too", "a slice and not a GPU")
	case !ok || !IsUUID(rest):
		return "", v.Errorf("copy it from nvidia-smi -L", "not GPU- with a UUID in small letters")
	}
	return s, nil
}

// readMIG reads a slice's UUID as nvidia-smi -L prints it.
func readMIG(v strict.Value) (string, error) {
	s, err := v.Text()
	switch rest, ok := strings.CutPrefix(s, "MIG-"); {
	case err != nil:
		return "", err
	case strings.HasPrefix(s, "GPU-"):
		return "", v.Errorf("write it as uuid", "a GPU and not a slice")
	case strings.HasPrefix(rest, "GPU-"): // MIG-GPU-UUID/GI/CI
		return "", v.Errorf("write what a driver from 470 on prints, its GPU as uuid, its two numbers as gi and ci", "a slice in the spelling of drivers before 470")
	case !ok || !IsUUID(rest):
		return "", v.Errorf("copy it from nvidia-smi -L", "not MIG- with a UUID in small letters")
	}
	return s, nil
}

// isUUID accepts the one spelling that drivers and the kernel print.
func IsUUID(s string) bool {
	const shape = "00000000-0000-0000-0000-000000000000"
	if len(s) != len(shape) {
		return false
	}
	for i := range len(s) {
		if shape[i] == '-' && s[i] != '-' || shape[i] == '0' && !strings.Contains("0123456789abcdef", s[i:i+1]) {
			return false
		}
	}
	return true
}

const pciHint = "write it as lspci -D or nvidia-smi prints it, as in 0000:81:00.0"

func readPCI(v strict.Value) (string, error) {
	s, err := v.Text()
	if err != nil {
		return "", err
	}
	pci, ok := normalPCI(s)
	if !ok {
		return "", v.Errorf(pciHint, "not a PCI address with its domain")
	}
	return pci, nil
}

// normalPCI returns a PCI address as the kernel spells it, 0000:81:00.0. NVIDIA's
// tools write the domain with eight digits, and large letters.
func normalPCI(s string) (string, bool) {
	address, function, ok := strings.Cut(s, ".")
	part := strings.Split(address, ":")
	if !ok || len(part) != 3 || len(part[0]) < 4 || len(part[0]) > 8 || len(part[1]) != 2 || len(part[2]) != 2 || len(function) != 1 || !strings.Contains("01234567", function) {
		return "", false
	}
	domain, err1 := strconv.ParseUint(part[0], 16, 32)
	bus, err2 := strconv.ParseUint(part[1], 16, 8)
	device, err3 := strconv.ParseUint(part[2], 16, 5)
	return fmt.Sprintf("%04x:%02x:%02x.%s", domain, bus, device, function), err1 == nil && err2 == nil && err3 == nil
}

// readID reads a number other than 0, in decimal as the kernel prints it or in
// hexadecimal as ROCm's tools do.
func readID(bits int, put func(uint64)) func(strict.Value) error {
	return func(v strict.Value) error {
		s, err := v.Word()
		if err != nil {
			return err
		}
		digits, base := s, 10
		if hex, ok := strings.CutPrefix(s, "0x"); ok {
			digits, base = hex, 16
		}
		id, err := strconv.ParseUint(digits, base, bits)
		if err != nil || id == 0 || base == 10 && s[0] == '0' {
			return v.Errorf("write it in decimal, or with 0x before it", "not a number of %d bits other than 0", bits)
		}
		put(id)
		return nil
	}
}

// readVersion reads numbers with dots between, and what a release candidate or a
// distribution puts behind: 580.159.03, 1.3.0-rc.3, 20.10.24+dfsg1.
func readVersion(v strict.Value) (string, error) {
	s, err := v.Word()
	if err != nil {
		return "", err
	}
	numbers, behind := s, "x"
	if i := strings.IndexAny(s, "-+~"); i >= 0 {
		numbers, behind = s[:i], s[i+1:]
	}
	parts := strings.Split(numbers, ".")
	odd := func(n string) bool { return n == "" || len(n) > 9 || strings.Trim(n, "0123456789") != "" }
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+~-"
	if len(parts) > 4 || slices.ContainsFunc(parts, odd) || behind == "" || strings.Trim(behind, letters) != "" {
		return "", v.Errorf("write it as in 580.159.03 or 1.3.0-rc.3", "not a version")
	}
	return s, nil
}
