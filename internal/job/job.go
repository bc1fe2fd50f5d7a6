// Package job tells what is known of the job that a hook runs in, and where
// each fact is from.
package job

import (
	"path"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
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
	VarRebuiltFrom     = "BUILDKITE_REBUILT_FROM_BUILD_ID"
	VarCommit          = "BUILDKITE_COMMIT"
	VarCommand         = "BUILDKITE_COMMAND"
	VarPlugins         = "BUILDKITE_PLUGINS"

	// Where to ask for the build; hints, which decide nothing.
	VarBuild       = "BUILDKITE_BUILD_ID"
	VarBuildNumber = "BUILDKITE_BUILD_NUMBER"

	// VarPluginConfig is the agent's word in the plugin's own hooks, and the
	// pipeline's everywhere else.
	VarPluginConfig = "BUILDKITE_PLUGIN_CONFIGURATION"
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
	RebuiltFrom     string   // id of the build that this one repeats
	Commit          string   // a hash, or a name such as HEAD that nobody has resolved yet
	Twice           []string // sorted names that were stated more than once
	Doubt           string   // why none of it is to be trusted, for people; empty: nothing is known against it
}

// Stated returns every fact that is a text of the job's, by its variable.
func (f Facts) Stated() map[string]string {
	return map[string]string{
		VarOrganization: f.Organization, VarPipeline: f.Pipeline, VarRepo: f.Repo, VarBranch: f.Branch, VarTag: f.Tag,
		VarPullRequest: f.PullRequest, VarPullRequestRepo: f.PullRequestRepo, VarPullRequestBase: f.PullRequestBase,
		VarSource: f.Source, VarEvent: f.Event, VarTriggeredFrom: f.TriggeredFrom, VarRebuiltFrom: f.RebuiltFrom, VarCommit: f.Commit,
	}
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
	Upload       bool
	Plugins      string // the step's plugins, JSON
	PluginConfig string // in a plugin's hook: its configuration, JSON
	// Build and BuildNumber say where to ask for the build. Unlike facts they
	// decide nothing.
	Build, BuildNumber string
}

// Parse reads a job's environment, a list of NAME=value as os.Environ gives it.
// All facts are claimed. What has no name is nobody's, and left out.
func Parse(environ []string) Job {
	var j Job
	stated := map[string]*string{
		VarOrganization: &j.Facts.Organization, VarPipeline: &j.Facts.Pipeline, VarRepo: &j.Facts.Repo,
		VarBranch: &j.Facts.Branch, VarTag: &j.Facts.Tag, VarPullRequest: &j.Facts.PullRequest,
		VarPullRequestRepo: &j.Facts.PullRequestRepo, VarPullRequestBase: &j.Facts.PullRequestBase,
		VarSource: &j.Facts.Source, VarEvent: &j.Facts.Event, VarTriggeredFrom: &j.Facts.TriggeredFrom,
		VarRebuiltFrom: &j.Facts.RebuiltFrom, VarCommit: &j.Facts.Commit,
	}
	seen := make(map[string]bool, len(environ))
	for _, line := range environ {
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			continue
		}
		if seen[name] {
			j.Facts.Twice = append(j.Facts.Twice, name)
		}
		seen[name] = true
		if fact := stated[name]; fact != nil {
			*fact = value
		}
		// By prefix only: MY_SECRET_X is not ours.
		if strings.HasPrefix(name, names.Prefix) {
			j.Sealed = append(j.Sealed, Sealed{name, value})
		}
		switch name {
		case VarCommand:
			j.Upload = IsUpload(value)
		case VarPlugins:
			j.Plugins = value
		case VarPluginConfig:
			j.PluginConfig = value
		case VarBuild:
			j.Build = value
		case VarBuildNumber:
			j.BuildNumber = value
		}
	}
	slices.SortFunc(j.Sealed, func(a, b Sealed) int { return strings.Compare(a.Variable, b.Variable) })
	slices.Sort(j.Facts.Twice)
	return j
}

// Lookup returns a variable's value in such a list, or "".
func Lookup(environ []string, name string) string {
	for _, line := range environ {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return value
		}
	}
	return ""
}

// IsUpload tells whether a command does nothing but upload pipelines. An upload
// interpolates $NAME in the file and stores what it stands for.
func IsUpload(command string) bool {
	uploads := 0
	for part := range strings.FieldsFuncSeq(command, func(r rune) bool { return strings.ContainsRune("\n;&|", r) }) {
		part, _, _ = strings.Cut(part, "#")
		words := strings.Fields(strings.NewReplacer(`"`, "", "'", "").Replace(part))
		switch {
		case len(words) == 0, words[0] == "true", words[0] == ":":
			continue
		case path.Base(words[0]) != "buildkite-agent":
			return false
		}
		verbs := slices.DeleteFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "-") })
		if len(verbs) < 2 || verbs[0] != "pipeline" || verbs[1] != "upload" {
			return false
		}
		uploads++
	}
	return uploads > 0
}
