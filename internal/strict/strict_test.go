package strict

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// at returns the value under a in the text. What package settings reads tests
// the rest of this package: each mistake, with its place and its remedy.
func at(t *testing.T, text string) Value {
	t.Helper()
	root, err := Parse([]byte(text), "")
	require.NoError(t, err, text)
	v, ok := root.Get("a")
	require.True(t, ok, text)
	return v
}

func TestWord(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1.17.8": "1.17.8", "a: 1.10": "1.10", "a: 580": "580", "a: 0x1F": "0x1F", "a: 2027-03-31": "2027-03-31", "a: '1.10'": "1.10", "a: x y": "x y",
		"a: 2026-11-23T13:00:00Z": "2026-11-23T13:00:00Z", "a: .inf": ".inf",
	} {
		got, err := at(t, text).Word()
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, want := range map[string]string{
		"a: true": "1:4: a: true or false, where text belongs", "a: [x]": "1:4: a: a list, where text belongs", "a: {x: y}": "1:4: a: a mapping, where text belongs",
		"a:": "1:3: a: nothing, where text belongs", "a: ~": "1:4: a: nothing, where text belongs", "a: ''": "1:4: a: empty, or with a blank at its beginning or end",
		"a: \"x\\ty\"": "1:4: a: not one line of printable text",
	} {
		_, err := at(t, text).Word()
		require.EqualError(t, err, want)
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]int{"a: 0": 0, "a: 7": 7, "a: -1": -1} {
		got, err := at(t, text).Number(-1, 7)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{
		"a: 8", "a: -2", "a: 07", "a: 0o7", "a: 0x7", "a: +7", "a: 1_0", "a: 7.0", "a: 7e0", "a: '7'", "a: -0", "a: [7]", "a:", "a: seven", "a: 99999999999999999999",
	} {
		_, err := at(t, text).Number(-1, 7)
		var e *Error
		require.ErrorAs(t, err, &e, text)
		assert.Equal(t, "not a whole number from -1 to 7", e.Cause)
		assert.Equal(t, "write digits alone, without quotes", e.Hint())
	}
}

func TestGet(t *testing.T) {
	one, err := at(t, "a: {b: c}").text("b")
	require.NoError(t, err)
	require.Equal(t, "c", one)
	_, ok := at(t, "a: {b: c}").Get("c")
	require.False(t, ok)
	_, ok = at(t, "a: [b, c]").Get("b")
	require.False(t, ok, "a list has no members")

	_, ok = at(t, "a: {b: c}").Only("b")
	require.True(t, ok)
	for _, text := range []string{"a: {b: c, d: e}", "a: {c: b}", "a: [b, c]", "a: b", "a: {}"} {
		_, ok := at(t, text).Only("b")
		require.False(t, ok, text)
	}
	require.EqualError(t, at(t, "a: {b: c}").Below("d").Errorf("", "missing"), "1:4: a.d: missing")
}

// text reads a member.
func (v Value) text(name string) (string, error) {
	member, ok := v.Get(name)
	if !ok {
		return "", errors.New("not there")
	}
	return member.Text()
}

// TestEmpty: each caller has a remedy of its own.
func TestEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n"} {
		_, err := Parse([]byte(text), "write a: b")
		var e *Error
		require.ErrorAs(t, err, &e)
		require.EqualError(t, err, "empty")
		require.Equal(t, "write a: b", e.Hint())
	}
}
