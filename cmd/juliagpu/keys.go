package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/replace"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

func (p *program) keys() *cobra.Command {
	return group(&cobra.Command{
		Use:   "keys",
		Short: "the identities that open what is sealed",
		Long:  "Makes identities, puts them among this host's credentials, and takes them away again.",
	}, p.keysNew(), p.keysRecipients(), p.keysInstall(), p.keysRetire())
}

// encrypted is what the name of a credential ends with that systemd-creds has encrypted.
const encrypted = ".cred"

func (p *program) keysNew() *cobra.Command {
	var out string
	var hybrid bool
	c := &cobra.Command{
		Use:   "new -o FILE",
		Short: "a new identity, in a file that age reads; prints its recipient",
		Long: "Makes an identity, writes it into a private file (0600) as age-keygen does, and prints its recipient, which is for everyone. " +
			"A file that is there already stays as it is.\n\n" +
			"age does not mix the two kinds: who goes post-quantum has all values sealed again.",
		Example: "juliagpu keys new -o identity\n" +
			"juliagpu keys new -o - | juliagpu keys install - --name identity --encrypt\tnever in the clear on a disk; there is no copy then",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return p.newIdentity(out, hybrid) },
	}
	c.Flags().SortFlags = false
	c.Flags().StringVarP(&out, "out", "o", "", "into this file; - is standard output, if that is no terminal")
	c.Flags().BoolVar(&hybrid, "hybrid", false, "post-quantum, X25519 and ML-KEM-768 (age1pq1…); else X25519 (age1…)")
	takes(c, "out", "FILE")
	return c
}

func (p *program) newIdentity(out string, hybrid bool) error {
	_, terminal := fit.Columns(p.stdout)
	switch {
	case out == "":
		return misused("juliagpu keys new -o identity", "where is it to go? -o is missing")
	case out == "-" && terminal:
		return misused("-o FILE, or pipe it into what keeps it", "an identity on a terminal stays in its history")
	}
	text, made, err := identity.New(hybrid, p.host.now())
	if err != nil {
		return lacking("see what is wrong with this machine's random numbers", "%s", err)
	}
	defer clear(text)
	if out == "-" {
		fmt.Fprintf(p.stderr, "juliagpu: recipient: %s\n", made.Recipient)
		return p.print(string(text))
	}
	switch err := replace.New(out, text); {
	case errors.Is(err, fs.ErrExist):
		return refuse("choose another name: nothing is ever overwritten here", "%s: it is there already", escape.Text(out))
	case err != nil:
		return lacking("name a file in a folder of yours, on a disk with room and hard links", "%s: no identity was written: %s", escape.Text(out), kernelSays(err))
	}
	fmt.Fprintf(p.stderr, "juliagpu: identity %s: %s; next: juliagpu keys install %s\n", made.Fingerprint, escape.Text(out), escape.Text(out))
	return p.print(made.Recipient + "\n")
}

func (p *program) keysRecipients() *cobra.Command {
	return &cobra.Command{
		Use:   "recipients [FILE…]",
		Short: "the recipients of identities, for authors",
		Long: "Prints the recipients of identity files as a recipients' file, which encrypt and age read, and which is no secret. " +
			"Without a file: of the identities that this host's configuration lists, newest first. Retired ones stand in comments, since nothing is sealed for them any more.",
		Example: "juliagpu keys recipients >secrets.recipients\tof this host\n" +
			"juliagpu keys recipients identity\tof a file",
		RunE: func(_ *cobra.Command, files []string) error { return p.recipients(files) },
	}
}

