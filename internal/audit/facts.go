// Package audit says what in an organization's pipelines weakens its secrets.
//
// Facts go in, a Report comes out; package gather collects the facts. Nothing of
// this package holds a sealed text, a value or a token.
package audit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/sealed"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// Facts are all that Judge looks at.
type Facts struct {
	Organization string // slug; empty: Buildkite was not asked
	Pipelines    []Pipeline
	Checkouts    []Checkout
	Rules        Rules
	Recipients   map[string]string // fingerprint to name, of those that agents hold; nil: nobody said
	Now          time.Time
}

// Rules are what the operator's configuration says of trust.
type Rules struct {
	Path string // of the configuration; empty: none, so that nothing opens
	trust.Rules
	ScopeAny bool // values without a scope open
	Direct   bool // opened in the job's reach
}

// A Pipeline is what Buildkite's API says of one.
type Pipeline struct {
	Slug        string `json:"slug"`
	Address     string `json:"address"`               // of its repository, without user and password
	Credentials bool   `json:"credentials,omitempty"` // the address holds a password
	Public      bool   `json:"public,omitempty"`
	Archived    bool   `json:"archived,omitempty"`
	Rebuilds    bool   `json:"rebuilds,omitempty"` // may be rebuilt
	Provider    string `json:"provider,omitempty"`
	Mode        string `json:"trigger_mode,omitempty"` // GitHub's: code, deployment, fork, none
	Forks       bool   `json:"forks,omitempty"`        // pull requests from forks are built
	Prefixed    bool   `json:"prefixed,omitempty"`     // their branches are called user:branch
	Steps       Text   `json:"steps"`                  // of its settings
}

// Repository is the one spelling of the pipeline's, or zero.
func (p Pipeline) Repository() repo.Name { name, _ := repo.FromURL(p.Address); return name }

// A Checkout is a clone of a repository.
type Checkout struct {
	Folder       string      // as it was given
	Repositories []repo.Name // of its remotes; the first is its own
	Texts        []Text      // its pipeline files
}

// A Text is what is known of a text that holds steps.
type Text struct {
	File     string         `json:"file,omitempty"`   // in its checkout, with slashes; empty: the pipeline's settings
	Unread   string         `json:"unread,omitempty"` // why it could not be read; empty: it was
	Steps    int            `json:"steps,omitempty"`
	Uploads  int            `json:"uploads,omitempty"` // of the steps those that only upload a pipeline
	Values   []sealed.Value `json:"values,omitempty"`
	Triggers []Trigger      `json:"triggers,omitempty"`
	Wasted   []Wasted       `json:"wasted,omitempty"`
}

// A Trigger is a step that starts another pipeline.
type Trigger struct {
	Step   string `json:"step"`
	Line   int    `json:"line,omitempty"`
	Target string `json:"target"` // slug in the same organization, or $NAME
}

// A Wasted entry stands in a step that only uploads a pipeline.
type Wasted struct {
	Step     string `json:"step"`
	Variable string `json:"variable"`
	Line     int    `json:"line,omitempty"` // of the entry
}

// maxValues of one text are held against each other. Nobody has as many.
const maxValues = 1000

// Read takes from a text what matters to secrets. A text that can't be read is a
// fact, too.
func Read(file string, text []byte) Text {
	t := Text{File: file}
	if strings.TrimSpace(string(text)) == "" {
		return t
	}
	found, err := pipeline.Find(text)
	steps, stepsErr := pipeline.Steps(text)
	if err = cmp.Or(err, stepsErr); err != nil {
		t.Unread = err.Error() // of the file it holds names of steps alone
		return t
	}
	if len(found) > maxValues {
		t.Unread = fmt.Sprintf("more than %d SECRET_ variables", maxValues)
		return t
	}
	for _, s := range found {
		t.Values = append(t.Values, sealed.Read(s))
	}
	t.Steps = len(steps)
	for _, s := range steps {
		if s.Trigger != "" {
			t.Triggers = append(t.Triggers, Trigger{s.Name, s.Line, s.Trigger})
		}
		if !job.IsUpload(s.Command) {
			continue
		}
		t.Uploads++
		for _, own := range s.Own {
			if form := envelope.FormOf(own.Text); form != envelope.FormEmpty && form != envelope.FormOther {
				t.Wasted = append(t.Wasted, Wasted{s.Name, own.Name, own.Line})
			}
		}
	}
	return t
}

