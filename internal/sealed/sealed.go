// Package sealed says what anyone can tell of a SECRET_* entry without a key.
//
// Nobody vouches for a label that no key has opened: what this package says is to
// be shown, never to be decided by.
package sealed

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
)

// A Form is what an entry's text looks like.
type Form string

// The forms, as programs read them.
const (
	Labelled  Form = "sealed"    // format version 1
	Age       Form = "age"       // an age file without a label
	RSA       Form = "rsa"       // the older tool's: RSA alone
	RSAHybrid Form = "rsa-aes"   // the older tool's: RSA and AES
	Malformed Form = "malformed" // begins like an age file and is none
	Other     Form = "other"     // no sealed value
	Empty     Form = "empty"
)

// A Value is what does not change about one entry. It holds nothing of its text
// but the label.
type Value struct {
	Variable string          `json:"variable,omitempty"` // none: a value by itself
	Line     int             `json:"line,omitempty"`
	Steps    []string        `json:"steps,omitempty"` // none: all, or nobody knows
	Form     Form            `json:"form"`
	Bytes    int             `json:"bytes,omitempty"` // of a sealed text; the length of another may say something
	Label    *envelope.Label `json:"-"`               // where the form is Labelled
	Stanzas  []string        `json:"stanzas,omitempty"`
	Sets     []string        `json:"sets,omitempty"` // variables, as far as known

	Wrong []Problem `json:"wrong,omitempty"` // what is wrong with it by itself, at any time
}

// A Kind of problem is for programs.
type Kind string

// The kinds of problems.
const (
	Plain      Kind = "plain"      // no sealed value at all
	Trivial    Kind = "trivial"    // neither, but a word such as true, or $NAME
	Older      Kind = "older"      // of the older tool
	Unlabelled Kind = "unlabelled" // an age file without name and scope
	Damaged    Kind = "malformed"  // begins like an age file and is none
	BadName    Kind = "name"       // of a variable that no sealed value may set
	Renamed    Kind = "renamed"    // under another name than it was sealed as
	Expired    Kind = "expired"    // past its time
	Expiring   Kind = "expiring"   // within 30 days
	Unfamiliar Kind = "unfamiliar" // sealed to nobody who is known
	Miscounted Kind = "miscounted" // for more or fewer recipients than the label names
	Twice      Kind = "twice"      // two values would set one variable of a job
)

// A Problem is what is wrong with a value, in words that are safe to print.
type Problem struct {
	Kind    Kind   `json:"kind"`
	Text    string `json:"text"`
	Refused bool   `json:"refused,omitempty"` // agents refuse it, and with it the job
}

// trivial texts are no secrets. (With a default, ${NAME:-default}, one may be.)
var trivial = regexp.MustCompile(`^(?:(?i:true|false|yes|no|on|off|0|1)|\$\$?[A-Za-z_][A-Za-z0-9_]*|\$\$?\{[A-Za-z_][A-Za-z0-9_]*\})$`)

// Read takes from one entry what anyone can tell at any time.
func Read(s pipeline.Sealed) Value {
	v := Value{Variable: s.Name, Line: s.Line, Steps: s.Steps}
	wrong := func(kind Kind, refused bool, format string, a ...any) {
		v.Wrong = append(v.Wrong, Problem{kind, fmt.Sprintf(format, a...), refused})
	}
	unlabelled := func() {
		if s.Name == "" {
			return
		}
		name := strings.TrimPrefix(s.Name, names.Prefix)
		if err := names.Check(name); err != nil {
			wrong(BadName, true, "%s", err)
			return
		}
		v.Sets = []string{name}
	}
	form := envelope.FormOf(s.Text)
	switch form {
	case envelope.FormEmpty:
		v.Form = Empty
		return v
	case envelope.FormOther:
		v.Form = Other
		kind := Plain
		if trivial.MatchString(s.Text) {
			kind = Trivial
		}
		wrong(kind, false, "agents leave it alone; if it is a secret, anyone can read it here: revoke it, and seal a new one")
		return v
	}
	v.Bytes = len(s.Text)
	switch form {
	case envelope.FormRSA, envelope.FormRSAHybrid:
		v.Form = RSA
		if form == envelope.FormRSAHybrid {
			v.Form = RSAHybrid
		}
		wrong(Older, false, "it opens in any repository, where an agent still opens it at all: seal it again")
		unlabelled()
		return v
	}
	peeked, err := envelope.Peek(s.Text)
	if err != nil {
		v.Form = Malformed
		wrong(Damaged, true, "%s", err)
		return v
	}
	v.Stanzas = peeked.Stanzas
	if !peeked.Labelled {
		v.Form = Age
		wrong(Unlabelled, false, "it opens only where the operator allows any repository: seal it with encrypt")
		unlabelled()
		return v
	}
	l := peeked.Label
	v.Form, v.Label, v.Sets = Labelled, &l, l.Names
	if l.Type != envelope.TypeBundle {
		v.Sets = []string{l.Name}
	}
	if s.Name != "" && !l.CarriedBy(s.Name) {
		wrong(Renamed, true, "renamed: it is sealed as %s, which %s carries", l.Name, names.Prefix+l.Name)
		v.Sets = nil
	}
	return v
}

