package pipeline

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// sealed begins like a sealed value; nothing opens it.
const (
	name   = "SECRET_CODECOV_TOKEN"
	sealed = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+"
)

// A golden file begins with what it shows, in comments, and then may say
//
//	step: KEY     for Set
//	form: WORDS   crlf, bom, cut (no line break at the end), latin1
//
// in is the pipeline file; out what Set makes of it, or error what it says;
// find, where it is there, what Find returns.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 35)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			require.NoError(t, err)
			var where Where
			form := ""
			for line := range strings.Lines(string(archive.Comment)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				switch key {
				case "step":
					where.Step = value
				case "form":
					form = value
				}
			}
			section := func(name string) *[]byte {
				for i := range archive.Files {
					if archive.Files[i].Name == name {
						return &archive.Files[i].Data
					}
				}
				return nil
			}
			in := inForm(*section("in"), form)

			results := map[string]string{"out": "", "error": ""}
			if out, change, err := Set(in, where, name, sealed); err != nil {
				results["error"] = message(t, err)
			} else {
				results["out"] = string(fromForm(t, out, form))
				assert.Contains(t, strings.Split(string(out), "\n")[change.Line-1], name, "the line that Change names")
				region(t, in, where)
				lawOf(t, in, out, where)
			}
			if section("find") != nil {
				results["find"] = ""
				found, err := Find(in)
				if err != nil {
					results["find"] = message(t, err)
				}
				for _, s := range found {
					results["find"] += fmt.Sprintf("%d:%d: %s: %s %q\n", s.Line, s.Column, s.Name, s.Text, s.Steps)
				}
			}
			if *update {
				var kept []txtar.File
				for _, name := range []string{"in", "out", "error", "find"} {
					if name == "in" {
						kept = append(kept, txtar.File{Name: name, Data: *section("in")})
					} else if results[name] != "" {
						kept = append(kept, txtar.File{Name: name, Data: []byte(results[name])})
					}
				}
				archive.Files = kept
				require.NoError(t, os.WriteFile(file, txtar.Format(archive), 0o644))
				return
			}
			for name, got := range results {
				want := ""
				if s := section(name); s != nil {
					want = string(*s)
				}
				require.Equal(t, want, got, name)
			}
		})
	}
}

func message(t *testing.T, err error) string {
	var e *Error
	require.ErrorAs(t, err, &e)
	require.NotEmpty(t, e.Hint(), "every refusal says what to do")
	require.NotContains(t, e.Error()+e.Hint(), "hunter2", "a value of the file")
	return e.Error() + "\nhint: " + e.Hint() + "\n"
}

func inForm(text []byte, form string) []byte {
	s := string(text)
	for word := range strings.FieldsSeq(form) {
		switch word {
		case "crlf":
			s = strings.ReplaceAll(s, "\n", "\r\n")
		case "bom":
			s = "\ufeff" + s
		case "cut":
			s = strings.TrimRight(s, "\r\n")
		case "latin1":
			s = strings.ReplaceAll(s, "ü", "\xfc")
		}
	}
	return []byte(s)
}

// fromForm undoes inForm, and fails if a byte of the form was lost.
func fromForm(t *testing.T, text []byte, form string) []byte {
	s := string(text)
	for word := range strings.FieldsSeq(form) {
		switch word {
		case "cut":
			require.False(t, strings.HasSuffix(s, "\n"), "a line break at the end")
			s += "\n"
		case "bom":
			require.True(t, strings.HasPrefix(s, "\ufeff"), "the byte order mark")
			s = strings.TrimPrefix(s, "\ufeff")
			require.NotContains(t, s, "\ufeff")
		case "crlf":
			require.Equal(t, strings.Count(s, "\n"), strings.Count(s, "\r\n"), "a lone LF")
			s = strings.ReplaceAll(s, "\r\n", "\n")
		}
	}
	return []byte(s)
}

