package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit/gather"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope/openssl"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/reseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

func (p *program) secrets() *cobra.Command {
	return group(&cobra.Command{
		Use:   "secrets",
		Short: "sealed values in pipeline files",
		Long:  "Seals the values of pipeline files again, in place.",
	}, p.rotate(), p.migrate())
}

// A resealer is one run of juliagpu secrets rotate or migrate.
type resealer struct {
	*program
	identities, recipients, files []string
	key, scope                    string
	dry, json                     bool
}

// common are a command's flags that both have.
func (r *resealer) common(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVarP(&r.recipients, "recipient", "r", nil, "who is to open them from now on; may be repeated")
	f.StringArrayVarP(&r.files, "recipients-file", "R", nil, "one recipient a line; may be repeated")
	f.BoolVar(&r.dry, "dry-run", false, "says what would be done, and writes nothing")
	f.BoolVar(&r.json, "json", false, "for programs")
	takes(c, "recipient", "AGE1…")
	takes(c, "recipients-file", "FILE")
	c.RegisterFlagCompletionFunc("recipient", cobra.NoFileCompletions)
}

const placesHelp = "A PATH is a pipeline file, a checkout, or a folder of checkouts; without any it is the checkout here. Of a checkout the files are read that juliagpu audit reads."

func (p *program) rotate() *cobra.Command {
	r := &resealer{program: p}
	c := &cobra.Command{
		Use:   "rotate [PATH...]",
		Short: "seals values again for other recipients, in place",
		Long: "Opens every sealed value of pipeline files, and seals it again for the given recipients, with the same name, scope, expiry and type. " +
			"Nothing else in a file changes, and each is replaced whole or not at all.\n\n" + placesHelp + "\n\n" +
			"What is sealed for exactly those recipients stays, so a run that was stopped is finished by the same command. " +
			"What does not open stays, too, and is named.\n\n" +
			"Ends with status 1 where a value or a file failed, with 75 where it was stopped, else with 0. " +
			"It does not undo a leak: the older values stay in the history of the repository.",
		Example: "juliagpu secrets rotate --identity old.key -r age1… --dry-run\twhat would be done in this checkout\n" +
			"juliagpu secrets rotate --identity old.key -r age1…\tdoes it\n" +
			"juliagpu secrets rotate --identity old.key -R recipients ~/src\tall checkouts in a folder",
		RunE: r.hardened(r.rotate),
	}
	c.Flags().SortFlags = false
	c.Flags().StringArrayVarP(&r.identities, "identity", "i", nil, "opens the values; 0600; may be repeated")
	takes(c, "identity", "FILE")
	r.common(c)
	return c
}

func (p *program) migrate() *cobra.Command {
	r := &resealer{program: p}
	c := &cobra.Command{
		Use:   "migrate [PATH...]",
		Short: "seals values of the older RSA forms anew, in place",
		Long: "Opens every value of the older RSA forms in pipeline files, and seals it for the given recipients: as NAME where SECRET_NAME holds it, for the repository of its checkout. " +
			"Sealed values stay as they are. Nothing else in a file changes, and each is replaced whole or not at all.\n\n" + placesHelp + "\n\n" +
			"The older forms name no repository: whoever put a value into a file gets it for that file's repository. Look at --dry-run first. " +
			"The repository is that of the remote origin, as long as no upstream names another; --scope says it for one checkout.\n\n" +
			"A run that was stopped is finished by the same command. " +
			"Ends with status 1 where a value or a file failed, with 75 where it was stopped, else with 0.",
		Example: "juliagpu secrets migrate --key secrets.private.key -r age1… --dry-run\twhat would be done in this checkout\n" +
			"juliagpu secrets migrate --key secrets.private.key -R recipients ~/src\tall checkouts in a folder",
		RunE: r.hardened(r.migrate),
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&r.key, "key", "", "the older tool's, in PEM; 0600")
	c.Flags().StringVar(&r.scope, "scope", "", "the repository that may open them, as github.com/OWNER/REPO")
	takes(c, "key", "FILE")
	takes(c, "scope", "NAME")
	c.RegisterFlagCompletionFunc("scope", cobra.NoFileCompletions)
	r.common(c)
	return c
}

