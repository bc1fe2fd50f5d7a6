package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/sealed"
)

// many is how many places of a finding people are shown, but for dangers.
const many = 20

// Text is the report for people, in lines of at most width columns: the pipelines,
// what is sealed in them, then the findings with the worst last, where the prompt is.
func (r Report) Text(width int, colour bool) string {
	p := printer{width: width, colour: colour}
	p.head(r)
	p.pipelines(r)
	p.values(r)
	p.findings(r)
	p.verdict(r)
	return p.b.String()
}

type printer struct {
	b      strings.Builder
	width  int
	colour bool
}

// Colours, as parameters of SGR (ECMA-48, 8.3.117).
var colours = map[Severity]string{Danger: "31;1", Warn: "33;1", Info: "2", 0: "32;1"}

func (p *printer) paint(s Severity, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + colours[s] + "m" + text + "\x1b[0m"
}

func (p *printer) wrap(text, first, margin string) { p.b.WriteString(p.wrapped(text, first, margin)) }

// wrapped breaks words, too, where somebody chose one that is wider than a line.
func (p *printer) wrapped(text, first, margin string) string {
	var words []string
	room := p.width - len(margin)
	for word := range strings.FieldsSeq(text) {
		for columns(word) > room {
			words = append(words, string([]rune(word)[:room]))
			word = string([]rune(word)[room:])
		}
		words = append(words, word)
	}
	return fit.Wrap(strings.Join(words, " "), p.width, first, margin)
}

func (p *printer) head(r Report) {
	title := "checkouts alone; Buildkite was not asked"
	if r.Organization != "" {
		title = fmt.Sprintf("organization %s: %s", escape.Text(r.Organization), count(r.Counts.Pipelines, "pipeline"))
	}
	p.wrap(title, "", "  ")
	judged := "no configuration: judged as if it were empty"
	if r.Configuration != "" {
		judged = "configuration: " + escape.Text(r.Configuration)
		if r.Attested {
			judged += ", facts attested"
		}
	}
	p.wrap(judged, "", "  ")
	for _, note := range r.Notes {
		p.wrap(note, "", "  ")
	}
}

// table has a line for each pipeline from this width on.
const table = 72

func (p *printer) pipelines(r Report) {
	if r.Counts.Pipelines == 0 {
		return
	}
	p.b.WriteString("\n")
	var rows [][]string
	for _, row := range r.Pipelines {
		if row.Pipeline != "" {
			rows = append(rows, []string{p.name(r, row.Pipeline), row.Builds(), row.Seen(), row.Starts(), cmp.Or(row.Map, "-"), row.Count(), cmp.Or(row.Worst, "-")})
		}
	}
	if p.width < table {
		for _, row := range rows {
			p.wrap(row[0], "", "    ")
			p.wrap(row[1], "  ", "    ")
			text := row[2] + ", forks: " + row[3] + ", map: " + row[4]
			if row[5] != "-" {
				text += ", sealed: " + row[5]
			}
			if row[6] != "-" {
				text += ", " + row[6]
			}
			p.wrap(text, "  ", "    ")
		}
		return
	}
	rows = append([][]string{{"PIPELINE", "REPOSITORY", "SEEN BY", "FORKS", "MAP", "SEALED", "WORST"}}, rows...)
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columns(cell))
		}
	}
	room := p.width - 2*(len(widths)-1)
	for _, w := range widths[2:] {
		room -= w
	}
	// Names share what the rest leaves: a repository's needs more.
	if widths[0]+widths[1] > room {
		widths[0] = min(widths[0], max(room*2/5, room-widths[1]))
		widths[1] = room - widths[0]
	}
	for n, row := range rows {
		for i, cell := range row {
			if i == 1 {
				cell = cutLeft(cell, widths[i])
			}
			cell = cut(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-columns(cell))
			switch {
			case i == len(row)-1:
				if n > 0 && cell != "-" {
					cell = p.paint(severity(cell), cell)
				}
				p.b.WriteString(cell + "\n")
			case i == 5 && n > 0:
				p.b.WriteString(pad + cell + "  ")
			default:
				p.b.WriteString(cell + pad + "  ")
			}
		}
	}
}

// name is a pipeline's for people: without the organization, which is above.
func (p *printer) name(r Report, slug string) string {
	return escape.Text(strings.TrimPrefix(slug, r.Organization+"/"))
}

// Builds is what a pipeline builds, for people.
func (row Row) Builds() string {
	switch {
	case row.Repository != "":
		return row.Repository
	case row.Address != "":
		return escape.Text(row.Address)
	}
	return "no repository"
}

// Seen says by whom.
func (row Row) Seen() string {
	switch {
	case row.Archived:
		return "archived"
	case row.Public:
		return "everyone"
	}
	return "members"
}

// Starts says what forks cause: builds of their pull requests, bare where their
// branches have no prefix; or, as an event, a build whenever there is one more.
func (row Row) Starts() string {
	switch {
	case row.Archived:
		return "-"
	case row.Forks && !row.Prefixed:
		return "bare"
	case row.Forks:
		return "yes"
	case row.Mode == "fork":
		return "event"
	}
	return "no"
}

// Count is how many sealed values it has.
func (row Row) Count() string {
	n := 0
	for _, v := range row.Values {
		if v.sealed() {
			n++
		}
	}
	switch {
	case n == 0 && row.Beside != "":
		return "beside"
	case n == 0:
		return "-"
	}
	return fmt.Sprint(n)
}

