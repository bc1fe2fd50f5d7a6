package trust

import (
	"fmt"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// Rules are what the operator decided about trust. The zero Rules restrict
// nothing beyond the rows of Decide.
type Rules struct {
	// Aliases lead from a renamed repository's older name to today's.
	Aliases map[repo.Name]repo.Name
	// Pipelines lead from organization/pipeline to its repository. nil: a
	// pipeline's claim stands. Where it is given it is complete: a pipeline that
	// is not in it gets nothing.
	Pipelines map[string]repo.Name
	// Triggers are pairs of repositories: builds of From may trigger builds of To.
	Triggers []Trigger
	// Sources are the build sources that may have secrets; nil: all five of Decide.
	Sources []string
	// Repositories are those that may have secrets; nil: every one.
	Repositories []Pattern
	// Attest says that no build is trusted without attested facts.
	Attest bool
}

// A Trigger is a pair of repositories that trust each other in one direction.
type Trigger struct{ From, To repo.Name }

// A Pattern is one repository, or host/owner/* for all of an owner.
type Pattern string

// ParsePattern reads a repository's name in its one spelling, or a name whose
// last part is *.
func ParsePattern(s string) (Pattern, error) {
	name, all := strings.CutSuffix(s, "/*")
	if all {
		name += "/x" // any name stands for them all
	}
	if _, err := repo.Parse(name); err != nil {
		return "", err
	}
	if strings.Count(name, "/") < 2 && all {
		return "", fmt.Errorf("%w: a pattern has a host and an owner before /*", repo.ErrNotARepository)
	}
	return Pattern(s), nil
}

// Matches tells whether p stands for r.
func (p Pattern) Matches(r repo.Name) bool {
	owner, all := strings.CutSuffix(string(p), "*")
	if all {
		return strings.HasPrefix(r.String(), owner)
	}
	return r.String() == string(p)
}

// Today returns a repository's name after all renames the operator listed.
func (r Rules) Today(name repo.Name) repo.Name {
	if today, ok := r.Aliases[name]; ok {
		return today
	}
	return name
}

// Same tells whether two names are one repository.
func (r Rules) Same(a, b repo.Name) bool {
	return !a.IsZero() && r.Today(a) == r.Today(b)
}
