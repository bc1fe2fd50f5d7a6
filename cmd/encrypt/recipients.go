package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// inCheckout is the recipients' file of a repository, under its root.
const inCheckout = ".buildkite/secrets.recipients"

// A recipient knows who it is said to be, and who said so.
type recipient struct {
	envelope.Recipient
	site string // the comment beside it in its file
	from string
}

// String is the fingerprint, with the site's name where there is one.
func (r recipient) String() string {
	if r.site == "" {
		return r.Fingerprint()
	}
	return r.Fingerprint() + " (" + escape.Text(r.site) + ")"
}

// findRecipients takes those of the command line; without any those of the
// checkout; without that file those of this build.
func findRecipients(o options, here checkout, embedded string) (all []recipient, err error) {
	file := filepath.Join(string(here), filepath.FromSlash(inCheckout))
	switch {
	case len(o.recipients)+len(o.files) > 0:
		all, err = given(o.recipients, o.files)
	case here != "" && exists(file):
		all, err = readRecipients(file, inCheckout)
	default:
		all, err = parseRecipients(embedded, "this build of encrypt")
	}
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, refuse("ask who runs the agents for theirs (age1…); then -r, or a line in "+inCheckout, "no recipient to seal to")
	}
	return oneKind(all)
}

// oneKind refuses what age does not mix, and drops what is there twice.
func oneKind(all []recipient) ([]recipient, error) {
	// Twice the same, or one text with two names: the first counts.
	var once []recipient
	for _, r := range all {
		if r.PostQuantum() != all[0].PostQuantum() {
			return nil, refuse("take one kind: an operator who goes post-quantum has all secrets sealed again",
				"age does not mix X25519 (age1…) with post-quantum (age1pq1…) recipients: %s, %s", all[0], r)
		}
		if !slices.ContainsFunc(once, func(e recipient) bool { return e.Fingerprint() == r.Fingerprint() }) {
			once = append(once, r)
		}
	}
	return once, nil
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

// given are the recipients of the command line.
func given(texts, files []string) (all []recipient, err error) {
	for _, text := range texts {
		r, err := envelope.ParseRecipient(text)
		if err != nil {
			return nil, refuse("-R reads recipients from a file", "-r: %s", err)
		}
		all = append(all, recipient{r, "", "the command line"})
	}
	for _, file := range files {
		more, err := readRecipients(file, file)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// readRecipients reads a recipients' file, which must hold one at least; shown is
// its name for people.
func readRecipients(file, shown string) ([]recipient, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, refuse("-r takes a recipient itself, -R a file of them", "recipients' file: %s", cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecipients+1))
	switch {
	case err != nil:
		return nil, refuse("", "%s: %s", escape.Text(shown), cause(err))
	case len(b) > maxRecipients:
		return nil, refuse("one recipient a line", "%s: larger than any recipients' file", escape.Text(shown))
	}
	all, err := parseRecipients(string(b), shown)
	if err == nil && len(all) == 0 {
		return nil, refuse("one recipient (age1…) a line", "%s: it holds no recipient", escape.Text(shown))
	}
	return all, err
}

// maxRecipients is enough for every recipient of an envelope, post-quantum and
// with a comment (about 2 KiB a line).
const maxRecipients = 256 << 10

// parseRecipients reads one recipient a line, each with its name behind a #.
func parseRecipients(text, from string) (all []recipient, err error) {
	listed, line, err := envelope.ParseRecipients(text)
	if err != nil {
		return nil, refuse("one recipient (age1…) a line, then # and its name", "%s:%d: %s", escape.Text(from), line, err)
	}
	for _, r := range listed {
		all = append(all, recipient{r.Recipient, r.Name, escape.Text(from)})
	}
	return all, nil
}
