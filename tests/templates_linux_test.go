package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/dock"
)

// A line of a Compose service: a key with a value, or with one of a list or a map.
type line struct{ key, value string }

// name is the line as docs/gpu.md has it.
func (l line) name() string {
	name, _, _ := strings.Cut(l.value, "=")
	switch l.key {
	case "environment", "devices": // of a device only which one it is
		if strings.HasPrefix(name, "/dev/dri/by-path/") {
			name = "/dev/dri/by-path/…"
		}
		return l.key + ": " + name
	case "volumes":
		name, _, _ = strings.Cut(name, ":")
		if dir := filepath.Dir(strings.TrimSuffix(name, "/jobs")); dir != "/etc/juliagpu-secrets" {
			name = dir + "/…"
		}
		return l.key + ": " + name
	case "tmpfs":
		name, _, _ = strings.Cut(name, ":")
		return l.key + ": " + name
	case "ulimits":
		return l.key + ": " + name
	case "shm_size", "mem_limit", "cpus", "group_add", "pids_limit": // each agent's own
		return l.key
	}
	return l.key + ": " + l.value
}

// A service is what the real Compose makes of an agent's folder.
type service struct {
	CapAdd   []string `json:"cap_add"`
	CapDrop  []string `json:"cap_drop"`
	CPUs     float64  `json:"cpus"`
	Devices  []struct{ Source, Target, Permissions string }
	Env      map[string]*string `json:"environment"`
	GroupAdd []string           `json:"group_add"`
	Init     bool
	IPC      string
	MemLimit string `json:"mem_limit"`
	Pids     int    `json:"pids_limit"`
	ReadOnly bool   `json:"read_only"`
	Runtime  string
	Security []string `json:"security_opt"`
	Shm      string   `json:"shm_size"`
	Tmpfs    []string
	Ulimits  map[string]any
	Volumes  []struct {
		Type, Source, Target string
		ReadOnly             bool `json:"read_only"`
		Bind                 map[string]bool
	}

	// What no container of the test has: it starts another program, in no network.
	Build, Command, Entrypoint, Image, Networks any
	Name                                        string `json:"container_name"`
	Pull                                        string `json:"pull_policy"`
	Signal                                      string `json:"stop_signal"`
	Grace                                       string `json:"stop_grace_period"`
}

// template is the service of an example, by the templates of deploy/compose.
func (y yard) template(t *testing.T, agent string) service {
	t.Helper()
	compose, err := agenttest.Tool(t.Context(), "docker-compose", os.Stderr)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), compose, "config", "--format=json")
	cmd.Dir = filepath.Join(y.root, "deploy", "compose", "agents", agent)
	cmd.Env = []string{"HOME=" + t.TempDir(), "TEMPLATES=" + filepath.Join(y.root, "deploy", "compose")}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.Empty(t, stderr.String()) // a variable that nobody sets
	var file struct{ Services map[string]json.RawMessage }
	require.NoError(t, json.Unmarshal(text, &file))
	require.Len(t, file.Services, 1)
	d := json.NewDecoder(bytes.NewReader(file.Services["agent"]))
	d.DisallowUnknownFields() // nothing is left out, and no privileged, pid, network_mode, restart, env_file
	var s service
	require.NoError(t, d.Decode(&s))
	return s
}

// lines are what makes a container's walls.
func (s service) lines() (all []line) {
	add := func(key string, values ...string) {
		for _, v := range values {
			all = append(all, line{key, v})
		}
	}
	add("init", strconv.FormatBool(s.Init))
	add("read_only", strconv.FormatBool(s.ReadOnly))
	add("cap_drop", s.CapDrop...)
	add("cap_add", s.CapAdd...)
	add("security_opt", s.Security...)
	add("ipc", s.IPC)
	add("tmpfs", s.Tmpfs...)
	add("shm_size", s.Shm)
	add("pids_limit", strconv.Itoa(s.Pids))
	add("mem_limit", s.MemLimit)
	add("cpus", strconv.FormatFloat(s.CPUs, 'f', -1, 64))
	add("group_add", s.GroupAdd...)
	for name := range s.Ulimits {
		add("ulimits", name)
	}
	for _, v := range s.Volumes {
		if v.Type != "bind" || v.Bind["create_host_path"] { // Docker would make a folder where a file is missing
			v.Source = v.Type
		}
		add("volumes", v.Source+":"+v.Target+map[bool]string{true: ":ro"}[v.ReadOnly])
	}
	if s.Runtime != "" {
		add("runtime", s.Runtime)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		if value := s.Env[name]; value != nil {
			add("environment", name+"="+*value)
		}
	}
	for _, d := range s.Devices {
		add("devices", d.Source+"="+d.Target+"="+d.Permissions)
	}
	return all
}

// A kind is what the test knows of an example besides.
type kind struct {
	policy string
	files  string // what the driver shows: of the own GPU alone, or of all
	all    string
}

