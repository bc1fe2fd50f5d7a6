package main

import (
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/shape"
)

// The page to seal in, but for what touches the browser: page_js.go does that,
// and the folder page holds the form.

// A form is what a person filled in, as typed. Repos, Pipelines, Branches and
// Tags are lists with blanks between, Recipients is like a recipients' file.
type form struct {
	Name, Repos, Recipients            string
	Pipelines, Branches, Tags, Expires string
	NoPullRequests, AnyRepo            bool
	BuiltIn                            bool // Recipients are those of this page
	Base64                             bool // seal the base64 of the value
}

// A problem is why nothing was sealed: what is wrong with the content of a
// field, and what to do. Field is one of form's, or Value, or empty.
type problem struct{ Field, Text, Hint string }

// A note is what to know about a seal that was made all the same.
type note struct{ Text, Hint string }

// An answer is what the page shows. Without problems, and after a seal only,
// Lines are for pipeline.yml; where newer agents refuse the usual name Renamed
// are the same with the variable called Rename.
type answer struct {
	Problems        []problem
	Place, To       string // as far as they make sense
	Notes           []note
	Lines, Closing  string
	Rename, Renamed string
}

// look judges everything but the value.
func (f form) look(now time.Time, embedded string) answer {
	_, _, a := f.judge(now, embedded)
	return a
}

// seal seals value as encrypt does.
func (f form) seal(value []byte, now time.Time, embedded string) answer {
	label, to, a := f.judge(now, embedded)
	v := plaintext.New(string(value))
	if f.Base64 {
		v = plaintext.New(base64.StdEncoding.EncodeToString(value))
	}
	if len(a.Problems) > 0 {
		for _, found := range shape.Check(label.Name, v, false) {
			if found.Refused {
				a.fail("Value", refuse(found.Hint, "%s", found.Text))
			}
		}
		return a
	}
	r, err := judgeAndSeal(label, v, to, false)
	if err != nil {
		a.fail("Value", err)
		return a
	}
	if label.Any {
		a.Notes = append(a.Notes, note{opensAnywhere, "name repositories, if you know them"})
	}
	if r.dropped {
		a.Notes = append(a.Notes, note{"the line break at the end of the value was dropped", ""})
	}
	for _, w := range r.warnings {
		a.Notes = append(a.Notes, note{w.Text, onPage(w.Text, w.Hint)})
	}
	carrier := names.Prefix + label.Name
	if pattern, ok := r.rejection(); ok {
		a.Rename = carrier + names.SealedSuffix
		a.Renamed = r.lines(a.Rename)
		a.Notes = append(a.Notes, note{"agent v4 (v3 with --reject-secrets) uploads no variable called " + pattern, "if yours refuses, take the other name below: the text stays the same"})
	}
	a.Lines, a.Closing = r.lines(carrier), r.closing()
	return a
}

var (
	errName = refuse("name the variable as the job reads it, such as CODECOV_TOKEN", "the variable's name is missing")
	errRepo = refuse("write github.com/owner/name", "the repository is missing")
	errBoth = refuse("empty this field, or take the tick away from “In any repository”", "a repository stands here, and “In any repository” is ticked")
)

// judge looks at each field by itself, so that each problem has its field.
func (f form) judge(now time.Time, embedded string) (l envelope.Label, to []recipient, a answer) {
	l = envelope.Label{
		Pipelines:     strings.Fields(f.Pipelines),
		Branches:      strings.Fields(f.Branches),
		Tags:          strings.Fields(f.Tags),
		Any:           f.AnyRepo,
		NoPullRequest: f.NoPullRequests,
	}
	var err error
	if name := strings.TrimSpace(f.Name); name == "" {
		a.fail("Name", errName)
	} else if l.Name, err = checkName(name); err != nil {
		a.fail("Name", err)
	}

	repos := strings.Fields(f.Repos)
	switch {
	case len(repos) > 0 && f.AnyRepo:
		a.fail("Repos", errBoth)
	case len(repos)+len(l.Pipelines) == 0 && !f.AnyRepo:
		a.fail("Repos", errRepo)
	}
	for _, address := range repos {
		name, err := parseRepo(address)
		if err != nil {
			a.fail("Repos", err)
			break
		}
		l.Repos = append(l.Repos, name)
	}

	if to, err = f.recipients(embedded); err != nil {
		a.fail("Recipients", err)
	}
	if f.Expires != "" {
		if l.Expires, err = parseExpires(f.Expires, now); err != nil {
			a.fail("Expires", err)
		}
	}
	for field, only := range map[string]envelope.Label{
		"Pipelines": {Pipelines: l.Pipelines, Any: len(l.Pipelines) == 0},
		"Branches":  {Branches: l.Branches, Any: true},
		"Tags":      {Tags: l.Tags, Any: true},
	} {
		only.Name, only.To = "NAME", []string{"0123456789abcdef"}
		if _, err := only.Marshal(); err != nil {
			a.fail(field, err)
		}
	}
	whole := l
	for _, r := range to {
		whole.To = append(whole.To, r.Fingerprint())
	}
	if len(a.Problems) == 0 {
		if _, err := whole.Marshal(); err != nil {
			a.fail("", err)
		}
	}
	if len(l.Repos) > 0 {
		a.Place = place(l)
	}
	a.To = join(to)
	return l, to, a
}

