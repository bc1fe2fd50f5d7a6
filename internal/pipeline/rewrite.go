package pipeline

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Scalar is one text of a file that SECRET_* entries have: one entry, or several
// that share it by an anchor (&) and aliases (*).
type Scalar struct {
	Text    string
	Line    int // from 1, of its first entry's name
	Entries []Sealed
}

// Names are the variables that have s, each once.
func (s Scalar) Names() (all []string) {
	for _, e := range s.Entries {
		if !slices.Contains(all, e.Name) {
			all = append(all, e.Name)
		}
	}
	return all
}

// Steps are the steps that have s; none: all of them.
func (s Scalar) Steps() (all []string) {
	for _, e := range s.Entries {
		if len(e.Steps) == 0 {
			return nil
		}
		for _, step := range e.Steps {
			if !slices.Contains(all, step) {
				all = append(all, step)
			}
		}
	}
	return all
}

// A held scalar is one with its place in the tree.
type held struct {
	Scalar
	node   *yaml.Node
	indent int  // column, from 0, of the collection that holds it
	flow   bool // in braces or brackets
}

// Scalars returns the texts of the SECRET_* entries that Find returns, each once and
// in the file's order. The error is an *Error.
func Scalars(file []byte) ([]Scalar, error) {
	root, err := parse(file)
	if err != nil {
		return nil, err
	}
	all, err := scalars(root)
	if err != nil {
		return nil, err
	}
	var texts []Scalar
	for _, s := range all {
		texts = append(texts, s.Scalar)
	}
	return texts, nil
}

func scalars(root *yaml.Node) ([]*held, error) {
	found, err := sealedEntries(root)
	if err != nil {
		return nil, err
	}
	byNode := map[*yaml.Node]*held{}
	var all []*held
	for _, f := range found {
		s := byNode[f.value]
		if s == nil {
			s = &held{Scalar: Scalar{Text: f.Text, Line: f.Line}, node: f.value}
			byNode[f.value] = s
			all = append(all, s)
		}
		s.Entries = append(s.Entries, f.Sealed)
	}
	locate(root, byNode)
	return all, nil
}

// locate notes where in the tree each scalar is.
func locate(n *yaml.Node, byNode map[*yaml.Node]*held) {
	for _, c := range n.Content {
		if s := byNode[c]; s != nil {
			s.flow = n.Style&yaml.FlowStyle != 0
			s.indent = n.Column - 1
			if n.Kind == yaml.MappingNode { // whose own column may be that of an anchor
				s.indent = n.Content[0].Column - 1
			}
		}
		locate(c, byNode)
	}
}

// Rewrite returns the file with other texts in the place of some that Scalars
// returns: texts holds them by their place in that list, and each is base64. Of the
// file nothing but those texts changes: not their quotes, as long as a text stands in
// its line as it is. left says which ones stay, and why: an *Error each, as is err,
// with which nothing is rewritten.
func Rewrite(file []byte, texts map[int]string) (edited []byte, left map[int]error, err error) {
	root, err := parse(file)
	if err != nil {
		return nil, nil, err
	}
	all, err := scalars(root)
	if err != nil {
		return nil, nil, err
	}
	source := newSource(file)
	left = map[int]error{}
	var splices []splice
	for i, s := range all {
		text, ok := texts[i]
		if !ok {
			continue
		}
		if err := checkText(s.Entries[0].Name, text); err != nil {
			return nil, nil, err
		}
		edit, err := source.rewrite(s, text)
		if err != nil {
			left[i] = &Error{Line: s.Line, Cause: "laid out in a way that can't be rewritten safely here", hint: rewriteHint}
			continue
		}
		splices = append(splices, edit)
	}
	slices.SortFunc(splices, func(a, b splice) int { return cmp.Compare(a.start, b.start) })
	at := 0
	for _, s := range splices {
		edited = append(append(edited, file[at:s.start]...), s.insert...)
		at = s.end
	}
	edited = append(edited, file[at:]...)

	if len(edited) > MaxFile {
		return nil, nil, &Error{Cause: fmt.Sprintf("it would be larger than %d MiB", MaxFile>>20), hint: "fewer recipients, or X25519 ones, or several files"}
	}
	// rewrite has made the same changes in the tree.
	if again, err := parse(edited); err != nil || !same(root, again) {
		return nil, nil, &Error{Cause: "laid out in a way that can't be rewritten safely here", hint: rewriteHint}
	}
	return edited, left, nil
}

const rewriteHint = "write each sealed value in one line, in double quotes, as encrypt prints it"

// rewrite returns the bytes to change, and makes the same change in the tree.
func (src source) rewrite(s *held, text string) (splice, error) {
	n := s.node
	start := src.offset(n)
	end, err := src.end(n, s.indent, s.flow)
	if err != nil {
		return splice{}, err
	}
	if absent(n) || start >= end {
		return splice{}, errUnsure
	}
	if n.Style&yaml.TaggedStyle == 0 {
		n.Tag = "!!str"
	}
	raw := src.text[start:end]
	// A block text's line break belongs to it, and a sealed value has none.
	whole := strings.TrimRight(s.Text, "\r\n") == s.Text
	if at := bytes.Index(raw, []byte(s.Text)); whole && at >= 0 && bytes.LastIndex(raw, []byte(s.Text)) == at {
		n.Value = text
		return splice{start + at, start + at + len(s.Text), text}, nil
	}
	start = src.body(start, s.flow)
	insert := `"` + text + `"`
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		// What follows the indicators is a comment, which stays.
		behind, _ := src.header(start)
		rest, err := src.restOfLine(behind)
		if err != nil {
			return splice{}, err
		}
		insert += strings.TrimRight(string(src.text[behind:rest]), " \t")
	}
	n.Value, n.Style = text, n.Style&yaml.TaggedStyle|yaml.DoubleQuotedStyle
	return splice{start, end, insert}, nil
}
