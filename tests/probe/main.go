//go:build linux

// Probe is two programs of the tests, by the name of its file. As probe it tries,
// inside a job, what a job must not be able to do: to get into one process, or,
// probe seek [FILE], to find a secret anywhere, until FILE is there. As
// buildkite-agent it stands in for an agent that starts one job, where the job does
// not get far.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	switch {
	case filepath.Base(os.Args[0]) == "buildkite-agent" && os.Args[1] == "bootstrap":
		bootstrap()
	case filepath.Base(os.Args[0]) == "buildkite-agent":
		os.Exit(start(os.Args[1], os.Args[2:]))
	case os.Args[1] == "seek":
		seek(strings.Join(os.Args[2:], ""))
	default:
		pid, err := strconv.Atoi(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "usage: probe PID")
			os.Exit(2)
		}
		attack(pid)
	}
}

// attack prints one line for each way into a process: what the kernel said.
func attack(pid int) {
	say := func(what string, err error) {
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Println(what + ": ALLOWED")
		case errors.As(err, &errno):
			fmt.Println(what + ": " + errno.Error())
		default:
			fmt.Println(what+":", err)
		}
	}
	at := func(name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }
	for _, name := range []string{"environ", "mem", "maps", "auxv", "io", "stack"} {
		f, err := os.Open(at(name))
		if err == nil {
			_, err = f.Read(make([]byte, 1))
			if err == io.EOF {
				err = nil
			}
		}
		say(name, err)
	}
	for _, name := range []string{"root", "cwd", "exe"} {
		_, err := os.Readlink(at(name))
		say(name, err)
	}
	for _, name := range []string{"fd", "map_files", "root/"} {
		_, err := os.ReadDir(at(name))
		say("list "+name, err)
	}
	say("ptrace", syscall.PtraceAttach(pid))
	local := []unix.Iovec{{Base: new(byte)}}
	local[0].SetLen(1)
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
	say("process_vm_readv", err)
	if fd, err := unix.PidfdOpen(pid, 0); err != nil {
		say("pidfd_getfd", err)
	} else {
		_, err = unix.PidfdGetfd(fd, 0, 0)
		say("pidfd_getfd", err)
	}
	say("kill", syscall.Kill(pid, syscall.SIGCONT))
	say("setuid 0", syscall.Setuid(0))
	say("setgid 0", syscall.Setgid(0))
	say("setgroups", syscall.Setgroups([]int{0}))
	say("chroot", syscall.Chroot("/"))
	say("mknod", syscall.Mknod("probe-node", syscall.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
}

// start runs a bootstrap script as an agent would, its arguments the job's
// environment, and prints its status. Descriptor 3 is one that the agent did not
// close.
func start(script string, environ []string) (status int) {
	secret, err := os.Open(os.Args[0])
	if err != nil {
		fmt.Println(err)
		return 2
	}
	// Not os/exec, which leaves out one of two equal names.
	process, err := os.StartProcess(script, []string{script}, &os.ProcAttr{
		Dir: "/", Env: environ, Files: []*os.File{nil, os.Stdout, os.Stdout, secret},
	})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	state, err := process.Wait()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	return state.ExitCode()
}

// bootstrap prints what it was started as.
func bootstrap() {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	for line := range strings.Lines(string(text)) {
		fmt.Print(line)
	}
	environ := os.Environ()
	slices.Sort(environ)
	for _, entry := range environ {
		fmt.Println("env " + entry)
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		fmt.Println("fd " + e.Name() + " " + target)
	}
	dir, _ := os.Getwd()
	fmt.Println("cwd " + dir)
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	fmt.Println("core", limit.Cur)
	mask := unix.Umask(0)
	fmt.Printf("umask %#o\n", mask)
	fmt.Println("args", os.Args)
}
