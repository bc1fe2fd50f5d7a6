package harden

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary the program that the tests start: its first
// argument says what to do.
func TestMain(m *testing.M) {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "report":
		if err := errors.Join(CleanRuntime(os.Args, os.Environ()), Process()); err != nil {
			panic(err)
		}
		r := report{PID: os.Getpid(), Args: os.Args[1:], Env: os.Environ(), Dumpable: dumpable()}
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &r.Core); err != nil {
			panic(err)
		}
		json.NewEncoder(os.Stdout).Encode(r)
	case "wait hardened":
		if err := Process(); err != nil {
			panic(err)
		}
		fallthrough
	case "wait":
		os.Stdout.WriteString("ready")
		io.Copy(io.Discard, os.Stdin)
	default:
		os.Exit(m.Run())
	}
}

// A report is what the program sees of itself after both calls.
type report struct {
	PID      int
	Args     []string
	Env      []string
	Dumpable bool
	Core     unix.Rlimit
}

func start(t *testing.T, env ...string) report {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "report", "two words", "")
	cmd.Env = env
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(out, &r))
	require.Equal(t, cmd.Process.Pid, r.PID, "still the same process")
	require.Equal(t, []string{"report", "two words", ""}, r.Args)
	return r
}

// TestStart runs the program with each variable of Go's runtime, and with what
// only looks like one.
func TestStart(t *testing.T) {
	kept := []string{"A=b", "EMPTY=", "GOGCX=1", "XGODEBUG=1", "GOFLAGS=-mod=mod", "B=GODEBUG=1"}
	for _, set := range [][]string{
		nil,
		{"GODEBUG=madvdontneed=1"}, {"GODEBUG="}, {"GOTRACEBACK=crash"}, {"GOGC=50"}, {"GOMEMLIMIT=2GiB"}, {"GOMAXPROCS=1"},
		{"GOGC=50", "GOGC=off"},
		{"GODEBUG=http2debug=2", "GOTRACEBACK=crash", "GOGC=off", "GOMEMLIMIT=1GiB", "GOMAXPROCS=3"},
	} {
		r := start(t, append(set, kept...)...)
		assert.Equal(t, kept, r.Env, "of %q", set)
		assert.False(t, r.Dumpable)
		assert.Equal(t, unix.Rlimit{}, r.Core)
	}
}

// TestCleanRuntimeFails: without execve the program must not go on.
func TestCleanRuntimeFails(t *testing.T) {
	require.NoError(t, CleanRuntime([]string{"\x00"}, []string{"A=b"}), "nothing to do")
	err := CleanRuntime([]string{"\x00"}, []string{"GODEBUG=x"})
	require.ErrorIs(t, err, unix.EINVAL)
	require.True(t, strings.HasPrefix(err.Error(), "start again without GODEBUG and its like: "), err)
}

func TestRuntimeVariables(t *testing.T) {
	require.Equal(t, []string{"GODEBUG=a=b", "GOGC="}, RuntimeVariables([]string{"A=GOGC", "GODEBUG=a=b", "GODEBUGX=1", "GOGC="}))
}
