package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit/gather"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit/mapping"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/replace"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/restapi"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// variableToken is what Buildkite's own tools read their API token from.
const variableToken = "BUILDKITE_API_TOKEN"

// An auditor is one run of juliagpu audit.
type auditor struct {
	*program
	stdin  io.Reader
	stderr io.Writer

	organization, config, tokenFile, state, html, mapFile, recipients string
	checkouts, folders                                                []string
	server                                                            restapi.Server
	perMinute                                                         int
	json                                                              bool
}

func (p *program) audit() *cobra.Command {
	a := &auditor{program: p}
	c := &cobra.Command{
		Use:   "audit",
		Short: "what in an organization's pipelines weakens its secrets",
		Long: "Reads the pipelines of an organization from Buildkite's REST API, and the pipeline files of clones, and says what in them weakens secrets: " +
			"forks that are built on claims alone, a map that is wrong or missing, triggers across repositories, sealed values that won't open or open too widely, " +
			"and secrets that are not sealed. It needs no key, changes nothing on Buildkite, and prints no value.\n\n" +
			"The token needs the scope read_pipelines. It comes from --token-file, else from BUILDKITE_API_TOKEN, else it is asked for.\n\n" +
			"Ends with status 1 where a fork or a stranger could use what was found, with 75 where Buildkite could not be asked to the end: " +
			"the same command then goes on where it ended, within a day. docs/operators.md explains each finding.",
		Example: "juliagpu audit --organization juliagpu\tall of its pipelines\n" +
			"juliagpu audit --organization juliagpu --checkouts ~/src --html audit.html\twith the pipeline files in clones, as a page\n" +
			"juliagpu audit --checkouts ~/src\tpipeline files alone, without Buildkite\n" +
			"juliagpu audit --organization juliagpu --write-map config.yml\tlists there what each pipeline builds",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			a.stdin, a.stderr = c.InOrStdin(), c.ErrOrStderr()
			return a.run()
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&a.organization, "organization", "", "its slug, as in buildkite.com/SLUG")
	f.StringArrayVar(&a.checkouts, "checkout", nil, "a clone of a repository; may be repeated")
	f.StringArrayVar(&a.folders, "checkouts", nil, "a folder of clones, as DIR/name or DIR/owner/name; may be repeated")
	f.StringVar(&a.config, "config", "", "judged by this one; default: the file that the hooks read")
	f.StringVar(&a.recipients, "recipients", "", "of the agents, one a line: what is sealed to others is told")
	f.StringVar(&a.tokenFile, "token-file", "", "the API token")
	f.BoolVar(&a.json, "json", false, "for programs")
	f.StringVar(&a.html, "html", "", "writes the report as a page, too")
	f.StringVar(&a.mapFile, "write-map", "", "adds to the configuration's pipelines: what it lacks; - prints the section instead of the report")
	f.StringVar(&a.server.URL, "api", restapi.Default, "another server that speaks the API")
	f.StringVar(&a.server.Roots, "roots", "", "certificates that the server's one must come from")
	f.IntVar(&a.perMinute, "per-minute", 40, "requests, of the 50 that Buildkite allows a user")
	f.StringVar(&a.state, "state", "", "keeps what was read, to go on with; default: in the user's cache")
	for flag, value := range map[string]string{
		"organization": "SLUG", "checkout": "DIR", "checkouts": "DIR", "config": "FILE", "recipients": "FILE", "token-file": "FILE",
		"html": "FILE", "write-map": "FILE", "api": "URL", "roots": "FILE", "per-minute": "N", "state": "FILE",
	} {
		takes(c, flag, value)
	}
	for _, flag := range []string{"organization", "api", "per-minute"} {
		c.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	return c
}

// say writes a line beside the report.
func (a *auditor) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, "juliagpu: "+format+"\n", args...)
}

// outage is a refusal with the status of a machine or network at fault.
func outage(hint, format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), hint, 75}
}

func (a *auditor) run() error {
	if err := a.check(); err != nil {
		return err
	}
	// An interrupt ends the reading, not the program: it still says how to go on.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	facts := audit.Facts{Organization: a.organization, Now: time.Now()}
	var err error
	if facts.Rules, err = a.rules(); err != nil {
		return err
	}
	if facts.Recipients, err = a.known(); err != nil {
		return err
	}
	clones, err := a.clones()
	if err != nil {
		return err
	}
	requests := 0
	if a.organization != "" {
		reading, err := a.read(ctx)
		if err != nil {
			return err
		}
		facts.Pipelines, requests = reading.Pipelines, reading.Requests
	}
	if facts.Checkouts, err = a.readClones(ctx, clones); err != nil {
		return err
	}
	report := audit.Judge(facts)
	report.Requests = requests
	if facts.Recipients != nil {
		report.Notes = append(report.Notes, fmt.Sprintf("held against %d recipients of %s", len(facts.Recipients), filepath.Base(a.recipients)))
	}
	if len(clones) > 0 {
		read := slices.DeleteFunc(clones, func(c gather.Clone) bool { return c.Err != nil })
		report.Notes = append(report.Notes, fmt.Sprintf("clones that were read: %d", len(read)))
	}
	a.status = report.Status()
	return a.deliver(report, facts)
}

