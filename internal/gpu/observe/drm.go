package observe

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

var drmName = form(`^(card|renderD)[0-9]+$`) // not card0-HDMI-A-1

// drm reads the host's cards and render nodes in sysfs.
func (o *observer) drm() []gpu.DRM {
	var all []gpu.DRM
	entries, err := o.list("sys/class/drm", mostEntries)
	o.missed(gpu.FromDRM, "/sys/class/drm", err)
	for _, e := range entries {
		name := e.Name()
		if !drmName().MatchString(name) {
			continue
		}
		dir := "sys/class/drm/" + name
		text, err := o.line(dir + "/dev")
		number, ok := numberOf(text)
		if err == nil && !ok {
			err = errMalformed
		}
		if err != nil {
			o.unread(gpu.FromDRM, name+": "+cause(err))
			continue
		}
		d := gpu.DRM{Name: name, Number: number}
		uevent, err := o.read(dir+"/device/uevent", mostBytes)
		if err == nil {
			err = parseUevent(&d, string(uevent))
		}
		o.missed(gpu.FromDRM, name+"/device/uevent", err)
		d.VRAMUsed = o.bytes(dir + "/device/mem_info_vram_used")
		d.VRAMTotal = o.bytes(dir + "/device/mem_info_vram_total")
		d.Uncorrected = o.uncorrected(dir + "/device/ras")
		all = append(all, d)
	}
	return all
}

// parseUevent reads lines of KEY=value. A device that is not on PCI has no such address.
func parseUevent(d *gpu.DRM, text string) error {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch key {
		case "DRIVER":
			d.Driver = value
		case "PCI_ID":
			d.ID = value
		case "PCI_SLOT_NAME":
			pci, ok := pciAddress(value)
			if !ok {
				return errMalformed
			}
			d.PCI = pci
		}
	}
	return nil
}

// bytes reads one number; -1 where a driver has no such file.
func (o *observer) bytes(name string) int64 {
	text, err := o.line(name)
	n := int64(-1)
	if err == nil {
		n, err = parseCount(text)
	}
	o.missed(gpu.FromDRM, "/"+name, err)
	return n
}

// parseCount reads a number that is not negative; -1 with an error.
func parseCount(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return -1, errMalformed
	}
	return int64(n), nil
}

// uncorrected adds up the errors of all blocks of a GPU; -1 where it counts none.
func (o *observer) uncorrected(dir string) int64 {
	entries, err := o.list(dir, mostEntries)
	o.missed(gpu.FromDRM, "/"+dir, err)
	sum := int64(-1)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_err_count") {
			continue
		}
		text, err := o.read(dir+"/"+e.Name(), mostBytes)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			continue // some are root's alone
		}
		var n int64
		if err == nil {
			n, err = parseErrCount(string(text))
		}
		if err != nil {
			o.unread(gpu.FromDRM, "/"+dir+"/"+e.Name()+": "+cause(err))
			continue
		}
		if sum = max(sum, 0) + n; sum < 0 {
			sum = 1<<63 - 1
		}
	}
	return sum
}

// parseErrCount reads "ue: 0" in a block's counters.
func parseErrCount(text string) (int64, error) {
	all, err := colons(text)
	if err != nil {
		return -1, err
	}
	return parseCount(all["ue"])
}
