package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu/observe"
)

func (p *program) policy() *cobra.Command {
	var agent string
	c := &cobra.Command{
		Use:   "policy",
		Short: "a policy for the GPUs that are here, to be looked at",
		Long: "Prints a policy that names the GPUs that can be opened here, and as inventory all of the host that the drivers show. " +
			"That a GPU can be opened does not make it the agent's own: the comments say what to look at. Writes no file.",
		Example: "docker compose exec SERVICE juliagpu gpu policy\tthose that the agent's container opens\n" +
			"juliagpu gpu policy --agent gpuci.3 >gpu.yml\ton the host, to be cut down to one agent's",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if agent != "" && escape.Text(agent) != agent {
				return misused("write it as the log of a job shows it, such as gpuci.3", "--agent: not the name of an agent")
			}
			machine, done := observe.Machine(p.env)
			defer done()
			text, err := suggestion(observe.Facts(machine, nil, gpu.Demand{}.Want()), agent)
			if err != nil {
				return err
			}
			return p.print(text)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&agent, "agent", "", "the agent whose GPUs these are; messages name it")
	takes(c, "agent", "NAME")
	c.RegisterFlagCompletionFunc("agent", cobra.NoFileCompletions)
	return c
}

// suggestion is a policy file for what was seen, with what a person has to look
// at in comments.
func suggestion(f gpu.Facts, agent string) (string, error) {
	switch {
	case f.Platform != "linux":
		return "", refuse("run it where jobs run; without containers: isolation: {expect: host, reason: …} in config.yml, and no policy",
			"which devices can be opened can't be measured on %s", f.Platform)
	case f.Method == gpu.NotAsked:
		return "", refuse("run it as root, in the agent's container or on the host",
			"the kernel can't be asked which devices can be opened here")
	}
	policy := gpu.Suggest(f)
	policy.Inventory = inventory(f, policy, agent)
	text := policy.YAML()
	if _, err := gpu.ParsePolicy([]byte(text)); err != nil {
		return "", refuse("write it by hand: docs/gpu.md says how", "what the drivers say makes no policy: %s", err)
	}
	var b strings.Builder
	for _, line := range advice(f, policy, agent) {
		margin := "# "
		if strings.HasPrefix(line, "- ") {
			margin = "#   "
		}
		b.WriteString(fit.Wrap(line, 79, "# ", margin))
	}
	return b.String() + text, nil
}

// inventory names the GPUs of the host, where there are others than the policy's,
// or their agent has a name. A slice is not all of its GPU, so that gets no agent.
func inventory(f gpu.Facts, p gpu.Policy, agent string) []gpu.Known {
	all := gpu.HostGPUs(f)
	others := false
	for i, k := range all {
		own := slices.IndexFunc(p.Devices, func(d gpu.Device) bool { return d.PCI == k.PCI })
		if own < 0 {
			others = true
		} else if p.Devices[own].GI < 0 {
			all[i].Agent = agent
		}
	}
	if !others && agent == "" {
		return nil
	}
	return all
}

// advice is what to look at before the policy is used.
func advice(f gpu.Facts, p gpu.Policy, agent string) []string {
	whose := "the agent"
	if agent != "" {
		whose = "agent " + agent
	}
	lines := []string{"Made by juliagpu gpu policy of what can be opened here, which does not make it " + whose + "'s own. Before you use it:"}
	if len(p.Devices) == 0 {
		lines = []string{"Made by juliagpu gpu policy where no GPU was found that can be opened. Before you use it:", "- Is that so because " + whose + " is to have none?"}
		if i := slices.IndexFunc(f.Readings, func(r gpu.Reading) bool { return isGPU(r.Number) && r.Any() }); i >= 0 {
			lines = append(lines, fmt.Sprintf("- The kernel would open GPUs of which no driver here knows, from %s on. Jobs are refused until it does not.", f.Readings[i].Number))
		}
	}
	// /dev/mem, which no container has.
	if len(p.Devices) > 0 && f.Access(devnode.C(1, 1)).Any() {
		lines = append(lines, "- Nothing keeps this place from any device: it is the host, or a privileged container. Keep "+whose+"'s devices, and no others.")
	} else if len(p.Devices) > 0 {
		lines = append(lines, "- Is each of the devices in "+whose+"'s service in compose.yml, and in no other agent's?")
	}
	if slices.ContainsFunc(p.Devices, func(d gpu.Device) bool { return d.GI >= 0 }) {
		lines = append(lines, "- Slices get new numbers when they are made anew, at each boot of the host. Add each one's UUID (nvidia-smi -L), as mig: MIG-…")
	} else if p.Vendor == gpu.VendorNVIDIA && slices.ContainsFunc(p.Devices, func(d gpu.Device) bool { return d.UUID == "" }) {
		lines = append(lines, "- The driver does not know each UUID yet. Run nvidia-smi, then this again.")
	}
	for _, r := range f.Readings {
		if !r.Known() && isGPU(r.Number) {
			lines = append(lines, fmt.Sprintf("- The kernel could not be asked about %s (%s): run this as root.", r.Number, escape.Text(r.Cause)))
			break
		}
	}
	for _, source := range []gpu.Source{gpu.FromNVIDIA, gpu.FromDRM, gpu.FromKFD, gpu.FromDevices, gpu.FromNodes} {
		if cause, ok := f.Unread[source]; ok {
			lines = append(lines, fmt.Sprintf("- Not read: %s: %s. GPUs may be missing below.", source, escape.Text(cause)))
		}
	}
	return append(lines, "Then: in config.yml, or as /etc/juliagpu-secrets/gpu.yml, root's, mounted read-only. docs/gpu.md explains each key.")
}

// isGPU tells whether a number is that of one GPU, of NVIDIA's or of DRM's (Linux
// Documentation/admin-guide/devices.txt; nv.h has modeset and ctl above 247).
func isGPU(n devnode.Number) bool {
	return n.Kind == devnode.Char && (n.Major == 195 && n.Minor <= 247 || n.Major == 226)
}
