package identity

import (
	"encoding/base64"
	"errors"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
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
