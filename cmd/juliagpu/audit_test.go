package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// organization is a server and the site's recipient, of one script.
type organization struct {
	*restserver.Server
	recipient envelope.Recipient
}

// TestAuditScripts runs testdata/audit: one operator's story a file, each with an API
// of its own.
func TestAuditScripts(t *testing.T) {
	of := func(ts *testscript.TestScript) organization { return ts.Value("organization").(organization) }
	testscript.Run(t, testscript.Params{
		Dir: "testdata/audit",
		Setup: func(env *testscript.Env) error {
			if err := os.Chmod(env.WorkDir, 0o755); err != nil {
				return err
			}
			server, err := restserver.Start(env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(func() { server.Close() })
			identity, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			recipient, err := envelope.ParseRecipient(identity.Recipient().String())
			if err != nil {
				return err
			}
			env.Values["organization"] = organization{server, recipient}
			env.Setenv("API", server.URL)
			env.Setenv("ROOTS", server.Roots)
			env.Setenv("BUILDKITE_API_TOKEN", server.Token)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return os.WriteFile(filepath.Join(env.WorkDir, "recipients"), []byte(recipient.String()+" # The Lab\n"), 0o600)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				if got := status(ts.Exec(args[1], args[2:]...)); (got == want) == neg {
					ts.Fatalf("status %d", got)
				}
			},
			// seal NAME REPOSITORY FILE: puts a sealed value in the place of @NAME in a file.
			"seal": func(ts *testscript.TestScript, neg bool, args []string) {
				name, err := repo.Parse(args[1])
				ts.Check(err)
				text, err := envelope.Seal(envelope.Label{Name: args[0], Repos: []repo.Name{name}}, plaintext.New("hunter2-canary"), of(ts).recipient)
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(strings.ReplaceAll(ts.ReadFile(args[2]), "@"+args[0], text)), 0o644))
			},
			// pipeline SLUG REPOSITORY FILE [JSON]: adds one; JSON are keys of the answer.
			"pipeline": func(ts *testscript.TestScript, neg bool, args []string) {
				p := restserver.Pipeline{Slug: args[0], Repository: args[1], Configuration: ts.ReadFile(args[2]), Visibility: "private"}
				if len(args) > 3 {
					ts.Check(json.Unmarshal([]byte(args[3]), &p.Change))
					for key, value := range p.Change {
						if value == "absent" {
							p.Change[key] = restserver.Absent
						}
					}
				}
				of(ts).AddPipeline(p)
			},
			// fail PART TIMES STATUS: answers requests so.
			"fail": func(ts *testscript.TestScript, neg bool, args []string) {
				times, err := strconv.Atoi(args[1])
				ts.Check(err)
				status, err := strconv.Atoi(args[2])
				ts.Check(err)
				of(ts).Fail(args[0], times, restserver.Status(status))
			},
			// requests N: so many came.
			"requests": func(ts *testscript.TestScript, neg bool, args []string) {
				if got := fmt.Sprint(len(of(ts).Requests())); got != args[0] {
					ts.Fatalf("%s requests", got)
				}
			},
			// report FILE: it is a report for programs.
			"report": func(ts *testscript.TestScript, neg bool, args []string) {
				var r struct {
					Schema    int
					Findings  []struct{ ID, Severity, Fix string }
					Pipelines []struct{ Pipeline, Repository string }
				}
				ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
				if r.Schema != 1 || r.Findings == nil || r.Pipelines == nil {
					ts.Fatalf("not a report: %+v", r)
				}
			},
		},
	})
}

// five hundred pipelines, each with steps of some 20 KiB.
func many(t *testing.T) *restserver.Server {
	t.Helper()
	server, err := restserver.Start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	var steps strings.Builder
	for i := range 48 {
		fmt.Fprintf(&steps, "- command: make\n  key: step-%d\n  env:\n    SECRET_%c: %s==\n", i, 'A'+i%26, strings.Repeat("A", 342))
	}
	for i := range 500 {
		server.AddPipeline(restserver.Pipeline{Slug: fmt.Sprintf("p-%d", i), Repository: fmt.Sprintf("https://github.com/juliagpu/p%d", i), Configuration: "steps:\n" + steps.String()})
	}
	return server
}

// TestAuditOfMany: 500 pipelines are five requests, and within bounded memory.
func TestAuditOfMany(t *testing.T) {
	server := many(t)
	out := filepath.Join(t.TempDir(), "report.json")
	stdout, err := os.Create(out)
	require.NoError(t, err)
	defer stdout.Close()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program, "audit", "--organization", "juliagpu", "--api", server.URL, "--roots", server.Roots, "--per-minute", "1000", "--json")
	cmd.Args[0] = "juliagpu"
	cmd.Env = []string{"JULIAGPU_TEST_AS_PROGRAM=1", "BUILDKITE_API_TOKEN=" + server.Token, "HOME=" + t.TempDir()}
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	began := time.Now()
	require.Equal(t, 0, status(cmd.Run()), "without a fork nothing of it is a danger")
	require.Len(t, server.Requests(), 5)
	for _, r := range server.Requests() {
		require.NotContains(t, r.URL, server.Token)
	}
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Contains(t, string(text), `"pipelines": 500,`)
	require.NotContains(t, string(text), "AAAAAAAA")
	require.NotContains(t, string(text), server.Token)
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss // KiB on Linux, bytes on macOS
	t.Logf("%d ms, %d MiB at most, report of %d KiB", time.Since(began).Milliseconds(), peak>>10, len(text)>>10)
	if runtime.GOOS == "linux" {
		require.Less(t, peak>>10, int64(256))
	}
}

// TestAuditStatus: what the API is at fault for is 75, what was asked for 2.
func TestAuditStatus(t *testing.T) {
	for code, want := range map[int]int{http.StatusNotFound: 2, http.StatusUnauthorized: 75, http.StatusForbidden: 75, http.StatusTeapot: 75} {
		server, err := restserver.Start(t.TempDir())
		require.NoError(t, err)
		defer server.Close()
		server.Fail("", -1, restserver.Status(code))
		var stdout, stderr strings.Builder
		got := run([]string{"audit", "--organization", "juliagpu", "--api", server.URL, "--roots", server.Roots},
			[]string{"BUILDKITE_API_TOKEN=" + server.Token, "HOME=" + t.TempDir()}, strings.NewReader(""), &stdout, &stderr)
		require.Equal(t, want, got, "%d: %s", code, stderr.String())
		require.Empty(t, stdout.String())
		require.Contains(t, stderr.String(), "juliagpu: hint: ", code)
		require.NotContains(t, stderr.String(), server.Token)
	}
}
