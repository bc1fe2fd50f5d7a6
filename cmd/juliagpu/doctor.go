package main

import (
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor/observe"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/isolation"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

func (p *program) doctor() *cobra.Command {
	var ask observe.Ask
	var json bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "what is wrong with this host, or container, and what to do",
		Long: "Looks at a host of agents, or at an agent's container from inside, from the engine up: its versions, GPUs, disks and clock, our programs and their owners, " +
			"configuration, credentials, agents and their units, and what the API token may do. It says what is wrong, the cause before its effects, and what to do about each. " +
			"It changes nothing.\n\n" +
			"To be run as root: what it could not see counts as unknown, and not as well. Buildkite is asked two questions where attestation is on and its token is here in the clear.\n\n" +
			"Ends with status 1 where something keeps agents or secrets from working or is dangerous, else with 75 where something could not be seen, else with 0, warnings or not. " +
			"docs/doctor.md explains each finding.",
		Example: "juliagpu doctor\tall of this host\n" +
			"juliagpu doctor --agent gpuci.3\tof its agents this one alone\n" +
			"docker exec buildkite-agent-gpuci.3 juliagpu doctor\tits container\n" +
			"juliagpu doctor --json\tfor programs",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if ask.Agent != "" && !gpu.IsAgent(ask.Agent) {
				return misused("its folder's name, of letters, digits, dots, hyphens and underscores, such as gpuci.3", "--agent: not the name of an agent")
			}
			if runtime.GOOS != "linux" {
				return lacking("on macOS: juliagpu gpu check", "doctor knows Linux alone")
			}
			return p.examine(ask, json)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&ask.Agent, "agent", "", "of the host's agents this one alone")
	c.Flags().BoolVar(&ask.Offline, "offline", false, "Buildkite is not asked")
	c.Flags().BoolVar(&json, "json", false, "for programs")
	takes(c, "agent", "NAME")
	c.RegisterFlagCompletionFunc("agent", cobra.NoFileCompletions)
	return c
}

func (p *program) examine(ask observe.Ask, json bool) error {
	started := time.Now()
	facts := observe.Facts(observe.This(), ask)
	if facts.Place == doctor.Container {
		config, err := load("")
		if facts.Config.Is != nil || errors.Is(err, settings.ErrNone) { // else it has its finding
			result := isolation.Check(config, err, isolation.Ask{Environ: p.env, All: true})
			facts.GPU = &result.Report
		}
	} else if named := func(a doctor.Agent) bool { return a.Name == ask.Agent }; ask.Agent != "" && len(facts.Hidden) == 0 && !slices.ContainsFunc(facts.Agents, named) {
		return misused("juliagpu doctor names those that there are", "--agent: there is no %s", ask.Agent)
	}
	report := doctor.Judge(facts)
	p.status = report.Status()
	if json {
		return p.print(string(report.JSON(time.Since(started))))
	}
	width, terminal := fit.Columns(p.stdout)
	colour := terminal && p.getenv("NO_COLOR") == "" && p.getenv("TERM") != "dumb"
	return p.print(report.Text(width, colour, time.Since(started)))
}
