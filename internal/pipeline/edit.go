package pipeline

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// A splice puts text in the place of some bytes.
type splice struct {
	start, end int
	insert     string
}

// A plan is one edit, before it is made.
type plan struct {
	source
	target
	name, sealed string
	near         *yaml.Node // what an error points to
}

func (p *plan) byHand() string {
	if p.step != "" {
		return "by hand: put the line " + p.name + ": … under env: of this step"
	}
	return "by hand: put the line " + p.name + ": … under env: at the top of the file"
}

// make returns the bytes to change, and makes the same change in the tree.
func (p *plan) make() (splice, Action, error) {
	s, action, err := p.edit()
	if err == errUnsure {
		err = refuse(p.near, p.byHand(), "the file is laid out in a way that can't be edited safely here")
	}
	return s, action, err
}

func (p *plan) edit() (splice, Action, error) {
	if err := p.shared(p.chain...); err != nil {
		return splice{}, 0, err
	}
	e, err := lookup(p.holder, "env")
	switch {
	case err != nil:
		return splice{}, 0, err
	case e.merged:
		return splice{}, 0, refuse(p.holder, "by hand: give it an env: that begins with <<: and an alias of that one, or write all of it out",
			"env: comes from a merge (<<), line %d; one beside it would hide all of that", e.key.Line)
	case e.key == nil:
		s, err := p.addEnv()
		return s, Added, err
	}
	p.near = e.key
	if err := p.shared(e.value); err != nil {
		return splice{}, 0, err
	}
	switch env := e.value; {
	case env.Kind == yaml.AliasNode:
		return splice{}, 0, refuse(env, "by hand: write env: with a line <<: *"+escape.Text(env.Value)+", and "+p.name+": … below it",
			"env: is an alias of line %d, which others may use too", env.Alias.Line)
	case env.Kind == yaml.ScalarNode && env.ShortTag() == "!!null" && env.Anchor == "" && env.Style == 0:
		s, err := p.fill(e)
		return s, Added, err
	case env.Kind != yaml.MappingNode:
		return splice{}, 0, refuse(env, "by hand: write env: as NAME: value, one a line", "env: is not a mapping")
	}
	own, err := lookup(e.value, p.name)
	if err != nil {
		return splice{}, 0, err
	}
	if own.key == nil || own.merged {
		s, err := p.add(e)
		return s, Added, err
	}
	p.near = own.key
	s, err := p.replace(e.value, own)
	return s, Replaced, err
}

// replace puts the text in the place of a value, and keeps all around it.
func (p *plan) replace(env *yaml.Node, e entry) (splice, error) {
	v := e.value
	hint := "by hand: replace the value on this line"
	switch {
	case v.Kind == yaml.AliasNode:
		return splice{}, refuse(v, hint, "the value of %s is an alias (*)", p.name)
	case v.Anchor != "":
		return splice{}, refuse(v, hint, "the value of %s is an anchor (&%s), for others to use", p.name, escape.Text(v.Anchor))
	case v.Kind != yaml.ScalarNode:
		return splice{}, refuse(v, hint, "the value of %s is not text", p.name)
	case v.Style&yaml.TaggedStyle != 0, p.at(p.offset(v)) == '!': // yaml forgets a lone one
		return splice{}, refuse(v, hint, "the value of %s has a tag (!)", p.name)
	}
	flow := env.Style&yaml.FlowStyle != 0
	indent := env.Content[0].Column - 1
	var s splice
	var err error
	if absent(v) {
		s.start, err = p.colon(e.key, indent, flow)
		s.end, s.insert = s.start, " "+p.quoted()
	} else {
		s.start = p.offset(v)
		s.end, err = p.end(v, indent, flow)
		s.insert = p.quoted()
	}
	if err != nil {
		return splice{}, err
	}
	if v.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		// What follows the indicators is a comment, which stays.
		behind, _ := p.header(s.start)
		rest, err := p.restOfLine(behind)
		if err != nil {
			return splice{}, err
		}
		s.insert += strings.TrimRight(string(p.text[behind:rest]), " \t")
	}
	*v = *textNode(p.sealed)
	return s, nil
}

// quoted is the value as it stands in the file. checkEntry saw to it that
// nothing in it needs escaping.
func (p *plan) quoted() string { return `"` + p.sealed + `"` }

func textNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: text}
}

// entry is the new one, for a block.
func (p *plan) entry() string { return p.name + ": " + p.quoted() }

// nodes are the new entry's. like is a key beside it, whose quotes it has in
// braces, for the file may be JSON.
func (p *plan) nodes(like *yaml.Node) []*yaml.Node {
	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: p.name}
	if like != nil {
		key.Style = like.Style & yaml.DoubleQuotedStyle
	}
	return []*yaml.Node{key, textNode(p.sealed)}
}

func inBraces(key *yaml.Node) string {
	if key.Style&yaml.DoubleQuotedStyle != 0 {
		return `"` + key.Value + `": `
	}
	return key.Value + ": "
}

// add adds the entry to an env: that is there.
func (p *plan) add(env entry) (splice, error) {
	m := env.value
	if m.Style&yaml.FlowStyle == 0 {
		key := m.Content[len(m.Content)-2]
		indent, err := p.indentation(key)
		if err != nil {
			return splice{}, err
		}
		s, err := p.below(m, indent, indent+p.entry())
		m.Content = append(m.Content, p.nodes(nil)...)
		return s, err
	}
	if len(m.Content) == 0 {
		nodes := p.nodes(env.key)
		s, err := p.intoEmpty(m, inBraces(nodes[0])+p.quoted())
		m.Content = nodes
		return s, err
	}
	nodes := p.nodes(m.Content[len(m.Content)-2])
	s, err := p.intoBraces(m, inBraces(nodes[0])+p.quoted())
	m.Content = append(m.Content, nodes...)
	return s, err
}

// below adds lines below the last entry of a block mapping whose keys have the
// indentation indent, and below the comments that follow it at once.
func (p *plan) below(m *yaml.Node, indent string, lines ...string) (splice, error) {
	end, err := p.endOfEntry(m, len(m.Content)/2-1, false)
	if err != nil {
		return splice{}, err
	}
	return p.behind(end, len(indent), lines)
}

// behind adds lines below the line that holds an offset, and below the comments
// that follow at once and are indented by at least so much.
func (p *plan) behind(i, indent int, lines []string) (splice, error) {
	if _, err := p.restOfLine(i); err != nil {
		return splice{}, err
	}
	n := p.lineOf(i)
	for ; n+1 < len(p.lines); n++ {
		line := p.line(n + 1)
		bare := strings.TrimLeft(line, " ")
		if len(line)-len(bare) < indent || !strings.HasPrefix(bare, "#") {
			break
		}
	}
	br := p.lineBreak(n)
	if n+1 < len(p.lines) {
		at := p.lines[n+1]
		return splice{at, at, strings.Join(lines, br) + br}, nil
	}
	at := len(p.text)
	return splice{at, at, br + strings.Join(lines, br)}, nil
}

// intoEmpty puts an entry between two braces that hold nothing.
func (p *plan) intoEmpty(m *yaml.Node, entry string) (splice, error) {
	i := p.offset(m)
	if p.at(i) != '{' {
		return splice{}, errUnsure
	}
	if p.at(i+1) == ' ' {
		entry = " " + entry
	}
	if p.at(p.blanks(i+1)) != '}' {
		return splice{}, refuse(m, p.byHand(), "env: has empty braces over several lines")
	}
	return splice{i + 1, i + 1, entry}, nil
}

// intoBraces adds an entry behind the last one, in a line of its own if that one
// has it.
func (p *plan) intoBraces(m *yaml.Node, entry string) (splice, error) {
	end, err := p.endOfEntry(m, len(m.Content)/2-1, true)
	if err != nil {
		return splice{}, err
	}
	next, commented := p.gap(end)
	if p.at(next) == ',' {
		_, more := p.gap(next + 1)
		commented = commented || more
	}
	if commented {
		return splice{}, refuse(m, p.byHand(), "a comment stands before the closing brace")
	}
	if _, err := p.closing(end); err != nil {
		return splice{}, err
	}
	separator := ", "
	if key := m.Content[len(m.Content)-2]; strings.Trim(p.prefix(p.offset(key)), " ") == "" {
		separator = "," + p.lineBreak(p.lineOf(p.offset(m))) + p.prefix(p.offset(key))
	}
	return splice{end, end, separator + entry}, nil
}

