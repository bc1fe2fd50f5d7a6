// Package fleet reads what the agents of a host are: a folder each, with the
// settings that Compose puts into the template of its kind.
//
//	/etc/juliagpu-secrets/agents
//	├── host.env           what all of them share, also in Compose's form
//	└── gpuci.3
//	    ├── .env           NAME=value: name, kind, GPU, limits
//	    ├── compose.yml    includes the template
//	    └── gpu.yml        what juliagpu gpu resolve starts from
package fleet

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

// Dir is where operators keep their agents' folders.
const Dir = "/etc/juliagpu-secrets/agents"

// Kinds are the templates of deploy/compose, by their files' names.
var Kinds = []string{"upload", "cpu", "nvidia", "nvidia-cdi", "mig", "graphics", "amd", "intel", "benchmark"}

// An Agent is what one folder says. Zero values are what it leaves to the template.
type Agent struct {
	Name string // of the folder, too
	Dir  string
	Kind string
	// Project is Compose's name for the folder. No two agents have the same.
	Project  string
	Tags     []string // queue=cuda
	Priority int
	GPUs     []string // UUIDs of GPUs or slices, or PCI addresses
	Render   int      // the number of the group that owns the host's render nodes
	Base     string   // the image to stand on
	Image    string   // what is built on it

	CPUs                          float64
	Memory, SHM, Cache            int64 // bytes
	JuliaCPUThreads, JuliaThreads int
}

// Container is the name of an agent's container.
func Container(name string) string { return "buildkite-agent-" + name }

// taken are what no agent's name ends in, each with what is called so.
var taken = map[string]string{
	"img": "the file of an agent's room", "env": "a file of settings", "drain": "what a drain notes",
	"conf": "a drop-in of systemd's", "d": "a folder of systemd's", "wants": "a folder of systemd's", "requires": "a folder of systemd's",
	// systemctl adds no .service to them (systemd.unit(5)).
	"service": "a unit of systemd's", "socket": "a unit of systemd's", "device": "a unit of systemd's", "mount": "a unit of systemd's", "automount": "a unit of systemd's",
	"swap": "a unit of systemd's", "target": "a unit of systemd's", "path": "a unit of systemd's", "timer": "a unit of systemd's", "slice": "a unit of systemd's",
	"scope": "a unit of systemd's",
}

// Named says why a new agent can't have a name, if it can't. Of what names are made
// says gpu.IsAgent.
func Named(name string) error {
	end := name[strings.LastIndexByte(name, '.')+1:]
	what, is := taken[strings.ToLower(end)]
	if !is || end == name {
		return nil
	}
	return fmt.Errorf("no agent's name ends in .%s: so is called %s", end, what)
}

// An Error says what is wrong with a folder.
type Error struct {
	Path string
	Line int // 0: the whole file
	Text string

	hint string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return escape.Text(e.Path) + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", escape.Text(e.Path), e.Line, e.Text)
}

// Hint says what to do.
func (e *Error) Hint() string { return e.hint }

// Read reads the agent of that name. The error is an *Error, a *rootfile.Error
// where somebody else could have changed the file, or the file system's.
func Read(dir, name string) (Agent, error) {
	text, err := read(filepath.Join(dir, name, ".env"))
	if err != nil {
		return Agent{}, err
	}
	return Of(dir, name, text)
}

// Of is Read of that .env. The error is an *Error.
func Of(dir, name, env string) (Agent, error) {
	a := Agent{Name: name, Dir: filepath.Join(dir, name), Project: project(name)}
	path := filepath.Join(a.Dir, ".env")
	values, err := Parse(path, env)
	if err != nil {
		return Agent{}, err
	}
	for _, v := range values {
		if err := a.set(v); err != nil {
			return Agent{}, &Error{path, v.Line, v.Name + ": " + err.Error(), "docs/operators.md lists what an agent's .env may say"}
		}
	}
	for _, name := range []string{"AGENT_NAME", "AGENT_KIND", "AGENT_TAGS", "AGENT_IMAGE"} {
		if !slices.ContainsFunc(values, func(v Value) bool { return v.Name == name }) {
			return Agent{}, &Error{path, 0, name + " is missing", "juliagpu agent new writes all of them"}
		}
	}
	return a, nil
}

