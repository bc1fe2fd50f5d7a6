// Package wish reads what a step wishes of the plugin. Wishes can only tighten
// what the operator set: they say which secrets a step can't do without, and
// which a step that uploads a pipeline may have.
package wish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
)

// ErrConfiguration says that a step configures the plugin wrongly.
var ErrConfiguration = errors.New("the plugin's configuration in this step is not valid")

// Wishes are the plugin's configuration in one step; plugin.yml is its schema.
type Wishes struct {
	Required []string `json:"required"` // names that must be granted, or the job fails
	Optional []string `json:"optional"` // names that the step can do without
}

// Lists tells whether a step names the variable at all.
func (w Wishes) Lists(name string) bool {
	return slices.Contains(w.Required, name) || slices.Contains(w.Optional, name)
}

// Missing returns the required names that are not granted.
func (w Wishes) Missing(granted []string) []string {
	var missing []string
	for _, name := range w.Required {
		if !slices.Contains(granted, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// Parse reads BUILDKITE_PLUGIN_CONFIGURATION, which the agent sets for each hook
// of a plugin. (The flattened variables BUILDKITE_PLUGIN_SECRETS_… can be forged
// from a pipeline's env.) The error wraps ErrConfiguration.
func Parse(configuration string) (Wishes, error) {
	var w Wishes
	if strings.TrimSpace(configuration) == "" {
		return w, nil // a plugin without configuration
	}
	decoder := json.NewDecoder(strings.NewReader(configuration))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&w); err != nil {
		return Wishes{}, fmt.Errorf("%w: it takes required and optional, both lists of names", ErrConfiguration)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Wishes{}, fmt.Errorf("%w: it goes on after its end", ErrConfiguration)
	}
	for _, name := range slices.Concat(w.Required, w.Optional) {
		if err := envelope.CheckName(name); err != nil {
			return Wishes{}, fmt.Errorf("%w: %s is %w", ErrConfiguration, escape.Text(name), err)
		}
		if strings.HasPrefix(name, envelope.Prefix) {
			return Wishes{}, fmt.Errorf("%w: %s: write the variable's name as the step reads it, without %s", ErrConfiguration, name, envelope.Prefix)
		}
	}
	return w, nil
}

// Find returns the wishes of all entries of this plugin in BUILDKITE_PLUGINS, the
// list of a step's plugins. It is for hooks at agent level, where nobody states
// the one configuration. What can't be read holds no wish.
func Find(plugins string) Wishes {
	var found Wishes
	var entries []json.RawMessage
	if json.Unmarshal([]byte(plugins), &entries) != nil {
		return found
	}
	for _, entry := range entries {
		var configured map[string]json.RawMessage // source to configuration
		if json.Unmarshal(entry, &configured) != nil {
			continue // a string: a plugin without configuration
		}
		for source, configuration := range configured {
			if !isOurs(source) || bytes.Equal(configuration, []byte("null")) {
				continue
			}
			if w, err := Parse(string(configuration)); err == nil {
				found.Required = append(found.Required, w.Required...)
				found.Optional = append(found.Optional, w.Optional...)
			}
		}
	}
	return found
}

// isOurs recognises this plugin's source: its repository's name is that of
// Buildkite's own secrets plugin, too, which is another owner's.
func isOurs(source string) bool {
	source, _, _ = strings.Cut(source, "#")
	source = strings.TrimSuffix(strings.TrimSuffix(source, "/"), ".git")
	return strings.HasSuffix(source, "secrets-buildkite-plugin") && !strings.Contains(source, "buildkite-plugins/")
}
