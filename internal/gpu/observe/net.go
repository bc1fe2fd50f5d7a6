package observe

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

// physical are names that systemd and the kernel give to hardware alone: eno1,
// enp3s0, wlan0, wlp2s0, ib0. A container's own is eth0, which says nothing.
var physical = form(`^(en[opsx][0-9a-f]+[a-z0-9]*|wl(an)?[0-9a-z]+|ww(an)?[0-9a-z]+|ib[0-9]+|ibp[0-9a-z]+)$`)

// net looks at the network namespace's interfaces and at the names of its sockets.
func (o *observer) net() gpu.Net {
	var n gpu.Net
	text, err := o.read("proc/net/dev", mostTable)
	if err != nil {
		o.unread(gpu.FromNet, "dev: "+cause(err))
	}
	for _, name := range interfaces(string(text)) {
		_, err := fs.Stat(o.FS, "sys/class/net/"+name+"/device")
		if err == nil || physical().MatchString(name) {
			n.Physical = append(n.Physical, name)
		}
	}
	text, err = o.read("proc/net/unix", mostTable)
	n.Systemd = bytes.Contains(text, []byte(" /run/systemd/")) || bytes.Contains(text, []byte(" @/org/freedesktop/systemd1/"))
	if err != nil && !(errors.Is(err, errLarge) && n.Systemd) {
		o.unread(gpu.FromNet, "unix: "+cause(err))
	}
	return n
}

// interfaces are the names in /proc/net/dev, below two lines of headings.
func interfaces(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		name, _, found := strings.Cut(line, ":")
		// An interface's name has no slash and is neither . nor .. (dev_valid_name).
		if name = strings.TrimSpace(name); found && fs.ValidPath(name) && !strings.Contains(name, "/") && name != "." {
			all = append(all, name)
		}
	}
	return all
}
