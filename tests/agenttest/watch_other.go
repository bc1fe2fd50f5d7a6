//go:build unix && !linux

package agenttest

import "syscall"

// watch sees nothing: there is no /proc.
func (t *processTree) watch() (stop func() []Process) {
	return func() []Process { return nil }
}

// kill ends the agent's process group. The job's processes, which have groups of
// their own, end when the agent's end of their terminal does.
func (t *processTree) kill() { syscall.Kill(-t.agent, syscall.SIGKILL) }
