package restserver

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Status answers with a status and headers, "Retry-After: 3".
func Status(code int, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		say(w, code, "a message of the server's")
	}
}

// Body answers 200 with any text. kind is its Content-Type.
func Body(kind, text string) Fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		io.WriteString(w, text)
	}
}

// HTML is what a portal before the network answers.
var HTML = Body("text/html; charset=utf-8", "<!doctype html><title>Sign in</title>")

// Silent says nothing, for as long as the client waits.
func Silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// Slow sends a byte a second, for as long as the client waits.
func Slow(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	for {
		io.WriteString(w, " ")
		http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// HalfClosed ends the server's side of the connection within the answer, and leaves
// the other one open.
func HalfClosed(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"id\":")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	io.Copy(io.Discard, conn)
	conn.Close()
}

// Cut ends the connection without a word.
func Cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Large answers with a JSON text of so many bytes.
func Large(size int) Fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		writeLarge(w, size)
	}
}

// Bomb answers with such a text, packed.
func Bomb(size int) Fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(packed("{"))
		// Packed texts one after the other are one text (RFC 1952, 2.2).
		for left := size - 2; left > 0; left -= len(blank) {
			if left < len(blank) {
				w.Write(packed(blank[:left]))
			} else if _, err := w.Write(packedBlank()); err != nil {
				return
			}
		}
		w.Write(packed("}"))
	}
}

func writeLarge(w io.Writer, size int) {
	io.WriteString(w, "{")
	for left := size - 2; left > 0; left -= len(blank) {
		if _, err := io.WriteString(w, blank[:min(left, len(blank))]); err != nil {
			return
		}
	}
	io.WriteString(w, "}")
}

var (
	blank       = strings.Repeat(" ", 1<<20)
	packedBlank = sync.OnceValue(func() []byte { return packed(blank) })
)

func packed(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, text)
	z.Close()
	return b.Bytes()
}

// LargeHeader answers with headers of so many bytes.
func LargeHeader(size int) Fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", size))
		say(w, http.StatusOK, "")
	}
}

// Redirect points to another URL. In it %s is the path and query that were asked for.
func Redirect(code int, location string) Fault {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(location, "%s") {
			location = fmt.Sprintf(location, r.URL.RequestURI())
		}
		w.Header().Set("Location", location)
		w.WriteHeader(code)
	}
}
