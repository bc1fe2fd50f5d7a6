package gpu

import (
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// An Intent is what an operator means an agent to have: a policy without what
// changes from boot to boot, which Resolve finds.
type Intent struct {
	Agent string
	Path  string // the file it is from
	// Policy is as ParsePolicy returns it, but a slice that has a UUID may lack GI and CI.
	Policy Policy
	// SharedWith are other agents that may have the same GPUs and slices. It counts
	// where both say so.
	SharedWith []string
	// Given are the GPUs and slices that the agent's container gets whatever the policy
	// says, by their UUIDs and PCI addresses: AGENT_GPU of its .env. Of a policy that is
	// off nothing else tells. ParseIntent leaves it empty.
	Given []string
}

// Divides tells whether it is about a slice, so that nvidia-smi has to list them.
func (i Intent) Divides() bool {
	return slices.ContainsFunc(i.Policy.Devices, Device.divides) || slices.ContainsFunc(i.Given, func(name string) bool { return given(name).divides() })
}

func (d Device) divides() bool { return d.MIG != "" || d.GI >= 0 }

// given is a device by a name of Given. A PCI address is AMD's or Intel's.
func given(name string) Device {
	d := Device{GI: -1, CI: -1, Render: -1}
	switch {
	case strings.HasPrefix(name, "MIG-"):
		d.MIG = name
	case strings.HasPrefix(name, "GPU-"):
		d.UUID = name
	default:
		d.PCI = name
	}
	return d
}

// ParseIntent reads the text of an intent's file: gpu, and shared_with. The error
// is a *strict.Error. Agent and Path stay empty.
func ParseIntent(text []byte) (Intent, error) {
	root, err := strict.Parse(text, "write gpu: and below it vendor: nvidia, amd, intel or none")
	if err != nil {
		return Intent{}, err
	}
	var i Intent
	err = root.Fields(
		strict.Key("gpu", strict.Into(&i.Policy, func(v strict.Value) (Policy, error) { return readPolicy(v, true) })),
		strict.Key("shared_with", i.readShared),
	)
	if _, stated := root.Get("gpu"); err == nil && !stated {
		err = root.Below("gpu").Errorf("write gpu: and below it vendor: nvidia, amd, intel or none", "missing")
	}
	if err != nil {
		return Intent{}, err
	}
	return i, nil
}

func (i *Intent) readShared(v strict.Value) error {
	return v.Items(func(v strict.Value) error {
		name, err := v.Text()
		switch {
		case err != nil:
			return err
		case !IsAgent(name):
			return v.Errorf("write it as --agent has it, such as gpuci.3", "not the name of an agent")
		case slices.Contains(i.SharedWith, name):
			return v.Errorf("keep one", "listed twice")
		}
		i.SharedWith = append(i.SharedWith, name)
		return nil
	})
}

// IsAgent tells whether a text is an agent's name: letters, digits, dots, hyphens
// and underscores, and a letter or digit first, so that files can have it.
func IsAgent(name string) bool {
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '-' && c != '_') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}
