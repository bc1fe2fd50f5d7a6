package observe

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// credential looks at one that must be private.
func (o *observer) credential(c *doctor.Credential) bool {
	_, err := rootfile.Check(o.path(c.Path), rootfile.Rule{User: o.UID, Private: true})
	switch {
	case o.unseen(c.Path, err):
		c.Needed = false // nobody knows
	case err == nil:
		c.There = true
	case !errors.Is(err, fs.ErrNotExist):
		c.There, c.Open = true, o.problem(err)
	}
	return err == nil
}

// atRest looks at what units load for each start.
func (o *observer) atRest() {
	f := &o.facts
	attests := f.Config.Is != nil && f.Config.Is.Rules.Attest
	for _, name := range []string{"agent-token", "identity", "api-token"} {
		c := doctor.Credential{Name: name, Path: atRest + "/" + name, Needed: name != "api-token" || attests}
		for _, path := range []string{c.Path + ".cred", "/etc/credstore.encrypted/juliagpu-secrets." + name} {
			if !o.there(c.Path) && o.there(path) {
				c.Path, c.Encrypted = path, true
			}
		}
		if o.credential(&c) && !c.Encrypted {
			if name == "identity" {
				o.identity(&c)
			} else if _, err := (credential.File{Kind: name, Path: o.path(c.Path)}).Word(o.UID); err != nil {
				c.Wrong = o.problem(err)
			}
		}
		f.Credentials = append(f.Credentials, c)
	}
}

// identity reads one, for what it is called in labels.
func (o *observer) identity(c *doctor.Credential) {
	all, err := identity.Load([]settings.IdentityFile{{Path: o.path(c.Path)}}, o.UID)
	if err != nil {
		c.Wrong = o.problem(err)
		return
	}
	for _, i := range all {
		o.facts.Identities = append(o.facts.Identities, doctor.Identity{Fingerprint: i.Fingerprint})
	}
}

// given looks at a container's credentials, and for a job beside them.
func (o *observer) given() {
	f := &o.facts
	f.JobRuns = o.jobRuns()
	if f.Config.Is == nil {
		return
	}
	for _, file := range f.Config.Is.Credentials() {
		c := doctor.Credential{Name: file.Kind, Path: file.Path, Needed: true}
		if o.credential(&c) && file.Kind == "identity" {
			o.identity(&c)
		}
		f.Credentials = append(f.Credentials, c)
	}
}

// jobRuns tells whether a process of jobs' users is alive here: with the host's
// processes in sight there may be others of the same numbers, in other cgroups.
func (o *observer) jobRuns() bool {
	c := o.facts.Config.Is
	if c == nil || c.Users == (settings.Users{}) {
		return false
	}
	entries, _ := os.ReadDir(o.path("/proc"))
	own, _ := os.ReadFile(o.path("/proc/self/cgroup"))
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		if group, err := os.ReadFile(o.path("/proc/" + e.Name() + "/cgroup")); err == nil && !bytes.Equal(group, own) {
			continue
		}
		text, err := os.ReadFile(o.path("/proc/" + e.Name() + "/status"))
		if err != nil {
			continue
		}
		status, err := procfs.ParseStatus(text)
		if err == nil && (status.UID == 4711 || status.UID == 4712 || status.UID != 0 && (status.UID == c.Users.Trusted.UID || status.UID == c.Users.Other.UID)) {
			return true
		}
	}
	return false
}

func (o *observer) tokenHere() string {
	if c := o.facts.Config.Is; c != nil && c.Rules.Attest {
		return o.path(c.Attest.Token)
	}
	return ""
}
