package observe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

// resolve makes the policy of gpuci.3 as its unit does, before the container of a fixture
// starts: the fixture's driver, with what only the host shows, and nvidia-smi.
func resolve(t *testing.T, name, host string, smi *answers, intents map[string]string) (gpu.Policy, error) {
	t.Helper()
	h := gpu.Hardware{Facts: Devices(variant(t, name, "a", host).FS), Now: time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC)}
	if smi != nil {
		var err error
		h.SMI, err = List(smi.run, true)
		require.NoError(t, err)
		h.Listed = true
	}
	var all []gpu.Intent
	for agent, text := range intents {
		i, err := gpu.ParseIntent([]byte("gpu: " + text))
		require.NoError(t, err)
		i.Agent = agent
		all = append(all, i)
	}
	return gpu.Resolve("gpuci.3", all, h)
}

// capabilities are the files of a GPU's slices, each with compute instance 0.
func capabilities(g int, gis ...int) string {
	var b strings.Builder
	for _, gi := range gis {
		for ci, dir := range map[int]string{-1: "", 0: "/ci0"} {
			fmt.Fprintf(&b, "-- proc/driver/nvidia/capabilities/gpu%d/mig/gi%d%s/access --\nDeviceFileMinor: %d\nDeviceFileMode: 292\nDeviceFileModify: 0\n", g, gi, dir, gpu.CapMinor(g, gi, ci))
		}
	}
	return b.String()
}

// sliced is an nvidia-smi of one A100 whose slices have these instances.
func sliced(slices map[string]int) *answers {
	g := listed{Listing: gpu.Listing{PCI: "0000:01:00.0", UUID: uuidA, MIG: true}}
	list := "GPU 0: NVIDIA A100-PCIE-40GB (UUID: " + uuidA + ")\n"
	for uuid, gi := range slices {
		list += fmt.Sprintf("  MIG 1g.5gb      Device %2d: (UUID: %s)\n", len(g.numbers), uuid)
		g.numbers, g.Slices = append(g.numbers, len(g.numbers)), append(g.Slices, gpu.Slice{GI: gi})
	}
	return &answers{xml: xmlOfAll([]listed{g}), list: list}
}