// lawOf states again, with the library's decoder instead of our own walk, what
// an edit is: the same file but for one place, the same data but for one entry.
func lawOf(t require.TestingT, in, out []byte, where Where) {
	again, change, err := Set(out, where, name, sealed)
	require.NoError(t, err, "a second time")
	require.Equal(t, Unchanged, change.Action)
	require.Equal(t, string(out), string(again), "twice is as once")

	var before, after any
	if yaml.Unmarshal(in, &before) != nil {
		return // two equal keys, say, in a place that is none of ours
	}
	require.NoError(t, yaml.Unmarshal(out, &after))
	if oddKeys(before) {
		return
	}
	holder := holderOf(before, where)
	require.NotNil(t, holder)
	env, _ := holder["env"].(map[string]any)
	if env == nil {
		env = map[string]any{}
	}
	// A copy: an alias elsewhere may be the same map.
	changed := map[string]any{name: sealed}
	for k, v := range env {
		if k != name {
			changed[k] = v
		}
	}
	holder["env"] = changed
	require.Equal(t, before, after)
}

// oddKeys finds a mapping with keys that are no text: it decodes as another type.
func oddKeys(data any) bool {
	odd := false
	switch data := data.(type) {
	case map[any]any:
		return true
	case map[string]any:
		for _, v := range data {
			odd = odd || oddKeys(v)
		}
	case []any:
		for _, v := range data {
			odd = odd || oddKeys(v)
		}
	}
	return odd
}

func holderOf(data any, where Where) map[string]any {
	if where.Step == "" {
		m, _ := data.(map[string]any)
		return m
	}
	steps, ok := data.([]any)
	if m, isMap := data.(map[string]any); isMap {
		steps, ok = m["steps"].([]any)
	}
	if !ok {
		return nil
	}
	for _, item := range steps {
		step, _ := item.(map[string]any)
		for _, key := range []string{"key", "id", "identifier"} {
			if v, ok := step[key]; ok && v != "" && v != nil {
				if fmt.Sprint(v) == where.Step {
					return step
				}
				break
			}
		}
		if found := holderOf(map[string]any{"steps": step["steps"]}, where); found != nil {
			return found
		}
	}
	return nil
}

func TestSetChecksItsArguments(t *testing.T) {
	for _, tt := range []struct{ about, name, text string }{
		{"no prefix", "CODECOV_TOKEN", sealed},
		{"nothing behind the prefix", "SECRET_", sealed},
		{"a blank", "SECRET_A B", sealed},
		{"a name that decides which code runs", "SECRET_PATH", sealed},
		{"no text", name, ""},
		{"a quote", name, `hunter2"`},
		{"a dollar, which Buildkite would expand", name, "hunter2$"},
		{"a line break", name, "hunter2\n"},
		{"too long", name, strings.Repeat("A", 121<<10)},
	} {
		_, _, err := Set([]byte("steps: []\n"), Where{}, tt.name, tt.text)
		message(t, err)
	}
}

func TestTooLarge(t *testing.T) {
	file := append([]byte("steps: []\n"), bytes.Repeat([]byte("#\n"), MaxFile/2)...)
	_, _, err := Set(file, Where{}, name, sealed)
	require.ErrorContains(t, err, "larger than 1 MiB")
	_, err = Find(file)
	require.ErrorContains(t, err, "larger than 1 MiB")
}

// Files that unfold to more than any machine holds, and such as hold themselves.
func TestAliasesWithoutEnd(t *testing.T) {
	bomb := "x0: &x0 {env: {A: b}}\n"
	for i := 1; i < 30; i++ {
		bomb += fmt.Sprintf("x%d: &x%d [*x%d, *x%d, *x%d]\n", i, i, i-1, i-1, i-1)
	}
	wide := "x: &x\n"
	for i := range 20000 {
		wide += fmt.Sprintf("  K%d: v\n", i)
	}
	for _, file := range []string{
		bomb + "steps: []\n",
		wide + "steps:\n" + strings.Repeat("- <<: *x\n", 20000),
		wide + "steps:\n" + strings.Repeat("- env: *x\n", 20000),
		"steps: &s\n- group: a\n  steps: *s\n",
		"x: &x\n  env: &e\n    <<: *e\n    A: b\n  y: *x\nsteps: []\n",
		"x: &x\n  <<: *x\n  y: *x\nsteps: []\n",
		"x: &x [*x]\nsteps: []\n",
	} {
		for _, where := range []Where{{}, {Step: "a"}} {
			_, _, err := Set([]byte(file), where, name, sealed)
			require.ErrorContains(t, err, "unfold")
		}
		_, err := Find([]byte(file))
		require.ErrorContains(t, err, "unfold")
	}
}

