package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

const canary = "canary-0b7e91c4"

var cuda = []repo.Name{mustRepo("github.com/juliagpu/cuda.jl")}

func mustRepo(s string) repo.Name {
	n, err := repo.Parse(s)
	if err != nil {
		panic(err)
	}
	return n
}

// key makes an identity and its recipient.
func key(t testing.TB, hybrid bool) (age.Identity, Recipient) {
	if hybrid {
		id, err := age.GenerateHybridIdentity()
		require.NoError(t, err)
		r, err := ParseRecipient(id.Recipient().String())
		require.NoError(t, err)
		return id, r
	}
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	r, err := ParseRecipient(id.Recipient().String())
	require.NoError(t, err)
	return id, r
}

func seal(t testing.TB, l Label, value string, to ...Recipient) string {
	text, err := Seal(l, plaintext.New(value), to...)
	require.NoError(t, err)
	return text
}

func TestSealAndOpen(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		first, one := key(t, hybrid)
		second, two := key(t, hybrid)
		label := Label{Name: "TOKEN", Repos: cuda}
		text := seal(t, label, canary, one, two, one)
		require.True(t, strings.HasPrefix(text, formAge))
		require.Equal(t, FormAge, FormOf(text))

		for i, ids := range [][]age.Identity{{first, second}, {second}} {
			got, err := Open(text, ids...)
			require.NoError(t, err)
			require.Equal(t, canary, got.Value.Reveal())
			require.Equal(t, 0, got.Identity, "row %d", i)
			require.True(t, got.Labelled)
			label.To = sortedSet([]string{one.Fingerprint(), two.Fingerprint()})
			require.Equal(t, label, got.Label)
		}
		stranger, _ := key(t, hybrid)
		got, err := Open(text, stranger, second)
		require.NoError(t, err)
		require.Equal(t, 1, got.Identity, "which identity fits is told")

		otherKind, _ := key(t, !hybrid)
		for _, ids := range [][]age.Identity{{stranger}, {otherKind}, {}} {
			got, err := Open(text, ids...)
			require.ErrorIs(t, err, ErrForeign)
			require.Equal(t, Opened{}, got)
			var foreign *ForeignError
			require.ErrorAs(t, err, &foreign)
			require.Equal(t, label.To, foreign.To)
		}
		stanza := map[bool]string{false: "X25519", true: "mlkem768x25519"}[hybrid]
		peeked, err := Peek(text)
		require.NoError(t, err)
		require.Equal(t, Peeked{label, true, []string{stanza, stanza}}, peeked)
	}
}

// TestPeekingIdentityIsNeverAsked is the trap: age asks its native identities
// first, so a second identity beside a real one never sees the label.
func TestPeekingIdentityIsNeverAsked(t *testing.T) {
	id, to := key(t, false)
	text := seal(t, Label{Name: "TOKEN", Repos: cuda}, canary, to)
	file, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)

	peek := &reader{}
	_, err = age.Decrypt(bytes.NewReader(file), peek, id)
	require.NoError(t, err)
	require.False(t, peek.asked, "age changed: this trap is gone")

	got, err := Open(text, id)
	require.NoError(t, err)
	require.True(t, got.Labelled, "a labelled file must not look unlabelled")
}

func TestUnlabelledIsAFact(t *testing.T) {
	id, to := key(t, false)
	var file bytes.Buffer
	w, err := age.Encrypt(&file, to.age)
	require.NoError(t, err)
	fmt.Fprint(w, canary)
	require.NoError(t, w.Close())
	text := base64.StdEncoding.EncodeToString(file.Bytes())

	got, err := Open(text, id)
	require.NoError(t, err)
	require.False(t, got.Labelled)
	vars, err := got.Variables("SECRET_TOKEN")
	require.NoError(t, err)
	require.Equal(t, "TOKEN", vars[0].Name)
	_, err = got.Variables("SECRET_PATH")
	require.ErrorIs(t, err, names.ErrName)
	peeked, err := Peek(text)
	require.NoError(t, err)
	require.Equal(t, Peeked{Stanzas: []string{"X25519"}}, peeked)
}

