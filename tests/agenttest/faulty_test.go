//go:build unix

package agenttest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func request(t *testing.T, url, authorization string) *http.Response {
	t.Helper()
	r, err := http.NewRequest("POST", url, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", authorization)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	answer.Body.Close()
	return answer
}

// A fault is a FaultyJobAPI without an agent.
type fault struct {
	socket, token, received string
	cmd                     *exec.Cmd
	stdin                   io.Closer
}

// startFault starts a FaultyJobAPI whose "agent" is a script: it says where the API
// is, stays until its input ends, and then ends with status 5.
func startFault(t *testing.T, program, name string) fault {
	t.Helper()
	dir, err := os.MkdirTemp("", "bk-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	stub := filepath.Join(dir, "buildkite-agent")
	require.NoError(t, os.WriteFile(stub, []byte("#!/bin/sh\n"+
		`echo "$BUILDKITE_AGENT_JOB_API_SOCKET $BUILDKITE_AGENT_JOB_API_TOKEN $BUILDKITE_AGENT_NO_JOB_API $1"`+"\ncat\nexit 5\n"), 0o755))
	f := fault{received: filepath.Join(dir, "received")}
	f.cmd = exec.Command(program, name, f.received, stub)
	f.cmd.Env = []string{"BUILDKITE_SOCKETS_PATH=" + dir, "HOME=/"}
	f.cmd.Stderr = os.Stderr
	f.stdin, err = f.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := f.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, f.cmd.Start())
	t.Cleanup(func() {
		f.stdin.Close()
		f.cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	words := strings.Fields(line)
	require.Len(t, words, 4, line)
	f.socket, f.token = words[0], words[1]
	require.Equal(t, []string{"true", "bootstrap"}, words[2:])
	require.Equal(t, fmt.Sprintf("%s/job-api/%d-7.sock", dir, f.cmd.Process.Pid), f.socket)
	return f
}

// TestFaults talks to each faulty Job API.
func TestFaults(t *testing.T) {
	program, err := BuildFaultyJobAPI(t.Context(), t.TempDir())
	require.NoError(t, err)
	const patch, redact = `{"env":{"NEW":"v","HOME":"h"}}`, `{"redact":"hunter2"}`
	const patched, redacted = `{"added":["NEW"],"updated":["HOME"]}` + "\n", `{"redacted":"hunter2"}` + "\n"
	none := answer{} // not an HTTP answer, or none at all
	for _, tt := range []struct {
		fault         string
		patch, redact answer
	}{
		{"ok", answer{200, patched}, answer{201, redacted}},
		{"422", answer{422, ""}, answer{201, redacted}},
		{"500", answer{500, ""}, answer{201, redacted}},
		{"redact-500", answer{200, patched}, answer{500, ""}},
		{"slow", answer{200, patched}, answer{201, redacted}},
		{"never", none, none},
		{"close", none, none},
		{"garbage", none, none},
		{"huge", answer{200, strings.Repeat("x", maxAnswer)}, answer{200, strings.Repeat("x", maxAnswer)}},
		{"echo-wrong", answer{200, `{"added":["OTHER"],"updated":[]}` + "\n"}, answer{201, redacted}},
		{"sibling", answer{200, patched}, answer{201, redacted}},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			f := startFault(t, program, tt.fault)
			socket, token := f.socket, f.token
			start := time.Now()
			gotPatch := call(socket, token, "PATCH", "/env", patch)
			gotRedact := call(socket, token, "POST", "/redactions", redact)
			if tt.patch.body == "" {
				gotPatch.body = ""
			}
			if tt.redact.body == "" {
				gotRedact.body = ""
			}
			assert.True(t, tt.patch == gotPatch, "PATCH /env: status %d, %.60q", gotPatch.status, gotPatch.body)
			assert.True(t, tt.redact == gotRedact, "POST /redactions: status %d, %.60q", gotRedact.status, gotRedact.body)
			if tt.fault == "slow" {
				assert.GreaterOrEqual(t, time.Since(start), 400*time.Millisecond)
			}
			for _, body := range []string{patch, redact, token} {
				hits, err := Search(f.received, []byte(body))
				require.NoError(t, err)
				assert.NotEmpty(t, hits, "what it received: %s", body)
			}
			if tt.fault == "ok" {
				assert.Equal(t, 401, call(socket, "wrong", "GET", "/env", "").status)
				assert.Contains(t, call(socket, token, "GET", "/env", "").body, `"NEW":"v"`)
			}

			f.stdin.Close()
			var exit *exec.ExitError
			require.ErrorAs(t, f.cmd.Wait(), &exit)
			assert.Equal(t, 5, exit.ExitCode(), "the bootstrap's status")
		})
	}
}

// maxAnswer is how much of an answer the test reads.
const maxAnswer = 1 << 20

type answer struct {
	status int
	body   string
}

// call makes one request; the zero answer means that no HTTP came back.
func call(socket, token, method, path, body string) answer {
	client := &http.Client{
		Timeout: time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}
	r, err := http.NewRequest(method, "http://job/api/current-job/v0"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return answer{}
	}
	r.Header.Set("Authorization", "Bearer "+token)
	a, err := client.Do(r)
	if err != nil {
		return answer{}
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	if err != nil {
		return answer{}
	}
	return answer{a.StatusCode, string(text)}
}

func TestFaultyJobAPIUnderTheRealAgent(t *testing.T) {
	program, err := BuildFaultyJobAPI(t.Context(), t.TempDir())
	require.NoError(t, err)
	for _, tt := range []struct {
		fault string
		want  string
	}{
		{"ok", "hook: PATCH /env 200"},
		{"422", "hook: PATCH /env 422"},
		{"never", "hook: PATCH /env no answer"},
		{"sibling", "hook: PATCH /env 200"},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			a := newAgent(t)
			a.HooksPath, a.Polyglot = hooks(t), true
			received := filepath.Join(a.Dir, "received")
			a.BootstrapScript = FaultyJobAPI{program, a.Binary, tt.fault, received}.BootstrapScript()
			r, err := a.RunWhole(t.Context(), Job{
				Command: `echo "variable: ${FROM_HOOK-unset}"; exit 9`,
				Env:     map[string]string{"TO_MASK": canary},
			}, nil)
			require.NoError(t, err)
			assert.Equal(t, 9, r.ExitStatus, r.Text())
			assert.Regexp(t, regexp.MustCompile(`\nhook: socket job-api/\d+-7\.sock`), r.Text(), "the hook sees the wrapper's socket")
			assert.Contains(t, r.Text(), "\n"+tt.want)
			assert.Contains(t, r.Text(), "\nvariable: unset\n")
			hits, err := Search(received, []byte("FROM_HOOK"))
			require.NoError(t, err)
			assert.NotEmpty(t, hits)
		})
	}

	t.Run("a canceled job", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		a.BootstrapScript = FaultyJobAPI{program, a.Binary, "ok", filepath.Join(a.Dir, "received")}.BootstrapScript()
		r, err := a.Run(t.Context(), Job{Command: "echo rea''dy; sleep 60", CancelOn: "ready"})
		require.NoError(t, err)
		assert.Equal(t, "cancel", r.SignalReason, r.Text())
		hits, err := Search(filepath.Join(a.Dir, "received"), []byte("api"))
		require.NoError(t, err)
		assert.Empty(t, hits, "no hook, so not one byte")
	})
}
