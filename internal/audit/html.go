package audit

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"
	"unicode"
)

//go:embed page
var page embed.FS

// longest is how many letters are shown of a text that somebody else chose.
const longest = 200

// shown makes a text safe to look at: what is no printable letter, a change of
// direction among them, stands as its number. The page isolates what is left, so
// that letters of another direction move nothing beside them.
func shown(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > longest {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

// HTML is the report as one page that needs nothing else: it can be read without
// its script, offline, and printed.
func (r Report) HTML() ([]byte, error) {
	read := func(file string) string {
		text, err := page.ReadFile("page/" + file)
		if err != nil {
			panic(err) // it is in the program
		}
		return string(text)
	}
	style, script := read("page.css"), read("page.js")
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	t, err := template.New("page").Funcs(template.FuncMap{
		"shown": shown,
		"slug":  func(s string) string { return shown(strings.TrimPrefix(s, r.Organization+"/")) },
		"rank":  func(word string) int { return int(severity(word)) },
		"places": func(f Finding) []Place {
			if len(f.Places) == 1 && f.Places[0].whole() {
				return nil
			}
			return f.Places
		},
	}).Parse(read("page.html"))
	if err != nil {
		return nil, err
	}
	verdict := "good"
	if r.Status() != 0 {
		verdict = "danger"
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		Report
		Policy, Verdict string
		Style           template.CSS
		Script          template.JS
		Holders         []holder
	}{
		r,
		"default-src 'none'; script-src " + hash(script) + "; style-src " + hash(style) + "; base-uri 'none'; form-action 'none'",
		verdict,
		template.CSS(style), template.JS(script), r.holders(shown), // our own files
	})
	return b.Bytes(), err
}

// A holder is a pipeline or checkout that has values.
type holder struct {
	Name   string
	Values []Shown
}

func (r Report) holders(shown func(string) string) (all []holder) {
	for _, row := range r.Pipelines {
		if len(row.Values) == 0 {
			continue
		}
		name := strings.TrimPrefix(row.Pipeline, r.Organization+"/")
		switch {
		case row.Pipeline != "":
		case row.Repository != "":
			name = row.Repository
		default:
			name = "the checkout " + row.Checkout
		}
		all = append(all, holder{shown(name), row.Values})
	}
	return all
}

// whole tells whether a place is the organization.
func (at Place) whole() bool { return at.row() == (Place{}).row() && at.What == "" && !at.Inside() }
