package identity

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	agetest "c2sp.org/CCTV/age"
	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

// TestX25519IsAges: whatever the stanzas, ours unwraps what age's unwraps, and is
// wrong about nothing that age is right about.
func TestX25519IsAges(t *testing.T) {
	for range 50 {
		theirs := x25519(t)
		parsed, err := parseLine(theirs.String())
		require.NoError(t, err)
		ours := parsed.Age
		fileKey := []byte("sixteen bytes ok")
		wrap := func(i *age.X25519Identity) *age.Stanza {
			stanzas, err := i.Recipient().Wrap(fileKey)
			require.NoError(t, err)
			return stanzas[0]
		}
		changed := func(change func(s *age.Stanza)) *age.Stanza {
			s := wrap(theirs)
			change(s)
			return s
		}
		foreign := wrap(x25519(t))
		for name, stanzas := range map[string][]*age.Stanza{
			"its own":                {wrap(theirs)},
			"behind others":          {{Type: "other", Args: []string{"x"}}, foreign, wrap(theirs)},
			"another's":              {foreign},
			"none":                   nil,
			"of another type":        {changed(func(s *age.Stanza) { s.Type = "x25519" })},
			"no share":               {changed(func(s *age.Stanza) { s.Args = nil })},
			"two shares":             {changed(func(s *age.Stanza) { s.Args = append(s.Args, s.Args[0]) })},
			"a short share":          {changed(func(s *age.Stanza) { s.Args[0] = s.Args[0][:42] })},
			"a share with padding":   {changed(func(s *age.Stanza) { s.Args[0] += "=" })},
			"a share in two lines":   {changed(func(s *age.Stanza) { s.Args[0] = s.Args[0][:10] + "\n" + s.Args[0][10:] })},
			"a share of low order":   {changed(func(s *age.Stanza) { s.Args[0] = base64.RawStdEncoding.EncodeToString(make([]byte, 32)) })},
			"a short key":            {changed(func(s *age.Stanza) { s.Body = s.Body[1:] })},
			"a long key":             {changed(func(s *age.Stanza) { s.Body = append(s.Body, 0) })},
			"a changed key":          {changed(func(s *age.Stanza) { s.Body[3] ^= 1 })},
			"broken before its own":  {changed(func(s *age.Stanza) { s.Body = nil }), wrap(theirs)},
			"its own before a wrong": {wrap(theirs), changed(func(s *age.Stanza) { s.Body = nil })},
		} {
			want, wantErr := theirs.Unwrap(stanzas)
			got, err := ours.Unwrap(stanzas)
			require.Equal(t, want, got, name)
			require.Equal(t, wantErr == nil, err == nil, name)
			require.Equal(t, errors.Is(wantErr, age.ErrIncorrectIdentity), errors.Is(err, age.ErrIncorrectIdentity), name)
		}
	}
}

// TestX25519OpensWhatAgeOpens sends every vector of c2sp.org/CCTV/age through both.
func TestX25519OpensWhatAgeOpens(t *testing.T) {
	entries, err := fs.ReadDir(agetest.Vectors, ".")
	require.NoError(t, err)
	tried := 0
	for _, entry := range entries {
		contents, err := fs.ReadFile(agetest.Vectors, entry.Name())
		require.NoError(t, err)
		header, file, ok := bytes.Cut(contents, []byte("\n\n"))
		require.True(t, ok)
		text := base64.StdEncoding.EncodeToString(file)
		for line := range strings.Lines(string(header) + "\n") {
			key, ok := strings.CutPrefix(strings.TrimSpace(line), "identity: ")
			if !ok || !strings.HasPrefix(key, "AGE-SECRET-KEY-1") {
				continue
			}
			theirs, err := age.ParseX25519Identity(key)
			require.NoError(t, err)
			ours, err := parseLine(key)
			require.NoError(t, err)
			want, wantErr := envelope.Open(text, theirs)
			got, err := envelope.Open(text, ours.Age)
			require.Equal(t, want.Value.Reveal(), got.Value.Reveal(), entry.Name())
			require.Equal(t, fmt.Sprint(wantErr), fmt.Sprint(err), entry.Name())
			tried++
		}
	}
	require.Greater(t, tried, 50)
}
