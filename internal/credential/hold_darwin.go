package credential

import "golang.org/x/sys/unix"

// hold is how open(2) holds a file; macOS can't without asking to read it. With
// it open fails with ELOOP on a symbolic link.
const hold = unix.O_RDONLY | unix.O_NONBLOCK
