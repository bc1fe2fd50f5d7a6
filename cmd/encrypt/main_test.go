//go:build !js

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"encrypt": main})
}

// identities are the key of setup's identities in a script's values.
type identities struct{}

// TestScripts runs testdata/script: one user's story a file. Each finds two
// sites' recipients R1 and R2, a post-quantum one RPQ, their fingerprints F1, F2 and
// FPQ, an IDENTITY that might be mistaken for a recipient, and the sealed values of
// others.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			one, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			two, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			pq, err := age.GenerateHybridIdentity()
			if err != nil {
				return err
			}
			for n, recipient := range map[string]string{"1": one.Recipient().String(), "2": two.Recipient().String(), "PQ": pq.Recipient().String()} {
				env.Setenv("R"+n, recipient)
				env.Setenv("F"+n, envelope.Fingerprint(recipient))
			}
			program, err := exec.LookPath("encrypt")
			if err != nil {
				return err
			}
			env.Setenv("ONLY_ENCRYPT", filepath.Dir(program))
			env.Setenv("IDENTITY", two.String())
			env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // with -race each program sleeps a second at its end
			env.Values[identities{}] = []age.Identity{one, two, pq}
			return others(env, one.Recipient())
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"open":  open,
			"write": write,
			"same":  same,
			"talk":  talk,
		},
	})
}

// others sets values that today's encrypt does not print: EXPIRED and SOON, both
// for NAME, UNLABELLED, STRANGE with a stanza of another kind, and the older
// tool's RSA and AES.
func others(env *testscript.Env, to age.Recipient) error {
	recipient, err := envelope.ParseRecipient(fmt.Sprint(to))
	if err != nil {
		return err
	}
	label := envelope.Label{Name: "NAME", Pipelines: []string{"juliagpu/cuda-jl"}}
	for name, expires := range map[string]time.Time{
		"EXPIRED": time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC),
		"SOON":    time.Now().Add(9*24*time.Hour + time.Hour).Truncate(time.Second),
	} {
		label.Expires = expires
		text, err := envelope.Seal(label, plaintext.New("hunter2-canary"), recipient)
		if err != nil {
			return err
		}
		env.Setenv(name, text)
	}
	for name, recipients := range map[string][]age.Recipient{"UNLABELLED": {to}, "STRANGE": {to, strange{}}} {
		var file bytes.Buffer
		w, err := age.Encrypt(&file, recipients...)
		if err != nil {
			return err
		}
		io.WriteString(w, "hunter2-canary")
		if err := w.Close(); err != nil {
			return err
		}
		env.Setenv(name, base64.StdEncoding.EncodeToString(file.Bytes()))
	}
	rsa := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("ab"), 128))
	env.Setenv("RSA", rsa)
	env.Setenv("AES", rsa+";U2FsdGVkX18xMjM0NTY3OA==")
	return nil
}

// strange is a recipient of a kind that nobody knows.
type strange struct{}

func (strange) Wrap([]byte) ([]*age.Stanza, error) {
	return []*age.Stanza{{Type: `"quoted"`, Args: []string{"x"}, Body: []byte("y")}}, nil
}

var printed = regexp.MustCompile(`\A# [ -~]+\n(# [ -~]+\n)+env:\n  (SECRET_[A-Za-z0-9_]+): "([A-Za-z0-9+/=]+)"\n\z`)

