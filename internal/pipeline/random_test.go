package pipeline

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSetAtRandom makes pipelines of every layout that the writer below knows,
// edits each in every place, and holds the results to lawOf, to region, and to
// the comments: all of them are still there, in their order.
func TestSetAtRandom(t *testing.T) {
	comment := regexp.MustCompile(`#c\d+`)
	done, refusals := map[Action]int{}, map[string]int{}
	for seed := range uint64(500) {
		w := &writer{Rand: rand.New(rand.NewPCG(seed, 1))}
		file := []byte(w.file())
		if w.chance(3) { // again, from a file we wrote
			if out, _, err := Set(file, Where{}, "SECRET_B", sealed); err == nil {
				file = out
			}
		}
		for _, where := range append(w.places, Where{}) {
			out, change, err := Set(file, where, name, sealed)
			if err != nil {
				message(t, err)
				refusals[err.(*Error).Cause]++
				continue
			}
			done[change.Action]++
			about := fmt.Sprintf("seed %d, step %q\n%s\n=>\n%s", seed, where.Step, file, out)
			require.Equal(t, comment.FindAllString(string(file), -1), comment.FindAllString(string(out), -1), about)
			require.Equal(t, strings.HasSuffix(string(file), "\n"), strings.HasSuffix(string(out), "\n"), about)
			if w.crlf {
				require.Equal(t, strings.Count(string(out), "\n"), strings.Count(string(out), "\r\n"), about)
			} else {
				require.NotContains(t, string(out), "\r", about)
			}
			region(t, file, where)
			lawOf(t, file, out, where)
			if t.Failed() {
				t.Fatal(about)
			}
		}
	}
	t.Log(done, refusals)
	require.Greater(t, done[Added], 1000)
	require.Greater(t, done[Replaced], 300)
	total := 0
	for cause, n := range refusals {
		require.Contains(t, []string{
			"a comment stands before the closing brace",
			"the value of " + name + " is not text",
			"a tab in the indentation",
			"the last text of the file would get a line break at its end",
		}, cause)
		total += n
	}
	require.Less(t, total, 100, "the writer makes what can be edited: %v", refusals)
}

// A writer writes random pipelines.
type writer struct {
	*rand.Rand
	b        strings.Builder
	places   []Where
	step     string // of indentation
	dashes   string // in front of the dashes of a list
	crlf     bool
	comments int
}

// chance is true once in n times.
func (w *writer) chance(n int) bool { return w.IntN(n) == 0 }

func (w *writer) pick(of ...string) string { return of[w.IntN(len(of))] }

