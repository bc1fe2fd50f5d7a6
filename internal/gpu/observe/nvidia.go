package observe

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

var errMalformed = errors.New("not as the driver writes it")

// nvidia reads what the driver shows in /proc. All of it may be missing: the
// driver, a part of it that an older one did not have, what the runtime covers.
func (o *observer) nvidia() gpu.NVIDIA {
	n := gpu.NVIDIA{Config: -1, Monitor: -1, IMEX: -1}
	dir := "proc/driver/nvidia"
	if text, err := o.read(dir+"/version", mostBytes); err == nil {
		n.Driver = driverVersion(string(text))
	} else {
		o.missed(gpu.FromNVIDIA, "version", err)
	}
	text, err := o.read(dir+"/params", mostBytes)
	if err == nil {
		n.Params, err = colons(string(text))
	}
	o.missed(gpu.FromNVIDIA, "params", err)

	gpus, err := o.list(dir+"/gpus", mostEntries)
	o.missed(gpu.FromNVIDIA, "gpus", err)
	for _, e := range gpus {
		text, err := o.read(dir+"/gpus/"+e.Name()+"/information", mostBytes)
		var g gpu.NVIDIAGPU
		if err == nil {
			g, err = parseInformation(e.Name(), string(text))
		}
		if err != nil { // a GPU without it is a miss, too
			o.unread(gpu.FromNVIDIA, e.Name()+": "+cause(err))
			continue
		}
		n.GPUs = append(n.GPUs, g)
	}
	slices.SortFunc(n.GPUs, func(a, b gpu.NVIDIAGPU) int { return strings.Compare(a.PCI, b.PCI) })
	n.Instances = o.instances(dir + "/capabilities")

	dir = "proc/driver/nvidia-caps"
	text, err = o.read(dir+"/mig-minors", mostTable)
	if err == nil {
		err = parseMinors(&n, string(text))
	}
	o.missed(gpu.FromCaps, "mig-minors", err)
	text, err = o.read(dir+"/sys-minors", mostBytes)
	if err == nil {
		n.IMEX, err = parseIMEX(string(text))
	}
	o.missed(gpu.FromCaps, "sys-minors", err)
	return n
}

// form compiles when it is first asked: hooks that only read a policy start faster.
func form(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

var version = form(`^[0-9]+(\.[0-9]+)+$`)

// driverVersion finds 580.159.03 in the first line.
func driverVersion(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	for _, word := range strings.Fields(line) {
		if version().MatchString(word) {
			return word
		}
	}
	return ""
}

// colons reads lines of "Key: value", where blanks and tabs pad both. A key that
// is there twice is an error, since somebody else could read the other one.
func colons(text string) (map[string]string, error) {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); !found || key == "" {
			continue
		}
		if _, twice := all[key]; twice {
			return nil, errMalformed
		}
		all[key] = strings.TrimSpace(value)
	}
	return all, nil
}

// parseInformation reads the file of that name, of the GPU whose directory has
// the name of its PCI address.
func parseInformation(dir, text string) (gpu.NVIDIAGPU, error) {
	pci, ok := pciAddress(dir)
	all, err := colons(text)
	if !ok || err != nil {
		return gpu.NVIDIAGPU{}, errMalformed
	}
	g := gpu.NVIDIAGPU{PCI: pci, UUID: all["GPU UUID"], Minor: -1, Model: all["Model"]}
	if strings.Contains(g.UUID, "?") {
		g.UUID = "" // until the driver has attached to the GPU
	}
	if minor, stated := all["Device Minor"]; stated {
		g.Minor, err = strconv.Atoi(minor)
		if err != nil || g.Minor < 0 || g.Minor > 255 {
			return gpu.NVIDIAGPU{}, errMalformed
		}
	}
	return g, nil
}

var pciForm = form(`^(?:0000)?([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$`)

// pciAddress is 0000:81:00.0, of that or of nvidia-smi's 00000000:81:00.0.
func pciAddress(text string) (string, bool) {
	m := pciForm().FindStringSubmatch(strings.ToLower(text))
	if m == nil {
		return "", false
	}
	return m[1], true
}

