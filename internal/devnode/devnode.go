// Package devnode asks the kernel whether a process of this container may open a
// device, without opening it.
package devnode

import (
	"strconv"
	"strings"
)

// A Kind is the type of a device.
type Kind byte

const (
	Char  Kind = 'c'
	Block Kind = 'b'
)

// A Number is what the kernel knows a device by; names in /dev are only names.
type Number struct {
	Kind  Kind
	Major uint32
	Minor uint32
}

// C is the number of a character device.
func C(major, minor uint32) Number { return Number{Char, major, minor} }

// B is the number of a block device.
func B(major, minor uint32) Number { return Number{Block, major, minor} }

// String is as in a device cgroup's rules, 195:3, with "block " before a block
// device's.
func (n Number) String() string {
	s := strconv.FormatUint(uint64(n.Major), 10) + ":" + strconv.FormatUint(uint64(n.Minor), 10)
	if n.Kind == Block {
		return "block " + s
	}
	return s
}

// MarshalText is String.
func (n Number) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// Compare orders by kind, major, minor.
func (n Number) Compare(m Number) int {
	switch {
	case n.Kind != m.Kind:
		return int(m.Kind) - int(n.Kind) // characters first
	case n.Major != m.Major:
		return int(n.Major) - int(m.Major)
	}
	return int(n.Minor) - int(m.Minor)
}

// An Answer is what the kernel says of one way to open a device.
type Answer int8

const (
	Unknown Answer = iota // the kernel could not be asked
	Denied                // by the device cgroup
	Allowed
	Absent // there is no node, and nobody here can make one
)

var answers = [...]string{"unknown", "denied", "allowed", "absent"}

func (a Answer) String() string { return answers[a] }

// MarshalText is String.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Access is the kernel's answer for one device, for reading and for writing
// apart: a rule may allow one of them, and a read-only descriptor still takes ioctls.
type Access struct {
	Read  Answer `json:"read"`
	Write Answer `json:"write"`
	// Cause says why an answer is Unknown, as in "mknod: operation not permitted".
	Cause string `json:"cause,omitempty"`
}

// Parallel is how many questions a Prober can be asked at once; further ones wait.
const Parallel = 4

// Causes of Number's answers where no node could be made. Each begins with NoNode.
const (
	NoNode      = "mknod: "
	MknodEPERM  = NoNode + "operation not permitted" // no capability, a user namespace, seccomp, or no m in the cgroup's rules
	MknodEACCES = NoNode + "permission denied"       // a security module
	NoDirectory = NoNode + "no directory on a tmpfs"
)

// Made tells whether there was a node to ask about: an answer that is Unknown
// then is so for another reason.
func (a Access) Made() bool { return !strings.HasPrefix(a.Cause, NoNode) }

// Any tells whether one way is open: somebody else's device is reachable then.
func (a Access) Any() bool { return a.Read == Allowed || a.Write == Allowed }

// Both tells whether both ways are open, as a job needs its own device.
func (a Access) Both() bool { return a.Read == Allowed && a.Write == Allowed }

// Known tells whether the kernel has answered.
func (a Access) Known() bool { return a.Read != Unknown && a.Write != Unknown }
