package envfile

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gate"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
)

const id = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"

// lines writes what agent v3.81.0 writes.
func lines(env map[string]string) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "%s=%q\n", name, env[name])
	}
	return []byte(b.String())
}

// object writes what newer agents write besides.
func object(env map[string]string) []byte {
	var b strings.Builder
	json.NewEncoder(&b).Encode(env)
	return []byte(b.String())
}

func TestBothForms(t *testing.T) {
	env := map[string]string{
		"BUILDKITE_JOB_ID": id, "BUILDKITE_COMMAND": "echo \"a\"\nexit 3\t# <ü> 🦀 \\", "EMPTY": "", "_x1": "=a=b", "BYTES": "\x01\u2028",
		"BUILDKITE_AGENT_META_DATA_GPU-MODEL": "h200", "BUILDKITE_AGENT_META_DATA_AWS:TAG/X.Y": "z", "BUILDKITE_GIT_CLONE_FLAGS": "-v",
	}
	var want []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		want = append(want, name+"="+env[name])
	}
	require.Equal(t, Environment{Vars: want}, parseLines(lines(env)))
	require.Equal(t, Environment{Vars: want}, parseJSON(object(env)))
	require.Equal(t, Environment{}, parseLines(nil))
	// A release of Go that does not know a letter yet writes it as its number.
	require.Equal(t, Environment{Vars: []string{"A=🦀"}}, parseLines([]byte(`A="\U0001f980"`+"\n")))
}

// TestStrangeNames: what a job can write into its environment's names.
func TestStrangeNames(t *testing.T) {
	for _, tt := range []struct {
		name     string
		variable string
		value    string
		doubt    string // of the older form; the newer one has doubts, too, unless it says otherwise
		replaced string
		trusted  bool // the newer form has none
	}{
		{"bash's functions", "BASH_FUNC_git%%", "() { :; }", "this job has a variable named BASH_FUNC_git%%, which is no name", "", false},
		{"a dot", "a.b", "", "this job has a variable named a.b, which is no name", "", false},
		{"a blank", "a b", "", "this job has a variable named a b, which is no name", "", false},
		{"none", "", "x", `this job has a variable named "", which is no name`, "", false},
		{"a digit first", "1A", "", "this job has a variable named 1A, which is no name", "", false},
		{"another alphabet", "ВUILDKITE", "", `this job has a variable named "\u0412UILDKITE", which is no name`, "", false},
		{"a tag without a name", "BUILDKITE_AGENT_META_DATA_", "", "", "", true},
		{"a tag with a blank", "BUILDKITE_AGENT_META_DATA_A B", "", "this job has a variable named BUILDKITE_AGENT_META_DATA_A B, which is no name", "", false},
		{"another's place", "A=b", "", "the agent's file holds a line that can't be read, A: a variable of this job has a name that is none", "", false},
		{"another's place, with a value", `A="b"`, "c", "the agent's file holds a line that can't be read, A: a variable of this job has a name that is none", "", false},
		{"the agent's own place", "BUILDKITE_HOOKS_PATH=/n", "", "the agent's file holds a line that can't be read, BUILDKITE_HOOKS_PATH: a variable of this job has a name that is none", "BUILDKITE_HOOKS_PATH", false},
		{"the agent's own", "BUILDKITE_HOOKS_PATH", "/n", "", "BUILDKITE_HOOKS_PATH", true},
		{"a fact's place", "BUILDKITE_PULL_REQUEST_REPO=https://x", "y", "the agent's file holds a line that can't be read, BUILDKITE_PULL_REQUEST_REPO: a variable of this job has a name that is none", "BUILDKITE_PULL_REQUEST_REPO", false},
		{"two good lines for the agent's own", "BUILDKITE_HOOKS_PATH=\"x\"\nY", "z", "", "BUILDKITE_HOOKS_PATH", false},
		{"two lines", "X\nY", "", "the agent's file holds a line that can't be read, X: a variable of this job has a name that is none", "", false},
		{"a carriage return", "X\r", "", `this job has a variable named "X\r", which is no name`, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{tt.variable: tt.value, "OK": "ok"}
			e := parseLines(lines(env))
			require.Equal(t, tt.doubt, e.Doubt)
			require.Equal(t, tt.replaced, e.Replaced)
			require.Contains(t, e.Vars, "OK=ok")
			e = parseJSON(object(env))
			require.Equal(t, tt.trusted, e.Doubt == "", e.Doubt)
			require.Equal(t, tt.replaced, e.Replaced)
		})
	}
}

