package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

func (p *program) agent() *cobra.Command {
	return group(&cobra.Command{
		Use:   "agent",
		Short: "this host's agents, each in a container of its own",
		Long:  "Makes, starts and ends the agents of this host, each of which has a folder in " + agentsFolder + ".",
	}, append(p.unit(), p.newAgent(), p.listAgents(), p.removeAgent(), p.prepare())...)
}

// oneAgent is for commands that take the name of an agent.
func oneAgent(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return misused(c.CommandPath()+" gpuci.3", "of which agent? its name is missing")
	case len(args) > 1:
		return misused(c.CommandPath()+" gpuci.3", "one agent at a time")
	case !gpu.IsAgent(args[0]):
		return misused("its folder's name, of letters, digits, dots, hyphens and underscores, such as gpuci.3", "not the name of an agent")
	}
	return nil
}

// agentNames completes them.
func agentNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	entries, err := os.ReadDir(agentsFolder)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && gpu.IsAgent(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// hinted is an error that says by itself what to do, as a refusal.
func hinted(err error) error {
	hint := ""
	if own := (interface{ Hint() string })(nil); errors.As(err, &own) {
		hint = own.Hint()
	}
	return refuse(hint, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}
