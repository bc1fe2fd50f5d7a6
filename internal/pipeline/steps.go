package pipeline

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
)

// A Step is what one step of a pipeline file does.
type Step struct {
	Name    string   // as in Sealed.Steps
	Line    int      // from 1
	Command string   // all of it, a line each; empty: it runs none
	Trigger string   // the pipeline that it starts; empty: none
	Own     []Sealed // the SECRET_* entries of its own env:
}

// Steps returns the steps of a file in its order, those of groups too, and looks
// through aliases and merges. The error is an *Error.
func Steps(file []byte) ([]Step, error) {
	root, err := parse(file)
	if err != nil {
		return nil, err
	}
	s := stepper{left: maxVisits}
	if root.Kind == yaml.SequenceNode {
		s.list(root, 0)
	} else {
		s.below(root, 0)
	}
	if s.left <= 0 {
		return nil, errUnfolds
	}
	return s.steps, nil
}

type stepper struct {
	steps []Step
	left  int
}

// below goes through the steps: of a pipeline or group.
func (s *stepper) below(n *yaml.Node, depth int) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for _, e := range entries(n) {
		if e.name == "steps" {
			s.list(resolve(e.value), depth+1)
		}
	}
}

func (s *stepper) list(n *yaml.Node, depth int) {
	if depth > maxDepth {
		s.left = 0
	}
	if n.Kind != yaml.SequenceNode {
		return
	}
	for _, item := range n.Content {
		if s.left--; s.left <= 0 {
			return
		}
		node := resolve(item)
		if node.Kind != yaml.MappingNode {
			continue
		}
		step := Step{Name: nameOf(node), Line: node.Line}
		for _, e := range entries(node) {
			s.left--
			switch value := resolve(e.value); e.name {
			case "command", "commands":
				step.Command = lines(value)
			case "trigger":
				if value.Kind == yaml.ScalarNode {
					step.Trigger = value.Value
				}
			case "env":
				if value.Kind != yaml.MappingNode {
					continue
				}
				for _, variable := range entries(value) {
					s.left--
					text := resolve(variable.value)
					if strings.HasPrefix(variable.name, names.Prefix) && text.Kind == yaml.ScalarNode {
						step.Own = append(step.Own, Sealed{Name: variable.name, Text: text.Value, Line: variable.key.Line, Column: variable.key.Column, Steps: []string{step.Name}})
					}
				}
			}
		}
		s.steps = append(s.steps, step)
		s.below(node, depth+1)
	}
}

// lines is a text, or a list of them, a line each.
func lines(n *yaml.Node) string {
	if n.Kind != yaml.SequenceNode {
		return n.Value
	}
	var all []string
	for _, item := range n.Content {
		all = append(all, resolve(item).Value)
	}
	return strings.Join(all, "\n")
}
