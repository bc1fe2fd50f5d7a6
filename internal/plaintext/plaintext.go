// Package plaintext holds a decrypted secret so that no log can print it.
package plaintext

import (
	"fmt"
	"io"
)

// A Value is one decrypted secret. fmt, slog and encoding/json show "[secret]".
// The zero Value is the empty text.
//
// The list of packages that import this one is the list of places that can see
// a secret; a test in tests/ names it.
type Value struct {
	// A pointer: inside another struct's unexported field fmt skips Format and
	// prints a string in full.
	text *string
}

const shown = "[secret]"

// New wraps a secret.
func New(text string) Value { return Value{&text} }

// Reveal returns the secret. Each call is a door through which a secret leaves;
// search for it to see them all.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// Format shows a fixed word for every verb.
func (Value) Format(f fmt.State, _ rune) { io.WriteString(f, shown) }

// MarshalText shows a fixed word to encoding/json, slog and others.
func (Value) MarshalText() ([]byte, error) { return []byte(shown), nil }