// hardened closes the process to its neighbours before a command reads a key.
func (r *resealer) hardened(do func(paths []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, paths []string) error {
		if err := harden.Process(); err != nil {
			return lacking("", "%s", err)
		}
		return do(paths)
	}
}

func (r *resealer) rotate(paths []string) error {
	if len(r.identities) == 0 {
		return misused("--identity FILE, the one that opens the values today", "what opens the values? --identity is missing")
	}
	to, shown, err := r.to()
	if err != nil {
		return err
	}
	var files []settings.IdentityFile
	for _, file := range r.identities {
		path, err := private("--identity", file)
		if err != nil {
			return err
		}
		files = append(files, settings.IdentityFile{Path: path})
	}
	identities, err := identity.Load(files, os.Getuid())
	if err != nil {
		return misused(hintOf(err), "%s", err)
	}
	found, err := collect(paths)
	if err != nil {
		return err
	}
	return r.run("rotate", shown, found, reseal.Rotate(identities, to))
}

func (r *resealer) migrate(paths []string) error {
	if r.key == "" {
		return misused("--key FILE, the older tool's secrets.private.key", "what opens the values? --key is missing")
	}
	to, shown, err := r.to()
	if err != nil {
		return err
	}
	path, err := private("--key", r.key)
	if err != nil {
		return err
	}
	const most = 16 << 10 // bytes, of a file of 2
	text, err := credential.File{Kind: "RSA key", Path: path}.Read(os.Getuid(), most)
	if err != nil {
		return misused(hintOf(err), "%s", err)
	}
	key, err := openssl.ParseKey(text)
	if err != nil {
		return misused("", "RSA key %s: %s", escape.Text(path), err)
	}
	found, err := collect(paths)
	if err != nil {
		return err
	}
	if err := found.scope(r.scope); err != nil {
		return err
	}
	return r.run("migrate", shown, found, reseal.Migrate(key, to, found.files))
}

// private is a path of a key for those who check its owner.
func private(flag, file string) (string, error) {
	if file == "-" {
		return "", misused("a private file (0600)", "%s: no key is read from standard input", flag)
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", lacking("", "%s: %s", flag, err)
	}
	return path, nil
}

// hintOf is what an error of another package advises.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// to are the recipients, each once, and as they are shown.
func (r *resealer) to() (all []envelope.Recipient, shown []string, err error) {
	const hint = "-r takes a recipient (age1…), -R a file of them, one a line"
	var listed []envelope.Listed
	for _, text := range r.recipients {
		one, err := envelope.ParseRecipient(text)
		if err != nil {
			return nil, nil, misused(hint, "--recipient: %s", err)
		}
		listed = append(listed, envelope.Listed{Recipient: one})
	}
	for _, file := range r.files {
		text, err := readFile(file, 256<<10)
		if err != nil {
			return nil, nil, misused(hint, "--recipients-file: %s: %s", escape.Text(file), cause(err))
		}
		more, line, err := envelope.ParseRecipients(string(text))
		if err == nil && len(more) == 0 {
			line, err = 1, errors.New("it holds no recipient")
		}
		if err != nil {
			return nil, nil, misused(hint, "--recipients-file: %s:%d: %s", escape.Text(file), line, err)
		}
		listed = append(listed, more...)
	}
	for _, one := range listed {
		switch same := func(e envelope.Recipient) bool { return e.String() == one.String() }; {
		case one.PostQuantum() != listed[0].PostQuantum():
			return nil, nil, misused("take one kind", "age does not mix X25519 (age1…) with post-quantum (age1pq1…) recipients")
		case slices.ContainsFunc(all, same):
			continue
		}
		all = append(all, one.Recipient)
		name := one.Fingerprint()
		if one.Name != "" {
			name += " (" + escape.Text(one.Name) + ")"
		}
		shown = append(shown, name)
	}
	switch {
	case len(all) == 0:
		return nil, nil, misused(hint, "who is to open the values? --recipient is missing")
	case len(all) > envelope.MaxRecipients:
		return nil, nil, misused("", "more than %d recipients", envelope.MaxRecipients)
	}
	return all, shown, nil
}

