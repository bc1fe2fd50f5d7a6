package drop

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// To makes every thread of this process u's: its user and groups alone, no
// capability that it could use or pass on, and none to be had from a program's
// file either (no_new_privs). The calling goroutine stays on its thread, which also
// leaves root's keys and the bounding set; a program started from there in this
// one's place has nothing of root's. To needs CAP_SETUID and CAP_SETGID. What was set is read back; after an
// error the process is something in between, and must end. A program with cgo
// can't reach all its threads: there it is syscall.ENOTSUP.
//
// The bounding set goes where CAP_SETPCAP is there. Where it is not, as in a
// container with few capabilities, the set stays, and means nothing: only a
// program's file could draw on it (capabilities(7)).
func To(u User) error {
	if u.UID <= 0 || u.GID <= 0 || slices.ContainsFunc(u.Groups, func(g int) bool { return g <= 0 }) {
		return errors.New("drop to a user: root, or one of its groups, is none to drop to")
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"leave root's keys", leaveKeys},
		{"leave the bounding set", leaveBounds},
		{"set groups", func() error { return syscall.Setgroups(u.Groups) }},
		{"set the group", func() error { return syscall.Setresgid(u.GID, u.GID, u.GID) }},
		{"set the user", func() error { return syscall.Setresuid(u.UID, u.UID, u.UID) }},
		// The kernel has emptied what it empties with the last user of root's; not
		// the inheritable set, and nothing under SECBIT_NO_SETUID_FIXUP. The ambient
		// set goes with the permitted one (capabilities(7)).
		{"leave capabilities", leaveCapabilities},
		{"set no_new_privs", func() error { return prctl(unix.PR_SET_NO_NEW_PRIVS, 1) }},
		{"check", u.check},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("drop to uid %d: %s: %w", u.UID, step.what, err)
		}
	}
	return nil
}

// needed are the capabilities without which a launcher, and the agent behind it,
// can't do their work: give directories to users and look after them, become a
// user, end a user's processes.
var needed = []struct {
	bit  uint
	name string
}{
	{unix.CAP_CHOWN, "CHOWN"}, {unix.CAP_DAC_OVERRIDE, "DAC_OVERRIDE"}, {unix.CAP_FOWNER, "FOWNER"},
	{unix.CAP_SETGID, "SETGID"}, {unix.CAP_SETUID, "SETUID"}, {unix.CAP_KILL, "KILL"},
}

// Able says which capability this process lacks to launch jobs as other users,
// and to end them.
func Able() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have capabilities
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err
	}
	for _, c := range needed {
		if have[0].Effective&(1<<c.bit) == 0 {
			return fmt.Errorf("root lacks the capability %s here: give it to the container, as the Compose file does", c.name)
		}
	}
	return nil
}

// prctl is prctl(2) for every thread. For that Go stops them all: some 0.1 ms.
func prctl(option, arg uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, arg, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// leaveKeys gives this thread a session keyring of its own, while it has root's
// quota for that (session-keyring(7)). The call differs from thread to thread, so
// that it can't be made for all.
func leaveKeys() error {
	runtime.LockOSThread()
	switch _, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0); errno {
	case 0, unix.ENOSYS, unix.EPERM: // no keys in this kernel; or a container in which nobody can ask for any
		return nil
	default:
		return errno
	}
}

// leaveBounds empties this thread's bounding set, if it may: that of a program
// started from here. To no other thread does it mean anything once no_new_privs is
// set, and to empty theirs took more than half of a launcher's time.
func leaveBounds() error {
	for c := uintptr(0); ; c++ {
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err {
		case nil:
		case syscall.EINVAL, syscall.EPERM: // the kernel has no more, or CAP_SETPCAP is missing
			return nil
		default:
			return err
		}
	}
}

// capabilities are the sets of one thread, 64 bits each (capget(2)).
type capabilities [2]unix.CapUserData

func leaveCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none capabilities
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 {
		return errno
	}
	return nil
}

// check reads back what To has set, and tries what must be impossible now.
func (u User) check() error {
	r, e, s := unix.Getresuid()
	if r != u.UID || e != u.UID || s != u.UID {
		return fmt.Errorf("the user is %d, %d, %d", r, e, s)
	}
	if r, e, s = unix.Getresgid(); r != u.GID || e != u.GID || s != u.GID {
		return fmt.Errorf("the group is %d, %d, %d", r, e, s)
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return err
	}
	want := slices.Clone(u.Groups)
	slices.Sort(want)
	slices.Sort(groups)
	if !slices.Equal(groups, want) {
		return fmt.Errorf("the groups are %v", groups)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have capabilities
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err
	}
	if have != (capabilities{}) {
		return fmt.Errorf("capabilities are left: %x", have)
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 1 {
		return errors.New("no_new_privs is not set")
	}
	// By this thread alone: package syscall would stop all of them first.
	for what, back := range map[string]uintptr{"user": unix.SYS_SETUID, "group": unix.SYS_SETGID} {
		if _, _, errno := unix.RawSyscall(back, 0, 0, 0); errno == 0 {
			return fmt.Errorf("the %s can be root's again", what)
		}
	}
	return nil
}
