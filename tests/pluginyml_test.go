//go:build unix

package tests

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// TestPluginYML holds plugin.yml and the examples to the rules of Buildkite's
// plugin linter (github.com/buildkite-plugins/buildkite-plugin-linter), and to
// what the hook really takes.
func TestPluginYML(t *testing.T) {
	t.Parallel()
	root, err := agenttest.Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "plugin.yml"))
	require.NoError(t, err)
	var plugin struct {
		Name, Description, Author string
		Requirements              []string
		Configuration             struct {
			Properties map[string]struct {
				Description, Type string
				Items             struct{ Type string }
				Enum              []string
				Minimum, Maximum  int
			}
			AdditionalProperties *bool `yaml:"additionalProperties"`
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&plugin))
	require.NotEmpty(t, plugin.Name)
	require.NotEmpty(t, plugin.Description)
	require.NotEmpty(t, plugin.Author)
	require.NotNil(t, plugin.Requirements)
	require.NotNil(t, plugin.Configuration.AdditionalProperties)
	require.False(t, *plugin.Configuration.AdditionalProperties)

	// Each property is one that the hook takes, with the same limits, and it takes
	// no other.
	names := slices.Sorted(maps.Keys(plugin.Configuration.Properties))
	require.Equal(t, []string{"busy", "gpu", "min_vram_mib", "optional", "required"}, names)
	takes := func(name, value string) bool {
		got, err := wish.Parse(`{"` + name + `":` + value + `}`)
		return err == nil && !reflect.DeepEqual(got, wish.Wishes{})
	}
	for _, name := range names {
		property := plugin.Configuration.Properties[name]
		require.NotEmpty(t, property.Description)
		switch property.Type {
		case "array":
			require.Equal(t, "string", property.Items.Type)
			require.True(t, takes(name, `["A"]`))
		case "string":
			require.Len(t, property.Enum, 1)
			require.True(t, takes(name, `"`+property.Enum[0]+`"`))
			require.False(t, takes(name, `"other"`))
		case "integer":
			require.True(t, takes(name, strconv.Itoa(property.Minimum)))
			require.True(t, takes(name, strconv.Itoa(property.Maximum)))
			require.False(t, takes(name, strconv.Itoa(property.Minimum-1)))
			require.False(t, takes(name, strconv.Itoa(property.Maximum+1)))
		default:
			require.Fail(t, "a type that the hook does not take", name)
		}
	}

	examples := 0
	for _, page := range []string{"README.md", "docs/authors.md"} {
		text, err := os.ReadFile(filepath.Join(root, page))
		require.NoError(t, err)
		for _, block := range regexp.MustCompile("(?s)```yml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(block[1], "juliagpu/secrets#") {
				continue
			}
			var pipeline struct {
				Steps []struct {
					Plugins []map[string]any
				}
			}
			require.NoError(t, yaml.Unmarshal([]byte(block[1]), &pipeline), page)
			for _, step := range pipeline.Steps {
				for _, p := range step.Plugins {
					for source, configuration := range p {
						require.Regexp(t, `^juliagpu/secrets#v\d+(\.\d+\.\d+)?$`, source, page)
						asJSON, err := json.Marshal(configuration)
						require.NoError(t, err)
						_, err = wish.Parse(string(asJSON))
						require.NoError(t, err, page)
						examples++
					}
				}
			}
		}
	}
	require.NotZero(t, examples)
}