// instances are those that have files in capabilities/gpu<g>/mig.
func (o *observer) instances(dir string) []gpu.Instance {
	var all []gpu.Instance
	add := func(at string, i gpu.Instance) {
		text, err := o.read(dir+at+"/access", mostBytes)
		if err == nil {
			i.Minor, err = parseAccess(string(text))
		}
		if err != nil {
			o.unread(gpu.FromNVIDIA, "capabilities"+at+": "+cause(err))
			return
		}
		all = append(all, i)
	}
	for _, g := range o.numbered(dir, "gpu") {
		mig := "/gpu" + strconv.Itoa(g) + "/mig"
		for _, i := range o.numbered(dir+mig, "gi") {
			gi := mig + "/gi" + strconv.Itoa(i)
			add(gi, gpu.Instance{GPU: g, GI: i, CI: -1})
			for _, c := range o.numbered(dir+gi, "ci") {
				add(gi+"/ci"+strconv.Itoa(c), gpu.Instance{GPU: g, GI: i, CI: c})
			}
		}
	}
	return all
}

// numbered are the N of entries that are named prefixN, in order.
func (o *observer) numbered(dir, prefix string) []int {
	entries, err := o.list(dir, mostEntries)
	o.missed(gpu.FromNVIDIA, strings.TrimPrefix(dir, "proc/driver/nvidia/"), err)
	var all []int
	for _, e := range entries {
		if n, ok := suffix(e.Name(), prefix); ok {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// suffix is N of prefixN, written in the one usual way.
func suffix(name, prefix string) (int, bool) {
	text, ok := strings.CutPrefix(name, prefix)
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), ok && err == nil && (len(text) == 1 || text[0] != '0')
}

// parseAccess reads a capability's access file.
func parseAccess(text string) (minor int, err error) {
	all, err := colons(text)
	if err != nil {
		return 0, err
	}
	return parseMinor(all["DeviceFileMinor"])
}

// parseMinor reads a minor of the kernel's, 20 bits.
func parseMinor(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 20)
	if err != nil {
		return 0, errMalformed
	}
	return int(n), nil
}

// parseMinors reads mig-minors: config 1, monitor 2, gpu0/gi9/ci0/access 85. Names
// that it does not know are other capabilities; half an instance is an error.
func parseMinors(n *gpu.NVIDIA, text string) error {
	n.Table = make([]gpu.Instance, 0, strings.Count(text, "\n"))
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		minor, err := parseMinor(number)
		if err != nil {
			n.Table = nil
			return errMalformed
		}
		switch {
		case name == "config":
			n.Config = minor
		case name == "monitor":
			n.Monitor = minor
		case strings.HasPrefix(name, "gpu"):
			i, ok := parseInstance(name)
			if !ok {
				n.Table = nil
				return errMalformed
			}
			i.Minor = minor
			n.Table = append(n.Table, i)
		}
	}
	return nil
}

// parseInstance reads gpu0/gi9/access or gpu0/gi9/ci0/access.
func parseInstance(name string) (gpu.Instance, bool) {
	var ok [3]bool
	i := gpu.Instance{CI: -1}
	g, rest, _ := strings.Cut(name, "/")
	gi, rest, _ := strings.Cut(rest, "/")
	i.GPU, ok[0] = suffix(g, "gpu")
	i.GI, ok[1] = suffix(gi, "gi")
	ok[2] = true
	if ci, last, deep := strings.Cut(rest, "/"); deep {
		i.CI, ok[2] = suffix(ci, "ci")
		rest = last
	}
	return i, ok[0] && ok[1] && ok[2] && rest == "access"
}

// parseIMEX finds fabric-imex-mgmt in sys-minors; -1 where it is not.
func parseIMEX(text string) (int, error) {
	for line := range strings.Lines(text) {
		if number, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "fabric-imex-mgmt "); ok {
			minor, err := parseMinor(number)
			if err != nil {
				return -1, err
			}
			return minor, nil
		}
	}
	return -1, nil
}
