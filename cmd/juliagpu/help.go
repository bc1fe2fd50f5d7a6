package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
)

func help(c *cobra.Command, _ []string) {
	io.WriteString(c.OutOrStdout(), manual(c, fit.Help(c.OutOrStdout())))
}

// helpOn is juliagpu help COMMAND.
func helpOn(c *cobra.Command, args []string) error {
	about, rest, err := c.Root().Find(args)
	if err == nil && len(rest) > 0 {
		err = about.ValidateArgs(rest)
	}
	if err != nil {
		return err
	}
	about.InitDefaultHelpFlag() // which joins the flags of those above
	return about.Help()
}

// takes names the value of a flag, for --help.
func takes(c *cobra.Command, flag, value string) {
	c.Flags().SetAnnotation(flag, takesKey, []string{value})
}

const takesKey = "takes"

// manual is a command's --help for a terminal of width columns. The first
// paragraph of Long stands above the examples, the others below; in an example a
// tab stands before its explanation.
func manual(c *cobra.Command, width int) string {
	var b strings.Builder
	usage := c.UseLine()
	if c.HasAvailableSubCommands() {
		usage = c.CommandPath() + " COMMAND"
	}
	paragraphs := strings.Split(c.Long, "\n\n")
	b.WriteString("usage: " + usage + "\n\n" + fit.Wrap(paragraphs[0], width, "", ""))
	if c.Example != "" {
		b.WriteString("\n")
	}
	for line := range strings.Lines(c.Example) {
		example, about, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		b.WriteString(fit.Row(example, about, width, 42))
	}
	for _, note := range paragraphs[1:] {
		b.WriteString("\n" + fit.Wrap(note, width, "", ""))
	}
	if c.HasAvailableSubCommands() {
		b.WriteString("\n")
		for _, below := range leaves(c) {
			name := strings.TrimPrefix(below.CommandPath(), c.CommandPath()+" ")
			b.WriteString(fit.Row(name, below.Short, width, 18))
		}
	}
	b.WriteString("\n")
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		for _, value := range f.Annotations[takesKey] {
			name += " " + value
		}
		b.WriteString(fit.Row(name, f.Usage, width, 18))
	})
	return b.String()
}

// leaves are the commands below c that do something.
func leaves(c *cobra.Command) (all []*cobra.Command) {
	for _, below := range c.Commands() {
		switch {
		case below.Hidden:
		case below.HasAvailableSubCommands():
			all = append(all, leaves(below)...)
		default:
			all = append(all, below)
		}
	}
	return all
}
