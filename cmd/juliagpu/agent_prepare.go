package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/kept"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// given is where a container finds its credentials, and by what name config.yml knows
// each of them.
const given = "/run/juliagpu-secrets/credentials"

// Places are where a start's things come from, and where they go.
type places struct {
	agents, config, credentials string
	starts, policies, rooms     string
	retired, units              string // identities of the past; units of systemd
	failed, removed             string // how often an agent failed; agents of the past
	otherUnits                  []string
}

var onHosts = places{
	agents: agentsFolder, config: "/etc/juliagpu-secrets/config.yml", credentials: "/etc/juliagpu-secrets/credentials",
	starts: "/run/juliagpu-secrets/agents", policies: policyFolder, rooms: "/var/lib/juliagpu-secrets/agents",
	retired: "/etc/juliagpu-secrets/retired", units: "/etc/systemd/system", otherUnits: []string{"/run/systemd/system", "/usr/lib/systemd/system"},
	failed: "/run/juliagpu-secrets/failures", removed: "/etc/juliagpu-secrets/removed",
}

func (p *program) prepare() *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:   "prepare NAME",
		Short: "what an agent's container is given, before each start",
		Long: "Makes what the container of an agent is given: its GPU policy, as juliagpu gpu resolve does, the room that its jobs write to, emptied but for caches, " +
			"and last its credentials, in memory. To be run as root, on the host, each time before the container starts, and never while it runs.\n\n" +
			"Credentials are agent-token, and a file for each that " + onHosts.config + " names in " + given + ", of the same name. " +
			"They are looked for where systemd puts a unit's ($CREDENTIALS_DIRECTORY), else in " + onHosts.credentials + ".\n\n" +
			"Ends with status 75 where the machine is at fault, with 1 where a file is wrong or missing, else with 0. Whatever was wrong, no credential is left in memory.",
		Example:           "juliagpu agent prepare gpuci.3\tin ExecStartPre= of the agent's unit",
		Args:              oneAgent,
		ValidArgsFunction: agentNames,
		RunE: func(c *cobra.Command, args []string) error {
			at := p.host.places
			at.credentials = cmp.Or(from, p.getenv("CREDENTIALS_DIRECTORY"), at.credentials)
			lines, err := p.ready(c.Context(), at, args[0])
			if err != nil {
				return err
			}
			width, _ := fit.Columns(p.stdout)
			return p.print(narrow(lines, width))
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&from, "credentials", "", "take them from this folder")
	takes(c, "credentials", "DIR")
	c.MarkFlagDirname("credentials")
	return c
}

// ready prepares an agent's start.
func (p *program) ready(ctx context.Context, at places, name string) (lines []string, err error) {
	if os.Geteuid() != 0 {
		return nil, refuse("run it as root, on the host", "an agent's credentials and its room are root's")
	}
	agent, err := fleet.Read(at.agents, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refuse("juliagpu agent new "+name+" makes its folder", "there is no agent %s in %s", name, escape.Text(at.agents))
	case err != nil:
		return nil, hinted(err)
	}
	others, _ := fleet.All(at.agents) // what is wrong with them is theirs
	for _, other := range others {
		if other.Name != name && other.Project == agent.Project {
			return nil, refuse("rename one of the two folders", "Compose can't tell %s from %s: it calls both %s", name, other.Name, agent.Project)
		}
	}
	room := at.room(name)
	room.Size = agent.Cache
	if err := room.Unused(); err != nil {
		return nil, lacking("let it end: systemctl stop "+typed(name)+"; or else: docker rm --force "+fleet.Container(name), "%s", err)
	}
	start := filepath.Join(at.starts, name)
	if err := empty(start); err != nil {
		return nil, err
	}
	files, kinds, err := at.gather()
	if err != nil {
		return nil, err
	}
	text, lines, err := p.resolveFor(name, at.agents)
	if err != nil {
		return nil, err
	}
	if err := writePolicy(filepath.Join(at.policies, name+".yml"), text); err != nil {
		return nil, err
	}
	if room.Size < kept.Least {
		return nil, refuse("AGENT_CACHE=40g, say: builds, homes and caches have to get in", "%s: AGENT_CACHE is missing or too small", escape.Text(filepath.Join(agent.Dir, ".env")))
	}
	err = room.Ready(ctx, func(format string, args ...any) {
		lines = append(lines, name+": "+escape.Text(fmt.Sprintf(format, args...)))
	})
	switch {
	case errors.Is(err, kept.ErrBusy):
		return nil, lacking("docker rm --force "+fleet.Container(name)+" ends what still has it", "%s", err)
	case err != nil:
		return nil, lacking("mend what it names; without a room no job can run", "%s", err)
	}
	if err := fill(start, files); err != nil {
		return nil, err
	}
	return append(lines, name+": room: "+room.Jobs(), name+": credentials: "+strings.Join(kinds, ", ")), nil
}

// room is where an agent's jobs write to.
func (at places) room(name string) kept.Room {
	return kept.Room{Image: filepath.Join(at.rooms, name+".img"), Dir: filepath.Join(at.rooms, name)}
}

// token is what one looks like. Nothing in it means anything in an agent's
// configuration file.
var token = regexp.MustCompile(`^[A-Za-z0-9_.+/:-]+$`)

