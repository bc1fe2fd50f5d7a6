// Package pipeline edits pipeline.yml and leaves every other byte alone.
//
// A YAML library can't write such a file back without reformatting it. So yaml
// says where things are, layout.go where they end, and the edit is a splice of
// bytes. Before a splice leaves this package it is read again and must have
// changed one entry of one env: and nothing else.
package pipeline

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
)

// MaxFile is the largest pipeline file, in bytes.
const MaxFile = 1 << 20

// An Error says why a file was not edited or not read, and where. Of the file
// it holds names and nothing else: a value may be a secret pasted raw.
type Error struct {
	Line   int // from 1; 0: the file as a whole
	Column int // from 1, in characters; 0: the line as a whole
	Cause  string

	hint string
}

func (e *Error) Error() string {
	at := ""
	for _, n := range []int{e.Line, e.Column} {
		if n > 0 {
			at += strconv.Itoa(n) + ":"
		}
	}
	if at != "" {
		at += " "
	}
	return at + e.Cause
}

// Hint says what a person can do by hand.
func (e *Error) Hint() string { return e.hint }

func refuse(at *yaml.Node, hint, format string, args ...any) error {
	return &Error{at.Line, at.Column, fmt.Sprintf(format, args...), hint}
}

// Where names the env: that gets an entry.
type Where struct {
	Step string // the step's key, id or identifier; empty: the whole pipeline
}

// An Action is what became of an entry.
type Action int

const (
	Unchanged Action = iota // it stands there already, byte for byte
	Added
	Replaced
)

// A Change says what Set did.
type Change struct {
	Action Action
	Line   int // of the entry's name in the edited file, from 1
}

// Set returns the file with NAME: "text" in the env: that where names. It
// replaces the value of an entry that is there, whatever its quotes, or adds a
// line below the last entry, or an env: of two lines: for a step at its end, for
// the pipeline above steps:. All bytes around that stay, comments too.
//
// name is a SECRET_* variable, text base64. The error is an *Error.
func Set(file []byte, where Where, name, text string) ([]byte, Change, error) {
	if err := checkEntry(name, text); err != nil {
		return nil, Change{}, err
	}
	root, err := parse(file)
	if err != nil {
		return nil, Change{}, err
	}
	before, err := environments(root)
	if err != nil {
		return nil, Change{}, err
	}
	t, err := find(root, where)
	if err != nil {
		return nil, Change{}, err
	}
	p := plan{newSource(file), t, name, text, t.holder}
	s, action, err := p.make()
	if err != nil {
		return nil, Change{}, err
	}
	edited := slices.Concat(file[:s.start], []byte(s.insert), file[s.end:])
	// plan has made the same change in the tree.
	line, err := verify(root, before, edited, where, name, text)
	switch {
	case err != nil && s.end == len(file) && !bytes.HasSuffix(file, []byte("\n")):
		// A block text that the end of the file cuts off has no line break at its end.
		return nil, Change{}, refuse(p.near, "end the file with a line break first", "the last text of the file would get a line break at its end")
	case err != nil:
		return nil, Change{}, refuse(p.near, p.byHand(), "the file is laid out in a way that can't be edited safely here: %s", err)
	}
	if bytes.Equal(edited, file) {
		action = Unchanged
	}
	return edited, Change{action, line}, nil
}

// checkEntry accepts what can stand in the line without any escaping.
func checkEntry(name, text string) error {
	label, ok := strings.CutPrefix(name, names.Prefix)
	if err := names.Check(label); !ok || err != nil {
		return &Error{Cause: "not a name that a sealed value can have", hint: "it is " + names.Prefix + " and the variable's name"}
	}
	return checkText(name, text)
}

func checkText(name, text string) error {
	if text == "" || len(text) > envelope.MaxSealed || strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") != "" {
		return &Error{Cause: escape.Text(name) + ": not the base64 of a sealed value", hint: "seal it with encrypt"}
	}
	return nil
}

// parse returns the one document of a file, or says what is wrong with it in
// words of ours: the library's may quote the file.
func parse(file []byte) (*yaml.Node, error) {
	if len(file) > MaxFile {
		return nil, &Error{Cause: fmt.Sprintf("larger than %d MiB", MaxFile>>20), hint: "is it a pipeline file?"}
	}
	if line := strangeLine(file); line > 0 {
		return nil, &Error{Line: line, Cause: "not text in UTF-8, or a line break other than LF and CR LF", hint: "save the file as UTF-8, with one kind of line end"}
	}
	var root, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(file))
	switch err := d.Decode(&root); {
	case err == io.EOF || err == nil && len(root.Content) == 0:
		return nil, &Error{Cause: "an empty file", hint: "write its steps: first"}
	case err != nil:
		return nil, syntaxError(file, err)
	}
	switch err := d.Decode(&second); {
	case err == nil:
		return nil, refuse(&second, "keep one: Buildkite reads no more than the first", "a second document")
	case err != io.EOF:
		return nil, syntaxError(file, err)
	}
	return root.Content[0], nil
}

