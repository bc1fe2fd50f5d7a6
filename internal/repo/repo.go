// Package repo gives each repository one spelling, so that two addresses are
// the same repository when their names are equal. On hosts that are no forge we
// know, that takes one thing for granted: what differs in scheme or user alone is
// the same.
//
// The name is host/path, such as github.com/juliagpu/cuda.jl: no scheme, no
// user, no default port, no ".git". What can't be brought into that form for
// certain is refused, because trust compares these names: a wrong "equal" would
// hand a fork its parent's secrets, a wrong "different" only withholds them.
package repo

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotARepository says that a text is not the address or name of a repository
// on a forge. Local paths are among them.
var ErrNotARepository = errors.New("not the address of a repository on a forge")

// A Name is the one spelling of a repository. The zero Name is no repository.
// Names are compared with ==.
type Name struct{ text string }

// String returns the name as labels and configurations write it.
func (n Name) String() string { return n.text }

// IsZero tells whether n is no repository at all.
func (n Name) IsZero() bool { return n.text == "" }

// A forge is a host whose addresses we know more about than Git does.
type forge struct {
	parts int // how many parts a path has; 0: two or more (groups nest)
}

// forges fold the case of owner and repository: github.com/JuliaGPU/CUDA.jl and
// github.com/juliagpu/cuda.jl are one (their documentation, and tried).
var forges = map[string]forge{
	"github.com":    {parts: 2},
	"gitlab.com":    {},
	"bitbucket.org": {parts: 2},
	"codeberg.org":  {parts: 2},
}

// aliases are further hosts of the same forges: SSH over port 443, and "www".
var aliases = map[string]string{
	"ssh.github.com:443":       "github.com",
	"altssh.gitlab.com:443":    "gitlab.com",
	"altssh.bitbucket.org:443": "bitbucket.org",
	"www.github.com":           "github.com",
}

// schemes of addresses that name a host, and the port each leaves out.
var schemes = map[string]string{
	"https": "443", "http": "80", "git": "9418",
	"ssh": "22", "git+ssh": "22", "ssh+git": "22",
}

// Parse reads a name in its one spelling: Parse(n.String()) == n for every
// Name n. Any other spelling is an error; for an address use FromURL.
func Parse(s string) (Name, error) {
	host, path, ok := strings.Cut(s, "/")
	if !ok {
		return Name{}, fmt.Errorf("%w: a name has a host and a path, as in github.com/owner/repository", ErrNotARepository)
	}
	host, port, _ := strings.Cut(host, ":")
	n, err := build(host, port, path)
	if err != nil {
		return Name{}, err
	}
	if n.text != s {
		return Name{}, fmt.Errorf("%w: its one spelling is %s", ErrNotARepository, n)
	}
	return n, nil
}

// FromURL reads an address that Git accepts: https, http, ssh or git with a
// host, or the short form user@host:path.
func FromURL(s string) (Name, error) {
	if i := strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }); i >= 0 {
		return Name{}, fmt.Errorf("%w: it holds a character that addresses don't have", ErrNotARepository)
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return fromShort(s)
	}
	scheme = strings.ToLower(scheme)
	defaultPort, ok := schemes[scheme]
	if !ok {
		return Name{}, fmt.Errorf("%w: its scheme is none of https, http, ssh, git", ErrNotARepository)
	}
	authority, path, _ := strings.Cut(rest, "/")
	host, err := withoutUser(authority)
	if err != nil {
		return Name{}, err
	}
	host, port, hasPort := strings.Cut(host, ":")
	if hasPort && port == "" || strings.HasPrefix(port, "0") {
		return Name{}, fmt.Errorf("%w: its port is not a number", ErrNotARepository)
	}
	if port == defaultPort {
		port = ""
	}
	return build(host, port, trimPath(path))
}

