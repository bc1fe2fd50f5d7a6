package audit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/sealed"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// Judge says what is to be said of the facts. It reads nothing and asks nobody.
func Judge(f Facts) Report {
	j := judge{Facts: f, found: map[string][]Place{}, bySlug: map[string]Pipeline{}, byRepo: map[repo.Name][]Pipeline{}, clones: map[repo.Name][]int{}}
	slices.SortStableFunc(j.Pipelines, func(a, b Pipeline) int { return cmp.Compare(a.Slug, b.Slug) })
	for _, p := range j.Pipelines {
		j.bySlug[p.Slug] = p
		if name := j.today(p.Repository()); !name.IsZero() && !p.Archived {
			j.byRepo[name] = append(j.byRepo[name], p)
		}
	}
	for i, c := range j.Checkouts {
		if name := j.own(c); !name.IsZero() {
			j.clones[name] = append(j.clones[name], i)
		}
	}
	var rows []Row
	shown := map[repo.Name]string{} // whose texts stand under an earlier pipeline
	for _, p := range j.Pipelines {
		row := j.pipeline(p)
		if name := j.today(p.Repository()); !p.Archived && !name.IsZero() && len(j.clones[name]) > 0 {
			if first, ok := shown[name]; ok {
				row.Beside = first
			} else {
				shown[name] = p.Slug
				for _, i := range j.clones[name] {
					row.Values = append(row.Values, j.texts(row, j.Checkouts[i].Texts)...)
				}
			}
		}
		if p.Public && slices.ContainsFunc(row.Values, Shown.sealed) {
			j.add("logs.public", row.place(), "")
		}
		rows = append(rows, row)
	}
	for _, c := range j.Checkouts {
		name := j.own(c)
		if _, ok := shown[name]; ok && !name.IsZero() {
			continue
		}
		row := Row{Repository: name.String(), Checkout: c.Folder}
		row.Values = j.texts(row, c.Texts)
		rows = append(rows, row)
	}
	j.organization()
	return j.report(rows)
}

// judge collects the places of each kind.
type judge struct {
	Facts
	found  map[string][]Place
	bySlug map[string]Pipeline
	byRepo map[repo.Name][]Pipeline // of today's names
	clones map[repo.Name][]int      // checkouts
}

func (j *judge) add(id string, at Place, format string, args ...any) {
	at.What = fmt.Sprintf(format, args...)
	j.found[id] = append(j.found[id], at)
}

// today is a name after all renames.
func (j *judge) today(name repo.Name) repo.Name { return j.Rules.Today(name) }

// own is the repository that a checkout is of: one that a pipeline builds, or else
// its first.
func (j *judge) own(c Checkout) repo.Name {
	for _, name := range c.Repositories {
		if len(j.byRepo[j.today(name)]) > 0 {
			return j.today(name)
		}
	}
	if len(c.Repositories) == 0 {
		return repo.Name{}
	}
	return j.today(c.Repositories[0])
}

// slug is a pipeline's with its organization.
func (j *judge) slug(p string) string { return j.Organization + "/" + p }

