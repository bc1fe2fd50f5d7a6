package envelope

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"strings"
	"testing"

	agetest "c2sp.org/CCTV/age"
	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/require"
)

// TestCCTV sends every vector of c2sp.org/CCTV/age through Open. Each ends as
// the vector demands, but for passphrases and files over our limits, which are
// refused.
func TestCCTV(t *testing.T) {
	entries, err := fs.ReadDir(agetest.Vectors, ".")
	require.NoError(t, err)
	require.Greater(t, len(entries), 100)
	outcomes := map[string]int{}
	for _, entry := range entries {
		t.Run(entry.Name(), func(t *testing.T) {
			contents, err := fs.ReadFile(agetest.Vectors, entry.Name())
			require.NoError(t, err)
			v := parseCCTV(t, contents)
			if v.armored {
				// Armour is not our form: its text is no secret of ours.
				require.NotEqual(t, FormAge, FormOf(string(v.file)))
				_, err := Open(string(v.file), v.identities...)
				require.ErrorIs(t, err, ErrMalformed)
				file, err := io.ReadAll(armor.NewReader(bytes.NewReader(v.file)))
				if v.expect == "armor failure" {
					require.Error(t, err)
					return
				}
				require.NoError(t, err)
				v.file = file
			}
			text := base64.StdEncoding.EncodeToString(v.file)
			got, err := Open(text, v.identities...)
			if err != nil {
				require.Equal(t, Opened{}, got)
			}
			switch {
			case v.scrypt: // also where only a passphrase was given
				require.Error(t, err)
				outcomes["passphrase"]++
			case len(text) > MaxSealed:
				require.ErrorIs(t, err, ErrMalformed)
				outcomes["over the limit"]++
			case v.expect == "success":
				require.NoError(t, err)
				require.False(t, got.Labelled)
				sum := sha256.Sum256([]byte(got.Value.Reveal()))
				require.Equal(t, v.payload, hex.EncodeToString(sum[:]))
			case v.expect == "no match":
				require.ErrorIs(t, err, ErrForeign)
			case v.expect == "HMAC failure", v.expect == "payload failure":
				require.ErrorIs(t, err, ErrTampered)
			case v.expect == "header failure":
				require.ErrorIs(t, err, ErrMalformed)
			default:
				t.Fatalf("a vector expects %q, which this test does not know", v.expect)
			}
			outcomes[v.expect]++
		})
	}
	t.Log(outcomes)
	for _, some := range []string{"success", "no match", "HMAC failure", "payload failure", "header failure", "passphrase", "over the limit"} {
		require.NotZero(t, outcomes[some], some)
	}
}

type cctv struct {
	expect, payload string
	identities      []age.Identity
	armored, scrypt bool
	file            []byte
}

func parseCCTV(t *testing.T, contents []byte) cctv {
	var v cctv
	compressed := false
	for {
		line, rest, ok := bytes.Cut(contents, []byte("\n"))
		require.True(t, ok)
		contents = rest
		if len(line) == 0 {
			break
		}
		key, value, _ := strings.Cut(string(line), ": ")
		switch key {
		case "expect":
			v.expect = value
		case "payload":
			v.payload = value
		case "identity":
			ids, err := age.ParseIdentities(strings.NewReader(value))
			require.NoError(t, err)
			v.identities = append(v.identities, ids...)
		case "passphrase":
			v.scrypt = true
		case "armored":
			v.armored = value == "yes"
		case "compressed":
			compressed = true
		case "file key", "comment":
		default:
			t.Fatalf("a vector has the key %q, which this test does not know", key)
		}
	}
	v.file = contents
	if compressed {
		r, err := zlib.NewReader(bytes.NewReader(contents))
		require.NoError(t, err)
		v.file, err = io.ReadAll(r)
		require.NoError(t, err)
	}
	return v
}
