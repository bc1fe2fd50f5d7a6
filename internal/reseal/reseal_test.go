package reseal

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope/openssl"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

var update = flag.Bool("update", false, "write the golden files anew; read them in the diff")

// A party holds an identity.
type party struct {
	identity.Identity
	recipient envelope.Recipient
}

func newParty(t testing.TB, hybrid bool) party {
	t.Helper()
	var key age.Identity
	var text string
	if hybrid {
		i, err := age.GenerateHybridIdentity()
		require.NoError(t, err)
		key, text = i, i.Recipient().String()
	} else {
		i, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		key, text = i, i.Recipient().String()
	}
	r, err := envelope.ParseRecipient(text)
	require.NoError(t, err)
	return party{identity.Identity{Fingerprint: r.Fingerprint(), Age: key}, r}
}

func recipients(all ...party) (to []envelope.Recipient) {
	for _, p := range all {
		to = append(to, p.recipient)
	}
	return to
}

func identities(all ...party) (held []identity.Identity) {
	for _, p := range all {
		held = append(held, p.Identity)
	}
	return held
}

func name(t testing.TB, s string) repo.Name {
	n, err := repo.Parse(s)
	require.NoError(t, err)
	return n
}

func label(t testing.TB) envelope.Label {
	return envelope.Label{Name: "TOKEN", Repos: []repo.Name{name(t, "github.com/juliagpu/cuda.jl")}}
}

func sealed(t testing.TB, l envelope.Label, value string, to ...party) string {
	t.Helper()
	text, err := envelope.Seal(l, plaintext.New(value), recipients(to...)...)
	require.NoError(t, err)
	return text
}

func entry(variable, text string) pipeline.Scalar {
	return pipeline.Scalar{Text: text, Line: 1, Entries: []pipeline.Sealed{{Name: variable, Text: text, Line: 1}}}
}

// TestRotateKeepsTheLabel: of each kind of label and value, and between the two kinds
// of recipients.
func TestRotateKeepsTheLabel(t *testing.T) {
	repos := []repo.Name{name(t, "github.com/juliagpu/cuda.jl"), name(t, "github.com/juliagpu/amdgpu.jl")}
	old, a, b, quantum := newParty(t, false), newParty(t, false), newParty(t, false), newParty(t, true)
	for about, tt := range map[string]struct {
		label envelope.Label
		value string
	}{
		"a value": {envelope.Label{Name: "A", Repos: repos}, "hunter2"},
		"all of it": {envelope.Label{Name: "A_SEALED", Repos: repos, Pipelines: []string{"juliagpu/cuda-jl"}, Branches: []string{"main", "release-*"},
			Tags: []string{"v*"}, NoPullRequest: true, Expires: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)}, "größer\n\n as is \r\n"},
		"anywhere, and past": {envelope.Label{Name: "A", Any: true, Expires: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}, "hunter2"},
		"a file":             {envelope.Label{Name: "A", Pipelines: []string{"o/p"}, Type: envelope.TypeFile}, "\x00\xff\x00bytes\n"},
		"credentials":        {envelope.Label{Name: "A", Repos: repos, Type: envelope.TypeGitCredentials}, "https://u:p@github.com\n"},
		"an SSH key":         {envelope.Label{Name: "A", Repos: repos, Type: envelope.TypeSSHKey}, "-----BEGIN\n"},
		"a bundle":           {envelope.Label{Name: "A", Repos: repos, Type: envelope.TypeBundle, Names: []string{"B", "C"}}, ` {"C": "hunter2",  "B":"hunter3"} `},
	} {
		for _, to := range [][]party{{a}, {a, b}, {quantum}, {old, a}} {
			text := sealed(t, tt.label, tt.value, old)
			again, fate := Rotate(identities(old), recipients(to...))(nil, entry("SECRET_A", text))
			require.Equal(t, Fate{Result: Resealed}, fate, about)
			require.NotEqual(t, text, again)
			for _, p := range to {
				opened, err := envelope.Open(again, p.Age)
				require.NoError(t, err, about)
				require.Equal(t, tt.value, opened.Value.Reveal(), about)
				before, err := envelope.Open(text, old.Age)
				require.NoError(t, err)
				require.Len(t, opened.Label.To, len(to))
				before.Label.To = opened.Label.To
				require.Equal(t, before.Label, opened.Label, about)
			}
			if len(to) == 1 {
				_, err := envelope.Open(again, old.Age)
				require.ErrorIs(t, err, envelope.ErrForeign, about)
			}
		}
	}
}

