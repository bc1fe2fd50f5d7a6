//go:build unix

package agenttest

// A Process is one program that ran, as /proc shows it: a process that starts
// another program in its place counts as two.
type Process struct {
	PID, Parent int
	Exe         string // path of the program; empty where it may not be read
	Cmdline     string // arguments, each ended by a zero byte
	Environ     string // variables at its start, each ended by a zero byte; only of the job
	Job         bool   // descends from the agent, or was its own
}

// A processTree is the processes of one run: the agent, what descends from it, and
// what else has the run's directory in its environment, which a process that has
// lost its parents still has.
type processTree struct {
	agent int
	dir   string
}
