package gpu

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// A check is one row of the table in checks.go.
type check struct {
	id       string
	severity Severity
	early    bool // a finding means that no secret may be opened either
	about    subject
	machine  bool // the machine is at fault, not the change that is built
	waive    waive
	only     string // the one evidence that can be waived; empty: any
	// needs are the sources without which the check can't say anything.
	needs []Source
	why   string
	// all says how findings with the same remedy are said at once: a format for
	// the list. Empty: each for itself.
	all  string
	most int // how many of these are named; 0: 16
	run  func(*world) []found
}

// A subject is what a check is about, and so what silences it.
type subject int

const (
	always    subject = iota
	container         // the container's walls: information where the operator expects none
	device            // GPUs: nothing to check where the operator has no policy, or turned it off
)

// waive says whether an operator may accept a finding.
type waive int

const (
	never waive = iota
	ever
	matching // only with the exact evidence
)

// found is a finding as a check's run returns it. Its texts are escaped by whoever
// puts a text of others into them.
type found struct {
	what    string
	match   string   // the evidence that a waiver can name
	as      Severity // 0: the check's
	why     string   // empty: the check's
	fix     []string
	unknown bool
	step    bool // the step demands it, and not the operator
}

// A world is what a check's run sees: facts, demand, and what follows from both.
type world struct {
	Facts
	Demand
	share
	differ []Instance // see NVIDIA.layout; the table has thousands
}

// Check holds facts against what is demanded. It reads nothing and does nothing.
func Check(f Facts, d Demand) Report {
	if f.Platform != "linux" {
		return elsewhere(f.Platform, d)
	}
	r := Report{Notes: d.reasons()}
	w := &world{Facts: f, Demand: d, differ: f.NVIDIA.layout()}
	w.share = w.divide()
	waivers := slices.Clone(d.Waivers)
	if d.Policy != nil {
		waivers = append(waivers, d.Policy.Waivers...)
	}
	used := make([]bool, len(waivers))
	ran := map[string]bool{}
	stop := false // what is measured by nodes says nothing any more
	for _, c := range checks {
		if d.Early && !c.early || c.about == device && (stop || !w.checksDevices(c.id)) {
			continue
		}
		r.Checks++
		ran[c.id] = true
		findings := c.findings(w, waivers, used)
		if (c.id == "probe.broken" || c.id == "devices.unrestricted") && d.Host == "" && len(findings) > 0 {
			stop = true
		}
		r.Findings = append(r.Findings, findings...)
	}
	for i, waiver := range waivers {
		if ran[waiver.ID] && !used[i] {
			r.Findings = append(r.Findings, unusedWaiver(waiver, d))
		}
	}
	if d.Advice {
		for i := range r.Findings {
			if f := &r.Findings[i]; f.Severity == Deny && !f.step {
				f.Severity = Warn
			}
		}
	}
	r.sort()
	r.GPUs = w.words()
	if d.Host == "" && w.isMachine() {
		r.Notes = append(r.Notes, "this seems to be no container; on a machine without neighbours, in config.yml: isolation: {expect: host, reason: \"…\"}")
	}
	return r
}

// isMachine tells whether nothing at all separates us from a host. It is for
// advice alone.
func (w *world) isMachine() bool {
	root, ok := procfs.MountOf(w.Mounts, "/")
	return w.Namespaces.PID == procfs.InitialPID && w.Namespaces.IPC == procfs.InitialIPC && ok && root.Root == "/" && isDisk(root)
}

// reasons are the operator's own for what is not checked; every job prints them.
func (d Demand) reasons() []string {
	var all []string
	if d.Host != "" {
		all = append(all, "no container is expected here: "+d.Host)
	}
	if d.Policy != nil && d.Policy.Off != "" {
		all = append(all, "GPUs are not checked: "+d.Policy.Off)
	}
	return all
}

// checksDevices tells whether a check about devices has anything to check.
func (w *world) checksDevices(id string) bool {
	if id == "gpu.missing" && w.Step.GPU {
		return true
	}
	return w.Policy != nil && w.Policy.Off == ""
}

// partly are the sources of which a part may have been read; it counts.
var partly = []Source{FromProcesses, FromMounts, FromNodes, FromSockets, FromHomes, FromDevices, FromDRM, FromKFD, FromNVIDIA, FromNet}