// Problems are what is wrong with v now. known tells whether a recipient's
// fingerprint is familiar; nil where nobody is.
func (v Value) Problems(now time.Time, known func(fingerprint string) bool) []Problem {
	all := slices.Clone(v.Wrong)
	if v.Label == nil {
		return all
	}
	warn := func(kind Kind, format string, a ...any) {
		all = append(all, Problem{Kind: kind, Text: fmt.Sprintf(format, a...)})
	}
	if expires := v.Label.Expires; !expires.IsZero() {
		switch {
		case v.Expired(now):
			warn(Expired, "expired: agents withhold it")
		case !expires.After(now.AddDate(0, 0, 2)):
			warn(Expiring, "it expires within two days")
		case !expires.After(now.AddDate(0, 0, 30)):
			warn(Expiring, "it expires in %d days", int(expires.Sub(now)/(24*time.Hour)))
		}
	}
	if known != nil && !slices.ContainsFunc(v.Label.To, known) {
		warn(Unfamiliar, "sealed to no recipient that is known here")
	}
	if len(v.Label.To) != len(v.Stanzas) {
		warn(Miscounted, "the label names %d recipients, but the file is for %d", len(v.Label.To), len(v.Stanzas))
	}
	return all
}

// Expired tells whether agents withhold v for its age.
func (v Value) Expired(now time.Time) bool {
	return v.Label != nil && !v.Label.Expires.IsZero() && !now.Before(v.Label.Expires)
}

// Duplicates says for each of the values of one file which others would set one
// of its variables in one job.
func Duplicates(all []Value) [][]Problem {
	problems := make([][]Problem, len(all))
	for i, v := range all {
		twice := func(format string, a ...any) {
			problems[i] = append(problems[i], Problem{Twice, fmt.Sprintf(format, a...), true})
		}
		for _, other := range all[:i] {
			if !meet(v, other) {
				continue
			}
			if v.Variable == other.Variable {
				// In another env: it takes the place of the one further out.
				if slices.Equal(v.Steps, other.Steps) && v.Line != other.Line {
					twice("it is there twice, first on line %d", other.Line)
				}
				continue
			}
			for _, name := range v.Sets {
				if slices.Contains(other.Sets, name) || name == other.Variable {
					twice("%s is set by %s on line %d, too: a job with both is refused", name, escape.Text(other.Variable), other.Line)
				}
			}
		}
	}
	return problems
}

// meet tells whether a job may have both.
func meet(a, b Value) bool {
	return len(a.Steps) == 0 || len(b.Steps) == 0 || slices.ContainsFunc(a.Steps, func(s string) bool { return slices.Contains(b.Steps, s) })
}

// plainValue is Value without its methods.
type plainValue Value

// written is a Value with its label in the label's one form.
type written struct {
	plainValue
	Label string `json:"label,omitempty"`
}

// MarshalJSON writes all of v.
func (v Value) MarshalJSON() ([]byte, error) {
	w := written{plainValue: plainValue(v)}
	if v.Label != nil {
		text, err := v.Label.Marshal()
		if err != nil {
			return nil, err
		}
		w.Label = string(text)
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *Value) UnmarshalJSON(text []byte) error {
	var w written
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	if w.Label != "" {
		l, err := envelope.ParseLabel([]byte(w.Label))
		if err != nil {
			return err
		}
		w.plainValue.Label = &l
	}
	*v = Value(w.plainValue)
	return nil
}
