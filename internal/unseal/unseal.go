// Package unseal turns a trusted job's sealed values into what the job gets,
// all or none, with a reason for each.
package unseal

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope/openssl"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// An Outcome is what one SECRET_* variable comes to.
type Outcome int

const (
	Ignored  Outcome = iota // no secret of ours: left alone
	Granted                 // opened; Result.Set says what it sets
	Withheld                // kept back, as expected or because time or an operator changed something
	Refused                 // kept back because a commit made it wrong: the job must not start
)

// A Result is what one SECRET_* variable comes to, and why.
type Result struct {
	Variable string
	Outcome  Outcome
	Reason   string // for people; what an attacker chose is escaped
	Hint     string // what can be done; may be empty
	Loud     bool   // withheld, but nobody would expect it: expired, rotated
	Warning  string // granted, but not for long
	Set      []envelope.Variable
	File     bool // Set holds one variable, whose value becomes a private file
}

// Sealed tells whether the variable held a sealed value, in today's form or an
// older one. Those are emptied in the job's environment.
func (r Result) Sealed() bool { return r.Outcome != Ignored }

// AnySealed tells whether there is anything to open.
func AnySealed(sealed []job.Sealed) bool {
	return slices.ContainsFunc(sealed, func(s job.Sealed) bool { _, ours := recognise(s); return ours })
}

// Withhold is the result of a build that may have no secrets: nothing is opened.
func Withhold(sealed []job.Sealed, reason, hint string) []Result {
	results := make([]Result, 0, len(sealed))
	for _, s := range sealed {
		if r, ours := recognise(s); ours {
			results = append(results, Result{Variable: s.Variable, Outcome: Withheld, Reason: reason, Hint: hint})
		} else if r != nil {
			results = append(results, *r)
		}
	}
	return results
}

// recognise tells whether a variable is ours to open or withhold; if not, r says why,
// or is nil where there is nothing to say.
func recognise(s job.Sealed) (r *Result, ours bool) {
	switch envelope.FormOf(s.Text) {
	case envelope.FormEmpty:
		return nil, false
	case envelope.FormOther:
		return &Result{Variable: s.Variable, Reason: "not a sealed value, left as it is"}, false
	}
	return nil, true
}

// A Policy is what the operator and the clock say about opening.
type Policy struct {
	Identities []identity.Identity
	Older      *openssl.Key           // opens the older RSA forms; nil: nobody does
	Serves     map[repo.Name][]string // what they may be, for which repository
	ScopeAny   bool                   // values without a scope may open
	Rules      trust.Rules
	Now        time.Time
}

// Open opens the sealed values of a build that trust.Decide trusts. Granted
// results count only where no result is Refused; AllOrNone tells.
func Open(sealed []job.Sealed, build job.Facts, policy Policy) []Result {
	return OpenEach(sealed, build, policy, func([]envelope.Variable) {})
}

// OpenEach is Open, and calls granted with the variables of each value that opens,
// in the order of sealed, while others are still being opened. Only what it
// returns says whether they may be set.
func OpenEach(sealed []job.Sealed, build job.Facts, policy Policy, granted func([]envelope.Variable)) []Result {
	slots := make([]*Result, len(sealed))
	var work []int
	for i, s := range sealed {
		r, ours := recognise(s)
		slots[i] = r
		if ours {
			work = append(work, i)
		}
	}
	// Opening is arithmetic: as many at once as there are processors.
	var next atomic.Int64
	var workers sync.WaitGroup
	var order sync.Mutex // over slots, told and granted
	told := 0            // for how many of work granted was called where it had to be
	for range min(runtime.GOMAXPROCS(0), len(work)) {
		workers.Go(func() {
			for n := next.Add(1); n <= int64(len(work)); n = next.Add(1) {
				i := work[n-1]
				r := open(sealed[i], build, policy)
				order.Lock()
				slots[i] = &r
				for ; told < len(work) && slots[work[told]] != nil; told++ {
					if vars := slots[work[told]].Set; len(vars) > 0 {
						granted(vars)
					}
				}
				order.Unlock()
			}
		})
	}
	workers.Wait()

	var results []Result
	for _, r := range slots {
		if r != nil {
			results = append(results, *r)
		}
	}
	refuseDuplicates(results)
	return results
}

