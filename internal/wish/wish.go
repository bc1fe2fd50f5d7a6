// Package wish reads what a step wishes of the plugin. Wishes can only tighten
// what the operator set: they say which secrets a step can't do without, which a
// step that uploads a pipeline may have, and what GPU a step needs.
package wish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
)

// ErrConfiguration says that a step configures the plugin wrongly.
var ErrConfiguration = errors.New("the plugin's configuration in this step is not valid")

// MaxVRAMMiB is the most memory that a step may ask for, 16 TiB: more is a slip of
// the finger.
const MaxVRAMMiB = 16 << 20

// Wishes are the plugin's configuration in one step; plugin.yml is its schema.
type Wishes struct {
	Required []string // names that must be granted, or the job fails
	Optional []string // names that the step can do without

	GPU        bool // gpu: required; the agent's policy must name one, and it must be there
	MinVRAMMiB int  // min_vram_mib, which the GPU must have; 0: any
	BusyDeny   bool // busy: deny; the GPU must be idle before the job
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
	var stated struct {
		Required   []string        `json:"required"`
		Optional   []string        `json:"optional"`
		GPU        json.RawMessage `json:"gpu"`
		MinVRAMMiB json.RawMessage `json:"min_vram_mib"`
		Busy       json.RawMessage `json:"busy"`
	}
	decoder := json.NewDecoder(strings.NewReader(configuration))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stated); err != nil {
		return Wishes{}, fmt.Errorf("%w: it takes required and optional, both lists of names, gpu, min_vram_mib and busy", ErrConfiguration)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Wishes{}, fmt.Errorf("%w: it goes on after its end", ErrConfiguration)
	}
	// Nothing but the one word: gpu: optional, or busy: warn, would loosen nothing,
	// and look as if it did.
	if stated.GPU != nil && string(stated.GPU) != `"required"` {
		return Wishes{}, fmt.Errorf("%w: gpu takes the word required, and no other", ErrConfiguration)
	}
	if stated.Busy != nil && string(stated.Busy) != `"deny"` {
		return Wishes{}, fmt.Errorf("%w: busy takes the word deny, and no other", ErrConfiguration)
	}
	if stated.MinVRAMMiB != nil {
		err := json.Unmarshal(stated.MinVRAMMiB, &w.MinVRAMMiB)
		if err != nil || w.MinVRAMMiB < 1 || w.MinVRAMMiB > MaxVRAMMiB {
			return Wishes{}, fmt.Errorf("%w: min_vram_mib takes a whole number from 1 to %d", ErrConfiguration, MaxVRAMMiB)
		}
	}
	w.Required, w.Optional, w.GPU, w.BusyDeny = stated.Required, stated.Optional, stated.GPU != nil, stated.Busy != nil
	for _, name := range slices.Concat(w.Required, w.Optional) {
		if err := names.Check(name); err != nil {
			return Wishes{}, fmt.Errorf("%w: %s is %w", ErrConfiguration, escape.Text(name), err)
		}
		if strings.HasPrefix(name, names.Prefix) {
			return Wishes{}, fmt.Errorf("%w: %s: write the variable's name as the step reads it, without %s", ErrConfiguration, name, names.Prefix)
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
				found.GPU = found.GPU || w.GPU
				found.MinVRAMMiB = max(found.MinVRAMMiB, w.MinVRAMMiB)
				found.BusyDeny = found.BusyDeny || w.BusyDeny
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