func severity(word string) Severity { return Severity(max(0, slices.Index(severities[:], word))) }

// values are the sealed ones.
func (p *printer) values(r Report) {
	for _, h := range r.holders(escape.Text) {
		p.b.WriteString("\n")
		p.wrap(h.Name+" holds", "", "  ")
		for _, v := range h.Values {
			p.wrap(escape.Text(v.Variable)+", "+Place{File: v.File, Line: v.Line, Steps: v.Steps}.text(), "  ", "    ")
			p.wrap(v.About(), "    ", "    ")
		}
	}
}

// inWords are the forms that no label explains.
var inWords = map[sealed.Form]string{
	sealed.Age: "an age file without a label", sealed.RSA: "RSA, of the older tool", sealed.RSAHybrid: "RSA and AES, of the older tool",
	sealed.Malformed: "malformed", sealed.Other: "no sealed value", sealed.Empty: "empty",
}

// About says where a value opens, as its label claims.
func (s Shown) About() string {
	if s.Form != sealed.Labelled {
		return inWords[s.Form]
	}
	text := "for " + strings.Join(s.Repos, ", ")
	switch {
	case s.AnyRepo:
		text = "for any repository"
	case len(s.Repos) == 0:
		text = "for pipeline " + strings.Join(s.Pipelines, ", ")
	case len(s.Pipelines) > 0:
		text += ", pipeline " + strings.Join(s.Pipelines, ", ")
	}
	for _, ref := range []struct {
		word  string
		globs []string
	}{{"branch", s.Branches}, {"tag", s.Tags}} {
		if len(ref.globs) > 0 {
			text += ", " + ref.word + " " + strings.Join(ref.globs, ", ")
		}
	}
	if !s.PullRequests {
		text += ", no pull requests"
	}
	if s.Expires != nil {
		text += ", until " + day(*s.Expires)
	}
	var to []string
	for _, t := range s.To {
		if t.Name != "" {
			to = append(to, t.Fingerprint+" ("+escape.Text(t.Name)+")")
		} else {
			to = append(to, t.Fingerprint)
		}
	}
	return text + "; to " + strings.Join(to, ", ")
}

// text is a place below its pipeline.
func (at Place) text() string {
	text := "its settings"
	if at.File != "" {
		text = escape.Text(at.File)
	}
	if at.Line > 0 {
		text += fmt.Sprintf(":%d", at.Line)
	}
	var steps []string
	for _, step := range at.Steps {
		steps = append(steps, escape.Text(step))
	}
	switch len(steps) {
	case 0:
	case 1:
		text += ", step " + steps[0]
	default:
		text += ", steps " + strings.Join(steps, ", ")
	}
	return text
}

// Inside tells whether a place is narrower than its pipeline.
func (at Place) Inside() bool {
	return at.File != "" || at.Line > 0 || at.Variable != "" || len(at.Steps) > 0
}

// findings stand with the worst last.
func (p *printer) findings(r Report) {
	for _, f := range slices.Backward(r.Findings) {
		p.b.WriteString("\n" + p.paint(f.Severity, f.Severity.String()) + strings.TrimPrefix(p.wrapped(f.ID+": "+f.Title, f.Severity.String()+" ", "  "), f.Severity.String()))
		for n, at := range f.Places {
			if n == many && f.Severity < Danger && len(f.Places) > many+1 {
				p.wrap(fmt.Sprintf("and %d more: --json and --html have all", len(f.Places)-many), "  ", "    ")
				break
			}
			if at.whole() {
				continue
			}
			p.wrap(p.place(r, at), "  ", "    ")
		}
		p.wrap(f.Why, "  why: ", "       ")
		p.wrap(f.Fix, "  fix: ", "       ")
	}
}

func (p *printer) place(r Report, at Place) string {
	var parts []string
	switch {
	case at.Pipeline != "":
		parts = append(parts, p.name(r, at.Pipeline))
	case at.Repository != "":
		parts = append(parts, at.Repository)
	case at.Checkout != "":
		parts = append(parts, escape.Text(at.Checkout))
	}
	if at.Inside() {
		inside := at.text()
		if at.Variable != "" {
			inside = escape.Text(at.Variable) + ", " + inside
		}
		parts = append(parts, inside)
	}
	if at.What != "" {
		parts = append(parts, at.What)
	}
	return strings.Join(parts, ": ")
}

func (p *printer) verdict(r Report) {
	c := r.Counts
	counts := strings.Join([]string{count(c.Danger, "danger"), count(c.Warn, "warning"), fmt.Sprintf("%d info", c.Info)}, ", ")
	text := counts + "; " + count(c.Values, "sealed value")
	if r.Requests > 0 {
		text += " in " + count(r.Requests, "request")
	}
	if r.Status() == 0 {
		text = "pass: nothing that a fork or a stranger could use; " + text
		p.b.WriteString("\n" + p.paint(0, "pass:") + strings.TrimPrefix(p.wrapped(text, "", "  "), "pass:"))
		return
	}
	text = "status 1: a fork or a stranger could use what is marked danger; " + text
	p.b.WriteString("\n" + p.paint(Danger, "status 1:") + strings.TrimPrefix(p.wrapped(text, "", "  "), "status 1:"))
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// columns of a text in ASCII, but for our own "…".
func columns(s string) int { return len([]rune(s)) }

func cut(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// cutLeft keeps the end, which tells repositories apart.
func cutLeft(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	return "…" + string([]rune(s)[columns(s)-width+1:])
}
