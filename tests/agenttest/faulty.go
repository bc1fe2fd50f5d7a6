//go:build unix

package agenttest

import (
	"context"
	"path/filepath"
	"strings"
)

// Faults are the behaviours of a FaultyJobAPI, each about every request unless it
// says otherwise.
var Faults = map[string]string{
	"ok":         "works, but can't change the job's environment nor mask anything",
	"422":        "PATCH /env answers 422 and applies nothing",
	"500":        "PATCH /env answers 500",
	"redact-500": "POST /redactions answers 500",
	"slow":       "each answer takes 200 ms",
	"never":      "reads, and never answers",
	"close":      "closes the connection after the request",
	"garbage":    "answers what is not HTTP, and closes",
	"huge":       "answers with a body that never ends",
	"echo-wrong": "PATCH /env answers 200 with other names than were sent",
	"sibling":    "works as ok, but its socket belongs to a process that is no ancestor of the hook",
}

// A FaultyJobAPI is a bootstrap script that gives the job a Job API of its own,
// which misbehaves as Fault says. The socket lies where the agent's would, named by
// an ancestor of the hooks, so only its behaviour gives it away (but see
// "sibling"). Each connection leaves a file in Received with every byte that came
// over it; the directory exists once the API listens.
//
// It turns the agent's own Job API off for that job: v3.81 then leaves
// BUILDKITE_AGENT_JOB_API_SOCKET and _TOKEN as they are (BUILDKITE_AGENT_NO_JOB_API).
type FaultyJobAPI struct {
	Program  string // from BuildFaultyJobAPI
	Binary   string // the agent's, whose bootstrap it runs
	Fault    string // one of Faults
	Received string // directory that it makes
}

// BootstrapScript is the value for Agent.BootstrapScript. Paths with a quote or a
// dollar sign don't work.
func (f FaultyJobAPI) BootstrapScript() string {
	return "'" + strings.Join([]string{f.Program, f.Fault, f.Received, f.Binary}, "' '") + "'"
}

// BuildFaultyJobAPI builds the program of FaultyJobAPI into the directory dir.
func BuildFaultyJobAPI(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "faultyjobapi")
	return program, Build(ctx, "./tests/agenttest/faultyjobapi", program)
}