// TestRotateFates: what stays, and what is said of it.
func TestRotateFates(t *testing.T) {
	old, next, stranger := newParty(t, false), newParty(t, false), newParty(t, false)
	plain := sealed(t, label(t), "hunter2", old)
	unlabelled := func(to party) string {
		var b strings.Builder
		r, err := age.ParseX25519Recipient(to.recipient.String())
		require.NoError(t, err)
		w, err := age.Encrypt(&b, r)
		require.NoError(t, err)
		w.Write([]byte("hunter2"))
		require.NoError(t, w.Close())
		return base64.StdEncoding.EncodeToString([]byte(b.String()))
	}
	changed := []byte(sealed(t, label(t), "hunter2", old))
	if at := &changed[len(changed)-20]; *at == 'A' {
		*at = 'B'
	} else {
		*at = 'A'
	}
	for about, tt := range map[string]struct {
		text string
		held []party
		to   []party
		want Result
		says string
	}{
		"for the older one":                    {plain, []party{old}, []party{next}, Resealed, ""},
		"for the new one":                      {sealed(t, label(t), "hunter2", next), []party{old}, []party{next}, Already, "by its label: none of the identities opens it"},
		"for the new one, whose key is here":   {sealed(t, label(t), "hunter2", next), []party{old, next}, []party{next}, Already, ""},
		"for both, and the older one leaves":   {sealed(t, label(t), "hunter2", old, next), []party{next, old}, []party{next}, Resealed, ""},
		"for one of two":                       {sealed(t, label(t), "hunter2", old), []party{old}, []party{old, next}, Resealed, ""},
		"for both, and both stay":              {sealed(t, label(t), "hunter2", old, next), []party{old}, []party{next, old, next}, Already, ""},
		"for a stranger":                       {sealed(t, label(t), "hunter2", stranger), []party{old, next}, []party{next}, Failed, "sealed to " + stranger.Fingerprint + ", and none of the identities opens it"},
		"for the older one, it says the new":   {lying(t, old, next), []party{old}, []party{next}, Resealed, ""},
		"without a label":                      {unlabelled(old), []party{old}, []party{next}, Failed, "without a label"},
		"without a label, for nobody here":     {unlabelled(next), []party{old}, []party{next}, Failed, "none of the identities opens it"},
		"changed":                              {string(changed), []party{old}, []party{next}, Failed, "changed after it was sealed"},
		"cut off":                              {plain[:len(plain)-7], []party{old}, []party{next}, Failed, "the text ends early"},
		"cut off in its header":                {plain[:40], []party{old}, []party{next}, Failed, "its age header is damaged"},
		"a line break":                         {plain + "\n", []party{old}, []party{next}, Failed, "it holds a line break"},
		"no sealed value":                      {"hunter2", []party{old}, []party{next}, Ignored, ""},
		"nothing":                              {"", []party{old}, []party{next}, Ignored, ""},
		"an older form":                        {read(t, "bare.txt"), []party{old}, []party{next}, Older, "in the older RSA form"},
		"an older form of two parts":           {read(t, "hybrid.txt"), []party{old}, []party{next}, Older, "in the older RSA form"},
		"for the new one, and for more of one": {sealed(t, label(t), "hunter2", next, stranger), []party{old}, []party{next}, Failed, "none of the identities opens it"},
	} {
		text, fate := Rotate(identities(tt.held...), recipients(tt.to...))(nil, entry("SECRET_TOKEN", tt.text))
		require.Equal(t, tt.want, fate.Result, "%s: %+v", about, fate)
		require.Equal(t, tt.want == Resealed, text != "", about)
		require.Contains(t, fate.Reason, tt.says, about)
		require.Equal(t, tt.says == "", fate.Reason == "", "%s: %s", about, fate.Reason)
		require.Equal(t, tt.want == Failed || tt.want == Older, fate.Hint != "", "each failure says what to do: %s", about)
		require.NotContains(t, fate.Reason+fate.Hint, "hunter2")
	}
}

