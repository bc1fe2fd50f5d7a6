package jobenv

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

func secrets(values ...string) []envelope.Variable {
	var vars []envelope.Variable
	for i, v := range values {
		vars = append(vars, envelope.Variable{Name: fmt.Sprintf("V%d", i), Value: plaintext.New(v)})
	}
	return vars
}

// masks returns what is sent for variables, and what is left unmasked.
func masks(vars []envelope.Variable) (texts []string, unmasked string) {
	unmasked = eachMask(vars, map[string]bool{}, func(text string) { texts = append(texts, text) })
	return texts, unmasked
}

// redact is what the agent does with masks: exact bytes, the longest first.
func redact(log string, masks []string) string {
	for _, m := range masks {
		log = strings.ReplaceAll(log, m, "[REDACTED]")
	}
	return log
}

func TestMasksOfAToken(t *testing.T) {
	const token = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"
	texts, unmasked := masks(secrets(token))
	require.Empty(t, unmasked)
	require.Equal(t, token, texts[0], "the raw value goes first")
	require.Len(t, texts, 5, "raw, base64 at three alignments, hex: all other forms are equal to one of them")
	require.Contains(t, texts, hex.EncodeToString([]byte(token)))
}

// TestMaskedForms: whatever way a program prints a value, nothing of it but
// scraps at the edges of a base64 is left.
func TestMaskedForms(t *testing.T) {
	values := []string{
		"correct horse battery staple",
		`p@ss"w$rd'with\everything` + "`&<>",
		"first line of a file\nsecond line of a file\nthird line of it",
		"pässwörd-with-umlauts-ü",
		"a+b/c=d?e&f%20 ???>>>~~~",
		long(16 << 10),
	}
	for _, v := range values {
		texts, unmasked := masks(secrets(v))
		require.Empty(t, unmasked)
		shown := map[string]string{
			"raw":           v,
			"in a sentence": "the value is " + v + ".",
			"hex":           hex.EncodeToString([]byte(v)),
			"JSON":          `{"a":"` + quoteJSON(v) + `"}`,
			"set -x":        `'` + singleQuoted(v) + `'`,
			"export -p":     `"` + doubleQuoted(v) + `"`,
		}
		for _, line := range strings.Split(v, "\n") {
			shown["terminal "+line] = "\t" + line + "\r\n"
		}
		for before := range 7 {
			text := strings.Repeat("x", before) + v
			shown[fmt.Sprint("base64 after ", before)] = base64.StdEncoding.EncodeToString([]byte(text + "yy"))
			shown[fmt.Sprint("base64url after ", before)] = base64.URLEncoding.EncodeToString([]byte(text))
		}
		for i, width := range []int{76, 64} {
			text := base64.StdEncoding.EncodeToString([]byte(v + "\n"))
			for line := 0; len(text) > 0 && len(v) <= maxMaskLen; line++ {
				n := min(width, len(text))
				shown[fmt.Sprint("base64 in lines ", i, line)] = text[:n]
				text = text[n:]
			}
		}
		for how, log := range shown {
			left := redact(log, texts)
			require.NotContains(t, left, v, how)
			left = strings.ReplaceAll(left, "[REDACTED]", "")
			require.Less(t, len(left), 24, "%s shows too much: %s", how, left)
		}
	}
}

// long returns n letters without repetition that a mask could slip along.
func long(n int) string {
	random := rand.NewChaCha8([32]byte{1})
	text := make([]byte, n)
	for i := range text {
		text[i] = 'a' + byte(random.Uint64()%26)
	}
	return string(text)
}

func TestMasksOfSeveralLines(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEA\nAB==\n-----END PRIVATE KEY-----\n"
	texts, unmasked := masks(secrets(key))
	require.Contains(t, texts, key)
	require.Contains(t, texts, "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC")
	require.Contains(t, texts, "BKcwggSjAgEA")
	require.NotContains(t, texts, "AB==", "shorter than a mask may be")
	require.NotContains(t, texts, "-----BEGIN PRIVATE KEY-----", "armour is in every log that mentions a key")
	require.Equal(t, "lines under 8 bytes", unmasked)

	texts, _ = masks(secrets("{\r\n    \"token\": \"abcdefgh\"\r\n}"))
	require.Contains(t, texts, `"token": "abcdefgh"`, "without indentation and CR")
}