// check refuses arguments that make no sense together.
func (a *auditor) check() error {
	switch {
	case a.organization == "" && len(a.checkouts)+len(a.folders) == 0:
		return misused("--organization SLUG asks Buildkite, --checkouts DIR reads clones", "what is to be audited?")
	case a.organization != "" && !names.IsSlug(a.organization):
		return misused("it is the first part of buildkite.com/SLUG", "--organization: not a slug")
	case a.mapFile != "" && a.organization == "":
		return misused("--organization SLUG", "--write-map: what pipelines build is known of an organization alone")
	case a.mapFile == "-" && a.json:
		return misused("--write-map FILE", "--json and --write-map - both print")
	case a.perMinute < 1:
		return misused("40 leaves some of a user's 50 to others", "--per-minute: not a number of requests")
	}
	return nil
}

// rules reads what the operator's configuration says of trust. It is read here to be
// judged by, not obeyed: whoever owns the file.
func (a *auditor) rules() (audit.Rules, error) {
	path := a.config
	if path == "" {
		found, err := settings.FindInstalled()
		switch {
		case errors.Is(err, settings.ErrNone):
			return audit.Rules{}, nil
		case err != nil:
			return audit.Rules{}, misused("--config names one", "%s", err)
		}
		path = found
	}
	text, err := readFile(path, strict.MaxFile+1)
	if err != nil {
		return audit.Rules{}, misused("--config names one that can be read", "%s: %s", escape.Text(path), cause(err))
	}
	s, err := settings.Parse(text)
	var at *strict.Error
	if errors.As(err, &at) {
		at.Path = escape.Text(path)
		return audit.Rules{}, misused(at.Hint(), "%s", at)
	}
	if err != nil {
		return audit.Rules{}, err
	}
	return audit.Rules{Path: path, Rules: s.Rules, ScopeAny: s.ScopeAny, Direct: s.Mode == settings.Direct}, nil
}

// known are the recipients that agents hold.
func (a *auditor) known() (map[string]string, error) {
	if a.recipients == "" {
		return nil, nil
	}
	text, err := readFile(a.recipients, 256<<10)
	if err != nil {
		return nil, misused("one recipient (age1…) a line, then # and its name", "--recipients: %s: %s", escape.Text(a.recipients), cause(err))
	}
	listed, line, err := envelope.ParseRecipients(string(text))
	if err == nil && len(listed) == 0 {
		err = errors.New("it holds no recipient")
	}
	if err != nil {
		return nil, misused("one recipient (age1…) a line, then # and its name", "--recipients: %s:%d: %s", escape.Text(a.recipients), line, err)
	}
	known := map[string]string{}
	for _, r := range listed {
		known[r.Fingerprint()] = r.Name
	}
	return known, nil
}

// clones are the folders to read.
func (a *auditor) clones() (found []gather.Clone, err error) {
	for _, folder := range a.checkouts {
		found = append(found, gather.Clone{Folder: folder})
	}
	for _, folder := range a.folders {
		more, err := gather.Clones(folder)
		if err != nil {
			return nil, misused("a folder that holds clones", "--checkouts: %s: %s", escape.Text(folder), cause(err))
		}
		if len(more) == 0 {
			return nil, misused("DIR/name or DIR/owner/name, each with .git", "--checkouts: %s: there is no clone in it", escape.Text(folder))
		}
		found = append(found, more...)
	}
	return found, nil
}

func (a *auditor) readClones(ctx context.Context, clones []gather.Clone) (all []audit.Checkout, err error) {
	b := a.bar()
	defer b.done()
	for n, clone := range clones {
		if ctx.Err() != nil {
			return nil, outage("", "stopped")
		}
		b.show(n, len(clones), "clones")
		if clone.Err != nil {
			all = append(all, audit.Checkout{Folder: clone.Folder, Texts: []audit.Text{{File: ".", Unread: cause(clone.Err).Error()}}})
			continue
		}
		c, err := gather.Checkout(clone.Folder)
		if err != nil {
			b.done()
			return nil, misused("the folder that holds .git", "--checkout: %s: %s", escape.Text(clone.Folder), cause(err))
		}
		all = append(all, c)
	}
	return all, nil
}