// pipeline judges one pipeline's settings.
func (j *judge) pipeline(p Pipeline) Row {
	name := p.Repository()
	row := Row{Pipeline: j.slug(p.Slug), Repository: name.String(), Public: p.Public, Archived: p.Archived, Provider: p.Provider,
		Mode: p.Mode, Forks: p.Forks, Prefixed: p.Prefixed, Rebuilds: p.Rebuilds, Map: j.mapped(p), Steps: p.Steps.Steps, Uploads: p.Steps.Uploads}
	at := row.place()
	if name.IsZero() {
		row.Address = p.Address
	}
	if p.Credentials {
		j.add("repo.credentials", at, "")
	}
	if p.Archived { // no build starts; what anyone can read stays readable
		for _, v := range p.Steps.Values {
			row.Values = append(row.Values, j.shown(p.Steps, v))
			j.plain(at, p.Steps, v)
		}
		return row
	}
	attested, mapped := j.Rules.Attest, row.Map == MapYes
	if p.Forks {
		switch {
		case attested:
		case j.Rules.Pipelines == nil:
			j.add("fork.claims", at, "")
		case mapped:
			j.add("fork.unattested", at, "")
		}
		if j.Rules.Direct {
			j.add("fork.direct", at, "")
		}
		if !p.Prefixed {
			j.add("fork.prefix", at, "")
		}
		if p.Rebuilds && !attested && (mapped || j.Rules.Pipelines == nil) {
			j.add("fork.rebuild", at, "")
		}
	}
	if p.Mode == "fork" {
		j.add("start.fork", at, "")
	}
	if name.IsZero() {
		j.add("repo.unnamed", at, "%s", escape.Text(p.Address))
	}
	switch {
	case row.Map == MapOther:
		j.add("map.other", at, "builds %s, mapped to %s", row.Builds(), j.Rules.Pipelines[row.Pipeline])
	case name.IsZero(): // no map can hold it
	case row.Map == MapNo && j.Rules.Pipelines != nil:
		j.add("map.missing", at, "")
	}
	row.Values = j.texts(row, []Text{p.Steps})
	if p.Steps.Uploads > 0 && len(j.clones[j.today(name)]) == 0 {
		j.add("steps.elsewhere", at, "")
	}
	return row
}

// mapped says what the configuration's map has of a pipeline.
func (j *judge) mapped(p Pipeline) string {
	to, ok := j.Rules.Pipelines[j.slug(p.Slug)]
	switch {
	case !ok:
		return MapNo
	case !j.Rules.Same(to, p.Repository()):
		return MapOther
	}
	return MapYes
}

// plain is about what is no sealed value, and can be read by anyone.
func (j *judge) plain(at Place, t Text, v sealed.Value) {
	for _, p := range v.Wrong {
		if p.Kind == sealed.Plain {
			j.add("sealed.plain", at.of(t, v), "")
		}
	}
}

// ids are the findings for what package sealed says. Problems that have none are
// no finding.
var ids = map[sealed.Kind]string{
	sealed.Plain: "sealed.plain", sealed.Older: "sealed.older", sealed.Unlabelled: "sealed.unlabelled",
	sealed.Damaged: "sealed.malformed", sealed.BadName: "sealed.name", sealed.Renamed: "sealed.renamed",
	sealed.Expired: "sealed.expired", sealed.Expiring: "sealed.expiring", sealed.Unfamiliar: "sealed.unfamiliar",
	sealed.Miscounted: "sealed.miscounted", sealed.Twice: "sealed.twice",
}

// texts judges texts that stand in one pipeline, or in a checkout of one repository.
func (j *judge) texts(row Row, texts []Text) (all []Shown) {
	at := row.place()
	var known func(string) bool
	if j.Recipients != nil {
		known = func(to string) bool { _, ok := j.Recipients[to]; return ok }
	}
	for _, t := range texts {
		if t.Unread != "" {
			at := at
			at.File = t.File
			j.add("steps.unread", at, "%s", t.Unread)
		}
		twice := sealed.Duplicates(t.Values)
		for i, v := range t.Values {
			all = append(all, j.shown(t, v))
			at := at.of(t, v)
			for _, p := range append(v.Problems(j.Now, known), twice[i][:min(1, len(twice[i]))]...) {
				id, ok := ids[p.Kind]
				if !ok {
					continue
				}
				what := p.Text
				switch p.Kind {
				case sealed.Plain, sealed.Older, sealed.Unlabelled, sealed.Unfamiliar: // the title says it
					what = ""
				case sealed.Expired, sealed.Expiring:
					what = "on " + day(v.Label.Expires)
				}
				j.add(id, at, "%s", what)
			}
			if v.Form == sealed.Labelled {
				j.label(at, v)
			}
			if j.Rules.ScopeAny && (v.Form == sealed.Age || v.Label != nil && v.Label.Any) {
				j.add("scope.allowed", at, "")
			}
		}
		for _, w := range t.Wasted {
			at := at
			at.File, at.Line, at.Variable, at.Steps = t.File, w.Line, w.Variable, []string{w.Step}
			j.add("sealed.upload", at, "")
		}
		for _, trigger := range t.Triggers {
			at := at
			at.File, at.Line, at.Steps = t.File, trigger.Line, []string{trigger.Step}
			j.trigger(at, trigger.Target)
		}
	}
	return all
}

