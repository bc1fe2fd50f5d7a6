//go:build !js

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

// A terminal is where a person is asked.
type terminal struct {
	in  *os.File
	out io.Writer
}

// openTerminal returns where to ask. typed is false when something is piped in:
// then nobody is asked.
func openTerminal(stdin io.Reader, stderr io.Writer) (t terminal, typed bool) {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return terminal{}, false
	}
	in, err := os.OpenFile(terminalIn, os.O_RDWR, 0)
	if err != nil { // standard input is a terminal, but not the one that controls us
		return terminal{f, stderr}, true
	}
	out, err := os.OpenFile(terminalOut, os.O_RDWR, 0)
	if err != nil {
		return terminal{in, stderr}, true
	}
	return terminal{in, out}, true
}

// columns is how wide a terminal is to which w writes; what is none has 80.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 80
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width == 0 {
		return 80
	}
	return min(max(width, 30), 80)
}

var errStopped = refuse("", "stopped at the prompt: nothing was sealed")

// ask reads a line that is shown while it is typed.
func (t terminal) ask(prompt string) (string, error) {
	fmt.Fprint(t.out, prompt)
	var line []byte
	for b := make([]byte, 1); len(line) < 4096; { // byte by byte: what follows is not ours
		if n, err := t.in.Read(b); n == 0 || err != nil {
			fmt.Fprintln(t.out)
			return "", errStopped
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	return string(line), nil
}

// pause is how long input must be silent after Enter: what comes at once is the
// rest of something pasted, and must not run as commands of the shell.
const pause = 150 * time.Millisecond

// askHidden reads a line and shows nothing of it. The terminal's own line mode
// cuts at 4095 bytes (Linux, drivers/tty/n_tty.c), so it is switched off; it is
// back on when askHidden returns, after a signal too.
func (t terminal) askHidden(prompt, name string) (plaintext.Value, error) {
	before, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return plaintext.Value{}, fmt.Errorf("the terminal can't hide what is typed: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer func() {
		term.Restore(int(t.in.Fd()), before)
		signal.Stop(stop)
		fmt.Fprintln(t.out)
	}()
	fmt.Fprint(t.out, prompt)

	chunks := make(chan []byte)
	go func() { // it ends with the program
		defer close(chunks)
		for {
			b := make([]byte, 4096)
			n, err := t.in.Read(b)
			if n == 0 || err != nil {
				return
			}
			chunks <- b[:n]
		}
	}()
	var l line
	var silent <-chan time.Time // nil until Enter
	for {
		select {
		case <-stop:
			return plaintext.Value{}, errStopped
		case chunk, open := <-chunks:
			if !open {
				return plaintext.Value{}, errStopped
			}
			for _, b := range chunk {
				l.key(b)
			}
			clear(chunk)
			if l.stopped {
				return plaintext.Value{}, errStopped
			}
			if l.ended {
				silent = time.After(pause)
			}
		case <-silent:
			defer clear(l.text)
			if l.more {
				return plaintext.Value{}, severalLines(l.text, name)
			}
			return plaintext.New(string(l.text)), nil
		}
	}
}

func severalLines(first []byte, name string) error {
	what := "a value of several lines"
	if strings.HasPrefix(string(first), "-----BEGIN") {
		what = "a key in armour, and so of several lines,"
	}
	return refuse("take it from its file: encrypt "+name+" --file FILE", "%s can't be typed: nothing was sealed", what)
}

// A line is what was typed so far, with the few keys that edit it.
type line struct {
	text    []byte
	ended   bool // by Enter
	more    bool // text came after Enter
	stopped bool // by ^C, or ^D on nothing

	escape byte // where in an escape sequence: 0, ESC, or what began its rest
}

// Keys, as a terminal sends them.
const (
	ctrlC, ctrlD, ctrlU, ctrlBackslash = 3, 4, 21, 28
	backspace, escapeKey, rubout       = 8, 27, 127
)

// key takes one byte. Sequences of keys such as arrows, and the marks around
// pasted text, are left out, like control characters other than a tab.
func (l *line) key(b byte) {
	switch escape := l.escape; {
	case escape == escapeKey && (b == '[' || b == 'O'):
		l.escape = b
		return
	case (escape == '[' || escape == 'O') && b >= ' ': // up to a letter or ~ (ECMA-48, 5.4)
		if b >= '@' {
			l.escape = 0
		}
		return
	}
	l.escape = 0
	switch {
	case b == escapeKey:
		l.escape = b
	case b == ctrlC, b == ctrlBackslash, b == ctrlD && len(l.text) == 0 && !l.ended:
		l.stopped = true
	case b == '\r', b == '\n':
		l.ended = true
	case b == backspace, b == rubout:
		_, n := utf8.DecodeLastRune(l.text)
		l.text = l.text[:len(l.text)-n]
	case b == ctrlU:
		l.text = l.text[:0]
	case b < ' ' && b != '\t':
	case l.ended:
		l.more = true
	case len(l.text) <= envelope.MaxValue: // one more than fits, so that it is refused
		l.text = append(l.text, b)
	}
}
