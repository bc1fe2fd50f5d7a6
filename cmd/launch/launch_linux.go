package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// environ returns this process's environment as the agent wrote it: of two equal
// names os.Environ shows one.
func environ() ([]string, error) {
	text, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), nil
}

// gpuGroups returns those of the agent's groups that own a GPU's device node, as
// Compose's group_add gives them to it: without them the job could not use its
// GPU. Others, such as disk, stay with root.
func gpuGroups() ([]int, error) {
	have, err := os.Getgroups()
	if err != nil {
		return nil, err
	}
	var groups []int
	for _, pattern := range []string{"/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/kfd", "/dev/dri/*"} {
		nodes, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, node := range nodes {
			var st unix.Stat_t
			if unix.Lstat(node, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Mode&0o060 == 0 {
				continue
			}
			if gid := int(st.Gid); gid != 0 && slices.Contains(have, gid) && !slices.Contains(groups, gid) {
				groups = append(groups, gid)
			}
		}
	}
	return groups, nil
}

// giveStreams gives the job its own standard streams, as login does with a
// terminal: else /dev/stdout is not its to open. Only pipes and terminals: what
// else there is, /dev/null say, is not this job's alone. Where it can't be done
// that is all that is missing.
func giveStreams(uid, gid int) {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		// char majors 136 to 143 are Unix98 terminals (Linux Documentation/admin-guide/devices.txt)
		major := unix.Major(st.Rdev)
		terminal := st.Mode&unix.S_IFMT == unix.S_IFCHR && 136 <= major && major <= 143
		if terminal || st.Mode&unix.S_IFMT == unix.S_IFIFO {
			unix.Fchown(fd, uid, gid)
		}
	}
}

// leaveBehind is what is left to do as the job's user: no descriptor of the
// agent's, no directory of root's.
func leaveBehind(dir string) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		// One that is gone by now, such as ReadDir's own, is no error.
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			if err := closeOnExec(fd); err != nil && !errors.Is(err, unix.EBADF) {
				return err
			}
		}
	}
	// The bootstrap will hold secrets: no core file of it, unless a job asks for one.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	limit.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	return syscall.Chdir(dir)
}

func closeOnExec(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
	return err
}