// strangeLine finds the first line that is not UTF-8 or ends in what YAML takes
// for a line break and editors do not. Zero: there is none.
func strangeLine(file []byte) int {
	for i, line := range bytes.SplitAfter(file, []byte("\n")) {
		body := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if !bytes.HasSuffix(line, []byte("\n")) {
			body = line
		}
		if !utf8.Valid(line) || bytes.ContainsAny(body, "\r\u0085\u2028\u2029") {
			return i + 1
		}
	}
	return 0
}

func syntaxError(file []byte, err error) error {
	says := func(s string) bool { return strings.Contains(err.Error(), s) }
	if says("unknown anchor") { // it quotes the name, and not the line
		return &Error{Cause: "an alias (*) without its anchor (&)", hint: "an anchor stands above its aliases"}
	}
	if says("tab character") || says("cannot start any token") {
		for i, line := range bytes.Split(file, []byte("\n")) {
			indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
			if tab := bytes.IndexByte(indent, '\t'); tab >= 0 && len(bytes.TrimSpace(line)) > 0 {
				return &Error{i + 1, tab + 1, "a tab in the indentation", "YAML indents with blanks alone"}
			}
		}
	}
	e := &Error{Line: 1, Cause: "not YAML from about here on", hint: "look for a blank too few or too many, or text that needs quotes"}
	if _, after, ok := strings.Cut(err.Error(), "yaml: line "); ok {
		number, _, _ := strings.Cut(after, ":")
		if line, err := strconv.Atoi(number); err == nil {
			e.Line = line
		}
	}
	return e
}

// A target is the mapping whose env: gets the entry, with all that leads there.
type target struct {
	holder *yaml.Node   // the pipeline or the step
	chain  []*yaml.Node // collections from the root to holder
	owners map[*yaml.Node][]*yaml.Node
	step   string
}

// find finds the target. It goes through aliases: shared says then why a node
// that several places use is not edited.
func find(root *yaml.Node, where Where) (target, error) {
	t := target{owners: map[*yaml.Node][]*yaml.Node{}, step: where.Step}
	t.aliases(root)
	if where.Step == "" {
		switch root.Kind {
		case yaml.SequenceNode:
			return t, refuse(root, "put a line steps: above the list, or name a step", "a bare list of steps has no place for env:")
		case yaml.MappingNode:
			t.holder, t.chain = root, []*yaml.Node{root}
			return t, nil
		}
		return t, refuse(root, "is it a pipeline file?", "not a mapping with steps:")
	}
	s := search{key: where.Step}
	if err := s.pipeline(root); err != nil {
		return t, err
	}
	switch len(s.found) {
	case 0:
		hint := "give the step a line key: " + escape.Text(where.Step)
		if len(s.keys) > 0 {
			hint += ", or name one of " + strings.Join(s.keys[:min(20, len(s.keys))], ", ")
		}
		return t, &Error{Cause: "no step has the key " + escape.Text(where.Step), hint: hint}
	case 1:
	default:
		return t, refuse(last(s.found[1]), "give each step a key of its own", "the key %s is there twice, first on line %d", escape.Text(where.Step), last(s.found[0]).Line)
	}
	t.chain = s.found[0]
	t.holder = last(t.chain)
	kind, err := kindOf(t.holder)
	if err == nil && kind != "" {
		hint := "name a step that runs a command"
		if kind == "trigger" {
			hint = "by hand under build: and env:, if the other pipeline may have it"
		}
		err = refuse(t.holder, hint, "%s is a %s step, which has no env: of its own", escape.Text(where.Step), kind)
	}
	return t, err
}

func last(nodes []*yaml.Node) *yaml.Node { return nodes[len(nodes)-1] }

// kindOf is the kind of a step that runs no command, or nothing
// (github.com/buildkite/go-pipeline, steps.go, stepByKeyInference).
func kindOf(step *yaml.Node) (string, error) {
	for _, key := range []string{"command", "commands", "plugins", "wait", "waiter", "block", "input", "manual", "trigger", "group"} {
		e, err := lookup(step, key)
		if err != nil {
			return "", err
		}
		switch {
		case e.key == nil:
		case key == "command" || key == "commands" || key == "plugins":
			return "", nil
		default:
			return key, nil
		}
	}
	return "", nil
}

// aliases notes who refers to what.
func (t *target) aliases(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		t.owners[n.Alias] = append(t.owners[n.Alias], n)
	}
	for _, c := range n.Content {
		t.aliases(c)
	}
}

