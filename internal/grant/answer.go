package grant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
)

// ErrMalformed says that a text is not what Answer.Marshal of this release writes.
// Nothing of the text is in it.
var ErrMalformed = errors.New("not what this release of pre-bootstrap writes")

// An Answer is what was worked out for one job, where another hook delivers it.
type Answer struct {
	Job   job.ID
	Facts map[string]string // that were judged, as job.Facts.Stated has them
	Notes []string          // lines that the job's log shows
	// Reason says why nothing was opened for this job at all; empty where each
	// result has its own.
	Reason, Hint string
	Outage       bool // the reason may be gone when the job runs again
	Results      []unseal.Result
	Fault        *Fault // the job must not start; Results is empty
}

// A Fault is the machine's: what pre-bootstrap could not do.
type Fault struct{ Text, Hint string }

// version is that of the text. Both hooks are of one release; another version
// says that only one of them was replaced.
const version = 1

// maxAnswer is the longest text, in bytes. A job's environment ends long before.
const maxAnswer = 16 << 20

// What the text holds. What may hold any bytes is base64.
type answer struct {
	Version int               `json:"version"`
	Job     string            `json:"job"`
	Facts   map[string]string `json:"facts"`
	Notes   []string          `json:"notes"`
	Reason  string            `json:"reason"`
	Hint    string            `json:"hint"`
	Outage  bool              `json:"outage"`
	Results []answerResult    `json:"results"`
	Fault   *answerFault      `json:"fault"`
}

type answerResult struct {
	Variable []byte           `json:"variable"`
	Outcome  unseal.Outcome   `json:"outcome"`
	Reason   string           `json:"reason"`
	Hint     string           `json:"hint"`
	Loud     bool             `json:"loud"`
	Warning  string           `json:"warning"`
	Set      []answerVariable `json:"set"`
	File     bool             `json:"file"`
}

type answerVariable struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

type answerFault struct {
	Text string `json:"text"`
	Hint string `json:"hint"`
}

// Marshal writes a in its one spelling: JSON, with every plaintext in it.
func (a Answer) Marshal() ([]byte, error) {
	f := answer{Version: version, Job: a.Job.String(), Facts: map[string]string{}, Notes: []string{}, Reason: text(a.Reason), Hint: text(a.Hint), Outage: a.Outage, Results: []answerResult{}}
	for name, value := range a.Facts {
		f.Facts[name] = text(value)
	}
	for _, note := range a.Notes {
		f.Notes = append(f.Notes, text(note))
	}
	for _, r := range a.Results {
		set := []answerVariable{}
		for _, v := range r.Set {
			set = append(set, answerVariable{v.Name, []byte(v.Value.Reveal())})
		}
		f.Results = append(f.Results, answerResult{[]byte(r.Variable), r.Outcome, text(r.Reason), text(r.Hint), r.Loud, text(r.Warning), set, r.File})
	}
	if a.Fault != nil {
		f.Fault = &answerFault{text(a.Fault.Text), text(a.Fault.Hint)}
	}
	data, err := json.Marshal(f)
	if err == nil && len(data) > maxAnswer {
		err = fmt.Errorf("larger than %d MiB", maxAnswer>>20)
	}
	return data, err
}

// text is for people, and JSON carries UTF-8 alone.
func text(s string) string { return strings.ToValidUTF8(s, "?") }

// ParseAnswer reads what Marshal writes, letter by letter: no second spelling, no key
// that another release might know, nothing behind the end.
func ParseAnswer(data []byte) (Answer, error) {
	var f answer
	if len(data) > maxAnswer || json.Unmarshal(data, &f) != nil || f.Version != version {
		return Answer{}, ErrMalformed
	}
	id, err := job.ParseID(f.Job)
	if err != nil {
		return Answer{}, ErrMalformed
	}
	a := Answer{Job: id, Facts: f.Facts, Notes: f.Notes, Reason: f.Reason, Hint: f.Hint, Outage: f.Outage}
	for _, r := range f.Results {
		result := unseal.Result{Variable: string(r.Variable), Outcome: r.Outcome, Reason: r.Reason, Hint: r.Hint, Loud: r.Loud, Warning: r.Warning, File: r.File}
		for _, v := range r.Set {
			result.Set = append(result.Set, envelope.Variable{Name: v.Name, Value: plaintext.New(string(v.Value))})
		}
		// What the rest of environment relies on.
		granted := r.Outcome == unseal.Granted
		if r.Outcome < unseal.Ignored || r.Outcome > unseal.Refused || granted != (len(r.Set) > 0) || r.File && len(r.Set) != 1 {
			return Answer{}, ErrMalformed
		}
		for _, v := range r.Set {
			if names.Check(v.Name) != nil {
				return Answer{}, ErrMalformed
			}
		}
		a.Results = append(a.Results, result)
	}
	if len(f.Facts) == 0 {
		a.Facts = nil
	}
	if len(f.Notes) == 0 {
		a.Notes = nil
	}
	if f.Fault != nil && len(f.Results) > 0 {
		return Answer{}, ErrMalformed
	}
	if f.Fault != nil {
		a.Fault = &Fault{f.Fault.Text, f.Fault.Hint}
	}
	if again, err := a.Marshal(); err != nil || !bytes.Equal(again, data) {
		return Answer{}, ErrMalformed
	}
	return a, nil
}
