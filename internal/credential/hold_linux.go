package credential

import "golang.org/x/sys/unix"

// hold is how open(2) holds a file without reading it. With it open holds a
// symbolic link itself.
const hold = unix.O_PATH
