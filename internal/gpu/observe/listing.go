package observe

import (
	"encoding/xml"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

// Devices reads what the drivers show of a machine's GPUs, as Facts does, and asks
// the kernel about nothing. Of the facts there are BootID, Majors, NVIDIA, DRM,
// KFD, and what is Unread of these.
func Devices(root fs.ReadLinkFS) gpu.Facts {
	o := observer{Host: Host{FS: root}, facts: gpu.Facts{Platform: "linux", RDMA: -1, Unread: map[gpu.Source]string{}}}
	f := &o.facts
	f.BootID = o.bootID()
	f.Majors = o.majors()
	f.NVIDIA = o.nvidia()
	f.DRM = o.drm()
	f.KFD = o.kfd()
	return o.facts
}

// HostSMI runs the nvidia-smi at a path, for List. A host with many GPUs that
// sleep takes its time, and says much.
func HostSMI(path string) func(args ...string) ([]byte, error) {
	return runner{program: path, most: 4 << 20, limit: 30 * time.Second, patience: 200 * time.Millisecond}.run
}

// ErrChanged says that slices were made or removed while they were listed.
var ErrChanged = errors.New("its two answers are not of the same slices")

// List asks nvidia-smi for all GPUs, and where slices says so for the slices'
// UUIDs, too: -q -x has their instances and -L their UUIDs, and both the number
// by which they are joined. The error is ErrChanged, a *StatusError, or says why
// there is no answer or none to understand.
func List(smi func(args ...string) ([]byte, error), slices bool) ([]gpu.Listing, error) {
	text, err := smi("-q", "-x")
	if err != nil {
		return nil, err
	}
	gpus, err := parseGPUs(text)
	if err != nil || !slices {
		return listings(gpus), err
	}
	if text, err = smi("-L"); err != nil {
		return nil, err
	}
	uuids, err := parseUUIDs(string(text))
	if err != nil {
		return nil, err
	}
	return joined(gpus, uuids)
}

// A listed GPU is one with the numbers of its slices, in their order.
type listed struct {
	gpu.Listing
	numbers []int
}

func listings(gpus []listed) []gpu.Listing {
	var all []gpu.Listing
	for _, g := range gpus {
		all = append(all, g.Listing)
	}
	return all
}

// joined puts the slices' UUIDs to their instances.
func joined(gpus []listed, uuids map[place]string) ([]gpu.Listing, error) {
	for _, g := range gpus {
		for i, number := range g.numbers {
			at := place{g.UUID, number}
			if g.Slices[i].UUID = uuids[at]; g.Slices[i].UUID == "" {
				return nil, ErrChanged
			}
			delete(uuids, at)
		}
	}
	if len(uuids) > 0 {
		return nil, ErrChanged
	}
	return listings(gpus), nil
}

// parseGPUs reads what -q -x prints.
func parseGPUs(text []byte) ([]listed, error) {
	if strings.HasPrefix(string(text), "No devices") { // with status 0, of some drivers
		return nil, nil
	}
	var log struct {
		XMLName xml.Name `xml:"nvidia_smi_log"`
		GPUs    []struct {
			ID      string `xml:"id,attr"`
			UUID    string `xml:"uuid"`
			Minor   string `xml:"minor_number"`
			MIG     string `xml:"mig_mode>current_mig"`
			Memory  string `xml:"fb_memory_usage>total"`
			Devices []struct {
				Number string `xml:"index"`
				GI     string `xml:"gpu_instance_id"`
				CI     string `xml:"compute_instance_id"`
				Memory string `xml:"fb_memory_usage>total"`
			} `xml:"mig_devices>mig_device"`
		} `xml:"gpu"`
	}
	if err := xml.Unmarshal(text, &log); err != nil {
		return nil, errSMI
	}
	var all []listed
	type key struct{ a, b any }
	seen := map[key]bool{}
	again := func(a, b any) bool {
		defer func() { seen[key{a, b}] = true }()
		return seen[key{a, b}]
	}
	for _, g := range log.GPUs {
		one := listed{Listing: gpu.Listing{UUID: strings.TrimSpace(g.UUID), MIG: strings.TrimSpace(g.MIG) == "Enabled", MiB: memory(g.Memory)}}
		var ok, counts bool
		one.PCI, ok = pciAddress(g.ID)
		one.Minor, counts = smiNumber(strings.TrimSpace(g.Minor))
		if g.Minor == "" {
			one.Minor, counts = -1, true
		}
		if !ok || !counts || one.Minor > gpu.MaxNVIDIAMinor || !gpuUUID().MatchString(one.UUID) || again("pci", one.PCI) || again("uuid", one.UUID) {
			return nil, errSMI
		}
		for _, d := range g.Devices {
			var oks [3]bool
			var number int
			var s gpu.Slice
			number, oks[0] = smiNumber(strings.TrimSpace(d.Number))
			s.GI, oks[1] = smiNumber(strings.TrimSpace(d.GI))
			s.CI, oks[2] = smiNumber(strings.TrimSpace(d.CI))
			inTable := number >= 0 && 0 <= s.GI && s.GI < gpu.MaxGIs && 0 <= s.CI && s.CI < gpu.MaxCIs
			if oks != [3]bool{true, true, true} || !inTable || again(one.PCI, number) || again(one.PCI, s) {
				return nil, errSMI
			}
			s.MiB = memory(d.Memory)
			one.Slices, one.numbers = append(one.Slices, s), append(one.numbers, number)
		}
		all = append(all, one)
	}
	return all, nil
}

// memory is for people: 0 where it is no number.
func memory(text string) int {
	n, _ := smiNumber(mib(text))
	return max(n, 0)
}

// A place is where nvidia-smi counts a slice.
type place struct {
	gpu    string // its UUID
	number int
}

var (
	listedGPU   = form(`^GPU [0-9]{1,4}: .*\(UUID: (GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\)$`)
	listedSlice = form(`^ +MIG .*Device +([0-9]{1,4}): \(UUID: (MIG-[^ ()]+)\)$`)
	migUUID     = form(`^MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// ErrOldNames: drivers before 470 name slices by their GPU and their instances.
var ErrOldNames = errors.New("it names slices as drivers before 470 do")

// parseUUIDs reads what -L prints: a line each GPU, and below it one each slice.
func parseUUIDs(text string) (map[place]string, error) {
	all := map[place]string{}
	seen := map[string]bool{}
	under := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \r\n")
		if line == "" || strings.HasPrefix(line, "No devices") {
			continue
		}
		uuid := ""
		if m := listedGPU().FindStringSubmatch(line); m != nil && plain(line) {
			under, uuid = m[1], m[1]
		} else if m := listedSlice().FindStringSubmatch(line); m != nil && plain(line) && under != "" {
			number, ok := smiNumber(m[1])
			at := place{under, number}
			switch uuid = m[2]; {
			case strings.HasPrefix(uuid, "MIG-GPU-"):
				return nil, ErrOldNames
			case !ok || !migUUID().MatchString(uuid) || all[at] != "":
				return nil, errSMI
			}
			all[at] = uuid
		}
		if uuid == "" || seen[uuid] {
			return nil, errSMI
		}
		seen[uuid] = true
	}
	return all, nil
}
