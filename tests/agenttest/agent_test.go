//go:build unix

package agenttest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// newAgent is an agent with directories of this test's own.
func newAgent(t *testing.T) Agent {
	t.Helper()
	binary, err := Tool(t.Context(), "buildkite-agent", os.Stderr)
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "bk-") // t.TempDir() is too long for sockets
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Agent{Binary: binary, Dir: dir}
}

// hooks is a hooks directory with the Go hook of testdata as its environment hook.
func hooks(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, Build(t.Context(), "./tests/agenttest/testdata/hook", filepath.Join(dir, "environment")))
	return dir
}

func TestRun(t *testing.T) {
	t.Run("a job that passes", func(t *testing.T) {
		t.Parallel()
		r, err := newAgent(t).RunWhole(t.Context(), Job{
			Command: `echo "hello $NAME"; "$BUILDKITE_BIN_PATH/buildkite-agent" annotate --style info --context c "a note"; buildkite-agent meta-data set k v; buildkite-agent meta-data get k; echo artifact >a.txt; buildkite-agent artifact upload a.txt; echo '{"steps":[{"command":"next"}]}' | buildkite-agent pipeline upload`,
			Env:     map[string]string{"NAME": "world"},
		}, nil)
		require.NoError(t, err)
		assert.Equal(t, 0, r.ExitStatus, r.Text())
		assert.Equal(t, 0, r.AgentStatus)
		assert.Empty(t, r.Signal+r.SignalReason)
		assert.Contains(t, r.Text(), "\nhello world\n")
		assert.NotContains(t, r.Text(), "\x1b", "escape sequences are gone")
		assert.Contains(t, r.Log, "\x1b_bk;t=", "the log as sent has the agent's timestamps")
		assert.Contains(t, r.AgentLog, "Successfully registered agent")
		assert.NotContains(t, fmt.Sprint(r.Env), r.AgentToken)
		assert.Equal(t, []Annotation{{Body: "a note", Style: "info", Context: "c"}}, r.Annotations)
		assert.Equal(t, map[string]string{"k": "v"}, r.MetaData)
		assert.Equal(t, map[string]string{"a.txt": "artifact\n"}, r.Artifacts)
		require.Len(t, r.Pipelines, 1)
		assert.Contains(t, r.Pipelines[0], "next")
	})

	t.Run("a command that fails", func(t *testing.T) {
		t.Parallel()
		r, err := newAgent(t).RunWhole(t.Context(), Job{Command: "echo before; exit 42; echo after"}, nil)
		require.NoError(t, err)
		assert.Equal(t, 42, r.ExitStatus, "the end mark keeps the status")
		assert.Contains(t, r.Text(), "\nbefore\n")
		assert.NotContains(t, r.Text(), "\nafter\n")
	})

	t.Run("a clean environment", func(t *testing.T) {
		t.Setenv("AGENTTEST_CANARY", "canary")
		a := newAgent(t)
		a.NoPTY, a.Env = true, []string{"FROM_AGENT=x"}
		r, err := a.RunWhole(t.Context(), Job{Command: "env", Unset: []string{"BUILDKITE_SOURCE"}}, nil)
		require.NoError(t, err)
		assert.NotContains(t, r.Text(), "canary")
		assert.NotContains(t, r.Text(), r.AgentToken)
		assert.NotContains(t, r.Text(), "BUILDKITE_SOURCE=")
		assert.Contains(t, r.Text(), "FROM_AGENT=x\n")
		assert.Contains(t, r.Text(), "HOME="+r.Dir+"/home\n")
	})

	t.Run("a repository checked out in place of its address", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		repo := filepath.Join(t.TempDir(), "repo")
		commit, err := GitRepo(repo, map[string]string{
			"file":                         "from the repository\n",
			".buildkite/hooks/pre-command": "echo repository hook\n",
		})
		require.NoError(t, err)
		a.Repos = map[string]string{"https://github.com/JuliaGPU/CUDA.jl.git": repo}
		r, err := a.RunWhole(t.Context(), Job{Command: "cat file", Env: map[string]string{"BUILDKITE_COMMIT": commit}}, nil)
		require.NoError(t, err)
		assert.Equal(t, 0, r.ExitStatus, r.Text())
		assert.Contains(t, r.Text(), "\nfrom the repository\n")
		assert.Contains(t, r.Text(), "\nrepository hook\n")
	})

	t.Run("a plugin from a local repository", func(t *testing.T) {
		t.Parallel()
		plugin := filepath.Join(t.TempDir(), "x-buildkite-plugin")
		_, err := GitRepo(plugin, map[string]string{"hooks/environment": "export FROM_PLUGIN=$BUILDKITE_PLUGIN_X_K\n"}, "v1")
		require.NoError(t, err)
		r, err := newAgent(t).RunWhole(t.Context(), Job{
			Command: "echo got $FROM_PLUGIN",
			Env:     map[string]string{"BUILDKITE_PLUGINS": fmt.Sprintf(`[{"file://%s#v1":{"k":"value"}}]`, plugin)},
		}, nil)
		require.NoError(t, err)
		assert.Contains(t, r.Text(), "\ngot value\n")
	})

	t.Run("a static Go hook that sets a variable over the Job API", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		a.HooksPath, a.Polyglot = hooks(t), true
		r, err := a.RunWhole(t.Context(), Job{
			Command: `echo "got $FROM_HOOK"; echo "masked: $TO_MASK"`,
			Env:     map[string]string{"TO_MASK": "hunter2hunter2"},
		}, nil)
		require.NoError(t, err)
		assert.Equal(t, 0, r.ExitStatus, r.Text())
		assert.Contains(t, r.Text(), "\nhook: PATCH /env 200")
		assert.Contains(t, r.Text(), "\ngot set-by-hook\n")
		assert.Contains(t, r.Text(), "\nmasked: [REDACTED]\n")
	})

	t.Run("a hook that fails, without its experiment", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		a.HooksPath = hooks(t)
		r, err := a.RunWhole(t.Context(), Job{Command: "echo not reached"}, Says("cannot execute binary file"))
		require.NoError(t, err)
		assert.Equal(t, 126, r.ExitStatus)
		assert.NotContains(t, r.Text(), "\nnot reached")
	})

	t.Run("a job refused before it starts", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		a.HooksPath = t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(a.HooksPath, "pre-bootstrap"), []byte("echo says no; exit 1\n"), 0o755))
		r, err := a.RunWhole(t.Context(), Job{}, Says("pre-bootstrap hook rejected this job"))
		require.NoError(t, err)
		assert.Equal(t, -1, r.ExitStatus)
		assert.Equal(t, "agent_refused", r.SignalReason)
		assert.Contains(t, r.AgentLog, "says no")
	})

	t.Run("a canceled job", func(t *testing.T) {
		t.Parallel()
		r, err := newAgent(t).Run(t.Context(), Job{Command: "echo rea''dy; sleep 50; echo slept''through", CancelOn: "ready"})
		require.NoError(t, err)
		assert.Equal(t, "cancel", r.SignalReason, r.Text())
		assert.NotEqual(t, 0, r.ExitStatus)
		assert.NotContains(t, r.Text(), "\nsleptthrough", "the command was stopped")
	})

	t.Run("an agent that never starts its job", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		a.HooksPath = t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(a.HooksPath, "agent-startup"), []byte("echo not today; exit 3\n"), 0o755))
		r, err := a.Run(t.Context(), Job{})
		require.ErrorIs(t, err, ErrUnfinished)
		assert.NotEqual(t, 0, r.AgentStatus)
		assert.Contains(t, r.AgentLog, "not today")
	})

	t.Run("a job that outlives the deadline is killed, with what it left", func(t *testing.T) {
		t.Parallel()
		a := newAgent(t)
		a.Timeout = 3 * time.Second
		r, err := a.Run(t.Context(), Job{Command: "setsid sleep 600 & echo $! >$HOME/pid; sleep 600"})
		require.ErrorIs(t, err, ErrUnfinished)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assertEnded(t, filepath.Join(r.Dir, "home/pid"))
	})

	t.Run("a process that a job leaves behind is killed", func(t *testing.T) {
		t.Parallel()
		r, err := newAgent(t).Run(t.Context(), Job{Command: "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $! >$HOME/pid"})
		require.NoError(t, err)
		assertEnded(t, filepath.Join(r.Dir, "home/pid"))
	})

	t.Run("a directory too long for sockets", func(t *testing.T) {
		a := Agent{Dir: filepath.Join(t.TempDir(), strings.Repeat("x", 80))}
		require.NoError(t, os.Mkdir(a.Dir, 0o755))
		_, err := a.Run(t.Context(), Job{})
		assert.ErrorContains(t, err, "too long for a unix socket")
	})
	t.Run("what comes before it fails", func(t *testing.T) {
		a := newAgent(t)
		a.Before = func() error { return os.ErrPermission }
		_, err := a.Run(t.Context(), Job{})
		assert.ErrorIs(t, err, os.ErrPermission)
	})
}

