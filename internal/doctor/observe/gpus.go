package observe

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	gpuobserve "github.com/juliagpu/secrets-buildkite-plugin/internal/gpu/observe"
)

// gpus finds what agents are to have.
func (o *observer) gpus(agents []*doctor.Agent) {
	d := &o.facts.Driver
	is, ok := within(o.Patience, o.Devices)
	h := gpu.Hardware{Facts: is, Now: o.Now()}
	d.Version = h.NVIDIA.Driver
	var intents []gpu.Intent
	divides, asks := false, false
	for _, a := range agents {
		if i, ok := o.intent(a); ok {
			intents = append(intents, i)
			asks = asks || i.Policy.Vendor == gpu.VendorNVIDIA
			divides = divides || i.Divides()
		}
		o.policy(a, h.BootID)
	}
	if asks && d.Version != "" {
		listed, err := gpuobserve.List(o.SMI, divides)
		h.SMI, h.Listed = listed, err == nil
		if err != nil {
			o.silent(err)
		}
		h.Facts, ok = within(o.Patience, o.Devices) // nvidia-smi loads what is not
	}
	if !ok {
		d.Hangs = true
		o.unread("what drivers show in /proc and /sys: no answer in time")
		return
	}
	for _, i := range intents {
		a := agents[slices.IndexFunc(agents, func(a *doctor.Agent) bool { return a.Name == i.Agent })]
		_, err := gpu.Resolve(i.Agent, intents, h)
		var u *gpu.Unresolved
		if errors.As(err, &u) {
			a.Gone, a.Shares = doctor.Problem{What: o.plain(u.Cause), Fix: o.plain(u.Remedy)}, u.With
			if !u.Machine && u.With == "" {
				a.Intent, a.Gone = a.Gone, doctor.Problem{}
			}
		}
	}
}

// silent says why nvidia-smi gave no answer.
func (o *observer) silent(err error) {
	d := &o.facts.Driver
	what, fix := err.Error(), ""
	var status *gpuobserve.StatusError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what, fix = "nvidia-smi is not there", "install the driver's tools"
	case errors.As(err, &status):
		what = firstOf([]string{escape.Text(status.Said), status.Error()})
		d.Differs = strings.Contains(status.Said, "version mismatch")
	}
	d.Silent = doctor.Problem{What: o.plain(what), Fix: fix}
}