func (p *program) recipients(files []string) error {
	var listed []settings.IdentityFile
	find := func(path string) ([]byte, error) { return readFile(path, identity.MaxFile) }
	for _, file := range files {
		listed = append(listed, settings.IdentityFile{Path: file})
	}
	if len(files) == 0 {
		config, err := p.host.settings()
		if err != nil {
			return err
		}
		listed, find = config.Identities, p.installed
	}
	var b strings.Builder
	var kinds [2]bool // there is one to seal for: X25519, post-quantum
	for _, file := range listed {
		text, err := find(file.Path)
		if err != nil {
			var r *refusal
			if errors.As(err, &r) {
				return err
			}
			return refuse("name a file that age-keygen or juliagpu keys new wrote; this host's own are root's", "identity %s: %s", escape.Text(file.Path), cause(err))
		}
		all, err := identity.Parse(text)
		clear(text)
		if err != nil {
			return malformed(file.Path, err)
		}
		for _, i := range all {
			fmt.Fprintf(&b, "# %s %s", escape.Text(filepath.Base(file.Path)), i.Fingerprint)
			if file.Retired {
				b.WriteString(": retired, nothing is sealed for it any more\n")
				continue
			}
			if strings.HasPrefix(i.Recipient, "age1pq1") {
				kinds[1] = true
			} else {
				kinds[0] = true
			}
			b.WriteString("\n" + i.Recipient + "\n")
		}
	}
	if kinds[0] && kinds[1] {
		fmt.Fprintln(p.stderr, "juliagpu: warning: age does not mix X25519 (age1…) with post-quantum (age1pq1…) recipients: authors take one kind")
	}
	return p.print(b.String())
}

// malformed says what is wrong with an identity's file, and nothing of what it holds.
func malformed(path string, err error) error {
	return refuse("juliagpu keys new makes one", "identity %s: %s", escape.Text(path), err)
}

// installed is the text of an identity that the configuration names by this path: a
// container's, from the host's credentials, or one that hooks on the host read there.
func (p *program) installed(path string) ([]byte, error) {
	if filepath.Dir(path) != given {
		return readFile(path, identity.MaxFile)
	}
	at := filepath.Join(p.host.credentials, filepath.Base(path))
	text, err := readFile(at, identity.MaxFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if _, err := os.Lstat(at + encrypted); err != nil {
		return nil, refuse("juliagpu keys install puts it there", "identity %s: not installed: neither that nor %s%s is there", escape.Text(at), escape.Text(filepath.Base(at)), encrypted)
	}
	return p.decrypt(at+encrypted, filepath.Base(at))
}

func (p *program) keysInstall() *cobra.Command {
	var name string
	var encrypt bool
	c := &cobra.Command{
		Use:   "install FILE",
		Short: "puts an identity among this host's credentials",
		Long: "Checks that a file is an identity, and puts it into " + onHosts.credentials + ", root's and private, for juliagpu agent prepare to give to containers. " +
			"Says what is left to do. To be run as root. What is there already stays as it is.\n\n" +
			"With --encrypt systemd-creds encrypts it for this host alone, and it is never on a disk in the clear. Where the host has a TPM, whoever takes the disk has nothing; " +
			"else the key for it lies on that disk, and it protects copies of /etc alone. Without the machine it is lost: keep a copy of FILE where no agent runs.\n\n" +
			"It does not edit the configuration: the order of identities is yours to choose, and the same file is often for many hosts. It prints the line.",
		Example: "juliagpu keys install identity --name identity-2026\n" +
			"juliagpu keys install identity --encrypt\tas identity.cred",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return misused("juliagpu keys install identity", "name one file that holds an identity; - is standard input")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return p.install(c.Context(), c.InOrStdin(), args[0], name, encrypt)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&name, "name", "", "what the configuration calls it; default: the file's name")
	c.Flags().BoolVar(&encrypt, "encrypt", false, "as NAME.cred, by systemd-creds; one that is there in the clear goes")
	takes(c, "name", "NAME")
	c.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	return c
}

// install puts an identity where agents' starts take it from.
func (p *program) install(ctx context.Context, stdin io.Reader, file, name string, encrypt bool) error {
	if os.Geteuid() != 0 {
		return refuse("run it as root, on the host", "a host's credentials are root's")
	}
	if name == "" {
		name = filepath.Base(file)
	}
	if err := credentialName(name, file); err != nil {
		return err
	}
	text, err := readPrivate(file, stdin)
	if err != nil {
		return err
	}
	defer clear(text)
	made, err := identity.Parse(text)
	if err != nil {
		return malformed(file, err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(p.host.credentials), 0o755), mkdir(p.host.credentials)); err != nil {
		return lacking("make it a folder of root's, 0700", "%s", err)
	}
	if twin := p.twin(name, made); twin != "" {
		return refuse("nothing is to be done; or remove one of the two", "this identity is installed as %s", escape.Text(twin))
	}
	clearly := filepath.Join(p.host.credentials, name)
	var lines []string
	if encrypt {
		lines, err = p.installEncrypted(ctx, clearly, name, text, made)
	} else {
		lines, err = installClear(clearly, text, made)
	}
	if err != nil {
		return err
	}
	width, _ := fit.Columns(p.stdout)
	return p.print(narrow(append(lines, p.next(file, name, encrypt)...), width))
}

// notIdentities are the other credentials that have a name of their own.
var notIdentities = []string{"agent-token", "api-token", "agent.cfg"}

// credentialName refuses names that mean something else in the folder of credentials.
func credentialName(name, file string) error {
	const hint = "--name identity-2026"
	switch {
	case file == "-" && name == "-":
		return misused(hint, "standard input has no name: --name is missing")
	case !gpu.IsAgent(name):
		return misused(hint+": letters, digits, dots, hyphens and underscores", "--name: not a credential's name")
	case slices.Contains(notIdentities, name), strings.HasSuffix(name, encrypted), strings.HasPrefix(name, "credentials_"):
		return misused(hint, "--name: %s has another meaning among credentials", name)
	}
	return nil
}

// readPrivate reads a file that nobody but its owner may read, or standard input.
func readPrivate(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		text, err := io.ReadAll(io.LimitReader(stdin, identity.MaxFile+1))
		if err == nil && len(text) > identity.MaxFile {
			err = errors.New("too large")
		}
		if err != nil {
			return nil, refuse("juliagpu keys new -o - | juliagpu keys install - --name identity", "standard input: %s", cause(err))
		}
		return text, nil
	}
	info, err := os.Stat(file)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, refuse("chmod 600 it; if anybody can have read it, make a new one: juliagpu keys new", "identity %s: mode %#o, readable by others", escape.Text(file), info.Mode().Perm())
	}
	text, err := readFile(file, identity.MaxFile)
	if err != nil {
		return nil, refuse("name a file that age-keygen or juliagpu keys new wrote", "identity %s: %s", escape.Text(file), cause(err))
	}
	return text, nil
}

