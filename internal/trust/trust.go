// Package trust decides whether a build may have secrets. It is a pure function
// of facts and the operator's rules; it reads nothing and asks nobody.
package trust

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// A Verdict says whether a build may have secrets, and why.
type Verdict struct {
	Trusted bool
	Row     int    // of the table in docs/threat-model.md
	Reason  string // for people; what an attacker chose is escaped
	Hint    string // what can be done; may be empty
}

// An Attestation is what Buildkite's REST API says of a build, and of those that
// it came from, to their very beginning.
type Attestation struct {
	ID    string // of the build
	Build job.Facts
	// TriggeredBy is the build whose trigger step started this one; nil: none, or
	// nobody knows.
	TriggeredBy *Attestation
	// RebuiltFrom is the build that this one repeats; nil: none, or nobody knows.
	RebuiltFrom *Attestation
}

// Decide judges a build by what its job claims and what is attested, nil where
// nothing is. The first row that matches decides; every "no" withholds.
func Decide(claimed job.Facts, attested *Attestation, rules Rules) Verdict {
	return decide(rows, claimed, attested, rules)
}

// Claimed judges a build by all that attested facts can't mend: where it says "no",
// nobody needs to ask for them.
func Claimed(claimed job.Facts, rules Rules) Verdict {
	return decide(slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.attested }), claimed, nil, rules)
}

func decide(rows []row, claimed job.Facts, attested *Attestation, rules Rules) Verdict {
	c := &evidence{Facts: claimed, attested: attested, rules: rules, rows: rows}
	for _, r := range rows {
		if no := r.no(c); no != "" {
			if r.hintAttested != "" && attested != nil {
				return Verdict{Row: r.number, Reason: no, Hint: r.hintAttested}
			}
			return Verdict{Row: r.number, Reason: no, Hint: r.hint}
		}
	}
	return Verdict{Trusted: true, Row: 11, Reason: "a build of " + c.repository().String()}
}

// evidence is all that a row looks at.
type evidence struct {
	job.Facts
	attested *Attestation
	rules    Rules
	rows     []row
}

// repository and head are in their one spelling, or zero.
func (c *evidence) repository() repo.Name { name, _ := c.Repository(); return name }
func (c *evidence) head() repo.Name       { name, _ := c.Head(); return name }

// A row says "no" with a reason, or nothing.
type row struct {
	number       int
	no           func(*evidence) string
	hint         string
	attested     bool   // attested facts can turn its "no"
	hintAttested string // in hint's place where there are any
}

// rows stand in the order of docs/threat-model.md.
var rows = []row{
	{number: 1, no: missing, hint: "the agent's server states these facts; see how this job was started"},
	{number: 2, no: contradictory, hint: "the agent's server states these facts; see how this job was started"},
	{number: 3, no: otherRepository, hint: "the operator's configuration maps pipelines to repositories; correct the one that is wrong",
		hintAttested: "see how this job was started, and which repository the operator's configuration maps this pipeline to"},
	{number: 4, no: noHead, hint: "a pull request's build gets secrets only when it states where the request is from"},
	{number: 5, no: fork, hint: "expected for forks; a maintainer can push the branch to the repository"},
	{number: 6, no: forkByHand, hint: "push the commit to a branch of the repository and build that"},
	{number: 7, no: descended, hint: "start the build itself, or have the operator turn attestation on", attested: true,
		hintAttested: "start the build itself, or from one that may have secrets; the operator lists repositories that trust each other as triggers"},
	{number: 8, no: anyonesEvent, hint: "push the commit to a branch of the repository and build that", attested: true},
	{number: 9, no: contested, hint: "see how this job was started", attested: true},
	{number: 10, no: unlisted, hint: "start the build in a way that the operator's configuration lists"},
}

// missing is row 1: a fact that every decision needs is not there or makes no sense.
func missing(c *evidence) string {
	if c.Doubt != "" {
		return c.Doubt
	}
	if len(c.Twice) > 0 {
		return escape.Text(c.Twice[0]) + " is stated twice"
	}
	// A job can have a variable whose name holds "=". In its environment that is
	// NAME=value for another name, and looks like it, but for the second "=" that
	// the agent writes behind the name (seen with agent v3.81: a fork's env can so
	// replace its own head repository).
	stated := c.Stated()
	if c.Origin == job.Attested {
		stated = nil // an answer has names of its own
	}
	for _, name := range slices.Sorted(maps.Keys(stated)) {
		if strings.Contains(stated[name], "=") {
			return name + " holds an =, so another variable may stand in its place"
		}
	}
	for _, fact := range []struct {
		name, value string
		wellFormed  bool
	}{
		{job.VarPullRequest, c.PullRequest, c.PullRequest == "false" || isNumber(c.PullRequest)},
		{job.VarRepo, c.Repo, !c.repository().IsZero()},
		{job.VarOrganization, c.Organization, names.IsSlug(c.Organization)},
		{job.VarPipeline, c.Pipeline, names.IsSlug(c.Pipeline)},
		{job.VarBranch, c.Branch, isRef(c.Branch)},
	} {
		switch {
		case fact.value == "":
			return fact.name + " is not stated"
		case !fact.wellFormed:
			return fact.name + " makes no sense: " + escape.Text(fact.value)
		}
	}
	return ""
}

