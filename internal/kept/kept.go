//go:build unix

// Package kept keeps the caches of an agent's jobs from one container to the next,
// and nothing else that a job leaves.
//
// What jobs can write to is a file system of its own: a Room, an ext4 in a file of
// the host, as large as the operator gave it, mounted with nosuid and nodev. Before
// each start the host empties it, but for this:
//
//	/var/lib/juliagpu-secrets    in the container
//	├── kept                     root, 0700: no job gets in
//	│   ├── lent                 whose caches the job of this start has: a line, UID KEY
//	│   └── 4711                 a verdict, by its user
//	│       └── KEY              an Owner, by a hash
//	│           ├── cache        the user's
//	│           └── git-mirrors
//	└── 4711                     package home; lent caches take their places there
//
// So what the job of a fork leaves reaches no trusted job, and what a repository's
// leaves no other's. The directory above each is root's, so that no link can take its
// place.
package kept

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
)

// note says which caches are lent.
const note = "lent"

var (
	// folder is where caches wait.
	folder = filepath.Base(home.Kept)
	// parts are the directories of a user that are kept.
	parts = []string{filepath.Base(home.Of(0).Cache), filepath.Base(home.Of(0).Mirrors)}
)

// A Room is where an agent's jobs can write.
type Room struct {
	Image string // the file that it is in
	Dir   string // where it is mounted
	Size  int64  // bytes, at least Least
}

// Jobs is the directory that the container gets. Not the file system's own root: that
// a container has a whole one of the host's is what its checks refuse (host.mounts).
func (r Room) Jobs() string { return filepath.Join(r.Dir, "jobs") }

// Least is the smallest room.
const Least = 32 << 20

// ErrBusy says that somebody still uses the room: a container, as a rule.
var ErrBusy = errors.New("still in use")

// An Owner is whose jobs share caches.
type Owner struct {
	Trusted    bool // with the user's number: an operator may give the two users each other's
	Repository string
	// Head is the repository that a pull request is from, where it is another: one
	// contributor's fork leaves nothing to another's, nor to the repository's own jobs
	// that are not trusted, whose results a trusted one may use.
	Head string
}

// Of returns the owner of a job's caches; the zero Owner: nobody can tell. Of a trusted
// job the facts are true. What others claim leads to caches of jobs that are not trusted.
func Of(facts job.Facts, trusted bool) Owner {
	name, err := facts.Repository()
	if err != nil || facts.Doubt != "" || len(facts.Twice) > 0 {
		return Owner{}
	}
	o := Owner{Trusted: trusted, Repository: name.String()}
	if trusted || !facts.IsPullRequest() {
		return o
	}
	head, err := facts.Head()
	switch {
	case err != nil:
		return Owner{}
	case head != name:
		o.Head = head.String()
	}
	return o
}

// key is the name of the owner's directory; empty: nobody's. No repository's name
// holds a line break.
func (o Owner) key() string {
	if o == (Owner{}) {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%t\n%s\n%s\n", o.Trusted, o.Repository, o.Head))
	return hex.EncodeToString(sum[:16])
}

// isKey tells whether a text is one of an owner's.
func isKey(text string) bool {
	return len(text) == 32 && strings.Trim(text, "0123456789abcdef") == ""
}

// Lend puts the caches of a user's jobs of one owner where package home has them. It
// does so for the first job of a container; where another follows, of another owner
// or of nobody, none of them are kept. It needs root, before a process of the job's
// runs. Where the machine keeps nothing it does nothing.
func Lend(uid int, to Owner) error { return lend(home.Lasting, uid, to.key()) }

func lend(root string, uid int, key string) error {
	path := filepath.Join(root, folder, note)
	if _, err := os.Lstat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if key == "" {
		if err := os.Truncate(path, 0); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	own := filepath.Join(root, folder, strconv.Itoa(uid), key)
	// Now, since the job may leave no inode for it.
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	line := fmt.Sprintf("%d %s\n", uid, key)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if same, err := os.ReadFile(path); err == nil && string(same) == line {
			return nil
		}
		return os.Truncate(path, 0)
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line); err != nil {
		f.Close()
		return errors.Join(err, os.Truncate(path, 0))
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, part := range parts {
		from, to := filepath.Join(own, part), filepath.Join(root, strconv.Itoa(uid), part)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// rmdir(2): what agent-startup made is empty. What is not was a job's.
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
	}
	return nil
}

// takeBack puts what was lent back, if it still is what it was: a directory of that
// user's. It can be done twice.
func takeBack(root string) error {
	path := filepath.Join(root, folder, note)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	user, name, ok := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
	uid, err := strconv.Atoi(user)
	if !ok || err != nil || uid <= 0 || !isKey(name) {
		return nil // half written, or of several
	}
	own := filepath.Join(root, folder, user, name)
	for _, part := range parts {
		from, to := filepath.Join(root, user, part), filepath.Join(own, part)
		if !isDir(from, uid) || !isDir(own, 0) {
			continue
		}
		if part == parts[1] {
			unlock(from)
		}
		// What is there was not lent, so this is newer.
		if err := remove(to); err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
	}
	return nil
}