// twin is the name under which an identity is installed in the clear already, where
// that is another one.
func (p *program) twin(name string, made []identity.Identity) string {
	entries, _ := os.ReadDir(p.host.credentials)
	for _, e := range entries {
		text, err := readFile(filepath.Join(p.host.credentials, e.Name()), identity.MaxFile)
		if err != nil || e.Name() == name {
			continue
		}
		other, err := identity.Parse(text)
		clear(text)
		if err == nil && same(made, other) {
			return e.Name()
		}
	}
	return ""
}

// same tells whether two files hold the same identities.
func same(a, b []identity.Identity) bool {
	return slices.EqualFunc(a, b, func(a, b identity.Identity) bool { return a.Recipient == b.Recipient })
}

func installClear(path string, text []byte, made []identity.Identity) (lines []string, err error) {
	if _, err := os.Lstat(path + encrypted); err == nil {
		return nil, refuse("nothing is to be done; or choose another --name", "%s%s is there: an agent that finds both does not start", escape.Text(path), encrypted)
	}
	there, err := occupied(path, made)
	if err != nil {
		return nil, err
	}
	if !there {
		if err := replace.New(path, text); err != nil {
			return nil, unwritten(path, err)
		}
	}
	return []string{said(path, made, there)}, nil
}

// installEncrypted leaves no identity in the clear, not even for a moment. Where it
// was cut short between the two files, running it again ends it.
func (p *program) installEncrypted(ctx context.Context, path, name string, text []byte, made []identity.Identity) (lines []string, err error) {
	clearly, err := occupied(path, made)
	if err != nil {
		return nil, err
	}
	target := path + encrypted
	_, err = os.Lstat(target)
	there := err == nil
	if there {
		older, err := p.decrypt(target, name)
		if err != nil {
			return nil, err
		}
		others, err := identity.Parse(older)
		clear(older)
		if err != nil || !same(made, others) {
			return nil, taken(target)
		}
	} else {
		ciphertext, err := p.creds(ctx, text, "encrypt", "--name="+name, "-", "-")
		if err != nil {
			return nil, err
		}
		// This host must open it: it may be all that is left of the identity.
		opened, err := p.creds(ctx, ciphertext, "decrypt", "--name="+name, "-", "-")
		if err != nil {
			return nil, err
		}
		defer clear(opened)
		if !bytes.Equal(opened, text) {
			return nil, lacking("report this, with the version of systemd", "%s does not give back what it was given: nothing was installed", escape.Text(p.host.creds))
		}
		if err := replace.New(target, ciphertext); err != nil {
			return nil, unwritten(target, err)
		}
	}
	lines = append(lines, said(target, made, there))
	if clearly {
		if err := os.Remove(path); err != nil {
			return nil, lacking("remove it: an agent that finds both does not start", "%s: still there in the clear: %s", escape.Text(path), cause(err))
		}
		lines = append(lines, escape.Text(path)+": removed; a disk keeps what was written, so a new identity is safer than one that lay there")
	}
	return lines, nil
}

