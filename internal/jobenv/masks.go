package jobenv

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

// Limits of masking. Each mask slows every line of the job's log (measured: a
// log of 159 MB/s falls to 30 with 120 masks, to 5 with 600), so beyond maxMasks
// nothing is sent but the values themselves.
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
	{"base64 in lines", wrapped},
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

// eachMask calls send with each text to mask for the variables that is not in sent,
// and adds it there unless send does. It returns one line that says what is left
// unmasked, or "".
func eachMask(vars []envelope.Variable, sent map[string]bool, send func(text string)) (unmasked string) {
	own := make([][]string, len(vars)) // what is sent for each variable
	var left []string                  // the forms of which not all fit
	for rank, f := range forms {
		for i, v := range vars {
			for _, text := range f.of(v.Value.Reveal()) {
				if !utf8.ValidString(text) { // JSON, and so the Job API, can't carry it
					left = append(left, "raw bytes that are not UTF-8")
					continue
				}
				// A raw value is masked whatever its length: none shorter than
				// envelope.MinValue opens.
				if rank > 0 && (len(text) < minMask || covered(text, own[i])) {
					if f.name == formLines && len(text) < minMask && text != v.Value.Reveal() {
						left = append(left, "lines under 8 bytes")
					}
					continue
				}
				for _, piece := range pieces(text) {
					if !sent[piece] && len(sent) >= maxMasks && rank > 0 {
						left = append(left, f.name)
						continue
					}
					if !sent[piece] {
						send(piece)
						sent[piece] = true
					}
					own[i] = append(own[i], piece)
				}
			}
		}
	}
	return strings.Join(once(left), ", ")
}

// once drops what comes again.
func once(texts []string) []string {
	var first []string
	for _, t := range texts {
		if !slices.Contains(first, t) {
			first = append(first, t)
		}
	}
	return first
}

// covered tells whether the masks of the same value hide all of a form but
// scraps too short to be a mask themselves. Another value's masks don't count:
// what they leave over could be most of this one.
func covered(text string, masks []string) bool {
	if slices.Contains(masks, text) { // most are: a token of letters and digits needs no quotes
		return true
	}
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

// lines returns each line of a value by itself: a log from a pseudo-terminal has
// \r\n, so a value with several never matches as a whole, and a shell's echo $X
// drops the blanks around one. The armour of a PEM is left out: it is in every
// log that mentions a key.
func lines(v string) []string {
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

// wrapped returns the lines in which base64 (76 letters) and openssl base64 (64)
// print a value. Beyond 4 KiB there would be more of them than masks.
func wrapped(v string) []string {
	if len(v) > maxMaskLen {
		return nil
	}
	var each []string
	for _, width := range []int{76, 64} {
		text := aligned(base64.RawStdEncoding, v, 0)
		for len(text) > width {
			each = append(each, text[:width])
			text = text[width:]
		}
		if len(each) > 0 {
			each = append(each, text)
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
func doubleQuoted(v string) string { return inDoubleQuotes.Replace(v) }

var inDoubleQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")

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

// pieces cuts a long form, never within a letter: a text in a log that holds the
// whole holds each.
func pieces(text string) []string {
	var cut []string
	for len(text) > maxMaskLen {
		n := maxMaskLen
		for !utf8.RuneStart(text[n]) {
			n--
		}
		cut = append(cut, text[:n])
		text = text[n:]
	}
	if len(text) >= minMask || len(cut) == 0 {
		cut = append(cut, text)
	}
	return cut
}