// TestNoBitMatters flips every bit of a sealed text: none opens, none gives a
// byte of the value.
func TestNoBitMatters(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		t.Run(fmt.Sprintf("hybrid=%v", hybrid), func(t *testing.T) {
			t.Parallel()
			id, to := key(t, hybrid)
			text := seal(t, Label{Name: "TOKEN", Repos: cuda}, canary, to)
			for i := range len(text) * 8 {
				flipped := []byte(text)
				flipped[i/8] ^= 1 << (i % 8)
				got, err := Open(string(flipped), id)
				if !assert.Error(t, err, "bit %d", i) || !assert.Equal(t, Opened{}, got, "bit %d", i) {
					return
				}
				known := errors.Is(err, ErrMalformed) || errors.Is(err, ErrTampered) || errors.Is(err, ErrForeign)
				require.True(t, known, "bit %d: %v", i, err)
				require.NotContains(t, err.Error(), canary)
				_, err = Peek(string(flipped))
				require.False(t, errors.Is(err, ErrTampered), "without a key nobody knows")
			}
		})
	}
}

// TestNoPartialPlaintext cuts a value of several chunks everywhere near their
// borders: an age stream fails only at its end.
func TestNoPartialPlaintext(t *testing.T) {
	id, to := key(t, false)
	text := seal(t, Label{Name: "TOKEN", Repos: cuda}, strings.Repeat("0123456789abcdef", MaxValue/16), to)
	file, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)
	for cut := range len(file) {
		if cut > 600 && cut < len(file)-40 && cut%997 != 0 {
			continue
		}
		got, err := Open(base64.StdEncoding.EncodeToString(file[:cut]), id)
		require.Error(t, err, "cut at %d", cut)
		require.Equal(t, Opened{}, got)
	}
	got, err := Open(base64.StdEncoding.EncodeToString(append(file, 0)), id)
	require.ErrorIs(t, err, ErrTampered, "something after the end")
	require.Equal(t, Opened{}, got)
}

func TestLimitsComeFirst(t *testing.T) {
	asked := false
	spy := unwrapper(func([]*age.Stanza) ([]byte, error) { asked = true; return nil, age.ErrIncorrectIdentity })
	_, err := Open(formAge+strings.Repeat("A", MaxSealed), spy)
	require.ErrorIs(t, err, ErrMalformed)
	require.False(t, asked)
}

type unwrapper func([]*age.Stanza) ([]byte, error)

func (u unwrapper) Unwrap(s []*age.Stanza) ([]byte, error) { return u(s) }

// TestIdentitiesAreNotTrustedBlindly: nil without an error is no match, and an
// error of theirs, which may quote the header, is not passed on.
func TestIdentitiesAreNotTrustedBlindly(t *testing.T) {
	id, to := key(t, false)
	text := seal(t, Label{Name: "TOKEN", Repos: cuda}, canary, to)
	silent := unwrapper(func([]*age.Stanza) ([]byte, error) { return nil, nil })
	_, err := Open(text, silent)
	require.ErrorIs(t, err, ErrForeign)
	_, err = Open(text, silent, id)
	require.NoError(t, err)

	loud := unwrapper(func([]*age.Stanza) ([]byte, error) { return nil, errors.New(canary) })
	_, err = Open(text, loud)
	require.ErrorIs(t, err, ErrMalformed)
	require.NotContains(t, err.Error(), canary)
}