// lying is sealed for one, and its label names another: whoever seals may say so.
func lying(t *testing.T, to, named party) string {
	t.Helper()
	l := label(t)
	l.To = []string{named.Fingerprint}
	body, err := l.Marshal()
	require.NoError(t, err)
	r, err := age.ParseX25519Recipient(to.recipient.String())
	require.NoError(t, err)
	var b strings.Builder
	w, err := age.Encrypt(&b, liar(body), r)
	require.NoError(t, err)
	w.Write([]byte("hunter2"))
	require.NoError(t, w.Close())
	return base64.StdEncoding.EncodeToString([]byte(b.String()))
}

type liar []byte

func (l liar) Wrap([]byte) ([]*age.Stanza, error) {
	return []*age.Stanza{{Type: "juliagpu-secret", Args: []string{"1"}, Body: l}}, nil
}

// read reads a vector of package openssl, or its key.
func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../envelope/openssl/testdata", name))
	require.NoError(t, err)
	return strings.TrimRight(string(text), "\n")
}

func TestMigrate(t *testing.T) {
	next := newParty(t, false)
	key, err := openssl.ParseKey([]byte(read(t, "pkcs1.pem")))
	require.NoError(t, err)
	cuda, amd := name(t, "github.com/juliagpu/cuda.jl"), name(t, "github.com/juliagpu/amdgpu.jl")
	bare, hybrid := read(t, "bare.txt"), read(t, "hybrid.txt")
	file := func(n repo.Name, texts ...string) File {
		f := File{Repo: n, Why: errors.New("nobody said"), Text: []byte("env:\n")}
		for i, text := range texts {
			f.Text = fmt.Appendf(f.Text, "  SECRET_V%d: %q\n", i, text)
		}
		return f
	}
	two := entry("SECRET_A", bare)
	two.Entries = append(two.Entries, pipeline.Sealed{Name: "SECRET_B"})
	strange := entry("SECRET_\x1b[2J", bare)
	strange.Entries = append(strange.Entries, two.Entries...)
	triggered := entry("SECRET_A", bare)
	triggered.Entries[0].Triggered = true
	// block is the part of a hybrid value that opens by itself.
	block, _, _ := strings.Cut(hybrid, ";")
	plain := func(n repo.Name, format, text string) File {
		return File{Repo: n, Text: fmt.Appendf(nil, format, text)}
	}
	const copied = "stands in files of github.com/juliagpu/cuda.jl and github.com/juliagpu/amdgpu.jl"
	for about, tt := range map[string]struct {
		files []File // the value is of the first
		s     pipeline.Scalar
		want  Result
		says  string
	}{
		"RSA":                         {[]File{file(cuda, bare)}, entry("SECRET_A", bare), Resealed, ""},
		"RSA and AES":                 {[]File{file(cuda, hybrid)}, entry("SECRET_A", hybrid), Resealed, ""},
		"twice in one repository":     {[]File{file(cuda, bare, bare), file(cuda, bare)}, entry("SECRET_A", bare), Resealed, ""},
		"another's in another one":    {[]File{file(cuda, bare), file(amd, hybrid)}, entry("SECRET_A", bare), Resealed, ""},
		"a copy of another's":         {[]File{file(cuda, bare), file(amd, hybrid, bare)}, entry("SECRET_A", bare), Failed, "stands in files of github.com/juliagpu/cuda.jl and github.com/juliagpu/amdgpu.jl"},
		"a copy with a line break":    {[]File{file(cuda, bare), file(amd, bare+"\n")}, entry("SECRET_A", bare), Failed, copied},
		"a copy of the first part":    {[]File{file(cuda, hybrid), file(amd, block)}, entry("SECRET_A", hybrid), Failed, copied},
		"a first part, copied":        {[]File{file(cuda, block), file(amd, hybrid)}, entry("SECRET_A", block), Failed, copied},
		"another second part":         {[]File{file(cuda, hybrid), file(amd, block+";"+hybrid[len(block)+1:len(hybrid)-24])}, entry("SECRET_A", hybrid), Failed, copied},
		"a copy in a comment":         {[]File{file(cuda, bare), plain(amd, "# %s\nsteps: []\n", bare)}, entry("SECRET_A", bare), Failed, copied},
		"a copy in a broken file":     {[]File{file(cuda, bare), plain(amd, "env: {SECRET_A: %s", bare)}, entry("SECRET_A", bare), Failed, copied},
		"a copy in a list":            {[]File{file(cuda, bare), plain(amd, "environment: [\"SECRET_A=%s\"]", bare)}, entry("SECRET_A", bare), Failed, copied},
		"a copy with escaped slashes": {[]File{file(cuda, bare), plain(amd, "{\"x\": \"%s\"", strings.ReplaceAll(bare, "/", `\/`))}, entry("SECRET_A", bare), Failed, copied},
		"a copy with other escapes":   {[]File{file(cuda, bare), plain(amd, "env: {SECRET_A: \"%s\"}", fmt.Sprintf(`\x%02x`, bare[0])+bare[1:])}, entry("SECRET_A", bare), Failed, copied},
		"for a triggered build":       {[]File{file(cuda, bare)}, triggered, Failed, "it goes to the build that a step triggers"},
		"shared by one of no name":    {[]File{file(cuda, bare)}, strange, Failed, `"SECRET_\x1b[2J", SECRET_A, SECRET_B share it`},
		"a copy in one of nobody's":   {[]File{file(cuda, bare), file(repo.Name{}, bare)}, entry("SECRET_A", bare), Failed, "and a repository that nobody named"},
		"of nobody":                   {[]File{file(repo.Name{}, bare)}, entry("SECRET_A", bare), Failed, "for which repository? nobody said"},
		"shared by two":               {[]File{file(cuda, bare)}, two, Failed, "SECRET_A, SECRET_B share it"},
		"a name that no value sets":   {[]File{file(cuda, bare)}, entry("SECRET_LD_PRELOAD", bare), Failed, "LD_PRELOAD decides which code runs"},
		"no name":                     {[]File{file(cuda, bare)}, entry("SECRET_", bare), Failed, "names are letters"},
		"damaged":                     {[]File{file(cuda)}, entry("SECRET_A", "AAAA"+bare[4:]), Failed, "sealed for another RSA key, or damaged"},
		"sealed today":                {[]File{file(cuda)}, entry("SECRET_A", sealed(t, label(t), "hunter2", next)), Ignored, ""},
		"no sealed value":             {[]File{file(cuda)}, entry("SECRET_A", "hunter2"), Ignored, ""},
		"no sealed value, of a name ": {[]File{file(cuda)}, entry("SECRET_PATH", "hunter2"), Ignored, ""},
	} {
		text, fate := Migrate(key, recipients(next), tt.files)(&tt.files[0], tt.s)
		require.Equal(t, tt.want, fate.Result, "%s: %+v", about, fate)
		require.Equal(t, tt.want == Resealed, text != "", about)
		require.Contains(t, fate.Reason, tt.says, about)
		require.Equal(t, tt.want == Failed, fate.Hint != "", about)
		if text != "" {
			before, err := key.Open(tt.s.Text)
			require.NoError(t, err)
			opened, err := envelope.Open(text, next.Age)
			require.NoError(t, err)
			require.Equal(t, before.Reveal(), opened.Value.Reveal())
			require.Equal(t, envelope.Label{Name: "A", Repos: []repo.Name{cuda}, To: []string{next.Fingerprint}}, opened.Label)
		}
	}
}

