// Package reseal seals the values of pipeline files again, each in its place.
//
// It keeps no state: whether a value has to be sealed again is seen in the value, so
// that a run that was stopped is finished by the same run. A plaintext goes from the
// one envelope to the other, and nowhere else.
package reseal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"filippo.io/age"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope/openssl"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// A File is a pipeline file.
type File struct {
	Path   string // as it is shown
	Folder string // its checkout, or the folder that it is in: nothing is written outside
	Name   string // its path there, without links
	Text   []byte
	Unread error     // why there is no text; nil: there is
	Repo   repo.Name // Migrate: who may open its values; zero: nobody said, see Why
	Why    error     // Migrate: why nobody did
}

// A Result is what became of a value.
type Result string

// The results. Ignored is for what is no business of the way.
const (
	Ignored  Result = ""
	Resealed Result = "resealed"
	Already  Result = "already" // sealed for these recipients before
	Older    Result = "older"   // in an older form, which Migrate is for
	Failed   Result = "failed"  // as it was, and that is not right
)

// A Fate is a result with its reason, and what a person can do, where there is
// something to say.
type Fate struct {
	Result Result
	Reason string
	Hint   string
}

func failed(hint, format string, a ...any) (string, Fate) {
	return "", Fate{Failed, fmt.Sprintf(format, a...), hint}
}

// A Way judges one text of a file, and returns the one that takes its place where the
// result is Resealed. It is called from several goroutines.
type Way func(f *File, s pipeline.Scalar) (text string, fate Fate)

// Rotate seals again what the identities open, for other recipients, with the same
// label. What is sealed for exactly those already stays.
//
// A stanza does not say for whom it is, so two things are asked of a value that is to
// stay: its label names these recipients, with a stanza each; and none of the
// identities opens it that is not one of theirs. Where none opens it at all, the label
// alone says so, and a reason is given.
func Rotate(identities []identity.Identity, to []envelope.Recipient) Way {
	var want []string
	for _, r := range to {
		want = append(want, r.Fingerprint())
	}
	slices.Sort(want)
	want = slices.Compact(want)
	stays := func(i identity.Identity) bool { return slices.Contains(want, i.Fingerprint) }
	// First those that are to open it no longer.
	var keys []age.Identity
	for _, i := range identities {
		if !stays(i) {
			keys = append(keys, i.Age)
		}
	}
	leaving := len(keys)
	for _, i := range identities {
		if stays(i) {
			keys = append(keys, i.Age)
		}
	}
	const lost = "see in the file's history who changed it, and seal the value anew with encrypt"

	return func(_ *File, s pipeline.Scalar) (string, Fate) {
		switch envelope.FormOf(s.Text) {
		case envelope.FormEmpty, envelope.FormOther:
			return "", Fate{}
		case envelope.FormRSA, envelope.FormRSAHybrid:
			return "", Fate{Older, "in the older RSA form", "juliagpu secrets migrate is for it"}
		}
		claim, err := envelope.Peek(s.Text)
		if err != nil {
			return failed(lost, "%s", err)
		}
		claimed := claim.Labelled && slices.Equal(claim.Label.To, want) && len(claim.Stanzas) == len(want)
		opened, err := envelope.Open(s.Text, keys...)
		switch {
		case errors.Is(err, envelope.ErrForeign) && claimed:
			return "", Fate{Already, "by its label: none of the identities opens it", ""}
		case errors.Is(err, envelope.ErrForeign):
			return failed("name the identity, too: --identity may be repeated", "%s, and none of the identities opens it", err)
		case err != nil:
			return failed(lost, "%s", err)
		case !opened.Labelled:
			return failed("seal the value with encrypt", "an age file without a label, so nobody knows for which repository it is")
		case claimed && opened.Identity >= leaving:
			return "", Fate{Result: Already}
		}
		return seal(opened.Label, opened, to)
	}
}

