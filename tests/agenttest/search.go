//go:build unix

package agenttest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A Hit is a needle that Search found.
type Hit struct {
	Path   string // of the file, from the root that was searched
	Offset int    // of the first byte in the file; -1 where the name or a link's target holds it
	Needle int    // which of the needles, from 0
}

// Search looks for needles below the directory root: in the content of each
// regular file, in each name and in the target of each symbolic link, in the forms
// that Contains knows. Of one needle a file gives one hit. A file that goes away
// meanwhile is no error; one that can't be read is.
func Search(root string, needles ...[]byte) ([]Hit, error) {
	if _, err := os.Stat(root); err != nil {
		return nil, err
	}
	var hits []Hit
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name := d.Name()
		var content []byte
		switch {
		case path == root && d.IsDir():
			return nil // the root's own name is the caller's
		case d.Type().IsRegular():
			content, err = os.ReadFile(path)
		case d.Type()&fs.ModeSymlink != 0:
			var target string
			target, err = os.Readlink(path)
			name += "\n" + target
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for i, needle := range needles {
			if offset, found := find(content, needle); found {
				hits = append(hits, Hit{rel, offset, i})
			} else if _, found := find([]byte(name), needle); found {
				hits = append(hits, Hit{rel, -1, i})
			}
		}
		return nil
	})
	return hits, err
}

// Contains says whether data holds needle: as it is, with other line ends (a log
// has \r\n, or more of \r), or, from 8 bytes on, inside base64 or base64url at any
// alignment, also when that is broken into lines. Nothing else: not hex, not
// compressed. An empty needle is in everything.
func Contains(data, needle []byte) bool {
	_, found := find(data, needle)
	return found
}

// find is the offset of a form of needle that data holds.
func find(data, needle []byte) (offset int, found bool) {
	if i := bytes.Index(data, needle); i >= 0 {
		return i, true
	}
	joined, breaks := joinLines(data)
	forms := base64Forms(needle)
	if line, ends := joinLines(needle); len(ends) > 0 && len(line) > 0 {
		forms = append(forms, line)
	}
	for _, form := range forms {
		if i := bytes.Index(joined, form); i >= 0 {
			for _, at := range breaks {
				if at <= i {
					i++
				}
			}
			return i, true
		}
	}
	return 0, false
}

// joinLines is data without line ends, and where in data they stood.
func joinLines(data []byte) (joined []byte, breaks []int) {
	if !bytes.ContainsAny(data, "\r\n") {
		return data, nil
	}
	joined = make([]byte, 0, len(data))
	for i, b := range data {
		if b == '\r' || b == '\n' {
			breaks = append(breaks, i)
		} else {
			joined = append(joined, b)
		}
	}
	return joined, breaks
}

// base64Forms is what needle looks like inside the base64 of a longer text: after
// 0, 1 or 2 bytes of a group of three, without the characters at either end that
// its neighbours have a part in. Short forms would be found by chance.
func base64Forms(needle []byte) [][]byte {
	if len(needle) < 8 {
		return nil
	}
	var forms [][]byte
	for before := range 3 {
		padded := append(make([]byte, before), needle...)
		first := (8*before + 5) / 6
		last := 8 * len(padded) / 6
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			form := []byte(e.EncodeToString(padded))[first:last]
			if !slices.ContainsFunc(forms, func(f []byte) bool { return bytes.Equal(f, form) }) {
				forms = append(forms, form)
			}
		}
	}
	return forms
}