// occupied tells whether a path has these very identities. It refuses others.
func occupied(path string, made []identity.Identity) (bool, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	text, err := readFile(path, identity.MaxFile)
	if err != nil {
		return false, lacking("see what it is", "%s: %s", escape.Text(path), cause(err))
	}
	defer clear(text)
	if others, err := identity.Parse(text); err != nil || !same(made, others) {
		return false, taken(path)
	}
	return true, nil
}

func taken(path string) error {
	return refuse("--name identity-2026, say: the older one opens what is sealed for it", "%s: another identity, or something else, is there", escape.Text(path))
}

// unwritten is the error of a credential that could not be written.
func unwritten(path string, err error) error {
	return lacking("see what keeps root from writing there: a full disk, or one that is read-only", "%s: nothing was installed: %s", escape.Text(path), kernelSays(err))
}

// said names the identities in a file.
func said(path string, made []identity.Identity, there bool) string {
	var prints []string
	for _, i := range made {
		prints = append(prints, i.Fingerprint)
	}
	line := "identity " + strings.Join(prints, ", ") + ": " + escape.Text(path)
	if there {
		line += ", as before"
	}
	return line
}

// paste stands before a line that is to be pasted, and so never broken.
const paste = "           "

// next is what is left to do.
func (p *program) next(file, name string, encrypt bool) (lines []string) {
	config, err := p.host.settings()
	listed := slices.ContainsFunc(config.Identities, func(i settings.IdentityFile) bool { return i.Path == given+"/"+name })
	switch {
	case err != nil:
		lines = append(lines, "warning: "+err.Error(), "to do: a configuration, with this under identities:", paste+"- file: "+given+"/"+name)
	case !listed:
		lines = append(lines, "to do: in "+escape.Text(p.host.config)+", under identities: and before the others,", paste+"- file: "+given+"/"+name)
	}
	if encrypt {
		unit := filepath.Join(p.host.units, "buildkite-agent@.service.d", name+".conf")
		if _, err := os.Lstat(unit); err != nil {
			lines = append(lines, "to do: "+escape.Text(unit)+" with",
				paste+"[Service]", paste+"LoadCredentialEncrypted="+name+":"+filepath.Join(onHosts.credentials, name)+encrypted,
				"and:", paste+"systemctl daemon-reload")
		}
	}
	if file != "-" && filepath.Dir(file) != p.host.credentials {
		lines = append(lines, escape.Text(file)+" holds it, too: keep it where no agent runs, or remove it")
	}
	return append(lines, "then: agents have it from their next start on; authors seal for what this prints:", paste+"juliagpu keys recipients")
}

