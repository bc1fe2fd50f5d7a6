//go:build unix

package kept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// remove removes whatever is at a path, and follows no link. Trees are rm's, which
// gets through any depth and any name, with a descriptor or two: a job may have
// made thousands of levels.
func remove(path string) error {
	if err := os.Remove(path); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	cmd := exec.Command("/bin/rm", "-rf", "--", path)
	cmd.Env = []string{"LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(string(out), "\n")
		return fmt.Errorf("rm: %w: %.200q", err, first)
	}
	return nil
}

// unlock removes the locks that a killed job's Git left in bare repositories: nobody
// else would, and Git would wait for them for ever. Names of refs don't end so
// (git-check-ref-format(1)). Where it can't, that is all that is missing.
func unlock(path string) {
	cmd := exec.Command("/usr/bin/find", path, "-xdev", "-type", "f", "-name", "*.lock", "-delete")
	cmd.Env = []string{"LC_ALL=C"}
	_ = cmd.Run()
}

// isDir tells whether a directory, and no link to one, is that user's.
func isDir(path string, uid int) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return false
	}
	return int(info.Sys().(*syscall.Stat_t).Uid) == uid
}
