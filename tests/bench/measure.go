//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Each contender runs as often as this, and a slow one as often as it can within
// its budget for one N, but at least fewest times.
const (
	most   = 40
	fewest = 5
	budget = 40 * time.Second
)

// A sample is what was measured for one N: for each round and contender a time,
// 0 where it did not run.
type sample struct {
	n      int
	names  []string
	rounds []map[string]time.Duration
	peak   map[string]int // KiB
}

// measure runs all contenders for n secrets round by round, each round in another
// order, so that what else the machine does meets them all.
func (w *workplace) measure(ctx context.Context, n int, contenders []contender) (sample, error) {
	s := sample{n: n, peak: map[string]int{}}
	runs := map[string]int{}
	for _, c := range contenders {
		took, err := w.time(c) // also warms the caches
		if err != nil {
			return s, err
		}
		if err := c.check(); err != nil {
			return s, err
		}
		s.names = append(s.names, c.name)
		runs[c.name] = min(most, max(fewest, int(budget/took)))
	}
	for round := range most {
		times := map[string]time.Duration{}
		for _, i := range rand.Perm(len(contenders)) {
			c := contenders[i]
			// Spread evenly over the rounds.
			if (round*runs[c.name])/most == ((round+1)*runs[c.name])/most {
				continue
			}
			took, err := w.time(c)
			if err != nil {
				return s, err
			}
			if err := c.check(); err != nil {
				return s, err
			}
			times[c.name] = took
		}
		s.rounds = append(s.rounds, times)
	}
	for _, c := range contenders {
		if strings.HasPrefix(c.name, "bash") {
			continue // many processes, one after the other
		}
		var err error
		if s.peak[c.name], err = w.peak(ctx, c); err != nil {
			return s, err
		}
	}
	return s, nil
}

// time runs a contender once and returns how long its process took, from fork to
// exit, as the agent waits for it.
func (w *workplace) time(c contender) (time.Duration, error) {
	w.api.forget()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	stderr, err := os.Create(w.in("stderr"))
	if err != nil {
		return 0, err
	}
	defer stderr.Close()
	runtime.GC() // now rather than beside the contender
	attr := &os.ProcAttr{Dir: w.dir, Env: c.env, Files: []*os.File{null, null, stderr}}
	if c.user != 0 {
		id := uint32(c.user)
		attr.Sys = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	started := time.Now()
	process, err := os.StartProcess(c.args[0], c.args, attr)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	state, err := process.Wait()
	took := time.Since(started)
	if err == nil && state.ExitCode() != c.status {
		text, _ := os.ReadFile(stderr.Name())
		err = fmt.Errorf("%s\n%s", state, text)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	return took, nil
}

// peak is the largest peak memory of several runs, in KiB.
func (w *workplace) peak(ctx context.Context, c contender) (int, error) {
	largest := 0
	for range 5 {
		w.api.forget()
		cmd := exec.CommandContext(ctx, w.tools["spawn"], c.args...)
		cmd.Env, cmd.Dir = c.env, w.dir
		out, err := cmd.Output()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.name, err)
		}
		kib, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			return 0, err
		}
		largest = max(largest, kib)
	}
	return largest, nil
}

// ratio is the median of a's times divided by b's, pair by pair.
func (s sample) ratio(a, b string) float64 {
	var ratios []float64
	for _, round := range s.rounds {
		if round[a] > 0 && round[b] > 0 {
			ratios = append(ratios, float64(round[a])/float64(round[b]))
		}
	}
	return median(ratios)
}

// times are the median and the minimum of a contender, in milliseconds.
func (s sample) times(name string) (middle, least float64) {
	var all []float64
	for _, round := range s.rounds {
		if round[name] > 0 {
			all = append(all, float64(round[name])/float64(time.Millisecond))
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	return median(all), slices.Min(all)
}

// median is 0 where there is nothing.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
