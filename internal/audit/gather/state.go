package gather

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/replace"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// stale is how old a reading can be to go on with: pipelines change.
const stale = 24 * time.Hour

// maxState bounds the file of a reading.
const maxState = 64 << 20

// ErrStale says that a file holds a reading that is of no use any more.
var ErrStale = errors.New("older than a day, or of something else")

// Resume reads what Save has written, for the same server and organization. The
// error wraps fs.ErrNotExist where there is no file, rootfile.ErrUntrusted where
// somebody else could have written it, or ErrStale.
func Resume(path, server, organization string, now time.Time) (*Reading, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f, _, err := rootfile.Open(path, rootfile.Rule{User: os.Getuid(), Private: true})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, err
	}
	var r Reading
	if len(text) > maxState || json.Unmarshal(text, &r) != nil || r.Schema != 1 || r.Server != server || r.Organization != organization ||
		r.Began.After(now) || now.Sub(r.Began) > stale || r.Next < 0 || r.Next > maxPages || r.Done() {
		return nil, ErrStale
	}
	have := map[string]bool{}
	for _, p := range r.Pipelines {
		have[p.Slug] = true
	}
	for _, slug := range r.Stepless {
		if !have[slug] {
			return nil, ErrStale
		}
	}
	return &r, nil
}

// Save writes r to a file, whole or not at all, private, and makes the folder
// where that is missing.
func (r *Reading) Save(path string) (err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return &fs.PathError{Op: "write", Path: path, Err: errors.New("not a regular file")}
	}
	return replace.File(path, text, nil)
}

// Saver returns what saves r, for Read: after each page, and after some single
// pipelines. Without a path nothing is kept.
func (r *Reading) Saver(path string) func() error {
	page, since := r.Next, 0
	return func() error {
		if since++; path == "" || page == r.Next && since < saveEach {
			return nil
		}
		page, since = r.Next, 0
		if err := r.Save(path); err != nil {
			return fmt.Errorf("what was read can't be kept: %w", err)
		}
		return nil
	}
}
