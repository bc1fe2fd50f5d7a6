package witness

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

const uuid = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"

func mustID(s string) job.ID {
	id, err := job.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// id is a build's: its number in a UUID.
func id(n int) string { return fmt.Sprintf("%s%012x", uuid[:24], n) }

func fullQuestion() Question {
	return Question{
		URL: "https://api.buildkite.com", Roots: "/etc/roots.pem", Token: "bkua_hunter2", PerMinute: 50, LimitFile: "/run/limit",
		Organization: "juliagpu", Pipeline: "cuda-jl", Number: "42", Build: id(1), Job: mustID(uuid), Deadline: time.Minute,
	}
}

func attestation(n int) *trust.Attestation {
	return &trust.Attestation{ID: id(n), Build: job.Facts{
		Origin: job.Attested, Organization: "juliagpu", Pipeline: "cuda-jl", Repo: "https://github.com/JuliaGPU/CUDA.jl.git", Branch: "main<\x1b\n",
		Tag: "v1", PullRequest: "false", PullRequestRepo: "x", PullRequestBase: "y", Source: "webhook", Commit: strings.Repeat("c", 40),
	}}
}

// fullAnswer was triggered by a rebuild, and is one.
func fullAnswer() Answer {
	a, by, of, from := attestation(1), attestation(2), attestation(3), attestation(4)
	a.TriggeredBy, a.Build.TriggeredFrom = by, by.ID
	by.RebuiltFrom, by.Build.RebuiltFrom = of, of.ID
	a.RebuiltFrom, a.Build.RebuiltFrom = from, from.ID
	return Answer{Attestation: a}
}

// chain has so many builds.
func chain(n int) *trust.Attestation {
	a := attestation(n)
	if n > 1 {
		a.TriggeredBy = chain(n - 1)
		a.Build.TriggeredFrom = a.TriggeredBy.ID
	}
	return a
}

func TestQuestion(t *testing.T) {
	for name, q := range map[string]Question{"everything": fullQuestion(), "as little as can be": {Job: mustID(uuid), Deadline: time.Millisecond}} {
		data, err := q.Marshal()
		require.NoError(t, err, name)
		got, err := ParseQuestion(data)
		require.NoError(t, err, name)
		require.Equal(t, q, got, name)
	}
	for name, change := range map[string]func(*Question){
		"no job":              func(q *Question) { q.Job = job.ID{} },
		"no deadline":         func(q *Question) { q.Deadline = 0 },
		"a deadline long ago": func(q *Question) { q.Deadline = -time.Second },
		"a deadline too far":  func(q *Question) { q.Deadline = MaxDeadline + time.Millisecond },
		"a fine deadline":     func(q *Question) { q.Deadline = time.Microsecond },
		"fewer than none":     func(q *Question) { q.PerMinute = -1 },
		"not UTF-8":           func(q *Question) { q.Pipeline = "\xff" },
		"too large":           func(q *Question) { q.Pipeline = strings.Repeat("x", MaxText) },
	} {
		q := fullQuestion()
		change(&q)
		_, err := q.Marshal()
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestParseQuestionRefuses(t *testing.T) {
	data, err := fullQuestion().Marshal()
	require.NoError(t, err)
	refuses(t, data, func(text []byte) (any, error) { return ParseQuestion(text) }, Question{}, map[string][2]string{
		"another version":  {`"version":1`, `"version":2`},
		"an unknown key":   {`"version":1`, `"version":1,"x":1`},
		"a key twice":      {`"version":1`, `"version":1,"version":1`},
		"upper case":       {`"version"`, `"Version"`},
		"blanks":           {`"version":1`, `"version": 1`},
		"no UUID":          {`"job":"` + uuid, `"job":"` + strings.ToUpper(uuid)},
		"a far deadline":   {`"deadline_ms":60000`, `"deadline_ms":9223372036854775807`},
		"no deadline":      {`"deadline_ms":60000`, `"deadline_ms":0`},
		"fewer than none":  {`"per_minute":50`, `"per_minute":-50`},
		"an escape":        {`"number":"42"`, `"number":"\u00342"`},
		"half a character": {`"number":"42"`, `"number":"\ud800"`},
		"a number":         {`"number":"42"`, `"number":42`},
	})
}

// refuses tries damaged texts. Nothing of them is in an error.
func refuses(t *testing.T, data []byte, parse func([]byte) (any, error), zero any, changes map[string][2]string) {
	texts := map[string][]byte{
		"nothing": {}, "null": []byte("null"), "half of it": data[:len(data)/2], "all but a byte": data[:len(data)-1],
		"something behind it": append(bytes.Clone(data), '\n'), "two": append(bytes.Clone(data), data...),
		"too large": append(bytes.Clone(data), bytes.Repeat([]byte(" "), MaxText)...),
	}
	for name, c := range changes {
		require.Contains(t, string(data), c[0], name)
		texts[name] = bytes.Replace(data, []byte(c[0]), []byte(c[1]), 1)
	}
	for name, text := range texts {
		got, err := parse(text)
		require.ErrorIs(t, err, ErrMalformed, name)
		require.Equal(t, ErrMalformed.Error(), err.Error(), name)
		require.Equal(t, zero, got, name)
	}
}

func TestAnswer(t *testing.T) {
	for name, a := range map[string]Answer{
		"everything":  fullAnswer(),
		"one build":   {Attestation: attestation(1)},
		"many builds": {Attestation: chain(MaxBuilds)},
		"nothing":     {Attestation: &trust.Attestation{ID: id(1), Build: job.Facts{Origin: job.Attested}}},
		"a refusal":   {Refusal: &Refusal{Reason: "no <b> …", Hint: "again", Outage: true}},
		"no outage":   {Refusal: &Refusal{Reason: "no"}},
	} {
		data, err := a.Marshal()
		require.NoError(t, err, name)
		require.NotContains(t, string(data), "\n", name)
		got, err := ParseAnswer(data)
		require.NoError(t, err, name)
		require.Equal(t, a, got, name)
	}
	with := func(change func(*trust.Attestation)) Answer {
		a := fullAnswer()
		change(a.Attestation)
		return a
	}
	for name, a := range map[string]Answer{
		"neither":                  {},
		"both":                     {Attestation: attestation(1), Refusal: &Refusal{Reason: "no"}},
		"no reason":                {Refusal: &Refusal{Hint: "again"}},
		"a reason of two lines":    {Refusal: &Refusal{Reason: "no\n+++ yes"}},
		"an escape in the hint":    {Refusal: &Refusal{Reason: "no", Hint: "\x1b[31m"}},
		"a letter from elsewhere":  {Refusal: &Refusal{Reason: "gіthub"}},
		"too many builds":          {Attestation: chain(MaxBuilds + 1)},
		"no id":                    with(func(a *trust.Attestation) { a.ID = "" }),
		"claimed":                  with(func(a *trust.Attestation) { a.Build.Origin = job.Claimed }),
		"an event":                 with(func(a *trust.Attestation) { a.Build.Event = "push" }),
		"doubt":                    with(func(a *trust.Attestation) { a.Build.Doubt = "x" }),
		"not UTF-8":                with(func(a *trust.Attestation) { a.Build.Tag = "\xff" }),
		"another trigger":          with(func(a *trust.Attestation) { a.Build.TriggeredFrom = id(9) }),
		"a trigger that is missed": with(func(a *trust.Attestation) { a.TriggeredBy = nil }),
		"a trigger without a name": with(func(a *trust.Attestation) { a.Build.TriggeredFrom = "" }),
		"another original":         with(func(a *trust.Attestation) { a.TriggeredBy.Build.RebuiltFrom = id(9) }),
		"too large":                with(func(a *trust.Attestation) { a.Build.Branch = strings.Repeat("x", MaxText) }),
	} {
		_, err := a.Marshal()
		require.Error(t, err, name)
	}
}

func TestParseAnswerRefuses(t *testing.T) {
	parse := func(text []byte) (any, error) { return ParseAnswer(text) }
	data, err := fullAnswer().Marshal()
	require.NoError(t, err)
	refuses(t, data, parse, Answer{}, map[string][2]string{
		"another version":   {`"version":1`, `"version":2`},
		"an unknown key":    {`"tag":"v1"`, `"tag":"v1","event":"push"`},
		"a key twice":       {`"tag":"v1"`, `"tag":"v1","tag":"v1"`},
		"upper case":        {`"id":"` + id(1), `"id":"` + strings.ToUpper(id(1))},
		"no attestation":    {`"attestation":{`, `"attestation":null,"x":{`},
		"both":              {`"refusal":null`, `"refusal":{"reason":"x","hint":"","outage":false}`},
		"a raw control":     {`\u001b`, "\x1b"},
		"not UTF-8":         {`"tag":"v1"`, "\"tag\":\"\xff\""},
		"half a character":  {`"tag":"v1"`, `"tag":"\ud800"`},
		"null for a text":   {`"tag":"v1"`, `"tag":null`},
		"a number":          {`"pull_request":"false"`, `"pull_request":17`},
		"a key less":        {`"tag":"v1",`, ``},
		"keys out of order": {`"branch":"main\u003c\u001b\n","tag":"v1"`, `"tag":"v1","branch":"main\u003c\u001b\n"`},
	})
	data, err = Answer{Refusal: &Refusal{Reason: "no", Hint: "again"}}.Marshal()
	require.NoError(t, err)
	refuses(t, data, parse, Answer{}, map[string][2]string{
		"no reason": {`"reason":"no"`, `"reason":""`},
		"a control": {`"reason":"no"`, `"reason":"\u001b"`},
		"neither":   {`"refusal":{"reason":"no","hint":"again","outage":false}`, `"refusal":null`},
	})
	deep := []byte(`{"version":1,"attestation":` + strings.Repeat(`{"triggered_by":`, 60000))
	_, err = ParseAnswer(deep)
	require.ErrorIs(t, err, ErrMalformed)
}

// FuzzParseQuestion: what is accepted has one spelling.
func FuzzParseQuestion(f *testing.F) {
	data, err := fullQuestion().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := ParseQuestion(data)
		if err != nil {
			require.True(t, errors.Is(err, ErrMalformed))
			require.Zero(t, q)
			return
		}
		again, err := q.Marshal()
		require.NoError(t, err)
		require.Equal(t, data, again)
		require.Greater(t, q.Deadline, time.Duration(0))
		require.LessOrEqual(t, q.Deadline, MaxDeadline)
	})
}

// FuzzParseAnswer: what is accepted has one spelling, and is a small tree of builds
// whose ids fit, or a refusal that can be printed.
func FuzzParseAnswer(f *testing.F) {
	for _, a := range []Answer{fullAnswer(), {Attestation: chain(MaxBuilds)}, {Refusal: &Refusal{Reason: "no", Hint: "again", Outage: true}}} {
		data, err := a.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAnswer(data)
		if err != nil {
			require.True(t, errors.Is(err, ErrMalformed))
			require.Zero(t, a)
			return
		}
		again, err := a.Marshal()
		require.NoError(t, err)
		require.Equal(t, data, again)
		require.NotEqual(t, a.Attestation == nil, a.Refusal == nil)
		if a.Refusal != nil {
			require.NotContains(t, a.Refusal.Reason+a.Refusal.Hint, "\n")
			return
		}
		count := 0
		var walk func(*trust.Attestation)
		walk = func(a *trust.Attestation) {
			count++
			_, err := job.ParseID(a.ID)
			require.NoError(t, err)
			require.Equal(t, job.Attested, a.Build.Origin)
			for named, from := range map[*string]*trust.Attestation{&a.Build.TriggeredFrom: a.TriggeredBy, &a.Build.RebuiltFrom: a.RebuiltFrom} {
				require.Equal(t, *named == "", from == nil)
				if from != nil {
					require.Equal(t, *named, from.ID)
					walk(from)
				}
			}
		}
		walk(a.Attestation)
		require.LessOrEqual(t, count, MaxBuilds)
	})
}