// AllOrNone returns how many results are of each outcome, and whether what was
// granted may be set.
func AllOrNone(results []Result) (granted, withheld, refused int, set bool) {
	for _, r := range results {
		switch r.Outcome {
		case Granted:
			granted++
		case Withheld:
			withheld++
		case Refused:
			refused++
		}
	}
	return granted, withheld, refused, granted > 0 && refused == 0
}

// open judges one sealed value. What a commit made wrong comes before what time
// or an operator changed.
func open(s job.Sealed, build job.Facts, policy Policy) Result {
	result := func(outcome Outcome, hint, format string, args ...any) Result {
		return Result{Variable: s.Variable, Outcome: outcome, Hint: hint, Reason: fmt.Sprintf(format, args...)}
	}
	if envelope.FormOf(s.Text) != envelope.FormAge {
		return openOlder(s, build, policy)
	}
	opened, err := envelope.Open(s.Text, ages(policy.Identities)...)
	switch {
	case errors.Is(err, envelope.ErrForeign):
		to := "a recipient"
		if foreign := (*envelope.ForeignError)(nil); errors.As(err, &foreign) && len(foreign.To) > 0 {
			to = strings.Join(foreign.To, ", ")
		}
		r := result(Withheld, "seal it again for this agent's recipient", "sealed to %s, which this agent does not hold", to)
		r.Loud = true
		return r
	case errors.Is(err, envelope.ErrTampered):
		return result(Refused, "paste the line again as encrypt printed it, or seal the value again", "%s", err)
	case err != nil:
		return result(Refused, "copy the whole line that encrypt printed, with its closing quote", "%s", err)
	}
	label := opened.Label

	vars, err := opened.Variables(s.Variable)
	switch {
	case errors.Is(err, names.ErrName):
		return result(Refused, "rename the variable, or seal the value again for this name", "%s", err)
	case err != nil:
		return result(Refused, "seal the value again", "%s", err)
	}
	if reason, hint := outOfScope(opened, build, policy); reason != "" {
		return result(Refused, hint, "%s", reason)
	}
	switch label.Type {
	case envelope.TypeGitCredentials, envelope.TypeSSHKey:
		return result(Refused, "seal it without a type, or ask the operator for a newer release", "its type is %s, which this version does not deliver", label.Type)
	}
	if reason, hint := outOfBounds(label, build, policy.Now); reason != "" {
		r := result(Withheld, hint, "%s", reason)
		r.Loud = expired(label, policy.Now)
		return r
	}

	r := Result{Variable: s.Variable, Outcome: Granted, Set: vars, File: label.Type == envelope.TypeFile}
	if id := policy.Identities[opened.Identity]; id.Retired {
		r.Warning = fmt.Sprintf("opened by the retired identity %s; seal it again for the new recipient", id.Fingerprint)
	} else if !label.Expires.IsZero() && policy.Now.After(label.Expires.AddDate(0, 0, -30)) {
		r.Warning = fmt.Sprintf("expires on %s; seal it again before", day(label.Expires))
	}
	return r
}

// openOlder judges a value of an older form, which says nothing of itself: the
// operator's list stands for the label, and the variable's name for its own.
func openOlder(s job.Sealed, build job.Facts, policy Policy) Result {
	const again = "seal it again with encrypt"
	withheld := func(reason string) Result {
		return Result{Variable: s.Variable, Outcome: Withheld, Reason: reason, Hint: again}
	}
	if policy.Older == nil {
		return withheld("sealed in the older RSA form, which this agent does not open")
	}
	name := strings.TrimPrefix(s.Variable, names.Prefix)
	if err := names.Check(name); err != nil {
		return Result{Variable: s.Variable, Outcome: Refused, Reason: err.Error(), Hint: "rename the variable, or seal the value again for this name"}
	}
	ours, err := build.Repository()
	if err != nil || !policy.serves(ours, name) {
		r := withheld(fmt.Sprintf("sealed in the older RSA form, in which this agent's operator lets %s have no %s", ours, name))
		r.Hint += ", or have the operator list it under older:"
		return r
	}
	value, err := policy.Older.Open(s.Text)
	if err != nil {
		r := withheld(err.Error())
		r.Loud = true
		return r
	}
	return Result{Variable: s.Variable, Outcome: Granted, Set: []envelope.Variable{{Name: name, Value: value}}, Warning: "sealed in the older RSA form: " + again}
}