func TestSealRefuses(t *testing.T) {
	_, x := key(t, false)
	_, pq := key(t, true)
	ok := Label{Name: "TOKEN", Repos: cuda}
	var many []Recipient
	for range MaxRecipients + 1 {
		_, r := key(t, false)
		many = append(many, r)
	}
	for name, tt := range map[string]struct {
		label Label
		value string
		to    []Recipient
		want  error
	}{
		"nobody":            {ok, canary, nil, ErrLabel},
		"both kinds":        {ok, canary, []Recipient{x, pq}, ErrRecipient},
		"33 recipients":     {ok, canary, many, ErrLabel},
		"no scope":          {Label{Name: "TOKEN"}, canary, []Recipient{x}, ErrLabel},
		"any beside a repo": {Label{Name: "TOKEN", Repos: cuda, Any: true}, canary, []Recipient{x}, ErrLabel},
		"zero repository":   {Label{Name: "TOKEN", Repos: []repo.Name{{}}}, canary, []Recipient{x}, ErrLabel},
		"no name":           {Label{Repos: cuda}, canary, []Recipient{x}, names.ErrName},
		"PATH":              {Label{Name: "PATH", Repos: cuda}, canary, []Recipient{x}, names.ErrName},
		"short":             {ok, "12345", []Recipient{x}, ErrValue},
		"empty":             {ok, "", []Recipient{x}, ErrValue},
		"NUL":               {ok, "abc\x00def", []Recipient{x}, ErrValue},
		"not UTF-8":         {ok, "abcdef\xff", []Recipient{x}, ErrValue},
		"too large":         {ok, strings.Repeat("a", MaxValue+1), []Recipient{x}, ErrValue},
		"bundle of nothing": {Label{Name: "B", Repos: cuda, Type: TypeBundle}, `{"A":"abcdef"}`, []Recipient{x}, ErrLabel},
		"bundle not JSON":   {Label{Name: "B", Repos: cuda, Type: TypeBundle, Names: []string{"A"}}, canary, []Recipient{x}, ErrValue},
		"newline in branch": {Label{Name: "TOKEN", Repos: cuda, Branches: []string{"a\nscope: any"}}, canary, []Recipient{x}, ErrLabel},
		"branch in UTF-8":   {Label{Name: "TOKEN", Repos: cuda, Branches: []string{"ü"}}, canary, []Recipient{x}, ErrLabel},
		"pipeline":          {Label{Name: "TOKEN", Pipelines: []string{"JuliaGPU/CUDA"}}, canary, []Recipient{x}, ErrLabel},
		"half a second":     {Label{Name: "TOKEN", Repos: cuda, Expires: time.Unix(1e9, 5)}, canary, []Recipient{x}, ErrLabel},
		"label too large":   {Label{Name: "TOKEN", Repos: cuda, Branches: []string{strings.Repeat("a", MaxLabel)}}, canary, []Recipient{x}, ErrLabel},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := Seal(tt.label, plaintext.New(tt.value), tt.to...)
			require.ErrorIs(t, err, tt.want)
			require.Empty(t, text)
			require.NotContains(t, err.Error(), canary)
		})
	}
	_, err := Seal(ok, plaintext.New(strings.Repeat("a", MaxValue)), x)
	require.NoError(t, err)
	// A file may hold any bytes.
	_, err = Seal(Label{Name: "F", Repos: cuda, Type: TypeFile}, plaintext.New("\x00\xff\x00\xff\x00\xff"), x)
	require.NoError(t, err)
}

func TestParseRecipient(t *testing.T) {
	id, _ := age.GenerateX25519Identity()
	pq, _ := age.GenerateHybridIdentity()
	for _, s := range []string{
		"", "age", "age1", "age1qqqq", "age1pq1qqqq", "ssh-ed25519 AAAA", id.String(), pq.String(),
		id.Recipient().String() + "q", strings.ToUpper(id.Recipient().String()), " " + id.Recipient().String(),
	} {
		_, err := ParseRecipient(s)
		require.ErrorIs(t, err, ErrRecipient)
		if len(s) > 8 {
			require.NotContains(t, err.Error(), s)
		}
	}
	require.Equal(t, "53b758d258daabe8", Fingerprint("age1")) // printf %s age1 | sha256sum
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		glob, s string
		want    bool
	}{
		{"main", "main", true}, {"main", "main2", false}, {"main", "mai", false}, {"Main", "main", false},
		{"*", "", true}, {"*", "a/b", true}, {"release-*", "release-1.2", true}, {"release-*", "release", false},
		{"*/fix", "a/b/fix", true}, {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXbYbZ", false}, {"v?.?", "v1.2", true},
		{"v?.?", "v1.22", false}, {"v?", "v/", true}, {"", "", true}, {"", "a", false}, {"**", "x", true}, {"?*", "", false},
		{"[ab]", "a", false}, {"[ab]", "[ab]", true}, {`\*`, `\x`, true},
	} {
		require.Equal(t, tt.want, Match(tt.glob, tt.s), "Match(%q, %q)", tt.glob, tt.s)
	}
	// Stars by the dozen must not multiply.
	require.False(t, Match(strings.Repeat("*a", 1000)+"b", strings.Repeat("a", 4000)))
}

