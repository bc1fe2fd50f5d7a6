// Package leftover finds processes that a user has left running.
package leftover

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrUnseen says that not every process can be seen, so that none may be left out.
var ErrUnseen = errors.New("not every process can be seen")

// Find returns the processes of a user that can still run code, by their numbers.
// proc is Proc(). A process belongs to whom any of its ids says; one
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
	l := looker{proc: proc, uid: uid}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		alive, err := l.runs(e.Name())
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

// A looker reads one file after the other, into the same memory.
type looker struct {
	proc fs.FS
	uid  int
	text [4096]byte
}

// runs tells whether any thread of a process can run code as the user.
func (l *looker) runs(pid string) (bool, error) {
	// Most processes have one thread, and say so: then that is all.
	status, err := l.status(pid)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if bytes.Contains(status, []byte("\nThreads:\t1\n")) {
		ended, ours, err := parse(status, l.uid)
		return ours && !ended, err
	}
	// The first thread may have ended while others go on.
	tasks, err := fs.ReadDir(l.proc, pid+"/task")
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, task := range tasks {
		status, err := l.status(pid + "/task/" + task.Name())
		if gone(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		ended, ours, err := parse(status, l.uid)
		if err != nil {
			return false, err
		}
		if ours && !ended {
			return true, nil
		}
	}
	return false, nil
}

// status returns the beginning of a status file. The kernel writes what matters
// of it at once; where something is missing nobody takes it for something else.
func (l *looker) status(of string) ([]byte, error) {
	f, err := l.proc.Open(of + "/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Read(l.text[:])
	if err == io.EOF {
		err = nil
	}
	return l.text[:n], err
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// parse reads the lines State and Uid of proc_pid_status(5). The name of a
// process stands before them, but with its line breaks escaped.
func parse(status []byte, uid int) (ended, ours bool, err error) {
	var state, ids [][]byte
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case string(key) == "State" && len(state) == 0:
			state = bytes.Fields(value)
		case string(key) == "Uid" && ids == nil:
			ids = bytes.Fields(value)
		}
		if len(state) > 0 && ids != nil {
			break
		}
	}
	if len(state) == 0 || len(ids) != 4 {
		return false, false, errors.New("a process's status makes no sense")
	}
	is := func(id []byte) bool { return string(id) == strconv.Itoa(uid) }
	return string(state[0]) == "Z" || string(state[0]) == "X", slices.ContainsFunc(ids, is), nil
}
