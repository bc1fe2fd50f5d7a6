// Package jobfile keeps secrets of type file in private files for the time of
// one job.
//
// They lie in memory where the machine has /dev/shm, in a folder that nobody but
// the job's user can enter, named after the process that runs the job: so the
// hook at the job's end finds it without being told by the job.
package jobfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// roots are tried in turn. The job's own TMPDIR is not among them: a job must not
// say where its secrets go.
var roots = []string{"/dev/shm", "/tmp"}

// ErrWrite says that no private file could be made.
var ErrWrite = errors.New("a secret's file can't be written")

// prefix names the folders of the job that the agent's process bootstrap runs.
func prefix(bootstrap int) string { return fmt.Sprintf("%s%d-", anyPrefix, bootstrap) }

const anyPrefix = "juliagpu-secrets-"

// A Folder holds the files of one job.
type Folder struct{ path string }

// Make makes the folder for the job of the agent's process bootstrap, 0700.
func Make(bootstrap int) (Folder, error) { return makeIn(roots, bootstrap) }

func makeIn(roots []string, bootstrap int) (Folder, error) {
	for _, root := range roots {
		// Exclusively, with a name that nobody can guess, and 0700.
		path, err := os.MkdirTemp(root, prefix(bootstrap))
		if err == nil {
			return Folder{path}, nil
		}
	}
	return Folder{}, fmt.Errorf("%w: neither %s lets this user make a folder", ErrWrite, strings.Join(roots, " nor "))
}

// Write makes the file name, 0600, and returns its path.
func (f Folder) Write(name, text string) (path string, err error) {
	path = filepath.Join(f.path, name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrWrite, errors.Unwrap(err))
	}
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("%w: %s is full, or goes away", ErrWrite, filepath.Dir(f.path))
	}
	return path, nil
}

// Remove removes the folder with all files.
func (f Folder) Remove() error { return os.RemoveAll(f.path) }

// RemoveAll removes every folder of the job that the agent's process bootstrap
// runs, and what an earlier one of the same number left. It touches nothing that
// is not this user's own.
func RemoveAll(bootstrap int) (removed int, err error) {
	return removeIn(roots, prefix(bootstrap))
}

// RemoveLeft removes the folders of all jobs of this user, before the next one
// begins: where an agent was killed, no hook ran at its job's end.
func RemoveLeft() error {
	_, err := removeIn(roots, anyPrefix)
	return err
}

func removeIn(roots []string, prefix string) (removed int, err error) {
	var errs []error
	for _, root := range roots {
		entries, err := os.ReadDir(root)
		if err != nil {
			continue // not on this system
		}
		for _, e := range entries {
			path := filepath.Join(root, e.Name())
			info, err := os.Lstat(path)
			if !strings.HasPrefix(e.Name(), prefix) || err != nil || !info.IsDir() ||
				int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
				continue
			}
			if err := os.RemoveAll(path); err != nil {
				errs = append(errs, err)
				continue
			}
			removed++
		}
	}
	return removed, errors.Join(errs...)
}
