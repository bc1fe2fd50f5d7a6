package tests

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// TestHookWithAKeyIsClosed looks at a hook that holds values and waits for a Job
// API that never answers: it can leave no core file. (That it is not dumpable
// either shows nowhere in /proc while root looks; internal/harden tests that.)
func TestHookWithAKeyIsClosed(t *testing.T) {
	t.Parallel()
	h, to := readyHost(t, direct)
	h.agent.BootstrapScript = agenttest.FaultyJobAPI{Program: built.faulty, Binary: h.agent.Binary, Fault: "never", Received: filepath.Join(h.dir, "..", "received")}.BootstrapScript()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.agent.Run(ctx, agenttest.Job{Env: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", canary("token"), nil)}})
	}()
	closed := regexp.MustCompile(`(?m)^Max core file size +0 +0 `)
	for {
		select {
		case <-ended:
			t.Fatal("the hook ended, and was open all the time")
		default:
		}
		for _, pid := range running(t, filepath.Join(h.lib, "hooks", "environment")) {
			limits, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "limits"))
			if err == nil && closed.Match(limits) {
				cancel()
				<-ended
				return
			}
		}
	}
}

// running returns the processes that were started as program. (Where a closed
// process's own program lies only root may see.)
func running(t *testing.T, program string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if argv0, _, _ := strings.Cut(string(cmdline), "\x00"); err == nil && argv0 == program {
			pids = append(pids, pid)
		}
	}
	return pids
}
