package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
)

// options are the arguments, not yet judged.
type options struct {
	command                 string // "", show or completion
	name                    string
	operands                list // of show and completion
	file, expires, kind     string
	bundle, envFile         string
	write, step             string
	recipients, files       list
	repos, pipelines        list
	branches, tags          list
	noPullRequests, anyRepo bool
	raw, suffix, json       bool
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
	anyStep = ":step"
)

var (
	sealing = command{
		usage: []string{"encrypt [NAME] [flags]", "encrypt --bundle NAME [flags]", "encrypt show [FILE]", "encrypt completion SHELL"},
		about: "Seals a secret for the agents that hold the identity, and prints the lines that carry it in pipeline.yml. The agents set NAME from SECRET_NAME.",
		examples: []row{
			{"encrypt", "asks for the name and the value"},
			{"encrypt CODECOV_TOKEN", "asks for the value, which is not shown"},
			{`printf %s "$T" | encrypt CODECOV_TOKEN`, "takes it from a pipe"},
			{"encrypt DEPLOY_ID --file id_ed25519", "several lines: a file or a pipe"},
			{"encrypt --bundle CI --env-file ci.env", "many variables in one sealed value"},
			{"encrypt NPM --write pipeline.yml", "changes that file instead of printing"},
			{"encrypt show", "what pipeline.yml holds, without a key"},
		},
		notes: []string{
			"A value is never an argument: shell history and the process list keep those. One newline at the end of the value is dropped, except a private key's.",
			"A variable called show or completion is sealed with encrypt -- show.",
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
				{[]string{"bundle"}, "NAME", nil, "several variables in one sealed value, which SECRET_NAME carries; asks for each until a name is empty", func(o *options) any { return &o.bundle }},
				{[]string{"env-file"}, "FILE", []string{anyFile}, "with --bundle: read them from FILE (- is standard input), one NAME=VALUE a line, # comments; no quotes, no shell", func(o *options) any { return &o.envFile }},
			}},
			{"where it goes", []flagSpec{
				{[]string{"write"}, "FILE", []string{anyFile}, "add it to this pipeline file, or replace it there, and leave every other byte", func(o *options) any { return &o.write }},
				{[]string{"step"}, "KEY", []string{anyStep}, "with --write: in the env: of this step (default: of the pipeline)", func(o *options) any { return &o.step }},
				{[]string{"sealed-suffix"}, "", nil, "call the variable SECRET_NAME_SEALED, for agents that upload no *_TOKEN", func(o *options) any { return &o.suffix }},
			}},
			{"", []flagSpec{help, {[]string{"version"}, "", nil, "", func(o *options) any { return &o.version }}}},
		},
	}

	showing = command{
		usage: []string{"encrypt show [FILE] [flags]"},
		about: "Shows what anyone can read of sealed values, without a key: of all in a pipeline file, or of one. Only an agent that holds the key can tell whether a label is true.",
		examples: []row{
			{"encrypt show", inPipeline + " of the checkout"},
			{"encrypt show deploy.yml", "another pipeline file"},
			{"encrypt show YWdlLWVuY3J5…", "one sealed value; or from a pipe"},
		},
		notes: []string{"Ends with status 1 where a value is malformed, renamed or there twice, so that a job with it would fail."},
		groups: []group{{"", []flagSpec{
			{[]string{"json"}, "", nil, "for programs", func(o *options) any { return &o.json }},
			recipientsFile("names recipients, beside those of the checkout and of this build; may be repeated"),
			help,
		}}},
	}

	completing = command{
		usage: []string{"encrypt completion bash|zsh|fish|powershell"},
		about: "Prints a script that lets a shell complete encrypt's arguments.",
		examples: []row{
			{"source <(encrypt completion bash)", "in ~/.bashrc"},
			{"source <(encrypt completion zsh)", "in ~/.zshrc, below compinit"},
			{"encrypt completion fish | source", "in ~/.config/fish/config.fish"},
			{"encrypt completion powershell | Out-String | Invoke-Expression", "in $PROFILE"},
		},
		groups: []group{{"", []flagSpec{help}}},
	}

	help = flagSpec{[]string{"h", "help"}, "", nil, "", nil}
)

