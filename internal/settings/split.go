package settings

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gate"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// Split opens in the pre-bootstrap hook, before a process of the job exists.
const Split Mode = "split"

// Users are those that jobs run as. The zero Users: jobs have no users of their
// own, and run as the agent's.
type Users struct {
	Trusted User // builds that may have secrets
	Other   User // all others, so that no cache crosses
}

// A User is one that jobs run as.
type User struct {
	Name string // as the file has it: a name, a number, or UID:GID; empty: none
	// Load looks these up. From Parse they are 0, unless Name states both.
	UID, GID int
}

// Of returns the user that a build's job runs as.
func (u Users) Of(trusted bool) User {
	if trusted {
		return u.Trusted
	}
	return u.Other
}

// Reject says which jobs must not start at all.
type Reject struct {
	Repositories []trust.Pattern // of the pipeline, or of a pull request's head
	Pipelines    []string        // organization/pipeline
	Variables    []string        // groups of variables, see package gate
}

func (s *Settings) readUsers(v strict.Value) error {
	err := v.Fields(
		strict.Key("trusted", strict.Into(&s.Users.Trusted, readUser)),
		strict.Key("other", strict.Into(&s.Users.Other, readUser)),
	)
	if err != nil {
		return err
	}
	for _, u := range []struct{ key, name string }{{"trusted", s.Users.Trusted.Name}, {"other", s.Users.Other.Name}} {
		if u.name == "" {
			return v.Below(u.key).Errorf("name both users, or leave users out", "missing")
		}
	}
	if s.Users.Trusted.Name == s.Users.Other.Name {
		return v.Errorf("make a second user: caches of jobs without secrets must not reach jobs with them", "one user for both")
	}
	return nil
}

// readUser reads a name, a number, or UID:GID.
func readUser(v strict.Value) (User, error) {
	const hint = "write a user's name, or its numbers as in \"4711:4711\""
	text, err := v.Word()
	if err != nil {
		return User{}, err
	}
	u := User{Name: text}
	uid, gid, both := strings.Cut(text, ":")
	if both {
		if u.UID, err = id(uid); err == nil {
			u.GID, err = id(gid)
		}
		if err != nil {
			return User{}, v.Errorf(hint, "neither a name nor UID:GID")
		}
	}
	if n, err := id(uid); err == nil && n == 0 || uid == "root" {
		return User{}, v.Errorf("make a user for jobs; where they must be root, leave users out", "jobs as root")
	}
	// What passwd(5) can hold: anything else is a mistake.
	if strings.ContainsAny(uid, "/ \t") || uid == "" || uid[0] == '-' {
		return User{}, v.Errorf(hint, "neither a name nor UID:GID")
	}
	return u, nil
}

// id reads a user's or group's number in its one spelling.
func id(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("not a number")
	}
	return int(n), nil
}

// look finds the numbers of a user.
func (u *User) look(key string) error {
	failed := func(hint, format string, args ...any) error {
		return &strict.Error{Key: "users." + key, Cause: fmt.Sprintf(format, args...), Remedy: hint}
	}
	if u.UID != 0 { // the file states both
		return nil
	}
	find := user.Lookup
	if _, err := id(u.Name); err == nil {
		find = user.LookupId
	}
	found, err := find(u.Name)
	if err != nil {
		return failed("make the user, or write both numbers, as in \"4711:4711\"", "no such user on this machine")
	}
	if u.UID, err = id(found.Uid); err == nil {
		u.GID, err = id(found.Gid)
	}
	switch {
	case err != nil:
		return failed("", "its numbers make no sense")
	case u.UID == 0:
		return failed("make a user for jobs; where they must be root, leave users out", "jobs as root")
	}
	return nil
}

// look finds the numbers of both users, which must differ.
func (u *Users) look() error {
	if *u == (Users{}) {
		return nil
	}
	if err := u.Trusted.look("trusted"); err != nil {
		return err
	}
	if err := u.Other.look("other"); err != nil {
		return err
	}
	failed := func(cause, hint string) error { return &strict.Error{Key: "users", Cause: cause, Remedy: hint} }
	switch {
	case u.Trusted.UID == u.Other.UID:
		return failed("one user for both", "make a second user: caches of jobs without secrets must not reach jobs with them")
	case u.Trusted.GID == u.Other.GID:
		// The group keeps one user out of the other's directories.
		return failed("one group for both", "make a group for each: caches of jobs without secrets must not reach jobs with them")
	case u.Trusted.GID == 0 || u.Other.GID == 0:
		return failed("a user in root's group", "make a group for each: what root's group may do is not for jobs")
	}
	return nil
}

func (s *Settings) readReject(v strict.Value) error {
	return v.Fields(
		strict.Key("repositories", strict.Into(&s.Reject.Repositories, readPatterns)),
		strict.Key("pipelines", func(v strict.Value) error {
			return v.Items(func(v strict.Value) error {
				text, err := v.Text()
				if err == nil && !names.IsPipeline(text) {
					err = v.Errorf("take both from the pipeline's address, buildkite.com/organization/pipeline", "not organization/pipeline, both as slugs")
				}
				s.Reject.Pipelines = append(s.Reject.Pipelines, text)
				return err
			})
		}),
		strict.Key("variables", func(v strict.Value) error {
			return v.Items(func(v strict.Value) error {
				group, err := v.Choice("not a group of variables", gate.Groups()...)
				if err == nil && slices.Contains(s.Reject.Variables, group) {
					err = v.Errorf("keep one", "listed twice")
				}
				s.Reject.Variables = append(s.Reject.Variables, group)
				return err
			})
		}),
	)
}

// checkMode says what is missing, or too much, for the mode.
func (s Settings) checkMode(root strict.Value) error {
	missing := func(key, hint string) error { return root.Below(key).Errorf(hint, "missing") }
	own := s.Users != Users{}
	switch {
	case s.Mode == "":
		return missing("mode", "write mode: split, or mode: direct on an agent on which no fork's build runs")
	case s.Mode == Direct && s.Reason == "":
		return missing("reason", "say in one line why no fork's build runs on this agent")
	case s.Mode == Direct && own:
		return root.Below("users").Errorf("leave them out, or write mode: split", "direct mode has no users of its own for jobs")
	case s.Identities == nil:
		return missing("identities", "write a list such as - file: /run/juliagpu-secrets/identity")
	case s.Mode == Split && !own && !s.Consume:
		return missing("consume", "write consume: true, or users of their own for jobs: else every job can read the identity")
	}
	return nil
}

// Installed finds and loads the file for the running program, whose binary must
// be as trustworthy as the file: who can change the one need not change the
// other. The error is one of Find's, Load's or rootfile's.
func Installed(uid int) (Settings, error) {
	executable, err := os.Executable()
	if err != nil {
		return Settings{}, err
	}
	path, err := Find(executable)
	if err != nil {
		return Settings{}, err
	}
	s, err := Load(path, uid)
	if err != nil {
		return Settings{}, err
	}
	rule := rootfile.Rule{User: uid}
	if s.Mode == Split {
		rule.User = 0
	}
	binary, err := rootfile.Check(executable, rule)
	if err != nil {
		return Settings{}, err
	}
	s.Changeable = s.Changeable || binary.Changeable
	return s, nil
}
