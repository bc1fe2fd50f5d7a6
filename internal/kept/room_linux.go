package kept

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// Where the caches of one user's jobs have more than share of the room, some go, down
// to low: first those that alone have more than half of that, then those that were
// lent longest ago. Each user has a share of its own: else the jobs of forks could
// have those of trusted jobs removed, and by size one fork's could all others'.
const (
	share = 0.4
	low   = 0.3
)

// Ready makes the room as the next container must find it: mounted, and empty but
// for caches. A room that can't be mended is made anew, without them. No container
// of the agent may run. It needs root. say gets a line for each thing that people
// should know of.
func (r Room) Ready(ctx context.Context, say func(format string, args ...any)) error {
	if r.Size < Least {
		return fmt.Errorf("%s: a room of %d bytes is too small", r.Image, r.Size)
	}
	for _, dir := range []string{filepath.Dir(r.Image), filepath.Dir(r.Dir), r.Dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// What is mounted there has directories of jobs' users below it, but is root's.
		if !isDir(dir, 0) {
			return fmt.Errorf("%s: not a directory of root's", dir)
		}
	}
	here, err := r.mounted()
	if err == nil && here {
		err = r.Unused()
	}
	if err != nil {
		return err
	}
	if here && !r.fits() {
		if err := unix.Unmount(r.Dir, 0); err != nil {
			return fmt.Errorf("%s: %w: %w", r.Dir, ErrBusy, err)
		}
		here = false
	}
	if !here {
		if err := r.mount(ctx, say); err != nil {
			return err
		}
	}
	if err = r.settle(ctx, say); err == nil || ctx.Err() != nil {
		return err
	}
	say("%s: %s: made anew, without caches", r.Image, err)
	if err := unix.Unmount(r.Dir, 0); err != nil {
		return fmt.Errorf("%s: %w: %w", r.Dir, ErrBusy, err)
	}
	if err := os.Remove(r.Image); err != nil {
		return err
	}
	if err := r.mount(ctx, say); err != nil {
		return err
	}
	return r.settle(ctx, say)
}

// mounted tells whether the room is mounted. It asks the kernel of the directory
// alone: a list of mounts may lack one while others come and go.
func (r Room) mounted() (bool, error) {
	var own, above unix.Stat_t
	if err := errors.Join(unix.Lstat(r.Dir, &own), unix.Lstat(filepath.Dir(r.Dir), &above)); err != nil {
		return false, fmt.Errorf("%s: %w", r.Dir, err)
	}
	if own.Dev == above.Dev {
		return false, nil
	}
	// The kernel has the path without links. A file that was removed is the room's all
	// the same: fits has it made anew.
	if file := backing(own.Dev); strings.TrimSuffix(file, deleted) != r.image() {
		return false, fmt.Errorf("%s: something else is mounted there", r.Dir)
	}
	return true, nil
}

// deleted is what the kernel puts behind the path of a file that was removed.
const deleted = " (deleted)"

// backing is the file that a loop device is on; empty: it is none.
func backing(dev uint64) string {
	text, _ := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/loop/backing_file", unix.Major(dev), unix.Minor(dev)))
	return strings.TrimSuffix(string(text), "\n")
}

// image is the room's file by a path without links.
func (r Room) image() string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(r.Image))
	if err != nil {
		return r.Image
	}
	return filepath.Join(dir, filepath.Base(r.Image))
}

// Unused makes sure that no container has the room: the error wraps ErrBusy. The
// kernel knows, where an engine that is down or starting does not: its containers
// live on.
func (r Room) Unused() error {
	var own, above unix.Stat_t
	if err := unix.Lstat(r.Dir, &own); err == unix.ENOENT {
		return nil
	} else if err = errors.Join(err, unix.Lstat(filepath.Dir(r.Dir), &above)); err != nil {
		return &fs.PathError{Op: "lstat", Path: r.Dir, Err: err}
	}
	if own.Dev == above.Dev {
		return nil // not mounted: the device is that of all rooms, and who has the image, idle asks
	}
	name := fmt.Sprintf("%d:%d", unix.Major(own.Dev), unix.Minor(own.Dev))
	paths, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), " "+name+" ") {
			continue // most have ended since
		}
		all, err := procfs.ParseMounts(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if slices.ContainsFunc(all, func(m procfs.Mount) bool { return m.Device == name && m.Point == home.Lasting }) {
			return fmt.Errorf("%s: %w: process %s is in a container that has it", r.Dir, ErrBusy, filepath.Base(filepath.Dir(path)))
		}
	}
	return nil
}

