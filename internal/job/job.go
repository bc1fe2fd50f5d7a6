// Package job tells what is known of the job that a hook runs in, and where
// each fact is from.
package job

import (
	"errors"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// The variables that state the facts of a job. Buildkite's documentation calls
// those of pull requests, sources and triggers standard: a pipeline can't change
// them. Its agent does not check that (docs/threat-model.md lists what we take
// from the server).
const (
	VarOrganization    = "BUILDKITE_ORGANIZATION_SLUG"
	VarPipeline        = "BUILDKITE_PIPELINE_SLUG"
	VarRepo            = "BUILDKITE_REPO"
	VarBranch          = "BUILDKITE_BRANCH"
	VarTag             = "BUILDKITE_TAG"
	VarPullRequest     = "BUILDKITE_PULL_REQUEST"
	VarPullRequestRepo = "BUILDKITE_PULL_REQUEST_REPO"
	VarPullRequestBase = "BUILDKITE_PULL_REQUEST_BASE_BRANCH"
	VarSource          = "BUILDKITE_SOURCE"
	VarEvent           = "BUILDKITE_GITHUB_EVENT"
	VarTriggeredFrom   = "BUILDKITE_TRIGGERED_FROM_BUILD_ID"
	VarCommand         = "BUILDKITE_COMMAND"
)

// An Origin says who vouches for facts.
type Origin int

const (
	Claimed  Origin = iota // the job's environment says so
	Attested               // Buildkite's REST API says so
)

// Facts are what is known of one build, as texts: trust judges whether they are
// well formed. A fact that is not stated is empty.
type Facts struct {
	Origin          Origin
	Organization    string // slug
	Pipeline        string // slug
	Repo            string // address of the pipeline's repository
	Branch          string // in a tag's build the tag's name; in a pull request's the head's to choose
	Tag             string
	PullRequest     string   // "false", or its number
	PullRequestRepo string   // address of the head repository
	PullRequestBase string   // branch it is to be merged into
	Source          string   // webhook, ui, api, schedule, trigger_job
	Event           string   // GitHub's, such as push
	TriggeredFrom   string   // id of the build that triggered this one
	Twice           []string // sorted names that were stated more than once
}

// IsPullRequest tells whether the build is of a pull request.
func (f Facts) IsPullRequest() bool { return f.PullRequest != "false" }

// Slug returns organization/pipeline.
func (f Facts) Slug() string { return f.Organization + "/" + f.Pipeline }

// Repository returns the one spelling of the pipeline's repository.
func (f Facts) Repository() (repo.Name, error) { return repo.FromURL(f.Repo) }

// Head returns the one spelling of the pull request's head repository.
func (f Facts) Head() (repo.Name, error) { return repo.FromURL(f.PullRequestRepo) }

// A Sealed is one SECRET_* variable of the job, whatever its text is.
type Sealed struct{ Variable, Text string }

// A Job is what one job's environment says.
type Job struct {
	Facts  Facts
	Sealed []Sealed // sorted by variable
	// Upload says that the step's whole command uploads a pipeline.
	Upload bool
}

// ErrEnvironment says that an environment is not a list of NAME=value.
var ErrEnvironment = errors.New("a line of the environment has no name")

// Parse reads a job's environment, a list of NAME=value as os.Environ gives it.
// All facts are claimed.
func Parse(environ []string) (Job, error) {
	var j Job
	stated := map[string]*string{
		VarOrganization: &j.Facts.Organization, VarPipeline: &j.Facts.Pipeline, VarRepo: &j.Facts.Repo,
		VarBranch: &j.Facts.Branch, VarTag: &j.Facts.Tag, VarPullRequest: &j.Facts.PullRequest,
		VarPullRequestRepo: &j.Facts.PullRequestRepo, VarPullRequestBase: &j.Facts.PullRequestBase,
		VarSource: &j.Facts.Source, VarEvent: &j.Facts.Event, VarTriggeredFrom: &j.Facts.TriggeredFrom,
	}
	seen := make(map[string]bool, len(environ))
	for _, line := range environ {
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			return Job{}, ErrEnvironment
		}
		if seen[name] {
			j.Facts.Twice = append(j.Facts.Twice, name)
		}
		seen[name] = true
		if fact := stated[name]; fact != nil {
			*fact = value
		}
		// By prefix only: MY_SECRET_X is not ours.
		if strings.HasPrefix(name, envelope.Prefix) {
			j.Sealed = append(j.Sealed, Sealed{name, value})
		}
		if name == VarCommand {
			j.Upload = isUpload(value)
		}
	}
	slices.SortFunc(j.Sealed, func(a, b Sealed) int { return strings.Compare(a.Variable, b.Variable) })
	slices.Sort(j.Facts.Twice)
	return j, nil
}

// isUpload tells whether a command does nothing but upload a pipeline. The
// upload would interpolate $NAME in the file and store what it stands for.
func isUpload(command string) bool {
	words := strings.Fields(command)
	return len(words) >= 3 && slices.Equal(words[:3], []string{"buildkite-agent", "pipeline", "upload"}) &&
		!strings.ContainsAny(strings.TrimSpace(command), "\n;&|")
}
