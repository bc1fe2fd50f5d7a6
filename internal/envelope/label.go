package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// MaxLabel is the largest label, in bytes.
const MaxLabel = 4 << 10

// MaxRecipients is the largest number of recipients of one envelope, and so of
// stanzas that wrap its file key.
const MaxRecipients = 32

// ErrLabel says that a label is not in canonical form, or contradicts itself.
var ErrLabel = errors.New("its label is not valid")

// A Type says what becomes of a value.
type Type string

// The types of format version 1.
const (
	TypeValue          Type = ""                // a variable holds the value
	TypeFile           Type = "file"            // a private file holds it, the variable its path
	TypeGitCredentials Type = "git-credentials" // the agent's own checkout uses it
	TypeSSHKey         Type = "ssh-key"         // likewise
	TypeBundle         Type = "bundle"          // one JSON object of names and strings
)

// A Label says what an envelope holds and who may open it. It stands in the age
// header: anyone can read it, nobody who can't open the envelope can change it,
// and it counts only after the envelope was opened to its end.
//
// Lists are sorted and without repetition; Marshal makes them so.
type Label struct {
	Name  string   // the variable that SECRET_<Name> sets
	To    []string // fingerprint of each recipient; advice, see Fingerprint
	Repos []repo.Name
	// Pipelines are slugs, organization/pipeline.
	Pipelines []string
	// Any opens everywhere, where the operator allows it. Exactly one of Any and
	// (Repos or Pipelines) is there.
	Any           bool
	Branches      []string // globs, see Match; none: see docs/format.md, section 4
	Tags          []string // globs
	NoPullRequest bool     // withheld in every build of a pull request
	Expires       time.Time
	Type          Type
	Names         []string // the variables of a bundle
}

// Marshal returns the one canonical form of l: its lists sorted, and the same
// for two labels that mean the same. The error wraps ErrLabel.
func (l Label) Marshal() ([]byte, error) {
	var b bytes.Buffer
	line := func(key, value string) {
		if value != "" {
			b.WriteString(key + ": " + value + "\n")
		}
	}
	lines := func(key string, values []string) {
		for _, v := range sortedSet(values) {
			line(key, v)
		}
	}
	line("name", l.Name)
	lines("to", l.To)
	lines("repo", repoNames(l.Repos))
	lines("pipeline", l.Pipelines)
	if l.Any {
		line("scope", "any")
	}
	lines("branch", l.Branches)
	lines("tag", l.Tags)
	if l.NoPullRequest {
		line("pull-requests", "no")
	}
	if !l.Expires.IsZero() {
		line("expires", l.Expires.UTC().Format(time.RFC3339))
	}
	line("type", string(l.Type))
	line("names", strings.Join(sortedSet(l.Names), ","))
	if err := l.check(); err != nil {
		return nil, err
	}
	if b.Len() > MaxLabel {
		return nil, fmt.Errorf("%w: it is larger than 4 KiB", ErrLabel)
	}
	return b.Bytes(), nil
}

// ParseLabel reads a label in its canonical form and no other:
// Marshal(ParseLabel(b)) == b. The error wraps ErrLabel.
func ParseLabel(b []byte) (Label, error) {
	if len(b) > MaxLabel {
		return Label{}, fmt.Errorf("%w: it is larger than 4 KiB", ErrLabel)
	}
	var l Label
	rest := string(b)
	for n := 1; rest != ""; n++ {
		line, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return Label{}, fmt.Errorf("%w: its last line does not end", ErrLabel)
		}
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			return Label{}, fmt.Errorf("%w: line %d is not a key, a colon, a blank and a value", ErrLabel, n)
		}
		if err := l.set(key, value); err != nil {
			return Label{}, fmt.Errorf("line %d: %w", n, err)
		}
		rest = after
	}
	canonical, err := l.Marshal()
	if err != nil {
		return Label{}, err
	}
	if !bytes.Equal(canonical, b) {
		return Label{}, fmt.Errorf("%w: it is not in canonical form (order, repetition or spelling)", ErrLabel)
	}
	return l, nil
}