// assertEnded asserts that the process whose id the file holds is no more.
func assertEnded(t *testing.T, file string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		need.Skip(t, "needs /proc to find processes that left their group")
	}
	var pid int
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	_, err = fmt.Sscan(string(text), &pid)
	require.NoError(t, err)
	// The signal was sent, and takes effect when the process runs next.
	ended := func() bool {
		if syscall.Kill(pid, 0) != nil {
			return true
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ") // waiting for its parent
	}
	assert.Eventually(t, ended, 10*time.Second, 5*time.Millisecond, "process %d lives", pid)
}

func TestRunWhole(t *testing.T) {
	// run plays an agent that loses the log's end in the first `lost` runs.
	run := func(lost int, ids *[]string) func(context.Context, Job) (Result, error) {
		return func(_ context.Context, job Job) (Result, error) {
			*ids = append(*ids, job.ID)
			log := "$ " + job.Command + "\r\n"
			if len(*ids) > lost {
				_, mark, _ := strings.Cut(job.Command, ` end `)
				mark, _, _ = strings.Cut(mark, "'")
				log += "end-" + mark + "\r\n"
			}
			return Result{Record: Record{Log: log}}, nil
		}
	}
	t.Run("once where the log is whole", func(t *testing.T) {
		var ids []string
		r, err := runWhole(t.Context(), Job{ID: "mine"}, nil, run(0, &ids))
		require.NoError(t, err)
		assert.Equal(t, 1, r.Runs)
		assert.Equal(t, []string{"mine"}, ids)
	})
	t.Run("again, as the same job, where the mark is lost", func(t *testing.T) {
		var ids []string
		r, err := runWhole(t.Context(), Job{ID: "mine"}, nil, run(2, &ids))
		require.NoError(t, err)
		assert.Equal(t, 3, r.Runs)
		assert.Equal(t, []string{"mine", "mine", "mine"}, ids)
	})
	t.Run("not for ever", func(t *testing.T) {
		var ids []string
		_, err := runWhole(t.Context(), Job{}, nil, run(100, &ids))
		require.ErrorIs(t, err, ErrLostLog)
		assert.Len(t, ids, maxRuns)
	})
	t.Run("until the caller's text is there", func(t *testing.T) {
		n := 0
		r, err := runWhole(t.Context(), Job{}, Says("withheld", "2"), func(context.Context, Job) (Result, error) {
			n++
			return Result{Record: Record{Log: fmt.Sprintf("\x1b[31mwith\x1b[0mheld\r\n%d\r\n", n)}}, nil
		})
		require.NoError(t, err)
		assert.Equal(t, 2, r.Runs)
	})
	t.Run("a run that breaks ends it", func(t *testing.T) {
		_, err := runWhole(t.Context(), Job{}, nil, func(context.Context, Job) (Result, error) { return Result{}, ErrUnfinished })
		assert.ErrorIs(t, err, ErrUnfinished)
	})
}

