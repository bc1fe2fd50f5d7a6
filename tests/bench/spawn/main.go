//go:build linux

// Spawn runs a program and prints its peak memory in KiB.
//
// Linux counts a parent's memory as the child's until it has called execve, and
// ru_maxrss keeps the larger (fs/exec.c, exec_mmap), so a parent that measures
// must be smaller than what it measures. This one is.
package main

import (
	"os"
	"strconv"
	"syscall"
)

func main() {
	null, err := syscall.Open("/dev/null", syscall.O_RDWR, 0)
	if err != nil {
		os.Exit(126)
	}
	fd := uintptr(null)
	pid, err := syscall.ForkExec(os.Args[1], os.Args[1:], &syscall.ProcAttr{Env: syscall.Environ(), Files: []uintptr{fd, fd, 2}})
	if err != nil {
		os.Exit(127)
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	for {
		if _, err = syscall.Wait4(pid, &status, 0, &usage); err != syscall.EINTR {
			break
		}
	}
	os.Stdout.WriteString(strconv.FormatInt(usage.Maxrss, 10) + "\n")
	os.Exit(status.ExitStatus())
}
