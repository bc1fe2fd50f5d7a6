//go:build unix

package pipeline

import (
	"os"
	"syscall"
)

// keepOwner gives f the owner of the file it replaces, as far as that is permitted.
func keepOwner(f *os.File, of os.FileInfo) {
	if s, ok := of.Sys().(*syscall.Stat_t); ok {
		f.Chown(int(s.Uid), int(s.Gid))
	}
}