// TestRoundTrip: what the resolver writes, the hook reads, and lets the container
// pass for which it was written, and no other.
func TestRoundTrip(t *testing.T) {
	slices := map[string]string{"gpuci.3": "{vendor: nvidia, devices: [{mig: " + migA + "}]}", "gpuci.4": "{vendor: nvidia, devices: [{mig: " + migB + "}]}"}
	of := func(name, host string, smi *answers, intents map[string]string) gpu.Policy {
		t.Helper()
		p, err := resolve(t, name, host, smi, intents)
		require.NoError(t, err)
		read, err := gpu.ParsePolicy([]byte(p.YAML()))
		require.NoError(t, err, p.YAML())
		require.Equal(t, p, read)
		return read
	}
	before := of("f2", capabilities(0, 8), sliced(map[string]int{migA: 9, migB: 8}), slices)
	whole := of("f1-cdi", "", &answers{xml: xmlOfAll([]listed{
		{Listing: gpu.Listing{PCI: "0000:81:00.0", UUID: uuidB, Minor: 2}}, {Listing: gpu.Listing{PCI: "0000:82:00.0", UUID: "GPU-0a1b2c3d-4444-4222-8333-444455556666", Minor: 3}},
	}), list: "GPU 0: x (UUID: " + uuidB + ")\n"}, map[string]string{
		"gpuci.3": "{vendor: nvidia, devices: [{uuid: " + uuidB + "}]}", "gpuci.17": "{vendor: nvidia, devices: [{pci: '0000:82:00.0'}]}",
	})
	amd := of("f4", "-- @errno --\n-- sys/class/kfd/kfd/topology/nodes/2/gpu_id --\n3421\n", nil, map[string]string{
		"gpuci.3": "{vendor: amd, devices: [{pci: '0000:03:00.0'}]}", "gpuci.17": "{vendor: amd, devices: [{pci: '0000:83:00.0'}]}"})
	intel := of("f5", "", nil, map[string]string{"gpuci.3": "{vendor: intel, devices: [{pci: '0000:00:02.0'}]}"})
	none := of("f6", "", nil, map[string]string{"gpuci.3": "{vendor: none}"})

	const boot = "-- proc/sys/kernel/random/boot_id --\n00000000-2b7a-4c38-9d15-0a6e4b8f7c21\n"
	const driver = "-- proc/driver/nvidia/version --\nNVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
	for _, tt := range []struct {
		name      string
		policy    gpu.Policy
		container string
		change    string
		want      string // "" for a pass; else what a finding that refuses says
	}{
		{"a slice", before, "f2", "", ""},
		{"the slice was made anew elsewhere", before, "f2-recreated", "", "mig.identity: the policy says gi9/ci0 of 0000:01:00.0, but this container has gpu0/gi11"},
		{"another boot", before, "f2", boot, "policy.stale: the policy was resolved in boot 5f0c6d1e, and this is boot 00000000"},
		{"another driver", before, "f2", driver, "policy.stale: the policy was resolved with the NVIDIA driver 580.159.03, and this is 580.65.06"},
		{"the neighbour's slice, too", before, "f2-peer", "", "mig.foreign: this container can open slice gpu0/gi8 of agent gpuci.4 (235:75)"},
		{"a GPU", whole, "f1", "", ""},
		{"a GPU, all listed", whole, "f1-cdi", "", ""},
		{"a GPU of another minor", whole, "f1-renum", "", ""},
		{"a GPU that was swapped", whole, "f1-swap", "", "gpu.identity: "},
		{"the neighbour's GPU, too", whole, "f1-extra", "", "gpu.foreign: this container can open GPU 0000:82:00.0 of agent gpuci.17 (195:3)"},
		{"AMD", amd, "f4", "", ""},
		{"the neighbour's, too", amd, "f4-dri", "", "gpu.foreign: this container can open the GPU at 0000:83:00.0 (226:1, 226:129) of agent gpuci.17"},
		{"AMD, another boot", amd, "f4", boot, "policy.stale: "},
		{"Intel", intel, "f5", "", ""},
		{"none", none, "f6", "", ""},
		{"none, and one is open", none, "f6-leak", "", "gpu.foreign: "},
	} {
		for _, head := range []string{"a", "b"} {
			t.Run(tt.name+"/"+head, func(t *testing.T) {
				host, _, _ := load(t, tt.container, head)
				if tt.change != "" {
					host = variant(t, tt.container, head, tt.change)
				}
				r := gpu.Check(Facts(host, &tt.policy, gpu.Want{}), gpu.Demand{Policy: &tt.policy, Now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)})
				text := strings.Join(r.Lines(), "\n")
				if tt.want == "" {
					require.Zero(t, r.Status(), text)
					return
				}
				require.NotZero(t, r.Status())
				require.Contains(t, "\n"+text, "\n"+tt.want)
				if strings.Contains(tt.want, ".identity: ") {
					require.Contains(t, text, "  fix: now: systemctl restart buildkite-agent@AGENT on the host: juliagpu gpu resolve finds it")
				}
			})
		}
	}

	// And made anew it is right again.
	after := of("f2-recreated", "", sliced(map[string]int{migA: 11}), map[string]string{"gpuci.3": slices["gpuci.3"]})
	host, _, _ := load(t, "f2-recreated", "a")
	require.Zero(t, gpu.Check(Facts(host, &after, gpu.Want{}), gpu.Demand{Policy: &after}).Status())
	_, err := resolve(t, "f2-recreated", "", sliced(map[string]int{migB: 11}), slices)
	require.ErrorContains(t, err, "slice "+migA+" is not on this host, which has GPU "+uuidA+" at 0000:01:00.0, slice "+migB+" (gi11/ci0 of 0000:01:00.0) of agent gpuci.4")
}