// recipients takes those of this page or the pasted ones.
func (f form) recipients(embedded string) ([]recipient, error) {
	text, from := f.Recipients, pasted
	if f.BuiltIn {
		text, from = embedded, "this page"
	}
	all, err := parseRecipients(text, from)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("no recipient to seal to")
	}
	return oneKind(all)
}

// sites are the recipients of this page, for people.
func sites(embedded string) (names []string) {
	all, _ := parseRecipients(embedded, "") // judge says what is wrong with them
	for _, r := range all {
		names = append(names, r.String())
	}
	return names
}

// order is the page's.
var order = []string{"Name", "Value", "Repos", "Recipients", "Pipelines", "Branches", "Tags", "Expires"}

// fail adds what is wrong in a field, in its place.
func (a *answer) fail(field string, err error) {
	text, hint := err.Error(), ""
	var r *refusal
	if errors.As(err, &r) {
		hint = r.hint
	}
	text = lineBefore.ReplaceAllString(flagBefore.ReplaceAllString(text, ""), "line $1: ")
	text = strings.TrimPrefix(text, envelope.ErrLabel.Error()+": ")
	a.Problems = append(a.Problems, problem{field, text, onPage(text, hint)})
	slices.SortStableFunc(a.Problems, func(x, y problem) int {
		return slices.Index(order, x.Field) - slices.Index(order, y.Field)
	})
}

// An error may begin with the flag, or the name of the file and a line.
var (
	flagBefore = regexp.MustCompile(`^--[a-z]+: `)
	lineBefore = regexp.MustCompile(`^` + pasted + `:([0-9]+): `)
)

const pasted = "recipients"

// hints are what to do about a text that contains the key, where encrypt's own
// hint is about commands. TestPageSpeaksOfThePage finds what is missing here.
var hints = []struct{ about, hint string }{
	{"the value is empty", "type or paste it, or choose its file"},
	{"the value holds a NUL byte", "tick “Encode as base64”, and decode it in the job"},
	{"the value is not UTF-8 text", "tick “Encode as base64”, and decode it in the job"},
	{"but Documenter reads its base64", "tick “Encode as base64”"},
	{"is not the base64 of a private key", "choose the file of the private key, and tick “Encode as base64”"},
	{"the value holds CR line ends", "save the file with LF line ends, and choose it again"},
	{"the private key within lacks its last newline", "choose the file of the key itself, and tick “Encode as base64”"},
	{"the private key lacks its last newline", "choose its file instead, or end the text with a line break"},
	{"no recipient to seal to", "ask who runs the agents for theirs, a line that begins with age1, and paste it here"},
	{"its letters don't add up", "copy it again, from its first letter to its last"},
	{"names no recipient, or more than", "take fewer"},
	{"pipeline is not organization/pipeline", "write it as in its address on buildkite.com: organization/pipeline"},
	{"a branch or tag pattern", "write a pattern such as release-* or v*, in plain letters"},
	{"not a time", "choose a day, or none"},
	{" is past", "choose a day after today, or none"},
	{"after the year 9999", "choose an earlier day, or none"},
	{"it is larger than 4 KiB", "name fewer repositories, pipelines, branches or tags"},
}

// onPage returns the hint for who has no command line.
func onPage(text, hint string) string {
	for _, h := range hints {
		if strings.Contains(text, h.about) {
			return h.hint
		}
	}
	return hint
}
