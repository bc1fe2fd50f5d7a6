package identity

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// write makes a file of the tester's, 0600.
func write(t *testing.T, text string) settings.IdentityFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "identity")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return settings.IdentityFile{Path: path}
}

func x25519(t *testing.T) *age.X25519Identity {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return i
}

func hybrid(t *testing.T) *age.HybridIdentity {
	t.Helper()
	i, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	return i
}

// TestLoad reads a new and a retired file in order, several keys of both kinds,
// and opens with each what was sealed to it.
func TestLoad(t *testing.T) {
	a, b, c := x25519(t), hybrid(t), x25519(t)
	current := write(t, "# created: 2026-01-01\n# public key: "+a.Recipient().String()+"\n"+a.String()+"\n\n"+b.String())
	retired := write(t, "# from Windows\r\n\r\n"+c.String()+"\r\n")
	retired.Retired = true

	identities, err := Load([]settings.IdentityFile{current, retired}, os.Getuid())
	require.NoError(t, err)
	require.Len(t, identities, 3)
	label := envelope.Label{Name: "CODECOV_TOKEN"}
	name, err := repo.Parse("github.com/juliagpu/cuda.jl")
	require.NoError(t, err)
	label.Repos = []repo.Name{name}
	for i, want := range []struct {
		file      settings.IdentityFile
		recipient fmt.Stringer
	}{{current, a.Recipient()}, {current, b.Recipient()}, {retired, c.Recipient()}} {
		got := identities[i]
		require.Equal(t, want.file.Path, got.File)
		require.Equal(t, want.file.Retired, got.Retired)
		recipient, err := envelope.ParseRecipient(want.recipient.String())
		require.NoError(t, err)
		require.Equal(t, recipient.Fingerprint(), got.Fingerprint)
		sealed, err := envelope.Seal(label, plaintext.New("hunter2"), recipient)
		require.NoError(t, err)
		opened, err := envelope.Open(sealed, got.Age)
		require.NoError(t, err)
		require.Equal(t, "hunter2", opened.Value.Reveal())
	}
}

// TestLoadRefuses shows for each damage what is said of it, and that no byte of
// the file is.
func TestLoadRefuses(t *testing.T) {
	key, pq := x25519(t).String(), hybrid(t).String()
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "it holds no identity; age-keygen makes one"},
		{"only comments", "# " + key + "\n\n", "it holds no identity; age-keygen makes one"},
		{"cut off", "#\n" + key[:70] + "\n", "line 2 begins like an identity, but its letters don't add up: copy the whole line"},
		{"a letter changed", key + "\n" + key[:30] + "B" + key[31:], "line 2 begins like an identity, but its letters don't add up: copy the whole line"},
		{"a blank after it", key + " ", "line 1 begins like an identity, but its letters don't add up: copy the whole line"},
		{"post-quantum, cut off", pq[:70], "line 1 begins like a post-quantum identity, but its letters don't add up: copy the whole line"},
		{"a blank before it", " " + key, "line 1 is neither an identity nor a comment"},
		{"lower case", strings.ToLower(key), "line 1 is neither an identity nor a comment"},
		{"a byte order mark", "\ufeff" + key, "line 1 is neither an identity nor a comment"},
		{"UTF-16", "\xff\xfeA\x00G\x00E\x00", "line 1 is neither an identity nor a comment"},
		{"a recipient", x25519(t).Recipient().String(), "line 1 is a recipient, the public half: put the identity here, which begins with AGE-SECRET-KEY-"},
		{"a post-quantum recipient", hybrid(t).Recipient().String(), "line 1 is a recipient, the public half: put the identity here, which begins with AGE-SECRET-KEY-"},
		{"encrypted", "age-encryption.org/v1\n-> scrypt hunter2 18\n", "line 1 begins an encrypted file: nobody is here to type a passphrase, so put the identity itself on tmpfs"},
		{"encrypted, in armour", "-----BEGIN AGE ENCRYPTED FILE-----\nhunter2\n", "line 1 begins an encrypted file: nobody is here to type a passphrase, so put the identity itself on tmpfs"},
		{"an SSH key", "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n", "line 1 begins a key in PEM, such as OpenSSH's and OpenSSL's: make an age identity with age-keygen"},
		{"a plugin's", "AGE-PLUGIN-HUNTER2-1QQQ", "line 1 names an age plugin: no other program is started here, so make an identity with age-keygen"},
		{"a password", key + "\nhunter2\n", "line 2 is neither an identity nor a comment"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, tt.text)
			identities, err := Load([]settings.IdentityFile{write(t, key), file}, os.Getuid())
			require.ErrorIs(t, err, ErrMalformed)
			assert.EqualError(t, err, "identity "+file.Path+": not an identity file: "+tt.want)
			assert.Empty(t, identities, "all or none")
		})
	}
}

