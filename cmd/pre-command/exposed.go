package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/ancestors"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/handoff"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// exposed finds what of the agent's own secrets a process of this job can read,
// by trying as one of them: this hook runs as the job's user.
//
// In direct mode the operator has said why that is right, and every job prints
// the reason; what should have been consumed, or taken, is refused there, too.
func exposed(config settings.Settings) []gpu.Finding {
	var all []gpu.Finding
	add := func(severity gpu.Severity, what string, fix ...string) {
		if severity == gpu.Info {
			what += "; mode " + string(config.Mode)
			if config.Reason != "" {
				what += ": " + config.Reason
			}
		}
		all = append(all, gpu.Finding{ID: "secrets.readable", Severity: severity, What: what,
			Why: "whoever has it opens every secret of every repository, or takes jobs as this agent", Fix: fix})
	}
	accepted := gpu.Deny
	if config.Users == (settings.Users{}) { // direct mode, or split where jobs must be the agent's own user
		accepted = gpu.Info
	}
	for _, file := range config.Credentials() {
		if unix.Access(file.Path, unix.R_OK) != nil {
			continue
		}
		if config.Consume {
			add(gpu.Deny, "the "+file.Kind+" "+escape.Text(file.Path)+" should be gone by now, and this job can read it",
				"put it into a tmpfs directory of the container, which the unit fills at each start, and see the group Secrets above")
			continue
		}
		add(accepted, "this job can read the "+file.Kind+" "+escape.Text(file.Path),
			"chown root:root and chmod 600 it, and run jobs as another user")
	}
	// Of this job nothing is left, and others are out of reach: only who may list
	// the directory finds any.
	left, _ := filepath.Glob(filepath.Join(handoff.Store{}.Jobs(), "*", "*"))
	for _, file := range left {
		if unix.Access(file, unix.R_OK) == nil {
			add(gpu.Deny, "this job can read a hand-off, "+escape.Text(file), "see the agent's log for the job that it was for; restarting the agent removes it")
		}
	}
	for _, pid := range ancestors.PIDs() {
		if where := token(pid); where != "" {
			add(accepted, fmt.Sprintf("this job can read the agent's registration token in %s of process %d", where, pid),
				"give the agent its token in a file that root alone reads, and run jobs as another user")
			break
		}
	}
	return all
}

// token says where a process shows an agent's registration token, or nothing. It
// looks and keeps nothing.
func token(pid int) string {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	environ, err := read(dir + "environ")
	if err == nil {
		for entry := range bytes.SplitSeq(environ, []byte{0}) {
			if value, ok := bytes.CutPrefix(entry, []byte("BUILDKITE_AGENT_TOKEN=")); ok && len(value) > 0 {
				return "the environment"
			}
		}
	}
	arguments, err := read(dir + "cmdline")
	if err == nil {
		for _, argument := range strings.Split(string(arguments), "\x00") {
			if argument == "--token" || argument == "-token" || strings.HasPrefix(strings.TrimLeft(argument, "-"), "token=") {
				return "the arguments"
			}
		}
	}
	return ""
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 256<<10))
}