// Migrate seals values of the older forms for the repository of their file, and as
// what the name of their variable says, for neither is in them. all are the files of
// the run: a value that stands in those of two repositories is given to neither, since
// whoever copies another's would get it.
func Migrate(key *openssl.Key, to []envelope.Recipient, all []File) Way {
	owners := map[string][]repo.Name{} // by RSA block
	owns := func(n repo.Name, blocks ...string) {
		for _, block := range blocks {
			if !slices.Contains(owners[block], n) {
				owners[block] = append(owners[block], n)
			}
		}
	}
	for _, f := range all {
		owns(f.Repo, blocks(f.Text)...)
		// Escapes can hide one.
		found, _ := pipeline.Scalars(f.Text)
		for _, s := range found {
			owns(f.Repo, blocks([]byte(s.Text))...)
		}
	}
	return func(f *File, s pipeline.Scalar) (string, Fate) {
		carriers := s.Names()
		name := strings.TrimPrefix(carriers[0], names.Prefix)
		switch err := names.Check(name); {
		case !older(s.Text):
			return "", Fate{}
		case slices.ContainsFunc(s.Entries, func(e pipeline.Sealed) bool { return e.Triggered }):
			return failed("seal it with encrypt for that repository", "it goes to the build that a step triggers, which may be of another repository")
		case len(carriers) > 1:
			return failed("write it out for each of them", "%s share it, and a sealed value has one name", escaped(carriers))
		case err != nil:
			return failed("rename the variable", "%s", err)
		case f.Repo.IsZero():
			return failed("--scope github.com/owner/name says it", "for which repository? %s", f.Why)
		}
		for _, block := range blocks([]byte(s.Text)) {
			if of := owners[block]; len(of) > 1 {
				return failed("take it out of the one that should not have it; where both should, migrate one checkout at a time",
					"the same value stands in files of %s and %s, and either could be a copy", nameOf(of[0]), nameOf(of[1]))
			}
		}
		value, err := key.Open(s.Text)
		if err != nil {
			return failed("try the key that the older tool had when it was sealed, or seal the value anew with encrypt", "%s", err)
		}
		return seal(envelope.Label{Name: name, Repos: []repo.Name{f.Repo}}, envelope.Opened{Value: value}, to)
	}
}

func nameOf(n repo.Name) string {
	if n.IsZero() {
		return "a repository that nobody named"
	}
	return n.String()
}

// blockSize is of an RSA block: the base64 of 256 bytes, two = included.
const blockSize = 344

// blocks are the RSA blocks in a text. One is what tells a value of an older form from
// all others, whatever stands behind it: that of the form of two parts opens by
// itself, too.
func blocks(text []byte) (found []string) {
	const end = "=="
	text = unescaped(text)
	for at := 0; ; {
		next := bytes.Index(text[at:], []byte(end))
		if next < 0 {
			return found
		}
		at += next + len(end)
		if from := at - blockSize; from >= 0 && bytes.IndexFunc(text[from:at-len(end)], func(r rune) bool { return !isLetter(r) }) < 0 {
			found = append(found, string(text[from:at]))
		}
	}
}

// isLetter knows those of base64.
func isLetter(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '+' || r == '/'
}

// unescaped is a text with slashes that some write otherwise in JSON.
func unescaped(text []byte) []byte { return bytes.ReplaceAll(text, []byte(`\/`), []byte("/")) }

// sealedIn counts what looks like a sealed value, or like one of an older form.
func sealedIn(text []byte) (n int) {
	const begins = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx" // the base64 of age-encryption.org/v1
	for run := range bytes.FieldsFuncSeq(unescaped(text), func(r rune) bool { return !isLetter(r) }) {
		if bytes.Contains(run, []byte(begins)) || len(run) == blockSize-len("==") {
			n++
		}
	}
	return n
}

// escaped are names that a file chose, as a message may hold them.
func escaped(all []string) string {
	var texts []string
	for _, name := range all {
		texts = append(texts, escape.Text(name))
	}
	return strings.Join(texts, ", ")
}

func older(text string) bool {
	form := envelope.FormOf(text)
	return form == envelope.FormRSA || form == envelope.FormRSAHybrid
}