// open NAME VALUE [FILE]: what encrypt printed is the lines for NAME and nothing
// else, or the pipeline FILE has it; and it opens to the bytes of VALUE, of which
// standard error and the terminal show nothing. It leaves the label's text in the
// file "label".
func open(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: open NAME VALUE [FILE]")
	}
	name, text := names.Prefix+args[0], ""
	if len(args) == 3 {
		found, err := pipeline.Find([]byte(ts.ReadFile(args[2])))
		ts.Check(err)
		for _, s := range found {
			if s.Name == name {
				text = s.Text
			}
		}
	} else {
		m := printed.FindStringSubmatch(ts.ReadFile("stdout"))
		if m == nil {
			ts.Fatalf("standard output is not a comment and an env: block")
		}
		if m[2] != name {
			ts.Fatalf("printed for %s, want SECRET_%s", m[2], args[0])
		}
		text = m[3]
	}
	opened, err := envelope.Open(text, ts.Value(identities{}).([]age.Identity)...)
	ts.Check(err)
	if value := opened.Value.Reveal(); value != ts.ReadFile(args[1]) {
		ts.Fatalf("opens to %q", value)
	}
	shown := ts.ReadFile("stderr")
	if tty, err := os.ReadFile(ts.MkAbs("tty")); err == nil {
		shown += string(tty)
	}
	variables, err := opened.Variables(name)
	ts.Check(err)
	for _, v := range variables {
		value := v.Value.Reveal()
		for i := range len(value) - 5 {
			if strings.Contains(shown, value[i:i+6]) {
				ts.Fatalf("standard error or the terminal shows %q of the value", value[i:i+6])
			}
		}
	}
	label, err := opened.Label.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("label"), label, 0o600))
}

var ciphertext = regexp.MustCompile(`YWdlLWVuY3J5cHRpb24ub3JnL3Yx[A-Za-z0-9+/=]*`)

// same FILE WANT: the files are the same but for ciphertext, which is SEALED in WANT.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: same FILE WANT")
	}
	if got := ciphertext.ReplaceAllString(ts.ReadFile(args[0]), "SEALED"); got != ts.ReadFile(args[1]) {
		ts.Fatalf("%s is\n%s", args[0], got)
	}
}

// write FILE TEXT [TIMES]: FILE holds TEXT, read like the inside of a Go string,
// with the script's variables.
func write(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: write FILE TEXT [TIMES]")
	}
	text, err := strconv.Unquote(`"` + os.Expand(args[1], ts.Getenv) + `"`)
	ts.Check(err)
	if len(args) == 3 {
		times, err := strconv.Atoi(args[2])
		ts.Check(err)
		text = strings.Repeat(text, times)
	}
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o700))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// TestImports: an author's tool reads no identity, and stays small.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for _, unwanted := range []string{"/internal/identity", "spf13/cobra", "net/http"} {
		require.NotContains(t, string(out), unwanted, "encrypt needs recipients only, package flag and no network")
	}
}

// TestManualsFitATerminal of 80 columns, and of 40 but for words that are longer.
func TestManualsFitATerminal(t *testing.T) {
	for word, c := range map[string]*command{"": &sealing, "show": &showing, "completion": &completing} {
		for _, width := range []int{80, 40} {
			for line := range strings.Lines(c.manual(width)) {
				line = strings.TrimSuffix(line, "\n")
				if len([]rune(line)) > width {
					assert.Equal(t, 40, width, "%q of %s", line, word)
					assert.Contains(t, "usage: encrypt completion bash|zsh|fish|powershell       encrypt completion powershell | Out-String | Invoke-Expression", strings.TrimSpace(line))
				}
				assert.Equal(t, strings.TrimRight(line, " "), line, "blanks at the end")
			}
		}
	}
}

// TestFlags: each is there once, has somewhere to go, and takes a value unless it
// is a switch.
func TestFlags(t *testing.T) {
	for word, c := range map[string]*command{"": &sealing, "show": &showing, "completion": &completing} {
		seen := map[string]bool{}
		for _, f := range c.flags() {
			for _, name := range f.names {
				assert.False(t, seen[name], "%s of %s is there twice", name, word)
				seen[name] = true
			}
			if f.field == nil {
				assert.Equal(t, help.names, f.names)
				continue
			}
			_, isSwitch := f.field(&options{}).(*bool)
			assert.Equal(t, isSwitch, f.takes == "", f.names)
		}
	}
}