// onDisk is a file of a folder.
func onDisk(t testing.TB, dir, name, text string) File {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o640))
	return File{Path: path, Folder: dir, Name: name, Text: []byte(text)}
}

// TestRun: what can be done is done, whatever is wrong beside it.
func TestRun(t *testing.T) {
	old, next, stranger := newParty(t, false), newParty(t, false), newParty(t, false)
	good, foreign := sealed(t, label(t), "hunter2", old), sealed(t, label(t), "hunter2", stranger)
	dir := t.TempDir()
	files := []File{
		onDisk(t, dir, "good.yml", "env:\n  SECRET_TOKEN: \""+good+"\"\n  SECRET_X: "+foreign+" # a\nsteps: []\n"),
		onDisk(t, dir, "changed.yml", "env: {SECRET_TOKEN: "+good+"}\n"),
		onDisk(t, dir, "gone.yml", "env: {SECRET_TOKEN: "+good+"}\n"),
		onDisk(t, dir, "template.yml", "env: {SECRET_TOKEN: {{ x }}\n"),
		onDisk(t, dir, "other.yml", "{{ x }}\n"),
		onDisk(t, dir, "empty.yml", ""),
		{Path: "unread.yml", Unread: fs.ErrPermission},
		{Path: "large.yml", Text: bytes.Repeat([]byte("#"), pipeline.MaxFile+1)},
		{Path: "broken.yml", Text: []byte("{ environment: [A=" + good)},
	}
	require.NoError(t, os.WriteFile(files[1].Path, []byte("somebody else's"), 0o640))
	require.NoError(t, os.Remove(files[2].Path))
	way := Rotate(identities(old), recipients(next))

	for _, d := range Run(t.Context(), files, way, true) {
		require.False(t, d.Written, "a dry run")
	}
	text, err := os.ReadFile(files[0].Path)
	require.NoError(t, err)
	require.Equal(t, string(files[0].Text), string(text), "a dry run")

	done := Run(t.Context(), files, way, false)
	require.Equal(t, Value{[]string{"SECRET_TOKEN"}, 2, nil, Fate{Result: Resealed}}, done[0].Values[0])
	require.Equal(t, Failed, done[0].Values[1].Result)
	require.True(t, done[0].Written)
	text, err = os.ReadFile(files[0].Path)
	require.NoError(t, err)
	require.NotContains(t, string(text), good)
	require.Contains(t, string(text), "\"\n  SECRET_X: "+foreign+" # a\nsteps: []\n")
	require.ErrorIs(t, done[1].Error, pipeline.ErrChanged)
	require.Equal(t, Failed, done[1].Values[0].Result)
	require.EqualError(t, done[2].Error, "no such file or directory")
	require.ErrorContains(t, done[3].Error, "not YAML")
	require.Equal(t, Done{Path: files[4].Path}, done[4], "no pipeline, and no secret in it")
	require.Equal(t, Done{Path: files[5].Path}, done[5])
	require.Equal(t, fs.ErrPermission, done[6].Error)
	require.ErrorContains(t, done[7].Error, "larger than 1 MiB", "who knows what is in it")
	require.ErrorContains(t, done[8].Error, "not YAML")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 5, "nothing beside them")
	text, err = os.ReadFile(files[1].Path)
	require.NoError(t, err)
	require.Equal(t, "somebody else's", string(text))

	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, d := range Run(stopped, files, way, false) {
		require.Equal(t, ErrStopped, d.Error)
	}
}

