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

	typed chan []byte // from one goroutine for all prompts; nil before the first
	rest  []byte      // typed ahead
	last  byte        // of what was read
}

// openTerminal returns where to ask. typed is false when something is piped in:
// then nobody is asked.
func openTerminal(stdin io.Reader, stderr io.Writer) (t *terminal, typed bool) {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	in, err := os.OpenFile(terminalIn, os.O_RDWR, 0)
	if err != nil { // standard input is a terminal, but not the one that controls us
		return &terminal{in: f, out: stderr}, true
	}
	out, err := os.OpenFile(terminalOut, os.O_RDWR, 0)
	if err != nil {
		return &terminal{in: in, out: stderr}, true
	}
	return &terminal{in: in, out: out}, true
}

var errStopped = refuse("", "stopped at the prompt: nothing was sealed")

// ask reads a line that is shown while it is typed.
func (t *terminal) ask(prompt string) (string, error) {
	l, err := t.read(prompt, true)
	return string(l.text), err
}

// askHidden reads a line and shows nothing of it.
func (t *terminal) askHidden(prompt, name string) (plaintext.Value, error) {
	l, err := t.read(prompt, false)
	defer clear(l.text)
	if err == nil && l.more {
		err = severalLines(l.text, name)
	}
	if err != nil {
		return plaintext.Value{}, err
	}
	return plaintext.New(string(l.text)), nil
}

// pause is how long input must be silent after a hidden line's Enter: what comes
// at once is the rest of something pasted, and must not run as commands of the shell.
const pause = 150 * time.Millisecond

// read reads a line. The terminal's own line mode cuts at 4095 bytes (Linux,
// drivers/tty/n_tty.c), so it is switched off; it is back on when read returns,
// after a signal too.
func (t *terminal) read(prompt string, shown bool) (l line, err error) {
	before, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		return l, fmt.Errorf("the terminal can't hide what is typed: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer func() {
		term.Restore(int(t.in.Fd()), before)
		signal.Stop(stop)
		fmt.Fprintln(t.out)
	}()
	fmt.Fprint(t.out, prompt)
	if t.typed == nil {
		t.typed = make(chan []byte)
		go t.listen()
	}
	var silent <-chan time.Time // nil until Enter
	for {
		for len(t.rest) > 0 && !(shown && l.ended) {
			b, n := t.rest[0], len(l.text)
			t.rest[0], t.rest = 0, t.rest[1:]
			enter := t.last == '\r' && b == '\n' // one Enter, on some consoles
			if t.last = b; enter {
				continue
			}
			gone := l.key(b)
			if shown {
				fmt.Fprint(t.out, string(l.text[min(n, len(l.text)):]), strings.Repeat("\b \b", gone))
			}
		}
		switch {
		case l.stopped:
			return line{}, errStopped
		case l.ended && shown:
			return l, nil
		case l.ended:
			silent = time.After(pause)
		}
		select {
		case <-stop:
			return line{}, errStopped
		case <-silent:
			return l, nil
		case chunk, open := <-t.typed:
			if !open {
				return line{}, errStopped
			}
			t.rest = chunk
		}
	}
}

// listen hands on what is typed. It ends with the program: a read of a terminal
// can't be taken back.
func (t *terminal) listen() {
	defer close(t.typed)
	for {
		b := make([]byte, 4096)
		n, err := t.in.Read(b)
		if n == 0 || err != nil {
			return
		}
		t.typed <- b[:n]
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
// pasted text, are left out, like control characters other than a tab. gone is how
// many letters went.
func (l *line) key(b byte) (gone int) {
	switch escape := l.escape; {
	case escape == escapeKey && (b == '[' || b == 'O'):
		l.escape = b
		return 0
	case (escape == '[' || escape == 'O') && b >= ' ': // up to a letter or ~ (ECMA-48, 5.4)
		if b >= '@' {
			l.escape = 0
		}
		return 0
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
		return min(n, 1)
	case b == ctrlU:
		gone = utf8.RuneCount(l.text)
		l.text = l.text[:0]
	case b < ' ' && b != '\t':
	case l.ended:
		l.more = true
	case len(l.text) <= envelope.MaxValue: // one more than fits, so that it is refused
		l.text = append(l.text, b)
	}
	return gone
}
