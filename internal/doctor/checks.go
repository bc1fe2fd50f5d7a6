package doctor

// A check makes findings of one kind. Its ID is for ever: people filter by it, and
// docs/doctor.md has the same table.
type check struct {
	id       string
	severity Severity
	title    string
	why, fix string // fix is for findings that bring none of their own
	place    Place  // where it is made; empty: everywhere
	// after are the checks of whose findings this one's would be effects: with one of
	// them it is not made. A prefix of IDs ends in a dot.
	after []string
	run   func(*Facts) []found
}

// A found is one finding of a check.
type found struct {
	agent string
	about []string // where it is about several agents, which it names itself
	Problem
}

// Where the engine says nothing, nothing about it is known.
var silent = []string{"engine.missing", "engine.down", "engine.hangs"}

// What keeps an agent from starting. That its unit failed follows from it.
var causes = []string{
	"engine.missing", "engine.down", "engine.hangs", "compose.", "docker.mapped", "docker.runtime", "cdi.missing", "driver.missing", "driver.mismatch", "toolkit.missing", "toolkit.mode",
	"tmpfs.run", "disk.full", "hooks.missing", "hooks.wrong", "perm.", "config.missing", "config.two", "config.wrong", "config.paths", "credential.missing", "credential.twice", "credential.unloaded", "credential.readable",
	"credential.wrong", "identity.unreadable", "agent.wrong", "agent.incomplete", "agent.compose", "agent.project", "agent.gpu", "agent.shared-gpu", "policy.missing", "policy.wrong",
	"gpu.gone", "mig.gone", "image.missing", "unit.missing", "unit.broken", "systemd.old",
}

