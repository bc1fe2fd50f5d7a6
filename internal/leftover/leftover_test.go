package leftover

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"

	"github.com/stretchr/testify/require"
)

const mounts = "22 1 0:21 / / rw - ext4 /dev/a rw\n23 22 0:22 / /proc rw,nosuid - proc proc rw\n"

// status is as Linux writes it, in the lines that matter.
func status(name, state, uids string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte("Name:\t" + name + "\nUmask:\t0022\nState:\t" + state + "\nPid:\t1\nUid:\t" + uids + "\nGid:\t4711\t4711\t4711\t4711\n")}
}

func TestFind(t *testing.T) {
	const root, user = "0\t0\t0\t0", "4711\t4711\t4711\t4711"
	for _, tt := range []struct {
		name  string
		tasks map[string]*fstest.MapFile
		want  []int
	}{
		{"none", map[string]*fstest.MapFile{"1/task/1": status("init", "S (sleeping)", root)}, nil},
		{"two", map[string]*fstest.MapFile{"12/task/12": status("sh", "S (sleeping)", user), "9/task/9": status("sh", "R (running)", user)}, []int{9, 12}},
		{"stopped", map[string]*fstest.MapFile{"9/task/9": status("sh", "T (stopped)", user)}, []int{9}},
		{"ended", map[string]*fstest.MapFile{"9/task/9": status("sh", "Z (zombie)", user)}, nil},
		{"ended, but for a thread", map[string]*fstest.MapFile{"9/task/9": status("sh", "Z (zombie)", user), "9/task/10": status("sh", "S (sleeping)", user)}, []int{9}},
		{"whose second thread alone is the user's", map[string]*fstest.MapFile{"9/task/9": status("sh", "S (sleeping)", root), "9/task/10": status("sh", "S (sleeping)", user)}, []int{9}},
		{"by its effective id", map[string]*fstest.MapFile{"9/task/9": status("sh", "S (sleeping)", "0\t4711\t0\t0")}, []int{9}},
		{"by its saved id", map[string]*fstest.MapFile{"9/task/9": status("sh", "S (sleeping)", "1\t1\t4711\t1")}, []int{9}},
		{"that calls itself another", map[string]*fstest.MapFile{"9/task/9": status(`x\nState:\tZ\nUid:\t0`, "S (sleeping)", user)}, []int{9}},
		{"of a longer number", map[string]*fstest.MapFile{"9/task/9": status("sh", "S (sleeping)", "47110\t47110\t47110\t47110")}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proc := fstest.MapFS{"self/mountinfo": {Data: []byte(mounts)}, "meminfo": {}, "sys/x": {}}
			for path, file := range tt.tasks {
				proc[path+"/status"] = file
				pid, task, _ := strings.Cut(path, "/task/")
				tasks := 0
				for path := range tt.tasks {
					if strings.HasPrefix(path, pid+"/") {
						tasks++
					}
				}
				if pid == task { // the process's own file
					proc[pid+"/status"] = &fstest.MapFile{Data: fmt.Appendf(nil, "%sThreads:\t%d\n", file.Data, tasks)}
				}
			}
			got, err := Find(proc, 4711)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
	for name, proc := range map[string]fstest.MapFS{
		"no /proc":   {},
		"hidepid":    {"self/mountinfo": {Data: []byte("23 22 0:22 / /proc rw - proc proc rw,hidepid=invisible\n")}},
		"no numbers": {"self/mountinfo": {Data: []byte(mounts)}, "1/status": {Data: []byte("Name:\tx\nState:\tS\nThreads:\t1\n")}},
		"no state":   {"self/mountinfo": {Data: []byte(mounts)}, "1/status": {Data: []byte("Name:\tx\nUid:\t0 0 0 0\nThreads:\t1\n")}},
		"a thread without numbers": {"self/mountinfo": {Data: []byte(mounts)}, "1/status": {Data: []byte("Name:\tx\nThreads:\t2\n")},
			"1/task/1/status": {Data: []byte("Name:\tx\nState:\tS\n")}},
	} {
		_, err := Find(proc, 4711)
		require.ErrorIs(t, err, ErrUnseen, name)
	}
}

// TestFindHere looks at this machine's own processes.
func TestFindHere(t *testing.T) {
	if runtime.GOOS != "linux" {
		need.Skip(t, "needs /proc")
	}
	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	defer child.Process.Kill()
	pids, err := Find(Proc(), os.Getuid())
	require.NoError(t, err)
	require.Contains(t, pids, child.Process.Pid)
	require.Contains(t, pids, os.Getpid())
	require.NoError(t, child.Process.Kill())
	child.Wait()
	pids, err = Find(Proc(), os.Getuid())
	require.NoError(t, err)
	require.NotContains(t, pids, child.Process.Pid)
}
