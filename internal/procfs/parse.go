package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrMalformed says that a text is not what the kernel writes.
var ErrMalformed = errors.New("not as the kernel writes it")

func malformed(what string) error { return fmt.Errorf("%s: %w", what, ErrMalformed) }

// ParseStatus reads /proc/PID/status. All that Status has must be there, once.
func ParseStatus(text []byte) (Status, error) {
	var s Status
	var uids ids
	var nnp flag
	fields := map[string]value{
		"Uid": &uids, "PPid": (*number)(&s.PPID),
		"CapInh": (*bits)(&s.CapInh), "CapPrm": (*bits)(&s.CapPrm), "CapEff": (*bits)(&s.CapEff),
		"CapBnd": (*bits)(&s.CapBnd), "CapAmb": (*bits)(&s.CapAmb),
		"NoNewPrivs": &nnp, "Seccomp": (*number)(&s.Seccomp),
	}
	for line := range bytes.Lines(text) {
		name, rest, found := strings.Cut(string(line), ":")
		field := fields[name]
		if !found || field == nil {
			if _, known := fields[name]; known {
				return Status{}, malformed(name + " twice")
			}
			continue
		}
		if !field.parse(strings.Fields(rest)) {
			return Status{}, malformed(name)
		}
		fields[name] = nil
	}
	for name, field := range fields {
		if field != nil {
			return Status{}, malformed("no " + name)
		}
	}
	s.UID, s.EUID, s.NoNewPrivs = uids.real, uids.effective, bool(nnp)
	return s, nil
}

// A value is what follows a name in status, as words.
type value interface{ parse(words []string) bool }

type (
	number int
	bits   uint64
	flag   bool
	ids    struct{ real, effective int }
)

func (n *number) parse(words []string) bool {
	v, ok := whole(words, 1)
	*n = number(v)
	return ok
}

func (b *bits) parse(words []string) bool {
	if len(words) != 1 || len(words[0]) != 16 {
		return false
	}
	v, err := strconv.ParseUint(words[0], 16, 64)
	*b = bits(v)
	return err == nil
}

func (f *flag) parse(words []string) bool {
	v, ok := whole(words, 1)
	*f = v == 1
	return ok && v <= 1
}

func (i *ids) parse(words []string) bool {
	real, ok := whole(words, 4) // real, effective, saved, of the file system
	if ok {
		i.real = real
		i.effective, ok = whole(words[1:], 3)
	}
	return ok
}

// whole is the first of n words, a number that fits 32 bits.
func whole(words []string, n int) (int, bool) {
	if len(words) != n {
		return 0, false
	}
	v, err := strconv.ParseUint(words[0], 10, 32)
	return int(v), err == nil
}

// ParseMounts reads /proc/PID/mountinfo, in the kernel's order: where two are
// mounted in one place, the later one is seen. With an error comes what stands
// before the malformed line.
func ParseMounts(text []byte) ([]Mount, error) {
	var all []Mount
	for line := range strings.Lines(string(text)) {
		m, ok := parseMount(strings.TrimSuffix(line, "\n"))
		if !ok {
			return all, malformed("line " + strconv.Itoa(len(all)+1))
		}
		all = append(all, m)
	}
	return all, nil
}

// parseMount reads one line, as in
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// Blanks are never doubled but where a source has no name.
func parseMount(line string) (Mount, bool) {
	own, system, found := strings.Cut(line, " - ")
	fields, of := strings.Split(own, " "), strings.SplitN(system, " ", 3)
	if !found || len(fields) < 6 || len(of) != 3 {
		return Mount{}, false
	}
	id, err := strconv.Atoi(fields[0])
	parent, err2 := strconv.Atoi(fields[1])
	if err != nil || err2 != nil || fields[3] == "" || !strings.HasPrefix(fields[4], "/") {
		return Mount{}, false
	}
	return Mount{
		ID: id, Parent: parent,
		Device:  fields[2],
		Root:    unescape(fields[3]),
		Point:   unescape(fields[4]),
		Options: strings.Split(fields[5], ","),
		Type:    unescape(of[0]),
		Source:  unescape(of[1]),
		Super:   strings.Split(of[2], ","),
	}, true
}

// unescape undoes \040 and the like (mangle_path, Linux fs/seq_file.c).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// ParseMajors reads /proc/devices.
func ParseMajors(text []byte) ([]Major, error) {
	var all []Major
	block, begun := false, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch line {
		case "":
			continue
		case "Character devices:":
			block, begun = false, true
			continue
		case "Block devices:":
			block, begun = true, true
			continue
		}
		text, name, found := strings.Cut(strings.TrimLeft(line, " "), " ")
		n, err := strconv.ParseUint(text, 10, 32)
		if !begun || !found || err != nil || name == "" {
			return nil, malformed("devices")
		}
		all = append(all, Major{Block: block, Number: uint32(n), Name: name})
	}
	return all, nil
}

// ParseIDMap reads /proc/PID/uid_map. It is empty until somebody has written it.
func ParseIDMap(text []byte) ([]IDMap, error) {
	var all []IDMap
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) != 3 {
			return nil, malformed("uid_map")
		}
		var n [3]uint32
		for i, word := range words {
			v, err := strconv.ParseUint(word, 10, 32)
			if err != nil {
				return nil, malformed("uid_map")
			}
			n[i] = uint32(v)
		}
		all = append(all, IDMap{Inside: n[0], Outside: n[1], Count: n[2]})
	}
	return all, nil
}

// ParseStat reads /proc/PID/stat. The name in it may hold blanks, parentheses
// and line breaks, and so it ends at the last parenthesis.
func ParseStat(text []byte) (Stat, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return Stat{}, malformed("stat")
	}
	// From the state on, which is the third field; the start is the 22nd.
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 {
		return Stat{}, malformed("stat")
	}
	s := Stat{Name: string(text[open+1 : end])}
	pid, err := strconv.ParseUint(strings.TrimSuffix(string(text[:open]), " "), 10, 31)
	ppid, err2 := strconv.ParseUint(fields[1], 10, 31)
	session, err3 := strconv.ParseUint(fields[3], 10, 31)
	start, err4 := strconv.ParseUint(fields[19], 10, 64)
	if errors.Join(err, err2, err3, err4) != nil {
		return Stat{}, malformed("stat")
	}
	s.PID, s.PPID, s.Session, s.Start = int(pid), int(ppid), int(session), start
	return s, nil
}

// ParseNamespace reads what a link in /proc/PID/ns says: pid:[4026531836].
func ParseNamespace(link string) (kind string, number uint64, err error) {
	kind, text, found := strings.Cut(link, ":[")
	digits, closed := strings.CutSuffix(text, "]")
	number, err = strconv.ParseUint(digits, 10, 64)
	if !found || !closed || err != nil || kind == "" {
		return "", 0, malformed("namespace")
	}
	return kind, number, nil
}
