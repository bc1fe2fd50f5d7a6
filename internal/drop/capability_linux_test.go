package drop

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// change changes the first 32 capabilities of every thread.
func change(f func(*unix.CapUserData)) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets capabilities
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	f(&sets[0])
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets)), 0); errno != 0 {
		return errno
	}
	return nil
}

// prctlAmbient puts a capability into the ambient set of every thread.
func prctlAmbient(c uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
