// Package ancestors tells which processes started this one.
package ancestors

import "os"

// PIDs returns our parent, its parent, and so on up.
func PIDs() []int {
	var pids []int
	for pid, ok := os.Getppid(), true; ok && pid > 0; pid, ok = parent(pid) {
		pids = append(pids, pid)
	}
	return pids
}