func TestText(t *testing.T) {
	log := "\x1b_bk;t=1700000000000\x07~~~ Group\r\n\x1b_bk;t=1700000000001\x07\x1b[90m$\x1b[0m echo \x1b[1;32mhi\x1b[m\x1b[K\r\n"
	assert.Equal(t, "~~~ Group\n$ echo hi\n", Record{Log: log}.Text())
}

func TestWatch(t *testing.T) {
	if runtime.GOOS != "linux" {
		need.Skip(t, "needs /proc")
	}
	a := newAgent(t)
	a.Watch = true
	r, err := a.RunWhole(t.Context(), Job{
		Command: `CANARY_ENV=canary-in-env bash -c 'sleep 1; true' canary-in-args; (exec -a first sleep 1); setsid env -i ORPHAN=canary-of-orphan sleep 1`,
	}, nil)
	require.NoError(t, err)
	find := func(what func(Process) bool) (found []Process) {
		for _, p := range r.Processes {
			if what(p) {
				found = append(found, p)
			}
		}
		return found
	}
	inEnv := find(func(p Process) bool { return Contains([]byte(p.Environ), []byte("canary-in-env")) })
	require.NotEmpty(t, inEnv, "the variable of a child")
	assert.True(t, inEnv[0].Job)
	inArgs := find(func(p Process) bool { return strings.Contains(p.Cmdline, "\x00canary-in-args\x00") })
	assert.NotEmpty(t, inArgs, "the arguments of a child")
	orphan := find(func(p Process) bool { return strings.Contains(p.Environ, "ORPHAN=canary-of-orphan") })
	assert.NotEmpty(t, orphan, "a child with an environment and session of its own")
	assert.NotEmpty(t, find(func(p Process) bool {
		return strings.HasPrefix(p.Cmdline, "first\x00") && strings.HasSuffix(p.Exe, "sleep")
	}))
	agent := find(func(p Process) bool { return p.Job && p.Exe == a.Binary })
	assert.NotEmpty(t, agent, "the agent itself")
	others := find(func(p Process) bool { return p.PID == os.Getpid() })
	require.NotEmpty(t, others, "processes that are not the job's: arguments only")
	assert.False(t, others[0].Job)
	assert.Empty(t, others[0].Environ)
}

func TestServerWantsItsTokens(t *testing.T) {
	s, err := NewServer()
	require.NoError(t, err)
	defer s.Close()
	s.Add(Job{})
	for path, token := range map[string]string{"/register": s.access, "/ping": s.Token} {
		r := request(t, s.URL+path, "Token "+token)
		assert.Equal(t, 401, r.StatusCode, path)
	}
	assert.Len(t, s.Requests(), 2)
}

func TestTool(t *testing.T) {
	first, err := Tool(t.Context(), "age", os.Stderr)
	require.NoError(t, err)
	before, err := os.Stat(first)
	require.NoError(t, err)
	var log strings.Builder
	again, err := Tool(t.Context(), "age", &log)
	require.NoError(t, err)
	after, err := os.Stat(again)
	require.NoError(t, err)
	assert.Equal(t, before.ModTime(), after.ModTime(), "built once")
	assert.Empty(t, log.String())

	_, err = Tool(t.Context(), "no-such-tool", io.Discard)
	assert.ErrorContains(t, err, "tests/tools does not have it")
}