// TestSwapped: a folder that leads elsewhere since the file was read is not followed.
func TestSwapped(t *testing.T) {
	old, next := newParty(t, false), newParty(t, false)
	dir := t.TempDir()
	text := "env: {SECRET_TOKEN: " + sealed(t, label(t), "hunter2", old) + "}\n"
	for _, folder := range []string{"ours/.buildkite", "theirs"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, folder, "a.yml"), []byte(text), 0o640))
	}
	ours := filepath.Join(dir, "ours")
	files := []File{{Path: "a.yml", Folder: ours, Name: ".buildkite/a.yml", Text: []byte(text)}}
	require.NoError(t, os.Rename(filepath.Join(ours, ".buildkite"), filepath.Join(ours, "before")))
	require.NoError(t, os.Symlink("../theirs", filepath.Join(ours, ".buildkite")))
	done := Run(t.Context(), files, Rotate(identities(old), recipients(next)), false)
	require.ErrorContains(t, done[0].Error, "path escapes from parent")
	require.Equal(t, Failed, done[0].Values[0].Result)
	now, err := os.ReadFile(filepath.Join(dir, "theirs/a.yml"))
	require.NoError(t, err)
	require.Equal(t, text, string(now))
}

// TestOutside counts what no way is asked about.
func TestOutside(t *testing.T) {
	old := newParty(t, false)
	now, bare, hybrid := sealed(t, label(t), "hunter2", old), read(t, "bare.txt"), read(t, "hybrid.txt")
	long := sealed(t, label(t), strings.Repeat("x", 1000), old)
	for text, want := range map[string]int{
		"env: {SECRET_A: " + now + "}":                                          0,
		"env: {SECRET_A: &a " + now + "}\nsteps: [{env: {SECRET_A: *a}}]":       0,
		"env:\n  SECRET_A: |\n    " + hybrid + "\n":                             0,
		"env: {A: " + now + "}":                                                 1,
		"# " + now + "\nenv: {SECRET_A: " + now + "}":                           1,
		"environment: [SECRET_A=" + now + ", 'SECRET_B=" + bare + "']":          2,
		"command: echo " + hybrid + " " + long + " | base64":                    2,
		"command: echo " + strings.Repeat("A", 1000) + "== YWdlLWVuY3J5cHRpb24": 0,
		`{"env": {"SECRET_A": "\u0059` + now[1:] + `"}}`:                        0,
	} {
		done := Run(t.Context(), []File{{Text: []byte(text)}}, Rotate(identities(old), recipients(old)), true)
		require.NoError(t, done[0].Error)
		require.Equal(t, want, done[0].Outside, text)
	}
}

