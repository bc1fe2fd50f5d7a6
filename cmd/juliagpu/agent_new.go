package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu/observe"
)

// A setting of an agent's .env is a flag, too.
type setting struct {
	flag, value, variable string
	about                 string
	asked                 bool // on a terminal, where no flag says it
}

// envSettings are in the order of the file.
var envSettings = []setting{
	{"kind", "KIND", "AGENT_KIND", strings.Join(fleet.Kinds, ", "), true},
	{"tags", "TAGS", "AGENT_TAGS", "such as queue=cuda,cap=sm_80; default: the kind's queue", true},
	{"priority", "N", "AGENT_PRIORITY", "default: 0; higher ones get jobs first", false},
	{"gpu", "GPU", "AGENT_GPU", "UUID of a GPU or slice, of AMD's and Intel's the PCI address; default: the one that is free", true},
	{"render-gid", "GID", "AGENT_RENDER_GID", "group that owns the host's render nodes; default: found", false},
	{"base", "IMAGE", "AGENT_BASE", "the image to stand on", true},
	{"image", "IMAGE", "AGENT_IMAGE", "the name of what is built on it", false},
	{"cpus", "N", "AGENT_CPUS", "processors, at most; default: a fair share of what is left", true},
	{"memory", "SIZE", "AGENT_MEMORY", "at most, as 32g; default: a fair share of what is left", true},
	{"shm", "SIZE", "AGENT_SHM", "shared memory; default: 2g", false},
	{"cache", "SIZE", "AGENT_CACHE", "room that jobs write to, caches in it", true},
	{"threads", "N", "JULIA_CPU_THREADS", "for jobs; default: as many as --cpus", false},
}

