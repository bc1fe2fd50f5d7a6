// Package doctor says what is wrong with a host of agents, or with an agent's
// container, and what to do.
//
// It only judges: facts in, findings out. Package observe below it looks. One
// cause is one finding: what follows from it is not checked, and said so. What
// could not be seen is a finding, too, and never well.
package doctor

import (
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// A Place is what was looked at.
type Place string

const (
	Host      Place = "host"      // on which agents run in containers
	Container Place = "container" // of an agent
)

// A Problem is what is wrong with one thing, in words for people that are safe to
// print. The zero Problem: nothing.
type Problem struct {
	What string
	Fix  string // empty: the check's own
}

// Facts are what was seen. They are for one place; the other's are zero.
type Facts struct {
	Place Place
	UID   int       // that looked
	Now   time.Time // of this machine's clock
	// Hidden is what only root sees, and Unread what could not be read otherwise.
	Hidden []string
	Unread []Problem

	Config      Config
	Hooks       Hooks
	RunType     string // file system of /run
	Clock       Clock
	Credentials []Credential
	Identities  []Identity
	API         API

	// The host's.
	Engine  Engine
	Service Service
	Compose Tool
	Socket  Socket
	Toolkit Toolkit
	Driver  Driver
	Swap    []string // that are on a disk, in the clear
	Disks   []Disk
	Own     []Problem // users of the host that have jobs' numbers
	Agents  []Agent
	Systemd string  // its version
	Fleet   Problem // the agents' folder can't be trusted

	// The container's.
	JobRuns bool
	GPU     *gpu.Report
}

// A Tool is a program that was asked for its version.
type Tool struct {
	Version string
	Missing bool
	Silent  string // why it did not answer
}

// An Engine is what docker says of itself and of its engine.
type Engine struct {
	Tool
	Instead Problem // what there is in its place
	Down    string  // why the engine does not answer
	Hangs   string  // the command that says nothing
	Driver  string  // of cgroups
	Cgroup  string  // version
	RunC    string
	Root    string // its data
	Default string // its runtime
	// Runtimes by name, and folders of CDI specifications.
	Runtimes []string
	CDI      []string
	CPUs     int
	Memory   int64

	Exposed    []string // where it takes orders from the network, of anybody
	Mapped     string   // how users of containers become others: rootless, userns
	Unconfined bool     // no seccomp profile
	Restores   bool     // containers outlive it
}

// Answers tells whether what docker says of the engine is known.
func (e Engine) Answers() bool { return e.Version != "" && e.Down == "" && e.Hangs == "" }

// A Service is docker.service, where systemd knows it.
type Service struct {
	State string        // empty: well
	Stop  time.Duration // how long it may take to stop; 0: not known
}

// A Socket is the engine's: who can write to it is root.
type Socket struct {
	Mode   string
	Others bool
	Group  string
	People []string // in that group, without root
}

// A Toolkit is NVIDIA's.
type Toolkit struct {
	Tool
	Mode      string // of its runtime; empty: its default
	NoCgroups bool
	NoEnv     bool // it ignores NVIDIA_VISIBLE_DEVICES
	Specs     []Spec
}

// A Spec is a CDI specification of NVIDIA's GPUs.
type Spec struct {
	Dir, Path string
	Devices   []string // by the names that it gives them
	Drivers   []string // versions of the driver whose files it mounts
}

// A Driver is NVIDIA's: its version, and why nvidia-smi says nothing.
type Driver struct {
	Version string
	Hangs   bool // its files in /proc do
	Silent  Problem
	Differs bool // from its library: it was upgraded and not loaded
}

// A Disk is a file system that fills up: bytes, and files (inodes), of which it may
// have no number.
type Disk struct {
	Path             string
	Free, Total      uint64
	FreeFiles, Files uint64
}

// A Clock is whether the kernel's is kept right, and how far it is from Buildkite's.
type Clock struct {
	Unknown  bool // the kernel does not say
	Unsynced bool
	Asked    bool // Buildkite answered
	Off      time.Duration
}

// A Config is the operator's file.
type Config struct {
	Path    string
	Missing bool
	Two     bool // it and another
	Open    Problem
	Wrong   Problem
	Users   Problem            // of jobs, that are not there
	Is      *settings.Settings // nil: not read
}

// Hooks are our programs.
type Hooks struct {
	Missing []string
	Wrong   []Problem
	Builds  map[string][]string // names of programs by what they were built from
}

// A Credential is one at rest on a host, or in a container.
type Credential struct {
	Kind      string // identity, API token; NotNamed
	Path      string
	There     bool
	Encrypted bool
	Beside    string   // the encrypted one, where that is there, too
	Unloaded  []string // agents whose units do not load the encrypted one
	Needed    bool
	Open      Problem
	Wrong     Problem
}

// NotNamed is the kind of what lies with the credentials, and the configuration does
// not name.
const NotNamed = "another file"

// An Identity is one that was read.
type Identity struct{ Fingerprint string }

// An API is what Buildkite's says of the token. Silent is why it says nothing.
type API struct {
	Asked        bool
	Why          string // it was not asked
	Host         string
	Silent       Problem
	Token        bool // the token itself is at fault
	Scopes       []string
	Organization Problem
}

// An Agent is one of the host's.
type Agent struct {
	Name       string
	Wrong      Problem // its .env
	Open       Problem // its files
	RunOpen    Problem // its credentials of a start
	Settings   *fleet.Agent
	Incomplete []string // files that are missing

	Intent    Problem // its gpu.yml can't be used
	NoIntent  bool
	Named     []string // GPUs that gpu.yml names as AGENT_GPU does
	Vendor    gpu.Vendor
	MinDriver string
	Gone      Problem // its GPU is not to be had
	Slice     bool    // and that is a slice
	Shares    string  // the agent that it is also given to
	Policy    Policy

	Compose   Problem // why Compose does not start it
	Render    Problem // its group of render nodes
	Image     Image
	Container *Running
	Unit      Unit
}

// A Policy is the one that was resolved for a start.
type Policy struct {
	There bool
	Wrong Problem
	Stale bool // of another boot
}

// An Image is what an agent's container is made of.
type Image struct {
	Asked bool
	There bool
	Old   string // why it is not of today
}

// A Running container's doors.
type Running struct {
	Open    []string // privileged: true and the like
	Restart string   // policy of Docker's own
}

// A Unit is an agent's, as systemd shows it.
type Unit struct {
	Asked    bool
	Missing  bool
	Load     string
	Active   string
	Sub      string
	Enabled  string
	Result   string
	Status   string // that its program ended with
	Failures int    // in a row, as its own steps count them
	Copied   string // the file, where it hides the installed one
	DropIns  []string
	Reload   bool
	Loads    *Loads // nil: not known
}

// Loads are the credentials that a unit loads: all of the folder, and encrypted files
// by their names.
type Loads struct {
	Folder    bool
	Encrypted map[string]string
}