// fill gives an env: without a value its first entry.
func (p *plan) fill(env entry) (splice, error) {
	flow := p.holder.Style&yaml.FlowStyle != 0
	indent := p.holder.Content[0].Column - 1
	nodes := p.nodes(nil)
	m := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: nodes}
	var s splice
	var err error
	switch missing := absent(env.value); {
	case missing && !flow:
		var colon int
		var margin string
		if colon, err = p.colon(env.key, indent, false); err != nil {
			return s, err
		}
		if margin, err = p.indentation(env.key); err != nil {
			return s, err
		}
		s, err = p.behind(colon, len(margin)+1, []string{margin + p.unit() + p.entry()})
	default:
		m.Style = yaml.FlowStyle
		m.Content = p.nodes(env.key)
		s.insert = "{" + inBraces(m.Content[0]) + p.quoted() + "}"
		if missing {
			s.start, err = p.colon(env.key, indent, flow)
			s.end, s.insert = s.start, " "+s.insert
			break
		}
		s.start = p.offset(env.value)
		if s.end, err = p.end(env.value, indent, flow); p.at(s.start) == '!' {
			err = errUnsure
		}
	}
	*env.value = *m
	return s, err
}

// addEnv gives the pipeline or step an env: of its own.
func (p *plan) addEnv() (splice, error) {
	h := p.holder
	steps := slices.IndexFunc(h.Content, func(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Value == "steps" })
	if p.step == "" && (steps < 0 || steps%2 != 0) {
		return splice{}, refuse(h, "is it a pipeline file?", "a pipeline without steps:")
	}
	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "env"}
	if h.Style&yaml.FlowStyle != 0 {
		like := h.Content[len(h.Content)-2]
		key.Style = like.Style & yaml.DoubleQuotedStyle
		nodes := p.nodes(like)
		s, err := p.intoBraces(h, inBraces(key)+"{"+inBraces(nodes[0])+p.quoted()+"}")
		h.Content = append(h.Content, key, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: yaml.FlowStyle, Content: nodes})
		return s, err
	}
	env := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: p.nodes(nil)}
	if p.step != "" {
		indent, err := p.indentation(h.Content[0])
		if err != nil {
			return splice{}, err
		}
		s, err := p.below(h, indent, indent+"env:", indent+p.unit()+p.entry())
		h.Content = append(h.Content, key, env)
		return s, err
	}
	s, err := p.above(h.Content[steps], p.unit())
	h.Content = slices.Insert(h.Content, steps, key, env)
	return s, err
}

// above adds an env: above a key of the pipeline and the comment that belongs to
// it. A comment that opens the file belongs to the file.
func (p *plan) above(key *yaml.Node, step string) (splice, error) {
	n := p.lineOf(p.offset(key))
	indent := p.prefix(p.offset(key))
	if strings.Trim(indent, " ") != "" {
		return splice{}, errUnsure
	}
	top := n
	for top > 0 && strings.HasPrefix(p.line(top-1), indent+"#") {
		top--
	}
	if top == 0 || strings.HasPrefix(p.line(top-1), "---") || strings.HasPrefix(p.line(top-1), "%") {
		top = n
	}
	lines := []string{indent + "env:", indent + step + p.entry()}
	// A blank line behind it, unless what is above stands close too.
	if before := strings.TrimSpace(p.line(max(0, top-1))); top == 0 || before == "" || before[0] == '#' || strings.HasPrefix(before, "---") {
		lines = append(lines, "")
	}
	br := p.lineBreak(n)
	at := p.lines[top]
	return splice{at, at, strings.Join(lines, br) + br}, nil
}

// unit is one step of indentation, as the mapping has it elsewhere.
func (p *plan) unit() string {
	h := p.holder
	for _, kind := range []yaml.Kind{yaml.MappingNode, yaml.SequenceNode} {
		for i := 0; i+1 < len(h.Content); i += 2 {
			key, v := h.Content[i], h.Content[i+1]
			if v.Kind != kind || v.Style&yaml.FlowStyle != 0 || len(v.Content) == 0 || v.Anchor != "" {
				continue
			}
			if n := v.Column - key.Column; n > 0 {
				return strings.Repeat(" ", n)
			}
		}
	}
	return "  "
}
