package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/replace"
)

// unit are the commands that an agent's unit has beside prepare. Nobody types them.
func (p *program) unit() []*cobra.Command {
	command := func(use, long string, run func(ctx context.Context, name string) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " NAME", Short: "for the agent's unit", Long: long, Hidden: true, Args: oneAgent,
			RunE: func(c *cobra.Command, args []string) error { return run(c.Context(), args[0]) },
		}
	}
	return []*cobra.Command{
		command("wait", "Waits before a start, the longer the more starts before it have failed.", p.wait),
		command("drain", "Asks an agent's container to end after its job, unless it did so before, and waits for it: $DRAIN_SECONDS, and then kills it.", p.drain),
		command("ended", "Counts failures in a row, by $SERVICE_RESULT, and takes credentials that no job consumed out of memory.", p.ended),
	}
}

// pause is how long a start waits after as many failures.
func pause(failures int) time.Duration {
	const first, most = 5 * time.Second, 5 * time.Minute
	if failures <= 0 {
		return 0
	}
	return min(first<<min(failures-1, 10), most)
}

// wait ends early, and well, where its unit is stopped: that is no failure.
func (p *program) wait(ctx context.Context, name string) error {
	n := p.host.failures(name)
	for long := pause(n); long > 0; long = 0 {
		if err := p.print(fmt.Sprintf("%s: failures in a row: %d; starts in %s; systemctl restart %s does it now\n", name, n, long, typed(name))); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
		defer stop()
		select {
		case <-p.host.after(long):
		case <-ctx.Done():
		}
	}
	return nil
}

// drain does nothing where there is no container, and none is being made. It asks none
// twice: then an agent cancels its job (clicommand.handlePoolSignals of v3.81).
func (p *program) drain(ctx context.Context, name string) error {
	limit, err := strconv.Atoi(p.getenv("DRAIN_SECONDS"))
	if err != nil || limit < 0 {
		return misused("Environment=DRAIN_SECONDS=21600 in the unit", "DRAIN_SECONDS: not a number of seconds")
	}
	compose := mainProcess(p.getenv("MAINPID"))
	long := time.Duration(limit) * time.Second
	ctx, end := context.WithTimeout(ctx, long+2*making) // where the engine hangs, too: before TimeoutStopSec=
	defer end()
	id, err := p.running(ctx, name)
	for made := p.host.after(making); err == nil && id == "" && composes(compose, made); {
		id, err = p.running(ctx, name)
	}
	if err != nil || id == "" {
		return err
	}
	if err := p.ends(ctx, name, id, long); err != nil {
		if now, asking := p.running(ctx, name); asking != nil || now == id {
			return err
		}
	}
	for late := p.host.after(making); composes(compose, late); { // by itself, now; what systemd sends would be in its status
	}
	return nil
}

// ends asks a container to end, and waits for it, or kills it.
func (p *program) ends(ctx context.Context, name, id string, long time.Duration) error {
	asked := p.host.asked(name) == id
	if err := p.print(fmt.Sprintf("%s: draining%s: a job has %s to end\n", name, map[bool]string{true: ", which it was asked for before"}[asked], long)); err != nil {
		return err
	}
	if !asked {
		if _, err := p.ask(ctx, "kill", "--signal=TERM", id); err != nil {
			return err
		}
		// After that: an agent that was not asked would not end by itself.
		if err := replace.File(p.host.drained(name), []byte(id+"\n"), nil); err != nil {
			fmt.Fprintf(p.stderr, "juliagpu: warning: another drain will cancel the job: %s\n", err)
		}
	}
	within, stop := context.WithTimeout(ctx, long)
	defer stop()
	_, err := p.ask(within, "wait", id)
	if within.Err() != nil && ctx.Err() == nil {
		if err := p.print(fmt.Sprintf("%s: killed with its job, which did not end within %s\n", name, long)); err != nil {
			return err
		}
		_, err = p.ask(ctx, "kill", id)
	}
	return err
}

// making is longer than docker compose takes for a container, or to notice its end.
const making = time.Minute

// composes waits a moment and tells whether docker compose lives on, the unit's main
// process ($MAINPID: systemd.exec(5)). What systemd sends it comes too early while it
// makes a container: Docker's program older than 25 keeps SIGTERM from Compose, which
// then starts an agent that nobody asks to end. One that lives too long is killed.
func composes(compose *os.Process, late <-chan time.Time) bool {
	if compose == nil || compose.Signal(syscall.Signal(0)) != nil {
		return false
	}
	select {
	case <-late:
		compose.Kill() // and so systemd the rest of the unit (KillMode=mixed)
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// mainProcess holds the process itself (pidfd_open(2)): in the hours that a job takes its
// number may become another's.
func mainProcess(pid string) *os.Process {
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		return nil
	}
	process, err := os.FindProcess(n)
	if err != nil {
		return nil
	}
	return process
}

// running is the ID of an agent's container; empty: none runs.
func (p *program) running(ctx context.Context, name string) (string, error) {
	return p.ask(ctx, "ps", "--quiet", "--no-trunc", "--filter="+named(name))
}

// drained is the file that has the ID of the container that an agent's drain asked last.
func (at places) drained(name string) string { return filepath.Join(at.failed, name+".drain") }

// asked is that ID.
func (at places) asked(name string) string {
	text, err := readFile(at.drained(name), 128)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// named is the engine's filter for an agent's container, and no other.
func named(agent string) string {
	return "name=^/" + strings.ReplaceAll(fleet.Container(agent), ".", `\.`) + "$"
}

// ask asks the engine.
func (p *program) ask(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.host.engine, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = errors.New(escape.Text(cmp.Or(strings.TrimSpace(string(exit.Stderr)), exit.String())))
	}
	if err != nil {
		return "", lacking("systemctl status docker", "docker %s: %s", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (p *program) ended(_ context.Context, name string) error {
	result := p.getenv("SERVICE_RESULT")
	if result == "" {
		return misused("systemctl stop "+typed(name)+" ends an agent", "SERVICE_RESULT is missing: only systemd knows how a unit ended")
	}
	room, start := p.host.room(name), filepath.Join(p.host.starts, name)
	if _, err := os.Lstat(start); err == nil && room.Unused() == nil {
		if err := empty(start); err != nil {
			return err
		}
	}
	path := filepath.Join(p.host.failed, name)
	if result == "success" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return lacking("remove it", "%s", err)
		}
		return nil
	}
	if err := replace.File(path, []byte(strconv.Itoa(p.host.failures(name)+1)+"\n"), nil); err != nil {
		return lacking("is /run full? df /run", "%s", err)
	}
	return nil
}

// failures is how often in a row an agent has failed. What can't be read counts as
// none: it delays no start.
func (at places) failures(name string) int {
	text, err := readFile(filepath.Join(at.failed, name), 32)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 0 {
		return 0
	}
	return min(n, 1e6)
}
