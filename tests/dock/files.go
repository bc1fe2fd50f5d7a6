//go:build linux

package dock

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"
)

// Files are what a driver shows, by path below /: proc/devices, and files in
// proc/driver and sys/class. The kernel's own in these places are out of sight.
type Files map[string]string

// Fixture are those of internal/gpu/observe/testdata, whose grammar
// fixture_test.go there tells. A file that can't be read is left out, with its
// directory.
func Fixture(root, name string) (Files, error) {
	archive, err := txtar.ParseFile(filepath.Join(root, "internal/gpu/observe/testdata", name+".txtar"))
	if err != nil {
		return nil, err
	}
	all, unread := Files{}, []string{}
	for _, f := range archive.Files {
		lines := strings.Fields(string(f.Data))
		switch f.Name {
		case "@base":
			if all, err = Fixture(root, lines[0]); err != nil {
				return nil, err
			}
		case "@remove":
			for path := range all {
				for _, gone := range lines {
					if path == gone || strings.HasSuffix(gone, "/") && strings.HasPrefix(path, gone) {
						delete(all, path)
					}
				}
			}
		case "@errno":
			for i := 0; i < len(lines); i += 2 {
				unread = append(unread, filepath.Dir(lines[i])+"/")
			}
		default:
			if f.Name == "proc/devices" || strings.HasPrefix(f.Name, "proc/driver/") || strings.HasPrefix(f.Name, "sys/class/") {
				all[f.Name] = string(f.Data)
			}
		}
	}
	for path := range all {
		for _, dir := range unread {
			if strings.HasPrefix(path, dir) {
				delete(all, path)
			}
		}
	}
	return all, nil
}

// over puts the files into the mount namespace of a process, from outside, as the
// hook of NVIDIA's runtime does: it mounts a tmpfs there as well.
func (f Files) over(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = f.mount()
		}
		done <- err
	}()
	return <-done
}

// mount is what over does in there.
func (f Files) mount() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, dir := range []string{"/proc/driver", "/sys/class"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=555"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for path, text := range f {
		path = "/" + path
		if path == "/proc/devices" {
			path = "/proc/driver/devices"
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o444); err != nil {
			return err
		}
	}
	if _, ok := f["proc/devices"]; ok {
		if err := unix.Mount("/proc/driver/devices", "/proc/devices", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount /proc/devices: %w", err)
		}
	}
	return nil
}

// Nodes makes device nodes below dir, by the names that they have below /dev. No
// driver has them here, or another one that is never asked.
func Nodes(dir string) error {
	for name, number := range map[string][2]uint32{
		"nvidia0": {195, 0}, "nvidia1": {195, 1}, "nvidia2": {195, 2}, "nvidia3": {195, 3}, "nvidiactl": {195, 255}, "nvidia-modeset": {195, 254},
		"nvidia-uvm": {508, 0}, "nvidia-uvm-tools": {508, 1}, "nvidia-caps/nvidia-cap75": {235, 75}, "nvidia-caps/nvidia-cap84": {235, 84}, "nvidia-caps/nvidia-cap85": {235, 85},
		"kfd": {234, 0}, "dri/card0": {226, 0}, "dri/card1": {226, 1}, "dri/renderD128": {226, 128}, "dri/renderD129": {226, 129},
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(number[0], number[1]))); err != nil {
			return err
		}
		mode := os.FileMode(0o666)
		switch filepath.Dir(name) {
		case "nvidia-caps":
			mode = 0o444
		case "dri":
			mode = 0o660
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	by := filepath.Join(dir, "dri", "by-path")
	if err := os.Mkdir(by, 0o755); err != nil {
		return err
	}
	for name, to := range map[string]string{"pci-0000:03:00.0-render": "renderD128", "pci-0000:00:02.0-render": "renderD128"} {
		if err := os.Symlink("../"+to, filepath.Join(by, name)); err != nil {
			return err
		}
	}
	return nil
}
