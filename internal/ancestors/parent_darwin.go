package ancestors

import "golang.org/x/sys/unix"

// parent returns a process's parent.
func parent(pid int) (int, bool) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return 0, false
	}
	return int(info.Eproc.Ppid), true
}
