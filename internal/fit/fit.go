// Package fit breaks text for people to the width of their terminal.
package fit

import (
	"strings"
	"unicode/utf8"
)

// Wrap breaks a text at its blanks into lines of at most width columns, if its
// words permit. The first line begins with first, the others with margin.
func Wrap(text string, width int, first, margin string) string {
	var b strings.Builder
	line, bare := first, true
	for word := range strings.FieldsSeq(text) {
		if !bare && utf8.RuneCountInString(line+word)+1 > width {
			b.WriteString(line + "\n")
			line, bare = margin, true
		}
		if !bare {
			line += " "
		}
		line, bare = line+word, false
	}
	return b.String() + line + "\n"
}

// Row is a text with its explanation beside it in the given column, or below
// where that does not fit.
func Row(left, about string, width, column int) string {
	if width < 72 { // no room for two columns
		column = 6
	}
	left = "  " + left
	margin := strings.Repeat(" ", column)
	switch n := utf8.RuneCountInString(left); {
	case about == "":
		return left + "\n"
	case n+1 < column:
		return Wrap(about, width, left+margin[n:], margin)
	}
	return left + "\n" + Wrap(about, width, margin, margin)
}