// decrypt is the text of a credential that systemd-creds has encrypted.
func (p *program) decrypt(path, name string) ([]byte, error) {
	return p.creds(context.Background(), nil, "decrypt", "--name="+name, path, "-")
}

// creds runs systemd-creds. No argument is a secret, and what it says on standard
// error is none either.
func (p *program) creds(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second) // a TPM takes seconds
	defer stop()
	cmd := exec.CommandContext(ctx, p.host.creds, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "SYSTEMD_LOG_LEVEL=warning"}
	cmd.Stdin = bytes.NewReader(stdin)
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	err := cmd.Run()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, lacking("install systemd 250 or newer; or without --encrypt", "%s is not there", escape.Text(p.host.creds))
	case err != nil:
		clear(out.Bytes())
		why, _, _ := strings.Cut(strings.TrimSpace(says.String()), "\n")
		if why == "" {
			why = err.Error()
		}
		return nil, lacking("see systemd-creds(1): credentials are bound to the machine, and to the name that they were encrypted with",
			"systemd-creds %s: %s", args[0], escape.Text(why))
	}
	return out.Bytes(), nil
}

func (p *program) keysRetire() *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use:   "retire NAME",
		Short: "takes an identity out of this host's credentials",
		Long: "Takes an identity away from the agents of this host, once its line is gone from the configuration and nothing is sealed for it any more. " +
			"It goes to " + onHosts.retired + ", root's alone: not below the credentials, since systemd gives a unit all of that folder. A value that was forgotten can be opened with it there. " +
			"To be run as root.\n\n" +
			"What a leaked identity has opened stays known: docs/operators.md says what to do after a leak.",
		Example: "juliagpu secrets rotate --identity identity -R new --dry-run ~/src\twhat is still sealed for it\n" +
			"juliagpu keys retire identity",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 || !gpu.IsAgent(args[0]) {
				return misused("juliagpu keys retire identity-2025", "name one identity of %s", onHosts.credentials)
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			entries, _ := os.ReadDir(p.host.credentials)
			for _, e := range entries {
				names = append(names, strings.TrimSuffix(e.Name(), encrypted))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.retire(args[0], remove) },
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVar(&remove, "delete", false, "keeps no copy; what was forgotten can't be opened any more")
	return c
}

func (p *program) retire(name string, remove bool) error {
	if os.Geteuid() != 0 {
		return refuse("run it as root, on the host", "a host's credentials are root's")
	}
	name = strings.TrimSuffix(name, encrypted)
	if slices.Contains(notIdentities, name) {
		return refuse("docs/operators.md, Rotation, says how it is replaced", "%s: not an identity", name)
	}
	path := filepath.Join(p.host.credentials, name)
	if _, err := os.Lstat(path); err != nil {
		path += encrypted
	}
	if _, err := os.Lstat(path); err != nil {
		return refuse("ls "+escape.Text(p.host.credentials), "identity %s: neither that nor %s%s is there", escape.Text(strings.TrimSuffix(path, encrypted)), name, encrypted)
	}
	print := name // where it can't be opened here
	if text, err := p.installed(given + "/" + name); err == nil {
		all, err := identity.Parse(text)
		clear(text)
		if err != nil {
			return malformed(path, err)
		}
		print = all[0].Fingerprint
	} else if !strings.HasSuffix(path, encrypted) { // one of another machine can go, too
		return lacking("see what it is", "%s: %s", escape.Text(path), cause(err))
	}
	if err := p.unlisted(name, path); err != nil {
		return err
	}
	lines := []string{}
	if remove {
		if err := os.Remove(path); err != nil {
			return lacking("see what keeps root from writing there", "%s: still there: %s", escape.Text(path), cause(err))
		}
		lines = append(lines, escape.Text(path)+": removed")
	} else {
		if err := mkdir(p.host.retired); err != nil {
			return lacking("make it a folder of root's, 0700", "%s", err)
		}
		kept := filepath.Join(p.host.retired, filepath.Base(path)+".retired-"+p.host.now().UTC().Format("20060102T150405Z"))
		if _, err := os.Lstat(kept); err == nil {
			return refuse("run it again", "%s: it is there already", escape.Text(kept))
		}
		if err := os.Rename(path, kept); err != nil {
			return lacking("see what keeps root from writing there", "%s: still there: %s", escape.Text(path), kernelSays(err))
		}
		lines = append(lines, "identity "+print+": kept as "+escape.Text(kept)+"; agents don't get it from their next start on")
	}
	if beside := filepath.Join(p.host.credentials, name+encrypted); beside != path && exists(beside) {
		lines = append(lines, escape.Text(beside)+" is still there: run this again")
	}
	if running := p.holders(name); len(running) > 0 {
		lines = append(lines, "agents that have it until then: "+strings.Join(running, ", "))
	}
	lines = append(lines, "a job that finds a value sealed for "+print+" says so: withheld; this finds them all:", paste+"juliagpu audit --checkouts DIR --recipients FILE")
	width, _ := fit.Columns(p.stdout)
	return p.print(narrow(lines, width))
}

