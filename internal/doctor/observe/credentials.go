package observe

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
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

// wanted are the credentials that an agent does not start without, by their names in
// the folder: as juliagpu agent prepare finds them.
func (o *observer) wanted() []credential.File {
	all := []credential.File{{Kind: "agent token", Path: "agent-token"}}
	c := o.facts.Config.Is
	if c == nil {
		return all
	}
	named := c.Credentials()
	if c.Attest.Roots != "" {
		named = append(named, credential.File{Kind: "certificates", Path: c.Attest.Roots})
	}
	for _, f := range named {
		if filepath.Dir(f.Path) == given {
			all = append(all, credential.File{Kind: f.Kind, Path: filepath.Base(f.Path)})
		}
	}
	return all
}

// encrypted is the suffix of what systemd-creds encrypted.
const encrypted = ".cred"

// atRest looks at the credentials that units load for each start, and at whatever else
// lies in their folder: units load all of it.
func (o *observer) atRest(agents []*doctor.Agent) {
	known := map[string]bool{}
	for _, file := range o.wanted() {
		c := o.resting(file, agents)
		known[c.Path], known[c.Beside] = true, true
		o.facts.Credentials = append(o.facts.Credentials, c)
	}
	err := filepath.WalkDir(o.path(atRest), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		c := doctor.Credential{Kind: doctor.NotNamed, Path: strings.TrimPrefix(path, strings.TrimSuffix(o.Root, "/"))}
		if !known[c.Path] {
			c.Encrypted = strings.HasSuffix(path, encrypted)
			o.credential(&c)
			o.facts.Credentials = append(o.facts.Credentials, c)
		}
		return nil
	})
	o.unseen("the credentials", err)
	for i := range o.facts.Credentials {
		c := &o.facts.Credentials[i]
		if c.Path = escape.Text(c.Path); c.Beside != "" {
			c.Beside = escape.Text(c.Beside)
		}
	}
}

// resting is one that is wanted: a file, or an encrypted one in its place.
func (o *observer) resting(file credential.File, agents []*doctor.Agent) doctor.Credential {
	name := file.Path
	c := doctor.Credential{Kind: file.Kind, Path: atRest + "/" + name, Needed: true}
	others := []string{c.Path + encrypted, "/etc/credstore.encrypted/juliagpu-secrets." + name}
	for _, a := range agents {
		if a.Unit.Loads != nil && a.Unit.Loads.Encrypted[name] != "" {
			others = append(others, a.Unit.Loads.Encrypted[name])
		}
	}
	if i := slices.IndexFunc(others, o.there); i >= 0 {
		if o.there(c.Path) {
			c.Beside = others[i]
		} else {
			c.Path, c.Encrypted = others[i], true
		}
	}
	if !o.credential(&c) {
		return c
	}
	if c.Encrypted {
		for _, a := range agents {
			if l := a.Unit.Loads; l != nil && l.Encrypted[name] == "" {
				c.Unloaded = append(c.Unloaded, a.Name)
			}
		}
		return c
	}
	switch file.Path = o.path(c.Path); file.Kind {
	case "identity":
		o.identity(&c)
	case "agent token", "API token":
		if _, err := file.Word(o.UID); err != nil {
			c.Wrong = o.problem(err)
		}
	}
	return c
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
		c := doctor.Credential{Kind: file.Kind, Path: file.Path, Needed: true}
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

// tokenHere is the API token that a container was given.
func (o *observer) tokenHere() (file credential.File) {
	if c := o.facts.Config.Is; c != nil && c.Rules.Attest {
		file = c.Attest.Credential()
		file.Path = o.path(file.Path)
	}
	return file
}

// tokenAtRest is the same on the host.
func (o *observer) tokenAtRest() credential.File {
	file := o.tokenHere()
	file.Path = o.path(atRest + "/" + filepath.Base(file.Path))
	return file
}
