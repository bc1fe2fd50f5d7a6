package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu/observe"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// Where operators write what each agent is to have, and where its policy goes:
// into memory, since it is for one boot.
const (
	agentsFolder = "/etc/juliagpu-secrets/agents"
	policyFolder = "/run/juliagpu-secrets/gpu"
)

// A host is where resolve looks.
type host struct {
	root fs.ReadLinkFS // its root directory
	smi  string        // its nvidia-smi; no PATH is asked, for it runs as root
	now  func() time.Time
	places
	creds      string // systemd-creds
	engine     string // docker
	systemctl  string
	journalctl string
	after      func(time.Duration) <-chan time.Time
	disk       func(path string) int64 // bytes of the file system that has it; 0: unknown
}

func thisHost() host {
	return host{
		root: os.DirFS("/").(fs.ReadLinkFS), smi: "/usr/bin/nvidia-smi", now: time.Now, places: onHosts,
		creds: "/usr/bin/systemd-creds", engine: "/usr/bin/docker", systemctl: "/usr/bin/systemctl", journalctl: "/usr/bin/journalctl",
		after: time.After, disk: diskOf,
	}
}

func (p *program) resolve() *cobra.Command {
	var agent, agents, out string
	var show bool
	c := &cobra.Command{
		Use:   "resolve --agent NAME",
		Short: "an agent's policy, from what it is to have and what is there",
		Long: "Finds the GPUs and slices that an agent is to have on this host, and writes the policy by which the hook in its container judges. " +
			"To be run as root, on the host, each time before the agent's container starts.\n\n" +
			"What an agent is to have stands in " + agentsFolder + "/NAME/gpu.yml; docs/gpu.md says how to write it. " +
			"The files of the other agents are read, too: nobody gets what somebody else is to have.\n\n" +
			"Ends with status 75 where a GPU or a slice is gone or the machine is otherwise at fault, with 1 where a file is wrong, else with 0. " +
			"The older policy stays where there is no new one.",
		Example: "juliagpu gpu resolve --agent gpuci.3\tin ExecStartPre= of the agent's unit\n" +
			"juliagpu gpu resolve --agent gpuci.3 --print\tshows the policy, and writes nothing",
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case agent == "":
				return misused("juliagpu gpu resolve --agent gpuci.3", "whose policy? --agent is missing")
			case !gpu.IsAgent(agent):
				return misused("its folder's name, of letters, digits, dots, hyphens and underscores, such as gpuci.3", "--agent: not the name of an agent")
			case show && c.Flags().Changed("out"):
				return misused("take one of the two", "--print writes no file, and --out names one")
			}
			text, lines, err := p.resolveFor(agent, agents)
			if err != nil {
				return err
			}
			if show {
				return p.print(text)
			}
			if out == "" {
				out = filepath.Join(policyFolder, agent+".yml")
			}
			if err := writePolicy(out, text); err != nil {
				return err
			}
			width, _ := fit.Columns(p.stdout)
			return p.print(narrow(append(lines, "policy: "+escape.Text(out)), width))
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&agent, "agent", "", "whose policy")
	c.Flags().StringVar(&out, "out", "", "into this file; default: "+policyFolder+"/NAME.yml")
	c.Flags().StringVar(&agents, "agents", agentsFolder, "where the agents' folders are; default: "+agentsFolder)
	c.Flags().BoolVar(&show, "print", false, "to standard output, and into no file")
	takes(c, "agent", "NAME")
	takes(c, "out", "FILE")
	takes(c, "agents", "DIR")
	c.RegisterFlagCompletionFunc("agent", cobra.NoFileCompletions)
	c.MarkFlagDirname("agents")
	return c
}

// resolveFor is an agent's policy as the text of a file, and in lines for people.
func (p *program) resolveFor(agent, folder string) (text string, lines []string, err error) {
	intents, err := readIntents(folder)
	if err != nil {
		return "", nil, err
	}
	i := slices.IndexFunc(intents, func(i gpu.Intent) bool { return i.Agent == agent })
	if i < 0 {
		return "", nil, refuse("docs/gpu.md says how to write it", "agent %s has no %s/gpu.yml%s", agent, escape.Text(filepath.Join(folder, agent)), others(intents))
	}
	own := intents[i]
	var h gpu.Hardware
	var silent error // why nvidia-smi did not answer
	if own.Policy.Vendor == gpu.VendorNVIDIA {
		h.SMI, silent = p.host.list(slices.ContainsFunc(intents, gpu.Intent.Divides))
		h.Listed = silent == nil
	}
	// After nvidia-smi, which loads the driver where it is not.
	h.Facts, h.Now = observe.Devices(p.host.root), p.host.now()
	policy, err := gpu.Resolve(agent, intents, h)
	if silent != nil {
		if err != nil || slices.ContainsFunc(intents, gpu.Intent.Divides) || !elsewhere(silent, policy) {
			return "", nil, smiRefusal(p.host.smi, silent)
		}
		fmt.Fprintf(p.stderr, "juliagpu: warning: %s; it is none of this agent's GPUs, which the driver shows\n", smiRefusal(p.host.smi, silent))
	}
	var u *gpu.Unresolved
	if errors.As(err, &u) {
		status := 1
		if u.Machine {
			status = 75
		}
		return "", nil, &refusal{u.Error(), u.Hint(), status}
	}
	text = policyFile(own, policy, h)
	if _, err := gpu.ParsePolicy([]byte(text)); err != nil {
		return "", nil, lacking("report this: it is a mistake of juliagpu's", "what the drivers say makes no policy: %s", err)
	}
	return text, summary(agent, policy, h), nil
}

