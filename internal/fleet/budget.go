package fleet

import "fmt"

// A Host is what there is to share out. Zero is what is not known.
type Host struct {
	CPUs   int
	Memory int64 // bytes
	Disk   int64 // bytes: the file system that has the rooms
}

// Left is what agents leave of it, by their limits. A limit is no reservation, so it
// may be less than nothing.
func (h Host) Left(agents []Agent) (cpus float64, memory int64) {
	cpus, memory = float64(h.CPUs), h.Memory
	for _, a := range agents {
		cpus -= a.CPUs
		memory -= a.Memory
	}
	return cpus, memory
}

// Over says of what all agents together may take more than there is, a line each.
// All of them at once then slow one another down, or fail. GPUs are no matter of
// sums: nobody gets one that another has.
func Over(agents []Agent, h Host) (lines []string) {
	var threads int
	var cache int64
	for _, a := range agents {
		threads += a.JuliaCPUThreads
		cache += a.Cache
	}
	cpus, memory := h.Left(agents)
	if h.CPUs > 0 && cpus < 0 {
		lines = append(lines, fmt.Sprintf("AGENT_CPUS= of all agents are %g, and the host has %d processors", float64(h.CPUs)-cpus, h.CPUs))
	}
	if h.CPUs > 0 && threads > h.CPUs {
		lines = append(lines, fmt.Sprintf("JULIA_CPU_THREADS= of all agents are %d, and the host has %d processors", threads, h.CPUs))
	}
	if h.Memory > 0 && memory < 0 {
		lines = append(lines, fmt.Sprintf("AGENT_MEMORY= of all agents are %s, and the host has %s", Bytes(h.Memory-memory), Bytes(h.Memory)))
	}
	if h.Disk > 0 && cache > h.Disk {
		lines = append(lines, fmt.Sprintf("AGENT_CACHE= of all agents are %s, and the disk that has their rooms has %s", Bytes(cache), Bytes(h.Disk)))
	}
	return lines
}

// Bytes is a size for people.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for len(units) > 1 && n >= 10<<10 {
		n, units = n>>10, units[1:]
	}
	return fmt.Sprintf("%d %s", n, units[0])
}
