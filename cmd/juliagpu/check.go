package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/isolation"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

func (p *program) check() *cobra.Command {
	var json bool
	var config string
	c := &cobra.Command{
		Use:   "check",
		Short: "the checks of the pre-command hook, by hand",
		Long: "Makes the checks of the pre-command hook, by the configuration that the hook reads, and asks nvidia-smi besides. " +
			"Run it where jobs run and as the user that they run as: in the agent's container, or on a host without containers.\n\n" +
			"Ends with status 1 where a job's command would be refused, with 75 where the machine alone is at fault, else with 0. " +
			"docs/gpu.md explains each finding.",
		Example: "docker compose exec SERVICE juliagpu gpu check\tin the agent's container\n" +
			"juliagpu gpu check --config new.yml\tbefore that file is installed\n" +
			"juliagpu gpu check --json\tfor programs, with all that was measured",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return p.checkGPU(config, json) },
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVar(&json, "json", false, "for programs")
	c.Flags().StringVar(&config, "config", "", "by this one; default: the file that the hooks read")
	takes(c, "config", "FILE")
	return c
}

func (p *program) checkGPU(file string, json bool) error {
	config, err := load(file)
	if file != "" && errors.Is(err, fs.ErrNotExist) && !errors.Is(err, settings.ErrNone) {
		return misused("name a configuration as README.md describes it", "--config: %s: %s", escape.Text(file), cause(err))
	}
	result := isolation.Check(config, err, isolation.Ask{Environ: p.env, All: true})
	p.status = result.Report.Status()
	if json {
		return p.print(string(result.Report.JSON(result.Facts, result.Took)))
	}
	width, terminal := fit.Columns(p.stdout)
	colour := terminal && p.getenv("NO_COLOR") == "" && p.getenv("TERM") != "dumb"
	return p.print(page{sources(config, err), result.Report, result.Took}.text(width, colour))
}

// load reads a configuration: of that path, or else the hooks'.
func load(file string) (settings.Settings, error) {
	if file == "" {
		found, err := settings.FindInstalled()
		if err != nil {
			return settings.Settings{}, err
		}
		file = found
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return settings.Settings{}, err
	}
	return settings.Load(file, os.Getuid())
}

// sources says which files the verdict rests on. What is wrong with one of them
// is a finding.
func sources(config settings.Settings, err error) (lines []string) {
	var policy *gpu.Policy
	switch {
	case err == nil:
		lines = append(lines, "configuration: "+escape.Text(config.Path))
		policy, _ = config.Policy(os.Getuid())
	case errors.Is(err, settings.ErrNone):
		lines = append(lines, err.Error())
		policy, _ = settings.DefaultPolicy(os.Getuid())
	}
	if policy != nil && policy.Path != "" {
		lines = append(lines, "policy: "+escape.Text(policy.Path))
	}
	return lines
}

// A page is a report for people.
type page struct {
	head   []string
	report gpu.Report
	took   time.Duration
}

// text breaks prose into lines of at most width columns, 0 for any, and leaves
// what is to be pasted as it is.
func (p page) text(width int, colour bool) string {
	paint := func(code, text string) string {
		if !colour {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	var b strings.Builder
	for i, line := range append(p.head, p.report.Lines()...) {
		line = broken(line, width)
		mark, rest := "", line
		switch {
		case i < len(p.head)+len(p.report.Notes):
		case strings.HasPrefix(line, "  "): // why: and the like
			if mark, rest = line[:labelled], line[labelled:]; strings.TrimSpace(mark) != "" {
				mark = paint(dim, mark)
			}
		default:
			id, text, _ := strings.Cut(line, ": ")
			mark, rest = paint(kindColours[id], id+":"), " "+text
			if kindColours[id] == "" {
				mark = paint(red, id+":")
			}
		}
		b.WriteString(mark + rest)
	}
	verdict, code := "pass:", green
	if status := p.report.Status(); status != gpu.StatusPass {
		verdict, code = fmt.Sprintf("status %d:", status), red
	}
	end := verdict + " nothing was checked"
	if summary := p.report.Summary(); summary != "" {
		end = fmt.Sprintf("%s %s; %d checks in %d ms", verdict, summary, p.report.Checks, p.took.Milliseconds())
	}
	b.WriteString(paint(code, verdict) + strings.TrimPrefix(broken(end, width), verdict))
	return b.String()
}

// Colours, as parameters of SGR (ECMA-48, 8.3.117).
const red, green, yellow, dim = "31;1", "32;1", "33;1", "2"

// kindColours are those of the words with which a finding's line begins where it
// does not refuse the command; other lines begin with the finding's ID.
var kindColours = map[string]string{"warning": yellow, "waived": yellow, "info": dim}

// labelled is the width of what a report has before a remedy or a reason.
const labelled = len("  why: ")

// broken is a line of a report in lines of at most width columns. Text to be
// pasted is indented once more, and stays as it is.
func broken(line string, width int) string {
	first, margin := "", "    "
	if strings.HasPrefix(line, "  ") {
		first, line, margin = line[:labelled], line[labelled:], strings.Repeat(" ", labelled)
	}
	if width == 0 || strings.Contains(line, "  ") || utf8.RuneCountInString(first+line) <= width {
		return first + line + "\n"
	}
	return fit.Wrap(line, width, first, margin)
}
