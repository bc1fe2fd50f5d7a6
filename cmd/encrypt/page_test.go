//go:build !js

package main

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

// noKey has the form of a private key only.
const noKey = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm9uZQ==\n-----END OPENSSH PRIVATE KEY-----\n"

var pageNow = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

// filled is a form in which only the value is missing, and who opens it.
func filled(t *testing.T) (form, *age.X25519Identity) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return form{Name: "TOKEN_A", Repos: "https://github.com/JuliaGPU/CUDA.jl", Recipients: id.Recipient().String()}, id
}

func TestPageSeals(t *testing.T) {
	for about, tt := range map[string]struct {
		change      func(*form)
		value, want string // want empty: as value
		label       string // its lines from the scope on
		notes       []string
	}{
		"a token":                {nil, "hunter2-canary", "", "repo: github.com/juliagpu/cuda.jl\n", nil},
		"with blanks around":     {func(f *form) { f.Name, f.Repos = " A ", " github.com/juliagpu/cuda.jl\n" }, "hunter2-canary", "", "repo: github.com/juliagpu/cuda.jl\n", nil},
		"a newline at the end":   {nil, "hunter2-canary\n", "hunter2-canary", "repo: github.com/juliagpu/cuda.jl\n", []string{"the line break at the end of the value was dropped"}},
		"a private key":          {nil, noKey, noKey, "repo: github.com/juliagpu/cuda.jl\n", nil},
		"Documenter's":           {func(f *form) { f.Name, f.Base64 = "DOCUMENTER_KEY", true }, noKey, base64.StdEncoding.EncodeToString([]byte(noKey)), "repo: github.com/juliagpu/cuda.jl\n", nil},
		"bytes that are no text": {func(f *form) { f.Base64 = true }, "\xff\x00\xfe\xff", "/wD+/w==", "repo: github.com/juliagpu/cuda.jl\n", nil},
		"a word":                 {nil, "production", "", "repo: github.com/juliagpu/cuda.jl\n", []string{"the value is a common word: masking hides it wherever a log uses it"}},
		"a name that v4 rejects": {func(f *form) { f.Name = "CODECOV_TOKEN" }, "hunter2-canary", "", "repo: github.com/juliagpu/cuda.jl\n",
			[]string{"agent v4 (v3 with --reject-secrets) uploads no variable called *_TOKEN"}},
		"any repository": {func(f *form) { f.Repos, f.AnyRepo = "", true }, "hunter2-canary", "", "scope: any\n", []string{opensAnywhere}},
		"a pipeline":     {func(f *form) { f.Repos, f.Pipelines = "", "juliagpu/cuda-jl" }, "hunter2-canary", "", "pipeline: juliagpu/cuda-jl\n", nil},
		"all of it": {func(f *form) {
			f.Repos += " git@github.com:JuliaGPU/AMDGPU.jl"
			f.Pipelines, f.Branches, f.Tags, f.Expires, f.NoPullRequests = "juliagpu/b juliagpu/a", "main release-*", "v*", "2027-06-30", true
		}, "hunter2-canary", "", "repo: github.com/juliagpu/amdgpu.jl\nrepo: github.com/juliagpu/cuda.jl\npipeline: juliagpu/a\npipeline: juliagpu/b\n" +
			"branch: main\nbranch: release-*\ntag: v*\npull-requests: no\nexpires: 2027-06-30T00:00:00Z\n", nil},
	} {
		t.Run(strings.ReplaceAll(about, " ", "_"), func(t *testing.T) {
			f, id := filled(t)
			if tt.change != nil {
				tt.change(&f)
			}
			a := f.seal([]byte(tt.value), pageNow, "")
			require.Empty(t, a.Problems)
			m := printed.FindStringSubmatch(a.Lines)
			require.NotNil(t, m, a.Lines)
			opened, err := envelope.Open(m[3], id)
			require.NoError(t, err)
			if tt.want == "" {
				tt.want = tt.value
			}
			require.Equal(t, tt.want, opened.Value.Reveal())
			label, err := opened.Label.Marshal()
			require.NoError(t, err)
			require.Equal(t, "name: "+strings.TrimSpace(f.Name)+"\nto: "+envelope.Fingerprint(f.Recipients)+"\n"+tt.label, string(label))
			require.Contains(t, a.Closing, "opens for "+envelope.Fingerprint(f.Recipients)+" in ")
			var notes []string
			for _, n := range a.Notes {
				notes = append(notes, n.Text)
			}
			require.Equal(t, tt.notes, notes)
			require.Equal(t, a.Rename != "", strings.HasSuffix(f.Name, "_TOKEN"))
			if a.Rename != "" {
				require.Equal(t, strings.Replace(a.Lines, "SECRET_CODECOV_TOKEN:", "SECRET_CODECOV_TOKEN_SEALED:", 1), a.Renamed)
			}
		})
	}
}