// TestLoadChecksTheFile: what rootfile refuses, and that the largest file fits.
func TestLoadChecksTheFile(t *testing.T) {
	file := write(t, x25519(t).String())
	files := []settings.IdentityFile{file}
	require.NoError(t, os.Chmod(file.Path, 0o644))
	_, err := Load(files, os.Getuid())
	require.ErrorIs(t, err, rootfile.ErrUntrusted)
	require.EqualError(t, err, "identity "+file.Path+": mode 0644, readable by others")
	var hint interface{ Hint() string }
	require.ErrorAs(t, err, &hint)
	require.Equal(t, "chmod 600 "+file.Path, hint.Hint())

	require.NoError(t, os.Remove(file.Path))
	_, err = Load(files, os.Getuid())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "identity "+file.Path+": no such file or directory")

	key := x25519(t).String() + "\n"
	_, err = Load([]settings.IdentityFile{write(t, key+strings.Repeat("#\n", 32<<10))}, os.Getuid())
	require.ErrorIs(t, err, credential.ErrTooLarge)
	identities, err := Load([]settings.IdentityFile{write(t, key+strings.Repeat("#", 64<<10-len(key)))}, os.Getuid())
	require.NoError(t, err)
	require.Len(t, identities, 1)
}

// TestIdentityPrintsNoKey prints an Identity by every way that fmt has.
func TestIdentityPrintsNoKey(t *testing.T) {
	classic := x25519(t)
	file := write(t, hybrid(t).String()+"\n"+classic.String())
	identities, err := Load([]settings.IdentityFile{file}, os.Getuid())
	require.NoError(t, err)
	i := identities[0]
	require.Contains(t, fmt.Sprint(i.Age), "AGE-SECRET-KEY-", "age prints it, or this test shows nothing")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} { // ours does not, whoever holds it
		require.NotContains(t, fmt.Sprintf(verb, identities[1].Age), fmt.Sprintf("%x", bech32Data(strings.TrimPrefix(classic.String(), "AGE-SECRET-KEY-1"))))
	}
	hidden := struct{ i Identity }{i} // fmt skips Format here
	for _, shown := range []any{i, &i, identities, hidden, &hidden, map[string]Identity{"": i}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			text := fmt.Sprintf(verb, shown)
			assert.NotContains(t, strings.ToUpper(text), "AGE-SECRET-KEY-", "%s of %T", verb, shown)
			assert.NotContains(t, text, fmt.Sprintf("%x", "AGE-SECRET-KEY-"))
		}
	}
	require.Equal(t, "identity "+i.Fingerprint+" ("+file.Path+")", fmt.Sprint(i))
}

// FuzzParse: no text makes an error that holds a byte of it, and what is read
// has all its parts.
func FuzzParse(f *testing.F) {
	const key = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ34W8XP"
	for _, s := range []string{"", "#\r\n", key, key + "\n" + key, "age1x", "-----BEGIN X"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		identities, err := Parse(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			require.Less(t, len(err.Error()), 200)
			require.Empty(t, identities)
			return
		}
		require.NotEmpty(t, identities)
		for _, i := range identities {
			require.NotNil(t, i.Age)
			require.Len(t, i.Fingerprint, 16)
		}
	})
}