// Remove takes the room away, with all that is in it. The error wraps ErrBusy where a
// container has it.
func (r Room) Remove() error {
	here, err := r.mounted()
	if err == nil && here {
		if err = r.Unused(); err == nil {
			err = unix.Unmount(r.Dir, 0)
		}
		if err == unix.EBUSY {
			err = fmt.Errorf("%s: %w: %w", r.Dir, ErrBusy, err)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, path := range []string{r.Image, r.Dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// fits tells whether what is mounted is as it must be, and its file still there. It is read-only where the file
// system had an error, as when the host's own was full: then e2fsck has to look at it.
func (r Room) fits() bool {
	var own, image unix.Stat_t
	var st unix.Statfs_t
	const want = unix.ST_NOSUID | unix.ST_NODEV
	return unix.Lstat(r.Dir, &own) == nil && !strings.HasSuffix(backing(own.Dev), deleted) &&
		unix.Statfs(r.Dir, &st) == nil && st.Flags&(want|unix.ST_RDONLY) == want &&
		unix.Lstat(r.Image, &image) == nil && image.Size == r.Size
}

// mount mounts the image, which is made where it is not there, has another size, or
// can't be mended.
func (r Room) mount(ctx context.Context, say func(string, ...any)) error {
	info, err := os.Lstat(r.Image)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := r.make(ctx); err != nil {
			return err
		}
		say("%s: made", r.Image)
	case err != nil:
		return err
	default:
		if err := r.idle(ctx); err != nil {
			return err
		}
		var why string
		if st := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || st.Uid != 0 || info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("%s: not a file of root's alone: remove it", r.Image)
		}
		if info.Size() != r.Size {
			why = fmt.Sprintf("it had %d bytes", info.Size())
		} else if _, err := tool(ctx, "e2fsck", "-p", r.Image); verdict(ctx, err) {
			why = "it could not be mended"
		} else if err != nil {
			return err
		}
		if why != "" {
			if err := errors.Join(os.Remove(r.Image), r.make(ctx)); err != nil {
				return err
			}
			say("%s: %s: made anew, without caches", r.Image, why)
		}
	}
	_, err = tool(ctx, "mount", "-t", "ext4", "-o", "loop,rw,nosuid,nodev,noatime,errors=remount-ro", r.Image, r.Dir)
	return err
}

// verdict tells whether a program's error is about what it was to look at: it is
// there, and nobody ended it.
func verdict(ctx context.Context, err error) bool {
	return errors.As(err, new(*exec.ExitError)) && ctx.Err() == nil
}

// idle makes sure that nobody has the image. A loop device goes a moment after its
// last mount; a container that outlived ours has its own.
func (r Room) idle(ctx context.Context) error {
	for range 10 {
		loops, err := tool(ctx, "losetup", "--associated", r.Image)
		if loops == "" || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: %w, by a container or a mount", r.Image, ErrBusy)
}

func (r Room) make(ctx context.Context) (err error) {
	f, err := os.OpenFile(r.Image, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(r.Image)
		}
	}()
	if err := errors.Join(f.Truncate(r.Size), f.Close()); err != nil {
		return err
	}
	_, err = tool(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", r.Image)
	return err
}

// settle empties the room but for caches, which get back to their places.
func (r Room) settle(ctx context.Context, say func(string, ...any)) error {
	jobs := r.Jobs()
	if err := os.MkdirAll(jobs, 0o755); err != nil {
		return err
	}
	if err := takeBack(jobs); err != nil {
		return err
	}
	entries, err := os.ReadDir(jobs)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != folder {
			if err := remove(filepath.Join(jobs, e.Name())); err != nil {
				return err
			}
		}
	}
	own := filepath.Join(jobs, folder)
	if err := errors.Join(os.MkdirAll(own, 0o700), os.Chmod(own, 0o700), os.Chmod(jobs, 0o755)); err != nil {
		return err
	}
	// Last: until now all could be done again.
	if err := remove(filepath.Join(own, note)); err != nil {
		return err
	}
	if err := r.trim(ctx, say); err != nil {
		return err
	}
	// What was removed is the host's again, once that is on the disk; where it can't be,
	// the file stays as large.
	if _, err := tool(ctx, "sync", "-f", r.Dir); err == nil {
		_, _ = tool(ctx, "fstrim", r.Dir)
	}
	return nil
}

// trim keeps the room from being full of caches.
func (r Room) trim(ctx context.Context, say func(string, ...any)) error {
	var st unix.Statfs_t
	if err := unix.Statfs(r.Dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: r.Dir, Err: err}
	}
	if max(1-float64(st.Bfree)/float64(st.Blocks), 1-float64(st.Ffree)/float64(st.Files)) <= share {
		return nil // together, so nobody alone has more
	}
	users, err := filepath.Glob(filepath.Join(r.Jobs(), folder, "*"))
	if err != nil {
		return err
	}
	for _, user := range users {
		used := func(path string) (float64, error) {
			bytes, err := du(ctx, "--block-size=1", path)
			if err != nil {
				return 0, err
			}
			inodes, err := du(ctx, "--inodes", path)
			return max(bytes/float64(st.Bsize)/float64(st.Blocks), inodes/float64(st.Files)), err
		}
		has, err := used(user)
		if err != nil {
			return err
		}
		if has <= share {
			continue
		}
		all, err := oldest(user)
		if err != nil {
			return err
		}
		large := map[string]bool{}
		for _, path := range all {
			one, err := used(path)
			if err != nil {
				return err
			}
			large[path] = one > low/2
		}
		all = slices.Concat(
			slices.DeleteFunc(slices.Clone(all), func(path string) bool { return !large[path] }),
			slices.DeleteFunc(slices.Clone(all), func(path string) bool { return large[path] }))
		n := 0
		for ; n < len(all) && has > low; n++ {
			if err := remove(all[n]); err != nil {
				return err
			}
			if has, err = used(user); err != nil {
				return err
			}
		}
		say("%s: much of the room: removed the caches of %d of %d repositories", user, n, len(all))
	}
	return nil
}

// oldest are the caches of a user's jobs, those that were lent longest ago first.
func oldest(user string) ([]string, error) {
	entries, err := os.ReadDir(user)
	if err != nil {
		return nil, err
	}
	last := map[string]time.Time{} // takeBack renames into it
	var all []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		path := filepath.Join(user, e.Name())
		all, last[path] = append(all, path), info.ModTime()
	}
	slices.SortStableFunc(all, func(a, b string) int { return last[a].Compare(last[b]) })
	return all, nil
}

// du counts what a tree has. Its depth is a job's to choose, so du(1) does it.
func du(ctx context.Context, what, path string) (float64, error) {
	out, err := tool(ctx, "du", "-s", what, "--", path)
	if err != nil {
		return 0, err
	}
	number, _, _ := strings.Cut(out, "\t")
	return strconv.ParseFloat(number, 64)
}

// tool runs a program of the host's, of coreutils, util-linux or e2fsprogs.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		out, err := cmd.CombinedOutput()
		text := strings.TrimSpace(string(out))
		if name == "e2fsck" && cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 1 {
			err = nil // it has mended something (e2fsck(8))
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w: %s", name, err, strings.ReplaceAll(text, "\n", "; "))
		}
		return text, nil
	}
	return "", fmt.Errorf("%s: there is no such program: install util-linux and e2fsprogs", name)
}