// wrongTurns are forms that seal nothing, with the field at fault.
func wrongTurns(t *testing.T) map[string]struct {
	change      func(*form)
	value       string
	field, text string
} {
	id, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	type row = struct {
		change      func(*form)
		value       string
		field, text string
	}
	const fine = "hunter2-canary"
	return map[string]row{
		"no name":                      {func(f *form) { f.Name = " " }, fine, "Name", "is missing"},
		"a bad name":                   {func(f *form) { f.Name = "A-B" }, fine, "Name", "letters, digits and _"},
		"a value as name":              {func(f *form) { f.Name = "ghp_canary!" }, fine, "Name", "letters, digits and _"},
		"a name with prefix":           {func(f *form) { f.Name = "SECRET_A" }, fine, "Name", "has the prefix already"},
		"a protected name":             {func(f *form) { f.Name = "LD_PRELOAD" }, fine, "Name", "decides which code runs"},
		"no value":                     {nil, "", "Value", "empty"},
		"a short value":                {nil, "canar", "Value", "shorter"},
		"a large value":                {nil, strings.Repeat("canary", 20000), "Value", "larger"},
		"a NUL":                        {nil, "canary\x00canary", "Value", "NUL"},
		"no UTF-8":                     {nil, "canary\xff", "Value", "UTF-8"},
		"one letter":                   {nil, "xxxxxxxx", "Value", "repeated"},
		"an identity":                  {nil, id.String(), "Value", "identity"},
		"a key for Documenter":         {func(f *form) { f.Name = "DOCUMENTER_KEY" }, noKey, "Value", "reads its base64"},
		"no key for Documenter":        {func(f *form) { f.Name = "DOCUMENTER_KEY" }, fine, "Value", "not the base64 of a private key"},
		"no repository":                {func(f *form) { f.Repos = "" }, fine, "Repos", "missing"},
		"a path":                       {func(f *form) { f.Repos = "./cuda.jl" }, fine, "Repos", "not"},
		"no forge":                     {func(f *form) { f.Repos = "JuliaGPU/CUDA.jl" }, fine, "Repos", "which forge"},
		"any repository and one":       {func(f *form) { f.AnyRepo = true }, fine, "Repos", "is ticked"},
		"no recipient":                 {func(f *form) { f.Recipients = "# none" }, fine, "Recipients", "no recipient"},
		"no recipient of this page":    {func(f *form) { f.BuiltIn = true }, fine, "Recipients", "no recipient"},
		"a recipient that is cut":      {func(f *form) { f.Recipients = f.Recipients[:40] }, fine, "Recipients", "don't add up"},
		"an identity as recipient":     {func(f *form) { f.Recipients = id.String() }, fine, "Recipients", "private half"},
		"two kinds of recipients":      {func(f *form) { f.Recipients += "\n" + id.Recipient().String() }, fine, "Recipients", "does not mix"},
		"a pipeline without its owner": {func(f *form) { f.Pipelines = "cuda-jl" }, fine, "Pipelines", "organization/pipeline"},
		"a branch in other letters":    {func(f *form) { f.Branches = "größer" }, fine, "Branches", "pattern"},
		"a tag in other letters":       {func(f *form) { f.Tags = "größer" }, fine, "Tags", "pattern"},
		"past":                         {func(f *form) { f.Expires = "2027-01-31" }, fine, "Expires", "past"},
		"half a date":                  {func(f *form) { f.Expires = "half a date" }, fine, "Expires", "not a time"},
		"the year 10000":               {func(f *form) { f.Expires = "9999y" }, fine, "Expires", "9999"},
		"more scope than a label has":  {func(f *form) { f.Branches = strings.Repeat("b", 5000) }, fine, "Branches", "4 KiB"},
	}
}

