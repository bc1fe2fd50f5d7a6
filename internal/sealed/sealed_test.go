package sealed

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// TestExpiryIsMarked from 30 days before.
func TestExpiryIsMarked(t *testing.T) {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	to, err := envelope.ParseRecipient(identity.Recipient().String())
	require.NoError(t, err)
	for _, tt := range []struct {
		about   string
		expires time.Time
		want    string
	}{
		{"past", now.AddDate(-20, 0, 0), "expired: agents withhold it"},
		{"now", now, "expired: agents withhold it"},
		{"in a second", now.Add(time.Second), "it expires within two days"},
		{"in a day", now.AddDate(0, 0, 1), "it expires within two days"},
		{"in two days and a half", now.Add(60 * time.Hour), "it expires in 2 days"},
		{"in 30 days", now.AddDate(0, 0, 30), "it expires in 30 days"},
		{"in 30 days and a second", now.AddDate(0, 0, 30).Add(time.Second), ""},
		{"in more years than a duration has", now.AddDate(900, 0, 0), ""},
	} {
		text, err := envelope.Seal(envelope.Label{Name: "A", Any: true, Expires: tt.expires}, plaintext.New("hunter2-canary"), to)
		require.NoError(t, err)
		got := Read(pipeline.Sealed{Name: "SECRET_A", Text: text})
		var texts []string
		for _, p := range got.Problems(now, nil) {
			assert.False(t, p.Refused, tt.about)
			texts = append(texts, p.Text)
		}
		assert.Equal(t, tt.want, strings.Join(texts, "; "), tt.about)
		assert.Equal(t, !now.Before(tt.expires), got.Expired(now), tt.about)
	}
}

func TestDuplicates(t *testing.T) {
	value := func(variable string, line int, steps []string, sets ...string) Value {
		return Value{Variable: variable, Line: line, Steps: steps, Sets: sets}
	}
	docs, test := []string{"docs"}, []string{"test"}
	for _, tt := range []struct {
		about string
		all   []Value
		want  int
	}{
		{"two variables", []Value{value("SECRET_A", 1, nil, "A"), value("SECRET_B", 2, nil, "B")}, 0},
		{"both names of one", []Value{value("SECRET_A", 1, nil, "A"), value("SECRET_A_SEALED", 2, nil, "A")}, 1},
		{"a bundle that has it too", []Value{value("SECRET_A", 1, nil, "A"), value("SECRET_CI", 2, docs, "A", "B")}, 1},
		{"two bundles with two", []Value{value("SECRET_CI", 1, nil, "A", "B"), value("SECRET_CD", 2, nil, "A", "B")}, 2},
		{"in two steps", []Value{value("SECRET_A", 1, docs, "A"), value("SECRET_A_SEALED", 2, test, "A")}, 0},
		{"one that sets what carries another", []Value{value("SECRET_B", 1, nil, "B"), value("SECRET_X", 2, nil, "SECRET_B")}, 1},
		{"the same again for one step", []Value{value("SECRET_A", 1, nil, "A"), value("SECRET_A", 2, docs, "A")}, 0},
		{"the same twice in one place", []Value{value("SECRET_A", 1, nil, "A"), value("SECRET_A", 2, nil, "A")}, 1},
		{"malformed ones", []Value{value("SECRET_A", 1, nil), value("SECRET_A_SEALED", 2, nil)}, 0},
	} {
		problems := slices.Concat(Duplicates(tt.all)...)
		assert.Len(t, problems, tt.want, tt.about)
		for _, p := range problems {
			assert.True(t, p.Kind == Twice && p.Refused, tt.about)
		}
	}
}

// seal seals a canary.
func seal(t *testing.T, l envelope.Label) string {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	to, err := envelope.ParseRecipient(identity.Recipient().String())
	require.NoError(t, err)
	text, err := envelope.Seal(l, plaintext.New("hunter2-canary"), to)
	require.NoError(t, err)
	return text
}

// TestRead: each form, and what is wrong with it for ever.
func TestRead(t *testing.T) {
	name, err := repo.Parse("github.com/juliagpu/cuda.jl")
	require.NoError(t, err)
	labelled := seal(t, envelope.Label{Name: "A", Repos: []repo.Name{name}})
	rsa := strings.Repeat("A", 342) + "=="
	for _, tt := range []struct {
		about, variable, text string
		form                  Form
		wrong                 []Kind
		sets                  []string
	}{
		{"sealed", "SECRET_A", labelled, Labelled, nil, []string{"A"}},
		{"sealed, by itself", "", labelled, Labelled, nil, []string{"A"}},
		{"with the other name", "SECRET_A_SEALED", labelled, Labelled, nil, []string{"A"}},
		{"renamed", "SECRET_B", labelled, Labelled, []Kind{Renamed}, nil},
		{"cut", "SECRET_A", labelled[:60], Malformed, []Kind{Damaged}, nil},
		{"RSA", "SECRET_A", rsa, RSA, []Kind{Older}, []string{"A"}},
		{"RSA and AES", "SECRET_A", rsa + ";U2FsdGVkX1", RSAHybrid, []Kind{Older}, []string{"A"}},
		{"RSA for a name that no value sets", "SECRET_PATH", rsa, RSA, []Kind{Older, BadName}, nil},
		{"plain", "SECRET_A", "hunter2-canary", Other, []Kind{Plain}, nil},
		{"a word", "SECRET_A", "True", Other, []Kind{Trivial}, nil},
		{"a variable", "SECRET_A", "$HUNTER_2", Other, []Kind{Trivial}, nil},
		{"a variable in braces", "SECRET_A", "$${HUNTER_2}", Other, []Kind{Trivial}, nil},
		{"a variable with a default", "SECRET_A", "${HUNTER_2:-canary}", Other, []Kind{Plain}, nil},
		{"a dollar and more", "SECRET_A", "$hunter2-canary", Other, []Kind{Plain}, nil},
		{"empty", "SECRET_A", "", Empty, nil, nil},
	} {
		v := Read(pipeline.Sealed{Name: tt.variable, Text: tt.text, Line: 7})
		assert.Equal(t, tt.form, v.Form, tt.about)
		assert.Equal(t, tt.sets, v.Sets, tt.about)
		var kinds []Kind
		for _, p := range v.Wrong {
			kinds = append(kinds, p.Kind)
		}
		assert.Equal(t, tt.wrong, kinds, tt.about)

		// What is written down is the same again, and holds nothing of the text.
		text, err := json.Marshal(v)
		require.NoError(t, err)
		var again Value
		require.NoError(t, json.Unmarshal(text, &again))
		assert.Equal(t, v, again, tt.about)
		if len(tt.text) > 4 {
			assert.NotContains(t, string(text), tt.text[max(0, len(tt.text)-20):], tt.about)
		}
	}
}

// TestRecipients: those that nobody here knows.
func TestRecipients(t *testing.T) {
	v := Read(pipeline.Sealed{Name: "SECRET_A", Text: seal(t, envelope.Label{Name: "A", Any: true})})
	now := time.Unix(0, 0)
	require.Empty(t, v.Problems(now, nil))
	require.Empty(t, v.Problems(now, func(to string) bool { return to == v.Label.To[0] }))
	stranger := v.Problems(now, func(string) bool { return false })
	require.Len(t, stranger, 1)
	require.Equal(t, Unfamiliar, stranger[0].Kind)
	v.Stanzas = append(v.Stanzas, "X25519")
	require.Equal(t, Miscounted, v.Problems(now, nil)[0].Kind)
}
