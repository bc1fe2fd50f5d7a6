// Package escape makes text that an attacker may have chosen safe to print.
package escape

import "strconv"

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