func TestFormOf(t *testing.T) {
	rsa := base64.StdEncoding.EncodeToString(make([]byte, 256))
	for text, want := range map[string]Form{
		"":                                FormEmpty,
		"hello":                           FormOther,
		formAge:                           FormAge,
		formAge + "garbage":               FormAge,
		" " + formAge:                     FormOther,
		rsa:                               FormRSA,
		rsa + "\n":                        FormRSA,
		rsa + "A":                         FormOther,
		rsa[:340]:                         FormOther,
		rsa + ";U2FsdGVkX1/abc":           FormRSAHybrid,
		rsa + ";abc":                      FormOther,
		"-----BEGIN AGE ENCRYPTED FILE--": FormOther,
	} {
		require.Equal(t, want, FormOf(text), "%.40q", text)
	}
}

func TestBundle(t *testing.T) {
	members := map[string]plaintext.Value{
		"B": plaintext.New("value of \"B\" <&>\n\u2028😀"), "A": plaintext.New("value of A"), "C": plaintext.New("value of C\x01"),
	}
	value, names, err := MarshalBundle(members)
	require.NoError(t, err)
	require.Equal(t, []string{"A", "B", "C"}, names)
	vars, err := parseBundle(value, names)
	require.NoError(t, err)
	require.Len(t, vars, 3)
	for _, v := range vars {
		require.Equal(t, members[v.Name].Reveal(), v.Value.Reveal())
	}
	for name, bad := range map[string]map[string]plaintext.Value{
		"nothing":    {},
		"a name":     {"PATH": plaintext.New("abcdef")},
		"a value":    {"A": plaintext.New("abc")},
		"no UTF-8":   {"A": plaintext.New("abcdef\xff")},
		"a NUL byte": {"A": plaintext.New("abcdef\x00")},
	} {
		_, _, err := MarshalBundle(bad)
		require.Error(t, err, name)
	}
}

// FuzzOpen: whatever the text, there is an error of ours or a whole value, and
// looking without a key agrees with opening.
func FuzzOpen(f *testing.F) {
	id, to := key(f, false)
	text := seal(f, Label{Name: "TOKEN", Repos: cuda}, canary, to)
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add(formAge + "Cg==")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Open(text, id)
		peeked, peekErr := Peek(text)
		if err == nil {
			require.NoError(t, peekErr)
			require.Equal(t, got.Labelled, peeked.Labelled)
			require.Equal(t, got.Label, peeked.Label)
			return
		}
		require.Equal(t, Opened{}, got)
		require.True(t, errors.Is(err, ErrMalformed) || errors.Is(err, ErrTampered) || errors.Is(err, ErrForeign), err)
		if len(text) > 60 { // shorter ones may stand in a sentence by chance
			require.NotContains(t, err.Error(), text[29:])
		}
	})
}

// FuzzHeader puts arbitrary stanzas before a real one, with a header MAC that
// fits: what a person with a recipient can make.
func FuzzHeader(f *testing.F) {
	id, to := key(f, false)
	body, err := Label{Name: "TOKEN", Repos: cuda, To: []string{to.Fingerprint()}}.Marshal()
	require.NoError(f, err)
	f.Add(labelStanza, "1", body, true)
	f.Add(labelStanza, "2", body, true)
	f.Add(labelStanza, "1", body, false)
	f.Add("scrypt", "x", []byte{}, true)
	f.Fuzz(func(t *testing.T, kind, arg string, body []byte, first bool) {
		extra := wrapper{{Type: kind, Args: []string{arg}, Body: body}}
		recipients := []age.Recipient{extra, to.age}
		if !first {
			slices.Reverse(recipients)
		}
		var file bytes.Buffer
		w, err := age.Encrypt(&file, recipients...)
		if err != nil {
			return // age refuses such a stanza
		}
		fmt.Fprint(w, canary)
		require.NoError(t, w.Close())
		got, err := Open(base64.StdEncoding.EncodeToString(file.Bytes()), id)
		if err != nil {
			require.Equal(t, Opened{}, got)
			return
		}
		require.Equal(t, kind == labelStanza, got.Labelled, "a label is never overlooked")
		if got.Labelled {
			require.True(t, first)
			require.Equal(t, "1", arg)
			again, err := got.Label.Marshal()
			require.NoError(t, err)
			require.Equal(t, body, again)
		}
	})
}