// TestMaskOfOneValueDoesNotCoverAnother: "password" is a mask, but of the other
// value it would leave the better half.
func TestMaskOfOneValueDoesNotCoverAnother(t *testing.T) {
	texts, _ := masks(secrets("password", "password-and-what-follows"))
	require.Contains(t, texts, "password-and-what-follows")

	texts, _ = masks(secrets(`quoted"1`, `quoted"1 and "more`))
	require.Contains(t, texts, `quoted\"1 and \"more`)
}

func TestMasksAreLimited(t *testing.T) {
	var values []string
	for i := range 200 {
		values = append(values, fmt.Sprintf("value-%d-%d/%d+'", i, rand.Uint64(), rand.Uint64()))
	}
	texts, unmasked := masks(secrets(values...))
	require.Len(t, texts, maxMasks)
	require.Equal(t, values, texts[:200], "all raw values before any other form")
	require.Contains(t, unmasked, "base64 at other alignments, base64url")
	seen := map[string]bool{}
	for _, text := range texts {
		require.False(t, seen[text], "twice: %s", text)
		seen[text] = true
		require.LessOrEqual(t, len(text), maxMaskLen)
	}

	texts, _ = masks(secrets("same value", "same value"))
	require.Equal(t, "same value", texts[0])
	require.NotEqual(t, "same value", texts[1])
}

// TestEveryRawValueIsMasked, whatever the limit: it is the promise.
func TestEveryRawValueIsMasked(t *testing.T) {
	var values []string
	for i := range maxMasks + 88 {
		values = append(values, fmt.Sprintf("value-%d-%d", i, rand.Uint64()))
	}
	texts, unmasked := masks(secrets(values...))
	require.Equal(t, values, texts)
	require.NotContains(t, unmasked, "whole values")
	require.Contains(t, unmasked, "base64")
}

// TestBlanksAround: echo $X without quotes drops them.
func TestBlanksAround(t *testing.T) {
	texts, _ := masks(secrets("  a token with blanks\t"))
	require.Contains(t, texts, "a token with blanks")
}

func TestRawValueIsMaskedEvenIfShort(t *testing.T) {
	texts, _ := masks(secrets("abc123"))
	require.Contains(t, texts, "abc123")
	_, unmasked := masks(secrets("abc123"))
	require.Empty(t, unmasked)
}

// TestMasksOfBytes: a file may hold what JSON can't carry; its base64 and hex can
// be masked all the same.
func TestMasksOfBytes(t *testing.T) {
	value := "\x00\xff\xfe\x80 some bytes \x81"
	texts, unmasked := masks(secrets(value))
	require.Equal(t, "raw bytes that are not UTF-8", unmasked)
	require.Contains(t, texts, hex.EncodeToString([]byte(value)))
	for _, text := range texts {
		require.True(t, utf8.ValidString(text))
	}
}

// TestLongValuesAreCutBetweenLetters: half a letter is no UTF-8, and would reach
// the agent as another text.
func TestLongValuesAreCutBetweenLetters(t *testing.T) {
	value := "x" + strings.Repeat("ü", 5000)
	texts, unmasked := masks(secrets(value))
	require.Empty(t, unmasked)
	require.Equal(t, "x"+strings.Repeat("ü", 2047), texts[0])
	for _, text := range texts {
		require.True(t, utf8.ValidString(text))
		require.LessOrEqual(t, len(text), maxMaskLen)
	}
	agent := &api{}
	_, err := agent.client(t).Deliver(Delivery{Secrets: secrets(value)})
	require.NoError(t, err)
	require.Equal(t, texts, agent.masked)
}