// All reads every agent, by name. Folders without .env are none. The error joins
// those of the agents that can't be read; the others are returned beside it.
func All(dir string) ([]Agent, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var agents []Agent
	var wrong []error
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), ".env")); err != nil {
			continue
		}
		a, err := Read(dir, e.Name())
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		for _, b := range agents {
			if a.Project == b.Project {
				wrong = append(wrong, &Error{a.Dir, 0, fmt.Sprintf("Compose can't tell it from %s: it calls both %s", b.Name, a.Project), "rename one of the two folders"})
			}
		}
		agents = append(agents, a)
	}
	return agents, errors.Join(wrong...)
}

// project is Compose's name for a folder of that name (compose-go,
// loader.NormalizeProjectName).
func project(name string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-' {
			b.WriteRune(c)
		}
	}
	return strings.TrimLeft(b.String(), "_-")
}

// maxEnv bounds a file: nobody writes as much by hand.
const maxEnv = 64 << 10

func read(path string) (string, error) {
	f, _, err := rootfile.Open(path, rootfile.Rule{User: os.Getuid()})
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxEnv+1))
	if err == nil && len(text) > maxEnv {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("larger than 64 KiB")}
	}
	return string(text), err
}

// A Value is one line of a file.
type Value struct {
	Name, Text string
	Line       int
}

var setting = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)=(.*)$`)

// Parse reads lines of the form NAME=value, and comments. Compose reads the same
// files, and would change values with quotes, dollar signs, backslashes, comments
// or blanks at an end: these are errors, so that both read the same. path is for
// the error, an *Error.
func Parse(path, text string) ([]Value, error) {
	var all []Value
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := setting.FindStringSubmatch(line)
		switch {
		case m == nil:
			return nil, &Error{path, n, "not of the form NAME=value", "no blanks around the name, no export"}
		case strings.ContainsAny(m[2], "\"'`$\\") || strings.TrimSpace(m[2]) != m[2] || strings.Contains(m[2], " #") || escape.Text(m[2]) != m[2]:
			return nil, &Error{path, n, m[1] + ": Compose would read its value differently", "write it without quotes, dollar signs, backslashes, comments and blanks at its ends"}
		case slices.ContainsFunc(all, func(v Value) bool { return v.Name == m[1] }):
			return nil, &Error{path, n, m[1] + " stands there twice", "keep one"}
		}
		all = append(all, Value{m[1], m[2], n})
	}
	return all, nil
}

var (
	tag  = regexp.MustCompile(`^[A-Za-z0-9_.-]+=[^,\s=]+$`)
	unit = regexp.MustCompile(`^([1-9][0-9]{0,9})([kmg])b?$`)
	card = regexp.MustCompile(`^(?:(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$`)
)

// set takes one value over. A name that begins with AGENT_ and is none of ours is
// a mistake; others are the operator's own.
func (a *Agent) set(v Value) (err error) {
	switch v.Name {
	case "AGENT_NAME":
		if v.Text != a.Name || !gpu.IsAgent(v.Text) {
			return fmt.Errorf("not %q, the folder's name", a.Name)
		}
	case "AGENT_KIND":
		if !slices.Contains(Kinds, v.Text) {
			return errors.New("none of " + strings.Join(Kinds, ", "))
		}
		a.Kind = v.Text
	case "AGENT_TAGS":
		a.Tags = strings.Split(v.Text, ",")
		for _, t := range a.Tags {
			if !tag.MatchString(t) {
				return errors.New("not of the form queue=cuda,cap=sm_80")
			}
		}
	case "AGENT_PRIORITY":
		a.Priority, err = strconv.Atoi(v.Text)
		if err != nil {
			return errors.New("not a number")
		}
	case "AGENT_GPU":
		a.GPUs = strings.Split(v.Text, ",")
		for i, g := range a.GPUs {
			if !card.MatchString(g) || slices.Contains(a.GPUs[:i], g) {
				return errors.New("not UUIDs (nvidia-smi -L) or PCI addresses (0000:03:00.0), each once, separated by commas")
			}
		}
	case "AGENT_RENDER_GID":
		a.Render, err = strconv.Atoi(v.Text)
		if err != nil || a.Render < 1 {
			return errors.New("not the number of a group: stat -c %g /dev/dri/renderD128")
		}
	case "AGENT_BASE":
		a.Base = v.Text
	case "AGENT_IMAGE":
		a.Image = v.Text
	case "AGENT_CPUS":
		a.CPUs, err = strconv.ParseFloat(v.Text, 64)
		if err != nil || !(a.CPUs > 0 && a.CPUs < 1e5) {
			return errors.New("not a number of processors")
		}
	case "AGENT_MEMORY":
		a.Memory, err = Size(v.Text)
	case "AGENT_SHM":
		a.SHM, err = Size(v.Text)
	case "AGENT_CACHE":
		a.Cache, err = Size(v.Text)
	case "JULIA_CPU_THREADS":
		a.JuliaCPUThreads, err = threads(v.Text)
	case "JULIA_NUM_THREADS":
		a.JuliaThreads, err = threads(v.Text)
	default:
		if strings.HasPrefix(v.Name, "AGENT_") {
			return errors.New("no such setting")
		}
	}
	return err
}

