//go:build unix

package leftover

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Proc returns /proc, as os.DirFS("/proc") would. Its files take three calls
// instead of eleven: there is one for each process, before every job.
func Proc() fs.FS { return procFS{} }

type procFS struct{}

func (procFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	fd, err := retry(func() (int, error) { return unix.Open("/proc/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file(fd), nil
}

func (procFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(os.DirFS("/proc"), name) }

// A file is a descriptor.
type file int

func (f file) Read(text []byte) (int, error) {
	n, err := retry(func() (int, error) { return unix.Read(int(f), text) })
	if err == nil && n == 0 && len(text) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

func (f file) Close() error { return unix.Close(int(f)) }

func (f file) Stat() (fs.FileInfo, error) { return nil, fs.ErrInvalid }

// retry makes a call again when a signal interrupts it.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}