// fromShort reads [user@]host:path, which Git takes for SSH where no slash
// stands before the colon (git-clone(1), "GIT URLS").
func fromShort(s string) (Name, error) {
	authority, path, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(authority, "/") {
		return Name{}, fmt.Errorf("%w: it looks like a local path", ErrNotARepository)
	}
	if strings.HasPrefix(path, ":") {
		return Name{}, fmt.Errorf("%w: it names a transport helper", ErrNotARepository)
	}
	host, err := withoutUser(authority)
	if err != nil {
		return Name{}, err
	}
	if host == authority && !strings.Contains(host, ".") {
		return Name{}, fmt.Errorf("%w: it looks like a local path", ErrNotARepository) // C:/path, or an SSH alias of one machine
	}
	if first, _, _ := strings.Cut(path, "/"); host == authority && isNumber(first) {
		return Name{}, fmt.Errorf("%w: %s could be a port or an owner; write ssh:// or git@ before it", ErrNotARepository, first)
	}
	return build(host, "", trimPath(strings.TrimPrefix(path, "/")))
}

// withoutUser drops "user@" or "user:password@".
func withoutUser(authority string) (string, error) {
	user, host, ok := strings.Cut(authority, "@")
	if !ok {
		return authority, nil
	}
	// Programs disagree about which of two @ ends the user, and about whether one
	// behind ? or # still does: for git http://a?@b is on the host a.
	if strings.Contains(host, "@") {
		return "", fmt.Errorf("%w: more than one @ before the path", ErrNotARepository)
	}
	if strings.HasPrefix(user, "-") || !only(user, isUserByte) {
		return "", fmt.Errorf("%w: what stands before its @ is no user", ErrNotARepository)
	}
	return host, nil
}

// trimPath drops one trailing slash and one ".git".
func trimPath(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(path, "/"), ".git")
}

// build checks the parts of a name and joins them.
func build(host, port, path string) (Name, error) {
	host = strings.ToLower(host)
	if err := checkHost(host); err != nil {
		return Name{}, err
	}
	if port != "" {
		if !isNumber(port) || port[0] == '0' || len(port) > 5 {
			return Name{}, fmt.Errorf("%w: its port is not a number", ErrNotARepository)
		}
		host += ":" + port
	}
	if main, ok := aliases[host]; ok {
		host = main
	}
	known, folds := forges[host]
	if folds {
		path = strings.ToLower(path)
	}
	parts := strings.Split(path, "/")
	for _, part := range parts {
		if err := checkPart(part); err != nil {
			return Name{}, err
		}
	}
	if strings.HasSuffix(strings.ToLower(path), ".git") {
		return Name{}, fmt.Errorf("%w: its name ends in .git", ErrNotARepository)
	}
	if folds && (known.parts != 0 && len(parts) != known.parts || len(parts) < 2) {
		return Name{}, fmt.Errorf("%w: on %s it has an owner and a name", ErrNotARepository, host)
	}
	return Name{host + "/" + path}, nil
}

// checkHost accepts a lower-case DNS name or IPv4 address. A trailing dot and
// letters outside ASCII are refused: the first is the same host in another
// spelling, the second another host that looks the same.
func checkHost(host string) error {
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !only(label, isHostByte) {
			return fmt.Errorf("%w: its host is not a host's name", ErrNotARepository)
		}
	}
	return nil
}

// checkPart accepts one part of a path. Percent-escapes are refused, whatever
// they stand for: Git and forges disagree about when they are undone.
func checkPart(part string) error {
	switch {
	case part == "":
		return fmt.Errorf("%w: a part of its path is empty", ErrNotARepository)
	case part == "." || part == "..":
		return fmt.Errorf("%w: a part of its path is . or .. alone", ErrNotARepository)
	case part[0] == '-':
		return fmt.Errorf("%w: a part of its path begins with a hyphen", ErrNotARepository)
	case !only(part, isPathByte):
		return fmt.Errorf("%w: its path holds more than letters, digits and ._-+~", ErrNotARepository)
	}
	return nil
}

func isHostByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}

func isPathByte(c byte) bool {
	return isHostByte(c) || 'A' <= c && c <= 'Z' || c == '.' || c == '_' || c == '+' || c == '~'
}

func isUserByte(c byte) bool { return isPathByte(c) || c == ':' || c == '%' }

func isNumber(s string) bool {
	return s != "" && only(s, func(c byte) bool { return '0' <= c && c <= '9' })
}

func only(s string, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}
