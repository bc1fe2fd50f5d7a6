package main

import (
	"strings"
	"unicode/utf8"
)

// A row is a text with its explanation beside it, or below where that does not fit.
type row struct{ left, about string }

// manual is the command's --help for a terminal of width columns.
func (c *command) manual(width int) string {
	var b strings.Builder
	before := "usage: "
	for _, line := range c.usage {
		b.WriteString(before + line + "\n")
		before = "       "
	}
	b.WriteString("\n" + wrap(c.about, width, "", "") + "\n")
	for _, r := range c.examples {
		b.WriteString(r.text(width, 42))
	}
	for _, note := range c.notes {
		b.WriteString("\n" + wrap(note, width, "", ""))
	}
	for _, g := range c.groups {
		b.WriteString("\n")
		if g.title != "" {
			b.WriteString(g.title + "\n")
		}
		for _, f := range g.flags {
			b.WriteString(row{f.String(), f.about}.text(width, 23))
		}
	}
	return b.String()
}

// String is the flag as --help shows it.
func (f flagSpec) String() string {
	var s []string
	for _, name := range f.names {
		s = append(s, dashed(name))
	}
	return strings.TrimRight(strings.Join(s, ", ")+" "+f.takes, " ")
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// text is the row with its explanation in the given column.
func (r row) text(width, column int) string {
	if width < 72 { // no room for two columns
		column = 6
	}
	left := "  " + r.left
	margin := strings.Repeat(" ", column)
	switch n := utf8.RuneCountInString(left); {
	case r.about == "":
		return left + "\n"
	case n+1 < column:
		return wrap(r.about, width, left+margin[n:], margin)
	}
	return left + "\n" + wrap(r.about, width, margin, margin)
}

// wrap breaks a text at its blanks into lines of at most width columns, if its
// words permit.
func wrap(text string, width int, first, margin string) string {
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