func (p *program) newAgent() *cobra.Command {
	var dry, yes bool
	given := map[string]*string{}
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "an agent's folder, from what this host has",
		Long: "Makes the folder of an agent in " + agentsFolder + ", from what the host has: its GPUs, and what the other agents leave of them, of processors and of memory. " +
			"On a terminal it asks for what no flag says. It shows the files before it writes them, whole or not at all, and says what to do then. To be run as root, on the host.\n\n" +
			"A GPU that another agent is to have is refused; more processors, memory or disk than there are is a warning.",
		Example: "juliagpu agent new gpuci.3\tasks\n" +
			"juliagpu agent new gpuci.3 --kind nvidia --gpu GPU-… --tags queue=cuda,gpu=a100\n" +
			"juliagpu agent new upload.1 --kind upload --dry-run",
		Args:              oneAgent,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			m := maker{program: p, name: args[0], in: c.InOrStdin(), said: map[string]string{}}
			for flag, value := range given {
				if !c.Flags().Changed(flag) {
					continue
				}
				m.said[flag] = *value
				if err := m.valid(flag, *value); err != nil {
					return misused(c.CommandPath()+" --help says what it takes", "--%s: %s", flag, err)
				}
			}
			m.asks = answers(m.in) && !yes
			return m.run(dry)
		},
	}
	c.Flags().SortFlags = false
	for _, s := range envSettings {
		given[s.flag] = c.Flags().String(s.flag, "", s.about)
		takes(c, s.flag, s.value)
		c.RegisterFlagCompletionFunc(s.flag, cobra.NoFileCompletions)
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "writes nothing")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "asks nothing")
	c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(fleet.Kinds, cobra.ShellCompDirectiveNoFileComp))
	c.RegisterFlagCompletionFunc("gpu", func(*cobra.Command, []string, string) (names []string, _ cobra.ShellCompDirective) {
		m := maker{program: p}
		if m.look() == nil {
			for _, o := range m.offers {
				if len(o.Agents) == 0 {
					names = append(names, o.Name+"\t"+o.About)
				}
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// A maker makes one agent's folder.
type maker struct {
	*program
	name string
	in   io.Reader
	asks bool
	said map[string]string // by flags

	lines   *bufio.Scanner
	agents  []fleet.Agent // the others
	intents []gpu.Intent
	has     gpu.Hardware
	silent  error // why nvidia-smi says nothing
	offers  []gpu.Offer
}

func (m *maker) run(dry bool) error {
	folder := filepath.Join(m.host.agents, m.name)
	if err := fleet.Named(m.name); err != nil {
		return misused("another name, such as gpuci.3", "%s", err)
	}
	if err := m.untaken(folder); err != nil {
		return err
	}
	if os.Geteuid() != 0 && !dry {
		return refuse("run it as root, on the host; --dry-run shows what it would write", "agents' folders are root's")
	}
	if err := m.look(); err != nil {
		return err
	}
	if m.asks {
		m.show()
	}
	env, err := m.env()
	if err != nil {
		return err
	}
	agent, err := fleet.Of(m.host.agents, m.name, env)
	if err != nil {
		return hinted(err)
	}
	if err := m.agrees(agent); err != nil {
		return err
	}
	for _, line := range fleet.Over(append(slices.Clone(m.agents), agent), m.machine()) {
		fmt.Fprintf(m.stderr, "juliagpu: warning: %s\n", line)
	}
	files := []file{{".env", env}, {"compose.yml", composeFile}, {"gpu.yml", intentOf(agent)}}
	var shown strings.Builder
	for _, f := range files {
		fmt.Fprintf(&shown, "%s\n", filepath.Join(folder, f.name))
		for line := range strings.Lines(f.text) {
			shown.WriteString("  " + line)
		}
	}
	if err := m.print(shown.String()); err != nil || dry {
		return err
	}
	if m.asks && !m.confirmed("write this?") {
		return refuse("", "nothing was written")
	}
	if err := m.write(folder, agent, files); err != nil {
		return err
	}
	width, _ := fit.Columns(m.stdout)
	return m.print(narrow(m.next(folder), width))
}

// look reads what the host has, and what its agents are to have.
func (m *maker) look() error {
	var err error
	m.agents, err = fleet.All(m.host.agents)
	switch {
	case errors.Is(err, fs.ErrNotExist) && m.agents == nil:
	case err != nil:
		return hinted(err)
	default:
		if m.intents, err = readIntents(m.host.agents); err != nil {
			return err
		}
	}
	_, there := os.Stat(m.host.smi)
	if there == nil {
		m.has.SMI, m.silent = m.host.list(true)
		m.has.Listed = m.silent == nil
	}
	m.has.Facts, m.has.Now = observe.Devices(m.host.root), m.host.now()
	m.offers = gpu.Offers(m.intents, m.has)
	return nil
}

// show is what there is to choose from.
func (m *maker) show() {
	width, _ := fit.Columns(m.stderr)
	if m.silent != nil {
		fmt.Fprintf(m.stderr, "juliagpu: warning: %s\n", smiRefusal(m.host.smi, m.silent))
	}
	var lines []string
	for i, o := range m.offers {
		lines = append(lines, fmt.Sprintf("%d. %s: %s: %s", i+1, o.Name, o.About, holders(o)))
	}
	if len(lines) == 0 {
		lines = []string{"no GPU was found on this host"}
	}
	fmt.Fprint(m.stderr, narrow(lines, width))
}

func holders(o gpu.Offer) string {
	if len(o.Agents) == 0 {
		return "free"
	}
	return "of " + strings.Join(o.Agents, ", ")
}

// free are the offers that an agent of that kind could have.
func (m *maker) free(kind string) (all []gpu.Offer) {
	for _, o := range m.offers {
		vendor := map[string]gpu.Vendor{"amd": gpu.VendorAMD, "intel": gpu.VendorIntel}[kind]
		if len(o.Agents) == 0 && fleet.Fits(kind, o.Name) && (vendor == "" || vendor == o.Vendor) {
			all = append(all, o)
		}
	}
	return all
}

// A file is one to be written.
type file struct{ name, text string }

// env is the agent's .env, from what was said, and from what is asked and likely.
func (m *maker) env() (string, error) {
	values := map[string]string{}
	for _, s := range envSettings {
		value, err := m.value(s, values)
		if err != nil {
			return "", err
		}
		values[s.flag] = value
	}
	return envOf(m.name, values), nil
}

func (m *maker) untaken(folder string) error {
	if exists(folder) {
		return refuse("edit its files; or juliagpu agent remove "+m.name+", or another name", "%s is there", escape.Text(folder))
	}
	return nil
}

// agrees makes sure that the agent can be there beside the others.
func (m *maker) agrees(agent fleet.Agent) error {
	for _, other := range m.agents {
		if other.Project == agent.Project {
			return refuse("choose another name", "Compose can't tell %s from %s: it calls both %s", m.name, other.Name, agent.Project)
		}
	}
	if err := fleet.Agree(agent.Kind, agent.GPUs); err != nil {
		return misused("juliagpu agent new, on a terminal, lists what there is", "--gpu: %s", err)
	}
	return m.resolves(intentOf(agent))
}

// envOf is the .env of an agent, from settings by their flags.
func envOf(name string, values map[string]string) string {
	text := "AGENT_NAME=" + name + "\n"
	for _, s := range envSettings {
		if value := values[s.flag]; value != "" {
			text += s.variable + "=" + value + "\n"
		}
	}
	if values["threads"] != "" {
		text += "JULIA_NUM_THREADS=1\n"
	}
	return text
}

// composeFile is the compose.yml of every agent.
const composeFile = "include:\n" +
	"  - path: [\"${TEMPLATES:-/usr/share/juliagpu-secrets/compose}/${AGENT_KIND}.yml\"]\n" +
	"    env_file: [../host.env, .env]\n"

// value is what a flag says, or somebody answers, or the default.
func (m *maker) value(s setting, values map[string]string) (string, error) {
	if said, ok := m.said[s.flag]; ok {
		return said, nil
	}
	likely, err := m.likely(s.flag, values)
	if err != nil || !m.asks || !s.asked || s.flag == "gpu" && !fleet.Has(values["kind"]) {
		return likely, err
	}
	about := s.flag + ": " + s.about
	if s.flag == "gpu" {
		about += "; or numbers of the list above, with commas between"
	}
	width, _ := fit.Columns(m.stderr)
	fmt.Fprint(m.stderr, narrow([]string{about}, width))
	for {
		answer, err := m.ask(s, likely)
		if err != nil {
			return "", err
		}
		if s.flag == "gpu" {
			answer = m.numbered(answer)
		}
		err = m.valid(s.flag, answer)
		switch _, said := m.said["gpu"]; {
		case err != nil:
		case s.flag == "kind" && !said:
			_, err = m.likelyGPU(answer)
		case s.flag == "gpu":
			a := fleet.Agent{Kind: values["kind"], GPUs: strings.Split(answer, ",")}
			if err = fleet.Agree(a.Kind, a.GPUs); err == nil {
				err = m.resolves(intentOf(a))
			}
		}
		if err != nil {
			fmt.Fprintf(m.stderr, "%s: %s\n", s.flag, err)
			continue
		}
		return answer, nil
	}
}

// valid says what is wrong with what was said.
func (m *maker) valid(flag, value string) error {
	if value == "" {
		return errors.New("empty")
	}
	i := slices.IndexFunc(envSettings, func(s setting) bool { return s.flag == flag })
	if err := fleet.Valid(m.name, envSettings[i].variable, value); err != nil {
		return err
	}
	if has := m.machine().CPUs; flag == "cpus" && has > 0 {
		if n, err := strconv.ParseFloat(value, 64); err == nil && n > float64(has) {
			return fmt.Errorf("the host has %d processors, and Docker starts no container that may use more", has)
		}
	}
	return nil
}

func (m *maker) ask(s setting, likely string) (string, error) {
	fmt.Fprintf(m.stderr, "%s%s: ", s.flag, map[bool]string{true: " [" + likely + "]"}[likely != ""])
	answer, err := m.line()
	if answer == "" {
		answer = likely
	}
	return answer, err
}

// line is what somebody types.
func (m *maker) line() (string, error) {
	if m.lines == nil {
		m.lines = bufio.NewScanner(m.in)
	}
	if !m.lines.Scan() {
		return "", refuse("", "nothing was written: the answers ended")
	}
	return strings.TrimSpace(m.lines.Text()), nil
}

// numbered is an answer in which numbers stand for what show has listed.
func (m *maker) numbered(answer string) string {
	names := strings.Split(answer, ",")
	for i, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(m.offers) {
			names[i] = m.offers[n-1].Name
		}
	}
	return strings.Join(names, ",")
}

func (m *maker) confirmed(question string) bool {
	fmt.Fprintf(m.stderr, "%s [y/N] ", question)
	answer, err := m.line()
	return err == nil && slices.Contains([]string{"y", "Y", "yes"}, answer)
}

// Of what agents of a kind are made, where nobody says otherwise.
var (
	queues = map[string]string{"upload": "upload", "cpu": "cpu", "graphics": "graphics", "amd": "rocm", "intel": "oneapi"} // else cuda
	bases  = map[string]string{"upload": plain, "cpu": plain, "intel": plain, "amd": "docker.io/rocm/dev-ubuntu-24.04:7.0"}
	images = map[string]string{"upload": "plain", "cpu": "plain", "intel": "oneapi", "amd": "rocm"}
	caches = map[string]string{"upload": "5g", "mig": "20g"}
)

const (
	plain = "docker.io/library/ubuntu:24.04"
	cuda  = "docker.io/nvidia/cuda:13.0.1-devel-ubuntu24.04"
)

// likely is a setting where nobody says it, by those before it. Empty ones are left to
// the template.
func (m *maker) likely(flag string, values map[string]string) (string, error) {
	kind := values["kind"]
	or := func(all map[string]string, other string) string {
		if value, ok := all[kind]; ok {
			return value
		}
		return other
	}
	switch flag {
	case "kind":
		if !m.asks {
			return "", misused("one of "+strings.Join(fleet.Kinds, ", "), "--kind is missing")
		}
		for _, kind := range []string{"mig", "nvidia", "amd", "intel"} {
			if len(m.free(kind)) > 0 {
				return kind, nil
			}
		}
		return "cpu", nil
	case "tags":
		return "queue=" + or(queues, "cuda"), nil
	case "gpu":
		return m.likelyGPU(kind)
	case "render-gid":
		if !slices.Contains([]string{"amd", "intel", "graphics"}, kind) {
			return "", nil
		}
		return m.renderGroup(strings.Split(values["gpu"], ","))
	case "base":
		return or(bases, cuda), nil
	case "image":
		return "juliagpu-agent:" + or(images, "cuda"), nil
	case "cpus", "memory":
		cpus, memory := m.share(kind)
		return map[string]string{"cpus": strconv.Itoa(cpus), "memory": strconv.Itoa(memory) + "g"}[flag], nil
	case "cache":
		return or(caches, "40g"), nil
	case "threads":
		if n, err := strconv.ParseFloat(values["cpus"], 64); err == nil && kind != "upload" {
			return strconv.Itoa(max(1, int(n))), nil
		}
	}
	return "", nil
}

func (m *maker) likelyGPU(kind string) (string, error) {
	free := m.free(kind)
	switch {
	case !fleet.Has(kind):
		return "", nil
	case len(free) == 1, m.asks && len(free) > 0:
		return free[0].Name, nil
	}
	if m.silent != nil && len(free) == 0 {
		return "", smiRefusal(m.host.smi, m.silent)
	}
	var names []string
	for _, o := range m.offers {
		if fleet.Fits(kind, o.Name) {
			names = append(names, o.Name+" ("+holders(o)+")")
		}
	}
	if len(names) == 0 {
		return "", lacking("on the host: nvidia-smi -L, and ls -l /dev/dri/by-path", "this host has no GPU for an agent of kind %s", kind)
	}
	if len(free) == 0 {
		return "", refuse("there are "+strings.Join(names, ", "), "no GPU is free for an agent of kind %s", kind)
	}
	return "", misused("--gpu "+strings.Join(names, ", "), "--gpu is missing, and not one alone is free")
}

// renderGroup is the group of the render nodes of these GPUs.
func (m *maker) renderGroup(names []string) (string, error) {
	for _, o := range m.offers {
		if !slices.Contains(names, o.Name) || o.Render < 0 {
			continue
		}
		node := fmt.Sprintf("dev/dri/renderD%d", o.Render)
		info, err := fs.Stat(m.host.root, node)
		if err != nil {
			return "", lacking("--render-gid GID: stat -c %g /dev/dri/renderD*", "/%s: %s", node, cause(err))
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Gid > 0 {
			return strconv.Itoa(int(st.Gid)), nil
		}
		return "", lacking("groupadd -r render, and udevadm trigger; or --render-gid GID", "/%s belongs to root's group, which no job may have", node)
	}
	return "", lacking("--render-gid GID: stat -c %g /dev/dri/renderD*", "no render node of %s was found", escape.Text(strings.Join(names, ", ")))
}

// share is what an agent of that kind may have, where each GPU that is free gets as
// much of what is left.
func (m *maker) share(kind string) (cpus, gigabytes int) {
	host := m.machine()
	left, memory := host.Left(m.agents)
	among := 1
	if fleet.Has(kind) {
		among = max(1, len(m.free(kind)))
	}
	cpus, gigabytes = 8, 32
	if host.CPUs > 0 {
		cpus = int(left) / among
	}
	if host.Memory > 0 {
		gigabytes = int((memory - host.Memory/16) >> 30 / int64(among)) // the host needs some itself
	}
	switch kind {
	case "upload":
		cpus, gigabytes = min(cpus, 2), min(gigabytes, 4)
	case "cpu":
		cpus, gigabytes = min(cpus, 8), min(gigabytes, 32)
	}
	return max(cpus, 1), max(gigabytes, 1)
}

// machine is what the host has to share out.
func (m *maker) machine() (h fleet.Host) {
	// Such as 0-7,16-23 (kernel's Documentation/admin-guide/cputopology.rst).
	online, _ := fs.ReadFile(m.host.root, "sys/devices/system/cpu/online")
	for part := range strings.SplitSeq(strings.TrimSpace(string(online)), ",") {
		from, to, several := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		b := a
		if several && err == nil {
			b, err = strconv.Atoi(to)
		}
		if err != nil || b < a {
			h.CPUs = 0
			break
		}
		h.CPUs += b - a + 1
	}
	memory, _ := fs.ReadFile(m.host.root, "proc/meminfo")
	for line := range strings.Lines(string(memory)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			h.Memory = n << 10
		}
	}
	h.Disk = m.host.disk(m.host.rooms)
	return h
}

// diskOf is the size of the file system that has a folder, or is to have it.
func diskOf(path string) int64 {
	var st unix.Statfs_t
	for unix.Statfs(path, &st) != nil {
		if path == filepath.Dir(path) {
			return 0
		}
		path = filepath.Dir(path)
	}
	return int64(st.Blocks) * int64(st.Bsize)
}

// intentOf is the gpu.yml of an agent.
func intentOf(a fleet.Agent) string {
	text := "# What the agent is to have: docs/gpu.md.\ngpu:\n  vendor: "
	var key string
	switch {
	case len(a.GPUs) == 0:
		return "# What the agent is to have: docs/gpu.md.\ngpu: {vendor: none}\n"
	case a.Kind == "amd", a.Kind == "intel":
		text, key = text+a.Kind+"\n", "pci"
	default:
		text, key = text+"nvidia\n", "uuid"
	}
	if a.Kind == "graphics" {
		text += "  graphics: true\n"
	}
	text += "  devices:\n"
	whole := true
	for _, g := range a.GPUs {
		name := key
		if strings.HasPrefix(g, "MIG-") {
			name, whole = "mig", false
		}
		text += fmt.Sprintf("    - {%s: %q}\n", name, g)
	}
	switch {
	case a.Kind == "intel":
		text += "  busy: off\n" // nothing says how much of its memory is in use
	case a.Kind != "amd" && a.Kind != "graphics" && whole:
		text += "  busy: deny\n"
	}
	return text
}

// resolves makes sure that the agent's start will find its GPUs, and nobody else has
// them.
func (m *maker) resolves(text string) error {
	intent, err := gpu.ParseIntent([]byte(text))
	if err != nil {
		return lacking("report this: it is a mistake of juliagpu's", "%s", err)
	}
	intent.Agent, intent.Path = m.name, filepath.Join(m.host.agents, m.name, "gpu.yml")
	if m.silent != nil && intent.Policy.Vendor == gpu.VendorNVIDIA {
		return smiRefusal(m.host.smi, m.silent)
	}
	if len(intent.Policy.Devices) == 0 {
		return nil
	}
	_, err = gpu.Resolve(m.name, append(slices.Clone(m.intents), intent), m.has)
	if u := (*gpu.Unresolved)(nil); errors.As(err, &u) {
		hint := u.Remedy
		if u.With != "" {
			hint = "give it another; where their jobs may read each other's memory, write both by hand, with shared_with: (docs/gpu.md)"
		}
		return &refusal{u.Cause, hint, map[bool]int{true: 75, false: 1}[u.Machine]}
	}
	return err
}

// write makes the folder, whole or not at all, and one at a time: what others have
// written since is looked at again.
func (m *maker) write(folder string, agent fleet.Agent, files []file) (err error) {
	const hint = "make room, or mend the folder above it"
	above := filepath.Dir(m.host.agents)
	for _, path := range []string{above, m.host.agents} {
		if err := folderFor(path); err != nil {
			return lacking(hint, "%s", err)
		}
	}
	lock, err := os.Open(above)
	if err == nil {
		defer lock.Close()
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return lacking(hint, "%s: %s", escape.Text(above), cause(err))
	}
	for _, again := range []func() error{func() error { return m.untaken(folder) }, m.look, func() error { return m.agrees(agent) }} {
		if err := again(); err != nil {
			return err
		}
	}
	// Of runs that were killed: nobody else is at it.
	stale, _ := filepath.Glob(filepath.Join(above, ".agent-*"))
	for _, path := range stale {
		if err := os.RemoveAll(path); err != nil {
			return lacking("remove it", "%s", err)
		}
	}
	hidden, err := os.MkdirTemp(above, ".agent-*") // where nobody takes it for an agent
	if err != nil {
		return lacking(hint, "%s", err)
	}
	defer os.RemoveAll(hidden)
	made := filepath.Join(hidden, m.name)
	if err := os.Mkdir(made, 0o755); err != nil {
		return lacking(hint, "%s", err)
	}
	for _, f := range files {
		if err := written(filepath.Join(made, f.name), f.text); err != nil {
			return lacking(hint, "%s", err)
		}
	}
	if err := os.Chmod(made, 0o755); err != nil { // whatever the umask
		return lacking(hint, "%s", err)
	}
	if _, err := fleet.Read(hidden, m.name); err != nil {
		return hinted(err)
	}
	if err := os.Rename(made, folder); err != nil {
		return lacking(hint, "%s: %s", escape.Text(folder), cause(err))
	}
	return nil
}

// folderFor makes a folder that everybody can read, whatever the umask, or finds one.
func folderFor(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch err := os.Mkdir(path, 0o755); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return os.Chmod(path, 0o755)
}

func written(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
}

// next says what is left to do.
func (m *maker) next(folder string) []string {
	lines := []string{"written; next:"}
	if env := filepath.Join(m.host.agents, "host.env"); !exists(env) {
		lines = append(lines, env+" is not there: two lines, BUILDKITE_AGENT_VERSION= and BUILDKITE_AGENT_SHA256= (docs/operators.md)")
	}
	return append(lines,
		paste+"docker compose --project-directory "+folder+" build",
		paste+"juliagpu doctor --agent "+m.name,
		paste+"systemctl enable --now "+typed(m.name))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// answers tells whether somebody could answer.
func answers(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
