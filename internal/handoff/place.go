package handoff

import "github.com/juliagpu/secrets-buildkite-plugin/internal/job"

// folder is where hand-offs lie; jobs is the folder in it that holds one for
// each job. No flag or variable changes that.
const (
	folder   = "/run/juliagpu-secrets"
	jobs     = "job"
	fileName = "handoff"
	halfName = "half"
	usedName = "used"
)

// A Store is the folder of hand-offs, as one program sees it.
type Store struct {
	// By is a user who may own the folder and what is in it besides root; 0:
	// nobody. It is for agents that are not root and whose jobs have no user of
	// their own.
	By int

	path string       // empty: folder; tests have one of their own
	step func(string) // called between any two steps of Leave; tests end the process there
}

// A User is one that a job runs as.
type User struct{ UID, GID int }

func (s Store) folder() string {
	if s.path == "" {
		return folder
	}
	return s.path
}

func (s Store) at(name string) {
	if s.step != nil {
		s.step(name)
	}
}

// Jobs returns the directory that holds a directory for each hand-off.
func (s Store) Jobs() string { return s.folder() + "/" + jobs }

// Path returns the directory of a job's hand-off, for messages.
func (s Store) Path(id job.ID) string { return s.Jobs() + "/" + id.String() }