const (
	ownTwo      = "gpu: {vendor: nvidia, devices: [{uuid: GPU-0a1b2c3d-1111-4222-8333-444455556666}, {uuid: GPU-0a1b2c3d-4444-4222-8333-444455556666}]}\n"
	ownGraphics = "gpu: {vendor: nvidia, graphics: true, devices: [{uuid: GPU-1b7ad372-8d21-4239-8e32-63449f713690, pci: \"0000:81:00.0\"}]}\n"
)

var kinds = map[string]kind{
	"cpu.1":       {noGPUs, "f6", "f6"},
	"upload.1":    {noGPUs, "f6", "f6"},
	"gpuci.1":     {ownNVIDIA, "f1", "f1-cdi"},
	"gpuci.2":     {ownNVIDIA, "f1-cdi", "f1-cdi"}, // CDI
	"gpuci.3":     {ownSlice, "f2", "f2"},
	"multigpu.1":  {ownTwo, "f3", "f1-cdi"},
	"graphics.1":  {ownGraphics, "f1", "f1-cdi"},
	"benchmark.1": {ownNVIDIA, "f1", "f1-cdi"},
	"rocm.1":      {ownAMD, "f4", "f4"},
	"oneapi.1":    {ownIntel, "f5", "f5"},
}

// flags makes of a service's lines those of docker run. A line that it does not
// know fails the test: nothing is left out.
func (y yard) flags(t *testing.T, k kind, lines []line) (flags []string, files string) {
	t.Helper()
	files = k.all
	nvidia, visible := false, "all" // an image of CUDA's says so where the service does not
	of := func(l line) []string {
		switch l.key {
		case "init":
			return []string{"--init=" + l.value}
		case "read_only":
			return []string{"--read-only=" + l.value}
		case "group_add":
			return []string{"--group-add=" + l.value}
		case "cap_drop", "cap_add", "security_opt", "ipc", "tmpfs", "shm_size", "pids_limit":
			return []string{"--" + strings.ReplaceAll(strings.Replace(l.key, "security_opt", "security-opt", 1), "_", "-") + "=" + l.value}
		case "mem_limit":
			return []string{"--memory=" + l.value}
		case "cpus": // Docker refuses more than there are
			n, err := strconv.ParseFloat(l.value, 64)
			require.NoError(t, err)
			return []string{"--cpus=" + strconv.FormatFloat(min(n, float64(runtime.NumCPU())), 'f', -1, 64)}
		case "ulimits":
			return []string{"--ulimit=" + l.value + "=0"}
		case "volumes":
			from, to, _ := strings.Cut(l.value, ":")
			return []string{"--volume=" + y.stands(t, k, from) + ":" + to}
		case "runtime":
			require.Equal(t, "nvidia", l.value)
			nvidia = true
			return nil // all of it once its variables are known
		case "environment":
			if value, ok := strings.CutPrefix(l.value, "NVIDIA_VISIBLE_DEVICES="); ok {
				visible = value
			}
			return []string{"--env=" + l.value}
		case "devices":
			if name, ok := strings.CutPrefix(l.value, "nvidia.com/gpu="); ok {
				name, _, _ = strings.Cut(name, "=")
				require.Contains(t, k.policy, name)
				return y.nvidia(2)
			}
			parts := strings.Split(l.value, "=")
			from, err := filepath.EvalSymlinks(filepath.Join(y.dir, parts[0])) // docker's own flag has the short form alone
			require.NoError(t, err)
			return []string{"--device=" + from + ":" + parts[1] + ":" + parts[2]}
		}
		require.Fail(t, "a line that the test does not know", "%s: %s", l.key, l.value)
		return nil
	}
	for _, l := range lines {
		more := of(l)
		// What no check misses would not be missed here either.
		require.True(t, len(more) > 0 || l.key == "runtime", "nothing came of %s: %s", l.key, l.value)
		flags = append(flags, more...)
	}
	if nvidia {
		more, own := y.runtime(t, k, visible)
		flags = append(flags, more...)
		if own {
			files = k.files
		}
	}
	return flags, files
}

// stands is what takes the place of a host's file or folder.
func (y yard) stands(t *testing.T, k kind, from string) string {
	t.Helper()
	switch folder, name := filepath.Split(strings.TrimSuffix(from, "/jobs")); {
	case folder == "/run/juliagpu-secrets/gpu/":
		return y.file(t, k.policy, 0o644)
	case from == "/etc/juliagpu-secrets/config.yml":
		return y.file(t, "mode: split\nidentities: [{file: /run/juliagpu-secrets/credentials/identity}]\nconsume: true\nusers: {trusted: \"4711:4711\", other: \"4712:4712\"}\n", 0o644)
	case (folder == "/run/juliagpu-secrets/agents/" || folder == "/var/lib/juliagpu-secrets/agents/") && name != "":
		dir, err := os.MkdirTemp(y.dir, "folder-")
		require.NoError(t, err)
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"))
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		return dir
	}
	require.Fail(t, "a volume that the test does not know", from)
	return ""
}