// Each guard of verify, met by an edit that is wrong in one way.
func TestVerify(t *testing.T) {
	const file = "x: &x y\nenv:\n  A: b\nsteps:\n- key: a\n  env: &e\n    <<: {B: c}\n- key: b\n  env: *e\n"
	entry := name + ": \"" + sealed + "\"\n"
	for _, tt := range []struct{ about, edited, want string }{
		{"right", strings.Replace(file, "A: b\n", "A: b\n  "+entry, 1), ""},
		{"broken", strings.Replace(file, "A: b\n", "A: b\n "+entry, 1), "not read back"},
		{"another step's", strings.Replace(file, "c}\n", "c}\n    "+entry, 1), "more than"},
		{"a lost entry", strings.Replace(file, "  A: b\n", "  "+entry, 1), "more than"},
		{"another value", strings.Replace(file, "A: b\n", "A: c\n  "+entry, 1), "more than"},
		{"another quote", strings.Replace(file, "A: b\n", "A: 'b'\n  "+entry, 1), "more than"},
		{"another anchor", strings.Replace(strings.Replace(file, "A: b\n", "A: b\n  "+entry, 1), "&x", "&w", 1), "more than"},
		{"another alias", strings.Replace(strings.Replace(file, "A: b\n", "A: b\n  "+entry, 1), "*e", "*x", 1), "more than"},
	} {
		root, err := parse([]byte(file))
		require.NoError(t, err)
		before, err := environments(root)
		require.NoError(t, err)
		env := root.Content[3]
		env.Content = append(env.Content, (&plan{name: name, sealed: sealed}).nodes(nil)...)
		_, err = verify(root, before, []byte(tt.edited), Where{}, name, sealed)
		if tt.want == "" {
			require.NoError(t, err, tt.about)
		} else {
			require.ErrorContains(t, err, tt.want, tt.about)
		}
	}

	// Equal trees, and yet more than one entry: the environments tell.
	for _, tt := range []struct{ about, file, edited, want string }{
		{"an env: that hides a merged one",
			"x: &x\n  env:\n    A: b\nsteps:\n- key: a\n  <<: *x\n",
			"x: &x\n  env:\n    A: b\nsteps:\n- key: a\n  <<: *x\n  env:\n    " + entry, "A would go"},
		{"an env: that two steps have",
			"steps:\n- key: a\n  env: &e\n    A: b\n- key: b\n  env: *e\n",
			"steps:\n- key: a\n  env: &e\n    A: b\n    " + entry + "- key: b\n  env: *e\n", "in 2 places"},
		{"the wrong name",
			"steps:\n- key: a\n  env:\n    A: b\n",
			"steps:\n- key: a\n  env:\n    A: b\n    SECRET_B: \"" + sealed + "\"\n", "SECRET_B would change too"},
		{"the wrong text",
			"steps:\n- key: a\n  env:\n    A: b\n",
			"steps:\n- key: a\n  env:\n    A: b\n    " + name + ": other\n", "would change too"},
		{"the wrong step of two with env:",
			"steps:\n- key: a\n  env: {A: b}\n- key: b\n  env:\n    A: b\n",
			"steps:\n- key: a\n  env: {A: b}\n- key: b\n  env:\n    A: b\n    " + entry, "elsewhere"},
		{"the wrong step",
			"steps:\n- key: a\n- key: b\n  env:\n    A: b\n",
			"steps:\n- key: a\n- key: b\n  env:\n    A: b\n    " + entry, "elsewhere"},
	} {
		root, err := parse([]byte(tt.file))
		require.NoError(t, err)
		before, err := environments(root)
		require.NoError(t, err)
		after, err := parse([]byte(tt.edited))
		require.NoError(t, err)
		_, err = verify(after, before, []byte(tt.edited), Where{"a"}, name, sealed)
		require.ErrorContains(t, err, tt.want, tt.about)
	}
}