// stated is a pipeline as the API states it (docs: apis/rest-api/pipelines). Of
// what no provider is known for, settings may be missing altogether.
type stated struct {
	Slug          string `json:"slug"`
	Repository    string `json:"repository"`
	Visibility    string `json:"visibility"`
	ArchivedAt    any    `json:"archived_at"`
	AllowRebuilds *bool  `json:"allow_rebuilds"`
	Provider      *struct {
		ID       string          `json:"id"`
		Settings json.RawMessage `json:"settings"`
	} `json:"provider"`
	Configuration *string           `json:"configuration"`
	Steps         []json.RawMessage `json:"steps"`
	Env           map[string]any    `json:"env"`
}

// ErrNoPipeline says that the API's answer is not what it documents.
var ErrNoPipeline = errors.New("not a pipeline as Buildkite's API describes it")

// FromAPI reads one pipeline of the API's answer. steps tells whether the answer
// has the pipeline's steps in either form.
func FromAPI(answer []byte) (p Pipeline, steps bool, err error) {
	var s stated
	if err := json.Unmarshal(answer, &s); err != nil || s.Slug == "" {
		return Pipeline{}, false, ErrNoPipeline
	}
	p = Pipeline{Slug: s.Slug, Public: s.Visibility == "public", Archived: s.ArchivedAt != nil,
		Rebuilds: s.AllowRebuilds == nil || *s.AllowRebuilds}
	p.Address, p.Credentials = withoutPassword(s.Repository)
	if s.Provider != nil {
		p.Provider = s.Provider.ID
		var settings struct {
			Mode   string `json:"trigger_mode"`
			Pulls  *bool  `json:"build_pull_requests"`
			Forks  bool   `json:"build_pull_request_forks"`
			Prefix bool   `json:"prefix_pull_request_fork_branch_names"`
		}
		if json.Unmarshal(s.Provider.Settings, &settings) == nil {
			p.Mode, p.Prefixed = settings.Mode, settings.Prefix
			// Forks are built in the modes that build pull requests, and where those are.
			p.Forks = settings.Forks && (settings.Pulls == nil || *settings.Pulls) && (settings.Mode == "" || settings.Mode == "code")
		}
	}
	switch {
	case s.Configuration != nil && strings.TrimSpace(*s.Configuration) != "":
		p.Steps = Read("", []byte(*s.Configuration))
	case len(s.Steps) > 0:
		p.Steps = Read("", legacy(s))
		p.Steps.forgetLines()
	default:
		return p, s.Steps != nil || s.Configuration != nil, nil
	}
	p.Steps.add(s.Env)
	return p, true, nil
}

// add takes the variables of the whole pipeline that its steps' text does not have.
func (t *Text) add(env map[string]any) {
	more, err := json.Marshal(map[string]any{"env": env, "steps": []any{}})
	if err != nil || t.Unread != "" {
		return
	}
	of := Read("", more)
	of.forgetLines()
	for _, v := range of.Values {
		if !slices.ContainsFunc(t.Values, func(have sealed.Value) bool { return have.Variable == v.Variable && len(have.Steps) == 0 }) {
			t.Values = append(t.Values, v)
		}
	}
}

// legacy writes steps that are not YAML as if they were.
func legacy(s stated) []byte {
	var steps []map[string]any
	for _, raw := range s.Steps {
		var of struct {
			Name    string         `json:"name"`
			Label   string         `json:"label"`
			Command any            `json:"command"`
			Env     map[string]any `json:"env"`
			Trigger string         `json:"trigger_project_slug"`
		}
		if json.Unmarshal(raw, &of) != nil {
			continue
		}
		step := map[string]any{"env": of.Env}
		for key, value := range map[string]any{"label": cmp.Or(of.Name, of.Label), "command": of.Command, "trigger": of.Trigger} {
			if value != nil && value != "" {
				step[key] = value
			}
		}
		steps = append(steps, step)
	}
	text, _ := json.Marshal(map[string]any{"env": s.Env, "steps": steps}) // of decoded JSON: it can be encoded
	return text
}

// forgetLines is for a text that nobody has in lines.
func (t *Text) forgetLines() {
	for i := range t.Values {
		t.Values[i].Line = 0
	}
	for i := range t.Triggers {
		t.Triggers[i].Line = 0
	}
	for i := range t.Wasted {
		t.Wasted[i].Line = 0
	}
}

// withoutPassword takes user and password out of an address. A user alone is a
// token where it is as long as one.
func withoutPassword(address string) (string, bool) {
	scheme, rest, ok := strings.Cut(address, "://")
	if ok {
		scheme += "://"
	} else {
		scheme, rest = "", address
	}
	authority, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndex(authority, "@")
	if at < 0 {
		return address, false
	}
	user, password, _ := strings.Cut(authority[:at], ":")
	secret := password != "" || len(user) > 16
	if scheme == "" && !secret {
		return address, false // git@host:path
	}
	return scheme + rest[at+1:], secret
}