// TestPageRefuses: one problem, at its field, with what to do and without the value.
func TestPageRefuses(t *testing.T) {
	for about, tt := range wrongTurns(t) {
		f, _ := filled(t)
		if tt.change != nil {
			tt.change(&f)
		}
		a := f.seal([]byte(tt.value), pageNow, "")
		require.Len(t, a.Problems, 1, about)
		p := a.Problems[0]
		assert.Equal(t, tt.field, p.Field, about)
		assert.Contains(t, p.Text, tt.text, about)
		assert.NotEmpty(t, p.Hint, "%s: %s", about, p.Text)
		assert.NotContains(t, p.Text+p.Hint, "canary", about)
		assert.Empty(t, a.Lines, about)
	}
}

// TestPageRefusesAllAtOnce, in the order of its fields.
func TestPageRefusesAllAtOnce(t *testing.T) {
	a := form{Name: "A-B", Repos: "a/b", Recipients: "age1", Pipelines: "a", Tags: "ü", Branches: "ü", Expires: "1d ago"}.seal(nil, pageNow, "")
	var got []string
	for _, p := range a.Problems {
		got = append(got, p.Field)
	}
	require.Equal(t, order, got)
}

// TestPageSpeaksOfThePage: no text is about flags, a prompt or a pipe.
func TestPageSpeaksOfThePage(t *testing.T) {
	command := regexp.MustCompile(`encrypt [A-Z-]|(^|[ (])--?[a-zR]|\||prompt`)
	judge := func(about, text, hint string) {
		text = strings.NewReplacer("(v3 with --reject-secrets)", "", "age-keygen -y", "").Replace(text) // others' flags
		assert.NotRegexp(t, command, text, about)
		assert.NotRegexp(t, command, hint, about)
	}
	for about, tt := range wrongTurns(t) {
		f, _ := filled(t)
		if tt.change != nil {
			tt.change(&f)
		}
		for _, p := range f.seal([]byte(tt.value), pageNow, "").Problems {
			judge(about, p.Text, p.Hint)
		}
	}
	for _, value := range []string{
		"\ufeffhunter2-canary", "hunter2\r\ncanary", " hunter2-canary", `"hunter2-canary"`, "TOKEN_A=hunter2", "production",
		strings.Repeat("ab", 172) + "==", strings.TrimSpace(noKey), base64.StdEncoding.EncodeToString([]byte(strings.TrimSpace(noKey))),
	} {
		for _, name := range []string{"TOKEN_A", "CODECOV_TOKEN", "DOCUMENTER_KEY"} {
			f, _ := filled(t)
			f.Name, f.Repos, f.AnyRepo = name, "", true
			a := f.seal([]byte(value), pageNow, "")
			for _, n := range a.Notes {
				judge(value, n.Text, n.Hint)
			}
			judge(value, a.Closing, "")
		}
	}
}

// TestPageLooks: before Seal it shows what the fields mean.
func TestPageLooks(t *testing.T) {
	f, _ := filled(t)
	f.Name = ""
	a := f.look(pageNow, "")
	require.Equal(t, "github.com/juliagpu/cuda.jl", a.Place)
	require.Equal(t, envelope.Fingerprint(f.Recipients), a.To)
	require.Len(t, a.Problems, 1, "the name; a value was not asked for")

	f.BuiltIn = true
	embedded := f.Recipients + " # The Lab\n"
	require.Equal(t, []string{envelope.Fingerprint(f.Recipients) + " (The Lab)"}, sites(embedded))
	require.Equal(t, sites(embedded)[0], f.look(pageNow, embedded).To)
}