// gather reads what the container is to be given, by the files' names, and says what
// it is.
func (at places) gather() (files map[string][]byte, kinds []string, err error) {
	config, err := at.settings()
	if err != nil {
		return nil, nil, err
	}
	held, err := at.find(credential.File{Kind: "agent token", Path: "agent-token"})
	if err != nil {
		return nil, nil, err
	}
	word, err := held.Word(os.Getuid())
	if err != nil {
		return nil, nil, unreadable(err)
	}
	if !token.MatchString(word) {
		return nil, nil, refuse("copy it again from the cluster's page in Buildkite", "agent token %s: not a token", escape.Text(held.Path))
	}
	files = map[string][]byte{"agent.cfg": []byte("token=\"" + word + "\"\n")}
	kinds = []string{"agent token"}
	all := config.Credentials()
	if config.Attest.Roots != "" && filepath.Dir(config.Attest.Roots) == given {
		all = append(all, credential.File{Kind: "certificates", Path: config.Attest.Roots})
	}
	for _, f := range all {
		name := filepath.Base(f.Path)
		if filepath.Dir(f.Path) != given || name == "agent.cfg" {
			return nil, nil, refuse("write it as "+given+"/NAME: containers have this configuration, and nothing else of the host", "%s: %s %s: no container has it", escape.Text(at.config), f.Kind, escape.Text(f.Path))
		}
		held, err := at.find(credential.File{Kind: f.Kind, Path: name})
		if err != nil {
			return nil, nil, err
		}
		if files[name], err = held.Read(os.Getuid(), mostCredential); err != nil {
			return nil, nil, unreadable(err)
		}
		if !slices.Contains(kinds, f.Kind) {
			kinds = append(kinds, f.Kind)
		}
	}
	return files, kinds, nil
}

// settings are the configuration of this host, which all its containers have.
func (at places) settings() (settings.Settings, error) {
	text, err := readTrusted(at.config)
	if errors.As(err, new(*fs.PathError)) {
		return settings.Settings{}, refuse("docs/operators.md says what it holds", "%s: %s", escape.Text(at.config), cause(err))
	}
	if err != nil {
		return settings.Settings{}, err
	}
	// Jobs' users are the image's: no file of this host names them.
	config, err := settings.Parse(text)
	if wrong := (*strict.Error)(nil); errors.As(err, &wrong) {
		wrong.Path = escape.Text(at.config)
	}
	if err != nil {
		return settings.Settings{}, hinted(err)
	}
	return config, nil
}

// mostCredential bounds a file, in bytes: a list of certificates is the largest.
const mostCredential = 1 << 20

// find returns where a credential of that name is: systemd puts the folder's name
// before those of a folder's files (LoadCredential=credentials:DIR).
func (at places) find(f credential.File) (credential.File, error) {
	var found []string
	for _, name := range []string{f.Path, "credentials_" + f.Path} {
		path := filepath.Join(at.credentials, name)
		if exists(path) {
			found = append(found, path)
		}
	}
	switch len(found) {
	case 0:
		if sealed := filepath.Join(at.credentials, f.Path+encrypted); exists(sealed) {
			return f, refuse("systemctl start buildkite-agent@NAME: its unit has systemd open it, and no copy in the clear belongs beside it", "%s %s: encrypted", f.Kind, escape.Text(sealed))
		}
		return f, refuse("put it there, root's and 0600, or name another folder with --credentials", "%s %s: no such file", f.Kind, escape.Text(filepath.Join(at.credentials, f.Path)))
	case 1:
		f.Path = found[0]
		return f, nil
	}
	return f, refuse("keep one: the encrypted one needs no other beside it", "%s: both %s and %s", f.Kind, escape.Text(found[0]), escape.Text(found[1]))
}

func unreadable(err error) error {
	r := hinted(err).(*refusal)
	r.hint = cmp.Or(r.hint, "chown root it, and chmod 600")
	return r
}

// empty makes a folder of root's in memory, if there is none, and takes away what is
// in it. A container that has the folder keeps it.
func empty(dir string) error {
	const hint = "remove it; juliagpu makes it anew"
	if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Dir(dir)), 0o755), mkdir(filepath.Dir(dir)), mkdir(dir)); err != nil {
		return lacking(hint, "%s", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return lacking(hint, "%s: %s", escape.Text(dir), err)
	}
	if kind := int64(st.Type); kind != tmpfs && kind != ramfs {
		return lacking("mount a tmpfs on /run, as systemd does", "%s is not in memory: credentials would be on a disk", escape.Text(dir))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return lacking(hint, "%s", err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return lacking(hint, "%s: %s", escape.Text(dir), cause(err))
	}
	for _, e := range entries {
		if err := root.RemoveAll(e.Name()); err != nil {
			return lacking(hint, "%s: %s", escape.Text(filepath.Join(dir, e.Name())), cause(err))
		}
	}
	return nil
}

// File systems in memory (linux/magic.h).
const (
	tmpfs = 0x01021994
	ramfs = 0x858458f6
)

// mkdir makes a directory of root's alone, or finds one.
func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: not a directory of root's alone", escape.Text(dir))
	}
	return os.Chmod(dir, 0o700)
}

// fill puts all files into a folder, or none.
func fill(dir string, files map[string][]byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return lacking("run it again", "%s", err)
	}
	defer root.Close()
	for name, text := range files {
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_, err = f.Write(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return errors.Join(lacking("make room in memory there: df "+dir, "%s: %s", escape.Text(filepath.Join(dir, name)), cause(err)), empty(dir))
		}
	}
	return nil
}