// Where yaml's position and the bytes disagree, nothing is guessed.
func TestEndOfScalarChecksItsQuote(t *testing.T) {
	for _, style := range []yaml.Style{yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle, yaml.LiteralStyle, yaml.FoldedStyle} {
		_, err := newSource([]byte("A: b # \"\n")).end(&yaml.Node{Kind: yaml.ScalarNode, Style: style, Line: 1, Column: 4}, 0, false)
		require.ErrorIs(t, err, errUnsure)
	}
}

// FuzzSet: any text, any step: no panic, and what is edited keeps the law.
func FuzzSet(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	require.NoError(f, err)
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		require.NoError(f, err)
		step := ""
		if _, after, ok := strings.Cut(string(archive.Comment), "\nstep: "); ok {
			step, _, _ = strings.Cut(after, "\n")
		}
		f.Add(archive.Files[0].Data, step)
		f.Add(archive.Files[0].Data, "")
	}
	f.Fuzz(func(t *testing.T, file []byte, step string) {
		Find(file)
		out, _, err := Set(file, Where{step}, name, sealed)
		var e *Error
		if err != nil {
			require.True(t, errors.As(err, &e))
			require.NotEmpty(t, e.Hint())
			return
		}
		region(t, file, Where{step})
		lawOf(t, file, out, Where{step})
	})
}

// region requires that an edit takes away nothing but a value: no comment, no
// line break around it.
func region(t require.TestingT, file []byte, where Where) {
	root, err := parse(file)
	require.NoError(t, err)
	to, err := find(root, where)
	require.NoError(t, err)
	old := ""
	if env, err := lookup(to.holder, "env"); err == nil && env.key != nil && env.value.Kind == yaml.MappingNode {
		if e, err := lookup(env.value, name); err == nil && e.key != nil {
			old = e.value.Value
		}
	}
	p := plan{newSource(file), to, name, sealed, to.holder}
	s, action, err := p.edit()
	require.NoError(t, err)
	removed := string(file[s.start:s.end])
	if action == Added {
		require.Contains(t, []string{"", "~", "null", "Null", "NULL"}, removed)
		return
	}
	if removed == "" || removed[0] == '|' || removed[0] == '>' {
		return // the golden files and TestSetAtRandom look at these
	}
	var alone yaml.Node
	list := "- " + removed
	if env, err := lookup(to.holder, "env"); err == nil && env.value.Style&yaml.FlowStyle != 0 {
		list = "[" + removed + "]" // a colon may end a text there
	}
	require.NoError(t, yaml.Unmarshal([]byte(list), &alone), "%q", removed)
	require.Len(t, alone.Content[0].Content, 1, "%q", removed)
	value := alone.Content[0].Content[0]
	require.Equal(t, yaml.ScalarNode, value.Kind, "%q", removed)
	require.Equal(t, old, value.Value, "%q", removed)
	require.Empty(t, value.HeadComment+value.LineComment+value.FootComment+alone.HeadComment+alone.FootComment, "%q", removed)
	require.Equal(t, strings.TrimSpace(removed), removed)
}

func TestKeys(t *testing.T) {
	got, err := Keys([]byte("steps:\n- {key: a, command: x}\n- wait\n- group: g\n  steps: [{id: b, command: x}, {command: x}]\n- {identifier: \"c\\n\", command: x}\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", `"c\n"`}, got)
	_, err = Keys([]byte("steps: ["))
	require.Error(t, err)
}
