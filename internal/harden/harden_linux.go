package harden

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Process forbids core files, and makes the process non-dumpable: no process
// without CAP_SYS_PTRACE can attach to it, or read its memory or environment in
// /proc, even one of the same user. Its own /proc/self then belongs to root, so
// that it can't open all of it either, environ for one. What was set is read
// back; the error says what did not hold.
func Process() error {
	if err := noCoreFiles(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process non-dumpable: %w", err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("make the process non-dumpable: %w", err)
	}
	if dumpable != 0 {
		return errors.New("make the process non-dumpable: it still is")
	}
	return nil
}

// program names the program by what it is, not where it was: its file may have
// been replaced.
func program() (string, error) { return "/proc/self/exe", nil }