// wrapper is a recipient that writes these stanzas.
type wrapper []*age.Stanza

func (w wrapper) Wrap([]byte) ([]*age.Stanza, error) { return w, nil }

// FuzzLabel holds the law of labels: one label, one text.
func FuzzLabel(f *testing.F) {
	for _, l := range []Label{
		{Name: "A", To: []string{"0123456789abcdef"}, Repos: cuda},
		{Name: "A", To: []string{"0123456789abcdef"}, Any: true, Branches: []string{"main", "release-*"}, Tags: []string{"v*"}, NoPullRequest: true,
			Expires: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC), Type: TypeBundle, Names: []string{"B", "C"}},
	} {
		b, err := l.Marshal()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLabel(b)
		if err != nil {
			require.ErrorIs(t, err, ErrLabel)
			require.Equal(t, Label{}, l)
			return
		}
		again, err := l.Marshal()
		require.NoError(t, err)
		require.Equal(t, string(b), string(again))
	})
}

// FuzzBundle: what parses survives a round trip, and holds the label's names,
// each once.
func FuzzBundle(f *testing.F) {
	f.Add(`{"A":"value of A","B":"\ud83d\ude00 and more"}`, "A,B")
	f.Add(`{"A":"\ud83d half a pair"}`, "A")
	f.Add(`{"A":"value of A","A":"value of A"}`, "A")
	f.Fuzz(func(t *testing.T, text, list string) {
		vars, err := parseBundle(plaintext.New(text), strings.Split(list, ","))
		if err != nil {
			require.ErrorIs(t, err, ErrValue)
			require.Nil(t, vars)
			return
		}
		members := map[string]plaintext.Value{}
		for _, v := range vars {
			members[v.Name] = v.Value
			if names.Check(v.Name) != nil {
				return // the label would not have let it through
			}
		}
		require.Len(t, members, len(strings.Split(list, ",")))
		value, sorted, err := MarshalBundle(members)
		require.NoError(t, err)
		again, err := parseBundle(value, sorted)
		require.NoError(t, err)
		for i := range vars {
			require.Equal(t, vars[i].Name, again[i].Name)
			require.Equal(t, vars[i].Value.Reveal(), again[i].Value.Reveal())
		}
	})
}

// FuzzSealOpen: what seals, opens to exactly the value, as the variable it was
// sealed for and no other.
func FuzzSealOpen(f *testing.F) {
	id, to := key(f, false)
	f.Add("TOKEN", "a value", "main")
	f.Add("token", strings.Repeat("x", 70000), "")
	f.Fuzz(func(t *testing.T, name, value, branch string) {
		l := Label{Name: name, Repos: cuda}
		if branch != "" {
			l.Branches = []string{branch}
		}
		text, err := Seal(l, plaintext.New(value), to)
		if err != nil {
			require.Empty(t, text)
			return
		}
		require.NotContains(t, text, "\n")
		got, err := Open(text, id)
		require.NoError(t, err)
		require.Equal(t, value, got.Value.Reveal())
		for _, carrier := range []string{names.Prefix + name, names.Prefix + name + names.SealedSuffix} {
			vars, err := got.Variables(carrier)
			require.NoError(t, err)
			require.Equal(t, name, vars[0].Name)
		}
		_, err = got.Variables(names.Prefix + name + "X")
		require.ErrorIs(t, err, names.ErrName)
	})
}
