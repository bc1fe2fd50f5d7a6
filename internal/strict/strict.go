// Package strict reads YAML that says what it shows: one document without
// anchors, tags, merge keys, repeated or unknown keys, and without a second
// spelling for true, or for a number.
//
// It is for the files of an agent's operator. Its errors name a place, a key, a
// cause and a remedy, and never hold a value.
package strict

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

// MaxFile is the largest text, in bytes.
const MaxFile = 64 << 10

// An Error says what is wrong with the operator's file, and where. Of the file
// it holds names of keys and nothing else: a value may be a secret that was
// pasted here by mistake.
type Error struct {
	Path   string // the file; empty from Parse
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1; 0: the line as a whole
	Key    string // the key with those around it, as in isolation.expect; may be empty
	Cause  string
	Remedy string // what the operator can do; may be empty
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

// Hint is the remedy.
func (e *Error) Hint() string { return e.Remedy }

// Parse returns the root of the one document in text, after the checks that
// need no knowledge of keys. Empty is the remedy for a text without content. All
// errors of this package are *Error.
func Parse(text []byte, empty string) (Value, error) {
	if len(text) > MaxFile {
		return Value{}, &Error{Cause: fmt.Sprintf("larger than %d KiB", MaxFile>>10)}
	}
	if i := notText(text); i >= 0 {
		line, column := position(text, i)
		return Value{}, &Error{Line: line, Column: column, Cause: "not text in UTF-8", Remedy: "save the file as UTF-8, without control characters"}
	}
	// Everywhere, comments too: everyone may read this file.
	if i := findIdentity(text); i >= 0 {
		line, column := position(text, i)
		return Value{}, &Error{Line: line, Column: column, Cause: "an identity stands here, for everyone to read",
			Remedy: "put it into a file of its own, mode 600, and name that under identities; if others could read it, make a new one"}
	}
	var root, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&root); err != nil {
		return Value{}, syntaxError(err, empty)
	}
	if err := d.Decode(&second); err == nil {
		return Value{}, &Error{Line: second.Line, Column: second.Column, Cause: "a second document", Remedy: "keep one"}
	} else if err != io.EOF {
		return Value{}, syntaxError(err, empty)
	}
	if len(root.Content) == 0 {
		return Value{}, syntaxError(io.EOF, empty)
	}
	v := Value{root.Content[0], ""}
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
// own words may quote the file. Empty is the remedy for nothing at all.
func syntaxError(err error, empty string) error {
	if err == io.EOF {
		return &Error{Cause: "empty", Remedy: empty}
	}
	if strings.Contains(err.Error(), "unknown anchor") { // it quotes the name, and not the line
		return &Error{Cause: "an alias (*)", Remedy: writeOut}
	}
	e := &Error{Line: 1, Cause: "not YAML from about here on", Remedy: "look for a blank too few or too many, a tab, or text that needs quotes"}
	if _, after, ok := strings.Cut(err.Error(), "yaml: line "); ok {
		number, _, _ := strings.Cut(after, ":")
		if line, err := strconv.Atoi(number); err == nil {
			e.Line = line
		}
	}
	return e
}

// A Value is one node of the document, with the key that leads to it.
type Value struct {
	node *yaml.Node
	key  string
}

// Errorf is an error at v's place, about v's key. It must not format a value.
func (v Value) Errorf(hint, format string, args ...any) error {
	return &Error{Line: v.node.Line, Column: v.node.Column, Key: v.key, Cause: fmt.Sprintf(format, args...), Remedy: hint}
}

// Below stands for a member that v lacks, or may not have: v's place, and the
// member's key.
func (v Value) Below(name string) Value {
	if v.key != "" {
		name = v.key + "." + name
	}
	return Value{v.node, name}
}

const writeOut = "write the value itself"

// plain refuses, in v and all below it, what makes YAML say more than it shows.
func (v Value) plain() error {
	switch {
	case v.node.Anchor != "" || v.node.Kind == yaml.AliasNode:
		return v.Errorf(writeOut, "an anchor (&)")
	case v.node.Style&yaml.TaggedStyle != 0:
		return v.Errorf(writeOut, "a tag (!)")
	case v.node.Kind != yaml.MappingNode:
		for _, item := range v.node.Content {
			if err := (Value{item, v.key}).plain(); err != nil {
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
		case key.node.Kind == yaml.ScalarNode && key.node.ShortTag() == "!!merge":
			return key.Errorf(writeOut, "a merge key (<<)")
		case key.node.Kind != yaml.ScalarNode || key.node.ShortTag() != "!!str":
			return key.Errorf("write a word, or put it in quotes", "a key is %s", key.kind())
		case first[key.node.Value] > 0:
			return member.at(key).Errorf("keep one", "given twice, first on line %d", first[key.node.Value])
		}
		first[key.node.Value] = key.node.Line
		if err := member.plain(); err != nil {
			return err
		}
	}
	return nil
}

// members goes through a mapping. A key's own key is the mapping's.
func (v Value) members() iter.Seq2[Value, Value] {
	return func(yield func(key, member Value) bool) {
		for i := 0; i+1 < len(v.node.Content); i += 2 {
			key := v.node.Content[i]
			if !yield(Value{key, v.key}, Value{v.node.Content[i+1], v.Below(escape.Text(key.Value)).key}) {
				return
			}
		}
	}
}

// Get returns the member of that name, if v is a mapping that has it.
func (v Value) Get(name string) (Value, bool) {
	if v.node.Kind == yaml.MappingNode {
		for key, member := range v.members() {
			if key.node.Value == name {
				return member, true
			}
		}
	}
	return Value{}, false
}

// Only returns the member of that name, if v is a mapping of it and nothing else.
func (v Value) Only(name string) (Value, bool) {
	if len(v.node.Content) != 2 {
		return Value{}, false
	}
	return v.Get(name)
}

// at is v with the place of another.
func (v Value) at(place Value) Value { return Value{place.node, v.key} }

// A Field is one key that a mapping may have.
type Field struct {
	name string
	read func(Value) error
}

// Key is a key whose value read takes.
func Key(name string, read func(Value) error) Field { return Field{name, read} }

// Into is a reader that puts what read returns in its place.
func Into[T any](place *T, read func(Value) (T, error)) func(Value) error {
	return func(v Value) (err error) { *place, err = read(v); return err }
}

// Fields reads a mapping that has no other keys, in the order of the file.
func (v Value) Fields(fields ...Field) error {
	if err := v.want(yaml.MappingNode); err != nil {
		return err
	}
	for key, member := range v.members() {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.name == key.node.Value })
		if i < 0 {
			var known []string
			for _, f := range fields {
				known = append(known, f.name)
			}
			return member.at(key).Errorf(suggest(key.node.Value, known), "unknown key")
		}
		if err := fields[i].read(member); err != nil {
			return err
		}
	}
	return nil
}

