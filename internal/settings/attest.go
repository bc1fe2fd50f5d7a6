package settings

import (
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// Attest says how Buildkite's REST API is asked for what a job claims. The zero
// Attest: it is not.
type Attest struct {
	Token        string // file of an API token that may read builds and pipelines
	Organization string // slug of the one that the token is for
	Deadline     time.Duration
	URL          string // https://HOST, or with :PORT
	Roots        string // file of PEM certificates that vouch for it; empty: the host's
	// PerMinute is how many requests all agents make that share the file Limit. Both
	// are there, or neither: no limit.
	PerMinute int
	Limit     string
}

// What counts where the operator says nothing.
const (
	attestDeadline  = 60 * time.Second
	attestURL       = "https://api.buildkite.com"
	attestPerMinute = 40 // of 50 that Buildkite allows a user
	attestLimit     = "/run/juliagpu-secrets/attest.limit"
)

// readAttest reads the section, and has trust demand what it is for.
func (s *Settings) readAttest(v strict.Value) error {
	a := &s.Attest
	*a = Attest{Deadline: attestDeadline, URL: attestURL}
	err := v.Fields(
		strict.Key("token", strict.Into(&a.Token, readPath)),
		strict.Key("organization", func(v strict.Value) (err error) {
			if a.Organization, err = v.Text(); err == nil && !names.IsSlug(a.Organization) {
				err = v.Errorf("take it from the organization's address, buildkite.com/organization", "not an organization's slug")
			}
			return err
		}),
		strict.Key("deadline", func(v strict.Value) error {
			text, err := v.Text()
			if err != nil {
				return err
			}
			a.Deadline, err = time.ParseDuration(text)
			if err != nil || a.Deadline < time.Second || a.Deadline > 5*time.Minute || a.Deadline%time.Millisecond != 0 {
				return v.Errorf("write it as in 60s, 1s to 5m: a job waits no longer for its secrets", "not a deadline")
			}
			return nil
		}),
		strict.Key("api", func(v strict.Value) (err error) {
			if a.URL, err = v.Text(); err != nil {
				return err
			}
			host, ok := strings.CutPrefix(a.URL, "https://")
			if !ok || host == "" || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") != "" {
				return v.Errorf("write it as in https://api.buildkite.com, or leave it out", "not the address of an API")
			}
			return nil
		}),
		strict.Key("roots", strict.Into(&a.Roots, readPath)),
		strict.Key("limit", func(v strict.Value) error {
			return v.Fields(
				strict.Key("file", strict.Into(&a.Limit, readPath)),
				strict.Key("per-minute", func(v strict.Value) (err error) {
					a.PerMinute, err = v.Number(1, 1000)
					return err
				}),
			)
		}),
	)
	switch {
	case err != nil:
		return err
	case a.Token == "":
		return v.Below("token").Errorf("name the file that holds an API token with the scopes read_builds and read_pipelines", "missing")
	case a.Organization == "":
		return v.Below("organization").Errorf("name the organization whose builds the token may read", "missing")
	}
	s.Rules.Attest = true
	return nil
}

// limits puts the defaults in place. In direct mode nobody knows of a folder that is
// the agent's.
func (a *Attest) limits(root strict.Value, mode Mode) error {
	if a.Limit == "" && mode == Split && *a != (Attest{}) {
		a.Limit = attestLimit
	}
	switch {
	case a.Limit != "" && a.PerMinute == 0:
		a.PerMinute = attestPerMinute
	case a.Limit == "" && a.PerMinute != 0:
		return root.Below("attest").Below("limit").Below("file").Errorf("name a file in a folder of the agent's user; agents that name the same one share the limit", "missing")
	}
	return nil
}

// Credentials returns the files that no job may read.
func (s Settings) Credentials() []credential.File {
	var files []credential.File
	for _, i := range s.Identities {
		files = append(files, credential.File{Kind: "identity", Path: i.Path})
	}
	if s.Older.Key != "" {
		files = append(files, s.Older.Credential())
	}
	if s.Attest.Token != "" {
		files = append(files, s.Attest.Credential())
	}
	return files
}

// Credential is the file of the API token.
func (a Attest) Credential() credential.File {
	return credential.File{Kind: "API token", Path: a.Token}
}