// others names the agents that there are.
func others(intents []gpu.Intent) string {
	const most = 16
	var names []string
	for _, i := range intents[:min(len(intents), most)] {
		names = append(names, i.Agent)
	}
	if more := len(intents) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	if len(names) == 0 {
		return ""
	}
	return "; there are " + strings.Join(names, ", ")
}

// list asks the host's nvidia-smi, which must be root's like all that root runs.
func (h host) list(slices bool) ([]gpu.Listing, error) {
	if _, err := rootfile.Check(h.smi, rootfile.Rule{User: os.Getuid()}); err != nil {
		return nil, err
	}
	return observe.List(observe.HostSMI(h.smi), slices)
}

var busID = regexp.MustCompile(`[0-9A-Fa-f]{4,8}(:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])`)

// elsewhere tells whether nvidia-smi failed for other GPUs than a policy's: it says
// nothing of any GPU when one has fallen off the bus, and that must not stop
// the agents of all others.
func elsewhere(err error, p gpu.Policy) bool {
	var status *observe.StatusError
	if !errors.As(err, &status) {
		return false
	}
	named := busID.FindAllStringSubmatch(status.Said, -1)
	return len(named) > 0 && !slices.ContainsFunc(named, func(m []string) bool {
		return slices.ContainsFunc(p.Devices, func(d gpu.Device) bool { return strings.HasSuffix(d.PCI, strings.ToLower(m[1])) })
	})
}

// smiRefusal says why nvidia-smi gave no answer, and what to do.
func smiRefusal(path string, err error) error {
	hint := "run it on the host, and look at dmesg"
	var status *observe.StatusError
	var untrusted *rootfile.Error
	switch {
	case errors.As(err, &untrusted):
		return distrusted(untrusted)
	case errors.Is(err, fs.ErrNotExist):
		return lacking("install the driver's tools", "%s is not there", escape.Text(path))
	case errors.As(err, &status):
		switch {
		case strings.Contains(status.Said, "version mismatch"):
			hint = "the driver was upgraded and not loaded yet: reboot"
		case strings.Contains(status.Said, "communicate with the NVIDIA driver"):
			hint = "load the driver: modprobe nvidia"
		}
		if status.Said != "" {
			return lacking(hint, "nvidia-smi: %s: %s", status, escape.Text(status.Said))
		}
	case errors.Is(err, observe.ErrChanged):
		hint = "run this again when nobody makes slices"
	case errors.Is(err, observe.ErrOldNames):
		hint = "upgrade the driver"
	}
	return lacking(hint, "nvidia-smi: %s", cause(err))
}

// policyFile is a policy with what a person who finds it has to know.
func policyFile(own gpu.Intent, p gpu.Policy, h gpu.Hardware) string {
	var b strings.Builder
	b.WriteString(fit.Wrap("Written by juliagpu gpu resolve for agent "+own.Agent+". Change "+escape.Text(own.Path)+" instead, and restart the agent.", 79, "# ", "# "))
	for _, d := range p.Devices {
		b.WriteString(fit.Wrap(name(d)+": "+strings.Join(h.Nodes(d), ", "), 79, "# ", "#   "))
	}
	return b.String() + p.YAML()
}

// summary says what an agent gets.
func summary(agent string, p gpu.Policy, h gpu.Hardware) (lines []string) {
	for _, d := range p.Devices {
		lines = append(lines, fmt.Sprintf("%s: %s: %s", agent, name(d), strings.Join(h.Nodes(d), ", ")))
	}
	switch {
	case p.Off != "":
		lines = append(lines, agent+": GPUs are not checked: "+escape.Text(p.Off))
	case len(lines) == 0:
		lines = append(lines, agent+": no GPU")
	}
	return lines
}

// name is what a resolved device is called.
func name(d gpu.Device) string {
	switch {
	case d.MIG != "":
		return fmt.Sprintf("slice %s, gi%d/ci%d of %s", d.MIG, d.GI, d.CI, d.PCI)
	case d.UUID != "":
		return fmt.Sprintf("GPU %s at %s", d.UUID, d.PCI)
	}
	return "GPU at " + d.PCI
}

// narrow is lines for a terminal of that many columns; 0 is none.
func narrow(lines []string, width int) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(broken(line, width))
	}
	return b.String()
}

// writePolicy puts a policy in its place.
func writePolicy(path, text string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	err = rootfile.Write(path, []byte(text), rootfile.Rule{User: os.Getuid()})
	var untrusted *rootfile.Error
	switch {
	case errors.As(err, &untrusted):
		return distrusted(untrusted)
	case err == nil:
		return nil
	}
	hint := "name a file with --out, in a folder on this host"
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = "run it as root, on the host"
	case errors.Is(err, unix.EISDIR):
		hint = "remove it: Docker makes a folder where a file is missing that it is to mount, so the container was started before this was run"
	case errors.Is(err, fs.ErrNotExist):
		hint = "another run for the same file was quicker, and the policy there is its: run this again"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = "make room there: the older policy stays until there is some"
	}
	return lacking(hint, "%s: %s", escape.Text(path), cause(err))
}
