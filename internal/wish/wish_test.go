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
		`{"gpu":"required"}`:           {GPU: true},
		`{"min_vram_mib":1}`:           {MinVRAMMiB: 1},
		`{"min_vram_mib":16777216}`:    {MinVRAMMiB: 16777216},
		`{"busy":"deny"}`:              {BusyDeny: true},
		`{"required":["A"],"gpu":"required","min_vram_mib":8192,"busy":"deny"}`: {Required: []string{"A"}, GPU: true, MinVRAMMiB: 8192, BusyDeny: true},
	} {
		got, err := Parse(configuration)
		require.NoError(t, err, configuration)
		require.Equal(t, want, got, configuration)
	}
	for _, configuration := range []string{
		"[]", `"A"`, "{", `{"required":"A"}`, `{"required":[1]}`, `{"required":["A"],"colour":"red"}`, `{"required":["A B"]}`,
		`{"required":["PATH"]}`, `{"optional":[""]}`, `{"required":["A"]}{}`, `{"required":["SECRET_A"]}`, `{"required":["A\n+++ x"]}`,
		`{"gpu":"optional"}`, `{"gpu":true}`, `{"gpu":false}`, `{"gpu":null}`, `{"gpu":"Required"}`, `{"gpu":["required"]}`, `{"gpu":""}`, `{"gpu":"required\n+++ x"}`,
		`{"busy":"warn"}`, `{"busy":"off"}`, `{"busy":true}`, `{"busy":null}`, `{"busy":["deny"]}`,
		`{"min_vram_mib":0}`, `{"min_vram_mib":-1}`, `{"min_vram_mib":16777217}`, `{"min_vram_mib":"8192"}`, `{"min_vram_mib":1.5}`, `{"min_vram_mib":8e3}`,
		`{"min_vram_mib":null}`, `{"min_vram_mib":true}`, `{"min_vram_mib":99999999999999999999}`, `{"min_vram":1}`,
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
		// Several entries: what is strictest counts, and an entry that can't be read wishes nothing.
		`[{"./secrets-buildkite-plugin":{"gpu":"required","min_vram_mib":8}},{"./secrets-buildkite-plugin":{"min_vram_mib":16}},{"./secrets-buildkite-plugin":{"min_vram_mib":4}}]`: {GPU: true, MinVRAMMiB: 16},
		`[{"./secrets-buildkite-plugin":{"optional":["A"]}},{"./secrets-buildkite-plugin":{"busy":"deny"}},{"./secrets-buildkite-plugin":{"gpu":"optional","min_vram_mib":16}}]`:    {Optional: []string{"A"}, BusyDeny: true},
		`[{"./secrets-buildkite-plugin":{"busy":"deny","gpu":"required"}},{"./secrets-buildkite-plugin":{"required":["A"]}}]`:                                                       {Required: []string{"A"}, GPU: true, BusyDeny: true},
		`[{"github.com/juliagpu/secrets-buildkite-plugin#v1":{"colour":"red"}}]`:                                                                                                    {},
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
	f.Add(`{"gpu":"required","min_vram_mib":8192,"busy":"deny"}`)
	f.Fuzz(func(t *testing.T, configuration string) {
		w, err := Parse(configuration)
		Find(configuration)
		if err != nil {
			require.ErrorIs(t, err, ErrConfiguration)
			require.Equal(t, Wishes{}, w)
		}
		require.True(t, 0 <= w.MinVRAMMiB && w.MinVRAMMiB <= MaxVRAMMiB)
	})
}