// TestReport shows a report on a narrow and on a wide terminal, in a log, and for
// programs.
func TestReport(t *testing.T) {
	_, parse := pipeline.Scalars([]byte("env: [\n"))
	done := []Done{
		{Path: "CUDA.jl/.buildkite/pipeline.yml", Written: true, Values: []Value{
			{[]string{"SECRET_CODECOV_TOKEN"}, 12, nil, Fate{Result: Resealed}},
			{[]string{"SECRET_DOCUMENTER_KEY", "SECRET_DOCUMENTER_KEY_SEALED"}, 14, []string{"docs"}, Fate{Already, "by its label: none of the identities opens it", ""}},
			{[]string{"SECRET_X"}, 15, nil, Fate{Failed, "sealed to 3f2a9b1c0d4e5f60, and none of the identities opens it", "name the identity, too: --identity may be repeated"}},
			{[]string{"SECRET_\x1b[2J"}, 16, nil, Fate{Older, "in the older RSA form", "juliagpu secrets migrate is for it"}},
		}},
		{Path: "buildkite.yml", Outside: 2},
		{Path: "a/very/long/path/of/a/folder/with/checkouts/AMDGPU.jl/.buildkite/nightly/pipeline.yml", Error: parse},
		{Path: "nothing.yml"},
	}
	r := NewReport("rotate", false, []string{"3f2a9b1c0d4e5f60 (The Lab)", "0123456789abcdef"}, []string{"a note"}, done)
	require.Equal(t, 1, r.Status())
	for width, file := range map[int]string{0: "report.txt", 40: "report-40.txt", 80: "report-80.txt", 200: "report-200.txt"} {
		text := r.Text(width)
		golden(t, file, text)
		for line := range strings.Lines(text) {
			require.True(t, width == 0 || utf8.RuneCountInString(line)-1 <= width, line)
		}
	}
	text, err := r.JSON()
	require.NoError(t, err)
	golden(t, "report.json", string(text))
	require.True(t, json.Valid(text))

	r.Dry = true
	golden(t, "report-dry.txt", r.Text(80))
	none := NewReport("migrate", false, []string{"0123456789abcdef"}, nil, []Done{{Path: "nothing.yml"}})
	require.Equal(t, 0, none.Status())
	require.Equal(t, "for 0123456789abcdef\nthere is nothing to seal again\n", none.Text(0))
}

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "go test ./internal/reseal -update writes it anew")
}

// BenchmarkRotate seals 1,000 values of 20 files again, and writes those.
func BenchmarkRotate(b *testing.B) {
	for _, kind := range []string{"X25519", "hybrid"} {
		b.Run(kind, func(b *testing.B) {
			const files, values = 20, 50
			old, next := newParty(b, kind == "hybrid"), newParty(b, kind == "hybrid")
			dir := b.TempDir()
			var all []File
			for n := range files {
				text := "env:\n"
				for v := range values {
					l := label(b)
					l.Name = fmt.Sprintf("V%d", v)
					text += fmt.Sprintf("  SECRET_V%d: %q\n", v, sealed(b, l, "a value of 40 bytes, as most tokens are!", old))
				}
				all = append(all, onDisk(b, dir, fmt.Sprintf("%d.yml", n), text+"steps: []\n"))
			}
			way := Rotate(identities(old), recipients(next))
			for b.Loop() {
				for _, d := range Run(b.Context(), all, way, false) {
					if !d.Written || len(d.Values) != values {
						b.Fatal(d.Error, d.Values)
					}
				}
				b.StopTimer()
				for _, f := range all {
					if err := os.WriteFile(f.Path, f.Text, 0o640); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*files*values), "ns/reseal")
		})
	}
}
