// Package settings reads the operator's file.
//
// The file decides who gets secrets, so it is read strictly: what this version
// does not know for certain is an error with its place, never a default. Every
// key is described in the README.
package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// MaxIdentities is the largest number of identity files.
const MaxIdentities = 16

// ErrNone says that the operator has written no file: nothing may be opened.
var ErrNone = errors.New("no configuration")

// Settings are what the operator's file says.
type Settings struct {
	Path       string // the file
	Changeable bool   // the user that Load was given could change the file

	Mode   Mode
	Reason string // why the mode is right; one printable line, shown in every job; may be empty in split mode

	Isolation  Isolation
	Identities []IdentityFile // newest first; 1 to MaxIdentities
	Consume    bool           // remove the files of Credentials before a job's code runs
	ScopeAny   bool           // open what is sealed for any repository, or has no label
	Rules      trust.Rules
	Older      Older
	Attest     Attest
	GPU        GPU
	Waivers    []gpu.Waiver // of findings, besides those of the policy
	Users      Users
	Reject     Reject
}

// A GPU is what the operator's file says of the policy for GPUs: one of the two,
// or nothing. Settings.Policy goes where it leads.
type GPU struct {
	Policy *gpu.Policy // written in the file itself
	File   string      // where it is; absolute and clean
}

// A Mode says which hook opens secrets.
type Mode string

// Direct opens in the environment hook, as the job's user. It is for agents on
// which no fork's build runs.
const Direct Mode = "direct"

// Isolation is what stands between a job and its neighbours.
type Isolation struct {
	Expect Boundary
	Reason string // one printable line, shown in every job; only with Host
	Report bool   // keep what was measured as an artifact of each build
}

// A Boundary is what a job can't leave.
type Boundary string

const (
	Container Boundary = "container" // each job has a container of its own, which is checked
	Host      Boundary = "host"      // a machine of one trust level without neighbours
)

// An IdentityFile is one file that holds age identities.
type IdentityFile struct {
	Path    string // absolute and clean
	Retired bool   // still opens, with a warning
}

const fileName = "config.yml"

// systemFile is where the file is looked for after the program's own folder.
const systemFile = "/etc/juliagpu-secrets/" + fileName

// Find returns the path of the operator's file for a program: config.yml in the
// folder of its executable, whose links are followed, else in
// /etc/juliagpu-secrets. The error wraps ErrNone where there is neither; both is
// an error too. It does not say whether the file can be trusted.
func Find(executable string) (string, error) { return find(executable, systemFile) }

func find(executable, system string) (string, error) {
	executable, err := filepath.EvalSymlinks(executable)
	if err != nil {
		return "", fmt.Errorf("folder of the running program: %w", err)
	}
	own := filepath.Join(filepath.Dir(executable), fileName)
	var found []string
	for _, path := range []string{own, system} {
		switch _, err := os.Lstat(path); {
		case err == nil:
			found = append(found, path)
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: neither %s nor %s is there", ErrNone, own, system)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("two configurations, %s and %s: remove one", own, system)
}

// hook is a program that reads the file, where it is installed.
const hook = "/usr/lib/juliagpu-secrets/pre-command"

// FindInstalled is Find for a program that is not one of the hooks: it returns
// the path of the file that the hooks of this machine read. Where none are
// installed, that is the one in /etc/juliagpu-secrets.
func FindInstalled() (string, error) { return findInstalled(hook, systemFile) }

func findInstalled(hook, system string) (string, error) {
	path, err := find(hook, system)
	if !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	_, err = os.Lstat(system)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: neither %s nor the hook %s is there", ErrNone, system, hook)
	}
	return system, err
}

// Load reads and parses the file, which root or uid owns, and which nobody else
// could have changed. The error is a *strict.Error, or wraps
// rootfile.ErrUntrusted or fs.ErrNotExist.
func Load(path string, uid int) (Settings, error) {
	text, changeable, err := read(path, uid)
	if err != nil {
		return Settings{}, err
	}
	s, err := Parse(text)
	if err == nil {
		err = s.check(runtime.GOOS)
	}
	if err == nil && s.Mode == Split && changeable {
		err = &strict.Error{Key: "mode", Cause: fmt.Sprintf("split, but the user of the hooks (uid %d) could change this file", uid),
			Remedy: "chown root it, and every folder on the way to it"}
	}
	if err == nil {
		err = s.Users.look()
	}
	if err != nil {
		return Settings{}, in(path, err)
	}
	s.Path, s.Changeable = path, changeable
	if p := s.GPU.Policy; p != nil {
		p.Path, p.Changeable = path, changeable
	}
	return s, nil
}

// read returns the text of a file that root or uid owns, and tells whether uid
// and not root alone could change it.
func read(path string, uid int) (text []byte, changeable bool, err error) {
	f, owner, err := rootfile.Open(path, rootfile.Rule{User: uid})
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, strict.MaxFile+1))
	return text, owner.Changeable, err
}

// in puts the path of the file before the place of an error in it.
func in(path string, err error) error {
	var e *strict.Error
	if errors.As(err, &e) {
		e.Path = path
	}
	return err
}

// check compares the file with the system it is on.
func (s Settings) check(goos string) error {
	if goos != "linux" && s.Mode == Split {
		return &strict.Error{Key: "mode", Cause: "split mode is for Linux", Remedy: "on an agent on which no fork's build runs, write mode: direct, and why as reason"}
	}
	if goos != "linux" && s.Isolation.Expect == Container {
		return &strict.Error{Key: "isolation", Cause: "a container's walls can't be checked on " + goos,
			Remedy: "write isolation: {expect: host, reason: …} if nobody else's jobs run on this machine"}
	}
	return nil
}
