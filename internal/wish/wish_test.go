package wish

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for configuration, want := range map[string]Wishes{
		"":                             {},
		"null":                         {},
		"{}":                           {},
		`{"required":["A","B"]}`:       {Required: []string{"A", "B"}},
		`{"optional":["a_1"]}`:         {Optional: []string{"a_1"}},
		`{"required":[]}`:              {Required: []string{}},
		` {"optional": ["A"] }` + "\n": {Optional: []string{"A"}},
	} {
		got, err := Parse(configuration)
		require.NoError(t, err, configuration)
		require.Equal(t, want, got, configuration)
	}
	for _, configuration := range []string{
		"[]", `"A"`, "{", `{"required":"A"}`, `{"required":[1]}`, `{"required":["A"],"colour":"red"}`, `{"required":["A B"]}`,
		`{"required":["PATH"]}`, `{"optional":[""]}`, `{"required":["A"]}{}`, `{"required":["SECRET_A"]}`, `{"required":["A\n+++ x"]}`,
	} {
		got, err := Parse(configuration)
		require.ErrorIs(t, err, ErrConfiguration, configuration)
		require.Equal(t, Wishes{}, got)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestFind(t *testing.T) {
	for plugins, want := range map[string]Wishes{
		"":        {},
		"[]":      {},
		"no list": {},
		`["github.com/juliagpu/secrets-buildkite-plugin#v1"]`:                                                              {},
		`[{"github.com/juliagpu/secrets-buildkite-plugin#v1":null}]`:                                                       {},
		`[{"github.com/juliagpu/secrets-buildkite-plugin#v1":{"required":["A"]}}]`:                                         {Required: []string{"A"}},
		`[{"https://github.com/juliagpu/secrets-buildkite-plugin.git#v1":{"optional":["A"]}}]`:                             {Optional: []string{"A"}},
		`[{"./secrets-buildkite-plugin":{"optional":["A"]}},{"file:///x/secrets-buildkite-plugin#v1":{"optional":["B"]}}]`: {Optional: []string{"A", "B"}},
		`[{"github.com/buildkite-plugins/secrets-buildkite-plugin#v1":{"required":["A"]}}]`:                                {},
		`[{"github.com/mallory/other-buildkite-plugin#secrets-buildkite-plugin":{"required":["A"]}}]`:                      {},
		`[{"github.com/juliagpu/secrets-buildkite-plugin#v1":{"colour":"red"}}]`:                                           {},
	} {
		require.Equal(t, want, Find(plugins), plugins)
	}
}

func TestMissing(t *testing.T) {
	w := Wishes{Required: []string{"A", "B"}, Optional: []string{"C"}}
	require.Equal(t, []string{"B"}, w.Missing([]string{"A", "X"}))
	require.Empty(t, w.Missing([]string{"B", "A"}))
	require.True(t, w.Lists("C"))
	require.True(t, w.Lists("A"))
	require.False(t, w.Lists("D"))
}

func FuzzParse(f *testing.F) {
	f.Add(`{"required":["A"],"optional":["B"]}`)
	f.Fuzz(func(t *testing.T, configuration string) {
		w, err := Parse(configuration)
		Find(configuration)
		if err != nil {
			require.ErrorIs(t, err, ErrConfiguration)
			require.Equal(t, Wishes{}, w)
		}
	})
}
