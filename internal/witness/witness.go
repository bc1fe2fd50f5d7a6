// Package witness is what passes between a hook that needs attested facts and the
// program attest, which gets them: a question, an answer, and how to ask.
//
// A hook holds an identity or a job's environment; attest speaks TLS and reads
// foreign JSON, with a token. Neither process ever does the other's part.
package witness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// ErrMalformed says that a text is not what this release's Marshal writes. Nothing
// of the text is in it.
var ErrMalformed = errors.New("not what this release writes")

const (
	// MaxText is the longest question or answer, in bytes.
	MaxText = 1 << 20
	// MaxBuilds is the largest number of builds in an answer: the job's own one and
	// those that it came from.
	MaxBuilds = 10
	// MaxDeadline is the longest time that a question may leave.
	MaxDeadline = 10 * time.Minute
)

// version is that of both texts: another says that only one program was replaced.
const version = 1

// A Question asks what Buildkite's REST API says of one job's build.
type Question struct {
	URL, Roots   string // the API's server, and who vouches for it: see restapi.Server
	Token        string // to ask with
	PerMinute    int    // requests; 0: any number
	LimitFile    string // shared by all who ask on this machine; empty where PerMinute is 0
	Organization string // the operator's, never the job's
	// Pipeline, Number and Build are what the job states: the build's place, and its
	// id, which may be empty. They say where to look, and must turn out true.
	Pipeline, Number, Build string
	Job                     job.ID        // that the agent states
	Deadline                time.Duration // until the answer must be there, in whole milliseconds
}

type question struct {
	Version      int    `json:"version"`
	URL          string `json:"url"`
	Roots        string `json:"roots"`
	Token        string `json:"token"`
	PerMinute    int    `json:"per_minute"`
	LimitFile    string `json:"limit_file"`
	Organization string `json:"organization"`
	Pipeline     string `json:"pipeline"`
	Number       string `json:"number"`
	Build        string `json:"build"`
	Job          string `json:"job"`
	Deadline     int64  `json:"deadline_ms"`
}

// Marshal writes q in its one spelling, JSON, with the token in it. It refuses what
// ParseQuestion would.
func (q Question) Marshal() ([]byte, error) {
	for _, text := range []string{q.URL, q.Roots, q.Token, q.LimitFile, q.Organization, q.Pipeline, q.Number, q.Build} {
		if !utf8.ValidString(text) {
			return nil, errors.New("a text in the question is not UTF-8")
		}
	}
	if q.Job == (job.ID{}) {
		return nil, job.ErrNoID
	}
	if q.Deadline <= 0 || q.Deadline > MaxDeadline || q.Deadline%time.Millisecond != 0 {
		return nil, fmt.Errorf("a deadline is in whole milliseconds, at most %s", MaxDeadline)
	}
	if q.PerMinute < 0 {
		return nil, errors.New("a number of requests is not negative")
	}
	data, err := json.Marshal(question{
		version, q.URL, q.Roots, q.Token, q.PerMinute, q.LimitFile, q.Organization, q.Pipeline, q.Number, q.Build, q.Job.String(), q.Deadline.Milliseconds(),
	})
	if err == nil && len(data) > MaxText {
		err = fmt.Errorf("the question is larger than %d MiB", MaxText>>20)
	}
	return data, err
}

// ParseQuestion reads what Marshal writes, letter by letter. Whether the names in it
// make sense, attest says.
func ParseQuestion(data []byte) (Question, error) {
	var f question
	if len(data) > MaxText || json.Unmarshal(data, &f) != nil || f.Version != version {
		return Question{}, ErrMalformed
	}
	id, err := job.ParseID(f.Job)
	if err != nil || f.Deadline > MaxDeadline.Milliseconds() {
		return Question{}, ErrMalformed
	}
	q := Question{
		URL: f.URL, Roots: f.Roots, Token: f.Token, PerMinute: f.PerMinute, LimitFile: f.LimitFile,
		Organization: f.Organization, Pipeline: f.Pipeline, Number: f.Number, Build: f.Build, Job: id, Deadline: time.Duration(f.Deadline) * time.Millisecond,
	}
	if again, err := q.Marshal(); err != nil || !bytes.Equal(again, data) {
		return Question{}, ErrMalformed
	}
	return q, nil
}

// An Answer is one of two things.
type Answer struct {
	Attestation *trust.Attestation
	Refusal     *Refusal
}

// A Refusal says why nothing is attested. Both texts are for people, and safe to
// print: what somebody else chose is escaped in them.
type Refusal struct {
	Reason, Hint string
	// Outage: the API, the way to it, or this machine's configuration is at fault,
	// not the build. Another time or another agent may do better.
	Outage bool
}

func (r *Refusal) Error() string { return r.Reason }

type answer struct {
	Version     int      `json:"version"`
	Attestation *build   `json:"attestation"`
	Refusal     *refusal `json:"refusal"`
}

