//go:build linux

package dock

import (
	"net"
	"strings"
)

// Gateway is this machine's address on the engine's docker0; empty: there is none.
func Gateway() string {
	bridge, err := net.InterfaceByName("docker0")
	if err != nil {
		return ""
	}
	addresses, err := bridge.Addrs()
	if err != nil || len(addresses) == 0 {
		return ""
	}
	address, _, _ := strings.Cut(addresses[0].String(), "/")
	return address
}