func (w *writer) file() string {
	w.step = w.pick("  ", "  ", "    ", "   ")
	w.dashes = w.pick("", w.step)
	w.crlf = w.chance(4)
	if w.chance(4) {
		w.b.WriteString("---\n")
	}
	w.between("")
	parts := []func(){w.steps}
	if !w.chance(4) {
		parts = append(parts, func() { w.env("") })
	}
	if w.chance(2) {
		parts = append(parts, func() { w.line("", "agents:"); w.line(w.step, "queue: "+w.scalar(w.step)) })
	}
	if w.chance(3) {
		parts = append(parts, func() { w.line("", "x-text: "+w.block("")) })
	}
	w.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	for _, part := range parts {
		part()
		w.between("")
	}
	text := w.b.String()
	if w.chance(4) {
		text = strings.TrimRight(text, "\n")
	}
	if w.crlf {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if w.chance(4) {
		text = "\ufeff" + text
	}
	return text
}

func (w *writer) line(indent, text string) { w.b.WriteString(indent + text + "\n") }

func (w *writer) comment() string {
	w.comments++
	return fmt.Sprintf("#c%d ", w.comments) + w.pick("é", "env:", "A: b", "\t", "'", `"`, "}", "👩‍🔬")
}

// between writes blank lines and comments, or nothing.
func (w *writer) between(indent string) {
	for range max(0, w.IntN(5)-2) {
		w.line(w.pick("", indent), w.pick("", w.comment()))
		if w.chance(4) {
			w.line("", "")
		}
	}
}

// behind is what may follow a value in its line.
func (w *writer) behind() string {
	if w.chance(3) {
		return w.pick(" ", "   ", "\t") + w.comment()
	}
	return w.pick("", "", " ")
}

func (w *writer) steps() {
	w.line("", "steps:"+w.behind())
	w.list(w.dashes, 0)
}

func (w *writer) list(indent string, depth int) {
	for range 1 + w.IntN(4) {
		w.between(indent)
		if w.chance(5) {
			w.line(indent, "- wait")
			continue
		}
		key := fmt.Sprintf("k%d", len(w.places))
		inner := indent + "  "
		if depth < 3 && w.chance(4) {
			w.line(indent, "- group: "+w.scalar(inner))
			w.line(inner, "steps:")
			w.list(inner+w.dashes, depth+1)
			continue
		}
		w.places = append(w.places, Where{key})
		if w.chance(8) {
			w.line(indent, fmt.Sprintf("- {command: x, key: %s, env: {A: b}}", key)+w.behind())
			continue
		}
		w.line(indent, "- "+w.pick("key", "id", "identifier", `"key"`)+": "+key+w.behind())
		parts := []func(){
			func() { w.line(inner, "command: "+w.scalar(inner)) },
			func() { w.line(inner, "command: "+w.block(inner)) },
		}[w.IntN(2):][:1]
		if w.chance(2) {
			parts = append(parts, func() { w.env(inner) })
		}
		if w.chance(3) {
			parts = append(parts, func() { w.line(inner, "agents: {queue: 'a b', x: [1, \"]\"]}"+w.behind()) })
		}
		if w.chance(3) {
			parts = append(parts, func() {
				w.line(inner, "plugins:")
				w.line(inner+w.dashes, "- JuliaCI/julia#v1:")
				w.line(inner+w.dashes+"    ", "version: "+w.scalar(inner+w.dashes+"    "))
				w.line(inner+w.dashes, "- JuliaCI/julia-test#v1:")
			})
		}
		w.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		for _, part := range parts {
			w.between(inner)
			part()
		}
	}
}

func (w *writer) env(indent string) {
	names := []string{"A", "JULIA_DEBUG", "ü", "SECRET_C"}[:1+w.IntN(4)]
	if w.chance(2) {
		names = append(names, name)
	}
	w.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	switch w.IntN(6) {
	case 0:
		var entries []string
		for _, n := range names {
			entries = append(entries, w.key(n)+": "+w.inBraces())
		}
		w.line(indent, "env: {"+strings.Join(entries, w.pick(", ", ",", " , "))+w.pick("", ",", " ")+"}"+w.behind())
	case 1:
		w.line(indent, "env: {")
		for i, n := range names {
			text := w.key(n) + ": " + w.inBraces()
			if i < len(names)-1 || w.chance(2) {
				text += ","
			}
			w.line(indent+w.step, text+w.behind())
		}
		w.line(indent, "}"+w.behind())
	case 2:
		w.line(indent, "env:"+w.pick("", " ~", " {}", " {  }", " null")+w.behind())
	default:
		w.line(indent, "env:"+w.behind())
		inner := indent + w.step
		for _, n := range names {
			w.between(inner)
			value := w.scalar(inner)
			switch w.IntN(8) {
			case 0:
				value = w.block(inner)
			case 1:
				w.line(inner, w.key(n)+":"+w.behind())
				continue
			case 2:
				value = "\n" + inner + "  " + value
			}
			w.line(inner, w.key(n)+": "+value)
		}
		if w.chance(3) {
			w.line(inner, w.comment())
		}
	}
}

func (w *writer) key(name string) string { return w.pick(name, name, `"`+name+`"`, "'"+name+"'") }

func (w *writer) inBraces() string {
	return w.pick("a", `"b, }"`, "'it''s # x'", "é b", "1", "~", `"\""`, "http://x/y", "[1, {c: d}]")
}

// scalar writes a value in a block, and what follows it in its line.
func (w *writer) scalar(indent string) string {
	return w.pick("plain", "two  words", "http://x:1/#y", `"d # \" é"`, "'s # '' ü'", "1", "~", "",
		"of\n"+indent+"  several\n\n"+indent+"   lines", "\"of\n\n several\\\n  lines\"", "'of\n"+indent+" '' several'") + w.behind()
}

// block writes a text of several lines.
func (w *writer) block(indent string) string {
	header := w.pick("|", ">", "|-", ">-", "|+", ">+")
	if w.chance(3) {
		header += " " + w.comment()
	}
	inner := "\n" + indent + w.pick(" ", "  ", "     ")
	return header + w.pick("", "\n") + inner + "env:" + inner + "  " + name + ": # no comment\n" + w.pick("", inner[1:]+"\n") +
		inner[1:] + w.pick("last", "# last") + w.pick("", "\n", "\n\n", "\n"+inner[1:]+"  ")
}
