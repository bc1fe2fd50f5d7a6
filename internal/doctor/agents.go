package doctor

import (
	"fmt"
	"slices"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
)

func agentsNone(f *Facts) []found {
	if len(f.Agents) > 0 {
		return nil
	}
	return one("no folder in %s has an .env", fleet.Dir)
}

func agentWrong(f *Facts) []found { return each(f, func(a Agent) Problem { return a.Wrong }) }

func permAgents(f *Facts) []found {
	return append(if1(f.Fleet), each(f, func(a Agent) Problem { return a.Open })...)
}

func permRun(f *Facts) []found { return each(f, func(a Agent) Problem { return a.RunOpen }) }

func agentIncomplete(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if len(a.Incomplete) > 0 {
			p.What = "not there: " + names(a.Incomplete)
		}
		return p
	})
}

func agentCompose(f *Facts) []found { return each(f, func(a Agent) Problem { return a.Compose }) }

func agentRender(f *Facts) []found { return each(f, func(a Agent) Problem { return a.Render }) }

func agentProject(f *Facts) (all []found) {
	for i, a := range f.Agents {
		for _, b := range f.Agents[:i] {
			if a.Settings != nil && b.Settings != nil && a.Settings.Project == b.Settings.Project {
				all = append(all, found{about: []string{b.Name, a.Name}, Problem: Problem{What: fmt.Sprintf("Compose calls both %s and %s %s", b.Name, a.Name, a.Settings.Project)}})
			}
		}
	}
	return all
}

func agentGPU(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Settings == nil || a.NoIntent || a.Intent.What != "" {
			return p
		}
		has, named := slices.Sorted(slices.Values(a.Settings.GPUs)), slices.Sorted(slices.Values(a.Named))
		if !slices.Equal(has, named) {
			none := func(all []string) string {
				if len(all) == 0 {
					return "none"
				}
				return names(all)
			}
			p.What = fmt.Sprintf("AGENT_GPU= says %s, and gpu.yml %s", none(has), none(named))
		}
		return p
	})
}

func agentSharedGPU(f *Facts) (all []found) {
	told := map[string]bool{}
	for _, a := range f.Agents {
		if a.Shares != "" && !told[a.Shares+"\n"+a.Name] {
			told[a.Name+"\n"+a.Shares] = true
			all = append(all, found{about: []string{a.Name, a.Shares}, Problem: a.Gone})
		}
	}
	return all
}

func agentBudget(f *Facts) (all []found) {
	var agents []fleet.Agent
	for _, a := range f.Agents {
		if a.Settings != nil {
			agents = append(agents, *a.Settings)
		}
	}
	for _, line := range fleet.Over(agents, fleet.Host{CPUs: f.Engine.CPUs, Memory: f.Engine.Memory}) {
		all = append(all, one("%s", line)...)
	}
	return all
}

func policyMissing(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.NoIntent {
			p.What = fmt.Sprintf("%s/%s/gpu.yml is not there", fleet.Dir, a.Name)
		}
		return p
	})
}

func policyWrong(f *Facts) []found {
	return append(each(f, func(a Agent) Problem { return a.Intent }), each(f, func(a Agent) Problem { return a.Policy.Wrong })...)
}

func gone(f *Facts, slice bool) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Shares == "" && a.Slice == slice {
			p = a.Gone
		}
		return p
	})
}

func gpuGone(f *Facts) []found { return gone(f, false) }

func migGone(f *Facts) []found { return gone(f, true) }

func policyStale(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Policy.Stale {
			p = Problem{fmt.Sprintf("/run/juliagpu-secrets/gpu/%s.yml", a.Name), "systemctl restart " + unitOf(a)}
		}
		return p
	})
}

func imageMissing(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Image.Asked && !a.Image.There {
			p.What = "the engine has no image " + a.Settings.Image
		}
		return p
	})
}

func imageOld(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Image.Old != "" {
			p.What = a.Settings.Image + " " + a.Image.Old
		}
		return p
	})
}

func containerOpen(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Container != nil && len(a.Container.Open) > 0 {
			p.What = names(a.Container.Open)
		}
		return p
	})
}

func containerRestart(f *Facts) []found {
	return each(f, func(a Agent) (p Problem) {
		if a.Container != nil && a.Container.Restart != "" && a.Container.Restart != "no" {
			p.What = "restart: " + a.Container.Restart
		}
		return p
	})
}