// TestStatus: 2 says that the arguments make no sense, 1 that something was refused.
func TestStatus(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	with := func(args ...string) []string { return append(args, "-r", identity.Recipient().String()) }
	for _, tt := range []struct {
		about string
		args  []string
		want  int
	}{
		{"sealed", with("NAME", "--any-repo"), 0},
		{"help", []string{"--help"}, 0},
		{"no recipient", []string{"NAME", "--any-repo"}, 1},
		{"a name that is protected", with("PATH", "--any-repo"), 1},
		{"a file that is missing", with("NAME", "--any-repo", "--file", "missing"), 1},
		{"a value that is none", with("DOCUMENTER_KEY", "--any-repo"), 1},
		{"a value as argument", with("NAME", "hunter2-canary", "--any-repo"), 2},
		{"an unknown flag", with("NAME", "--any"), 2},
		{"flags that exclude each other", with("NAME", "--any-repo", "--repo", "github.com/a/b"), 2},
		{"an end in the past", with("NAME", "--any-repo", "--expires", "2001-01-01"), 2},
		{"no name, and nobody to ask", with("--any-repo"), 2},
	} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, tt.want, run(tt.args, nil, strings.NewReader("hunter2-canary"), &stdout, &stderr), "%s: %s", tt.about, &stderr)
		assert.Equal(t, tt.want != 0, stdout.Len() == 0, "%s: standard output", tt.about)
		assert.NotContains(t, stderr.String(), "canary", tt.about)
	}
}

// TestOutputThatCannotBeWritten ends with an error: an author might commit half a line.
func TestOutputThatCannotBeWritten(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	full, err := os.Open(os.DevNull) // not open for writing
	require.NoError(t, err)
	defer full.Close()
	var stderr bytes.Buffer
	args := []string{"NAME", "--any-repo", "-r", identity.Recipient().String()}
	require.Equal(t, 1, run(args, nil, strings.NewReader("hunter2-canary"), full, &stderr))
	require.Contains(t, stderr.String(), "encrypt: error: standard output: ")
}

// TestWriteShowOpen: whatever the file is like, what --write put there show reads
// and the recipient opens; where it put nothing the file is as it was.
func TestWriteShowOpen(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	files, err := filepath.Glob("../../internal/pipeline/testdata/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	written := 0
	for _, name := range files {
		archive, err := txtar.ParseFile(name)
		require.NoError(t, err)
		before := archive.Files[0].Data
		steps := []string{""}
		if m := regexp.MustCompile(`(?m)^step: (.+)$`).FindSubmatch(archive.Comment); m != nil {
			steps = append(steps, string(m[1]))
		}
		for _, step := range steps {
			file := filepath.Join(t.TempDir(), "pipeline.yml")
			require.NoError(t, os.WriteFile(file, before, 0o600))
			args := []string{"CODECOV_TOKEN", "--any-repo", "-r", identity.Recipient().String(), "--write", file}
			if step != "" {
				args = append(args, "--step", step)
			}
			var stdout, stderr bytes.Buffer
			status := run(args, nil, strings.NewReader("hunter2-canary"), &stdout, &stderr)
			require.Empty(t, stdout.String(), "%s %v", name, args)
			after, err := os.ReadFile(file)
			require.NoError(t, err)
			if status != 0 {
				require.Equal(t, string(before), string(after), name)
				require.Contains(t, stderr.String(), "hint: ", name)
				continue
			}
			written++
			m := regexp.MustCompile(`pipeline\.yml:(\d+): (?:added|replaced) (\S+)`).FindStringSubmatch(stderr.String())
			require.NotNil(t, m, "%s: %s", name, &stderr)

			stderr.Reset()
			run([]string{"show", file, "--json"}, nil, nil, &stdout, &stderr)
			var view struct {
				Values []struct {
					Variable, Form string
					Line           int
					Label          struct{ Name string }
				}
			}
			require.NoError(t, json.Unmarshal(stdout.Bytes(), &view), "%s: %s", name, &stderr)
			shown := false
			for _, v := range view.Values {
				if strconv.Itoa(v.Line) == m[1] && v.Variable == m[2] {
					shown = v.Form == "sealed" && v.Label.Name == "CODECOV_TOKEN"
				}
			}
			require.True(t, shown, "%s: %s", name, &stdout)

			found, err := pipeline.Find(after)
			require.NoError(t, err)
			for _, s := range found {
				if strconv.Itoa(s.Line) == m[1] && s.Name == m[2] {
					opened, err := envelope.Open(s.Text, identity)
					require.NoError(t, err)
					require.Equal(t, "hunter2-canary", opened.Value.Reveal())
				}
			}
		}
	}
	require.Greater(t, written, 20)
}
