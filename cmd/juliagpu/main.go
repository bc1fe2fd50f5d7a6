// Juliagpu is for the operators of agents: it checks by hand what the hooks
// check, and writes what a person would otherwise look up.
//
// Standard output gets what was asked for and nothing else; errors and hints go to
// standard error. It changes nothing but the files that it is told to write.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole program. Its status is 0 when it did what was asked, 1 when
// something was refused, 2 when the arguments make no sense, 75 when the machine is
// at fault.
func run(args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runOn(thisHost(), args, env, stdin, stdout, stderr)
}

// runOn is run on a host, which may be one that a test made up.
func runOn(h host, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{env: env, stdout: stdout, stderr: stderr, host: h}
	root := p.commands()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return p.status
	}
	fmt.Fprintf(stderr, "juliagpu: error: %s\n", err)
	var r *refusal
	if !errors.As(err, &r) {
		return 1
	}
	if r.hint != "" {
		fmt.Fprintf(stderr, "juliagpu: hint: %s\n", r.hint)
	}
	return r.status
}

// A program is one run: what it is given, and the status that it ends with where
// there is no error.
type program struct {
	env            []string
	stdout, stderr io.Writer
	host           host
	status         int
}

// commands are all there are.
func (p *program) commands() *cobra.Command {
	root := group(&cobra.Command{
		Use:     "juliagpu",
		Long:    "For the operators of agents that run other people's jobs.",
		Version: version(),
		// run prints errors, with a hint in place of the usage.
		SilenceErrors: true, SilenceUsage: true,
	},
		group(&cobra.Command{
			Use:   "gpu",
			Short: "which GPUs a job can reach",
			Long:  "Finds out which GPUs a job can reach here, and writes down which it may.",
		}, p.check(), p.policy(), p.resolve()),
		p.agent(),
		p.audit(),
		p.doctor(),
		p.keys(),
		p.secrets(),
		p.completion(),
	)
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().BoolP("help", "h", false, "")
	root.Flags().Bool("version", false, "")
	root.SetVersionTemplate("juliagpu {{.Version}}\n")
	root.SetHelpFunc(help)
	root.SetHelpCommand(&cobra.Command{Use: "help", Short: "about a command", Hidden: true, RunE: helpOn})
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return misused(c.CommandPath()+" --help lists them", "%s", err)
	})
	return root
}

// group makes c a command that is nothing but those below it.
func group(c *cobra.Command, below ...*cobra.Command) *cobra.Command {
	c.SuggestionsMinimumDistance = 2
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := c.CommandPath() + " --help lists them"
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + c.CommandPath() + " " + near[0] + "?"
		}
		return misused(hint, "%s has no command %q", c.CommandPath(), args[0])
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.AddCommand(below...)
	return c
}

// noArguments is for commands that take flags alone.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misused(c.CommandPath()+" --help lists what it takes", "%s takes no %q", c.CommandPath(), args[0])
	}
	return nil
}

// print writes what was asked for.
func (p *program) print(text string) error {
	if _, err := io.WriteString(p.stdout, text); err != nil {
		return fmt.Errorf("standard output: %w", cause(err))
	}
	return nil
}

// getenv is the last value of a variable, as in most programs.
func (p *program) getenv(name string) (value string) {
	for _, entry := range p.env {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown)"
}

// cause is an error without the path, which the message has already.
func cause(err error) error {
	var at *os.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// A refusal is an error with what to do about it, and the program's status.
type refusal struct {
	text, hint string
	status     int
}

func (r *refusal) Error() string { return r.text }

func refuse(hint, format string, a ...any) error {
	return &refusal{fmt.Sprintf(format, a...), hint, 1}
}

// lacking is a refusal where the machine is at fault.
func lacking(hint, format string, a ...any) error {
	return &refusal{fmt.Sprintf(format, a...), hint, 75}
}

// misused is a refusal of the arguments themselves.
func misused(hint, format string, a ...any) error {
	return &refusal{fmt.Sprintf(format, a...), hint, 2}
}
