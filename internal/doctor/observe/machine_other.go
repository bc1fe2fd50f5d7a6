//go:build !linux

package observe

import (
	"errors"
	"io/fs"
	"syscall"
)

func synced() (bool, error) { return false, errors.ErrUnsupported }

func child() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func ownerOf(fs.FileInfo) (uid, gid int) { return 0, 0 }
