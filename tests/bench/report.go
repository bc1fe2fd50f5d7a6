//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// results are all that was measured.
type results struct {
	samples []sample        // in the order of numbers
	logs    map[int]float64 // number of secrets to MB/s
}

// table is the result as text, 80 columns wide at most.
func (r results) table() string {
	var b strings.Builder
	row := func(title string, cell func(s sample) string) {
		fmt.Fprintf(&b, "  %-24s", title)
		for _, s := range r.samples {
			fmt.Fprintf(&b, "%13s", cell(s))
		}
		b.WriteByte('\n')
	}
	head := func(title string) {
		fmt.Fprintf(&b, "%-26s", title)
		for _, s := range r.samples {
			fmt.Fprintf(&b, "%13s", fmt.Sprint("N = ", s.n))
		}
		b.WriteByte('\n')
	}
	head("Times as long as the floor")
	for _, pair := range [][2]string{{separate, floor}, {bundle, floorBundle}, {hybrid, floor}} {
		row(pair[0], func(s sample) string { return fmt.Sprintf("%.2f", s.ratio(pair[0], pair[1])) })
	}
	head("\nTimes as long as the hook")
	for _, name := range []string{bashOpenSSL, bashAge, sopsExec} {
		if slices.Contains(r.samples[0].names, name) {
			row(name, func(s sample) string {
				return fmt.Sprintf("%.*f", digits(s.ratio(name, separate)), s.ratio(name, separate))
			})
		}
	}
	head("\nMilliseconds, with minimum")
	for _, name := range r.samples[0].names {
		row(name, func(s sample) string {
			middle, least := s.times(name)
			return fmt.Sprintf("%.*f (%.*f)", digits(middle), middle, digits(least), least)
		})
	}
	head("\nPeak memory, MiB")
	for _, name := range []string{separate, bundle, hybrid, floor} {
		row(name, func(s sample) string { return fmt.Sprintf("%.1f", float64(s.peak[name])/1024) })
	}
	fmt.Fprintf(&b, "\n%-26s", "A log of 20 MB")
	for _, n := range masked {
		fmt.Fprintf(&b, "%13s", fmt.Sprint(n, " masked"))
	}
	fmt.Fprintf(&b, "\n  %-24s", "MB/s")
	for _, n := range masked {
		fmt.Fprintf(&b, "%13.*f", digits(r.logs[n]), r.logs[n])
	}
	b.WriteByte('\n')
	if !slices.Contains(r.samples[0].names, sopsExec) {
		b.WriteString("\nsops is left out: it could not be built.\n")
	}
	return b.String()
}

// digits is how many digits behind the point a number deserves.
func digits(x float64) int { return max(0, 1-int(math.Log10(max(x, 1)))) }

// machine describes where this runs, without its name.
func machine() string {
	model := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel := "Linux"
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		release, _, _ := strings.Cut(unix.ByteSliceToString(uts.Release[:]), "-")
		kernel += " " + release
	}
	return fmt.Sprintf("%d cores (%s), %s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

const splitHeading = "\n## What split mode adds\n"

// parts are docs/bench.md up to split mode, up to containers, and from there on.
func parts(page string) (first, second, third string) {
	page, third, ok := strings.Cut(page, containersHeading)
	if ok {
		third = containersHeading + third
	}
	first, second, ok = strings.Cut(page, splitHeading)
	if ok {
		second = splitHeading + second
	}
	return first, second, third
}

// splitPage is the second part of docs/bench.md.
func splitPage(table, machine string) string {
	return splitHeading + `
Written by ` + "`make bench-split`" + `, as all of this page by ` + "`make bench`" + `, as root: do not edit. ` + machine + `.

` + "```" + `
` + table + "```" + `

- Both modes run in one go, interleaved, ` + fmt.Sprint(splitRounds) + ` times for each N, with the same values, and every run has delivered them. A time is one
  process from fork to exit; a difference is the median of the differences within the rounds.
- The hooks are those of ` + "`make install`" + `, in both modes: in direct mode **pre-bootstrap** only turns jobs away that could replace the hooks. The
  last row is for an agent that has ` + "`environment`" + ` alone.
- In split mode **pre-bootstrap** reads the file of an agent v3.81, looks for processes that are left, opens, and leaves a hand-off; **environment** takes
  it as the job's user. **launch** becomes the agent's bootstrap in the same process: here one that ends at once, whose own time is taken off.
- The processes are those of a container with one agent; **busy** is beside 100 more, as on a host: pre-bootstrap looks at each.
- The walls are the host's here (` + "`isolation: {expect: host, …}`" + `), so that the early checks have nothing to do. The lines below the table say
  what they cost elsewhere, in either mode.
- On a machine with other work both modes take longer, and the difference grows with them.
`
}

// page is the first part of docs/bench.md.
func page(table, machine string) string {
	return `# How fast the hook is

Written by ` + "`make bench`" + `: do not edit. ` + machine + `.

![Times as long as the floor, for 1 to 200 secrets](bench.svg)

` + "```" + `
` + table + "```" + `

- N secrets of 40 bytes each. All contenders run in one go, in rounds, each round in another order; a time is one process from fork to
  exit, and a ratio the median of the ratios within the rounds. ` + fmt.Sprint(most) + ` rounds; the slow ones run less often, at least ` + fmt.Sprint(fewest) + ` times.
- **The floor** is a static Go program with the hook's own Job API client that finds names, values and masks ready in a file and makes the
  very same exchanges, recorded from the hook, in the same environment: what is above it is configuration, trust, identity, opening and
  the report. The hook opens N sealed values one by one (X25519), one bundle of N (X25519), or N post-quantum ones (hybrid).
- **bash, OpenSSL** decrypts the older RSA and AES form with three processes of openssl a secret, **bash, age -d** starts age for each,
  **sops exec-env** opens one file with N values. None of them masks anything, and none pays for the shell in which an agent runs a
  shell hook.
- The Job API here is HTTP's own server in the process that starts the hook, as in the agent.
- **A log of 20 MB** is printed by a job on a real agent, after the hook has masked the values and their encodings: about five masks a
  secret. The agent compares every byte of a log with all masks.
`
}
