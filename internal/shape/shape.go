// Package shape says what looks wrong with a value before it is sealed: once it
// is ciphertext nobody sees that a quote was pasted along.
//
// No text it returns holds a byte of the value, its length or a prefix.
package shape

import (
	_ "embed"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

// A Finding is one thing that looks wrong.
type Finding struct {
	Text    string
	Hint    string
	Refused bool // the value can't be right; otherwise a warning
}

// words are refused by nobody, but masking one of them hides it in every line
// of a log that speaks of something else. Shorter ones are too short anyway.
//
//go:embed words.txt
var words string

// Trim drops the one newline, LF or CR LF, that editors and echo put at a
// value's end, and tells whether there was one. A private key keeps its own.
func Trim(v plaintext.Value) (trimmed plaintext.Value, dropped bool) {
	text := v.Reveal()
	if isPrivateKey(text) {
		return v, false
	}
	body := withoutNewline(text)
	return plaintext.New(body), body != text
}

// Check returns either the one finding that refuses the value for the variable
// name, or all warnings. raw says that a newline at its end is meant.
func Check(name string, v plaintext.Value, raw bool) []Finding {
	text := withoutNewline(v.Reveal())
	if f, ok := refusal(text, len(v.Reveal())); ok {
		return []Finding{f}
	}
	if f, ok := textRefusal(name, text); ok {
		return []Finding{f}
	}
	return warnings(name, v.Reveal(), text, raw || isPrivateKey(v.Reveal()))
}

// CheckFile is Check for a value that becomes a file, and so may be any bytes.
func CheckFile(name string, v plaintext.Value) []Finding {
	text := v.Reveal()
	if f, ok := refusal(text, len(text)); ok {
		return []Finding{f}
	}
	if isPrivateKey(text) && !strings.HasSuffix(text, "\n") {
		return []Finding{lacksNewline(name)}
	}
	return nil
}

func lacksNewline(name string) Finding {
	return Finding{Text: "the private key lacks its last newline, and ssh refuses such a key", Hint: "take it from its file: encrypt " + name + " --file KEYFILE"}
}

// binary is what to do with a value that is no text.
const binary = `seal it with --type file; or its base64, which the job decodes: base64 FILE | tr -d '\n' | encrypt NAME`

func refused(text, hint string) (Finding, bool) { return Finding{text, hint, true}, true }

// refusal judges what can be no secret at all. Of text, a value without its last
// newline, all has size bytes.
func refusal(text string, size int) (Finding, bool) {
	bare := strings.Trim(strings.TrimSpace(text), quotes)
	_, n := utf8.DecodeRuneInString(text)
	switch {
	case text == "":
		return refused("the value is empty", "type it at the prompt, pipe it in, or name a file with --file")
	case size > envelope.MaxValue:
		return refused("the value is larger than 64 KiB", "seal a key, and keep what it encrypts elsewhere")
	case strings.Repeat(text[:n], len(text)/n) == text:
		return refused("the value is one character, repeated", "is it a placeholder? seal the secret itself")
	case len(text) < envelope.MinValue:
		return refused(fmt.Sprintf("the value is shorter than %d bytes: to mask it would mask half the log", envelope.MinValue),
			"make a longer one; what is this short is guessed anyway")
	case strings.Contains(strings.ToUpper(text), "AGE-SECRET-KEY-"):
		return refused("the value holds an age identity, the private half", "identities stay with the operator; no job needs one")
	case envelope.FormOf(bare) == envelope.FormAge, envelope.FormOf(bare) == envelope.FormRSAHybrid,
		strings.HasPrefix(bare, "-----BEGIN AGE ENCRYPTED FILE-----"), strings.HasPrefix(text, "age-encryption.org/v1\n"):
		return refused("the value is sealed already", "seal the secret itself")
	}
	return Finding{}, false
}

// textRefusal judges what can't be the variable name.
func textRefusal(name, text string) (Finding, bool) {
	switch {
	case strings.Contains(text, "\x00"):
		return refused("the value holds a NUL byte, which no variable can hold", binary)
	case !utf8.ValidString(text):
		return refused("the value is not UTF-8 text", binary)
	case isDocumenterKey(name) && isPrivateKey(text):
		return refused(name+" is a private key, but Documenter reads its base64",
			`base64 KEYFILE | tr -d '\n' | encrypt `+name)
	case isDocumenterKey(name) && !isPrivateKey(unbase64(text)):
		return refused(name+" is not the base64 of a private key",
			`base64 KEYFILE | tr -d '\n' | encrypt `+name+", KEYFILE being the private half")
	}
	return Finding{}, false
}

const quotes = "\"'`"

// warnings judges whole, and text, which is whole without its last newline.
func warnings(name, whole, text string, newlineMeant bool) (all []Finding) {
	add := func(when bool, text, hint string) {
		if when {
			all = append(all, Finding{Text: text, Hint: hint})
		}
	}
	blank := strings.TrimSpace(text) != text || !newlineMeant && text != whole
	quoted := strings.Contains(quotes, text[:1]) && text[0] == text[len(text)-1]
	bare := strings.ToLower(strings.Trim(strings.TrimSpace(text), quotes))

	add(strings.HasPrefix(text, "\ufeff"), "the value begins with a byte order mark, which becomes part of it", "save the file as UTF-8 without one")
	add(strings.Contains(text, "\r"), "the value holds CR line ends (\\r), which become part of it", `drop them: tr -d '\r' <FILE | encrypt `+name)
	add(blank, "the value begins or ends with a blank or a line break, which becomes part of it", "copy it again, without what stands around it")
	add(quoted, "the value begins and ends with a quote, which becomes part of it", "leave the quotes out, unless they belong to it")
	add(strings.HasPrefix(text, name+"="), "the value begins with its own name and =, which becomes part of it", "leave them out")
	add(slices.Contains(strings.Fields(words), bare), "the value is a common word: masking hides it wherever a log uses it", "seal secrets only; a plain setting can stand in the pipeline as it is")
	add(envelope.FormOf(bare) == envelope.FormRSA, "the value looks like what the older tool printed: sealed already", "seal the secret itself")

	cut := func(key string) bool { return isPrivateKey(key) && !strings.HasSuffix(key, "\n") }
	add(cut(whole), lacksNewline(name).Text, lacksNewline(name).Hint)
	add(isDocumenterKey(name) && cut(unbase64(text)), "the private key within lacks its last newline, and ssh refuses such a key", `take it from its file: base64 KEYFILE | tr -d '\n' | encrypt `+name)
	return all
}

// withoutNewline drops one LF or CR LF.
func withoutNewline(text string) string {
	if body, ok := strings.CutSuffix(text, "\n"); ok {
		return strings.TrimSuffix(body, "\r")
	}
	return text
}

// isPrivateKey accepts one whole private key in PEM armour, with blanks around it.
func isPrivateKey(text string) bool {
	// The decoder wants a newline after the last line; ours may lack it.
	block, rest := pem.Decode([]byte(strings.TrimSpace(text) + "\n"))
	return block != nil && len(rest) == 0 && strings.HasSuffix(block.Type, "PRIVATE KEY")
}

// isDocumenterKey tells which variables Documenter.jl decodes before use
// (its documentation, "SSH Deploy Keys").
func isDocumenterKey(name string) bool {
	return name == "DOCUMENTER_KEY" || name == "DOCUMENTER_KEY_PREVIEWS"
}

// unbase64 decodes what may be wrapped in lines, as Documenter does; "" when it
// is no base64.
func unbase64(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	decoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(decoded)
}