// read reads the organization, or goes on where an earlier run has ended.
func (a *auditor) read(ctx context.Context) (*gather.Reading, error) {
	folder := a.cache()
	state := a.state
	if state == "" && folder != "" {
		sum := sha256.Sum256([]byte(a.server.URL))
		state = filepath.Join(folder, "audit-"+a.organization+"-"+hex.EncodeToString(sum[:4])+".json")
	}
	token, err := a.token(ctx)
	if err != nil {
		return nil, err
	}
	limit := restapi.Limit{PerMinute: a.perMinute, File: filepath.Join(cmp.Or(folder, os.TempDir()), fmt.Sprintf("juliagpu-requests-%d", os.Getuid()))}
	if folder != "" {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, outage("XDG_CACHE_HOME names another folder", "%s: %s", escape.Text(folder), cause(err))
		}
	}
	client, err := restapi.New(a.server, token, limit)
	if err != nil {
		return nil, asked(err)
	}
	reading, err := gather.Resume(state, a.server.URL, a.organization, time.Now())
	switch {
	case err == nil:
		a.say("going on with what was read on %s: %d pipelines; remove %s to begin anew", reading.Began.Local().Format("2006-01-02 15:04"), len(reading.Pipelines), escape.Text(state))
	case state == "", errors.Is(err, fs.ErrNotExist), errors.Is(err, gather.ErrStale):
		reading = gather.New(a.server.URL, a.organization, time.Now())
	default:
		return nil, outage("remove it, or name another with --state", "%s: %s", escape.Text(state), err)
	}

	b := a.bar()
	defer b.done()
	b.show(len(reading.Pipelines), 0, "pipelines")
	save := reading.Saver(state)
	told, single := false, 0
	err = reading.Read(ctx, client, func() error {
		if left := len(reading.Stepless); reading.Next == 0 && left > 0 {
			if single = max(single, left); !told {
				b.done()
				a.say("the list has no steps of %d pipelines: as many requests more, %d a minute", left, a.perMinute)
			}
			told = true
			b.show(single-left, single, "pipelines' steps")
		} else {
			b.show(len(reading.Pipelines), 0, "pipelines")
		}
		return save()
	})
	b.done()
	if err != nil {
		return nil, a.stopped(ctx, reading, state, err)
	}
	if state != "" {
		os.Remove(state) // of no more use; where it can't be removed it is found to be done
	}
	return reading, nil
}

// stopped says why a reading ended early, and how to go on.
func (a *auditor) stopped(ctx context.Context, reading *gather.Reading, state string, why error) error {
	if ctx.Err() != nil {
		why = outage("", "stopped")
	} else {
		why = asked(why)
	}
	var r *refusal
	if !errors.As(why, &r) || r.status != 75 || reading.Requests == 0 {
		return why
	}
	r.text += fmt.Sprintf("; %d pipelines were read", len(reading.Pipelines))
	if state == "" || reading.Save(state) != nil {
		return r
	}
	hint := "the same command goes on from there within a day"
	if r.hint != "" {
		hint = r.hint + "; then " + hint
	}
	r.hint = hint
	return r
}

// asked is an error of the API's client: the machine's or network's, or of what was
// asked for.
func asked(err error) error {
	var api *restapi.Error
	switch {
	case errors.As(err, &api) && !api.Outage:
		return misused(api.Hint, "%s", api)
	case errors.As(err, &api):
		return outage(api.Hint, "%s", api)
	case errors.Is(err, audit.ErrNoPipeline):
		return outage("see whether --api is Buildkite's REST API", "%s", err)
	}
	return outage("", "%s", err)
}

// cache is where this program keeps what it may lose; empty: there is no such place.
func (a *auditor) cache() string {
	if dir := a.getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "juliagpu")
	}
	home := a.getenv("HOME")
	switch {
	case !filepath.IsAbs(home):
		return ""
	case runtime.GOOS == "darwin":
		return filepath.Join(home, "Library", "Caches", "juliagpu")
	}
	return filepath.Join(home, ".cache", "juliagpu")
}

