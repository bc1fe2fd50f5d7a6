package harden

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Process forbids core files and debuggers. A process that is being debugged
// already ends here (ptrace(2), PT_DENY_ATTACH). macOS shows a process's
// environment to its own user; nothing changes that.
func Process() error {
	if err := noCoreFiles(); err != nil {
		return err
	}
	if err := unix.PtraceDenyAttach(); err != nil {
		return fmt.Errorf("forbid debuggers: %w", err)
	}
	return nil
}

func program() (string, error) { return os.Executable() }