// findings runs one check.
func (c check) findings(w *world, waivers []Waiver, used []bool) []Finding {
	var all []found
	whole := true
	for _, source := range c.needs {
		if cause, ok := w.Unread[source]; ok {
			whole = whole && slices.Contains(partly, source)
			fix := []string{"let the hook read " + string(source) + ", or run it in a container whose engine shows it"}
			if source == FromNodes {
				fix = []string{"mount volumes on the host with nosuid and nodev, which a bind mount then has too: there no device node opens, and none is looked for"}
			}
			all = append(all, found{
				what:    fmt.Sprintf("not measured: %s: %s", escape.Text(string(source)), escape.Text(cause)),
				fix:     fix,
				unknown: true,
			})
		}
	}
	if whole {
		all = append(all, c.run(w)...)
	}
	var findings []Finding
	var together []found
	for _, one := range all {
		f := c.finding(w, one)
		for i, waiver := range waivers {
			if waiver.ID == c.id && c.accepts(waiver, one, w) {
				used[i] = true
				f.Waived = waiver.Reason
			}
		}
		if f.Waived == "" && c.all != "" && !one.unknown && one.as == 0 {
			together = append(together, one)
			continue
		}
		findings = append(findings, f)
	}
	if len(together) > 0 {
		var whats, matches []string
		for _, one := range together {
			whats, matches = append(whats, one.what), append(matches, one.match)
		}
		one := together[0]
		one.what, one.match = fmt.Sprintf(c.all, strings.Join(first(whats, cmp.Or(c.most, 16)), ", ")), strings.Join(matches, ", ")
		findings = slices.Insert(findings, 0, c.finding(w, one))
	}
	return findings
}

// finding is one found thing, with what the check says of all.
func (c check) finding(w *world, one found) Finding {
	f := Finding{
		ID: c.id, Severity: c.severity, Unknown: one.unknown, What: one.what, Match: one.match, Why: c.why, Fix: one.fix,
		Machine: c.machine, Early: c.early, step: one.step,
	}
	if one.as != 0 {
		f.Severity = one.as
	}
	if one.why != "" {
		f.Why = one.why
	}
	if c.about == container && w.Host != "" {
		f.Severity, f.expected = Info, true
	}
	return f
}

// accepts tells whether a waiver of the check's ID covers a finding.
func (c check) accepts(w Waiver, one found, world *world) bool {
	switch {
	case c.waive == never, c.waive == matching && w.Match == "", c.only != "" && w.Match != c.only:
		return false
	case !w.Until.IsZero() && !world.Now.Before(w.Until.AddDate(0, 0, 1)): // the last day counts whole
		return false
	}
	return w.Match == "" || w.Match == one.match
}

func unusedWaiver(w Waiver, d Demand) Finding {
	what := "the waiver of " + w.ID
	if w.Match != "" {
		what += " for " + escape.Text(w.Match)
	}
	if !w.Until.IsZero() && !d.Now.Before(w.Until.AddDate(0, 0, 1)) {
		what += " ended on " + w.Until.Format("2006-01-02")
	} else {
		what += " covers nothing that was found"
	}
	return Finding{ID: "policy.waiver", Severity: Warn, What: what, Why: "a waiver that is not needed hides what comes later",
		Fix: []string{"take it out of the policy, or give it the evidence and the date it needs"}}
}

// elsewhere is the report of a system on which nothing can be measured.
func elsewhere(platform string, d Demand) Report {
	if d.Host != "" || d.Advice {
		r := Report{Notes: append(d.reasons(), "nothing is measured on "+platform)}
		if d.Step.GPU || d.Step.MinVRAMMiB > 0 {
			r.Findings = []Finding{{ID: "gpu.missing", Severity: Deny, Unknown: true, Machine: true, step: true,
				What: "the step demands a GPU, which can't be measured on " + platform, Why: "a step that needs a GPU must not run without one",
				Fix: []string{"send the step to agents on Linux, by its agents: rules"}}}
		}
		return r
	}
	return Report{Findings: []Finding{{ID: "probe.broken", Severity: Deny, Unknown: true, Early: true,
		What: "a container's walls can't be measured on " + platform,
		Why:  "nobody knows what a job here can reach",
		Fix:  []string{"isolation: {expect: host, reason: \"…\"}   # in config.yml, if nobody else's jobs run on this machine"}}}}
}

// access is the kernel's answer for a number. On a machine of one trust level a
// device without a node is out of reach, whoever could make one.
func (w *world) access(n devnode.Number) devnode.Access {
	if r, _ := w.Readings.Of(n); w.Host != "" && r.Nodes == nil {
		return devnode.Access{Read: devnode.Absent, Write: devnode.Absent}
	}
	return w.Access(n)
}

// nodes are the paths of a number.
func (w *world) nodes(n devnode.Number) []string {
	r, _ := w.Readings.Of(n)
	return r.Nodes
}

// major is the number of the first major of that name, as the host has it now.
func (w *world) major(name string) (uint32, bool) {
	for _, m := range w.Majors {
		if !m.Block && m.Name == name {
			return m.Number, true
		}
	}
	return 0, false
}

// Want is what is read on demand alone.
type Want struct {
	SMI bool // ask nvidia-smi, which takes from 20 ms to seconds
}

// Want is what Check needs for this demand.
func (d Demand) Want() Want {
	p := d.Policy
	if p == nil || p.Off != "" || p.Vendor != VendorNVIDIA || d.Early {
		return Want{}
	}
	return Want{SMI: p.Busy == BusyWarn || p.Busy == BusyDeny || d.Step.BusyDeny || d.Step.MinVRAMMiB > 0}
}
