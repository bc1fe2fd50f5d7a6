package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

// options are the arguments, not yet judged.
type options struct {
	name                    string
	file, expires, kind     string
	recipients, files       list
	repos, pipelines        list
	branches, tags          list
	noPullRequests, anyRepo bool
	raw, suffix             bool
	help, version           bool
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return "" }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// A command is what stands behind its word: parse, --help and completion read
// this one table.
type command struct {
	usage    []string
	about    string
	examples []row
	notes    []string
	groups   []group
}

type group struct {
	title string
	flags []flagSpec
}

// A flagSpec is one flag. field returns where it goes: a *bool, *string or *list;
// none is package flag's own.
type flagSpec struct {
	names []string
	takes string // "": it takes no value
	words []string
	about string
	field func(*options) any
}

// What may stand for a value in completion, beside the words of a flagSpec.
const (
	anyFile = ":file"
)

var (
	sealing = command{
		usage: []string{"encrypt [NAME] [flags]"},
		about: "Seals a secret for the agents that hold the identity, and prints the lines that carry it in pipeline.yml. The agents set NAME from SECRET_NAME.",
		examples: []row{
			{"encrypt", "asks for the name and the value"},
			{"encrypt CODECOV_TOKEN", "asks for the value, which is not shown"},
			{`printf %s "$T" | encrypt CODECOV_TOKEN`, "takes it from a pipe"},
			{"encrypt DEPLOY_ID --file id_ed25519", "several lines: a file or a pipe"},
		},
		notes: []string{
			"A value is never an argument: shell history and the process list keep those. One newline at the end of the value is dropped, except a private key's.",
		},
		groups: []group{
			{"where it opens", []flagSpec{
				{[]string{"repo"}, "ADDRESS", nil, "repository, https://… or git@…; may be repeated (default: remote upstream of the checkout, else origin)", func(o *options) any { return &o.repos }},
				{[]string{"pipeline"}, "ORG/SLUG", nil, "and only in this pipeline; may be repeated", func(o *options) any { return &o.pipelines }},
				{[]string{"branch"}, "PATTERN", nil, "only on these branches, as release-*; may be repeated; then, as with --tag, never in pull requests", func(o *options) any { return &o.branches }},
				{[]string{"tag"}, "PATTERN", nil, "only on these tags; may be repeated", func(o *options) any { return &o.tags }},
				{[]string{"no-pull-requests"}, "", nil, "in no build of a pull request, not even our own", func(o *options) any { return &o.noPullRequests }},
				{[]string{"expires"}, "WHEN", []string{"30d", "90d", "6m", "1y"}, "until then: 90d, 12w, 6m (months), 1y, 2027-06-30", func(o *options) any { return &o.expires }},
				{[]string{"any-repo"}, "", nil, "anywhere, where the operator allows that", func(o *options) any { return &o.anyRepo }},
			}},
			{"who can open it", []flagSpec{
				{[]string{"r", "recipient"}, "AGE1…", nil, "may be repeated", func(o *options) any { return &o.recipients }},
				recipientsFile("one recipient a line; may be repeated (default: " + inCheckout + " of the checkout, else those of this build)"),
			}},
			{"the value", []flagSpec{
				{[]string{"file"}, "FILE", []string{anyFile}, "read it from FILE (- is standard input)", func(o *options) any { return &o.file }},
				{[]string{"raw"}, "", nil, "keep the newline at its end", func(o *options) any { return &o.raw }},
				{[]string{"type"}, "file", []string{"file"}, "the job gets a private file with these very bytes, and NAME is its path", func(o *options) any { return &o.kind }},
			}},
			{"where it goes", []flagSpec{
				{[]string{"sealed-suffix"}, "", nil, "call the variable SECRET_NAME_SEALED, for agents that upload no *_TOKEN", func(o *options) any { return &o.suffix }},
			}},
			{"", []flagSpec{help, {[]string{"version"}, "", nil, "", func(o *options) any { return &o.version }}}},
		},
	}

	help = flagSpec{[]string{"h", "help"}, "", nil, "", nil}
)

func recipientsFile(about string) flagSpec {
	return flagSpec{[]string{"R", "recipients-file"}, "FILE", []string{anyFile}, about, func(o *options) any { return &o.files }}
}

func (c *command) flags() (all []flagSpec) {
	for _, g := range c.groups {
		all = append(all, g.flags...)
	}
	return all
}

// noValue is the hint for arguments that may be a value; none is repeated in a message.
const noValue = "run encrypt NAME and type the value, or pipe it in; encrypt --help lists the flags"

// parse reads flags before and after the name.
func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("encrypt", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for _, f := range sealing.flags() {
		if f.field == nil {
			continue
		}
		for _, name := range f.names {
			switch field := f.field(&o).(type) {
			case *bool:
				fs.BoolVar(field, name, false, "")
			case *string:
				fs.StringVar(field, name, "", "")
			case *list:
				fs.Var(field, name, "")
			}
		}
	}

	var names list
	for rest := args; len(rest) > 0; {
		err := fs.Parse(rest)
		at := len(args) - fs.NArg() // arguments read so far
		switch {
		case errors.Is(err, flag.ErrHelp):
			return options{help: true}, nil
		case err != nil && strings.HasPrefix(err.Error(), "flag needs an argument"):
			return options{}, misused("encrypt --help shows which", "%s", err)
		case err != nil: // flag's error repeats the argument, and that may be a value
			return options{}, misused(noValue, "argument %d begins with a hyphen and is none of the flags", at)
		}
		rest = fs.Args()
		if at > 0 && args[at-1] == "--" {
			names = append(names, rest...)
			break
		}
		if len(rest) > 0 {
			names, rest = append(names, rest[0]), rest[1:]
		}
	}
	switch {
	case o.version:
		return o, nil
	case len(names) > 1, len(names) == 1 && strings.Contains(names[0], "="):
		return options{}, misused(noValue, "the value is in the arguments, where shell history keeps it")
	case o.anyRepo && len(o.repos)+len(o.pipelines) > 0:
		return options{}, misused("leave one out", "--any-repo stands beside --repo or --pipeline")
	case o.kind != "" && o.kind != "file":
		return options{}, misused("--type file makes a private file; without it the variable holds the value", "--type: not a type that encrypt seals")
	case len(names) == 0:
		return o, nil
	}
	var err error
	o.name, err = checkName(names[0])
	return o, err
}

// checkName accepts the name of a variable as people type it. A text that is
// none may be a value, so it is not repeated.
func checkName(typed string) (string, error) {
	if err := envelope.CheckName(typed); err != nil {
		return "", refuse("name the variable as the job reads it, such as CODECOV_TOKEN", "%s", err)
	}
	name, prefixed := strings.CutPrefix(typed, envelope.Prefix)
	if !prefixed || name == "" {
		return typed, nil
	}
	if strings.HasPrefix(name, envelope.Prefix) { // SECRET_SECRET_KEY sets SECRET_KEY
		return name, nil
	}
	return "", refuse(
		fmt.Sprintf("type %s; or %s%s, if the job's variable is %s itself", name, envelope.Prefix, typed, typed),
		"%s has the prefix already, which encrypt adds", typed)
}
