package observe

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// smiPath is where the runtime mounts it. No PATH is asked: a job could set it.
const smiPath = "/usr/bin/nvidia-smi"

// smi asks nvidia-smi, where it is the driver's own: on a read-only mount, and
// with no library loaded in front of the driver's.
func (o *observer) smi() gpu.SMI {
	m, found := procfs.MountOf(o.facts.Mounts, smiPath)
	switch {
	case !found || m.Point != smiPath || !m.ReadOnly():
		o.unread(gpu.FromSMI, smiPath+" is not a read-only mount of its own")
		return gpu.SMI{}
	case o.facts.Preload != "" || o.facts.Unread[gpu.FromPreload] != "":
		o.unread(gpu.FromSMI, "/etc/ld.so.preload is not empty")
		return gpu.SMI{}
	}
	s := gpu.SMI{Asked: true}
	var text []byte
	var err error
	for _, fields := range queries {
		text, err = o.SMI("--query-gpu="+strings.Join(fields, ","), "--format=csv,noheader,nounits")
		if errors.Is(err, errStatus) {
			continue // an older driver knows less, and then answers nothing
		}
		if err == nil {
			s.GPUs, err = parseSMI(fields, string(text))
		}
		break
	}
	if err == nil {
		text, err = o.SMI("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader")
		if err == nil {
			s.Processes, err = parseApps(string(text))
		}
	}
	if err == nil && mig(s) {
		text, err = o.SMI("-q", "-x")
		if err == nil {
			s.Instances, err = parseXML(text)
		}
	}
	if err != nil {
		o.unread(gpu.FromSMI, err.Error())
	}
	return s
}

func mig(s gpu.SMI) bool {
	for _, g := range s.GPUs {
		if g.MIG == "Enabled" {
			return true
		}
	}
	return false
}

var (
	baseFields = []string{"uuid", "pci.bus_id", "memory.used", "memory.total"}
	moreFields = append(baseFields[:4:4], "compute_mode", "persistence_mode", "mig.mode.current", "ecc.errors.uncorrected.volatile.total")
	allFields  = append(moreFields[:8:8], "gpu_recovery_action", "remapped_rows.failure", "remapped_rows.pending")
	// queries are what to ask for, newest first: one unknown field spoils all.
	queries = [][]string{allFields, moreFields, baseFields}
)

var errSMI = errors.New("not as nvidia-smi answers")

