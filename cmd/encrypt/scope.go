package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// label is what the flags alone say of name and scope.
func (o options) label(now time.Time) (envelope.Label, error) {
	l := envelope.Label{
		Name:          o.name,
		Pipelines:     o.pipelines,
		Any:           o.anyRepo,
		Branches:      o.branches,
		Tags:          o.tags,
		NoPullRequest: o.noPullRequests,
		Type:          envelope.Type(o.kind),
	}
	for _, address := range o.repos {
		name, err := parseRepo(address)
		if err != nil {
			return envelope.Label{}, err
		}
		l.Repos = append(l.Repos, name)
	}
	var err error
	if o.expires != "" {
		l.Expires, err = parseExpires(o.expires, now)
	}
	return l, err
}

var (
	ownerAndName = regexp.MustCompile(`^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+$`)
	withHost     = regexp.MustCompile(`^[A-Za-z0-9-]+\.[^/@:]+/`)
)

// parseRepo reads --repo: an address, or a name with its host.
func parseRepo(s string) (repo.Name, error) {
	if ownerAndName.MatchString(s) { // in lower case repo takes the owner for a host
		return repo.Name{}, misused("write github.com/owner/name", "--repo: an owner and a name, but on which forge?")
	}
	if name, err := repo.Parse(s); err == nil {
		return name, nil
	}
	name, err := repo.FromURL(s)
	if err == nil {
		return name, nil
	}
	if withHost.MatchString(s) { // a name in another spelling
		if name, err = repo.FromURL("https://" + s); err == nil {
			return name, nil
		}
	}
	return repo.Name{}, misused("write github.com/owner/name, or what git clone takes", "--repo: %s", err)
}

var duration = regexp.MustCompile(`^([1-9][0-9]{0,3})([dwmy])$`)

// parseExpires reads 90d, 12w, 6m (months) or 1y, the first midnight UTC after
// at least that long; 2027-06-30, that day's 00:00 UTC; or a time as in RFC 3339.
func parseExpires(s string, now time.Time) (time.Time, error) {
	const hint = "write 90d, 12w, 6m (months), 1y or 2027-06-30"
	var t time.Time
	var err error
	if m := duration.FindStringSubmatch(s); m != nil {
		n, _ := strconv.Atoi(m[1])
		switch now = now.UTC(); m[2] {
		case "d":
			t = now.AddDate(0, 0, n)
		case "w":
			t = now.AddDate(0, 0, 7*n)
		case "m":
			t = now.AddDate(0, n, 0)
		case "y":
			t = now.AddDate(n, 0, 0)
		}
		if midnight := t.Truncate(24 * time.Hour); midnight.Before(t) {
			t = midnight.AddDate(0, 0, 1)
		}
	} else if t, err = time.Parse(time.DateOnly, s); err != nil {
		if t, err = time.Parse(time.RFC3339, s); err != nil {
			return time.Time{}, misused(hint, "--expires: not a time")
		}
	}
	t = t.UTC().Truncate(time.Second)
	switch {
	case !t.After(now):
		return time.Time{}, misused(hint, "--expires: %s is past", t.Format(time.RFC3339))
	case t.Year() > 9999:
		return time.Time{}, misused(hint, "--expires: after the year 9999")
	}
	return t, nil
}

// inPipeline is the pipeline file of a repository, under its root.
const inPipeline = ".buildkite/pipeline.yml"

// A checkout is the root folder of a git work tree; "" is none.
type checkout string

// findCheckout walks up from dir to the folder that holds .git, a folder or, in
// worktrees and submodules, a file.
func findCheckout(dir string) checkout {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return checkout(dir)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// remotes asks git, which knows about includes, worktrees and insteadOf.
func (c checkout) remotes(env []string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "-C", string(c), "remote", "-v")
	cmd.Env = env
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("git is not on the PATH")
	}
	if err != nil { // its message may quote a remote, and with it a password
		return nil, errors.New("git remote -v fails here")
	}
	urls := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, rest, _ := strings.Cut(line, "\t")
		if url, _, ok := strings.Cut(rest, " (fetch)"); ok && urls[name] == "" {
			urls[name] = url
		}
	}
	return urls, nil
}

// addRepos adds the checkout's repository where the flags name none, and says
// which remote it is: an author's origin is often their fork.
func (o options) addRepos(l *envelope.Label, here checkout, env []string) (note string, err error) {
	const hint = "name it: --repo github.com/owner/name"
	switch {
	case l.Any || len(l.Repos) > 0:
		return "", nil
	case here == "" && len(l.Pipelines) > 0:
		return " (any repository: this is no checkout, and --repo names none)", nil
	case here == "":
		return "", refuse(hint, "which repository? this is no git checkout")
	}
	urls, err := here.remotes(env)
	if err != nil {
		return "", refuse(hint, "which repository? %s", err)
	}
	remote := "upstream"
	if urls[remote] == "" {
		remote = "origin"
	}
	if urls[remote] == "" {
		return "", refuse(hint, "which repository? this checkout has no remote upstream or origin")
	}
	name, err := remoteName(urls[remote])
	if err != nil { // the address itself may hold a password
		return "", refuse(hint, "remote %s: %s", remote, err)
	}
	l.Repos = []repo.Name{name}
	note = " (remote " + remote
	if origin := urls["origin"]; remote == "upstream" && origin != "" {
		if other, err := remoteName(origin); err != nil {
			note += "; origin is on no forge"
		} else if other != name {
			note += "; origin is " + other.String()
		}
	}
	return note + ")", nil
}

func remoteName(url string) (repo.Name, error) {
	name, err := repo.FromURL(url)
	host, _, _ := strings.Cut(name.String(), "/")
	if err == nil && !strings.Contains(host, ".") { // git@work:…, from one person's ~/.ssh/config
		return repo.Name{}, errors.New("its host is a short name that only this machine knows")
	}
	return name, err
}

// checkLabel refuses a scope that can't be sealed, before anyone types a value.
func checkLabel(l envelope.Label, to []recipient) error {
	if l.Name == "" {
		l.Name = "NAME"
	}
	for _, r := range to {
		l.To = append(l.To, r.Fingerprint())
	}
	if _, err := l.Marshal(); err != nil {
		return misused("--pipeline takes organization/pipeline, --branch and --tag a pattern such as release-*", "%s", err)
	}
	return nil
}

// place says where a secret opens.
func place(l envelope.Label) string {
	if l.Any {
		return "any repository"
	}
	var parts []string
	if len(l.Repos) > 0 {
		parts = append(parts, join(l.Repos))
	}
	if len(l.Pipelines) > 0 {
		parts = append(parts, "pipeline "+strings.Join(l.Pipelines, " or "))
	}
	return strings.Join(parts, ", ")
}

// limits says what else must hold there.
func limits(l envelope.Label) string {
	var refs []string
	for _, glob := range l.Branches {
		refs = append(refs, "branch "+glob)
	}
	for _, glob := range l.Tags {
		refs = append(refs, "tag "+glob)
	}
	s := ""
	if len(refs) > 0 {
		s = ", on " + strings.Join(refs, " or ")
	}
	if l.NoPullRequest || len(refs) > 0 { // no pattern ever matches a pull request
		s += ", not in pull requests"
	}
	if l.Expires.IsZero() {
		return s
	}
	return s + ", until " + day(l.Expires)
}

// day is a time for people: its day alone where it is a midnight of UTC.
func day(t time.Time) string {
	if t = t.UTC(); t.Equal(t.Truncate(24 * time.Hour)) {
		return t.Format(time.DateOnly)
	}
	return t.Format(time.RFC3339)
}
