// Package escape makes text that an attacker may have chosen safe to print.
package escape

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// longest is how much of a text is shown, in bytes.
const longest = 200

// Text returns s as it is when it is short, printable ASCII without blanks at
// its ends, and quoted otherwise: no line break, no escape sequence, no
// look-alike letter reaches a log. What is too long ends in "…".
func Text(s string) string {
	more := ""
	if len(s) > longest {
		s, more = s[:longest], "…"
	}
	plain := s != "" && s[0] != ' ' && s[len(s)-1] != ' '
	for i := range len(s) {
		plain = plain && ' ' <= s[i] && s[i] <= '~' && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return s + more
	}
	return strconv.QuoteToASCII(s) + more
}

// JSON returns a JSON text with what is not printable ASCII in escapes, so that it
// is safe to look at, too. The text means the same.
func JSON(text []byte) []byte {
	var ascii []byte
	unit := func(r rune) { // of UTF-16
		ascii = append(ascii, '\\', 'u')
		for shift := 12; shift >= 0; shift -= 4 {
			ascii = append(ascii, "0123456789abcdef"[r>>shift&0xf])
		}
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch high, low := utf16.EncodeRune(r); {
		case r < 0x7f:
			ascii = append(ascii, byte(r))
		case r > 0xffff:
			unit(high)
			unit(low)
		default:
			unit(r)
		}
		text = text[n:]
	}
	return ascii
}
