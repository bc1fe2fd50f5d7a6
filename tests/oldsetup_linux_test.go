package tests

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
)

// TestOldSetUp: what the agents that this project replaces had in their Compose
// files, each by itself and then together. Nothing was hardened, so that each row
// warns of that, too; the remedy takes the mistake away, and that warning.
func TestOldSetUp(t *testing.T) {
	t.Parallel()
	y := containers(t)
	ours := y.start(t, "--add-runtime", "less="+y.root+"/tests/dock/less")
	peer, err := y.Begin(t.Context(), nil, nil, dock.Idle) // another agent's
	require.NoError(t, err)
	defer peer.Remove()
	home, err := os.MkdirTemp("/home", "bk-home-")
	require.NoError(t, err)
	defer os.RemoveAll(home)
	one, all := y.nvidia(2), y.nvidia(0, 1, 2, 3)
	const renderNode = `{source: "/dev/dri/by-path/pci-0000:03:00.0-render", target: /dev/dri/renderD128, permissions: rw}`
	nnp := hardened[0]

	for _, tt := range []contained{
		{name: "pid: host, for gpu-monitoring-tools", files: "f1", policy: ownNVIDIA, flags: with(one, "--pid=host"),
			want: []string{"deny ns.pid", "deny peer.readable", "warn container.nnp"}, says: []string{"sees all of its", " of other containers or of the host are open to this job: "}, // the neighbour, and hosts of other tests
			fix: []string{"delete pid: host", "memory in use per GPU needs no host processes"}, drop: []string{"--pid"}, add: hardened},
		{name: "privileged: true, ROCm", engine: "ours", files: "f4-dri", policy: ownAMD, flags: with(y.device("kfd", "dri"), "--privileged", "--runtime=less"),
			want: []string{"deny devices.unrestricted", "deny container.caps", "deny container.lsm", "deny host.block", "deny host.mounts", "warn container.nnp"},
			fix:  []string{"delete privileged: true", `devices: ["/dev/kfd", {source: "/dev/dri/by-path/pci-…-render"`},
			drop: []string{"--privileged", "--device"}, add: with(y.device("kfd", "dri/renderD128"), nnp), then: "f4"},
		{name: "of it: all devices", files: "f4-dri", policy: ownAMD, flags: with(y.device("kfd", "dri"), "--device-cgroup-rule=a *:* rwm"),
			want: []string{"deny devices.unrestricted", "deny host.block", "warn container.nnp"}, fix: []string{"device_cgroup_rules with *"},
			drop: []string{"--device"}, add: with(y.device("kfd", "dri/renderD128"), nnp), then: "f4"},
		{name: "of it: all capabilities but one", flags: []string{"--cap-add=ALL", "--cap-drop=SYS_RESOURCE"},
			want: []string{"deny container.caps", "warn container.nnp"}, says: []string{"SYS_MODULE", "SYS_ADMIN"}, drop: []string{"--cap-add"}, add: hardened},
		{name: "of it: the kernel's settings", flags: []string{"--security-opt=systempaths=unconfined"},
			want: []string{"deny host.mounts", "warn container.nnp"}, says: []string{"/proc is writable in /proc/sys"}, drop: []string{"--security-opt"}, add: hardened},
		{name: "seccomp:unconfined", files: "f4", policy: ownAMD, flags: with(y.device("kfd", "dri/renderD128"), "--security-opt=seccomp=unconfined"),
			want: []string{"deny container.lsm", "warn container.nnp"}, fix: []string{"delete seccomp:unconfined", "set_mempolicy"}, drop: []string{"--security-opt"}, add: hardened},
		{name: "/dev/dri:/dev/dri, ROCm", files: "f4-dri", policy: ownAMD, flags: y.device("kfd", "dri"),
			want: []string{"deny gpu.foreign", "warn dev.family", "warn container.nnp"}, fix: []string{renderNode},
			drop: y.device("dri"), add: with(y.device("dri/renderD128"), nnp), then: "f4"},
		{name: "/dev/dri:/dev/dri, Intel", files: "f5-card", policy: ownIntel, flags: y.device("dri/card1", "dri/renderD128"),
			want: []string{"warn dev.family", "warn container.nnp"}},
		{name: "/dev/dri:/dev/dri, a desktop", files: "f1-cdi", policy: ownNVIDIA, flags: with(one, y.device("dri")...),
			want: []string{"deny gpu.foreign", "deny gpu.foreign", "warn container.nnp"}, says: []string{"(226:0 to 226:1)", "(226:128 to 226:129)"},
			drop: y.device("dri"), add: hardened},
		{name: "no NVIDIA_VISIBLE_DEVICES", files: "f1-cdi", policy: ownNVIDIA, flags: all,
			want: []string{"deny gpu.foreign", "deny gpu.foreign", "warn container.nnp"}, says: []string{"GPU 0000:21:00.0", "GPU 0000:82:00.0"},
			fix: []string{`NVIDIA_VISIBLE_DEVICES: "GPU-1b7ad372-8d21-4239-8e32-63449f713690"`}, drop: y.device("nvidia0", "nvidia1", "nvidia3"), add: hardened},
		{name: "CUDA_VISIBLE_DEVICES alone", files: "f1-cdi", policy: ownNVIDIA, flags: with(all, "--env=CUDA_VISIBLE_DEVICES=2"),
			want: []string{"deny gpu.foreign", "deny gpu.foreign", "warn container.nnp"}, says: []string{"info: env.advice: set in the job's environment: CUDA_VISIBLE_DEVICES"},
			drop: y.device("nvidia0", "nvidia1", "nvidia3"), add: hardened},
		{name: "ROCR_VISIBLE_DEVICES alone", files: "f4-dri", policy: ownAMD, flags: with(y.device("kfd", "dri"), "--env=ROCR_VISIBLE_DEVICES=0"),
			want: []string{"deny gpu.foreign", "warn dev.family", "warn container.nnp"}, says: []string{"info: env.advice: set in the job's environment: ROCR_VISIBLE_DEVICES"},
			drop: y.device("dri"), add: with(y.device("dri/renderD128"), nnp), then: "f4"},
		{name: "a slice that a reboot has changed", files: "f2-recreated", policy: ownSlice, status: 75,
			flags: with(y.nvidia(0), "--device-cgroup-rule=c 235:102 r", "--device-cgroup-rule=c 235:103 r"), want: []string{"deny mig.identity", "warn container.nnp"},
			fix: []string{"its section into the policy"}},
		{name: "the engine's socket", flags: []string{"--volume=/var/run/docker.sock:/var/run/docker.sock"}, want: []string{"deny host.socket", "warn container.nnp"},
			fix: []string{"build images elsewhere"}, drop: []string{"--volume"}, add: hardened},
		{name: "a home that stays", flags: []string{"--volume=" + home + ":/root"},
			want: []string{"deny host.mounts", "warn container.nnp", "warn container.userns", "warn persist.home"}, drop: []string{"--volume"}, add: hardened},
		{name: "the agent's token in its environment", policy: "-", flags: []string{"--init", "--user=4711:4711", "--cap-drop=ALL", nnp, "--env=BUILDKITE_AGENT_TOKEN=x",
			"--volume=" + y.file(t, "mode: split\nidentities: [{file: /run/juliagpu-secrets/identity}]\nusers: {trusted: \"4711:4711\", other: \"4712:4712\"}\ngpu: {vendor: none}\n", 0o644) + ":" + dock.Config + ":ro"},
			want: []string{"deny secrets.readable"}, says: []string{"registration token in the environment"}, fix: []string{"a file that root alone reads"}, drop: []string{"--env"}},
		{name: "an NVIDIA agent as it stood", files: "f1-cdi", policy: ownNVIDIA, flags: with(all, "--pid=host", "--volume="+home+":/root"),
			want: []string{"deny gpu.foreign", "deny gpu.foreign", "deny ns.pid", "deny peer.readable", "deny host.mounts", "warn container.nnp", "warn container.userns", "warn persist.home"},
			says: []string{"info: limits: no limit on memory, pids, cpu"},
			drop: with(y.device("nvidia0", "nvidia1", "nvidia3"), "--pid", "--volume"), add: hardened},
	} {
		t.Run(tt.name, func(t *testing.T) {
			y := y
			if tt.engine == "ours" {
				y.Engine = ours
			}
			y.judge(t, tt)
		})
	}
}
