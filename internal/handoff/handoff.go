// Package handoff keeps one text for a job until the job's first hook takes it.
//
// Pre-bootstrap leaves one hand-off for each job, before a process of the job
// exists; environment takes it, as the job's user. It lies in memory:
//
//	/run/juliagpu-secrets/              root's, on tmpfs
//	    used                            a job has run here, see First
//	    job/                            root's, 0711: nobody else can list it
//	        0190b5c4-…/                 the job's user's, 0700
//	            handoff                 root's, 0440: what grant.Answer says
//
// The directory's owner is the user that the job runs as. Giving it away is the
// last step of Leave: whoever can enter it finds a whole hand-off or none.
package handoff

import "errors"

// Errors of hand-offs. Each is the machine's fault, or an attack: the job must
// not go on. The error is an *Error; none holds anything of its content.
var (
	ErrNone      = errors.New("no hand-off")             // nobody left one, or somebody took it
	ErrTwice     = errors.New("a second hand-off")       // a job's second one
	ErrUntrusted = errors.New("not a hand-off to trust") // somebody else could have written or read it
)

// An Error says what is wrong with a hand-off, and where.
type Error struct {
	Path  string
	Cause string

	hint string
	err  error // one of the above, or the kernel's
}

func (e *Error) Error() string { return e.Path + ": " + e.Cause }

func (e *Error) Unwrap() error { return e.err }

// Hint says what the operator can do, or nothing.
func (e *Error) Hint() string { return e.hint }

// maxText is the longest text, in bytes: a job's environment ends long before.
const maxText = 16 << 20
