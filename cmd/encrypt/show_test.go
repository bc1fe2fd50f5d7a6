//go:build !js

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
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
		got := examine(pipeline.Sealed{Name: "SECRET_A", Text: text}, nil, now)
		assert.Equal(t, tt.want, strings.Join(got.Warnings, "; "), tt.about)
		assert.Equal(t, !now.Before(tt.expires), got.Label.Expired, tt.about)
	}
}

// TestLoneValue: what is one value rather than a file of them.
func TestLoneValue(t *testing.T) {
	const sealed = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+"
	for _, tt := range []struct{ about, text, name string }{
		{"bare", sealed, ""},
		{"with a line end", sealed + "\r\n", ""},
		{"in quotes", `"` + sealed + `"`, ""},
		{"as in env:", "  SECRET_A: \"" + sealed + "\"\n", "SECRET_A"},
		{"as env prints it", "SECRET_A=" + sealed, "SECRET_A"},
		{"as a shell takes it", "export SECRET_A='" + sealed + "'", "SECRET_A"},
		{"as in JSON", `"SECRET_A": "` + sealed + `",`, "SECRET_A"},
		{"as in a list", "- SECRET_A=" + sealed, "SECRET_A"},
		{"broken into lines", sealed[:28] + "\n" + sealed[28:], ""},
	} {
		got, ok := loneValue([]byte(tt.text))
		assert.True(t, ok, tt.about)
		assert.Equal(t, tt.name, got.Name, tt.about)
		assert.True(t, strings.HasPrefix(got.Text, sealed[:28]), tt.about)
	}
	for _, text := range []string{"", "\n", "hunter2", "SECRET_A: hunter2", "env:\n  SECRET_A: " + sealed, "OTHER=" + sealed} {
		_, ok := loneValue([]byte(text))
		assert.False(t, ok, text)
	}
}

func TestFindDuplicates(t *testing.T) {
	value := func(variable string, line int, steps []string, sets ...string) shown {
		return shown{Variable: variable, Line: line, Steps: steps, sets: sets}
	}
	docs, test := []string{"docs"}, []string{"test"}
	for _, tt := range []struct {
		about string
		all   []shown
		want  int
	}{
		{"two variables", []shown{value("SECRET_A", 1, nil, "A"), value("SECRET_B", 2, nil, "B")}, 0},
		{"both names of one", []shown{value("SECRET_A", 1, nil, "A"), value("SECRET_A_SEALED", 2, nil, "A")}, 1},
		{"a bundle that has it too", []shown{value("SECRET_A", 1, nil, "A"), value("SECRET_CI", 2, docs, "A", "B")}, 1},
		{"two bundles with two", []shown{value("SECRET_CI", 1, nil, "A", "B"), value("SECRET_CD", 2, nil, "A", "B")}, 2},
		{"in two steps", []shown{value("SECRET_A", 1, docs, "A"), value("SECRET_A_SEALED", 2, test, "A")}, 0},
		{"one that sets what carries another", []shown{value("SECRET_B", 1, nil, "B"), value("SECRET_X", 2, nil, "SECRET_B")}, 1},
		{"the same again for one step", []shown{value("SECRET_A", 1, nil, "A"), value("SECRET_A", 2, docs, "A")}, 0},
		{"the same twice in one place", []shown{value("SECRET_A", 1, nil, "A"), value("SECRET_A", 2, nil, "A")}, 1},
		{"malformed ones", []shown{value("SECRET_A", 1, nil), value("SECRET_A_SEALED", 2, nil)}, 0},
	} {
		findDuplicates(tt.all)
		errors := 0
		for _, v := range tt.all {
			errors += len(v.Errors)
		}
		assert.Equal(t, tt.want, errors, tt.about)
	}
}

func TestAgeType(t *testing.T) {
	assert.Equal(t, "X25519", ageType([]string{"X25519", "X25519"}))
	assert.Equal(t, "post-quantum (mlkem768x25519)", ageType([]string{"mlkem768x25519"}))
	assert.Equal(t, `"\"" (not known), X25519, ssh-rsa (not known)`, ageType([]string{"ssh-rsa", "X25519", `"`}), "anyone may write a stanza")
}

// FuzzShow: whatever the text, nothing of it but printable ASCII gets out, in
// words and in JSON.
func FuzzShow(f *testing.F) {
	f.Add("env:\n  \"SECRET_\\e[2J\": YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+\n")
	f.Add("SECRET_A=YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+\x1b[2J")
	f.Add("steps:\n- {key: \"\u202e\", env: {SECRET_A: b}}\n")
	f.Add("env: {SECRET_A: [\x00")
	f.Fuzz(func(t *testing.T, text string) {
		for _, args := range [][]string{{"show", "-"}, {"show", "-", "--json"}} {
			var stdout, stderr bytes.Buffer
			run(args, nil, strings.NewReader(text), &stdout, &stderr)
			shown := strings.ReplaceAll(stdout.String()+stderr.String(), "…", "") // escape's own
			require.Equal(t, -1, strings.IndexFunc(shown, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }), "%q", shown)
		}
	})
}
