package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
)

func (p *program) listAgents() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "this host's agents: kind, GPU, unit, last job",
		Long: "Lists the agents that have a folder in " + agentsFolder + ": their kind and GPUs, what systemd says of their units, and the last job, by the unit's journal. " +
			"Units and journals are root's to ask.\n\nEnds with status 1 where a folder can't be read; juliagpu doctor says more.",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			rows, err := p.rows()
			if err != nil {
				return err
			}
			if asJSON {
				text, err := json.MarshalIndent(struct {
					Schema int   `json:"schema"`
					Agents []row `json:"agents"`
				}{1, rows}, "", "  ")
				if err != nil {
					return err
				}
				return p.print(string(text) + "\n")
			}
			width, _ := fit.Columns(p.stdout)
			return p.print(table(rows, width, p.host.now()))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return c
}

// A row is one agent.
type row struct {
	Name  string   `json:"name"`
	Kind  string   `json:"kind,omitempty"`
	GPUs  []string `json:"gpus"`
	Tags  []string `json:"tags"`
	Unit  state    `json:"unit"`
	Last  *last    `json:"last_job"`
	Error string   `json:"error,omitempty"` // of its .env

	silent bool // its journal says nothing
}

// A state is that of a unit, in a word for people and as systemd has it. All of it is
// empty where systemd does not say.
type state struct {
	Is       string `json:"is"`
	Active   string `json:"active"`
	Sub      string `json:"sub"`
	Enabled  string `json:"enabled"`
	Failures int    `json:"failures"` // in a row

	start string // of the present or the last one: systemd's invocation ID
}

// A last job is the one that the agent took last.
type last struct {
	ID    string    `json:"id"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`

	start string // whose job it is
}

func (p *program) rows() (rows []row, err error) {
	entries, err := os.ReadDir(p.host.agents)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, lacking("run it as root, on the host", "%s: %s", escape.Text(p.host.agents), cause(err))
	}
	rows = []row{}
	for _, e := range entries {
		a, err := fleet.Read(p.host.agents, e.Name())
		if errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		r := row{Name: escape.Text(e.Name()), Kind: a.Kind, GPUs: append([]string{}, a.GPUs...), Tags: append([]string{}, a.Tags...)}
		if err != nil {
			r.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
			p.status = 1
		}
		r.Unit.Failures = p.host.failures(e.Name())
		rows = append(rows, r)
	}
	p.states(rows)
	for i := range rows {
		if rows[i].Unit.Active != "" {
			rows[i].Last, err = p.lastJob(rows[i].Name)
			rows[i].silent = err != nil
		}
	}
	return rows, nil
}

func unitOf(agent string) string { return "buildkite-agent@" + agent + ".service" }

// typed is an agent's unit as people type it, who need .service where a name that was
// made by hand looks like another unit's.
func typed(agent string) string {
	if fleet.Named(agent) != nil {
		return unitOf(agent)
	}
	return strings.TrimSuffix(unitOf(agent), ".service")
}

// states asks systemd.
func (p *program) states(rows []row) {
	args := []string{"show", "--property=Id,LoadState,ActiveState,SubState,UnitFileState,InvocationID", "--"}
	for _, r := range rows {
		args = append(args, unitOf(r.Name))
	}
	out, err := p.says(p.host.systemctl, args...)
	if len(rows) == 0 || err != nil {
		return
	}
	for block := range strings.SplitSeq(strings.TrimSpace(out), "\n\n") {
		is := map[string]string{}
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			is[name] = value
		}
		i := slices.IndexFunc(rows, func(r row) bool { return unitOf(r.Name) == is["Id"] })
		if i < 0 || is["ActiveState"] == "" {
			continue
		}
		u := &rows[i].Unit
		u.Active, u.Sub, u.Enabled = is["ActiveState"], is["SubState"], is["UnitFileState"] // systemd's own words
		u.start = is["InvocationID"]
		u.Is = u.words(is["LoadState"])
	}
}

// words are a unit's state for people.
func (u state) words(load string) string {
	is := u.Active
	switch {
	case load == "not-found":
		return "no unit"
	case u.Active == "active":
		is = "running"
	case u.Active == "deactivating":
		is = "draining"
	case u.Active == "inactive":
		is = "stopped"
	case u.Active == "activating" && u.Failures > 0:
		return fmt.Sprintf("waiting, failures in a row: %d", u.Failures)
	case u.Active == "activating":
		is = "starting"
	}
	if u.Enabled == "disabled" {
		is += ", not at boot"
	}
	return is
}