var gpuUUID = form(`^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// parseSMI reads one line a GPU, with the values of fields.
func parseSMI(fields []string, text string) ([]gpu.SMIGPU, error) {
	var all []gpu.SMIGPU
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "No devices") {
			continue
		}
		values := strings.Split(line, ", ")
		if len(values) != len(fields) || !plain(line) {
			return nil, errSMI
		}
		g := gpu.SMIGPU{UsedMiB: -1, TotalMiB: -1, Uncorrected: -1}
		ok := true
		for i, field := range fields {
			ok = ok && set(&g, field, strings.TrimSpace(values[i]))
		}
		if !ok || seen[g.UUID] || seen[g.PCI] {
			return nil, errSMI
		}
		seen[g.UUID], seen[g.PCI] = true, true
		all = append(all, g)
	}
	return all, nil
}

func set(g *gpu.SMIGPU, field, value string) bool {
	ok := true
	switch field {
	case "uuid":
		g.UUID, ok = value, gpuUUID().MatchString(value)
	case "pci.bus_id":
		g.PCI, ok = pciAddress(value)
	case "memory.used":
		g.UsedMiB, ok = smiNumber(value)
	case "memory.total":
		g.TotalMiB, ok = smiNumber(value)
	case "ecc.errors.uncorrected.volatile.total":
		g.Uncorrected, ok = smiNumber(value)
	case "compute_mode":
		g.ComputeMode = smiText(value)
	case "persistence_mode":
		g.Persistence = smiText(value)
	case "mig.mode.current":
		g.MIG = smiText(value)
	case "gpu_recovery_action":
		g.Recovery = smiText(value)
	case "remapped_rows.failure":
		g.RemapFailed = smiText(value)
	case "remapped_rows.pending":
		g.RemapWaits = smiText(value)
	}
	return ok
}

// smiText is empty where nvidia-smi says [N/A], [Not Supported] or the like.
func smiText(value string) string {
	if strings.HasPrefix(value, "[") || value == "N/A" {
		return ""
	}
	return value
}

// smiNumber is -1 where nvidia-smi says none.
func smiNumber(value string) (int, bool) {
	if smiText(value) == "" {
		return -1, value != ""
	}
	n, err := strconv.ParseUint(value, 10, 31)
	return int(n), err == nil
}

// plain tells whether a text is printable ASCII.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// parseApps counts processes, one a line. What nvidia-smi names them is of no use:
// their PIDs are the host's.
func parseApps(text string) (int, error) {
	n := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "No running"):
		case strings.Contains(line, ", ") && plain(line):
			n++
		default:
			return 0, errSMI
		}
	}
	return n, nil
}

// parseXML reads the slices' memory, which is nowhere else.
func parseXML(text []byte) ([]gpu.SMIInstance, error) {
	var log struct {
		GPUs []struct {
			ID      string `xml:"id,attr"`
			Devices []struct {
				GI     string `xml:"gpu_instance_id"`
				CI     string `xml:"compute_instance_id"`
				Memory struct {
					Used  string `xml:"used"`
					Total string `xml:"total"`
				} `xml:"fb_memory_usage"`
			} `xml:"mig_devices>mig_device"`
		} `xml:"gpu"`
	}
	if err := xml.Unmarshal(text, &log); err != nil {
		return nil, errSMI
	}
	var all []gpu.SMIInstance
	seen := map[string]bool{}
	for _, g := range log.GPUs {
		pci, ok := pciAddress(g.ID)
		if !ok || seen[pci] {
			return nil, errSMI
		}
		seen[pci] = true
		for _, d := range g.Devices {
			i := gpu.SMIInstance{PCI: pci}
			var oks [4]bool
			i.GI, oks[0] = smiNumber(strings.TrimSpace(d.GI))
			i.CI, oks[1] = smiNumber(strings.TrimSpace(d.CI))
			i.UsedMiB, oks[2] = smiNumber(mib(d.Memory.Used))
			i.TotalMiB, oks[3] = smiNumber(mib(d.Memory.Total))
			at := fmt.Sprint(pci, i.GI, ".", i.CI)
			if oks != [4]bool{true, true, true, true} || i.GI < 0 || i.CI < 0 || seen[at] {
				return nil, errSMI
			}
			seen[at] = true
			all = append(all, i)
		}
	}
	return all, nil
}

func mib(text string) string { return strings.TrimSuffix(strings.TrimSpace(text), " MiB") }

// A runner runs a program that may hang, flood or lie.
type runner struct {
	program  string
	most     int           // bytes of its output
	limit    time.Duration // then it is killed
	patience time.Duration // and then left behind: a GPU that hangs keeps it in the kernel
}

// smi is the real one.
var smi = runner{program: smiPath, most: mostBytes, limit: 3 * time.Second, patience: 200 * time.Millisecond}

var (
	errStatus = errors.New("exit status")
	errSlow   = errors.New("no answer in time")
)

// A StatusError is a program's exit status other than 0.
type StatusError struct {
	Status int
	Said   string // the beginning of what it printed that is no XML; not escaped
}

func (e *StatusError) Error() string { return fmt.Sprintf("%s %d", errStatus, e.Status) }

func (e *StatusError) Unwrap() error { return errStatus }

// run returns what the program prints. It has no environment that could change
// what it loads, no input, a process group of its own, and / as its directory.
// A status other than 0 is a *StatusError.
func (r runner) run(args ...string) ([]byte, error) {
	cmd := exec.Command(r.program, args...)
	cmd.Env = []string{"LANG=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := output{most: r.most, full: make(chan struct{})}
	var complaint beginning
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.WaitDelay = r.patience // for a child of its own that keeps the pipe
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	kill := func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit := time.NewTimer(r.limit)
	defer limit.Stop()
	var err error
	select {
	case err = <-ended:
	case <-out.full:
	case <-limit.C:
		err = errSlow
	}
	select {
	case <-out.full: // the program may have ended of it
		err = errLarge
	default:
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		kill() // its group is alive, since one of it has the pipe
	}
	if err == errLarge || err == errSlow {
		kill()
		patience := time.NewTimer(r.patience)
		defer patience.Stop()
		select {
		case <-ended:
		case <-patience.C: // its output may still grow, and is not looked at
		}
		return nil, err
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return nil, &StatusError{exit.ExitCode(), said(out.text.String() + "\n" + complaint.text.String())}
	case err != nil:
		return nil, err
	}
	return out.text.Bytes(), nil
}

// said is the first lines that are for people: one for each GPU that is lost.
func said(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "<") && len(lines) < 32 {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// beginning keeps the first KiB, and forgets the rest.
type beginning struct{ text bytes.Buffer }

func (b *beginning) Write(p []byte) (int, error) {
	b.text.Write(p[:min(len(p), 1024-b.text.Len())])
	return len(p), nil
}

// output takes so much and no more.
type output struct {
	text bytes.Buffer
	most int
	full chan struct{} // closed when there was more
}

func (o *output) Write(p []byte) (int, error) {
	if o.text.Len()+len(p) <= o.most {
		return o.text.Write(p)
	}
	close(o.full) // once: an error ends the copying
	return 0, errLarge
}