// set takes one line over. That a key comes once, in its place, is left to the
// comparison with the canonical form.
func (l *Label) set(key, value string) error {
	switch key {
	case "name":
		l.Name = value
	case "to":
		l.To = append(l.To, value)
	case "repo":
		name, err := repo.Parse(value)
		if err != nil {
			return fmt.Errorf("%w: repo: %w", ErrLabel, err)
		}
		l.Repos = append(l.Repos, name)
	case "pipeline":
		l.Pipelines = append(l.Pipelines, value)
	case "scope":
		if value != "any" {
			return fmt.Errorf("%w: a scope other than any", ErrLabel)
		}
		l.Any = true
	case "branch":
		l.Branches = append(l.Branches, value)
	case "tag":
		l.Tags = append(l.Tags, value)
	case "pull-requests":
		if value != "no" {
			return fmt.Errorf("%w: pull-requests other than no", ErrLabel)
		}
		l.NoPullRequest = true
	case "expires":
		t, err := time.Parse("2006-01-02T15:04:05Z", value)
		if err != nil || t.IsZero() {
			return fmt.Errorf("%w: expires is not a time such as 2027-06-30T00:00:00Z", ErrLabel)
		}
		l.Expires = t
	case "type":
		l.Type = Type(value)
	case "names":
		l.Names = strings.Split(value, ",")
	default:
		return fmt.Errorf("%w: it holds a key that this version does not know", ErrLabel)
	}
	return nil
}

// check says why l could not be sealed. What a label may say is the same when
// it is sealed and when it is opened.
func (l Label) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrLabel}, args...)...)
	}
	if err := names.Check(l.Name); err != nil {
		return bad("name: %w", err)
	}
	if len(l.To) == 0 || len(l.To) > MaxRecipients {
		return bad("it names no recipient, or more than %d", MaxRecipients)
	}
	for _, to := range l.To {
		if len(to) != 16 || strings.Trim(to, "0123456789abcdef") != "" {
			return bad("to is not a fingerprint of 16 hex digits")
		}
	}
	switch scoped := len(l.Repos)+len(l.Pipelines) > 0; {
	case l.Any && scoped:
		return bad("scope any stands beside a repository or pipeline")
	case !l.Any && !scoped:
		return bad("it names no repository, no pipeline and not scope any")
	}
	for _, name := range l.Repos {
		if name.IsZero() {
			return bad("a repository without a name")
		}
	}
	for _, p := range l.Pipelines {
		if !names.IsPipeline(p) {
			return bad("pipeline is not organization/pipeline, both as slugs")
		}
	}
	for _, glob := range slices.Concat(l.Branches, l.Tags) {
		if glob == "" || strings.TrimSpace(glob) != glob || !printable(glob) {
			return bad("a branch or tag pattern is empty, holds more than printable ASCII, or begins or ends with a blank")
		}
	}
	if !l.Expires.IsZero() && (l.Expires.Nanosecond() != 0 || l.Expires.UTC().Year() < 2000 || l.Expires.UTC().Year() > 9999) {
		return bad("expires is not a whole second between the years 2000 and 9999")
	}
	switch l.Type {
	case TypeValue, TypeFile, TypeGitCredentials, TypeSSHKey, TypeBundle:
	default:
		return bad("it holds a type that this version does not know")
	}
	if (l.Type == TypeBundle) != (len(l.Names) > 0) {
		return bad("names go with the type bundle, and it with them")
	}
	for _, name := range l.Names {
		if err := names.Check(name); err != nil {
			return bad("names: %w", err)
		}
	}
	return nil
}

// CarriedBy tells whether a variable may carry this envelope: SECRET_<Name>, or
// SECRET_<Name>_SEALED for agents that refuse to upload names such as *_TOKEN.
func (l Label) CarriedBy(variable string) bool {
	return variable == names.Prefix+l.Name || variable == names.Prefix+l.Name+names.SealedSuffix
}

// Match tells whether s matches a branch or tag pattern: * stands for any run
// of bytes, slashes too, ? for one byte, anything else for itself.
func Match(glob, s string) bool {
	// Greedy, with one point to come back to: linear but for the last star.
	star, mark := -1, 0
	g, i := 0, 0
	for i < len(s) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, mark = g, i
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == s[i]):
			g, i = g+1, i+1
		case star >= 0:
			mark++
			g, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], "*") == ""
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

func repoNames(repos []repo.Name) []string {
	names := make([]string, len(repos))
	for i, r := range repos {
		names[i] = r.String()
	}
	return names
}

func sortedSet(values []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(values)))
}
