package settings

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// An Error says what is wrong with the operator's file, and where. Of the file
// it holds names of keys and nothing else: a value may be a secret that was
// pasted here by mistake.
type Error struct {
	Path   string // the file; empty from Parse
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1; 0: the line as a whole
	Key    string // the key with those around it, as in isolation.expect; may be empty
	Cause  string

	hint string
}

func (e *Error) Error() string {
	at := ""
	if e.Path != "" {
		at = e.Path + ":"
	}
	for _, n := range []int{e.Line, e.Column} {
		if n > 0 {
			at += strconv.Itoa(n) + ":"
		}
	}
	if at != "" {
		at += " "
	}
	if e.Key != "" {
		at += e.Key + ": "
	}
	return at + e.Cause
}

// Hint says what the operator can do, or nothing.
func (e *Error) Hint() string { return e.hint }

// document returns the root of the one document in text, after the checks that
// need no knowledge of keys.
func document(text []byte) (value, error) {
	if len(text) > MaxFile {
		return value{}, &Error{Cause: fmt.Sprintf("larger than %d KiB", MaxFile>>10)}
	}
	if i := notText(text); i >= 0 {
		line, column := position(text, i)
		return value{}, &Error{Line: line, Column: column, Cause: "not text in UTF-8", hint: "save the file as UTF-8, without control characters"}
	}
	// Everywhere, comments too: everyone may read this file.
	if i := findIdentity(text); i >= 0 {
		line, column := position(text, i)
		return value{}, &Error{Line: line, Column: column, Cause: "an identity stands here, for everyone to read",
			hint: "put it into a file of its own, mode 600, and name that under identities; if others could read it, make a new one"}
	}
	var root, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&root); err != nil {
		return value{}, syntaxError(err)
	}
	if err := d.Decode(&second); err == nil {
		return value{}, &Error{Line: second.Line, Column: second.Column, Cause: "a second document", hint: "keep one"}
	} else if err != io.EOF {
		return value{}, syntaxError(err)
	}
	if len(root.Content) == 0 {
		return value{}, syntaxError(io.EOF)
	}
	v := value{root.Content[0], ""}
	return v, v.plain()
}

// notText finds a byte that is not UTF-8, or a control character, or returns -1.
func notText(text []byte) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) {
			return i
		}
		i += n
	}
	return -1
}

// findIdentity finds the beginning of an age identity, or returns -1.
func findIdentity(text []byte) int {
	for i := range text {
		for _, prefix := range []string{"AGE-SECRET-KEY-1", "AGE-SECRET-KEY-PQ-1"} {
			if len(text)-i >= len(prefix) && strings.EqualFold(string(text[i:i+len(prefix)]), prefix) {
				return i
			}
		}
	}
	return -1
}

// position counts as yaml does: from 1, in characters.
func position(text []byte, offset int) (line, column int) {
	before := text[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	return 1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[start:])
}

// syntaxError says what most often is behind an error of the YAML library, whose
// own words may quote the file.
func syntaxError(err error) error {
	if err == io.EOF {
		return &Error{Cause: "empty", hint: "write mode: direct, and what else the README asks for"}
	}
	if strings.Contains(err.Error(), "unknown anchor") { // it quotes the name, and not the line
		return &Error{Cause: "an alias (*)", hint: writeOut}
	}
	e := &Error{Line: 1, Cause: "not YAML from about here on", hint: "look for a blank too few or too many, a tab, or text that needs quotes"}
	if _, after, ok := strings.Cut(err.Error(), "yaml: line "); ok {
		number, _, _ := strings.Cut(after, ":")
		if line, err := strconv.Atoi(number); err == nil {
			e.Line = line
		}
	}
	return e
}

// A value is one node, with the key that leads to it.
type value struct {
	*yaml.Node
	key string
}

func (v value) errorf(hint, format string, args ...any) error {
	return &Error{Line: v.Line, Column: v.Column, Key: v.key, Cause: fmt.Sprintf(format, args...), hint: hint}
}

const writeOut = "write the value itself"

// plain refuses, in v and all below it, what makes YAML say more than it shows.
func (v value) plain() error {
	switch {
	case v.Anchor != "" || v.Kind == yaml.AliasNode:
		return v.errorf(writeOut, "an anchor (&)")
	case v.Style&yaml.TaggedStyle != 0:
		return v.errorf(writeOut, "a tag (!)")
	case v.Kind != yaml.MappingNode:
		for _, item := range v.Content {
			if err := (value{item, v.key}).plain(); err != nil {
				return err
			}
		}
		return nil
	}
	first := map[string]int{} // key to line
	for key, member := range v.members() {
		if err := key.plain(); err != nil {
			return err
		}
		switch {
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			return key.errorf(writeOut, "a merge key (<<)")
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			return key.errorf("write a word, or put it in quotes", "a key is %s", key.kind())
		case first[key.Value] > 0:
			return member.at(key).errorf("keep one", "given twice, first on line %d", first[key.Value])
		}
		first[key.Value] = key.Line
		if err := member.plain(); err != nil {
			return err
		}
	}
	return nil
}

