package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// talk FILE COMMAND…: runs the command on a terminal of its own and plays FILE:
//
//	? TEXT   wait until the terminal shows TEXT
//	> TEXT   type it, and Enter
//	>> TEXT  type it, read like the inside of a Go string
//	< FILE   paste a file
//	! TERM   send a signal
//	+ FILE   add a line to a file, as somebody else
//
// With TTY_COLUMNS the terminal is that wide, and standard output and standard
// error are it, too. The file "tty" then holds what the terminal showed. The command must leave the
// terminal as it was.
func talk(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: talk FILE COMMAND...")
	}
	master, slave := newTerminal(ts)
	defer master.Close()
	defer slave.Close()
	columns, _ := strconv.Atoi(ts.Getenv("TTY_COLUMNS"))
	if columns > 0 {
		ts.Check(unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}))
	}
	before := lineMode(ts, slave)

	path, err := exec.LookPath(args[1])
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), append(environ(ts), "PWD="+ts.MkAbs("."))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, ts.Stdout(), ts.Stderr()
	if columns > 0 {
		cmd.Stdout, cmd.Stderr = slave, slave
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()

	s := newScreen(master)
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		line = strings.TrimSuffix(line, "\n")
		verb, text, _ := strings.Cut(line, " ")
		switch verb {
		case "?":
			ts.Check(s.wait(text))
		case ">":
			_, err = master.WriteString(text + "\r")
		case ">>":
			var keys string
			_, err = fmt.Sscanf(`"`+text+`"`, "%q", &keys)
			ts.Check(err)
			_, err = master.WriteString(keys)
		case "<":
			_, err = master.WriteString(ts.ReadFile(text))
		case "!":
			err = cmd.Process.Signal(unix.SignalNum("SIG" + text))
		case "+":
			err = os.WriteFile(ts.MkAbs(text), []byte(ts.ReadFile(text)+"# another\n"), 0o600)
		default:
			ts.Fatalf("talk: %q", line)
		}
		ts.Check(err)
	}
	select {
	case err = <-ended:
	case <-time.After(patience):
		ts.Fatalf("still running; the terminal shows %q", s.text())
	}
	if (err != nil) != neg {
		ts.Logf("[stderr]\n%s", ts.ReadFile("stderr"))
		ts.Fatalf("ended with %v; the terminal shows %q", err, s.text())
	}
	if after := lineMode(ts, slave); after != before {
		ts.Fatalf("the terminal is left changed: %+v, was %+v", after, before)
	}
	slave.Close()
	<-s.closed
	ts.Check(os.WriteFile(ts.MkAbs("tty"), []byte(strings.ReplaceAll(s.text(), "\r\n", "\n")), 0o600))
}

// patience is how long a program may take for what takes milliseconds.
const patience = 10 * time.Second

func newTerminal(ts *testscript.TestScript) (master, slave *os.File) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	fd := int(master.Fd())
	ts.Check(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	ts.Check(err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	ts.Check(err)
	return master, slave
}

func lineMode(ts *testscript.TestScript, tty *os.File) unix.Termios {
	mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	ts.Check(err)
	return *mode
}

func environ(ts *testscript.TestScript) (env []string) {
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GIT_CONFIG_NOSYSTEM", "GORACE"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// A screen keeps what a terminal showed.
type screen struct {
	mu     sync.Mutex
	shown  bytes.Buffer
	seen   int // bytes that wait has passed
	more   chan struct{}
	closed chan struct{}
}

func newScreen(master *os.File) *screen {
	s := &screen{more: make(chan struct{}, 1), closed: make(chan struct{})}
	go func() {
		defer close(s.closed)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if n == 0 || err != nil {
				return
			}
			s.mu.Lock()
			s.shown.Write(b[:n])
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

func (s *screen) wait(text string) error {
	deadline := time.After(patience)
	for {
		if i := strings.Index(s.text()[s.seen:], text); i >= 0 {
			s.seen += i + len(text)
			return nil
		}
		select {
		case <-s.more:
		case <-deadline:
			return errors.New("the terminal never showed " + text + ", but " + s.text())
		}
	}
}
