package pipeline

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
)

// A Sealed is one SECRET_* entry of a pipeline file. Whether its text is a
// sealed value is for envelope to say.
type Sealed struct {
	Name, Text   string
	Line, Column int      // of its name, from 1, in characters
	Steps        []string // key or label of each step that has it; none: all of them, or a template's
	Triggered    bool     // it goes to a build that a step triggers, maybe of another repository
}

// Find returns the SECRET_* entries of every env: in the file: the pipeline's,
// those of steps, of groups and of triggered builds, each once and in the file's
// order. It looks through aliases and merges. The error is an *Error.
func Find(file []byte) ([]Sealed, error) {
	root, err := parse(file)
	if err != nil {
		return nil, err
	}
	found, err := sealedEntries(root)
	if err != nil {
		return nil, err
	}
	var all []Sealed
	for _, s := range found {
		all = append(all, s.Sealed)
	}
	return all, nil
}

// A sealedEntry is a Sealed with the node that holds its text.
type sealedEntry struct {
	Sealed
	value *yaml.Node
}

func sealedEntries(root *yaml.Node) ([]*sealedEntry, error) {
	found := map[*yaml.Node]*sealedEntry{} // by the node of its name
	err := walk(root, func(env []entry, at spot) {
		for _, e := range env {
			value := resolve(e.value)
			if !strings.HasPrefix(e.name, names.Prefix) || value.Kind != yaml.ScalarNode {
				continue
			}
			s := found[e.key]
			if s == nil {
				s = &sealedEntry{Sealed{Name: e.name, Text: value.Value, Line: e.key.Line, Column: e.key.Column}, value}
				found[e.key] = s
			}
			s.Triggered = s.Triggered || at.triggered
			if at.step == nil {
				continue
			}
			if name := nameOf(at.step); !slices.Contains(s.Steps, name) {
				s.Steps = append(s.Steps, name)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *sealedEntry) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	}), nil
}

// A place is one variable of one env:.
type place struct{ path, name string }

// environments returns tag and text of every variable of every env:.
func environments(root *yaml.Node) (map[place]string, error) {
	all := map[place]string{}
	err := walk(root, func(env []entry, at spot) {
		for _, e := range env {
			v := resolve(e.value)
			all[place{at.path, e.name}] = v.ShortTag() + " " + v.Value
		}
	})
	return all, err
}

// Limits of a walk: aliases can make a small file unfold without end.
const (
	maxVisits = 1 << 18
	maxDepth  = 100
)

// A spot is where in a file a walk is.
type spot struct {
	path      string
	step      *yaml.Node // whose, if a step's
	triggered bool       // in the build: of a step that triggers one
}

type walker struct {
	visit func(env []entry, at spot)
	left  int
}

// walk calls visit for each mapping under a key env, with merges and aliases
// followed.
func walk(root *yaml.Node, visit func(env []entry, at spot)) error {
	w := &walker{visit, maxVisits}
	w.node(root, spot{}, root.Kind == yaml.SequenceNode, 0)
	if w.left <= 0 {
		return errUnfolds
	}
	return nil
}

var errUnfolds = &Error{Cause: "aliases (*) that unfold too far, or into themselves", hint: "write them out"}

// node walks one node; steps tells whether it is a list of steps.
func (w *walker) node(n *yaml.Node, at spot, steps bool, depth int) {
	if w.left--; depth > maxDepth {
		w.left = 0
	}
	if w.left <= 0 {
		return
	}
	n = resolve(n)
	switch n.Kind {
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if w.left <= 0 {
				return
			}
			in := at
			if item := resolve(item); steps && item.Kind == yaml.MappingNode {
				in.step = item
			}
			in.path += fmt.Sprintf("/%d", i)
			w.node(item, in, false, depth+1)
		}
	case yaml.MappingNode:
		all := entries(n)
		triggers := slices.ContainsFunc(all, func(e entry) bool { return e.name == "trigger" })
		for _, e := range all {
			if w.left <= 0 {
				return
			}
			in := at
			in.path += "/" + strconv.Quote(e.name)
			in.triggered = at.triggered || triggers && e.name == "build"
			if env := resolve(e.value); e.name == "env" && env.Kind == yaml.MappingNode {
				variables := entries(env)
				w.left -= len(variables)
				w.visit(variables, in)
				continue
			}
			w.node(e.value, in, e.name == "steps", depth+1)
		}
	}
}

// nameOf is what a person calls a step.
func nameOf(step *yaml.Node) string {
	name, err := stepText(step, "key", "id", "identifier", "label", "name", "group", "trigger", "command")
	if err != nil || name == "" {
		return fmt.Sprintf("the step on line %d", step.Line)
	}
	return name
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for range maxDepth {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

// entries returns what a mapping holds, its own entries first. Those of merges
// follow where no entry before has the name.
func entries(m *yaml.Node) []entry { return merge(m, nil, map[*yaml.Node]bool{}) }

func merge(n *yaml.Node, all []entry, seen map[*yaml.Node]bool) []entry {
	n = resolve(n)
	if seen[n] {
		return all
	}
	seen[n] = true
	merged := len(seen) > 1
	if n.Kind == yaml.SequenceNode { // of a merge: <<: [*a, *b]
		for _, item := range n.Content {
			all = merge(item, all, seen)
		}
	}
	if n.Kind != yaml.MappingNode {
		return all
	}
	names := map[string]bool{} // of entries before a merge; a name that a mapping itself has twice stays so
	for _, e := range all {
		names[e.name] = true
	}
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
		} else if name := resolve(key).Value; !names[name] {
			all = append(all, entry{name, key, value, merged})
		}
	}
	for _, value := range merges {
		all = merge(value, all, seen)
	}
	return all
}

// Keys returns the keys of a file's steps that have one, those of groups too, as
// escape.Text has them. The error is an *Error.
func Keys(file []byte) ([]string, error) {
	root, err := parse(file)
	if err != nil {
		return nil, err
	}
	var s search
	err = s.pipeline(root)
	return s.keys, err
}