// members goes through a mapping. A key's own key is the mapping's.
func (v value) members() iter.Seq2[value, value] {
	return func(yield func(key, member value) bool) {
		for i := 0; i+1 < len(v.Content); i += 2 {
			key, name := v.Content[i], escape.Text(v.Content[i].Value)
			if v.key != "" {
				name = v.key + "." + name
			}
			if !yield(value{key, v.key}, value{v.Content[i+1], name}) {
				return
			}
		}
	}
}

// at is v with the place of another.
func (v value) at(place value) value { return value{place.Node, v.key} }

// A field is one key that a mapping may have.
type field struct {
	name string
	read func(value) error // nil: the design has the key, this version has not
}

// fields reads a mapping that has no other keys, in the order of the file.
func (v value) fields(fields ...field) error {
	if err := v.want(yaml.MappingNode); err != nil {
		return err
	}
	for key, member := range v.members() {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if i < 0 {
			var known []string
			for _, f := range fields {
				if f.read != nil {
					known = append(known, f.name)
				}
			}
			return member.at(key).errorf(suggest(key.Value, known), "unknown key")
		}
		if fields[i].read == nil {
			return member.at(key).errorf("leave it out", "not in this version")
		}
		if err := fields[i].read(member); err != nil {
			return err
		}
	}
	return nil
}

// entries reads a mapping whose keys the operator chooses.
func (v value) entries(read func(key, member value) error) error {
	if err := v.want(yaml.MappingNode); err != nil {
		return err
	}
	for key, member := range v.members() {
		if err := read(member.at(key), member); err != nil {
			return err
		}
	}
	return nil
}

// items reads a list.
func (v value) items(read func(value) error) error {
	if err := v.want(yaml.SequenceNode); err != nil {
		return err
	}
	for _, item := range v.Content {
		if err := read(value{item, v.key}); err != nil {
			return err
		}
	}
	return nil
}

// want refuses another kind, and a mapping or list without content: whether
// that means all or nothing is not for us to guess.
func (v value) want(kind yaml.Kind) error {
	kinds := map[yaml.Kind]string{yaml.MappingNode: "a mapping (key: value)", yaml.SequenceNode: "a list (- item)"}
	switch {
	case v.Kind != kind:
		return v.errorf("write "+kinds[kind], "%s, where %s belongs", v.kind(), kinds[kind])
	case len(v.Content) == 0:
		return v.errorf("leave the key out, or say something", "nothing in it")
	}
	return nil
}

// kind says what v is, in words.
func (v value) kind() string {
	switch v.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch v.ShortTag() {
	case "!!str":
		return "text"
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "something else"
}

// text reads one line of text that can be printed as it is.
func (v value) text() (string, error) {
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
		return "", v.errorf("write text, in quotes if it looks like something else", "%s, where text belongs", v.kind())
	}
	if v.Value == "" || strings.TrimSpace(v.Value) != v.Value {
		return "", v.errorf("", "empty, or with a blank at its beginning or end")
	}
	if strings.ContainsFunc(v.Value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", v.errorf("", "not one line of printable text")
	}
	return v.Value, nil
}

// flag reads true or false and no other spelling.
func (v value) flag() (bool, error) {
	if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!bool" || v.Value != "true" && v.Value != "false" {
		return false, v.errorf("write true or false", "neither true nor false")
	}
	return v.Value == "true", nil
}

// choice reads one of the words; none says what any other is.
func (v value) choice(none string, words ...string) (string, error) {
	s, err := v.text()
	if err != nil {
		return "", err
	}
	if !slices.Contains(words, s) {
		return "", v.errorf(suggest(s, words), "%s", none)
	}
	return s, nil
}

// suggest names the known word that is most like s, or all of them.
func suggest(s string, known []string) string {
	best, distance := "", 3 // two slips of the finger and no more
	for _, k := range known {
		if d := slips(s, k); d < distance && d < len(k)/2 {
			best, distance = k, d
		}
	}
	if best != "" {
		return "write " + best
	}
	return "write one of " + strings.Join(known, ", ")
}

// slips is the edit distance of two words.
func slips(a, b string) int {
	if len(a) > 2*len(b)+2 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
