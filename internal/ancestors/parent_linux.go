package ancestors

import (
	"bytes"
	"os"
	"strconv"
)

// parent returns a process's parent: the fourth field of /proc/PID/stat, behind
// a name in parentheses that may hold anything (proc_pid_stat(5)).
func parent(pid int) (int, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	ppid, err := strconv.Atoi(string(fields[1]))
	return ppid, err == nil
}