func TestUnreadable(t *testing.T) {
	for _, text := range []string{`A="b"`, `A=`, `A`, `A=b`, `A='b'`, "A=`b`", `A="b" `, `A="b`, "\n", "A=\"b\"\r\n", `A="\q"` + "\n", "\x00"} {
		e := parseLines([]byte(text))
		require.NotEmpty(t, e.Doubt, "%q", text)
		require.Empty(t, e.Vars)
		require.NotContains(t, e.Doubt, "b\"")
	}
	for _, text := range []string{``, `[]`, `null`, `{"A":1}`, `{"A":null}`, `{"A":{"B":"c"}}`, `{"A":["b"]}`, `{"A":"b"`, `{"A":"b"}{}`, `{"A":"b"} x`, `{"A"}`, `{A:"b"}`, `"A"`} {
		require.Equal(t, "the agent's file can't be read as JSON: names and values", parseJSON([]byte(text)).Doubt, text)
	}
	e := parseJSON([]byte(`{"A":"b","A":"c"}`))
	require.Equal(t, []string{"A=b", "A=c"}, e.Vars)
	require.Equal(t, []string{"A"}, job.Parse(e.Vars).Facts.Twice, "row 1 of trust")
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	env := map[string]string{"BUILDKITE_JOB_ID": id, "A": "b"}
	older := "BUILDKITE_ENV_FILE=" + write("job-env-"+id+"17", lines(env))
	newer := "BUILDKITE_ENV_JSON_FILE=" + write("job-env-json-"+id+"18", object(map[string]string{"BUILDKITE_JOB_ID": id, "A": "json"}))
	other := "BUILDKITE_ENV_JSON_FILE=" + write("job-env-json-"+strings.Replace(id, "0", "1", 1)+"18", object(env))
	stated := "BUILDKITE_JOB_ID=" + id

	got, e, err := Read([]string{"PATH=/bin", older})
	require.NoError(t, err)
	require.Equal(t, id, got.String())
	require.Equal(t, Environment{Vars: []string{"A=b", "BUILDKITE_JOB_ID=" + id}}, e)

	_, e, err = Read([]string{older, newer, stated})
	require.NoError(t, err)
	require.Contains(t, e.Vars, "A=json", "the form that can't be forged")

	_, e, err = Read([]string{"BUILDKITE_ENV_FILE=" + write("job-env-"+id+"20", lines(map[string]string{"BUILDKITE_JOB_ID": "another"}))})
	require.NoError(t, err)
	require.Equal(t, "the job states BUILDKITE_JOB_ID=another, but the agent "+id, e.Doubt)

	for name, environ := range map[string][]string{
		"no file":                          {"PATH=/bin"},
		"a file of another name":           {"BUILDKITE_ENV_FILE=" + write("env", lines(env))},
		"two jobs":                         {older, other, stated},
		"another job than the agent's":     {older, newer, "BUILDKITE_JOB_ID=another"},
		"a newer agent that does not say":  {older, newer},
		"gone":                             {"BUILDKITE_ENV_FILE=" + filepath.Join(dir, "job-env-"+id+"21")},
		"a relative file that is not here": {"BUILDKITE_ENV_FILE=job-env-" + id + "1"},
	} {
		_, e, err := Read(environ)
		require.Error(t, err, name)
		require.Empty(t, e, name)
	}

	path := strings.TrimPrefix(older, "BUILDKITE_ENV_FILE=")
	link := filepath.Join(dir, "job-env-"+id+"30")
	require.NoError(t, os.Symlink(path, link))
	_, _, err = Read([]string{"BUILDKITE_ENV_FILE=" + link})
	require.ErrorIs(t, err, ErrNoFile, "a link")
	require.NoError(t, os.Chmod(path, 0o620))
	_, _, err = Read([]string{older})
	require.ErrorIs(t, err, ErrNoFile, "others can write")
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.Link(path, path+"0"))
	_, _, err = Read([]string{older})
	require.ErrorIs(t, err, ErrNoFile, "a second name")
}

// FuzzForged: a job may choose any two names and values. Where the file gives no
// reason for doubt, and no name is there twice, every variable with a good name is
// what the file says; and no job takes the place of what the agent alone decides.
func FuzzForged(f *testing.F) {
	for _, s := range [][4]string{
		{"A", "b", "C", "d"}, {"BUILDKITE_HOOKS_PATH=/n", "", "A", "b"}, {"BUILDKITE_HOOKS_PATH=\"x\"\nY", "z", "A", "b"},
		{"A=\"b\"\nC", "d", "C", "e"}, {"A\nB=\"c\"\nBUILDKITE_BIN_PATH", "d", "", ""}, {"BASH_FUNC_x%%", "() {", "a.b", ""},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		if strings.Contains(name1+value1+name2+value2, "\x00") {
			return // no process starts with that
		}
		env := map[string]string{name1: value1, name2: value2}
		for _, e := range []Environment{parseLines(lines(env)), parseJSON(object(env))} {
			for name, value := range env {
				seen, _, _ := strings.Cut(name+"="+value, "=") // by the bootstrap
				if gate.Replaces(seen) {
					require.NotEmpty(t, e.Replaced)
				}
			}
		}
		good := isVariable(name1) && isVariable(name2)
		e := parseLines(lines(env))
		if good {
			require.Empty(t, e.Doubt)
			for name, value := range env {
				require.Contains(t, e.Vars, name+"="+value)
			}
			require.Len(t, e.Vars, len(env))
		} else if e := parseJSON(object(env)); e.Doubt == "" {
			t.Fatalf("no doubt about %q", env)
		}
	})
}

// FuzzParse: whatever the text, no variable of what is accepted has a bad name.
func FuzzParse(f *testing.F) {
	f.Add([]byte("A=\"b\"\n"))
	f.Add([]byte(`{"A":"b"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, e := range []Environment{parseLines(text), parseJSON(text)} {
			for _, line := range e.Vars {
				name, _, ok := strings.Cut(line, "=")
				require.True(t, ok)
				require.True(t, isVariable(name) || e.Doubt != "")
			}
			require.False(t, strings.ContainsFunc(e.Doubt, func(r rune) bool { return r != '…' && (r < ' ' || r > '~') }), "%q", e.Doubt)
		}
	})
}
