package openssl

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(text)
}

func key(t testing.TB) *Key {
	t.Helper()
	k, err := ParseKey([]byte(read(t, "pkcs1.pem")))
	require.NoError(t, err)
	return k
}

var long = fmt.Sprintf("a longer value, %0300d", 7)

// TestVectors are of OpenSSL 3.0.
func TestVectors(t *testing.T) {
	for _, name := range []string{"pkcs1.pem", "pkcs8.pem"} {
		k, err := ParseKey([]byte(read(t, name)))
		require.NoError(t, err)
		for file, want := range map[string]string{"bare.txt": "a value of the older tool", "hybrid.txt": long} {
			text := read(t, file)
			require.Contains(t, []envelope.Form{envelope.FormRSA, envelope.FormRSAHybrid}, envelope.FormOf(text))
			value, err := k.Open(text)
			require.NoError(t, err)
			require.Equal(t, want, value.Reveal())
			value, err = k.Open(text + "\n")
			require.NoError(t, err)
			require.Equal(t, want, value.Reveal())
		}
	}
}

func TestParseKey(t *testing.T) {
	whole := read(t, "pkcs8.pem")
	for name, tt := range map[string]struct{ text, says string }{
		"nothing":               {"", "no PEM block"},
		"no PEM":                {"AGE-SECRET-KEY-1", "no PEM block"},
		"half of it":            {whole[:len(whole)/2], "no PEM block"},
		"a letter less":         {whole[:100] + "AAAAAAAA" + whole[108:], "don't add up"},
		"the public half":       {read(t, "public.pem"), "take the private one"},
		"a passphrase, PKCS#1":  {read(t, "closed1.pem"), "openssl rsa -in KEY"},
		"a passphrase, PKCS#8":  {read(t, "closed8.pem"), "openssl rsa -in KEY"},
		"another size":          {read(t, "short.pem"), "of 1024 bits"},
		"another kind":          {read(t, "ec.pem"), "a key of another kind"},
		"another kind of PEM":   {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "another kind of PEM"},
		"a key of OpenSSH's":    {"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "another kind of PEM"},
		"numbers of no meaning": {"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "don't add up"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ParseKey([]byte(tt.text))
			require.ErrorIs(t, err, ErrKey)
			require.ErrorContains(t, err, tt.says)
			require.Nil(t, k)
		})
	}
	require.Equal(t, "RSA key RSA key", fmt.Sprintf("%v %+v", *key(t), key(t)))
}

// TestClosed: whatever is wrong, it is the one error, and there is no value.
func TestClosed(t *testing.T) {
	k := key(t)
	bare, hybrid := read(t, "bare.txt"), read(t, "hybrid.txt")
	first, second, _ := strings.Cut(hybrid, ";")
	raw := func(text string) []byte {
		all, err := base64.StdEncoding.DecodeString(text)
		require.NoError(t, err)
		return all
	}
	flip := func(text string, at int) string {
		all := raw(text)
		all[(at+len(all))%len(all)] ^= 1
		return base64.StdEncoding.EncodeToString(all)
	}
	cases := map[string]string{
		"nothing": "", "one letter": "A", "a semicolon": ";", "half": bare[:100], "not base64": strings.Repeat("!", 344),
		"zeros": base64.StdEncoding.EncodeToString(make([]byte, 256)), "larger than the modulus": base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{255}, 256)),
		"no second part": first + ";", "no salt": first + ";" + base64.StdEncoding.EncodeToString([]byte("Salted__")),
		"no block": first + ";" + base64.StdEncoding.EncodeToString([]byte("Salted__12345678")), "half a block": first + ";" + second[:len(second)-8],
		"no header": first + ";" + flip(second, 0), "the padding": first + ";" + flip(second, -17), "the last block": first + ";" + flip(second, -1),
		"another password": bare + ";" + second, "the password": flip(first, 5) + ";" + second, "a password alone": first,
		"three parts": hybrid + ";" + second,
	}
	for i := range 32 {
		cases[fmt.Sprint("a bit of the block ", i)] = flip(bare, i*8)
	}
	for name, text := range cases {
		value, err := k.Open(text)
		if name == "a password alone" { // what it says is the password
			require.NoError(t, err)
			continue
		}
		require.Equal(t, ErrClosed, err, name)
		require.Empty(t, value.Reveal(), name)
	}
}

// TestOpenSSL opens what the older tool's commands make today.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		need.Skip(t, "needs openssl")
	}
	script := `
if [ $1 = bare ]; then
	openssl pkeyutl -encrypt -pubin -inkey testdata/public.pem | base64 -w0
else
	openssl rand -base64 128 >$2/k
	openssl pkeyutl -encrypt -pubin -inkey testdata/public.pem -in $2/k | base64 -w0
	printf ';'
	openssl enc -aes-256-cbc -pbkdf2 -iter 100000 -md sha256 -salt -pass file:$2/k -base64 -A
fi`
	for _, value := range []string{"x", "hunter2", "a b\nc\td", "größer", strings.Repeat("0123456789abcdef", 12), strings.Repeat("v", 5000)} {
		for _, form := range []string{"bare", "hybrid"} {
			if form == "bare" && len(value) > 240 {
				continue
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-ec", script, "sh", form, t.TempDir())
			cmd.Stdin = strings.NewReader(value + "\n")
			text, err := cmd.Output()
			require.NoError(t, err)
			opened, err := key(t).Open(string(text))
			require.NoError(t, err, "%s %.10q", form, value)
			require.Equal(t, value, opened.Reveal())
		}
	}
}

func TestUnpad(t *testing.T) {
	for n := range 256 {
		text := append(bytes.Repeat([]byte{'x'}, 32), bytes.Repeat([]byte{byte(n)}, 16)...)
		got, err := unpad(text)
		if 1 <= n && n <= 16 {
			require.NoError(t, err)
			require.Len(t, got, 48-n)
			if n > 1 {
				text[48-n] ^= 1
				_, err = unpad(text)
				require.Equal(t, ErrClosed, err, n)
			}
		} else {
			require.Equal(t, ErrClosed, err, n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := key(f)
	f.Add(read(f, "bare.txt"))
	f.Add(read(f, "hybrid.txt"))
	f.Fuzz(func(t *testing.T, text string) {
		value, err := k.Open(text)
		if err != nil {
			require.Equal(t, ErrClosed, err)
		}
		require.Equal(t, err == nil, value.Reveal() != "")
	})
}

// BenchmarkOpen: each form, and one that is damaged, which takes as long.
func BenchmarkOpen(b *testing.B) {
	k := key(b)
	hybrid := read(b, "hybrid.txt")
	for name, text := range map[string]string{"bare": read(b, "bare.txt"), "hybrid": hybrid, "damaged": "AAAA" + hybrid[4:]} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				k.Open(text)
			}
		})
	}
}
