package audit

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/sealed"
)

// A Report is what an audit found. Texts that others chose are raw in it: each
// way to show it makes them safe.
type Report struct {
	Schema        int       `json:"schema"` // 1
	Made          time.Time `json:"made"`
	Organization  string    `json:"organization,omitempty"`
	Configuration string    `json:"configuration,omitempty"` // what was judged by; empty: none
	Attested      bool      `json:"attested"`
	Notes         []string  `json:"notes,omitempty"`
	Requests      int       `json:"requests"` // of Buildkite's API
	Counts        Counts    `json:"counts"`
	Findings      []Finding `json:"findings"`  // the worst first
	Pipelines     []Row     `json:"pipelines"` // in the order of their names; then checkouts of others
}

// Counts are of a report.
type Counts struct {
	Pipelines int `json:"pipelines"`
	Values    int `json:"values"` // sealed, in today's form or an older one
	Danger    int `json:"danger"`
	Warn      int `json:"warn"`
	Info      int `json:"info"`
}

// A Finding is one thing that is to be said, and where.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	Why      string   `json:"why"`
	Fix      string   `json:"fix"`
	Places   []Place  `json:"places"`
}

// A Place is where a finding holds. The zero Place is the whole organization.
type Place struct {
	Pipeline   string   `json:"pipeline,omitempty"` // organization/pipeline
	Repository string   `json:"repository,omitempty"`
	Checkout   string   `json:"checkout,omitempty"` // as in Row
	File       string   `json:"file,omitempty"`     // of the repository; empty: the pipeline's settings
	Line       int      `json:"line,omitempty"`
	Variable   string   `json:"variable,omitempty"`
	Steps      []string `json:"steps,omitempty"`
	What       string   `json:"what,omitempty"` // beyond the title; safe to print
}

// of is the place of a value.
func (at Place) of(t Text, v sealed.Value) Place {
	at.File, at.Line, at.Variable, at.Steps = t.File, v.Line, v.Variable, v.Steps
	return at
}

// What the configuration's map has of a pipeline.
const (
	MapYes   = "yes"
	MapNo    = "no"
	MapOther = "other" // another repository
)

// A Row is one pipeline, or a checkout of a repository that no pipeline builds.
type Row struct {
	Pipeline   string   `json:"pipeline,omitempty"` // organization/pipeline
	Repository string   `json:"repository,omitempty"`
	Address    string   `json:"address,omitempty"`  // where that has no name
	Checkout   string   `json:"checkout,omitempty"` // the folder, of a repository that no pipeline builds
	Public     bool     `json:"public"`
	Archived   bool     `json:"archived,omitempty"`
	Provider   string   `json:"provider,omitempty"`
	Mode       string   `json:"trigger_mode,omitempty"`
	Forks      bool     `json:"forks"`
	Prefixed   bool     `json:"prefixed"` // branches of forks
	Rebuilds   bool     `json:"rebuilds"`
	Map        string   `json:"map,omitempty"`     // yes, no, other
	Steps      int      `json:"steps"`             // in its settings
	Uploads    int      `json:"uploads,omitempty"` // of these, steps that only upload a pipeline
	Beside     string   `json:"beside,omitempty"`  // the pipeline of the same repository that shows the checkout's values
	Worst      string   `json:"worst,omitempty"`   // severity
	Findings   []string `json:"findings,omitempty"`
	Values     []Shown  `json:"values,omitempty"`
}

// A Shown value is what anyone can read of one SECRET_* entry.
type Shown struct {
	File         string      `json:"file,omitempty"` // empty: the pipeline's settings
	Line         int         `json:"line,omitempty"`
	Variable     string      `json:"variable"`
	Steps        []string    `json:"steps,omitempty"` // none: all
	Form         sealed.Form `json:"form"`
	Repos        []string    `json:"repos,omitempty"`
	Pipelines    []string    `json:"pipelines,omitempty"`
	AnyRepo      bool        `json:"any_repo,omitempty"`
	Branches     []string    `json:"branches,omitempty"`
	Tags         []string    `json:"tags,omitempty"`
	PullRequests bool        `json:"pull_requests"`
	Expires      *time.Time  `json:"expires,omitempty"`
	To           []To        `json:"to,omitempty"`
}

// A To is whom a label says a value is sealed to.
type To struct {
	Fingerprint string `json:"fingerprint"`
	Name        string `json:"name,omitempty"` // as the given recipients have it
}

func (j *judge) shown(t Text, v sealed.Value) Shown {
	s := Shown{File: t.File, Line: v.Line, Variable: v.Variable, Steps: v.Steps, Form: v.Form}
	l := v.Label
	if l == nil {
		return s
	}
	for _, r := range l.Repos {
		s.Repos = append(s.Repos, r.String())
	}
	s.Pipelines, s.AnyRepo, s.Branches, s.Tags = l.Pipelines, l.Any, l.Branches, l.Tags
	s.PullRequests = !l.NoPullRequest && len(l.Branches)+len(l.Tags) == 0
	if !l.Expires.IsZero() {
		s.Expires = &l.Expires
	}
	for _, to := range l.To {
		s.To = append(s.To, To{to, j.Recipients[to]})
	}
	return s
}

// sealed tells whether a value is one, in today's form or an older one.
func (s Shown) sealed() bool { return s.Form != sealed.Other && s.Form != sealed.Empty }

// report joins rows and findings.
func (j *judge) report(rows []Row) Report {
	r := Report{Schema: 1, Made: j.Now.UTC().Truncate(time.Second), Organization: j.Organization, Configuration: j.Rules.Path,
		Attested: j.Rules.Attest, Findings: []Finding{}, Pipelines: rows}
	if rows == nil {
		r.Pipelines = []Row{}
	}
	worst := map[string]Severity{}
	of := map[string][]string{}
	for _, k := range kinds {
		places := j.found[k.id]
		if len(places) == 0 {
			continue
		}
		r.Findings = append(r.Findings, Finding{k.id, k.severity, k.title, k.why, k.fix, places})
		switch k.severity {
		case Danger:
			r.Counts.Danger += len(places)
		case Warn:
			r.Counts.Warn += len(places)
		case Info:
			r.Counts.Info += len(places)
		}
		for _, at := range places {
			key := at.row()
			worst[key] = max(worst[key], k.severity)
			if !slices.Contains(of[key], k.id) {
				of[key] = append(of[key], k.id)
			}
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return int(b.Severity - a.Severity) })
	for i := range r.Pipelines {
		row := &r.Pipelines[i]
		key := row.place().row()
		row.Worst, row.Findings = worst[key].String(), of[key]
		if row.Pipeline != "" {
			r.Counts.Pipelines++
		}
		for _, v := range row.Values {
			if v.sealed() {
				r.Counts.Values++
			}
		}
	}
	return r
}

// row is the key of the row that a place belongs to.
func (at Place) row() string {
	if at.Pipeline != "" {
		return at.Pipeline
	}
	return at.Checkout + "\n" + at.Repository
}

// place is that of a row as a whole.
func (r Row) place() Place {
	return Place{Pipeline: r.Pipeline, Repository: r.Repository, Checkout: r.Checkout}
}

// Status is that of a program that audits: 1 where a fork or a stranger could use
// what was found.
func (r Report) Status() int {
	if r.Counts.Danger > 0 {
		return 1
	}
	return 0
}

// JSON is the report for programs, in ASCII alone.
func (r Report) JSON() ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, err
	}
	return escape.JSON([]byte(b.String())), nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