// checks are all there are, causes before effects, from the engine up.
var checks = []check{
	{id: "doctor.partial", severity: Unknown, run: partial,
		title: "some of it only root can see", why: "what could not be seen may be wrong", fix: "run it as root: sudo juliagpu doctor"},
	{id: "doctor.unread", severity: Unknown, run: unread,
		title: "something could not be read", why: "what could not be seen may be wrong", fix: "mend what keeps it from being read, and run this again"},

	// The engine.
	{id: "engine.missing", severity: Fault, place: Host, run: engineMissing,
		title: "there is no Docker", why: "every agent runs in a container of its own", fix: "install Docker Engine (docs.docker.com/engine/install), from Docker's packages or the distribution's"},
	{id: "engine.hangs", severity: Fault, place: Host, after: []string{"engine.missing"}, run: engineHangs,
		title: "docker does not answer in time", why: "no agent starts, and none that runs can be stopped", fix: "look at dmesg and journalctl -u docker first, for a disk or a GPU that hangs; systemctl restart docker ends the jobs that run, or waits for them; systemctl kill --signal=KILL docker does not wait, and ends them"},
	{id: "engine.down", severity: Fault, place: Host, after: []string{"engine.missing", "engine.hangs"}, run: engineDown,
		title: "the Docker Engine does not answer", why: "no agent's container starts", fix: "systemctl start docker; journalctl -u docker says why it ended"},
	{id: "engine.old", severity: Fault, place: Host, after: silent, run: engineOld,
		title: "the Docker Engine is older than 20.10.10", why: "its seccomp profile refuses clone3: programs of Ubuntu 22.04 and later start no threads", fix: "upgrade Docker Engine"},
	{id: "engine.stop", severity: Warn, place: Host, after: silent, run: engineStop,
		title: "systemd kills the engine when it waits for jobs", why: "the next one ends every container that runs, and with it the job in it", fix: "install -D -m 644 /usr/share/juliagpu-secrets/systemd/docker.conf /etc/systemd/system/docker.service.d/juliagpu-secrets.conf; systemctl daemon-reload"},
	{id: "compose.missing", severity: Fault, place: Host, after: []string{"engine.missing", "engine.hangs"}, run: composeMissing,
		title: "docker compose is not there", why: "it starts the agents' containers", fix: "install docker-compose-plugin (of the distribution: docker-compose-v2); the older docker-compose is another program"},
	{id: "compose.old", severity: Fault, place: Host, after: []string{"engine.missing", "engine.hangs"}, run: composeOld,
		title: "Compose is older than 2.20", why: "it does not know include:, of which agents' compose.yml are made", fix: "upgrade docker-compose-plugin"},
	{id: "cgroup.v1", severity: Info, place: Host, after: silent, run: cgroupV1,
		title: "cgroups are of version 1", why: "systemd and Docker give it up, and a later release of theirs won't start here", fix: "boot with systemd.unified_cgroup_hierarchy=1, when the host is upgraded next"},
	{id: "runc.old", severity: Warn, place: Host, after: silent, run: runcOld,
		title: "runc has known holes", why: "a job that starts containers, or a hostile image, could leave the container", fix: "upgrade runc (containerd.io); where the distribution has mended it without a new version there is nothing to do"},
	{id: "docker.socket", severity: Fault, place: Host, run: dockerSocket,
		title: "everyone may give the Docker Engine orders", why: "who does is root on this host, with every agent's identity and token", fix: "chmod 660 /run/docker.sock, and correct SocketMode= of docker.socket"},
	{id: "docker.group", severity: Warn, place: Host, after: []string{"docker.socket"}, run: dockerGroup,
		title: "users who are not root may give the Docker Engine orders", why: "they are root on this host, with every agent's identity and token", fix: "gpasswd -d USER docker, for each who need not be root here"},
	{id: "docker.mapped", severity: Fault, place: Host, after: silent, run: dockerMapped,
		title: "root in a container is another user of the host", why: "credentials are root's alone: no agent can read its own, and none starts", fix: "take userns-remap out of /etc/docker/daemon.json and restart docker; and have the engine of root, not a user's"},
	{id: "docker.seccomp", severity: Warn, place: Host, after: silent, run: dockerSeccomp,
		title: "containers may make any call of the kernel's", why: "a hole in one that nobody needs is a way out of a container", fix: "take seccomp-profile out of /etc/docker/daemon.json; or have a kernel with CONFIG_SECCOMP"},

	// GPUs.
	{id: "driver.missing", severity: Fault, place: Host, run: driverMissing,
		title: "an agent is to have an NVIDIA GPU, and the driver is not loaded", why: "no container gets a GPU", fix: "modprobe nvidia, and look at dmesg; install the driver where there is none"},
	{id: "driver.mismatch", severity: Fault, place: Host, after: []string{"driver.missing"}, run: driverMismatch,
		title: "the NVIDIA driver was upgraded and not loaded", why: "no program can use a GPU until then", fix: "stop the agents and reboot; hold the driver's packages back from upgrades at night"},
	{id: "driver.silent", severity: Fault, place: Host, after: []string{"driver.missing", "driver.mismatch"}, run: driverSilent,
		title: "nvidia-smi does not say which GPUs there are", why: "slices can't be found, and a GPU may be lost", fix: "run nvidia-smi, and look at dmesg"},
	{id: "driver.old", severity: Warn, place: Host, after: []string{"driver.missing"}, run: driverOld,
		title: "the NVIDIA driver is older than a policy asks for", why: "every job there gets a warning", fix: "upgrade the driver and reboot, or lower min_driver"},
	{id: "toolkit.missing", severity: Fault, place: Host, run: toolkitMissing,
		title: "an agent is to have an NVIDIA GPU, and nvidia-ctk is not there", why: "nothing puts a GPU into its container", fix: "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker; systemctl restart docker"},
	{id: "toolkit.old", severity: Warn, place: Host, after: []string{"toolkit.missing"}, run: toolkitOld,
		title: "nvidia-container-toolkit has known holes", why: "a hostile image becomes root on this host", fix: "upgrade nvidia-container-toolkit"},
	{id: "toolkit.mode", severity: Fault, place: Host, after: []string{"toolkit.missing"}, run: toolkitMode,
		title: "NVIDIA's runtime is configured so that no container gets its GPU", why: "pre-command refuses every job, or the container does not start", fix: "correct /etc/nvidia-container-runtime/config.toml"},
	{id: "cgroup.driver", severity: Warn, place: Host, after: append(silent, "toolkit.missing"), run: cgroupDriver,
		title: "systemd manages cgroups, and NVIDIA's runtime adds devices behind its back", why: "systemctl daemon-reload, of an upgrade at night, too, takes the GPU from every container that runs",
		fix: "upgrade nvidia-container-toolkit to 1.18 or later; or nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, and then mode = \"cdi\" in /etc/nvidia-container-runtime/config.toml"},
	{id: "docker.runtime", severity: Fault, place: Host, after: append(silent, "toolkit.missing"), run: dockerRuntime,
		title: "the engine does not know the runtime nvidia", why: "containers of these agents don't start", fix: "nvidia-ctk runtime configure --runtime=docker; systemctl restart docker"},
	{id: "cdi.missing", severity: Fault, place: Host, after: append(silent, "toolkit.missing"), run: cdiMissing,
		title: "agents are to get their GPU by CDI, and there is no specification of it", why: "their containers don't start", fix: "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"},
	{id: "runc.devices", severity: Warn, place: Host, after: append(silent, "toolkit.missing"), run: runcDevices,
		title: "runc leaves out rules of NVIDIA's devices", why: "the kernel refuses the GPU to the container", fix: "upgrade runc (containerd.io) to 1.1.7 or later; until then: nvidia-ctk system create-dev-char-symlinks --create-all"},

	// The machine.
	{id: "tmpfs.run", severity: Fault, run: tmpfsRun,
		title: "/run is not in memory", why: "identities and tokens of each start are written to a disk, where they stay", fix: "mount a tmpfs at /run"},
	{id: "swap.on", severity: Info, place: Host, run: swapOn,
		title: "memory is swapped to a disk in the clear", why: "what is in /run may be written there", fix: "encrypt the swap, use zram, or turn it off (swapoff -a)"},
	{id: "disk.full", severity: Fault, place: Host, run: diskFull,
		title: "a disk is full, or nearly", why: "images, checkouts and logs find no room, and jobs fail for it", fix: "docker system df shows what may go; docker image prune"},
	{id: "clock.off", severity: Fault, run: clockOff,
		title: "the clock is wrong", why: "secrets expire too early or too late, and certificates are not valid", fix: "timedatectl set-ntp true"},
	{id: "clock.unsynced", severity: Warn, place: Host, after: []string{"clock.off"}, run: clockUnsynced,
		title: "nothing keeps the clock right", why: "secrets expire by it", fix: "timedatectl set-ntp true, or chrony"},

	// What is ours.
	{id: "hooks.missing", severity: Fault, run: hooksMissing,
		title: "programs of ours are not there", why: "without a hook jobs get no secrets, and nobody checks their GPU", fix: "make install"},
	{id: "hooks.wrong", severity: Fault, run: hooksWrong,
		title: "a hook is not as it was installed", why: "who can change a hook has every secret; and a hook that can't run fails every job", fix: "make install"},
	{id: "hooks.mixed", severity: Warn, run: hooksMixed,
		title: "programs of ours are of different builds", why: "one may not know what the other writes", fix: "make install, which installs all of them"},
	{id: "perm.config", severity: Fault, run: permConfig,
		title: "somebody else than root could change the configuration", why: "who can gets every secret", fix: "chown root:root and chmod 644 it"},
	{id: "perm.agents", severity: Fault, place: Host, run: permAgents,
		title: "somebody else than root could change what an agent is", why: "who can is root on this host: Compose starts what stands there", fix: "chown -R root:root /etc/juliagpu-secrets/agents; chmod -R go-w /etc/juliagpu-secrets/agents"},
	{id: "perm.run", severity: Fault, place: Host, run: permRun,
		title: "others can look into the folder that holds an agent's credentials", why: "identities and tokens are in it", fix: "restart the agent: its unit makes that folder for root alone"},
	{id: "config.missing", severity: Fault, run: configMissing,
		title: "there is no configuration", why: "nothing is opened without one", fix: "write /etc/juliagpu-secrets/config.yml, as docs/operators.md says"},
	{id: "config.two", severity: Fault, run: configTwo,
		title: "there are two configurations", why: "the hooks take neither", fix: "remove one of them"},
	{id: "config.wrong", severity: Fault, run: configWrong,
		title: "the configuration can't be understood", why: "the hooks take none of it, and no agent starts", fix: "correct it; README.md describes each key"},
	{id: "config.direct", severity: Warn, run: configDirect,
		title: "the configuration's mode is direct", why: "a job reaches the identity, and with it every secret: it is for agents on which no fork's build runs", fix: "mode: split, unless that is so"},
	{id: "config.paths", severity: Fault, place: Host, run: configPaths,
		title: "the configuration names credentials where no agent's container has them", why: "no identity is found in there, and no agent starts", fix: "name files in /run/juliagpu-secrets/credentials"},
	{id: "credential.missing", severity: Fault, place: Host, run: credentialMissing,
		title: "a credential is not there", why: "no agent starts without it", fix: "put it there, mode 600, in a folder of mode 700"},
	{id: "credential.twice", severity: Fault, place: Host, run: credentialTwice,
		title: "a credential is there in the clear and encrypted", why: "no agent whose unit loads both starts: nobody says which of them is meant", fix: "keep one; shred -u the one in the clear"},
	{id: "credential.unloaded", severity: Fault, place: Host, run: credentialUnloaded,
		title: "a credential is encrypted, and an agent's unit does not load it", why: "systemd decrypts for a unit what that names, and the agent does not start without", fix: "LoadCredentialEncrypted= in a drop-in: systemctl edit buildkite-agent@"},
	{id: "credential.readable", severity: Fault, run: credentialReadable,
		title: "others than root can read a credential, or put another in its place", why: "with the identity every secret sealed to it can be read, with the token anybody's agent takes your jobs", fix: "chmod 600 it; if others have had it, make a new one"},
	{id: "credential.other", severity: Fault, place: Host, run: credentialOther,
		title: "others than root can read, or replace, a file beside the credentials", why: "units load all of their folder; and what was an identity opens what was sealed to it, for everybody", fix: "chmod 600 it, or take it away"},
	{id: "credential.wrong", severity: Fault, place: Host, run: credentialWrong,
		title: "a credential's file does not hold one", why: "no agent starts with it", fix: "put it there anew, the whole of it and nothing else"},
	{id: "credential.plain", severity: Info, place: Host, run: credentialPlain,
		title: "credentials lie on the disk in the clear", why: "who takes the disk, or a copy of it, has them", fix: "systemd-creds encrypt them, and LoadCredentialEncrypted= in the unit; or encrypt the disk"},
	{id: "credential.kept", severity: Fault, place: Container, run: credentialKept,
		title: "a job runs, and a credential that it should not meet is still there", why: "a job that becomes root has it", fix: "mount the folder that holds it read-write, and look at the log of pre-bootstrap"},
	{id: "credential.gone", severity: Warn, place: Container, run: credentialGone,
		title: "no job runs, and a credential is not there", why: "the agent has had its job, or was started without", fix: "start the agent anew: it gets a fresh container and new credentials"},
	{id: "identity.unreadable", severity: Fault, after: []string{"credential.readable"}, run: identityUnreadable,
		title: "an identity's file is none", why: "nothing can be opened with it, and no agent starts", fix: "put what age-keygen wrote there"},
	{id: "identity.retired", severity: Warn, run: identityRetired,
		title: "a retired identity is still in use", why: "what was sealed to it before still opens, for whoever has a copy, too", fix: "seal those values anew, then take it out of identities:"},
	{id: "users.missing", severity: Fault, place: Container, run: usersMissing,
		title: "the users of jobs are not there", why: "no job starts without a user of its own", fix: "build the image anew, which has both; or write numbers under users:"},
	{id: "users.own", severity: Warn, place: Host, run: usersOwn,
		title: "a user of this host has the number of jobs' users", why: "who is that user here owns what jobs keep, and reads it", fix: "give that user another number, or jobs others (users: in config.yml, and an image with them)"},

	// Agents.
	{id: "agents.none", severity: Info, place: Host, after: []string{"doctor.partial", "perm.agents"}, run: agentsNone,
		title: "there are no agents", why: "nothing runs here", fix: "juliagpu agent new NAME"},
	{id: "agent.wrong", severity: Fault, place: Host, run: agentWrong,
		title: "an agent's .env can't be understood", why: "it does not start, and what it shares with others is not known", fix: "correct it"},
	{id: "agent.incomplete", severity: Fault, place: Host, run: agentIncomplete,
		title: "an agent's folder lacks a file, or its kind a template", why: "Compose has nothing to start", fix: "compose.yml is the same in every agent's folder; make install writes the templates"},
	{id: "agent.compose", severity: Fault, place: Host, after: []string{"engine.missing", "engine.hangs", "compose.", "agent.wrong", "agent.incomplete"}, run: agentCompose,
		title: "Compose refuses an agent's folder", why: "its container does not start", fix: "docker compose config in its folder names all of it"},
	{id: "agent.project", severity: Fault, place: Host, run: agentProject,
		title: "two agents are one project of Compose's", why: "starting the one ends the other", fix: "rename one of the two folders: case, dots and the like don't count"},
	{id: "agent.gpu", severity: Fault, place: Host, run: agentGPU,
		title: "an agent's .env names other GPUs than its policy", why: "its container gets the one, and pre-command demands the other: every job is refused", fix: "name the same in AGENT_GPU= and under devices: of gpu.yml"},
	{id: "agent.shared-gpu", severity: Fault, place: Host, after: []string{"driver.missing", "driver.mismatch"}, run: agentSharedGPU,
		title: "two agents are to have one GPU", why: "the jobs of one read what those of the other compute", fix: "take it out of one; where their jobs may read each other's memory: shared_with: in both gpu.yml"},
	{id: "agent.budget", severity: Info, place: Host, after: silent, run: agentBudget,
		title: "the agents together may use more than there is", why: "they slow each other down, or the kernel ends one for want of memory", fix: "lower AGENT_CPUS=, JULIA_CPU_THREADS= or AGENT_MEMORY="},
	{id: "policy.missing", severity: Fault, place: Host, run: policyMissing,
		title: "nothing says which GPU an agent is to have", why: "juliagpu gpu resolve has nothing to start from, and the agent does not start", fix: "write its gpu.yml, as docs/gpu.md says; gpu: {vendor: none} for none"},
	{id: "policy.wrong", severity: Fault, place: Host, run: policyWrong,
		title: "what says which GPU an agent is to have can't be used", why: "nobody can tell its GPU from somebody else's, and no agent gets a policy", fix: "correct it, as docs/gpu.md says"},
	{id: "gpu.gone", severity: Fault, place: Host, after: []string{"driver.missing", "driver.mismatch", "driver.silent"}, run: gpuGone,
		title: "an agent's GPU is not to be had", why: "the agent does not start", fix: "look at dmesg"},
	{id: "mig.gone", severity: Fault, place: Host, after: []string{"driver.missing", "driver.mismatch", "driver.silent"}, run: migGone,
		title: "an agent's MIG slice is not to be had", why: "the agent does not start", fix: "slices do not survive a reboot: make them anew (nvidia-smi mig, mig-parted) before the agent starts"},
	{id: "cdi.stale", severity: Warn, place: Host, after: append(silent, "toolkit.missing", "cdi.missing", "driver.missing", "driver.mismatch", "gpu.gone", "mig.gone"), run: cdiStale,
		title: "a CDI specification is of another driver, or of other GPUs", why: "its container does not start, or its programs find no GPU", fix: "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, after each upgrade of the driver and each change of slices; nvidia-cdi-refresh.service of toolkit 1.18 does it"},
	{id: "agent.render", severity: Fault, place: Host, after: []string{"gpu.gone"}, run: agentRender,
		title: "an agent's AGENT_RENDER_GID is not the group of its GPU's render node", why: "jobs may not open it, and find no GPU", fix: "the number that stat -c %g says of the node"},
	{id: "policy.stale", severity: Warn, place: Host, after: []string{"gpu.gone", "mig.gone", "policy.wrong", "policy.missing"}, run: policyStale,
		title: "an agent's policy is of another boot", why: "slices and numbers change with a reboot; the agent gets a new one when it starts", fix: "systemctl restart buildkite-agent@NAME"},
	{id: "image.missing", severity: Fault, place: Host, after: silent, run: imageMissing,
		title: "an agent's image is not there", why: "its container does not start", fix: "in the agent's folder: docker compose build"},
	{id: "image.old", severity: Warn, place: Host, after: append(silent, "image.missing"), run: imageOld,
		title: "an agent's image holds other programs of ours than this host", why: "what was mended here is not mended in there", fix: "in the agent's folder: docker compose build; then restart the agent"},
	{id: "container.open", severity: Fault, place: Host, after: silent, run: containerOpen,
		title: "an agent's container runs with a door open", why: "its jobs reach the host, or other agents", fix: "take it out of the agent's compose.yml, and restart the agent; docs/gpu.md says what each line buys"},
	{id: "container.restart", severity: Warn, place: Host, after: silent, run: containerRestart,
		title: "Docker starts an agent's container again by itself", why: "without a fresh container, new credentials and a policy of this boot", fix: "take restart: out of its compose.yml: the unit starts it"},

	// Their units, which show what all of the above comes to.
	{id: "unit.missing", severity: Fault, place: Host, run: unitMissing,
		title: "systemd does not know an agent's unit", why: "nothing starts it", fix: "make install, then systemctl daemon-reload"},
	{id: "unit.broken", severity: Fault, place: Host, run: unitBroken,
		title: "systemd can't use an agent's unit", why: "nothing starts it", fix: "systemctl status says why"},
	{id: "systemd.old", severity: Fault, place: Host, run: systemdOld,
		title: "systemd is older than 250, and units load credentials as only newer ones can", why: "the agents don't start", fix: "systemctl edit buildkite-agent@: [Service], and LoadCredential= with nothing behind it: juliagpu agent prepare then reads the folder itself, in which nothing may be encrypted"},
	{id: "unit.reload", severity: Warn, place: Host, after: []string{"unit.missing"}, run: unitReload,
		title: "a unit was changed, and systemd has not read it", why: "agents go on with the older one", fix: "systemctl daemon-reload"},
	{id: "unit.edited", severity: Info, place: Host, after: []string{"unit.missing", "unit.broken"}, run: unitEdited,
		title: "an agent's unit is not as it was installed", why: "who reads it later should know", fix: "nothing, if that is meant; a copy in /etc hides what an upgrade mends, a drop-in (systemctl edit) does not"},
	{id: "unit.disabled", severity: Warn, place: Host, after: []string{"unit.missing", "unit.broken"}, run: unitDisabled,
		title: "an agent is not started at boot", why: "after the next reboot it is gone", fix: "systemctl enable its unit, or juliagpu agent remove it"},
	{id: "unit.looping", severity: Fault, place: Host, after: causes, run: unitLooping,
		title: "an agent fails and is started again", why: "it takes no jobs", fix: "journalctl -u its unit says why; juliagpu agent prepare NAME makes the steps before it by hand"},
	{id: "unit.failed", severity: Fault, place: Host, after: causes, run: unitFailed,
		title: "an agent's unit failed", why: "it takes no jobs, and is not started again", fix: "journalctl -u its unit says why; then systemctl start it"},
	{id: "unit.stopped", severity: Warn, place: Host, after: causes, run: unitStopped,
		title: "an agent is to start at boot, and does not run", why: "it takes no jobs until then", fix: "systemctl start its unit, if nobody drained it"},

	// Buildkite.
	{id: "api.unreachable", severity: Fault, run: apiUnreachable,
		title: "attestation is on, and Buildkite's API does not answer", why: "jobs run without secrets", fix: "see whether this machine reaches the server, or try again later"},
	{id: "api.token", severity: Fault, run: apiToken,
		title: "the API token is not valid", why: "jobs run without secrets", fix: "put a new token in place: this one is wrong, revoked or expired"},
	{id: "api.scopes", severity: Fault, after: []string{"api.unreachable", "api.token"}, run: apiScopes,
		title: "the API token lacks a scope", why: "attestation needs it: jobs run without secrets", fix: "make a token with read_builds and read_pipelines"},
	{id: "api.power", severity: Fault, after: []string{"api.unreachable", "api.token"}, run: apiPower,
		title: "the API token can change things on Buildkite", why: "who gets it from one agent changes pipelines, starts builds, or makes agents", fix: "make a token with read_builds and read_pipelines alone, and revoke this one"},
	{id: "api.more", severity: Warn, after: []string{"api.unreachable", "api.token"}, run: apiMore,
		title: "the API token reads more than it need", why: "who gets it from one agent reads that, too", fix: "make a token with read_builds and read_pipelines alone, and revoke this one"},
	{id: "api.organization", severity: Fault, after: []string{"api.unreachable", "api.token", "api.scopes"}, run: apiOrganization,
		title: "the API token is not for the configured organization", why: "jobs run without secrets", fix: "correct organization: under attest:, or make a token that includes it"},

	// In a container: what pre-command says of it, under its own IDs (docs/gpu.md).
}