// contradictory is row 2: two facts that can't both be true.
func contradictory(c *evidence) string {
	both := func(a, x, b, y string) string {
		return fmt.Sprintf("%s=%s contradicts %s=%s", a, escape.Text(x), b, escape.Text(y))
	}
	const trigger = "trigger_job"
	switch {
	case !c.IsPullRequest() && c.PullRequestRepo != "":
		return both(job.VarPullRequest, c.PullRequest, job.VarPullRequestRepo, c.PullRequestRepo)
	case !c.IsPullRequest() && c.PullRequestBase != "":
		return both(job.VarPullRequest, c.PullRequest, job.VarPullRequestBase, c.PullRequestBase)
	case (c.Source == trigger) != (c.TriggeredFrom != ""):
		return both(job.VarSource, c.Source, job.VarTriggeredFrom, c.TriggeredFrom)
	case c.Tag != "" && c.IsPullRequest():
		return both(job.VarTag, c.Tag, job.VarPullRequest, c.PullRequest)
	case c.Tag != "" && c.Tag != c.Branch: // a tag's build has the tag as branch
		return both(job.VarTag, c.Tag, job.VarBranch, c.Branch)
	}
	return ""
}

// otherRepository is row 3: the pipeline builds another repository than it says.
func otherRepository(c *evidence) string {
	differs := func(who string, name repo.Name) string {
		return fmt.Sprintf("%s says that pipeline %s builds %s, but this job states %s", who, c.Slug(), name, c.repository())
	}
	if c.attested != nil {
		if name, _ := c.attested.Build.Repository(); !c.rules.Same(name, c.repository()) {
			return differs("Buildkite", name)
		}
	}
	if c.rules.Pipelines == nil {
		return ""
	}
	name, ok := c.rules.Pipelines[c.Slug()]
	if !ok {
		return fmt.Sprintf("pipeline %s is not among those of the operator's configuration", c.Slug())
	}
	if !c.rules.Same(name, c.repository()) {
		return differs("the operator's configuration", name)
	}
	return ""
}

// noHead is row 4: a pull request from nowhere.
func noHead(c *evidence) string {
	if !c.IsPullRequest() || !c.head().IsZero() {
		return ""
	}
	if c.PullRequestRepo == "" {
		return fmt.Sprintf("pull request %s does not state its head repository", c.PullRequest)
	}
	return fmt.Sprintf("pull request %s states %s as its head repository", c.PullRequest, escape.Text(c.PullRequestRepo))
}

// fork is row 5.
func fork(c *evidence) string {
	if !c.IsPullRequest() || c.rules.Same(c.head(), c.repository()) {
		return ""
	}
	return fmt.Sprintf("pull request %s is from %s, not from %s", c.PullRequest, c.head(), c.repository())
}

// forkByHand is row 6: a branch whose name says that its commit is a fork's.
func forkByHand(c *evidence) string {
	if c.IsPullRequest() {
		return ""
	}
	// Git allows no colon in a branch's name (git-check-ref-format(1)); Buildkite
	// states a branch without refs/heads/; a + may begin what git fetch takes.
	branch := strings.TrimLeft(c.Branch, "+")
	byHand := strings.Contains(branch, ":") || strings.HasPrefix(branch, "refs/") || strings.HasPrefix(branch, "merge-requests/")
	if rest, ok := strings.CutPrefix(branch, "pull/"); ok {
		number, _, _ := strings.Cut(rest, "/")
		byHand = byHand || isNumber(number)
	}
	if !byHand {
		return ""
	}
	return fmt.Sprintf("branch %s stands for a commit of a fork", escape.Text(c.Branch))
}

