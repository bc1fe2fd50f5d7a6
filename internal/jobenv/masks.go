package jobenv

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

// Limits of masking. Each mask slows every line of the job's log (measured: a
// log of 159 MB/s falls to 30 with 120 masks, to 5 with 600).
const (
	maxMasks   = 512
	minMask    = 8       // bytes; anything shorter stands in innocent lines too
	maxMaskLen = 4 << 10 // bytes; longer forms are sent in pieces
)

// A form is one way in which a program may print a value.
type form struct {
	name string
	of   func(value string) []string
}

const formLines = "lines"

// forms stand in the order in which they are sent: where not all fit, every
// value's first form goes before any value's second.
var forms = []form{
	{"whole values", func(v string) []string { return []string{v} }},
	{formLines, lines},
	{"base64", func(v string) []string { return []string{aligned(base64.RawStdEncoding, v, 0)} }},
	{"base64 at other alignments", func(v string) []string { return []string{aligned(base64.RawStdEncoding, v, 1)} }},
	{"base64 at other alignments", func(v string) []string { return []string{aligned(base64.RawStdEncoding, v, 2)} }},
	{"base64url", func(v string) []string { return []string{aligned(base64.RawURLEncoding, v, 0)} }},
	{"base64url", func(v string) []string { return []string{aligned(base64.RawURLEncoding, v, 1)} }},
	{"base64url", func(v string) []string { return []string{aligned(base64.RawURLEncoding, v, 2)} }},
	{"URL-encoded", func(v string) []string { return []string{url.QueryEscape(v), url.PathEscape(v)} }},
	{"JSON", func(v string) []string { return []string{quoteJSON(v)} }},
	{"shell-quoted", func(v string) []string { return []string{singleQuoted(v), doubleQuoted(v), backslashed(v)} }},
	{"hex", func(v string) []string { return []string{hex.EncodeToString([]byte(v))} }},
}

// masks returns the texts to mask for the variables, and one line that says
// what is left unmasked, or "".
func masks(vars []envelope.Variable) (texts []string, unmasked string) {
	sent := map[string]bool{}
	own := make([][]string, len(vars)) // what is sent for each variable
	var left []string                  // the forms of which not all fit
	for rank, f := range forms {
		for i, v := range vars {
			for _, text := range f.of(v.Value.Reveal()) {
				// A raw value is masked whatever its length: none shorter than
				// envelope.MinValue opens.
				if rank > 0 && (len(text) < minMask || covered(text, own[i])) {
					if f.name == formLines && len(text) < minMask {
						left = append(left, "lines under 8 bytes")
					}
					continue
				}
				for _, piece := range pieces(text) {
					if !sent[piece] && len(texts) == maxMasks {
						left = append(left, f.name)
						continue
					}
					if !sent[piece] {
						sent[piece] = true
						texts = append(texts, piece)
					}
					own[i] = append(own[i], piece)
				}
			}
		}
	}
	return texts, strings.Join(slices.Compact(left), ", ")
}

// covered tells whether the masks of the same value hide all of a form but
// scraps too short to be a mask themselves. Another value's masks don't count:
// what they leave over could be most of this one.
func covered(text string, masks []string) bool {
	for _, m := range masks {
		text = strings.ReplaceAll(text, m, "\x00")
	}
	for scrap := range strings.SplitSeq(text, "\x00") {
		if len(scrap) >= minMask {
			return false
		}
	}
	return true
}

// lines returns each line of a value with several, by itself: a log from a
// pseudo-terminal has \r\n, so the whole never matches. The armour of a PEM is
// left out: it is in every log that mentions a key.
func lines(v string) []string {
	if !strings.ContainsAny(v, "\r\n") {
		return nil
	}
	var each []string
	for _, line := range strings.FieldsFunc(v, func(r rune) bool { return r == '\r' || r == '\n' }) {
		// Without its indentation: a program may print it at another depth.
		line = strings.TrimSpace(line)
		if line != "" && !(strings.HasPrefix(line, "-----") && strings.HasSuffix(line, "-----")) {
			each = append(each, line)
		}
	}
	return each
}

// aligned returns the base64 that a longer text shows wherever v stands in it
// with before bytes (modulo 3) before it. The characters at its edges depend on
// the neighbours and are left out.
func aligned(encoding *base64.Encoding, v string, before int) string {
	text := encoding.EncodeToString([]byte("\x00\x00"[:before] + v))
	first := (before*8 + 5) / 6
	last := (before + len(v)) * 8 / 6
	return text[first:max(first, last)]
}

// quoteJSON returns v as it stands between the quotes of a JSON string.
func quoteJSON(v string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(b.String(), `"`), "\"\n")
}

// singleQuoted is how set -x and shlex.quote show v, without the outer quotes.
func singleQuoted(v string) string { return strings.ReplaceAll(v, `'`, `'\''`) }

// doubleQuoted is how export -p shows v, without the outer quotes.
func doubleQuoted(v string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(v)
}

// backslashed is how printf %q shows v.
func backslashed(v string) string {
	var b strings.Builder
	for i := range len(v) {
		if c := v[i]; c < 0x80 && !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,", rune(c)) {
			b.WriteByte('\\')
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// pieces cuts a long form: a text in a log that holds the whole holds each.
func pieces(text string) []string {
	var cut []string
	for len(text) > maxMaskLen {
		cut = append(cut, text[:maxMaskLen])
		text = text[maxMaskLen:]
	}
	if len(text) >= minMask || len(cut) == 0 {
		cut = append(cut, text)
	}
	return cut
}