// A collection is the pipeline files of a run, with the checkout of each.
type collection struct {
	files  []reseal.File
	clones []string // of the file at the same place; empty: none
}

// collect finds the files that paths name, each once, whatever links lead to it.
func collect(paths []string) (*collection, error) {
	if len(paths) == 0 {
		here := checkoutOf(".")
		if here == "" {
			return nil, misused("name a pipeline file, a checkout, or a folder of checkouts", "in which files? this is no checkout")
		}
		paths = []string{here}
	}
	var c collection
	seen := map[string]bool{}
	add := func(path, clone string, why error) {
		f := reseal.File{Path: path}
		if why == nil {
			why = locate(&f, clone)
		}
		if real := filepath.Join(f.Folder, f.Name); why == nil {
			if seen[real] {
				return
			}
			if f.Text, why = gather.Read(f.Folder, gather.File{Path: f.Name}); why == nil {
				seen[real] = true // by now: a link that can't be read through hides no file
			}
		}
		if why != nil {
			f.Unread = cause(why)
		}
		c.files, c.clones = append(c.files, f), append(c.clones, clone)
	}
	for _, path := range paths {
		path = filepath.Clean(path)
		if path == "-" {
			return nil, misused("name the file: it is changed in place", "no pipeline is read from standard input")
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, misused("a pipeline file, a checkout, or a folder of checkouts", "%s: %s", escape.Text(path), cause(err))
		}
		if !info.IsDir() {
			add(path, checkoutOf(filepath.Dir(path)), nil)
			continue
		}
		clones := []gather.Clone{{Folder: path}}
		if _, err := gather.Files(path); errors.Is(err, gather.ErrNoClone) {
			const hint = "the folder that holds .git, or one of such folders, or the file itself"
			if clones, err = gather.Clones(path); err != nil {
				return nil, misused(hint, "%s: %s", escape.Text(path), cause(err))
			}
			if len(clones) == 0 {
				return nil, misused(hint, "%s: no checkout, and none in it", escape.Text(path))
			}
		}
		for _, clone := range clones {
			files, err := gather.Files(clone.Folder)
			if err = cmp.Or(clone.Err, err); err != nil {
				add(clone.Folder, clone.Folder, err)
				continue
			}
			for _, f := range files {
				add(filepath.Join(clone.Folder, filepath.FromSlash(f.Path)), clone.Folder, f.Err)
			}
		}
	}
	return &c, nil
}

// locate says where a file is, whatever links lead there. It has to be in the checkout
// that its path is in: whose values they are is a question of that.
func locate(f *reseal.File, clone string) error {
	real, err := filepath.EvalSymlinks(f.Path)
	if err != nil {
		return err
	}
	if real, err = filepath.Abs(real); err != nil {
		return err
	}
	of := checkoutOf(filepath.Dir(real))
	if !sameFolder(of, clone) {
		return errors.New("it leads to a file that is not of this checkout")
	}
	f.Folder = cmp.Or(of, filepath.Dir(real))
	f.Name, err = filepath.Rel(f.Folder, real)
	return err
}

// sameFolder tells whether two checkouts are one, whatever links lead there.
func sameFolder(a, b string) bool {
	if a == "" || b == "" {
		return a == b
	}
	one, err := os.Stat(a)
	two, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(one, two)
}

// checkoutOf is the checkout that a folder is in, or nothing.
func checkoutOf(folder string) string {
	at, err := filepath.Abs(folder)
	for up := folder; err == nil; up = filepath.Join(up, "..") {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return up
		}
		if at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	return ""
}