// runtime does what NVIDIA's does with its variable.
func (y yard) runtime(t *testing.T, k kind, visible string) (flags []string, own bool) {
	t.Helper()
	slices := strings.Contains(k.policy, "mig:")
	switch {
	case visible == "all" && slices:
		return append(y.nvidia(0), y.device("nvidia-caps")...), false
	case visible == "all":
		return y.nvidia(0, 1, 2, 3), false
	}
	for one := range strings.SplitSeq(visible, ",") {
		require.Contains(t, k.policy, one)
	}
	if slices {
		return append(y.nvidia(0), y.device("nvidia-caps/nvidia-cap84", "nvidia-caps/nvidia-cap85")...), true
	}
	switch k.policy {
	case ownTwo:
		return y.nvidia(0, 3), true
	case ownGraphics: // NVIDIA_DRIVER_CAPABILITIES
		return append(y.nvidia(2), y.device("nvidia-modeset")...), true
	}
	return y.nvidia(2), true
}

// A cell says which findings a line's absence gives.
type cell struct {
	findings []string // deny gpu.foreign
	used     bool
}

var finding = regexp.MustCompile(`\[([a-z.]+)\]\(#[a-z]+\) (refuses|warns|informs)`)

// bought is the table of docs/gpu.md: what each line of a fragment is for.
func (y yard) bought(t *testing.T) map[string]*cell {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(y.root, "docs", "gpu.md"))
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(page), "\n| line | without it | what it buys |\n| --- | --- | --- |\n")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	cells := map[string]*cell{}
	for row := range strings.SplitSeq(table, "\n") {
		columns := strings.Split(row, " | ")
		require.Len(t, columns, 3, row)
		var c cell
		for _, m := range finding.FindAllStringSubmatch(columns[1], -1) {
			c.findings = append(c.findings, map[string]string{"refuses": "deny ", "warns": "warn ", "informs": "info "}[m[2]]+m[1])
		}
		require.Equal(t, len(c.findings) == 0, strings.HasPrefix(columns[1], "passes"), row)
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(columns[0], -1) {
			cells[m[1]] = &c
		}
	}
	return cells
}

// policyVolume is the line by which a container has its policy.
const policyVolume = "volumes: /run/juliagpu-secrets/gpu/…"

// TestTemplates: the container of each kind of agent passes, and each line that
// makes its walls is in the documentation with the finding that misses it, or
// with the word that none does.
func TestTemplates(t *testing.T) {
	t.Parallel()
	y := containers(t)
	cells := y.bought(t)
	entries, err := os.ReadDir(filepath.Join(y.root, "deploy", "compose", "agents"))
	require.NoError(t, err)
	require.Len(t, entries, len(kinds)+1, "and host.env")
	var common []string
	for _, l := range y.template(t, "cpu.1").lines() {
		common = append(common, l.name())
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		k, lines := kinds[name], y.template(t, name).lines()
		run := func(t *testing.T, lines []line) (all []string, log string) {
			flags, files := y.flags(t, k, lines)
			r, err := y.Run(t.Context(), flags, y.files(t, files), dock.Check)
			require.NoError(t, err)
			for _, m := range verdict.FindAllStringSubmatch(r.Log, -1) {
				severity := map[string]string{"": "deny ", "warning: ": "warn ", "info: ": "info "}[m[1]]
				if one := severity + m[2]; !slices.Contains(all, one) {
					all = append(all, one)
				}
			}
			require.Equal(t, !strings.Contains(fmt.Sprint(all), "deny "), r.Status == 0, r.Log)
			return all, r.Log
		}
		var before []string // of the engine and the kernel: that there is no LSM, no user namespace
		t.Run(name, func(t *testing.T) {
			var log string
			before, log = run(t, lines)
			require.Subset(t, []string{"info container.lsm", "info container.userns"}, before, log)
		})
		for i, l := range lines {
			if l.key == "cap_add" || l.key == "environment" && !strings.HasPrefix(l.value, "NVIDIA_") {
				continue // not a wall: jobs need these
			}
			c, ok := cells[l.name()]
			require.True(t, ok, "docs/gpu.md does not say what it buys: `%s`", l.name())
			c.used = true
			if name != "cpu.1" && slices.Contains(common, l.name()) && l.name() != policyVolume || name == "upload.1" || name == "benchmark.1" {
				continue // nothing else comes of it for this kind
			}
			variants := map[string][]line{"": slices.Delete(slices.Clone(lines), i, i+1)}
			if bare, found := strings.CutSuffix(l.value, ":ro"); found && l.name() == policyVolume {
				variants[", options"] = slices.Replace(slices.Clone(lines), i, i+1, line{l.key, bare})
			}
			for variant, lines := range variants {
				t.Run(name+" without "+l.name()+variant, func(t *testing.T) {
					c := c
					if variant != "" {
						require.Contains(t, cells, l.key+variant)
						c = cells[l.key+variant]
						c.used = true
					}
					after, log := run(t, lines)
					after = slices.DeleteFunc(after, func(f string) bool { return slices.Contains(before, f) })
					require.Subset(t, c.findings, after, log)
					if name != "cpu.1" || l.name() != policyVolume { // where no GPU is open none has to be named
						require.Equal(t, len(c.findings) == 0, len(after) == 0, log)
					}
				})
			}
		}
	}
	for name, c := range cells {
		require.True(t, c.used, "no template has the line `%s`", name)
	}
}
