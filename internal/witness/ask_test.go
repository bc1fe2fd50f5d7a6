package witness

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// program is a script that takes attest's place. Its folder is $DIR in it.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "attest")
	text = strings.ReplaceAll(text, "$DIR", filepath.Dir(path))
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	return path
}

// prints is a script that reads the question and says something.
func prints(t *testing.T, text string) string {
	t.Helper()
	path := program(t, "cat >/dev/null; cat $DIR/answer")
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), "answer"), []byte(text), 0o600))
	return path
}

func marshal(t *testing.T, a Answer) string {
	t.Helper()
	data, err := a.Marshal()
	require.NoError(t, err)
	return string(data)
}

func TestAsk(t *testing.T) {
	got, err := Ask(t.Context(), prints(t, marshal(t, fullAnswer())), fullQuestion())
	require.NoError(t, err)
	require.Equal(t, fullAnswer().Attestation, got)

	want := &Refusal{Reason: "no such build", Hint: "again", Outage: true}
	got, err = Ask(t.Context(), prints(t, marshal(t, Answer{Refusal: want})), fullQuestion())
	require.Equal(t, want, err)
	require.Nil(t, got)
}

// TestAskStarts: the program has the question, and nothing else of ours.
func TestAskStarts(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("SSL_CERT_FILE", "/nowhere")
	secret, err := os.Open("/dev/zero")
	require.NoError(t, err)
	defer secret.Close()
	// A shell sets PWD and the like itself, so that the kernel is asked.
	path := program(t, "cat >$DIR/stdin; cat /proc/$$/environ >$DIR/environ 2>/dev/null; pwd >$DIR/pwd; ls /proc/$$/fd >$DIR/fd; echo $# >$DIR/args; echo bkua_hunter2 >&2")
	_, err = Ask(t.Context(), path, fullQuestion())
	require.EqualError(t, err, "attest: it says nothing")
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		require.NoError(t, err)
		return string(text)
	}
	question, err := ParseQuestion([]byte(read("stdin")))
	require.NoError(t, err)
	require.Equal(t, fullQuestion(), question)
	require.Empty(t, read("environ"))
	require.Equal(t, "/\n", read("pwd"))
	require.Equal(t, "0\n", read("args"))
	require.NotContains(t, strings.Fields(read("fd")), "3")
}

