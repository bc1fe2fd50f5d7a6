//go:build !js

package fit

import (
	"io"
	"os"

	"golang.org/x/term"
)

// narrowest is the smallest width that Columns returns: what calls itself
// narrower mostly does not know its size.
const narrowest = 30

// Columns is how wide the terminal is to which w writes, and false where that is none.
func Columns(w io.Writer) (int, bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width == 0 {
		return 0, false
	}
	return max(width, narrowest), true
}

// Help is the width of an explanation: that of the terminal to which w writes,
// but at most 80 columns, beyond which prose is hard to read.
func Help(w io.Writer) int {
	width, ok := Columns(w)
	if !ok {
		return 80
	}
	return min(width, 80)
}
