package reseal

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
)

// A Report is what a run did. Names that others chose are raw in it: each way to show
// it makes them safe.
type Report struct {
	Command string   // rotate or migrate
	Dry     bool     // nothing was written
	To      []string // whom values were sealed for, for people
	Notes   []string // said at the beginning; safe to print
	Files   []Done   // those with something to say of
}

// NewReport leaves out the files of which there is nothing to say.
func NewReport(command string, dry bool, to, notes []string, done []Done) Report {
	done = slices.DeleteFunc(slices.Clone(done), func(d Done) bool { return d.Error == nil && len(d.Values) == 0 && d.Outside == 0 })
	return Report{command, dry, to, notes, done}
}

// Counts are of a report.
type Counts struct {
	Resealed int `json:"resealed"`
	Already  int `json:"already"`
	Older    int `json:"older"`
	Failed   int `json:"failed"`
	Outside  int `json:"outside"` // sealed values in no SECRET_* variable of an env:
	Files    int `json:"files"`   // with something to say of
	Written  int `json:"written"` // of them
	Unread   int `json:"unread"`  // of them, or could not be written
}

// Counts counts.
func (r Report) Counts() (c Counts) {
	c.Files = len(r.Files)
	for _, f := range r.Files {
		c.Outside += f.Outside
		if f.Written {
			c.Written++
		}
		if f.Error != nil {
			c.Unread++
		}
		for _, v := range f.Values {
			switch v.Result {
			case Resealed:
				c.Resealed++
			case Already:
				c.Already++
			case Older:
				c.Older++
			case Failed:
				c.Failed++
			}
		}
	}
	return c
}

// Status is the exit status: 1 where something is left to do by hand.
func (r Report) Status() int {
	if c := r.Counts(); c.Failed+c.Unread > 0 {
		return 1
	}
	return 0
}

// inWords are the results for people.
var inWords = map[Result]string{Resealed: "sealed again", Already: "as it was", Older: "as it was", Failed: "failed"}

// A row is one line of the table.
type row struct{ at, variable, result, reason, hint string }

// rows are those of all values, and then those of what is wrong, which are to stand
// where the prompt is.
func (r Report) rows() (well, wrong []row) {
	for _, f := range r.Files {
		path := escape.Text(f.Path)
		for _, v := range f.Values {
			var variables []string
			for _, name := range v.Variables {
				variables = append(variables, escape.Text(name))
			}
			result := inWords[v.Result]
			if r.Dry && v.Result == Resealed {
				result = "to be sealed"
			}
			line := row{fmt.Sprintf("%s:%d", path, v.Line), strings.Join(variables, ", "), result, v.Reason, v.Hint}
			if v.Result == Failed {
				wrong = append(wrong, line)
			} else {
				well = append(well, line)
			}
		}
		if f.Outside > 0 {
			about := fmt.Sprintf("%s outside env:, or in no SECRET_ variable of it", count(f.Outside, "sealed value"))
			well = append(well, row{path, "", inWords[Already], about, ""})
		}
		if f.Error != nil {
			line := row{path, "", inWords[Failed], f.Error.Error(), ""}
			if at := (*pipeline.Error)(nil); errors.As(f.Error, &at) {
				line.reason, line.hint = at.Cause, at.Hint()
				if at.Line > 0 {
					line.at += fmt.Sprintf(":%d", at.Line)
				}
			}
			wrong = append(wrong, line)
		}
	}
	return well, wrong
}

// narrow is the width below which a value has several lines.
const narrow = 72