func TestAskFails(t *testing.T) {
	good := marshal(t, fullAnswer())
	for _, tt := range []struct {
		name   string
		path   func(*testing.T) string
		ask    func(*Question)
		reason string
		hint   string // empty: any
		noted  bool
	}{
		{name: "not there", path: func(*testing.T) string { return "/nowhere/attest" }, reason: "attest: /nowhere/attest is not there"},
		{name: "a relative path", path: func(*testing.T) string { return "attest" }, reason: "attest: attest: not an absolute path"},
		{name: "a folder", path: func(t *testing.T) string { return t.TempDir() }, reason: "a directory, not a file"},
		{name: "others can change it", path: func(t *testing.T) string {
			path := prints(t, good)
			require.NoError(t, os.Chmod(path, 0o757))
			return path
		}, reason: "mode 0757, writable by others"},
		{name: "others can change its folder", path: func(t *testing.T) string {
			path := prints(t, good)
			require.NoError(t, os.Chmod(filepath.Dir(path), 0o777))
			return path
		}, reason: "mode 0777, writable by others"},
		{name: "nobody can run it", path: func(t *testing.T) string {
			path := prints(t, good)
			require.NoError(t, os.Chmod(path, 0o644))
			return path
		}, reason: "permission denied"},
		{name: "no program", path: func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "attest")
			require.NoError(t, os.WriteFile(path, []byte("\x7fELF"), 0o755))
			return path
		}, reason: "exec format error"},
		{name: "silent", path: func(t *testing.T) string { return program(t, "cat >/dev/null") }, reason: "attest: it says nothing"},
		{name: "deaf", path: func(t *testing.T) string { return program(t, "exec <&-; printf x") }, reason: "attest: its answer is not what this release writes"},
		{name: "garbage", path: func(t *testing.T) string { return prints(t, "bkua_hunter2\n\x1b[31m") }, reason: "attest: its answer is not what this release writes"},
		{name: "half an answer", path: func(t *testing.T) string { return prints(t, good[:100]) }, reason: "attest: its answer is not what this release writes"},
		{name: "two answers", path: func(t *testing.T) string { return prints(t, good+good) }, reason: "attest: its answer is not what this release writes"},
		{name: "another release's", path: func(t *testing.T) string { return prints(t, `{"version":2}`) }, reason: "attest: its answer is not what this release writes"},
		{name: "too much", path: func(t *testing.T) string { return program(t, "exec yes bkua_hunter2") }, reason: "attest: it says more than 1 MiB"},
		{name: "it fails", path: func(t *testing.T) string { return program(t, "cat >/dev/null; echo bkua_hunter2 >&2; exit 3") }, reason: "attest: it ended with exit status 3"},
		{name: "another release", path: func(t *testing.T) string { return program(t, "cat >/dev/null; exit 2") }, reason: "attest: it ended with exit status 2", hint: "all programs beside the hooks are of one release: install them again"},
		{name: "an answer, and it fails", path: func(t *testing.T) string { return program(t, "cat <<'.'\n"+good+"\n.\nexit 1") }, reason: "attest: it ended with exit status 1"},
		{name: "it is killed", path: func(t *testing.T) string { return program(t, "kill -9 $$") }, reason: "attest: it ended with signal: killed"},
		{name: "it hangs", path: func(t *testing.T) string { return program(t, "exec sleep 100") }, reason: "attest: it did not end within 1.3s and was killed",
			ask: func(q *Question) { q.Deadline = 300 * time.Millisecond }},
		{name: "a child holds its output", path: func(t *testing.T) string { return program(t, "sleep 5 & exit 0") }, reason: "attest: exec: WaitDelay expired"},
		{name: "a bad deadline", path: func(t *testing.T) string { return prints(t, good) }, ask: func(q *Question) { q.Deadline = 0 }, reason: "attest: a deadline is in whole milliseconds"},
		{name: "a bad token", path: func(t *testing.T) string { return prints(t, good) }, ask: func(q *Question) { q.Token = "bkua_hunter2\xff" }, reason: "attest: a text in the question is not UTF-8"},
		{name: "a bad pipeline", path: func(t *testing.T) string { return prints(t, good) }, ask: func(q *Question) { q.Pipeline = "\xff" }, reason: "what the job states of its build is no text", noted: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.path(t) // before any program starts: it would hold the file open
			t.Parallel()
			q := fullQuestion()
			if tt.ask != nil {
				tt.ask(&q)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := Ask(ctx, path, q)
			require.Nil(t, got)
			var r *Refusal
			require.ErrorAs(t, err, &r)
			assert.Contains(t, r.Reason, tt.reason)
			assert.Equal(t, !tt.noted, r.Outage)
			assert.NotEmpty(t, r.Hint)
			assert.Contains(t, r.Hint, tt.hint)
			assert.NotContains(t, r.Hint, "operator", "grant says whom it is for")
			assert.NotContains(t, r.Reason+r.Hint, "hunter2")
			assert.True(t, isPlain(r.Reason))
			assert.NoError(t, ctx.Err())
		})
	}
}

func TestAskCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := Ask(ctx, program(t, "exec sleep 100"), fullQuestion())
	require.EqualError(t, err, "attest: it was canceled")
}

// TestAskAnothers: a program of another user is not started.
func TestAskAnothers(t *testing.T) {
	need.Root(t, "to give a file to another user")
	path := prints(t, marshal(t, fullAnswer()))
	require.NoError(t, os.Chown(path, 4712, -1))
	_, err := Ask(t.Context(), path, fullQuestion())
	require.ErrorContains(t, err, "owned by uid 4712, not by root")
}
