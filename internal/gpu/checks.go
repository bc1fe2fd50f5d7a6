package gpu

// checks are all there are, in the order in which they are made. An ID is for
// ever: policies waive by it, and docs/gpu.md explains it.
var checks = []check{
	{id: "policy.trust", severity: Deny, early: true, run: policyTrust,
		why: "without a policy that nobody but root can change, nobody can tell the agent's GPU from somebody else's"},

	// How the kernel is asked.
	{id: "probe.broken", severity: Deny, early: true, about: container, run: probeBroken, needs: []Source{FromStatus},
		why: "an answer from the kernel that can't be trusted is no answer: any GPU might be open"},
	{id: "devices.unrestricted", severity: Deny, early: true, about: container, run: unrestricted,
		why: "a job here is root on the host: all GPUs, all disks, all memory, every other agent's secrets"},
	{id: "probe.unknown", severity: Deny, early: true, about: container, waive: ever, run: probeUnknown, needs: []Source{FromUserMap, FromNodes},
		why: "what could not be measured may be open"},

	// Somebody else's GPU.
	{id: "gpu.foreign", severity: Deny, early: true, about: device, run: gpuForeign, needs: []Source{FromDRM, FromKFD},
		why: "a job here could read and change what others compute there"},
	{id: "mig.foreign", severity: Deny, early: true, about: device, run: migForeign, needs: []Source{FromDevices},
		why: "a job here could read and change what others compute there"},
	{id: "mig.admin", severity: Deny, early: true, about: device, waive: matching, only: "mig/monitor", run: migAdmin, needs: []Source{FromDevices},
		why: "a job here could make, remove or watch the slices of all agents on the GPU"},
	{id: "mig.layout", severity: Deny, early: true, about: device, run: migLayout, needs: []Source{FromCaps},
		why: "nobody can tell which slice a device node opens"},

	// Somebody else's processes, and the host.
	{id: "ns.pid", severity: Deny, early: true, about: container, waive: ever, run: nsPID, needs: []Source{FromNamespaces},
		why: "a job sees every process of the host, and may read the tokens and secrets of other agents, or end them"},
	{id: "peer.readable", severity: Deny, early: true, about: container, run: peerReadable, needs: []Source{FromProcesses, FromNamespaces},
		why: "a job reads their environment, with tokens and secrets, and writes to their files: the next job there runs what it likes"},
	{id: "host.socket", severity: Deny, early: true, about: container, waive: ever, run: hostSocket, needs: []Source{FromSockets, FromMounts},
		why: "who talks to it starts containers on the host that reach everything", all: "a program that rules the host takes orders: %s"},
	{id: "container.caps", severity: Deny, early: true, about: container, waive: matching, run: containerCaps, needs: []Source{FromStatus},
		why: "with these a job leaves the container, or reads what the kernel keeps from it", all: "the container can have the capabilities %s"},
	{id: "container.lsm", severity: Deny, about: container, waive: ever, run: containerLSM, needs: []Source{FromStatus, FromLSM},
		why: "the way to holes in the kernel is open"},
	{id: "host.block", severity: Deny, early: true, about: container, waive: ever, run: hostBlock, needs: []Source{FromDevices},
		why: "a job can read the host's disks or reach its kernel", all: "the kernel lets this container open %s"},
	{id: "host.mounts", severity: Deny, early: true, about: container, waive: ever, run: hostMounts, needs: []Source{FromMounts},
		why: "a job reads or changes files that the host, or other agents, rely on", all: "the host's files are in reach: %s", most: 3},

	// The agent's own GPU.
	{id: "gpu.identity", severity: Deny, early: true, about: device, machine: true, run: problemsOf("gpu.identity"), needs: []Source{FromNVIDIA},
		why: "infrastructure, not your change: the agent has another GPU than it was given"},
	{id: "mig.identity", severity: Deny, early: true, about: device, machine: true, run: problemsOf("mig.identity"),
		why: "infrastructure, not your change: the agent has another slice than it was given"},
	{id: "gpu.denied", severity: Deny, about: device, machine: true, run: problemsOf("gpu.denied"),
		why: "infrastructure, not your change: the kernel refuses the agent's own GPU"},
	{id: "gpu.missing", severity: Deny, about: device, machine: true, run: gpuMissing,
		why: "infrastructure, not your change: the agent does not have the GPU it was given"},
	{id: "gpu.unusable", severity: Deny, about: device, machine: true, run: problemsOf("gpu.unusable"), needs: []Source{FromDevices},
		why: "infrastructure, not your change: the GPU is there, and no program can use it"},
	{id: "dev.family", severity: Deny, about: device, waive: ever, run: devFamily, needs: []Source{FromDevices},
		why: "these reach further than one GPU: other GPUs' memory, the display, the network"},
	{id: "gpu.busy", severity: Warn, about: device, machine: true, waive: ever, run: gpuBusy,
		why: "somebody's data is still on the GPU, and the job has less memory than it expects"},
	{id: "gpu.leftover", severity: Warn, about: device, waive: ever, run: gpuLeftover,
		why: "an earlier job, or another container, still computes on this GPU"},

	// What waits for this job, and what helps the next attack.
	{id: "ipc.mps", severity: Deny, early: true, about: container, waive: ever, run: ipcMPS, needs: []Source{FromSockets},
		why: "jobs of several containers share one GPU context, and with it their memory and their errors"},
	{id: "ns.ipc", severity: Deny, about: container, waive: ever, run: nsIPC, needs: []Source{FromNamespaces, FromMounts},
		why: "a job reads and changes shared memory of other jobs"},
	{id: "ns.net", severity: Deny, about: container, waive: ever, run: nsNet, needs: []Source{FromNamespaces, FromNet},
		why: "a job reaches services that listen on the host alone, such as containerd's abstract socket or a cloud's metadata"},
	{id: "ns.uts", severity: Info, about: container, waive: ever, run: nsUTS, needs: []Source{FromNamespaces},
		why: "with more privilege a job could rename the host"},
	{id: "container.nnp", severity: Warn, about: container, waive: ever, run: containerNNP, needs: []Source{FromStatus},
		why: "one setuid program with a hole makes a job root"},
	{id: "container.userns", severity: Info, about: container, waive: ever, run: containerUserns, needs: []Source{FromNamespaces},
		why: "who leaves the container is root outside"},
	{id: "persist.home", severity: Warn, about: container, waive: ever, run: persistHome, needs: []Source{FromHomes, FromMounts},
		why: "an earlier job, a fork's too, can leave files there that run in this one, with its secrets"},
	{id: "loader.tampered", severity: Warn, about: container, waive: ever, run: loaderTampered, needs: []Source{FromPreload},
		why: "programs of this container, nvidia-smi too, say what somebody wants them to say"},
	{id: "gpu.health", severity: Warn, about: device, machine: true, waive: ever, run: gpuHealth,
		why: "results may be wrong, or the GPU may fail during the job"},
	{id: "gpu.mode", severity: Warn, about: device, waive: ever, run: gpuMode,
		why: "the driver does not share the GPU as jobs expect"},
	{id: "env.advice", severity: Info, run: envAdvice,
		why: "they choose among the GPUs that are open anyway"},
	{id: "host.versions", severity: Warn, waive: ever, run: staleVersions,
		why: "a job that starts containers, or a hostile image, could leave the container"},
	{id: "host.params", severity: Warn, waive: ever, run: hostParams, needs: []Source{FromNVIDIA},
		why: "nodes could appear that nobody meant"},
	{id: "host.profiling", severity: Info, waive: ever, run: hostProfiling,
		why: "a job could learn what another one computes on the same GPU"},
	{id: "limits", severity: Info, run: limits, needs: []Source{FromLimits},
		why: "one job can take what all others on the host need"},
	{id: "policy.stale", severity: Deny, about: device, machine: true, waive: ever, run: policyStale,
		why: "infrastructure, not your change: slices and device numbers change with a reboot"},
}

// Waivable tells whether there is a check of that ID, and whether a waiver may
// accept its findings: never, always, or with the exact evidence alone.
func Waivable(id string) (known, waivable, needsMatch bool) {
	for _, c := range checks {
		if c.id == id {
			return true, c.waive != never, c.waive == matching
		}
	}
	return false, false, false
}

// Families are the device families that a policy may add, by the names that the
// kernel or the design gives them, in the order of dev.family's findings.
var Families = []string{
	"nvidia-modeset", "nvidia-nvswitch", "nvidia-nvlink", "nvidia-imex", "nvidia-fs", "gdrdrv", "infiniband", "dri.card", "accel", "nvidia-uvm-tools",
}