// Valid says what is wrong with one setting of an agent's .env, if anything is.
func Valid(agent, name, value string) error {
	values, err := Parse("", name+"="+value)
	if wrong := (*Error)(nil); errors.As(err, &wrong) {
		return errors.New(wrong.hint)
	}
	if err != nil {
		return err
	}
	if len(values) != 1 {
		return errors.New("of one line")
	}
	return (&Agent{Name: agent}).set(values[0])
}

var (
	wholeGPUs = gpus{regexp.MustCompile(`^GPU-`), true, "UUIDs of whole GPUs, GPU-…"}
	oneSlice  = gpus{regexp.MustCompile(`^MIG-`), false, "the UUID of one slice, MIG-…"}
	oneOfBoth = gpus{regexp.MustCompile(`^(GPU|MIG)-`), false, "the UUID of one GPU or slice, GPU-… or MIG-…"}
	oneByPCI  = gpus{regexp.MustCompile(`^[0-9a-f]`), false, "one PCI address, such as 0000:03:00.0"}
)

// Gpus are those that a kind of agent has, by the form of their names.
type gpus struct {
	form    *regexp.Regexp
	several bool
	words   string
}

var ofKinds = map[string]gpus{
	"nvidia": wholeGPUs, "graphics": wholeGPUs, "benchmark": wholeGPUs, "nvidia-cdi": oneOfBoth, "mig": oneSlice, "amd": oneByPCI, "intel": oneByPCI,
}

// Has tells whether an agent of that kind has a GPU.
func Has(kind string) bool { return ofKinds[kind].form != nil }

// Fits tells whether an agent of that kind can have a GPU of that name.
func Fits(kind, name string) bool { return Has(kind) && ofKinds[kind].form.MatchString(name) }

// Agree says why an agent of that kind can't have these GPUs, if it can't.
func Agree(kind string, names []string) error {
	of := ofKinds[kind]
	switch {
	case !Has(kind) && len(names) > 0:
		return errors.New("an agent of kind " + kind + " has no GPU")
	case !Has(kind):
		return nil
	case len(names) == 0, len(names) > 1 && !of.several, slices.ContainsFunc(names, func(n string) bool { return !Fits(kind, n) }):
		return errors.New("an agent of kind " + kind + " has " + of.words)
	}
	return nil
}

func threads(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, errors.New("not a number of threads")
	}
	return n, nil
}

// mostSize bounds a size, in bytes, so that sums of them have room.
const mostSize = 1 << 50

// Size reads a size as Docker does, in bytes: 512m, 32g.
func Size(s string) (int64, error) {
	m := unit.FindStringSubmatch(strings.ToLower(s))
	if m == nil {
		return 0, errors.New("not a size such as 512m or 32g")
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	shift := map[string]int{"k": 10, "m": 20, "g": 30}[m[2]]
	if err == nil && n > mostSize>>shift {
		return 0, errors.New("more than 1048576g")
	}
	return n << shift, err
}
