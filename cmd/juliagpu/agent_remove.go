package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/kept"
)

func (p *program) removeAgent() *cobra.Command {
	var dry, yes bool
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "drains an agent, and takes it away",
		Long: "Stops an agent, after the job that it has, and takes away its room, policy and container. Its folder goes to " + onHosts.removed + ", with the date. " +
			"To be run as root, on the host. Whatever stopped it, the same command goes on.\n\n" +
			"Credentials are the host's, and stay, as does the image.",
		Example:           "juliagpu agent remove gpuci.3",
		Args:              oneAgent,
		ValidArgsFunction: agentNames,
		RunE: func(c *cobra.Command, args []string) error {
			r := remover{program: p, name: args[0]}
			if err := r.check(); err != nil {
				return err
			}
			width, _ := fit.Columns(p.stdout)
			if dry {
				return p.print(narrow(r.plan(), width))
			}
			if !yes {
				if !answers(c.InOrStdin()) {
					return misused(c.CommandPath()+" "+r.name+" --yes", "nobody can be asked whether %s is to go", r.name)
				}
				fmt.Fprint(p.stderr, narrow(r.plan(), width))
				m := maker{program: p, in: c.InOrStdin()}
				if !m.confirmed("do this?") {
					return refuse("", "nothing was removed")
				}
			}
			return r.run(c.Context())
		},
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVar(&dry, "dry-run", false, "says what would go")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "asks nothing")
	return c
}

// A remover takes one agent away.
type remover struct {
	*program
	name string
}

func (r remover) folder() string { return filepath.Join(r.host.agents, r.name) }

func (r remover) check() error {
	if os.Geteuid() != 0 {
		return refuse("run it as root, on the host", "an agent's unit and room are root's")
	}
	if info, err := os.Lstat(r.folder()); err != nil || !info.IsDir() {
		var names []string
		all, _ := fleet.All(r.host.agents)
		for _, a := range all {
			names = append(names, a.Name)
		}
		hint := "juliagpu agent list shows those that there are"
		if len(names) > 0 && len(names) <= 16 {
			hint = "there are " + strings.Join(names, ", ")
		}
		return refuse(hint, "there is no agent %s in %s", r.name, escape.Text(r.host.agents))
	}
	room := r.host.room(r.name)
	dir, dirErr := os.Lstat(room.Dir)
	image, imageErr := os.Lstat(room.Image)
	switch {
	case dirErr == nil && !dir.IsDir():
		return refuse("it may be another agent's: see whose it is", "%s is no folder, and so not the room of %s", escape.Text(room.Dir), r.name)
	case imageErr == nil && !image.Mode().IsRegular():
		return refuse("it may be another agent's: see whose it is", "%s is no file, and so not the room of %s", escape.Text(room.Image), r.name)
	}
	return nil
}

// goes is where the folder goes: to its name and the day, and a number where that is
// taken.
func (r remover) goes() string {
	base := filepath.Join(r.host.removed, r.name+r.host.now().Format("-2006-01-02"))
	path := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(path); err != nil {
			return path
		}
		path = fmt.Sprintf("%s.%d", base, n)
	}
}

func (r remover) plan() []string {
	room := r.host.room(r.name)
	return []string{
		typed(r.name) + ": disabled, and stopped after the job that it has",
		"its container, room and caches: removed: " + escape.Text(room.Image),
		"its folder: moved to " + escape.Text(r.goes()),
	}
}

// run does the folder last: while that is there, it can be run again.
func (r remover) run(ctx context.Context) error {
	if err := r.stop(); err != nil {
		return err
	}
	room := r.host.room(r.name)
	busy := "let it end, or: docker stop " + fleet.Container(r.name)
	if err := room.Unused(); err != nil {
		return lacking(busy, "%s", err)
	}
	container, err := r.ask(ctx, "ps", "--all", "--quiet", "--filter="+named(r.name))
	if err == nil && container != "" {
		_, err = r.ask(ctx, "rm", container)
	}
	if err != nil {
		return err
	}
	if err := room.Remove(); err != nil {
		if errors.Is(err, kept.ErrBusy) {
			return lacking(busy, "%s", err)
		}
		return lacking("mend what it names, and run this again", "%s", err)
	}
	for _, path := range []string{filepath.Join(r.host.starts, r.name), filepath.Join(r.host.policies, r.name+".yml"), filepath.Join(r.host.failed, r.name), r.host.drained(r.name)} {
		if err := os.RemoveAll(path); err != nil {
			return lacking("remove it, and run this again", "%s", err)
		}
	}
	to := r.goes()
	if err := os.MkdirAll(r.host.removed, 0o755); err != nil {
		return lacking("mend the folder above it", "%s", err)
	}
	if err := os.Rename(r.folder(), to); err != nil {
		return lacking("move it away by hand", "%s", err)
	}
	return r.print(r.name + ": removed; its folder is now " + escape.Text(to) + "\n")
}

// stop ends the unit, if there is one.
func (r remover) stop() error {
	if _, err := fs.Stat(r.host.root, "run/systemd/system"); err != nil {
		return nil // systemd is not what started this host
	}
	unit := unitOf(r.name)
	is, err := r.says(r.host.systemctl, "show", "--property=LoadState,ActiveState", "--", unit)
	if err != nil {
		return lacking("systemctl status "+unit, "systemctl: %s", err)
	}
	if strings.Contains(is, "LoadState=not-found") {
		return nil
	}
	if !strings.Contains(is, "ActiveState=inactive") {
		if err := r.print(r.name + ": draining: a job that it has ends first; if you stop waiting here, it still drains\n"); err != nil {
			return err
		}
	}
	for _, verb := range []string{"disable", "stop"} {
		if _, err := r.says(r.host.systemctl, verb, unit); err != nil {
			return lacking("systemctl status "+unit, "systemctl %s: %s", verb, err)
		}
	}
	return nil
}
