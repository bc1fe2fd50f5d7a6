package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// A terminal of 80 columns, and what it showed.
type terminal struct {
	*testing.T
	master, slave *os.File

	mu    sync.Mutex
	shown bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	s := &terminal{T: t, master: master, slave: slave}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.shown.Write(b[:n])
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *terminal) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

func (s *terminal) wait(text string) {
	s.Helper()
	require.Eventually(s, func() bool { return strings.Contains(s.text(), text) }, 10*time.Second, time.Millisecond, "%q never came", text)
}

func (s *terminal) mode() unix.Termios {
	mode, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	require.NoError(s, err)
	return *mode
}

// start runs juliagpu on the terminal.
func (s *terminal) start(env []string, args ...string) *exec.Cmd {
	s.Helper()
	program, err := os.Executable()
	require.NoError(s, err)
	cmd := exec.Command(program, args...)
	cmd.Env = append(env, "JULIAGPU_TEST_AS_PROGRAM=1", "NO_COLOR=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.slave, s.slave, s.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	require.NoError(s, cmd.Start())
	s.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}

// visible is what is left to see in the terminal's last lines: each line as it is
// after what erased it.
func visible(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if i := strings.LastIndex(line, "\r\x1b[K"); i >= 0 {
			line = line[i+len("\r\x1b[K"):]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// TestAuditOnATerminal: a person types the token unseen, sees how far it is, stops it,
// and goes on later.
func TestAuditOnATerminal(t *testing.T) {
	server, err := restserver.Start(t.TempDir())
	require.NoError(t, err)
	defer server.Close()
	for i := range 150 {
		server.AddPipeline(restserver.Pipeline{Slug: fmt.Sprintf("p-%d", i), Configuration: "steps: [wait]"})
	}
	server.Fail("page=2", 1, restserver.Silent)
	home := t.TempDir()
	require.NoError(t, os.Chmod(home, 0o755))
	args := []string{"audit", "--organization", "juliagpu", "--api", server.URL, "--roots", server.Roots}

	s := newTerminal(t)
	before := s.mode()
	cmd := s.start([]string{"HOME=" + home}, args...)
	s.wait("Buildkite API token: ")
	require.Eventually(t, func() bool { return s.mode().Lflag&unix.ECHO == 0 }, 5*time.Second, time.Millisecond)
	_, err = s.master.WriteString(server.Token + "\n")
	require.NoError(t, err)
	s.wait("\r100 pipelines\x1b[K")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 75, status(cmd.Wait()))
	s.wait("within a day")
	require.NotContains(t, s.text(), server.Token)
	require.Equal(t, "Buildkite API token: \njuliagpu: error: stopped; 100 pipelines were read\n"+
		"juliagpu: hint: the same command goes on from there within a day\n", visible(s.text()))
	require.Equal(t, before, s.mode())

	s = newTerminal(t)
	cmd = s.start([]string{"HOME=" + home, "BUILDKITE_API_TOKEN=" + server.Token}, args...)
	require.Equal(t, 0, status(cmd.Wait()))
	s.wait("pass: ")
	require.Contains(t, visible(s.text()), "juliagpu: going on with what was read on ")
	require.Contains(t, visible(s.text()), "organization juliagpu: 150 pipelines")
	for line := range strings.Lines(visible(s.text())) {
		require.True(t, len(line) <= 81 || strings.HasPrefix(line, "juliagpu: "), "%q", line)
		require.NotContains(t, line, "\x1b")
	}
	require.Len(t, server.Requests(), 3, "the first page once, the second twice")

	// Stopped at the prompt.
	s = newTerminal(t)
	before = s.mode()
	cmd = s.start([]string{"HOME=" + home}, args...)
	s.wait("Buildkite API token: ")
	require.Eventually(t, func() bool { return s.mode().Lflag&unix.ECHO == 0 }, 5*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 75, status(cmd.Wait()))
	require.Equal(t, before, s.mode(), "what is typed next is seen again")
}