// label judges a scope against the place where the value stands.
func (j *judge) label(at Place, v sealed.Value) {
	l := v.Label
	if l.Any {
		j.add("sealed.any", at, "")
	}
	here, _ := repo.Parse(at.Repository)
	if len(l.Repos) > 0 && !here.IsZero() && !slices.ContainsFunc(l.Repos, func(r repo.Name) bool { return j.Rules.Same(r, here) }) {
		j.add("sealed.repository", at, "sealed for %s", names(l.Repos))
	}
	builders := j.byRepo[j.today(here)]
	if at.File == "" {
		builders = []Pipeline{j.bySlug[strings.TrimPrefix(at.Pipeline, j.Organization+"/")]}
	}
	if len(l.Pipelines) > 0 && len(builders) > 0 && !slices.ContainsFunc(builders, func(p Pipeline) bool { return slices.Contains(l.Pipelines, j.slug(p.Slug)) }) {
		j.add("sealed.pipeline", at, "sealed for %s", strings.Join(l.Pipelines, ", "))
	}
	if j.Recipients == nil {
		return
	}
	var strangers []string
	for _, to := range l.To {
		if _, ok := j.Recipients[to]; !ok {
			strangers = append(strangers, to)
		}
	}
	if len(strangers) > 0 && len(strangers) < len(l.To) { // none known is another finding
		j.add("sealed.stranger", at, "%s", strings.Join(strangers, ", "))
	}
}

// trigger judges a step that starts another pipeline.
func (j *judge) trigger(at Place, target string) {
	other, ok := j.bySlug[target]
	from, _ := repo.Parse(at.Repository)
	to := other.Repository()
	switch {
	case !ok || from.IsZero() || to.IsZero():
		j.add("trigger.unknown", at, "starts %s", escape.Text(target))
	case j.Rules.Same(from, to):
	case slices.Contains(j.Rules.Triggers, trust.Trigger{From: j.today(from), To: j.today(to)}):
		j.add("trigger.listed", at, "starts %s of %s", escape.Text(target), to)
	default:
		j.add("trigger.cross", at, "starts %s of %s", escape.Text(target), to)
	}
}

// organization judges what no pipeline shows alone.
func (j *judge) organization() {
	if j.Organization == "" {
		return
	}
	if j.Rules.Pipelines == nil && !j.Rules.Attest {
		j.add("map.none", Place{}, "")
	}
	for _, slug := range slices.Sorted(maps.Keys(j.Rules.Pipelines)) {
		here, ok := strings.CutPrefix(slug, j.Organization+"/")
		if _, there := j.bySlug[here]; ok && !there {
			j.add("map.stale", Place{Pipeline: slug, Repository: j.Rules.Pipelines[slug].String()}, "")
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(j.byRepo), func(a, b repo.Name) int { return cmp.Compare(a.String(), b.String()) }) {
		if builders := j.byRepo[name]; len(builders) > 1 {
			var slugs []string
			for _, p := range builders {
				slugs = append(slugs, escape.Text(p.Slug))
			}
			j.add("repo.twice", Place{Repository: name.String()}, "%s", strings.Join(slugs, ", "))
		}
	}
}

func names(repos []repo.Name) string {
	var texts []string
	for _, r := range repos {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ", ")
}
