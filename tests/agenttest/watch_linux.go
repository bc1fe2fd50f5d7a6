package agenttest

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	pollEvery = 2 * time.Millisecond

	// youngPolls is for how many polls the arguments of a process outside the tree
	// are read again: it may start another program soon after it was made.
	youngPolls = 100
)

// seen is a process that the watch knows.
type seen struct {
	job   bool
	image string // its program's place in memory, another after each execve
	polls int
}

// watch reads /proc until stop is called, which returns what it saw. A process
// that lives shorter than a poll can be missed.
func (t *processTree) watch() (stop func() []Process) {
	done, stopped := make(chan struct{}), make(chan struct{})
	var found []Process
	go func() {
		defer close(stopped)
		known := make(map[int]*seen)
		records := make(map[Process]bool)
		for {
			start := time.Now()
			t.poll(known, func(p Process) {
				if !records[p] {
					records[p] = true
					found = append(found, p)
				}
			})
			// At most a quarter of a core, however many processes there are.
			select {
			case <-time.After(max(pollEvery, 3*time.Since(start))):
			case <-done:
				return
			}
		}
	}()
	return func() []Process {
		close(done)
		<-stopped
		return found
	}
}

// poll looks at each process once, and keeps known up to date.
func (t *processTree) poll(known map[int]*seen, record func(Process)) {
	alive := make(map[int]bool)
	for _, pid := range pids() {
		alive[pid] = true
		s := known[pid]
		if s != nil && !s.job && s.polls > youngPolls {
			continue
		}
		parent, image, ok := stat(pid)
		if !ok {
			continue
		}
		if s == nil {
			s = &seen{}
			known[pid] = s
		}
		s.polls++
		if p := known[parent]; !s.job {
			s.job = pid == t.agent || p != nil && p.job || t.owns(pid)
		}
		if s.job && image == s.image {
			continue
		}
		p := Process{PID: pid, Parent: parent, Job: s.job, Cmdline: read(pid, "cmdline")}
		if s.job {
			p.Environ = read(pid, "environ")
			p.Exe, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			// Not while execve is at it: then the next poll reads it whole.
			if _, again, ok := stat(pid); !ok || again != image {
				continue
			}
			s.image = image
		}
		if p.Cmdline != "" { // a kernel thread's, or that of a process that has ended
			record(p)
		}
	}
	for pid := range known {
		if !alive[pid] {
			delete(known, pid)
		}
	}
}

// owns says whether the process was started with the run's directory in its environment.
func (t *processTree) owns(pid int) bool {
	return strings.Contains(read(pid, "environ"), t.dir+"/")
}

// kill ends each process of the tree, until there is none, or for two seconds: one
// that hangs in the kernel does not go.
func (t *processTree) kill() {
	syscall.Kill(-t.agent, syscall.SIGKILL)
	known := make(map[int]*seen)
	for start := time.Now(); time.Since(start) < 2*time.Second; {
		t.poll(known, func(Process) {})
		victims := 0
		for pid, s := range known {
			if s.job && !zombie(pid) {
				victims++
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if victims == 0 {
			return
		}
	}
}

func pids() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func read(pid int, name string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return ""
	}
	return string(text)
}

// stat reads /proc/PID/stat (man 5 proc_pid_stat): the parent, and the addresses
// of stack, arguments and environment, which differ after each execve. ok is false
// for a process that has ended or has no program yet.
func stat(pid int) (parent int, image string, ok bool) {
	f := statFields(pid)
	if len(f) < 49 || f[0] == "Z" || f[0] == "X" {
		return 0, "", false
	}
	parent, err := strconv.Atoi(f[1])
	return parent, strings.Join(append(f[25:26:26], f[45:49]...), " "), err == nil
}

func zombie(pid int) bool {
	f := statFields(pid)
	return len(f) == 0 || f[0] == "Z" || f[0] == "X"
}

// statFields is /proc/PID/stat from its third field on, the state. The second, a
// name in parentheses, may hold anything.
func statFields(pid int) []string {
	text := []byte(read(pid, "stat"))
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return nil
	}
	return strings.Fields(string(text[end+1:]))
}
