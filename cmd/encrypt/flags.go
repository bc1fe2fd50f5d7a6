package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

const usage = `usage: encrypt [NAME] [flags]

Seals a secret for the agents that hold the identity, and prints the lines
that carry it in pipeline.yml. The agents set NAME from SECRET_NAME.

  encrypt                              asks for the name and the value
  encrypt CODECOV_TOKEN                asks for the value, which is not shown
  printf %s "$T" | encrypt CODECOV_TOKEN
  encrypt DEPLOY_ID --file id_ed25519  several lines: by --file or a pipe only

A value is never an argument: shell history and the process list keep those.
One newline at the end of the value is dropped, except a private key's.

where it opens
  --repo ADDRESS      repository, https://… or git@…; may be repeated
                      (default: remote upstream of the checkout, else origin)
  --pipeline ORG/SLUG and only in this pipeline; may be repeated
  --branch PATTERN    only on these branches, as release-*; may be repeated;
                      then, as with --tag, never in pull requests
  --tag PATTERN       only on these tags; may be repeated
  --no-pull-requests  in no build of a pull request, not even our own
  --expires WHEN      until then: 90d, 12w, 6m (months), 1y, 2027-06-30
  --any-repo          anywhere, where the operator allows that

who can open it
  -r, --recipient AGE1…        may be repeated
  -R, --recipients-file FILE   one recipient a line; may be repeated
                      (default: .buildkite/secrets.recipients of the checkout,
                      else those of this build)

the value
  --file FILE         read it from FILE (- is standard input)
  --raw               keep the newline at its end

  -h, --help    --version
`

// options are the arguments, not yet judged.
type options struct {
	name                    string
	file, expires           string
	recipients, files       list
	repos, pipelines        list
	branches, tags          list
	noPullRequests, anyRepo bool
	raw, help, version      bool
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return "" }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// noValue is the hint for arguments that may be a value; none is repeated in a message.
const noValue = "run encrypt NAME and type the value, or pipe it in; encrypt --help lists the flags"

// parse reads flags before and after the name.
func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("encrypt", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for _, name := range []string{"r", "recipient"} {
		fs.Var(&o.recipients, name, "")
	}
	for _, name := range []string{"R", "recipients-file"} {
		fs.Var(&o.files, name, "")
	}
	fs.Var(&o.repos, "repo", "")
	fs.Var(&o.pipelines, "pipeline", "")
	fs.Var(&o.branches, "branch", "")
	fs.Var(&o.tags, "tag", "")
	fs.StringVar(&o.file, "file", "", "")
	fs.StringVar(&o.expires, "expires", "", "")
	fs.BoolVar(&o.noPullRequests, "no-pull-requests", false, "")
	fs.BoolVar(&o.anyRepo, "any-repo", false, "")
	fs.BoolVar(&o.raw, "raw", false, "")
	fs.BoolVar(&o.version, "version", false, "")

	var names []string
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
	case len(names) == 1:
		var err error
		if o.name, err = checkName(names[0]); err != nil {
			return options{}, err
		}
	}
	return o, nil
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
