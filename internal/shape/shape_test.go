package shape

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

// keys are armour around nothing: they have the form of a private key only.
var (
	key       = armour("OPENSSH PRIVATE KEY")
	publicKey = armour("PUBLIC KEY")
)

func armour(kind string) string {
	return "-----BEGIN " + kind + "-----\nbm9uZQ==\n-----END " + kind + "-----\n"
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestCheck(t *testing.T) {
	const refused, warned, fine = "refused: ", "warned: ", ""
	for _, tt := range []struct{ about, name, value, want string }{
		{"a token", "A", "hunter2-canary", fine},
		{"a token of six bytes", "A", "hunte3", fine},
		{"a token and --raw's newline", "A", "hunter2-canary\n", fine},
		{"letters outside ASCII", "A", "größer", fine},
		{"a private key", "A", key, fine},
		{"a private key's base64", "DOCUMENTER_KEY", base64Of(key), fine},
		{"the same in lines", "DOCUMENTER_KEY", base64Of(key)[:40] + "\n" + base64Of(key)[40:], fine},
		{"that base64 under another name", "A", base64Of(publicKey), fine},
		{"several lines", "A", "first line\nsecond line", fine},
		{"the largest", "A", strings.Repeat("ab", envelope.MaxValue/2), fine},
		{"a word inside", "A", "production-7", fine},

		{"nothing", "A", "", refused + "empty"},
		{"a newline", "A", "\n", refused + "empty"},
		{"five bytes", "A", "12345", refused + "shorter than 6"},
		{"five bytes and --raw's newline", "A", "12345\n", refused + "shorter than 6"},
		{"one over the largest", "A", strings.Repeat("ab", envelope.MaxValue/2) + "c", refused + "larger than 64 KiB"},
		{"one over with its newline", "A", strings.Repeat("ab", envelope.MaxValue/2) + "\n", refused + "larger than 64 KiB"},
		{"NUL", "A", "hunter2\x00canary", refused + "NUL"},
		{"UTF-16", "A", "\xff\xfeh.u.n.t.e.r.", refused + "not UTF-8"},
		{"one letter", "A", "xxxxxxxx", refused + "repeated"},
		{"one letter outside ASCII", "A", "éééé", refused + "repeated"},
		{"blanks", "A", "       ", refused + "repeated"},
		{"an identity", "A", "# created: 2027\nage-secret-key-1QQQ", refused + "identity"},
		{"sealed", "A", "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+", refused + "sealed already"},
		{"sealed, with its quotes", "A", ` "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+"`, refused + "sealed already"},
		{"an armoured age file", "A", "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl", refused + "sealed already"},
		{"the older tool's", "A", base64Of(strings.Repeat("ab", 128)) + ";U2FsdGVkX1+abc", refused + "sealed already"},
		{"a private key itself", "DOCUMENTER_KEY", key, refused + "reads its base64"},
		{"a public key's base64", "DOCUMENTER_KEY", base64Of(publicKey), refused + "not the base64 of a private key"},
		{"no base64", "DOCUMENTER_KEY_PREVIEWS", "hunter2-canary!", refused + "not the base64 of a private key"},

		{"CR LF inside", "A", "hunter2\r\ncanary", warned + "CR line ends"},
		{"double quotes", "A", `"hunter2-canary"`, warned + "quote"},
		{"single quotes", "A", `'hunter2-canary'`, warned + "quote"},
		{"one quote", "A", `"hunter2-canary`, fine},
		{"a blank before", "A", " hunter2-canary", warned + "blank"},
		{"a blank behind", "A", "hunter2-canary ", warned + "blank"},
		{"a newline after the trimmed one", "A", "hunter2-canary\n", warned + "blank"},
		{"two newlines, with --raw", "A", "hunter2-canary\n\n", warned + "blank"},
		{"a byte order mark", "A", "\ufeffhunter2-canary", warned + "byte order mark"},
		{"the name", "A_B", "A_B=hunter2-canary", warned + "own name"},
		{"a word", "A", "production", warned + "common word"},
		{"a word, shouted", "A", "PassWord", warned + "common word"},
		{"a word with --raw's newline", "A", "password\n", warned + "common word"},
		{"the oldest form", "A", base64Of(strings.Repeat("ab", 128)), warned + "older tool"},
		{"a private key cut short", "A", strings.TrimSpace(key), warned + "last newline"},
		{"the same in base64", "DOCUMENTER_KEY", base64Of(strings.TrimSpace(key)), warned + "last newline"},
	} {
		t.Run(tt.about, func(t *testing.T) {
			got := Check(tt.name, plaintext.New(tt.value), strings.Contains(tt.about, "--raw"))
			if tt.want == fine {
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			text := warned + got[0].Text
			if got[0].Refused {
				text = refused + got[0].Text
			}
			kind, part, _ := strings.Cut(tt.want, " ")
			assert.True(t, strings.HasPrefix(text, kind) && strings.Contains(text, part), "got %q, want %q", text, tt.want)
			assert.NotContains(t, got[0].Text+got[0].Hint, "canary")
			assert.NotEmpty(t, got[0].Hint)
		})
	}
}

// TestCheckFile: any bytes, and line ends of any kind, but nothing that can be no secret.
func TestCheckFile(t *testing.T) {
	const refused, warned, fine = "refused: ", "warned: ", ""
	for _, tt := range []struct{ about, name, value, want string }{
		{"bytes", "A", "\x00\xff\xfe\x01\x80\x81", fine},
		{"bytes that are no letters", "A", "\xff\xfe\xfd\xfc\xfb\xfa", fine},
		{"line ends", "A", "hunter2\r\ncanary\r\n\n", fine},
		{"a private key", "A", key, fine},
		{"a private key for Documenter, as a file", "DOCUMENTER_KEY", key, fine},
		{"a private key cut short", "A", strings.TrimSpace(key), warned + "last newline"},
		{"nothing", "A", "", refused + "empty"},
		{"five bytes", "A", "12345", refused + "shorter"},
		{"zeros", "A", strings.Repeat("\x00", 40), refused + "repeated"},
		{"too large", "A", strings.Repeat("ab", envelope.MaxValue), refused + "larger"},
		{"an identity", "A", "# created: 2027\nAGE-SECRET-KEY-1QQQ\n", refused + "identity"},
		{"an age file", "A", "age-encryption.org/v1\n-> X25519 abc\n", refused + "sealed already"},
	} {
		got := CheckFile(tt.name, plaintext.New(tt.value))
		if tt.want == fine {
			assert.Empty(t, got, tt.about)
			continue
		}
		require.Len(t, got, 1, tt.about)
		_, part, _ := strings.Cut(tt.want, " ")
		assert.Contains(t, got[0].Text, part, tt.about)
		assert.Equal(t, strings.HasPrefix(tt.want, refused), got[0].Refused, tt.about)
	}
}

func TestCheckListsEveryWarning(t *testing.T) {
	require.Len(t, Check("A", plaintext.New("\"hunter2\r\ncanary\" "), false), 2, "CR, and a blank that hides the quotes")
	require.Len(t, Check("A", plaintext.New("'password'"), false), 2, "quotes around a word")
}

func TestTrim(t *testing.T) {
	for _, tt := range []struct{ about, value, want string }{
		{"no newline", "hunter2-canary", "hunter2-canary"},
		{"one", "hunter2-canary\n", "hunter2-canary"},
		{"CR LF", "hunter2-canary\r\n", "hunter2-canary"},
		{"two: one goes", "hunter2-canary\n\n", "hunter2-canary\n"},
		{"a blank stays", "hunter2-canary \n", "hunter2-canary "},
		{"a lone CR stays", "hunter2-canary\r", "hunter2-canary\r"},
		{"a private key keeps it", key, key},
		{"a public key does not", publicKey, strings.TrimSpace(publicKey)},
		{"nothing", "", ""},
	} {
		got, dropped := Trim(plaintext.New(tt.value))
		assert.Equal(t, tt.want, got.Reveal(), tt.about)
		assert.Equal(t, tt.want != tt.value, dropped, tt.about)
	}
}

func TestWordsAreLongEnoughToBeAsked(t *testing.T) {
	all := strings.Fields(words)
	require.GreaterOrEqual(t, len(all), 80)
	for _, w := range all {
		assert.Equal(t, strings.ToLower(w), w)
		assert.GreaterOrEqual(t, len(w), envelope.MinValue, w)
	}
}