// What the agent says of a job (agent.AcceptAndRunJob, JobRunner.Run of v3.81).
var took = regexp.MustCompile(`(Assigned|Finished) job ([0-9a-f-]{36})\b`)

// lastJob is the one that the unit's journal has last; nil: it has none, of the last
// thousand lines.
func (p *program) lastJob(agent string) (*last, error) {
	out, err := p.says(p.host.journalctl, "--unit="+unitOf(agent), "--output=json", "--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID", "--lines=1000", "--no-pager")
	if err != nil {
		return nil, err
	}
	var job *last
	for line := range strings.Lines(out) {
		var entry struct {
			At      string          `json:"__REALTIME_TIMESTAMP"`
			Message json.RawMessage `json:"MESSAGE"`
			Start   string          `json:"_SYSTEMD_INVOCATION_ID"`
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		m := took.FindStringSubmatch(message(entry.Message))
		us, err := strconv.ParseInt(entry.At, 10, 64)
		switch {
		case m == nil || err != nil:
		case m[1] == "Assigned":
			job = &last{ID: m[2], Began: time.UnixMicro(us).UTC(), start: entry.Start}
		case job != nil && job.ID == m[2]:
			job.Ended = time.UnixMicro(us).UTC()
		}
	}
	return job, nil
}

// message is one of the journal's: text, or bytes where it has colours.
func message(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var numbers []byte
	var each []int
	if json.Unmarshal(raw, &each) == nil {
		for _, n := range each {
			numbers = append(numbers, byte(n))
		}
	}
	return string(numbers)
}

// says is what a program prints.
func (p *program) says(path string, args ...string) (string, error) {
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"LANG=C", "PATH=/usr/bin:/bin", "SYSTEMD_COLORS=0"}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		first, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
		err = errors.New(escape.Text(cmp.Or(first, exit.String())))
	}
	return string(out), err
}

// job is the last one in words.
func (r row) job(now time.Time) string {
	switch {
	case r.silent, r.Last == nil && r.Unit.Active == "":
		return "unknown"
	case r.Last == nil:
		return "none yet"
	case r.Last.Ended.IsZero() && (r.Unit.Active != "active" && r.Unit.Active != "deactivating" || r.Last.start != "" && r.Last.start != r.Unit.start):
		return ago(now.Sub(r.Last.Began)) + " ago, cut off"
	case r.Last.Ended.IsZero():
		return "runs for " + ago(now.Sub(r.Last.Began))
	}
	return ago(now.Sub(r.Last.Ended)) + " ago"
}

// ago is a time in one unit.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// table is all agents in columns, or below one another where those have no room. A
// width of 0 is none.
func table(rows []row, width int, now time.Time) string {
	if len(rows) == 0 {
		return "no agents; juliagpu agent new NAME makes one\n"
	}
	cells := [][]string{{"agent", "kind", "unit", "last job", "GPU"}}
	for _, r := range rows {
		if r.Error != "" {
			cells = append(cells, []string{r.Name, "error", cmp.Or(r.Unit.Is, "unknown"), r.job(now), r.Error})
			continue
		}
		cells = append(cells, []string{r.Name, r.Kind, cmp.Or(r.Unit.Is, "unknown"), r.job(now), strings.Join(r.GPUs, " ")})
	}
	wide := make([]int, 4)
	most := 0
	for _, line := range cells {
		for i := range wide {
			wide[i] = max(wide[i], utf8.RuneCountInString(line[i])+2)
		}
		most = max(most, utf8.RuneCountInString(line[4]))
	}
	var b strings.Builder
	if width > 0 && wide[0]+wide[1]+wide[2]+wide[3]+most > width {
		for _, line := range cells[1:] {
			b.WriteString(line[0] + "\n")
			for i, text := range line[1:] {
				if text != "" {
					b.WriteString(fit.Wrap(text, width, "  "+cells[0][i+1]+": ", "    "))
				}
			}
		}
		return b.String()
	}
	for _, line := range cells {
		var text string
		for i, cell := range line[:4] {
			text += cell + strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
		}
		b.WriteString(strings.TrimRight(text+line[4], " ") + "\n")
	}
	return b.String()
}
