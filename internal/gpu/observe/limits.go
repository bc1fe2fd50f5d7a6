package observe

import (
	"io/fs"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

// limits reads the container's own cgroup, which engines show at the place of the
// host's root cgroup. That one has no such files.
func (o *observer) limits() gpu.Limits {
	dir := "sys/fs/cgroup/"
	var l gpu.Limits
	if _, err := fs.Stat(o.FS, dir+"cgroup.controllers"); err == nil { // version 2
		quota, period, _ := strings.Cut(o.limit(dir+"cpu.max"), " ")
		l = gpu.Limits{Memory: bounded(o.limit(dir + "memory.max")), PIDs: bounded(o.limit(dir + "pids.max")), CPU: cpus(quota, period)}
	} else if _, err := fs.Stat(o.FS, dir+"memory"); err == nil {
		l = gpu.Limits{
			Memory: bounded(o.limit(dir + "memory/memory.limit_in_bytes")),
			PIDs:   bounded(o.limit(dir + "pids/pids.max")),
			CPU:    cpus(o.limit(dir+"cpu/cpu.cfs_quota_us"), o.limit(dir+"cpu/cpu.cfs_period_us")),
		}
	} else {
		o.unread(gpu.FromLimits, cause(err))
	}
	return l
}

func (o *observer) limit(name string) string {
	text, err := o.line(name)
	o.missed(gpu.FromLimits, "/"+name, err)
	return text
}

// unlimited is version 1's way to say so: the largest number of bytes in whole pages.
const unlimited = 1<<63 - 1<<16

// bounded is a limit as text, and empty where there is none.
func bounded(text string) string {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n >= unlimited {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// cpus is how many may run at once: 2, or 0.5.
func cpus(quota, period string) string {
	q, err := strconv.ParseUint(quota, 10, 32) // max, or -1: none
	p, err2 := strconv.ParseUint(period, 10, 32)
	if err != nil || err2 != nil || p == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(q)/float64(p), 'f', -1, 64)
}