// descended is row 7: the build came from another one, which could be a fork's. That
// one may have come from another, too: each is judged as if it asked itself.
func descended(c *evidence) string {
	if c.TriggeredFrom != "" {
		if c.attested == nil {
			return fmt.Sprintf("triggered by build %s, which nobody attests", escape.Text(c.TriggeredFrom))
		}
		parent := c.attested.TriggeredBy
		if no := c.ancestor("triggered by", c.TriggeredFrom, parent); no != "" {
			return no
		}
		from, _ := parent.Build.Repository()
		if !c.rules.Same(from, c.repository()) && !slices.Contains(c.rules.Triggers, Trigger{c.rules.Today(from), c.rules.Today(c.repository())}) {
			return fmt.Sprintf("triggered by a build of %s, not of %s", from, c.repository())
		}
	}
	// A rebuild is judged by its own facts, too, so that nothing is to be said of
	// one that nobody attests.
	if c.attested == nil || c.RebuiltFrom == "" {
		return ""
	}
	original := c.attested.RebuiltFrom
	if no := c.ancestor("a rebuild of", c.RebuiltFrom, original); no != "" {
		return no
	}
	if from, _ := original.Build.Repository(); !c.rules.Same(from, c.repository()) {
		return fmt.Sprintf("a rebuild of a build of %s, not of %s", from, c.repository())
	}
	return ""
}

// ancestor says why a build that this one came from is not trusted, or nothing.
func (c *evidence) ancestor(relation, id string, from *Attestation) string {
	if from == nil || from.ID != id {
		return fmt.Sprintf("%s build %s, which is not known", relation, escape.Text(id))
	}
	if verdict := decide(c.rows, from.Build, from, c.rules); !verdict.Trusted {
		return fmt.Sprintf("%s a build of %s that is not trusted: %s", relation, escape.Text(from.Build.Slug()), verdict.Reason)
	}
	return ""
}

// events are those that only people who can push, or Buildkite, cause. A
// comment or a review anyone may write.
var events = []string{"push", "create", "pull_request", "merge_group", "release", "deployment", "check_run", "check_suite"}

// anyonesEvent is row 8.
func anyonesEvent(c *evidence) string {
	if c.Event == "" || slices.Contains(events, c.Event) || c.attested != nil {
		return ""
	}
	return fmt.Sprintf("the event %s can be caused by anyone", escape.Text(c.Event))
}

// contested is row 9: the API says something else, or nothing.
func contested(c *evidence) string {
	if c.attested == nil {
		if c.rules.Attest {
			return "Buildkite's API does not attest this build"
		}
		return ""
	}
	b := c.attested.Build
	for _, fact := range []struct{ name, claimed, attested string }{
		{job.VarOrganization, c.Organization, b.Organization},
		{job.VarPipeline, c.Pipeline, b.Pipeline},
		{job.VarPullRequest, c.PullRequest, b.PullRequest},
		{job.VarBranch, c.Branch, b.Branch},
		{job.VarTag, c.Tag, b.Tag},
		{job.VarSource, c.Source, b.Source},
		{job.VarTriggeredFrom, c.TriggeredFrom, b.TriggeredFrom},
		{job.VarRebuiltFrom, c.RebuiltFrom, b.RebuiltFrom},
	} {
		if fact.claimed != fact.attested {
			return differs(fact.name, fact.claimed, fact.attested)
		}
	}
	// A name such as HEAD is resolved by the build's first job, maybe since this
	// one was told its environment.
	if c.Commit != b.Commit && (isHash(c.Commit) || c.Commit == "") {
		return differs(job.VarCommit, c.Commit, b.Commit)
	}
	if head, _ := b.Head(); c.IsPullRequest() && !c.rules.Same(head, c.head()) {
		return fmt.Sprintf("the job states %s as its head repository, but Buildkite's API %s", c.head(), escape.Text(b.PullRequestRepo))
	}
	return ""
}

// differs names a fact, and both that is said of it.
func differs(name, claimed, attested string) string {
	said := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return escape.Text(s)
	}
	return fmt.Sprintf("the job states %s for %s, but Buildkite's API %s", said(claimed), name, said(attested))
}

// sources are the ways to start a build that Buildkite documents.
var sources = []string{"webhook", "ui", "api", "schedule", "trigger_job"}

// unlisted is row 10.
func unlisted(c *evidence) string {
	switch {
	case c.Source == "":
		return job.VarSource + " is not stated"
	case !slices.Contains(sources, c.Source):
		return fmt.Sprintf("source %s is none of %s", escape.Text(c.Source), strings.Join(sources, ", "))
	case c.rules.Sources != nil && !slices.Contains(c.rules.Sources, c.Source):
		return fmt.Sprintf("source %s is not among those of the operator's configuration", c.Source)
	}
	listed := func(p Pattern) bool { return p.Matches(c.rules.Today(c.repository())) }
	if c.rules.Repositories != nil && !slices.ContainsFunc(c.rules.Repositories, listed) {
		return fmt.Sprintf("repository %s is not among those of the operator's configuration", c.repository())
	}
	return ""
}

func isNumber(s string) bool {
	return s != "" && s[0] != '0' && strings.Trim(s, "0123456789") == ""
}

// isHash accepts the full hash of a commit, SHA-1 or SHA-256.
func isHash(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// isRef accepts the name of a branch or tag: UTF-8 without control characters.
func isRef(s string) bool {
	return s != "" && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}