// token is from the file, or else the environment, or else the terminal. It is no
// argument: those are for everyone on the machine to read.
func (a *auditor) token(ctx context.Context) (string, error) {
	if a.tokenFile != "" {
		text, err := readFile(a.tokenFile, 4096)
		if err != nil {
			return "", misused("the file that holds the API token, and nothing else", "--token-file: %s: %s", escape.Text(a.tokenFile), cause(err))
		}
		if info, err := os.Stat(a.tokenFile); err == nil && info.Mode().Perm()&0o077 != 0 {
			a.say("warning: %s can be read by others: chmod 600", escape.Text(a.tokenFile))
		}
		return strings.TrimSpace(string(text)), nil
	}
	if token := a.getenv(variableToken); token != "" {
		return token, nil
	}
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", misused("--token-file FILE, or "+variableToken+"; its scope is read_pipelines", "there is no API token, and nobody to ask for one")
	}
	fmt.Fprint(a.stderr, "Buildkite API token: ")
	defer fmt.Fprintln(a.stderr)
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return "", err
	}
	defer term.Restore(int(f.Fd()), before)
	typed := make(chan string, 1)
	go func() {
		text, _ := term.ReadPassword(int(f.Fd()))
		typed <- string(text)
	}()
	select {
	case <-ctx.Done():
		return "", outage("", "stopped")
	case text := <-typed:
		return strings.TrimSpace(text), nil
	}
}

// deliver writes what was asked for.
func (a *auditor) deliver(report audit.Report, facts audit.Facts) error {
	if a.html != "" {
		page, err := report.HTML()
		if err == nil {
			err = replace.File(a.html, page, nil)
		}
		if err != nil {
			return outage("", "--html: %s: %s", escape.Text(a.html), cause(err))
		}
	}
	if a.mapFile != "" {
		entries := a.entries(facts.Pipelines)
		if a.mapFile == "-" {
			if len(entries) == 0 {
				return refuse("", "there is nothing to map")
			}
			return a.print(mapping.Section(entries))
		}
		if err := a.writeMap(entries); err != nil {
			return err
		}
	}
	if a.json {
		text, err := report.JSON()
		if err != nil {
			return err
		}
		return a.print(string(text))
	}
	width, terminal := fit.Columns(a.stdout)
	if !terminal {
		width = 120
	}
	return a.print(report.Text(max(40, min(width, 200)), terminal && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"))
}

// entries are what belongs into the map of pipelines to repositories.
func (a *auditor) entries(pipelines []audit.Pipeline) map[string]repo.Name {
	entries := map[string]repo.Name{}
	for _, p := range pipelines {
		slug := a.organization + "/" + p.Slug
		switch name := p.Repository(); {
		case p.Archived:
		case name.IsZero():
			a.say("warning: %s is left out of the map: its repository's address has no name", escape.Text(slug))
		case !names.IsPipeline(slug):
			a.say("warning: %s is left out of the map: it is no slug", escape.Text(slug))
		default:
			entries[slug] = name
		}
	}
	return entries
}

func (a *auditor) writeMap(entries map[string]repo.Name) error {
	added, err := mapping.Write(a.mapFile, entries)
	var at *strict.Error
	switch {
	case errors.As(err, &at):
		at.Path = escape.Text(a.mapFile)
		return refuse(at.Hint(), "--write-map: %s", at)
	case errors.Is(err, mapping.ErrLayout):
		return refuse("one line a pipeline below pipelines:, without braces; --write-map - prints them", "--write-map: %s: %s", escape.Text(a.mapFile), err)
	case err != nil:
		return refuse("--write-map - prints the section", "--write-map: %s: %s", escape.Text(a.mapFile), cause(err))
	case len(added) == 0:
		a.say("%s has all that there is to map", escape.Text(a.mapFile))
	default:
		a.say("%s: added what %d of %d pipelines build; look at the lines before agents read them", escape.Text(a.mapFile), len(added), len(entries))
	}
	return nil
}

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = errors.New("too large")
	}
	return text, err
}

// A bar shows on a terminal how far something is, in one line that leaves nothing
// behind. Elsewhere it shows nothing.
type bar struct {
	out   io.Writer
	width int // 0: no terminal
	shown bool
}

func (a *auditor) bar() *bar {
	width, terminal := fit.Columns(a.stderr)
	if !terminal || a.getenv("TERM") == "dumb" {
		width = 0
	}
	return &bar{out: a.stderr, width: width}
}

// show draws n of all; 0: nobody knows how many there are.
func (b *bar) show(n, all int, what string) {
	if b.width == 0 {
		return
	}
	text := fmt.Sprintf("%d %s", n, what)
	if all > 0 {
		const cells = 20
		full := cells * n / all
		text = "[" + strings.Repeat("#", full) + strings.Repeat(" ", cells-full) + fmt.Sprintf("] %d of %d %s", n, all, what)
	}
	fmt.Fprint(b.out, "\r"+text[:min(len(text), b.width-1)]+"\x1b[K")
	b.shown = true
}

func (b *bar) done() {
	if b.shown {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
	b.shown = false
}
