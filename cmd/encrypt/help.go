package main

import (
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
)

// A row is a text with its explanation.
type row struct{ left, about string }

// manual is the command's --help for a terminal of width columns.
func (c *command) manual(width int) string {
	var b strings.Builder
	before := "usage: "
	for _, line := range c.usage {
		b.WriteString(before + line + "\n")
		before = "       "
	}
	b.WriteString("\n" + fit.Wrap(c.about, width, "", "") + "\n")
	for _, r := range c.examples {
		b.WriteString(fit.Row(r.left, r.about, width, 42))
	}
	for _, note := range c.notes {
		b.WriteString("\n" + fit.Wrap(note, width, "", ""))
	}
	for _, g := range c.groups {
		b.WriteString("\n")
		if g.title != "" {
			b.WriteString(g.title + "\n")
		}
		for _, f := range g.flags {
			b.WriteString(fit.Row(f.String(), f.about, width, 23))
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