// unlisted refuses to take away what agents' next start needs.
func (p *program) unlisted(name, path string) error {
	config, err := p.host.settings()
	if err != nil {
		return err
	}
	is := func(path string) bool {
		return path == given+"/"+name || path == filepath.Join(p.host.credentials, name)
	}
	listed := slices.ContainsFunc(config.Identities, func(i settings.IdentityFile) bool { return is(i.Path) })
	current := slices.ContainsFunc(config.Identities, func(i settings.IdentityFile) bool { return !is(i.Path) && !i.Retired })
	switch {
	case listed && !current:
		return refuse("juliagpu keys new, juliagpu keys install; then have all values sealed for that: juliagpu secrets rotate",
			"%s: the only identity that %s lists for sealing", escape.Text(path), escape.Text(p.host.config))
	case listed:
		return refuse("when juliagpu secrets rotate and juliagpu audit find nothing that is sealed for it: take its line out, then run this again",
			"%s: %s still lists it, and no agent starts without what is listed", escape.Text(path), escape.Text(p.host.config))
	}
	uses := append(config.Credentials(), credential.File{Kind: "certificates", Path: config.Attest.Roots})
	if i := slices.IndexFunc(uses, func(f credential.File) bool { return is(f.Path) }); i >= 0 {
		return refuse("take it out there first, where nothing needs it any more", "%s: not an identity: %s has it as %s", escape.Text(path), escape.Text(p.host.config), uses[i].Kind)
	}
	// systemd takes blanks around = (systemd.syntax(7)).
	loads := regexp.MustCompile(`(?m)^[ \t]*LoadCredential(Encrypted)?[ \t]*=[ \t]*(` + regexp.QuoteMeta(name) + `:.*|[^:\n]*:[ \t]*` + regexp.QuoteMeta(path) + `[ \t]*)$`)
	for _, folder := range append([]string{p.host.units}, p.host.otherUnits...) {
		for _, pattern := range []string{"buildkite-agent@*.service", "buildkite-agent@*.d/*.conf", "service.d/*.conf"} {
			files, _ := filepath.Glob(filepath.Join(folder, pattern))
			for _, file := range files {
				text, err := readFile(file, 1<<20)
				if err == nil && loads.Match(text) {
					return refuse("take that line out, then systemctl daemon-reload", "%s still loads it, and no unit starts without what it loads", escape.Text(file))
				}
			}
		}
	}
	return nil
}

// holders are the agents whose containers were given the credential.
func (p *program) holders(name string) (agents []string) {
	found, _ := filepath.Glob(filepath.Join(p.host.starts, "*", name))
	for _, path := range found {
		agents = append(agents, filepath.Base(filepath.Dir(path)))
	}
	return agents
}

// kernelSays is an error of one or two paths without them.
func kernelSays(err error) error {
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return cause(err)
}
