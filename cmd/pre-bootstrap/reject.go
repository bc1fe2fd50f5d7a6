package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gate"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// rejection says why a job must not start at all, or nothing. Whatever could keep
// the other hooks from running is rejected, whoever the job is: without them
// nobody looks at its GPUs. All else only keeps its secrets back, unless the
// operator says otherwise.
func rejection(e envfile.Environment, facts job.Facts, config settings.Settings) string {
	if e.Replaced != "" {
		return fmt.Sprintf("it has a variable that would take the place of %s, and might run without the hooks", escape.Text(e.Replaced))
	}
	reject := config.Reject
	if len(reject.Repositories)+len(reject.Pipelines)+len(reject.Variables) == 0 {
		return ""
	}
	switch {
	case facts.Doubt != "":
		return facts.Doubt + ", and this agent's operator rejects some jobs"
	case len(facts.Twice) > 0:
		return escape.Text(facts.Twice[0]) + " is stated twice, and this agent's operator rejects some jobs"
	}
	for _, line := range e.Vars {
		name, _, _ := strings.Cut(line, "=")
		if group := gate.Group(name); slices.Contains(reject.Variables, group) {
			return fmt.Sprintf("it sets %s, and this agent's operator rejects the group %s", escape.Text(name), group)
		}
	}
	if slices.Contains(reject.Pipelines, facts.Slug()) {
		return fmt.Sprintf("this agent's operator rejects pipeline %s", facts.Slug())
	}
	if len(reject.Repositories) == 0 {
		return ""
	}
	name, err := facts.Repository()
	if err != nil {
		return "it states no repository that could be compared, and this agent's operator rejects some"
	}
	builds := []repo.Name{name}
	if head, err := facts.Head(); facts.IsPullRequest() && err == nil {
		builds = append(builds, head)
	}
	for _, name := range builds {
		for _, p := range reject.Repositories {
			if p.Matches(name) || p.Matches(config.Rules.Today(name)) {
				return fmt.Sprintf("this agent's operator rejects repository %s", name)
			}
		}
	}
	return ""
}