// seal seals a value, and reads the label back: the older text is about to go.
func seal(l envelope.Label, from envelope.Opened, to []envelope.Recipient) (string, Fate) {
	text, err := envelope.Seal(l, from.Value, to...)
	if err != nil {
		return failed("seal the value anew with encrypt, which says what is wrong with it", "%s", err)
	}
	read, err := envelope.Peek(text)
	if err != nil {
		return failed("", "what was sealed does not read back: %s", err)
	}
	l.To = read.Label.To
	want, err := l.Marshal()
	got, again := read.Label.Marshal()
	if errors.Join(err, again) != nil || !bytes.Equal(want, got) {
		return failed("", "what was sealed does not read back with its label")
	}
	return text, Fate{Result: Resealed}
}

// A Value is one text of a file, and what became of it.
type Value struct {
	Variables []string
	Line      int
	Steps     []string
	Fate
}

// A Done is what became of a file.
type Done struct {
	Path    string
	Written bool
	Values  []Value
	Outside int   // sealed values that no SECRET_* variable of an env: holds; they stay
	Error   error // of the file as a whole, which is as it was
}

// ErrStopped says that a run ended before it came to a file.
var ErrStopped = errors.New("not looked at: the run was stopped")

// Run goes the way with each file, and replaces those in which something changes,
// each whole or not at all; with dry it writes none. It ends early when ctx does,
// between two files.
func Run(ctx context.Context, files []File, way Way, dry bool) []Done {
	done := make([]Done, len(files))
	each(len(files), func(i int) {
		if ctx.Err() != nil {
			done[i] = Done{Path: files[i].Path, Error: ErrStopped}
			return
		}
		done[i] = one(&files[i], way, dry)
	})
	return done
}

// one goes the way with one file.
func one(f *File, way Way, dry bool) Done {
	d := Done{Path: f.Path, Error: f.Unread}
	if d.Error != nil {
		return d
	}
	found, err := pipeline.Scalars(f.Text)
	if err != nil {
		// Other tools keep YAML there, too, and templates that are none.
		if len(f.Text) > pipeline.MaxFile || bytes.Contains(f.Text, []byte(names.Prefix)) || sealedIn(f.Text) > 0 {
			d.Error = err
		}
		return d
	}
	d.Outside = sealedIn(f.Text)
	for _, s := range found {
		d.Outside -= sealedIn([]byte(s.Text))
	}
	d.Outside = max(0, d.Outside) // escapes can hide one
	texts, fates := make([]string, len(found)), make([]Fate, len(found))
	each(len(found), func(i int) { texts[i], fates[i] = way(f, found[i]) })
	changes := map[int]string{}
	for i, text := range texts {
		if fates[i].Result == Resealed {
			changes[i] = text
		}
	}
	if len(changes) > 0 {
		d.Written, err = write(f, changes, fates, dry)
		for i := range changes {
			if err != nil && fates[i].Result == Resealed {
				_, fates[i] = failed("", "its file could not be written")
			}
		}
		d.Error = err
	}
	for i, s := range found {
		if fates[i].Result != Ignored {
			d.Values = append(d.Values, Value{s.Names(), s.Line, s.Steps(), fates[i]})
		}
	}
	return d
}

// write puts the new texts into the file, and notes which ones do not fit.
func write(f *File, changes map[int]string, fates []Fate, dry bool) (written bool, err error) {
	edited, left, err := pipeline.Rewrite(f.Text, changes)
	if err != nil {
		return false, err
	}
	for i, why := range left {
		var at *pipeline.Error
		errors.As(why, &at)
		_, fates[i] = failed(at.Hint(), "%s", at.Cause)
	}
	if len(left) == len(changes) {
		return false, nil
	}
	folder, err := os.OpenRoot(f.Folder)
	if err != nil {
		return false, cause(err)
	}
	defer folder.Close()
	if dry {
		return false, cause(pipeline.Writable(folder, f.Name))
	}
	if err := pipeline.WriteIn(folder, f.Name, edited, f.Text); err != nil {
		return false, cause(err)
	}
	return true, nil
}

// cause is an error without the path.
func cause(err error) error {
	var at *fs.PathError
	var link *os.LinkError
	switch {
	case errors.Is(err, pipeline.ErrChanged):
		return pipeline.ErrChanged
	case errors.As(err, &at):
		return at.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// each calls do for 0 to n-1, side by side on all processors.
func each(n int, do func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	all.Wait()
}
