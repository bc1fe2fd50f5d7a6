package pipeline

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
)

const other = "YWdlLWVuY3J5cHRpb24ub3JnL3YxAAAA"

// every says to put text in the place of all that is there.
func every(t *testing.T, file []byte, text string) map[int]string {
	found, err := Scalars(file)
	require.NoError(t, err)
	texts := map[int]string{}
	for i, s := range found {
		if s.Text != "" {
			texts[i] = text
		}
	}
	return texts
}

// TestRewrite: of each file nothing changes but OLD, though SAME is the same text.
func TestRewrite(t *testing.T) {
	for name, file := range map[string]string{
		"quotes":          "env:\n  SECRET_A: \"OLD\"  # c\n  SECRET_B: 'OLD'\n  SECRET_C: OLD   \n  A: SAME\nsteps: []\n",
		"CRLF":            "env:\r\n  SECRET_A: \"OLD\"\r\n  SECRET_B: OLD # c\r\nsteps: []\r\n",
		"no final break":  "steps:\n- command: x\n  env:\n    SECRET_A: OLD",
		"braces":          "steps:\n- {command: x, env: {SECRET_A: OLD, B: c, \"SECRET_C\": \"OLD\" }} # SAME\n",
		"JSON":            `{"steps": [{"command": "x", "env": {"SECRET_A": "OLD","B":"SAME"}}]}`,
		"block text":      "env:\n  SECRET_A: |-\n    OLD\n\n  SECRET_B: >- # c\n     OLD\nsteps: []\n",
		"block text, end": "steps: []\nenv:\n  SECRET_A: |-\n    OLD",
		"anchor":          "env: &e\n  SECRET_A: &a \"OLD\"\nsteps:\n- command: x\n  env: {<<: *e, SECRET_A: *a}\n",
		"anchor outside":  "x-old: &a OLD\nsteps:\n- command: SAME\n  env:\n    SECRET_A: *a\n",
		"anchor in list":  "x-old:\n- &a 'OLD'\n- SAME\nsteps:\n- command: x\n  env: {SECRET_A: *a}\n",
		"tags":            "env:\n  SECRET_A: !!str OLD\n  SECRET_B: ! 'OLD'\n  SECRET_C: !x &x \"OLD\"\nsteps: []\n",
		"every level":     "env: {SECRET_A: OLD}\nsteps:\n- group: g\n  env: {SECRET_A: OLD}\n  steps:\n  - command: x\n    env:\n      SECRET_A: OLD\n- trigger: t\n  build:\n    env:\n      SECRET_B: OLD\n",
		"twice":           "env:\n  SECRET_A: OLD\n  SECRET_A: OLD\nsteps: []\n",
		"next line":       "env:\n  SECRET_A:\n    OLD\n  SECRET_B: # c\n    \"OLD\"\nsteps: []\n",
		"byte order mark": "\ufeffenv: {SECRET_A: OLD}\nsteps: []\n",
		"bare list":       "- command: ü\n  env: {ü: ü, SECRET_A: OLD}\n",
		"a plugin's":      "steps:\n- command: x\n  plugins:\n  - docker#v5:\n      env:\n        SECRET_A: OLD\n",
	} {
		t.Run(name, func(t *testing.T) {
			text := func(old string) string { return strings.NewReplacer("OLD", old, "SAME", sealed).Replace(file) }
			before, after := text(sealed), text(other)
			texts := every(t, []byte(before), other)
			require.NotEmpty(t, texts)
			edited, left, err := Rewrite([]byte(before), texts)
			require.NoError(t, err)
			require.Empty(t, left)
			require.Equal(t, after, string(edited))
			edited, _, err = Rewrite([]byte(before), nil)
			require.NoError(t, err)
			require.Equal(t, before, string(edited), "nothing to do")
		})
	}
}