// shared refuses to edit what an alias shows elsewhere too.
func (t *target) shared(nodes ...*yaml.Node) error {
	for _, n := range nodes {
		if by := t.owners[n]; len(by) > 0 {
			return refuse(n, "write it out for this step alone, or put the line there by hand if all may have it",
				"&%s is shared: line %d takes it over too", escape.Text(n.Anchor), by[0].Line)
		}
	}
	return nil
}

// A search goes through all steps, those of groups too. That it ends, environments
// has found out before.
type search struct {
	key   string
	keys  []string // of all steps, escaped
	found [][]*yaml.Node
}

func (s *search) pipeline(root *yaml.Node) error {
	if root.Kind == yaml.SequenceNode {
		return s.list(root, nil)
	}
	return s.below(root, nil)
}

// below searches the steps: of a pipeline or group.
func (s *search) below(n *yaml.Node, chain []*yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	steps, err := lookup(n, "steps")
	if err != nil || steps.key == nil {
		return err
	}
	return s.list(resolve(steps.value), append(slices.Clip(chain), n))
}

func (s *search) list(n *yaml.Node, chain []*yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return nil
	}
	chain = append(slices.Clip(chain), n)
	for _, item := range n.Content {
		step := resolve(item)
		if step.Kind != yaml.MappingNode {
			continue
		}
		key, err := stepText(step, "key", "id", "identifier")
		if err != nil {
			return err
		}
		if key != "" {
			s.keys = append(s.keys, escape.Text(key))
		}
		if key == s.key {
			s.found = append(s.found, append(slices.Clip(chain), step))
		}
		if err := s.below(step, chain); err != nil {
			return err
		}
	}
	return nil
}

// stepText returns the first of these keys' texts
// (github.com/buildkite/go-pipeline, step_command.go: id and identifier are aliases of key).
func stepText(step *yaml.Node, keys ...string) (string, error) {
	for _, key := range keys {
		e, err := lookup(step, key)
		if err != nil {
			return "", err
		}
		if e.key != nil && resolve(e.value).Kind == yaml.ScalarNode && resolve(e.value).Value != "" {
			return resolve(e.value).Value, nil
		}
	}
	return "", nil
}

// An entry is one key of a mapping with its value.
type entry struct {
	name       string
	key, value *yaml.Node
	merged     bool // it comes from a merge (<<)
}

// lookup finds a key in a mapping. It refuses one that is there twice.
func lookup(m *yaml.Node, name string) (entry, error) {
	var own entry
	for _, e := range entries(m) {
		switch {
		case e.name != name || e.merged && own.key != nil:
		case own.key != nil:
			return entry{}, refuse(e.key, "keep one", "%s is there twice, first on line %d", escape.Text(name), own.key.Line)
		default:
			own = e
		}
	}
	return own, nil
}

// verify reads the edited file and returns the line of the entry. root is the
// tree of the file before, with the change made in it; before are its
// environments without the change.
func verify(root *yaml.Node, before map[place]string, edited []byte, where Where, name, text string) (int, error) {
	again, err := parse(edited)
	if err != nil {
		return 0, fmt.Errorf("it would not read back")
	}
	if !same(root, again) {
		return 0, fmt.Errorf("more than %s would change", name)
	}
	// The trees are equal, but what they mean may not be: an env: of a step's own
	// hides one that came from a merge.
	after, err := environments(again)
	if err != nil {
		return 0, err
	}
	changes := 0
	for at, value := range after {
		if old, ok := before[at]; ok && old == value {
			continue
		}
		if changes++; at.name != name || value != "!!str "+text {
			return 0, fmt.Errorf("%s would change too", escape.Text(at.name))
		}
	}
	for at := range before {
		if _, ok := after[at]; !ok {
			return 0, fmt.Errorf("%s would go", escape.Text(at.name))
		}
	}
	if changes > 1 {
		return 0, fmt.Errorf("%s would change in %d places", name, changes)
	}
	t, err := find(again, where)
	if err != nil {
		return 0, err
	}
	env, err := lookup(t.holder, "env")
	if err != nil || env.key == nil {
		return 0, fmt.Errorf("%s would stand elsewhere", name)
	}
	e, err := lookup(env.value, name)
	if err != nil || e.key == nil {
		return 0, fmt.Errorf("%s would stand elsewhere", name)
	}
	return e.key.Line, nil
}

// same compares two trees, aliases by name: with equal trees around them they
// refer to the same node.
func same(a, b *yaml.Node) bool {
	return a.Kind == b.Kind && a.Style == b.Style && a.ShortTag() == b.ShortTag() && a.Value == b.Value &&
		a.Anchor == b.Anchor && slices.EqualFunc(a.Content, b.Content, same)
}