// serves tells whether a repository may have a variable in an older form.
func (p Policy) serves(ours repo.Name, variable string) bool {
	for name, variables := range p.Serves {
		if p.Rules.Same(name, ours) && slices.Contains(variables, variable) {
			return true
		}
	}
	return false
}

// outOfScope says why a commit put a sealed value where it can't open.
func outOfScope(o envelope.Opened, build job.Facts, policy Policy) (reason, hint string) {
	l := o.Label
	if !o.Labelled || l.Any {
		if policy.ScopeAny {
			return "", ""
		}
		const hint = "seal it again for this repository"
		if !o.Labelled {
			return "an age file without a label, which this agent's operator does not allow", hint
		}
		return "sealed for any repository, which this agent's operator does not allow", hint
	}
	ours, err := build.Repository()
	if len(l.Repos) > 0 && (err != nil || !slices.ContainsFunc(l.Repos, func(r repo.Name) bool { return policy.Rules.Same(r, ours) })) {
		return fmt.Sprintf("sealed for %s, but this job builds %s", repoList(l.Repos), ours), "seal it again in a checkout of this repository"
	}
	return "", ""
}

// outOfBounds says why a sealed value stays closed in this build of its own
// repository.
func outOfBounds(l envelope.Label, build job.Facts, now time.Time) (reason, hint string) {
	const elsewhere = "expected here; to have it, seal it again with a wider scope"
	if len(l.Pipelines) > 0 && !slices.Contains(l.Pipelines, build.Slug()) {
		return fmt.Sprintf("sealed for pipeline %s, not for %s", strings.Join(l.Pipelines, ", "), build.Slug()), elsewhere
	}
	if l.NoPullRequest && build.IsPullRequest() {
		return "sealed not to open in pull requests", elsewhere
	}
	if len(l.Branches)+len(l.Tags) > 0 {
		switch {
		case build.IsPullRequest():
			return "sealed for branches or tags, and a pull request's build is neither", elsewhere
		case build.Tag != "" && !matchesAny(l.Tags, build.Tag):
			return fmt.Sprintf("sealed for %s, not for tag %s", refs(l), escape.Text(build.Tag)), elsewhere
		case build.Tag == "" && !matchesAny(l.Branches, build.Branch):
			return fmt.Sprintf("sealed for %s, not for branch %s", refs(l), escape.Text(build.Branch)), elsewhere
		}
	}
	if expired(l, now) {
		return "expired on " + day(l.Expires), "seal it again with a later --expires"
	}
	return "", ""
}

func expired(l envelope.Label, now time.Time) bool {
	return !l.Expires.IsZero() && !now.Before(l.Expires)
}

// refuseDuplicates refuses results that would set the same variable, or one
// that carries a sealed value: which of them would win is nobody's intention.
func refuseDuplicates(results []Result) {
	by := map[string][]int{} // a variable to the results that set it
	for i, r := range results {
		if r.Sealed() {
			by[r.Variable] = append(by[r.Variable], i)
		}
		for _, v := range r.Set {
			by[v.Name] = append(by[v.Name], i)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		setters := by[name]
		if len(setters) < 2 {
			continue
		}
		for _, i := range setters {
			if results[i].Outcome != Granted {
				continue
			}
			results[i] = Result{Variable: results[i].Variable, Outcome: Refused,
				Reason: fmt.Sprintf("%s is set by more than one sealed value, or is one itself", name),
				Hint:   "keep one of them"}
		}
	}
}

func ages(identities []identity.Identity) []age.Identity {
	ids := make([]age.Identity, len(identities))
	for i, id := range identities {
		ids[i] = id.Age
	}
	return ids
}

func matchesAny(globs []string, ref string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return envelope.Match(g, ref) })
}

func repoList(repos []repo.Name) string {
	texts := make([]string, len(repos))
	for i, r := range repos {
		texts[i] = r.String()
	}
	return strings.Join(texts, ", ")
}

// refs names the branches and tags of a label.
func refs(l envelope.Label) string {
	var parts []string
	if len(l.Branches) > 0 {
		parts = append(parts, "branch "+strings.Join(l.Branches, ", "))
	}
	if len(l.Tags) > 0 {
		parts = append(parts, "tag "+strings.Join(l.Tags, ", "))
	}
	return strings.Join(parts, " and ")
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
