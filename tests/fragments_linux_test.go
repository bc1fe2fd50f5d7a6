package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

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
		return l.key + ": /run/juliagpu-secrets/gpu/…"
	case "tmpfs":
		name, _, _ = strings.Cut(name, ":")
		return l.key + ": " + name
	case "ulimits":
		return l.key + ": " + name
	}
	return l.key + ": " + l.value
}

// fragment reads the lines of one of deploy/compose/fragments.
func fragment(t *testing.T, path string) []line {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var file struct {
		Services struct{ Buildkite yaml.Node }
	}
	require.NoError(t, yaml.Unmarshal(text, &file))
	service := file.Services.Buildkite
	var all []line
	for i := 0; i < len(service.Content); i += 2 {
		key, value := service.Content[i].Value, service.Content[i+1]
		switch value.Kind {
		case yaml.ScalarNode:
			all = append(all, line{key, value.Value})
		case yaml.SequenceNode:
			for _, item := range value.Content {
				all = append(all, line{key, long(t, item)})
			}
		case yaml.MappingNode:
			for i := 0; i < len(value.Content); i += 2 {
				all = append(all, line{key, value.Content[i].Value + "=" + value.Content[i+1].Value})
			}
		}
	}
	return all
}

// long is an item of a list: a text, or a device in its long form.
func long(t *testing.T, item *yaml.Node) string {
	t.Helper()
	if item.Kind == yaml.ScalarNode {
		return item.Value
	}
	var device struct{ Source, Target, Permissions string }
	require.NoError(t, item.Decode(&device))
	require.Len(t, item.Content, 6, "what long does not know")
	return device.Source + "=" + device.Target + "=" + device.Permissions
}

// A kind is what the test knows of a fragment besides.
type kind struct {
	policy string
	files  string // what the driver shows: of the own GPU alone, or of all
	all    string
}

var kinds = map[string]kind{
	"none":           {noGPUs, "f6", "f6"},
	"nvidia-runtime": {ownNVIDIA, "f1", "f1-cdi"},
	"nvidia-cdi":     {ownNVIDIA, "f1-cdi", "f1-cdi"},
	"nvidia-mig":     {ownSlice, "f2", "f2"},
	"amd":            {ownAMD, "f4", "f4"},
	"intel":          {ownIntel, "f5", "f5"},
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
		case "cap_drop", "cap_add", "security_opt", "ipc", "tmpfs", "shm_size", "pids_limit":
			return []string{"--" + strings.ReplaceAll(strings.Replace(l.key, "security_opt", "security-opt", 1), "_", "-") + "=" + l.value}
		case "mem_limit":
			return []string{"--memory=" + l.value}
		case "cpus": // Docker refuses more than there are
			n, err := strconv.Atoi(l.value)
			require.NoError(t, err)
			return []string{"--cpus=" + strconv.Itoa(min(n, runtime.NumCPU()))}
		case "ulimits":
			return []string{"--ulimit=" + l.value}
		case "volumes":
			from, to, _ := strings.Cut(l.value, ":")
			require.Regexp(t, `^/run/juliagpu-secrets/gpu/[a-z0-9.]+\.yml$`, from)
			return []string{"--volume=" + y.file(t, k.policy, 0o644) + ":" + to}
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
				require.Contains(t, k.policy, name)
				return y.nvidia(2)
			}
			parts := strings.Split(l.value, "=")
			if len(parts) == 1 {
				parts = []string{parts[0], parts[0], "rwm"}
			}
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
	require.Contains(t, k.policy, visible)
	if slices {
		return append(y.nvidia(0), y.device("nvidia-caps/nvidia-cap84", "nvidia-caps/nvidia-cap85")...), true
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

// TestFragments: each Compose fragment passes, and each of its lines is in the
// documentation with the finding that misses it, or with the word that none does.
func TestFragments(t *testing.T) {
	t.Parallel()
	y := containers(t)
	cells := y.bought(t)
	dir := filepath.Join(y.root, "deploy", "compose", "fragments")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, len(kinds))
	common := fragment(t, filepath.Join(dir, "none.yml"))
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".yml")
		k, ok := kinds[name]
		require.True(t, ok, name)
		lines := fragment(t, filepath.Join(dir, e.Name()))
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
			if l.key == "cap_add" {
				continue // not a wall: jobs need these
			}
			c, ok := cells[l.name()]
			require.True(t, ok, "docs/gpu.md does not say what it buys: `%s`", l.name())
			c.used = true
			if name != "none" && slices.Contains(common, l) {
				continue // nothing else comes of it in this fragment
			}
			variants := map[string][]line{"": slices.Delete(slices.Clone(lines), i, i+1)}
			if bare, found := strings.CutSuffix(l.value, ":ro"); found {
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
					if name != "none" || l.key != "volumes" { // where no GPU is open none has to be named
						require.Equal(t, len(c.findings) == 0, len(after) == 0, log)
					}
				})
			}
		}
	}
	for name, c := range cells {
		require.True(t, c.used, "no fragment has the line `%s`", name)
	}
}
