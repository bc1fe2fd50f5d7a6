package pipeline

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// errUnsure says that a node is not laid out as this package expects. It never
// reaches a person by itself.
var errUnsure = errors.New("an unusual layout")

// A source finds the bytes of nodes. yaml.v3 says where a node begins, and not
// where it ends:
//   - lines end at LF and CR LF alone, since parse refused the other breaks that
//     yaml knows; columns count code points from 1, a byte order mark not;
//   - a node with an anchor or tag begins there;
//   - a block mapping or list without begins at its first key or dash;
//   - a value that is not there stands just behind the colon, or, in braces, at
//     the next token.
type source struct {
	text  []byte
	lines []int // offset of each line's first character
	chars []int // offset of each character; nil: each is a byte
}

func newSource(text []byte) source {
	s := source{text: text, lines: []int{0}}
	if utf8.RuneCount(text) < len(text) {
		for i := range string(text) {
			s.chars = append(s.chars, i)
		}
	}
	if bytes.HasPrefix(text, []byte("\ufeff")) {
		s.lines[0] = len("\ufeff")
	}
	for i, c := range text {
		if c == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// at is the byte at an offset; a line break where the text ends.
func (s source) at(i int) byte {
	if i < len(s.text) {
		return s.text[i]
	}
	return '\n'
}

// offset is where a node begins.
func (s source) offset(n *yaml.Node) int {
	if n.Line < 1 || n.Line > len(s.lines) {
		return len(s.text)
	}
	i := s.lines[n.Line-1]
	if s.chars == nil {
		return min(i+n.Column-1, len(s.text))
	}
	first, _ := slices.BinarySearch(s.chars, i)
	if at := first + n.Column - 1; at < len(s.chars) {
		return s.chars[at]
	}
	return len(s.text)
}

// lineOf is the index of the line that holds an offset.
func (s source) lineOf(i int) int {
	line, found := slices.BinarySearch(s.lines, i)
	if !found {
		line = max(0, line-1)
	}
	return line
}

// line returns a line without its break.
func (s source) line(n int) string {
	body, _, _ := bytes.Cut(s.text[s.lines[n]:], []byte("\n"))
	return strings.TrimSuffix(string(body), "\r")
}

// prefix is what stands before an offset in its line.
func (s source) prefix(i int) string { return string(s.text[s.lines[s.lineOf(i)]:i]) }

// indentation returns the blanks that put a line below a key, which itself may
// follow the dash of a list.
func (s source) indentation(key *yaml.Node) (string, error) {
	p := s.prefix(s.offset(key))
	if strings.Trim(p, " -") != "" || key.Anchor != "" || key.Kind == yaml.AliasNode || key.Style&yaml.TaggedStyle != 0 {
		return "", errUnsure
	}
	return strings.Repeat(" ", len(p)), nil
}

// lineBreak is that of a line, or of the one before if it has none.
func (s source) lineBreak(n int) string {
	next := min(n+1, len(s.lines)-1)
	if i := s.lines[next] - len("\r\n"); next > 0 && i >= 0 && s.text[i] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// blanks skips blanks and tabs.
func (s source) blanks(i int) int {
	for s.at(i) == ' ' || s.at(i) == '\t' {
		i++
	}
	return i
}

// gap skips blanks, line breaks and comments, and tells whether there was a comment.
func (s source) gap(i int) (int, bool) {
	commented := false
	for i < len(s.text) {
		switch c := s.text[i]; {
		case c == '#':
			commented = true
			for s.at(i) != '\n' {
				i++
			}
		case c != ' ' && c != '\t' && c != '\r' && c != '\n':
			return i, commented
		default:
			i++
		}
	}
	return i, commented
}

// restOfLine returns where the line's break begins, if nothing but a comment is
// left in it.
func (s source) restOfLine(i int) (int, error) {
	if c := s.at(s.blanks(i)); c != '#' && c != '\r' && c != '\n' {
		return 0, errUnsure
	}
	n := s.lineOf(i)
	return max(i, s.lines[n]+len(s.line(n))), nil
}

// absent tells whether a value is not written at all.
func absent(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style == 0 && n.Value == "" && n.Anchor == ""
}

// colon returns what follows the colon behind a key.
func (s source) colon(key *yaml.Node, indent int, flow bool) (int, error) {
	if key.Kind != yaml.ScalarNode {
		return 0, errUnsure
	}
	i, err := s.end(key, indent, flow)
	if i = s.blanks(i); err != nil || s.at(i) != ':' {
		return 0, errUnsure
	}
	return i + 1, nil
}

// endOfEntry is the end of entry i of a mapping, its value included.
func (s source) endOfEntry(m *yaml.Node, i int, flow bool) (int, error) {
	key, value := m.Content[2*i], m.Content[2*i+1]
	indent := m.Content[0].Column - 1
	if !absent(value) {
		return s.end(value, indent, flow)
	}
	if end, err := s.colon(key, indent, flow); err == nil {
		return end, nil
	} else if !flow {
		return 0, err
	}
	return s.end(key, indent, flow) // {A}
}

// end is where a node ends: the offset behind its last byte. indent is the
// column, from 0, of the collection that holds it; flow tells whether that is
// in braces or brackets.
func (s source) end(n *yaml.Node, indent int, flow bool) (int, error) {
	i := s.offset(n)
	if n.Kind == yaml.AliasNode {
		return i + len("*") + len(n.Value), nil
	}
	if absent(n) {
		return i, nil
	}
	for s.at(i) == '&' || s.at(i) == '!' {
		i = s.property(i, flow)
		if n.Kind == yaml.ScalarNode && n.Style&^yaml.TaggedStyle == 0 && n.Value == "" {
			return i, nil
		}
		i, _ = s.gap(i)
	}
	switch n.Kind {
	case yaml.ScalarNode:
		return s.endOfScalar(n, i, indent, flow)
	case yaml.MappingNode, yaml.SequenceNode:
		return s.endOfCollection(n, i)
	}
	return 0, errUnsure
}

// property is the end of an anchor or tag.
func (s source) property(i int, flow bool) int {
	for !strings.ContainsRune(" \t\r\n", rune(s.at(i))) && (!flow || !strings.ContainsRune(",[]{}", rune(s.at(i)))) {
		i++
	}
	return i
}

// body is where a node begins behind its anchor and tag.
func (s source) body(i int, flow bool) int {
	for s.at(i) == '&' || s.at(i) == '!' {
		i, _ = s.gap(s.property(i, flow))
	}
	return i
}

func (s source) endOfCollection(n *yaml.Node, i int) (end int, err error) {
	count := len(n.Content)
	switch inFlow := n.Style&yaml.FlowStyle != 0; {
	case count == 0:
		end = i + 1
	case n.Kind == yaml.MappingNode:
		end, err = s.endOfEntry(n, count/2-1, inFlow)
	case inFlow:
		end, err = s.end(n.Content[count-1], 0, true)
	default:
		end, err = s.end(n.Content[count-1], i-s.lines[s.lineOf(i)], false)
	}
	if err != nil || n.Style&yaml.FlowStyle == 0 {
		return end, err
	}
	if s.at(i) != '{' && s.at(i) != '[' { // [A: b] holds a mapping without any
		return end, nil
	}
	return s.closing(end)
}

// closing skips what may stand between the last entry and the brace or bracket
// that closes a collection, and that.
func (s source) closing(i int) (int, error) {
	i, _ = s.gap(i)
	if s.at(i) == ',' {
		i, _ = s.gap(i + 1)
	}
	if c := s.at(i); c != '}' && c != ']' {
		return 0, errUnsure
	}
	return i + 1, nil
}

func (s source) endOfScalar(n *yaml.Node, i, indent int, flow bool) (int, error) {
	style := n.Style &^ yaml.TaggedStyle
	want := map[yaml.Style]string{yaml.DoubleQuotedStyle: `"`, yaml.SingleQuotedStyle: "'", yaml.LiteralStyle: "|", yaml.FoldedStyle: ">"}[style]
	if want != "" && want[0] != s.at(i) {
		return 0, errUnsure
	}
	switch style {
	case yaml.DoubleQuotedStyle:
		for i++; i < len(s.text); i++ {
			switch s.text[i] {
			case '\\':
				i++
			case '"':
				return i + 1, nil
			}
		}
	case yaml.SingleQuotedStyle:
		for i++; i < len(s.text); i++ {
			if s.text[i] != '\'' {
				continue
			}
			if s.at(i+1) != '\'' {
				return i + 1, nil
			}
			i++
		}
	case yaml.LiteralStyle, yaml.FoldedStyle:
		return s.endOfBlock(i, indent)
	case 0:
		return s.endOfPlain(i, indent, flow), nil
	}
	return 0, errUnsure
}

// endOfPlain follows yaml_parser_scan_plain_scalar.
func (s source) endOfPlain(i, indent int, flow bool) int {
	end := i
	for i < len(s.text) && s.text[i] != '#' {
		for !strings.ContainsRune(" \t\r\n", rune(s.at(i))) {
			if s.at(i) == ':' && strings.ContainsRune(" \t\r\n", rune(s.at(i+1))) || flow && strings.ContainsRune(",?[]{}", rune(s.at(i))) {
				return end
			}
			i++
			end = i
		}
		broken := false
		for i < len(s.text) && strings.ContainsRune(" \t\r\n", rune(s.text[i])) {
			broken = broken || s.text[i] == '\n'
			i++
		}
		rest := string(s.text[i:min(i+3, len(s.text))])
		if column := i - s.lines[s.lineOf(i)]; broken && (!flow && column <= indent || column == 0 && (rest == "---" || rest == "...")) {
			break
		}
	}
	return end
}

// header returns where the indicators of a block scalar end, and the digit among
// them: |2-
func (s source) header(i int) (end, digit int) {
	for i++; strings.IndexByte("+-0123456789", s.at(i)) >= 0; i++ {
		if c := s.at(i); c >= '1' {
			digit = int(c - '0')
		}
	}
	return i, digit
}

// endOfBlock follows yaml_parser_scan_block_scalar. Blank lines at its end count
// only where the scalar keeps them.
func (s source) endOfBlock(i, indent int) (int, error) {
	behind, digit := s.header(i)
	end, err := s.restOfLine(behind)
	if err != nil {
		return 0, err
	}
	keep := bytes.IndexByte(s.text[i:behind], '+') >= 0
	column := indent + digit
	if digit == 0 {
		column = indent + 1
	}
	known := digit > 0
	for n := s.lineOf(i) + 1; n < len(s.lines); n++ {
		line, from := s.line(n), s.lines[n]
		blanks := len(line) - len(strings.TrimLeft(line, " "))
		if blanks == len(line) { // a blank line, or one with more blanks than belong to the indentation
			if known && blanks > column || keep && (from+blanks < len(s.text) || blanks > 0) {
				end = from + blanks
			}
			if !known {
				column = max(column, blanks)
			}
			continue
		}
		if !known {
			column, known = max(column, blanks), true
		}
		if blanks < column {
			break
		}
		end = from + len(line)
	}
	return end, nil
}