func recipientsFile(about string) flagSpec {
	return flagSpec{[]string{"R", "recipients-file"}, "FILE", []string{anyFile}, about, func(o *options) any { return &o.files }}
}

// words are those that a first argument may be instead of a name.
var words = map[string]*command{"show": &showing, "completion": &completing}

// commandOf takes the command's word from the arguments, if there is one.
func commandOf(args []string) (c *command, word string, rest []string) {
	if len(args) > 0 && words[args[0]] != nil {
		return words[args[0]], args[0], args[1:]
	}
	return &sealing, "", args
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
	c, word, rest := commandOf(args)
	o.command = word
	fs := flag.NewFlagSet("encrypt", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for _, f := range c.flags() {
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

	var operands list
	for len(rest) > 0 {
		err := fs.Parse(rest)
		at := len(args) - fs.NArg() // arguments read so far
		switch {
		case errors.Is(err, flag.ErrHelp):
			return options{command: word, help: true}, nil
		case err != nil && strings.HasPrefix(err.Error(), "flag needs an argument"):
			return options{}, misused("encrypt --help shows which", "%s", err)
		case err != nil && word != "":
			return options{}, misused("encrypt "+word+" --help lists them; encrypt -- "+word+" seals a variable of that name",
				"argument %d begins with a hyphen and is no flag of encrypt %s", at, word)
		case err != nil: // flag's error repeats the argument, and that may be a value
			return options{}, misused(noValue, "argument %d begins with a hyphen and is none of the flags", at)
		}
		rest = fs.Args()
		if at > 0 && args[at-1] == "--" {
			operands = append(operands, rest...)
			break
		}
		if len(rest) > 0 {
			operands, rest = append(operands, rest[0]), rest[1:]
		}
	}
	if word != "" {
		o.operands = operands
		return o, nil
	}
	return o.sealing(operands)
}

// sealing judges the arguments of encrypt without another word.
func (o options) sealing(names list) (options, error) {
	switch {
	case o.version:
		return o, nil
	case len(names) > 1, len(names) == 1 && strings.Contains(names[0], "="):
		return options{}, misused(noValue, "the value is in the arguments, where shell history keeps it")
	case o.anyRepo && len(o.repos)+len(o.pipelines) > 0:
		return options{}, misused("leave one out", "--any-repo stands beside --repo or --pipeline")
	case o.kind != "" && o.kind != "file":
		return options{}, misused("--type file makes a private file; without it the variable holds the value", "--type: not a type that encrypt seals")
	case o.envFile != "" && o.bundle == "":
		return options{}, misused("encrypt --bundle NAME --env-file FILE", "--env-file needs --bundle")
	case o.bundle != "" && len(names) > 0:
		return options{}, misused("encrypt --bundle NAME; its variables come from --env-file or the prompt", "a name stands beside --bundle")
	case o.bundle != "" && (o.file != "" || o.raw || o.kind != ""):
		return options{}, misused("seal that one by itself", "--file, --raw and --type are for one value, not for --bundle")
	case o.step != "" && o.write == "":
		return options{}, misused("encrypt NAME --write FILE --step KEY", "--step needs --write")
	case len(names) == 1:
		o.name = names[0]
	default:
		o.name = o.bundle
	}
	if o.name == "" && len(names) == 0 {
		return o, nil
	}
	var err error
	o.name, err = checkName(o.name)
	return o, err
}

// checkName accepts the name of a variable as people type it. A text that is
// none may be a value, so it is not repeated.
func checkName(typed string) (string, error) {
	if err := names.Check(typed); err != nil {
		return "", refuse("name the variable as the job reads it, such as CODECOV_TOKEN", "%s", err)
	}
	name, prefixed := strings.CutPrefix(typed, names.Prefix)
	if !prefixed || name == "" {
		return typed, nil
	}
	if strings.HasPrefix(name, names.Prefix) { // SECRET_SECRET_KEY sets SECRET_KEY
		return name, nil
	}
	return "", refuse(
		fmt.Sprintf("type %s; or %s%s, if the job's variable is %s itself", name, names.Prefix, typed, typed),
		"%s has the prefix already, which encrypt adds", typed)
}
