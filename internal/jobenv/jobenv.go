// Package jobenv sets variables of the running job over the agent's Job API,
// after it has masked their values in the job's log.
package jobenv

import (
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

// A Delivery is what a job gets.
type Delivery struct {
	Secrets []envelope.Variable // masked, then set
	Files   []envelope.Variable // masked alone: Plain holds their paths
	Plain   map[string]string   // set as they are
}

// MaskEarly begins to mask values while others are still being opened: of all
// masks these go first. Deliver masks their other forms, and waits for the answers.
func (c *Client) MaskEarly(vars []envelope.Variable) {
	for _, v := range vars {
		if text := v.Value.Reveal(); utf8.ValidString(text) {
			for _, piece := range pieces(text) {
				c.mask(piece)
			}
		}
	}
}

// Deliver masks the secrets, then sets everything at once. It returns one line
// about what is not masked, or "". After an error nothing may be relied on: the
// job must not go on.
func (c *Client) Deliver(d Delivery) (unmasked string, err error) {
	unmasked = eachMask(slices.Concat(d.Secrets, d.Files), c.sent, c.mask)
	if err := c.Mask(nil); err != nil {
		return "", err
	}
	// Every mask is confirmed: from here on another hook may print the
	// environment, and the log shows [REDACTED].
	vars := make(map[string]string, len(d.Plain)+len(d.Secrets))
	maps.Copy(vars, d.Plain)
	for _, v := range d.Secrets {
		vars[v.Name] = v.Value.Reveal()
	}
	return unmasked, c.Set(vars)
}
