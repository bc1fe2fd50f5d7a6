package job

import (
	"errors"
	"path"
	"strings"
)

// VarEnvFile names the file that holds the job's environment. The agent sets it
// in pre-bootstrap and in every process of the job, whatever the job says
// (v3.81.0 agent/job_runner.go, createEnvironment).
const VarEnvFile = "BUILDKITE_ENV_FILE"

// VarID is the job's own word in every process of the job, and the agent's in
// pre-bootstrap, from agents newer than v3.81 on.
const VarID = "BUILDKITE_JOB_ID"

// ErrNoID says that the agent states no job id, or states one that is none.
var ErrNoID = errors.New("the agent states no job id")

// An ID is a job's id: a UUID as Buildkite writes it, so that it may be part of
// a path. The zero ID is none.
type ID struct{ text string }

func (id ID) String() string { return id.text }

// ParseID reads a UUID in its one spelling: 36 bytes, lower case.
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return ID{}, ErrNoID
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		digit := '0' <= s[i] && s[i] <= '9' || 'a' <= s[i] && s[i] <= 'f'
		if dash && s[i] != '-' || !dash && !digit {
			return ID{}, ErrNoID
		}
	}
	return ID{s}, nil
}

// StatedID returns the job id that the agent states in an environment, a list of
// NAME=value: it names the job's file job-env-ID and digits. BUILDKITE_JOB_ID is
// not asked: in a process of the job it is the job's own word.
func StatedID(environ []string) (ID, error) {
	var file string
	for _, line := range environ {
		if value, ok := strings.CutPrefix(line, VarEnvFile+"="); ok {
			if file != "" {
				return ID{}, ErrNoID
			}
			file = value
		}
	}
	// A job's variable may be named BUILDKITE_ENV_FILE=/x: its entry can take the
	// place of the agent's own, and always holds a second "=".
	if strings.Contains(file, "=") {
		return ID{}, ErrNoID
	}
	return IDOfFile(file, "job-env-")
}

// IDOfFile returns the id in the name of one of the agent's files: the prefix, the
// id, and the digits that os.CreateTemp appends.
func IDOfFile(file, prefix string) (ID, error) {
	rest, ok := strings.CutPrefix(path.Base(file), prefix)
	if !ok || len(rest) < 37 || strings.Trim(rest[36:], "0123456789") != "" {
		return ID{}, ErrNoID
	}
	return ParseID(rest[:36])
}
