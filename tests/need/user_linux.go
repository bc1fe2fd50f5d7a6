package need

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// AnotherUser lets the rest of a test look at files as a user who is not root:
// root may do everything. Only the test's own thread changes (setfsuid(2)). It
// does nothing where the test does not run as root.
func AnotherUser(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	runtime.LockOSThread()
	if err := unix.Setfsuid(4711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Setfsuid(0)
		runtime.UnlockOSThread()
	})
}
