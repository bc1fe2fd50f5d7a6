package settings

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// split is a file with the keys of split mode.
const split = `mode: split
identities: [{file: /run/juliagpu-secrets/identity}]
users: {trusted: "4711:4712", other: nobody}
reject:
  repositories: [github.com/mallory/*]
  pipelines: [juliagpu/nightly]
  variables: [loader, agent]
`

func TestParseSplit(t *testing.T) {
	got, err := Parse([]byte(split))
	require.NoError(t, err)
	require.Equal(t, Settings{
		Mode:       Split,
		Isolation:  Isolation{Expect: Container},
		Identities: []IdentityFile{{Path: "/run/juliagpu-secrets/identity"}},
		Users:      Users{Trusted: User{"4711:4712", 4711, 4712}, Other: User{Name: "nobody"}},
		Reject:     Reject{[]trust.Pattern{"github.com/mallory/*"}, []string{"juliagpu/nightly"}, []string{"loader", "agent"}},
	}, got)
	require.Equal(t, got.Users.Trusted, got.Users.Of(true))
	require.Equal(t, got.Users.Other, got.Users.Of(false))

	got, err = Parse([]byte("mode: split\nidentities: [{file: /i}]\nconsume: true\nreason: jobs must be root\n"))
	require.NoError(t, err)
	require.Equal(t, Users{}, got.Users)
	require.Equal(t, "jobs must be root", got.Reason)
}

// TestParseSplitErrors: a text that begins with + stands below a good file of two lines.
func TestParseSplitErrors(t *testing.T) {
	const good = "mode: split\nidentities: [{file: /i}]\n"
	const oneUser = "make a second user: caches of jobs without secrets must not reach jobs with them"
	const forms = `write a user's name, or its numbers as in "4711:4711"`
	const asRoot = "make a user for jobs; where they must be root, leave users out"
	for _, tt := range []struct{ name, text, want, hint string }{
		{"no users, and the identity stays", "", "1:1: consume: missing", "write consume: true, or users of their own for jobs: else every job can read the identity"},
		{"users in direct mode", "mode: direct\nreason: x\nidentities: [{file: /i}]\nusers: {trusted: a, other: b}", "1:1: users: direct mode has no users of its own for jobs", "leave them out, or write mode: split"},
		{"text", "users: x", "3:8: users: text, where a mapping (key: value) belongs", "write a mapping (key: value)"},
		{"one user", "users: {trusted: a}", "3:8: users.other: missing", "name both users, or leave users out"},
		{"the same user", "users: {trusted: a, other: a}", "3:8: users: one user for both", oneUser},
		{"root", "users: {trusted: root, other: b}", "3:18: users.trusted: jobs as root", asRoot},
		{"root by number", "users: {trusted: a, other: 0}", "3:28: users.other: jobs as root", asRoot},
		{"root by both numbers", "users: {trusted: \"0:4711\", other: b}", "3:18: users.trusted: jobs as root", asRoot},
		{"a number too many", "users: {trusted: \"1:2:3\", other: b}", "3:18: users.trusted: neither a name nor UID:GID", forms},
		{"another spelling", "users: {trusted: \"04711:1\", other: b}", "3:18: users.trusted: neither a name nor UID:GID", forms},
		{"a number too large", "users: {trusted: \"4294967296:1\", other: b}", "3:18: users.trusted: neither a name nor UID:GID", forms},
		{"below zero", "users: {trusted: -1, other: b}", "3:18: users.trusted: neither a name nor UID:GID", forms},
		{"a path", "users: {trusted: a/b, other: b}", "3:18: users.trusted: neither a name nor UID:GID", forms},
		{"a pipeline", "reject: {pipelines: [cuda]}", "3:22: reject.pipelines: not organization/pipeline, both as slugs", "take both from the pipeline's address, buildkite.com/organization/pipeline"},
		{"variables", "reject: {variables: [laoder]}", "3:22: reject.variables: not a group of variables", "write loader"},
		{"variables twice", "reject: {variables: [git, git]}", "3:27: reject.variables: listed twice", "keep one"},
		{"all variables", "reject: {variables: all}", "3:21: reject.variables: text, where a list (- item) belongs", "write a list (- item)"},
		{"rejecting nothing", "reject: {}", "3:9: reject: nothing in it", "leave the key out, or say something"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text
			if len(text) < 5 || text[:5] != "mode:" {
				text = good + text
			}
			s, err := Parse([]byte(text))
			require.Empty(t, s)
			var e *strict.Error
			require.ErrorAs(t, err, &e)
			assert.EqualError(t, err, tt.want)
			assert.Equal(t, tt.hint, e.Hint())
		})
	}
}

// TestLookUsers: a name and a number are looked up, both numbers are not.
func TestLookUsers(t *testing.T) {
	root := User{Name: "0"}
	require.EqualError(t, root.look("other"), "users.other: jobs as root", "whatever root is called")
	nobody := User{Name: "hunter2"}
	require.EqualError(t, nobody.look("other"), "users.other: no such user on this machine")
	nobody = User{Name: "2147483647"}
	require.EqualError(t, nobody.look("other"), "users.other: no such user on this machine")
	both := Users{Trusted: User{"4711:1", 4711, 1}, Other: User{"4711:2", 4711, 2}}
	require.EqualError(t, both.look(), "users: one user for both")
	both.Other = User{"4712:1", 4712, 1}
	require.EqualError(t, both.look(), "users: one group for both")
	both.Other = User{"4712:0", 4712, 0}
	require.EqualError(t, both.look(), "users: a user in root's group")
	both.Other = User{"4712:2", 4712, 2}
	require.NoError(t, both.look())
	none := Users{}
	require.NoError(t, none.look())
}

// TestLoadSplit: a file that the hooks' user can change is good for direct mode alone.
func TestLoadSplit(t *testing.T) {
	need.Root(t, "to give files to other users")
	path := write(t, t.TempDir(), "mode: split\nidentities: [{file: /i}]\nconsume: true\n")
	s, err := Load(path, 4711)
	require.NoError(t, err)
	require.Equal(t, Split, s.Mode)
	require.NoError(t, os.Chown(path, 4711, -1))
	_, err = Load(path, 4711)
	require.EqualError(t, err, path+": mode: split, but the user of the hooks (uid 4711) could change this file")
}

// TestDocumentedConfigurations: what the pages show can be pasted.
func TestDocumentedConfigurations(t *testing.T) {
	for page, want := range map[string]int{"README.md": 2, "docs/operators.md": 2, "docs/macos.md": 1} {
		text, err := os.ReadFile("../../" + page)
		require.NoError(t, err)
		found := 0
		for i, block := range strings.Split(string(text), "```") {
			_, config, _ := strings.Cut(block, "\n")
			if i%2 == 0 || !strings.Contains(config, "identities:") {
				continue
			}
			found++
			_, err := Parse([]byte(config))
			require.NoError(t, err, "%s:\n%s", page, config)
		}
		require.Equal(t, want, found, page)
	}
}