// TestRewriteQuotes: where a text can't stand as the older one did, it is quoted.
func TestRewriteQuotes(t *testing.T) {
	for name, tt := range map[string][2]string{
		"a line break at its end": {"env:\n  SECRET_A: | # c\n    OLD\n  B: c\nsteps: []\n", "env:\n  SECRET_A: \"NEW\" # c\n  B: c\nsteps: []\n"},
		"kept line breaks":        {"env:\n  SECRET_A: |+\n    OLD\n\n\nsteps: []\n", "env:\n  SECRET_A: \"NEW\"\nsteps: []\n"},
		"escapes":                 {`{"env": {"SECRET_A": "a\x2fb"}, "steps": []}`, `{"env": {"SECRET_A": "NEW"}, "steps": []}`},
		"several lines":           {"env:\n  SECRET_A: &x \"a\\\n     b\" # c\nsteps: []\n", "env:\n  SECRET_A: &x \"NEW\" # c\nsteps: []\n"},
		"plain, of several":       {"env:\n  SECRET_A: a\n    b\nsteps: []\n", "env:\n  SECRET_A: \"NEW\"\nsteps: []\n"},
	} {
		t.Run(name, func(t *testing.T) {
			file := []byte(strings.ReplaceAll(tt[0], "OLD", sealed))
			edited, left, err := Rewrite(file, every(t, file, other))
			require.NoError(t, err)
			require.Empty(t, left)
			require.Equal(t, strings.ReplaceAll(tt[1], "NEW", other), string(edited))
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	for file, want := range map[string]string{
		"env: [\n":             "not YAML from about here on",
		"a: 1\n---\nb: 2\n":    "a second document",
		"":                     "an empty file",
		"steps: [*a]\n":        "an alias (*) without its anchor (&)",
		"a: \xff SECRET_A: 1b": "not text in UTF-8",
	} {
		_, err := Scalars([]byte(file))
		require.ErrorContains(t, err, want)
		_, _, err = Rewrite([]byte(file), nil)
		require.ErrorContains(t, err, want)
		message(t, err)
	}
	_, _, err := Rewrite([]byte("env: {SECRET_A: b}\nsteps: []\n"), map[int]string{0: "no\" base64"})
	require.ErrorContains(t, err, "SECRET_A: not the base64 of a sealed value")
	_, _, err = Rewrite([]byte("env: {SECRET_A: b}\n#"+strings.Repeat("x", MaxFile-100)), map[int]string{0: strings.Repeat("A", 200)})
	require.EqualError(t, err, "it would be larger than 1 MiB")
	message(t, err)
	// A text that gets quotes leaves its line break to the file.
	file := []byte("steps: []\nenv:\n  SECRET_A: |\n    " + sealed + "\n  SECRET_B: a")
	edited, left, err := Rewrite(file, map[int]string{0: other})
	require.NoError(t, err)
	require.Empty(t, left)
	require.Equal(t, "steps: []\nenv:\n  SECRET_A: \""+other+"\"\n  SECRET_B: a", string(edited))
}

// TestRewriteOneLine: a file of one line takes about as long as one of many.
func TestRewriteOneLine(t *testing.T) {
	for _, first := range []string{"a", "ü"} {
		took := map[string]time.Duration{}
		for _, blank := range []string{"\n", " "} {
			file := []byte(`{"env": {"` + first + `": ""`)
			for n := range 12000 {
				file = fmt.Appendf(file, `,%s"SECRET_%d": %q`, blank, n, sealed)
			}
			file = append(file, "}}"...)
			texts := every(t, file, other)
			began := time.Now()
			edited, left, err := Rewrite(file, texts)
			took[blank] = time.Since(began)
			require.NoError(t, err)
			require.Empty(t, left)
			require.Equal(t, 12000, bytes.Count(edited, []byte(other)))
		}
		require.Less(t, took[" "], 15*took["\n"])
	}
}

// TestRewriteAtRandom rewrites random pipelines, and those of the golden files: all
// entries have the new text then, and whatever else was there is there.
func TestRewriteAtRandom(t *testing.T) {
	var files [][]byte
	golden, err := filepath.Glob("testdata/*.txtar")
	require.NoError(t, err)
	for _, file := range golden {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		files = append(files, txtar.Parse(text).Files[0].Data)
	}
	for seed := range uint64(500) {
		w := &writer{Rand: rand.New(rand.NewPCG(seed, 2))}
		files = append(files, []byte(w.file()))
	}
	comment := regexp.MustCompile(`#c\d+`)
	done := 0
	for n, file := range files {
		found, err := Scalars(file)
		if err != nil || len(found) == 0 {
			continue
		}
		texts := every(t, file, other)
		edited, left, err := Rewrite(file, texts)
		about := fmt.Sprintf("%d\n%s\n=>\n%s", n, file, edited)
		require.NoError(t, err, about)
		require.Empty(t, left, about)
		again, err := Scalars(edited)
		require.NoError(t, err, about)
		require.Len(t, again, len(found), about)
		for i, s := range again {
			if _, ok := texts[i]; ok {
				done++
				require.Equal(t, other, s.Text, about)
			} else {
				require.Empty(t, s.Text, about)
			}
			require.Equal(t, found[i].Names(), s.Names(), about)
		}
		require.Equal(t, comment.FindAllString(string(file), -1), comment.FindAllString(string(edited), -1), about)
		require.Equal(t, bytes.HasSuffix(file, []byte("\n")), bytes.HasSuffix(edited, []byte("\n")), about)
		require.Equal(t, bytes.Contains(file, []byte("\r")), bytes.Contains(edited, []byte("\r")), about)
		// Back to the texts that were there: the trees are equal.
		for i := range texts {
			texts[i] = sealed
		}
		one, _, err := Rewrite(file, texts)
		require.NoError(t, err, about)
		two, _, err := Rewrite(edited, texts)
		require.NoError(t, err, about)
		require.Equal(t, string(one), string(two), about)
	}
	require.Greater(t, done, 500)
}