// Entries reads a mapping whose keys the operator chooses.
func (v Value) Entries(read func(key, member Value) error) error {
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

// Items reads a list.
func (v Value) Items(read func(Value) error) error {
	if err := v.want(yaml.SequenceNode); err != nil {
		return err
	}
	for _, item := range v.node.Content {
		if err := read(Value{item, v.key}); err != nil {
			return err
		}
	}
	return nil
}

// want refuses another kind, and a mapping or list without content: whether
// that means all or nothing is not for us to guess.
func (v Value) want(kind yaml.Kind) error {
	kinds := map[yaml.Kind]string{yaml.MappingNode: "a mapping (key: value)", yaml.SequenceNode: "a list (- item)"}
	switch {
	case v.node.Kind != kind:
		return v.Errorf("write "+kinds[kind], "%s, where %s belongs", v.kind(), kinds[kind])
	case len(v.node.Content) == 0:
		return v.Errorf("leave the key out, or say something", "nothing in it")
	}
	return nil
}

// kind says what v is, in words.
func (v Value) kind() string {
	switch v.node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch v.node.ShortTag() {
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

// Text reads one line of text that can be printed as it is.
func (v Value) Text() (string, error) {
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!str" {
		return "", v.Errorf(quoteIt, "%s, where text belongs", v.kind())
	}
	return v.line()
}

// Word reads text that YAML may take for a number or a date: a version, a day.
// It returns what is written, in quotes or without.
func (v Value) Word() (string, error) {
	if v.node.Kind != yaml.ScalarNode || !slices.Contains([]string{"!!str", "!!int", "!!float", "!!timestamp"}, v.node.ShortTag()) {
		return "", v.Errorf(quoteIt, "%s, where text belongs", v.kind())
	}
	return v.line()
}

const quoteIt = "write text, in quotes if it looks like something else"

func (v Value) line() (string, error) {
	text := v.node.Value
	if text == "" || strings.TrimSpace(text) != text {
		return "", v.Errorf("", "empty, or with a blank at its beginning or end")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", v.Errorf("", "not one line of printable text")
	}
	return text, nil
}

// Number reads a whole number from least to most, in decimal and nothing else.
func (v Value) Number(least, most int) (int, error) {
	n, err := strconv.Atoi(v.node.Value)
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!int" || err != nil || strconv.Itoa(n) != v.node.Value || n < least || n > most {
		return 0, v.Errorf("write digits alone, without quotes", "not a whole number from %d to %d", least, most)
	}
	return n, nil
}

// Flag reads true or false and no other spelling.
func (v Value) Flag() (bool, error) {
	if v.node.Kind != yaml.ScalarNode || v.node.ShortTag() != "!!bool" || v.node.Value != "true" && v.node.Value != "false" {
		return false, v.Errorf("write true or false", "neither true nor false")
	}
	return v.node.Value == "true", nil
}

// Choice reads one of the words; none says what any other is.
func (v Value) Choice(none string, words ...string) (string, error) {
	s, err := v.Text()
	if err != nil {
		return "", err
	}
	if !slices.Contains(words, s) {
		return "", v.Errorf(suggest(s, words), "%s", none)
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
