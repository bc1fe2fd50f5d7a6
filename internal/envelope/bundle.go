package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

// ErrValue says that an opened value can't become a variable.
var ErrValue = errors.New("its value can't be a variable")

// A Variable is one name with its decrypted value.
type Variable struct {
	Name  string
	Value plaintext.Value
}

// MarshalBundle returns the JSON text that an envelope of TypeBundle holds, and
// the sorted names for its label. The error says which name is at fault.
func MarshalBundle(members map[string]plaintext.Value) (plaintext.Value, []string, error) {
	sorted := slices.Sorted(maps.Keys(members))
	var b bytes.Buffer
	separator := "{"
	for _, name := range sorted {
		if err := names.Check(name); err != nil {
			return plaintext.Value{}, nil, err
		}
		if err := CheckValue(members[name]); err != nil {
			return plaintext.Value{}, nil, fmt.Errorf("%s: %w", name, err)
		}
		b.WriteString(separator + `"` + name + `":`)
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(members[name].Reveal()); err != nil {
			return plaintext.Value{}, nil, fmt.Errorf("%s: %w", name, ErrValue)
		}
		b.Truncate(b.Len() - 1) // the encoder's newline
		separator = ","
	}
	if len(sorted) == 0 {
		return plaintext.Value{}, nil, fmt.Errorf("%w: a bundle without a variable", ErrValue)
	}
	b.WriteByte('}')
	return plaintext.New(b.String()), sorted, nil
}

// parseBundle reads the JSON of a bundle token by token: encoding/json's own
// maps would keep the last of two equal keys and replace half a surrogate pair.
// names are those of the label; both sets must be equal.
func parseBundle(value plaintext.Value, names []string) ([]Variable, error) {
	bad := func(format string, args ...any) ([]Variable, error) {
		return nil, fmt.Errorf("%w: its bundle "+format, append([]any{ErrValue}, args...)...)
	}
	text := value.Reveal()
	if !wholeSurrogates(text) {
		return bad("holds half a surrogate pair")
	}
	tokens := json.NewDecoder(strings.NewReader(text))
	if t, err := tokens.Token(); err != nil || t != json.Delim('{') {
		return bad("is not one JSON object")
	}
	var vars []Variable
	seen := map[string]bool{}
	for tokens.More() {
		// Errors of encoding/json may quote the text, so none is passed on.
		key, err := tokens.Token()
		name, ok := key.(string)
		if err != nil || !ok {
			return bad("is not one JSON object of names and strings")
		}
		if !slices.Contains(names, name) {
			return bad("holds a variable that its label does not name")
		}
		if seen[name] {
			return bad("holds %s twice", name)
		}
		seen[name] = true
		member, err := tokens.Token()
		text, ok := member.(string)
		if err != nil || !ok {
			return bad("holds something other than a string for %s", name)
		}
		v := Variable{name, plaintext.New(text)}
		if err := CheckValue(v.Value); err != nil {
			return nil, fmt.Errorf("%s in its bundle: %w", name, err)
		}
		vars = append(vars, v)
	}
	if t, err := tokens.Token(); err != nil || t != json.Delim('}') {
		return bad("is not one JSON object")
	}
	if _, err := tokens.Token(); err != io.EOF {
		return bad("goes on after its JSON object")
	}
	if len(seen) != len(names) {
		return bad("lacks a variable that its label names")
	}
	slices.SortFunc(vars, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	return vars, nil
}

// wholeSurrogates tells whether each \uD800–\uDFFF in a JSON text is half of a
// pair. In JSON a backslash stands only in strings.
func wholeSurrogates(text string) bool {
	escaped := func(s string) (uint64, bool) { // the number of a leading \uXXXX
		if len(s) < 6 || s[:2] != `\u` {
			return 0, false
		}
		n, err := strconv.ParseUint(s[2:6], 16, 16)
		return n, err == nil
	}
	for {
		i := strings.IndexByte(text, '\\')
		if i < 0 {
			return true
		}
		text = text[i:]
		n, ok := escaped(text)
		switch {
		case !ok:
			text = text[min(2, len(text)):]
		case n < 0xd800 || n > 0xdfff:
			text = text[6:]
		default:
			low, ok := escaped(text[6:])
			if n > 0xdbff || !ok || low < 0xdc00 || low > 0xdfff {
				return false
			}
			text = text[12:]
		}
	}
}