// Text is the report for people: a table of at most width columns, or with width 0 a
// line for each value, for a log.
func (r Report) Text(width int) string {
	var b strings.Builder
	wrap := func(text, first, margin string) {
		if width == 0 {
			b.WriteString(first + text + "\n")
			return
		}
		b.WriteString(fit.Wrap(text, width, first, margin))
	}
	wrap("for "+strings.Join(r.To, ", "), "", "  ")
	for _, note := range r.Notes {
		wrap(note, "", "  ")
	}
	well, wrong := r.rows()
	all := slices.Concat(well, wrong)
	at, variable := 0, 0
	for _, line := range all {
		at, variable = max(at, utf8.RuneCountInString(line.at)), max(variable, utf8.RuneCountInString(line.variable))
	}
	room := width - len("  sealed again  ")
	variable = min(variable, max(room/3, room-at))
	at = min(at, room-variable)
	if len(all) > 0 && width > 0 {
		b.WriteString("\n")
	}
	for _, line := range all {
		about := line.reason
		if line.hint != "" {
			about += ": " + line.hint
		}
		switch {
		case width == 0:
			text := line.at + ": "
			if line.variable != "" {
				text += line.variable + ": "
			}
			if text += line.result; about != "" {
				text += ": " + about
			}
			b.WriteString(text + "\n")
			continue
		case width < narrow:
			b.WriteString(cutLeft(line.at, width) + "\n")
			if line.variable != "" {
				b.WriteString("  " + cutLeft(line.variable, width-2) + "\n")
			}
			b.WriteString("  " + line.result + "\n")
		default:
			b.WriteString(fmt.Sprintf("%s  %s  %s\n", pad(cutLeft(line.at, at), at), pad(cutLeft(line.variable, variable), variable), line.result))
		}
		if about != "" {
			wrap(about, "    ", "    ")
		}
	}
	if width > 0 {
		b.WriteString("\n")
	}
	wrap(r.summary(), "", "  ")
	return b.String()
}

// summary is the last line.
func (r Report) summary() string {
	c := r.Counts()
	if c.Files == 0 {
		return "there is nothing to seal again"
	}
	text := count(c.Resealed, "value") + " sealed again"
	if r.Dry {
		text = count(c.Resealed, "value") + " to be sealed again"
	}
	for _, more := range []struct {
		n    int
		what string
	}{{c.Already, "for these recipients already"}, {c.Older, "in an older form"}, {c.Outside, "outside env:"}, {c.Failed, "failed"}, {c.Unread, "of the files failed"}} {
		if more.n > 0 {
			text += fmt.Sprintf(", %d %s", more.n, more.what)
		}
	}
	if r.Dry {
		return text + "; nothing was written"
	}
	return text + "; " + count(c.Written, "file") + " written"
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// cutLeft keeps the end of a text, which tells more.
func cutLeft(s string, width int) string {
	if n := utf8.RuneCountInString(s); n > width {
		return "…" + string([]rune(s)[n-width+1:])
	}
	return s
}

// JSON is the report for programs.
func (r Report) JSON() ([]byte, error) {
	type value struct {
		Variables []string `json:"variables"`
		Line      int      `json:"line"`
		Steps     []string `json:"steps,omitempty"`
		Result    Result   `json:"result"`
		Reason    string   `json:"reason,omitempty"`
		Hint      string   `json:"hint,omitempty"`
	}
	type file struct {
		Path    string  `json:"path"`
		Written bool    `json:"written"`
		Outside int     `json:"outside,omitempty"`
		Error   string  `json:"error,omitempty"`
		Hint    string  `json:"hint,omitempty"`
		Values  []value `json:"values"`
	}
	out := struct {
		Schema  int      `json:"schema"`
		Command string   `json:"command"`
		Dry     bool     `json:"dry_run"`
		To      []string `json:"to"`
		Notes   []string `json:"notes"`
		Counts  Counts   `json:"counts"`
		Files   []file   `json:"files"`
	}{1, r.Command, r.Dry, r.To, append([]string{}, r.Notes...), r.Counts(), []file{}}
	for _, f := range r.Files {
		as := file{Path: f.Path, Written: f.Written, Outside: f.Outside, Values: []value{}}
		if f.Error != nil {
			as.Error = f.Error.Error()
			if at := (*pipeline.Error)(nil); errors.As(f.Error, &at) {
				as.Hint = at.Hint()
			}
		}
		for _, v := range f.Values {
			as.Values = append(as.Values, value{v.Variables, v.Line, v.Steps, v.Result, v.Reason, v.Hint})
		}
		out.Files = append(out.Files, as)
	}
	text, err := json.MarshalIndent(out, "", "  ")
	return append(escape.JSON(text), '\n'), err
}
