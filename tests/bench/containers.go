//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
)

const containerRounds = 100

// Containers that pass, with what the driver shows there.
var containerCases = []struct {
	title, policy, fixture string
	flags                  []string
	nodes                  []string
}{
	{"no GPU, hardened", "{vendor: none}", "f6", []string{"--cap-drop=ALL"}, nil},
	{"no GPU", "{vendor: none}", "f6", nil, nil},
	{"1 of 4 NVIDIA GPUs, hardened", `{vendor: nvidia, devices: [{pci: "0000:81:00.0"}]}`, "f1-cdi", []string{"--cap-drop=ALL"}, []string{"nvidia2", "nvidiactl", "nvidia-uvm"}},
	{"1 of 4 NVIDIA GPUs", `{vendor: nvidia, devices: [{pci: "0000:81:00.0"}]}`, "f1-cdi", nil, []string{"nvidia2", "nvidiactl", "nvidia-uvm"}},
	{"a MIG slice, hardened", `{vendor: nvidia, devices: [{pci: "0000:01:00.0", gi: 9, ci: 0}]}`, "f2", []string{"--cap-drop=ALL"},
		[]string{"nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap84", "nvidia-caps/nvidia-cap85"}},
	{"a MIG slice", `{vendor: nvidia, devices: [{pci: "0000:01:00.0", gi: 9, ci: 0}]}`, "f2", nil,
		[]string{"nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap84", "nvidia-caps/nvidia-cap85"}},
}

// inContainers measures the check in containers where it passes, and returns a
// table that is 80 columns wide at most.
func inContainers(ctx context.Context, dir string) (string, error) {
	engine, err := dock.Own(ctx)
	if err != nil {
		return "", err
	}
	root, err := agenttest.Root()
	if err != nil {
		return "", err
	}
	nodes := filepath.Join(dir, "dev")
	if err := dock.Nodes(nodes); err != nil {
		return "", err
	}
	image, err := dock.Image(ctx, dir)
	if err != nil {
		return "", err
	}
	remove, err := engine.Import(ctx, image)
	defer remove()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s%11s%11s%11s%11s\n", "Milliseconds", "median", "maximum", "floor", "more")
	for i, of := range containerCases {
		policy := filepath.Join(dir, fmt.Sprintf("policy-%d.yml", i))
		if err := os.WriteFile(policy, []byte("gpu: "+of.policy+"\n"), 0o644); err != nil {
			return "", err
		}
		flags := append(of.flags, "--security-opt=no-new-privileges", "--volume="+policy+":"+dock.Policy+":ro")
		for _, node := range of.nodes {
			flags = append(flags, "--device="+filepath.Join(nodes, node)+":/dev/"+node)
		}
		files, err := dock.Fixture(root, of.fixture)
		if err != nil {
			return "", err
		}
		r, err := engine.Run(ctx, flags, files, dock.Inside, "time", fmt.Sprint(containerRounds), dock.Check, dock.Idle)
		if err != nil {
			return "", err
		}
		if r.Status != 0 {
			return "", fmt.Errorf("%s: %s", of.title, r.Log)
		}
		var check, floor, more []float64
		for line := range strings.Lines(r.Log) {
			var a, b float64
			if _, err := fmt.Sscan(line, &a, &b); err != nil {
				return "", fmt.Errorf("%s: %w", of.title, err)
			}
			const ms = float64(time.Millisecond)
			check, floor, more = append(check, a/ms), append(floor, b/ms), append(more, (a-b)/ms)
		}
		fmt.Fprintf(&b, "  %-32s%11.1f%11.1f%11.1f%11.1f\n", of.title, median(check), slices.Max(check), median(floor), median(more))
	}
	return b.String(), nil
}

const containersHeading = "\n## What the check takes in a container\n"

// containersPage is the third part of docs/bench.md.
func containersPage(table, machine string) string {
	return containersHeading + `
Written by ` + "`make bench-containers`" + `, as root: do not edit. ` + machine + `.

` + "```" + `
` + table + "```" + `

- ` + "`pre-command`" + ` passes in a container of the machine's Docker Engine, ` + fmt.Sprint(containerRounds) + ` times in each, with nodes of GPUs that the machine has not, and with
  what a driver shows in ` + "`/proc`" + `. A time is one process from fork to exit, by a program in the same container.
- **The floor** is a static Go program that does nothing, started in turn with the check. **more** is the median of the differences.
- In a **hardened** container nobody can make a node, so that only the nodes that are there are asked about; else every number is. The
  budget is 10 ms more than the floor.
`
}
