package observe

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

// kfd reads amdkfd's topology and who holds memory through it.
func (o *observer) kfd() gpu.KFD {
	var k gpu.KFD
	dir := "sys/class/kfd/kfd/topology/nodes"
	nodes, err := o.list(dir, mostEntries)
	o.missed(gpu.FromKFD, "/"+dir, err)
	for _, e := range nodes {
		if n, ok := suffix(e.Name(), ""); ok {
			if node, ok := o.kfdNode(dir+"/"+e.Name(), n); ok {
				k.Nodes = append(k.Nodes, node)
			}
		}
	}
	slices.SortFunc(k.Nodes, func(a, b gpu.KFDNode) int { return a.Node - b.Node })
	dir = "sys/class/kfd/kfd/proc"
	processes, err := o.list(dir, mostProcesses)
	o.missed(gpu.FromKFD, "/"+dir, err)
	for _, e := range processes {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			k.Used = append(k.Used, o.kfdUses(dir+"/"+e.Name(), pid)...)
		}
	}
	return k
}

// kfdNode reads a node of the topology. The driver says EPERM for a GPU whose
// render node the device cgroup keeps from us (kfd_devcgroup_check_permission,
// Linux drivers/gpu/drm/amd/amdkfd). A node that is a CPU is none.
func (o *observer) kfdNode(dir string, n int) (gpu.KFDNode, bool) {
	node := gpu.KFDNode{Node: n, Render: -1}
	text, err := o.line(dir + "/gpu_id")
	var id uint64
	if err == nil {
		id, err = strconv.ParseUint(text, 10, 32)
	}
	var properties []byte
	if err == nil && id != 0 {
		properties, err = o.read(dir+"/properties", mostBytes)
	}
	switch {
	case errors.Is(err, syscall.EPERM):
		node.Denied = true
		return node, true
	case err != nil:
		o.unread(gpu.FromKFD, "/"+dir+": "+cause(err))
		return gpu.KFDNode{}, false
	case id == 0:
		return gpu.KFDNode{}, false
	}
	node.GPUID = uint32(id)
	node.Name, err = o.line(dir + "/name")
	o.missed(gpu.FromKFD, "/"+dir+"/name", err)
	if err := parseProperties(&node, string(properties)); err != nil {
		o.unread(gpu.FromKFD, "/"+dir+"/properties: "+cause(err))
	}
	return node, true
}

// parseProperties reads lines of "key value".
func parseProperties(k *gpu.KFDNode, text string) error {
	values := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "domain", "location_id", "drm_render_minor", "unique_id":
			n, err := strconv.ParseUint(value, 10, 64)
			if _, twice := values[key]; twice || err != nil {
				return errMalformed
			}
			values[key] = n
		}
	}
	location, located := values["location_id"] // bus, device, function
	if located && (location > 0xffff || values["domain"] > 0xffff) {
		return errMalformed
	}
	minor, stated := values["drm_render_minor"]
	if minor >= 1<<20 {
		return errMalformed
	}
	if located {
		k.PCI = fmt.Sprintf("%04x:%02x:%02x.%x", values["domain"], location>>8, location>>3&0x1f, location&7)
	}
	if stated && minor > 0 { // 0: it has none
		k.Render = int(minor)
	}
	k.UniqueID = values["unique_id"]
	return nil
}

// kfdUses reads what a process holds: vram_<gpu_id>, in bytes.
func (o *observer) kfdUses(dir string, pid int) []gpu.KFDUse {
	files, err := o.list(dir, mostEntries)
	o.missed(gpu.FromKFD, "/"+dir, err)
	var all []gpu.KFDUse
	for _, e := range files {
		text, ok := strings.CutPrefix(e.Name(), "vram_")
		id, err := strconv.ParseUint(text, 10, 32)
		if !ok || err != nil {
			continue
		}
		text, err = o.line(dir + "/" + e.Name())
		var n int64
		if err == nil {
			n, err = parseCount(text)
		}
		o.missed(gpu.FromKFD, "/"+dir+"/"+e.Name(), err)
		if err == nil {
			all = append(all, gpu.KFDUse{PID: pid, GPUID: uint32(id), Bytes: n})
		}
	}
	return all
}
