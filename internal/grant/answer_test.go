package grant

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
)

func mustID(s string) job.ID {
	id, err := job.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

var ours = mustID("0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b")

// full is a answer with everything.
func full() Answer {
	set := func(name, value string) []envelope.Variable {
		return []envelope.Variable{{Name: name, Value: plaintext.New(value)}}
	}
	return Answer{
		Job: ours, Facts: map[string]string{"BUILDKITE_BRANCH": "main"}, Notes: []string{"mode split: jobs must be root"}, Reason: "a fork <b>", Hint: "push it", Outage: true,
		Results: []unseal.Result{
			{Variable: "SECRET_A", Outcome: unseal.Granted, Set: set("A", "hunter2"), Warning: "expires"},
			{Variable: "SECRET_KEY", Outcome: unseal.Granted, Set: set("KEY", "\x00\xff binary"), File: true},
			{Variable: "SECRET_B\xff\n", Outcome: unseal.Withheld, Reason: "expired", Hint: "again", Loud: true},
			{Variable: "SECRET_NOTE", Outcome: unseal.Ignored, Reason: "not sealed"},
		},
	}
}

func TestMarshalAndParse(t *testing.T) {
	for name, h := range map[string]Answer{
		"everything": full(),
		"nothing":    {Job: ours},
		"a fault":    {Job: ours, Notes: []string{"mode split"}, Fault: &Fault{"identity: mode 0644\nidentity: not given up", "chmod 600"}},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := h.Marshal()
			require.NoError(t, err)
			got, err := ParseAnswer(data)
			require.NoError(t, err)
			require.Equal(t, h, got)
		})
	}
	h := Answer{Job: ours, Reason: "not UTF-8: \xff"}
	data, err := h.Marshal()
	require.NoError(t, err)
	got, err := ParseAnswer(data)
	require.NoError(t, err)
	require.Equal(t, "not UTF-8: ?", got.Reason)

	h.Results = []unseal.Result{{Variable: "SECRET_A", Outcome: unseal.Granted, Set: []envelope.Variable{{Name: "A", Value: plaintext.New(strings.Repeat("x", maxAnswer))}}}}
	_, err = h.Marshal()
	require.EqualError(t, err, "larger than 16 MiB")
}

func TestParseRefuses(t *testing.T) {
	data, err := full().Marshal()
	require.NoError(t, err)
	change := func(old, new string) []byte {
		require.Contains(t, string(data), old)
		return bytes.Replace(data, []byte(old), []byte(new), 1)
	}
	for name, text := range map[string][]byte{
		"nothing":                  {},
		"half of it":               data[:len(data)/2],
		"all but a byte":           data[:len(data)-1],
		"something behind it":      append(bytes.Clone(data), '\n'),
		"two":                      append(bytes.Clone(data), data...),
		"another version":          change(`"version":1`, `"version":2`),
		"an unknown key":           change(`"version":1`, `"version":1,"trusted":true`),
		"a key twice":              change(`"version":1`, `"version":1,"version":1`),
		"a key in upper case":      change(`"version"`, `"Version"`),
		"blanks":                   change(`"version":1`, `"version": 1`),
		"no UUID":                  change(ours.String(), "../../../../../../../etc/juliagpu-sec"),
		"null":                     change(`"notes":["mode split: jobs must be root"]`, `"notes":null`),
		"an unknown outcome":       change(`"outcome":1`, `"outcome":4`),
		"granted, with nothing":    change(`"set":[{"name":"A","value":"aHVudGVyMg=="}]`, `"set":[]`),
		"withheld, with something": change(`"outcome":1`, `"outcome":2`),
		"a forbidden name":         change(`"name":"A"`, `"name":"LD_PRELOAD"`),
		"no name":                  change(`"name":"A"`, `"name":""`),
		"base64 of another kind":   change(`aHVudGVyMg==`, `aHVudGVyMh==`),
		"a fault beside results":   change(`"fault":null`, `"fault":{"text":"x","hint":""}`),
		"too large":                append(bytes.Clone(data), bytes.Repeat([]byte(" "), maxAnswer)...),
	} {
		t.Run(name, func(t *testing.T) {
			h, err := ParseAnswer(text)
			require.ErrorIs(t, err, ErrMalformed)
			require.Zero(t, h)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// FuzzParse: what is accepted has one spelling, and holds what environment relies on.
func FuzzParseAnswer(f *testing.F) {
	for _, h := range []Answer{full(), {Job: ours}, {Job: ours, Fault: &Fault{"a", "b"}}} {
		data, err := h.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseAnswer(data)
		if err != nil {
			require.True(t, errors.Is(err, ErrMalformed))
			require.Zero(t, h)
			return
		}
		again, err := h.Marshal()
		require.NoError(t, err)
		require.Equal(t, data, again)
		for _, r := range h.Results {
			require.Equal(t, r.Outcome == unseal.Granted, len(r.Set) > 0)
			for _, v := range r.Set {
				require.NoError(t, names.Check(v.Name))
			}
		}
	})
}
