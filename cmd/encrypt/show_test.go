//go:build !js

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