type build struct {
	ID              string `json:"id"`
	Organization    string `json:"organization"`
	Pipeline        string `json:"pipeline"`
	Repo            string `json:"repo"`
	Branch          string `json:"branch"`
	Tag             string `json:"tag"`
	PullRequest     string `json:"pull_request"`
	PullRequestRepo string `json:"pull_request_repo"`
	PullRequestBase string `json:"pull_request_base"`
	Source          string `json:"source"`
	Commit          string `json:"commit"`
	TriggeredBy     *build `json:"triggered_by"`
	RebuiltFrom     *build `json:"rebuilt_from"`
}

type refusal struct {
	Reason string `json:"reason"`
	Hint   string `json:"hint"`
	Outage bool   `json:"outage"`
}

// Marshal writes a in its one spelling, JSON. It refuses what ParseAnswer would.
func (a Answer) Marshal() ([]byte, error) {
	f := answer{Version: version}
	switch {
	case (a.Attestation == nil) == (a.Refusal == nil):
		return nil, errors.New("an answer attests or refuses")
	case a.Refusal != nil:
		if a.Refusal.Reason == "" || !isPlain(a.Refusal.Reason) || !isPlain(a.Refusal.Hint) {
			return nil, errors.New("a refusal has a reason, and is printable")
		}
		f.Refusal = &refusal{a.Refusal.Reason, a.Refusal.Hint, a.Refusal.Outage}
	default:
		count := 0
		var err error
		if f.Attestation, err = toBuild(a.Attestation, &count); err != nil {
			return nil, err
		}
	}
	data, err := json.Marshal(f)
	if err == nil && len(data) > MaxText {
		err = fmt.Errorf("the answer is larger than %d MiB", MaxText>>20)
	}
	return data, err
}

// isPlain accepts what escape.Text writes: printable ASCII, and "…" for the rest of
// a long text.
func isPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < ' ' || r > '~') && r != '…' })
}

// toBuild also says what a tree of builds is: their ids are ids, and each names
// those that stand below it.
func toBuild(a *trust.Attestation, count *int) (*build, error) {
	if *count++; *count > MaxBuilds {
		return nil, fmt.Errorf("an answer has at most %d builds", MaxBuilds)
	}
	b := a.Build
	if _, err := job.ParseID(a.ID); err != nil {
		return nil, errors.New("a build without an id")
	}
	if b.Origin != job.Attested || b.Event != "" || b.Twice != nil || b.Doubt != "" {
		return nil, errors.New("facts that no API states")
	}
	for _, text := range b.Stated() {
		if !utf8.ValidString(text) {
			return nil, errors.New("a fact is not UTF-8")
		}
	}
	f := &build{
		ID: a.ID, Organization: b.Organization, Pipeline: b.Pipeline, Repo: b.Repo, Branch: b.Branch, Tag: b.Tag,
		PullRequest: b.PullRequest, PullRequestRepo: b.PullRequestRepo, PullRequestBase: b.PullRequestBase, Source: b.Source, Commit: b.Commit,
	}
	for _, from := range []struct {
		named string
		build *trust.Attestation
		to    **build
	}{{b.TriggeredFrom, a.TriggeredBy, &f.TriggeredBy}, {b.RebuiltFrom, a.RebuiltFrom, &f.RebuiltFrom}} {
		if from.build == nil && from.named == "" {
			continue
		}
		if from.build == nil || from.build.ID != from.named {
			return nil, errors.New("a build came from one that is not there")
		}
		var err error
		if *from.to, err = toBuild(from.build, count); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func fromBuild(f *build) *trust.Attestation {
	if f == nil {
		return nil
	}
	a := &trust.Attestation{ID: f.ID, TriggeredBy: fromBuild(f.TriggeredBy), RebuiltFrom: fromBuild(f.RebuiltFrom), Build: job.Facts{
		Origin: job.Attested, Organization: f.Organization, Pipeline: f.Pipeline, Repo: f.Repo, Branch: f.Branch, Tag: f.Tag,
		PullRequest: f.PullRequest, PullRequestRepo: f.PullRequestRepo, PullRequestBase: f.PullRequestBase, Source: f.Source, Commit: f.Commit,
	}}
	if f.TriggeredBy != nil {
		a.Build.TriggeredFrom = f.TriggeredBy.ID
	}
	if f.RebuiltFrom != nil {
		a.Build.RebuiltFrom = f.RebuiltFrom.ID
	}
	return a
}

// ParseAnswer reads what Marshal writes, letter by letter.
func ParseAnswer(data []byte) (Answer, error) {
	var f answer // json follows no more than 10,000 nested values
	if len(data) > MaxText || json.Unmarshal(data, &f) != nil || f.Version != version {
		return Answer{}, ErrMalformed
	}
	a := Answer{Attestation: fromBuild(f.Attestation)}
	if f.Refusal != nil {
		a.Refusal = &Refusal{f.Refusal.Reason, f.Refusal.Hint, f.Refusal.Outage}
	}
	if again, err := a.Marshal(); err != nil || !bytes.Equal(again, data) {
		return Answer{}, ErrMalformed
	}
	return a, nil
}
