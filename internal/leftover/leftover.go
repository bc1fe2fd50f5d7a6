// Package leftover finds processes that a user has left running.
package leftover

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrUnseen says that not every process can be seen, so that none may be left out.
var ErrUnseen = errors.New("not every process can be seen")

// Find returns the processes of a user that can still run code, by their numbers.
// proc is os.DirFS("/proc"). A process belongs to whom any of its ids says; one
// that has ended, and that nobody has waited for, does not count unless one of its
// threads goes on. Those of other users, such as subordinate ones (subuid(5)), are
// not found.
func Find(proc fs.FS, uid int) ([]int, error) {
	mounts, err := fs.ReadFile(proc, "self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnseen, err)
	}
	for line := range strings.Lines(string(mounts)) {
		// proc_pid_mountinfo(5): the fifth field is where it is mounted.
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/proc" && strings.Contains(line, "hidepid=") {
			return nil, fmt.Errorf("%w: /proc is mounted with hidepid", ErrUnseen)
		}
	}
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnseen, err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		alive, err := runs(proc, e.Name(), uid)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnseen, err)
		}
		if alive {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// runs tells whether any thread of a process can run code as the user.
func runs(proc fs.FS, pid string, uid int) (bool, error) {
	// The first thread may have ended while others go on.
	tasks, err := fs.ReadDir(proc, pid+"/task")
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, task := range tasks {
		status, err := fs.ReadFile(proc, pid+"/task/"+task.Name()+"/status")
		if gone(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		ended, ours, err := parse(string(status), uid)
		if err != nil {
			return false, err
		}
		if ours && !ended {
			return true, nil
		}
	}
	return false, nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// parse reads the lines State and Uid of proc_pid_status(5). The name of a
// process stands before them, but with its line breaks escaped.
func parse(status string, uid int) (ended, ours bool, err error) {
	state, ids := "", []string(nil)
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		switch fields := strings.Fields(value); {
		case key == "State" && state == "" && len(fields) > 0:
			state = fields[0]
		case key == "Uid" && ids == nil:
			ids = fields
		}
	}
	if state == "" || len(ids) != 4 {
		return false, false, errors.New("a process's status makes no sense")
	}
	return state == "Z" || state == "X", slices.Contains(ids, strconv.Itoa(uid)), nil
}