// scope says of each file for which repository its values are: the given one, or that
// of its checkout.
func (c *collection) scope(given string) error {
	if given == "" {
		for i, clone := range c.clones {
			c.files[i].Repo, c.files[i].Why = repositoryOf(clone)
		}
		return nil
	}
	name, err := repo.Parse(given)
	if err != nil {
		name, err = repo.FromURL(given)
	}
	if err != nil {
		return misused("write github.com/OWNER/REPO", "--scope: %s", err)
	}
	if i := slices.IndexFunc(c.clones, func(clone string) bool { return clone != c.clones[0] }); i >= 0 {
		return misused("one checkout at a time, or without --scope: then each one's remote says it", "--scope: the files are of several checkouts, %s and %s",
			escape.Text(c.clones[0]), escape.Text(c.clones[i]))
	}
	for i := range c.files {
		c.files[i].Repo = name
	}
	return nil
}

// repositoryOf is the one repository that a checkout's remotes name.
func repositoryOf(clone string) (repo.Name, error) {
	if clone == "" {
		return repo.Name{}, errors.New("its file is in no checkout")
	}
	urls := gather.Remotes(clone)
	if urls["origin"] == "" {
		return repo.Name{}, errors.New("its checkout has no remote origin")
	}
	origin, err := repo.FromURL(urls["origin"])
	host, _, _ := strings.Cut(origin.String(), "/")
	switch {
	case err != nil: // the address itself may hold a password
		return repo.Name{}, fmt.Errorf("remote origin: %w", err)
	case onlyHere(host):
		return repo.Name{}, errors.New("the host of remote origin looks like a name that only this machine knows, such as one of ~/.ssh/config")
	}
	if urls["upstream"] == "" {
		return origin, nil
	}
	switch upstream, err := repo.FromURL(urls["upstream"]); {
	case err != nil:
		return repo.Name{}, fmt.Errorf("its origin is %s, and upstream has no name", origin)
	case upstream != origin:
		return repo.Name{}, fmt.Errorf("its origin is %s, and upstream %s", origin, upstream)
	}
	return origin, nil
}

// onlyHere tells whether a host is more likely an alias of one person's SSH than one
// that a build has: work, github.com-work, work.github.com.
func onlyHere(host string) bool {
	for _, forge := range []string{"github.com", "gitlab.com", "bitbucket.org", "codeberg.org"} {
		if host == forge {
			return false
		}
		if strings.Contains(host, forge) {
			return true
		}
	}
	name, _, _ := strings.Cut(host, ":")
	top := name[strings.LastIndex(name, ".")+1:]
	return top == name || strings.Contains(top, "-") && !strings.HasPrefix(top, "xn--")
}

// run goes the way, and reports.
func (r *resealer) run(command string, to []string, found *collection, way reseal.Way) error {
	// An interrupt ends the run between two files.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	done := reseal.Run(ctx, found.files, way, r.dry)
	files := len(done)
	var notes, told []string
	resealed := func(v reseal.Value) bool { return v.Result == reseal.Resealed }
	for i, d := range done {
		clone := found.clones[i]
		if name := found.files[i].Repo; !name.IsZero() && slices.ContainsFunc(d.Values, resealed) && !slices.Contains(told, clone) {
			told = append(told, clone)
			from := "remote origin of " + escape.Text(clone)
			if r.scope != "" {
				from = "--scope"
			}
			notes = append(notes, fmt.Sprintf("opens in %s (%s)", name, from))
		}
	}
	done = slices.DeleteFunc(done, func(d reseal.Done) bool { return d.Error == reseal.ErrStopped })
	report := reseal.NewReport(command, r.dry, to, notes, done)
	r.status = report.Status()
	if err := r.show(report); err != nil {
		return err
	}
	if left := files - len(done); left > 0 {
		return lacking("the same command goes on", "stopped: %d of %d files were not looked at", left, files)
	}
	return nil
}

func (r *resealer) show(report reseal.Report) error {
	if r.json {
		text, err := report.JSON()
		if err != nil {
			return err
		}
		return r.print(string(text))
	}
	width, _ := fit.Columns(r.stdout)
	return r.print(report.Text(min(width, 200)))
}
