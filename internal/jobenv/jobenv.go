// Package jobenv sets variables of the running job over the agent's Job API,
// after it has masked their values in the job's log.
package jobenv

import (
	"maps"
	"os"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

// A Delivery is what a job gets.
type Delivery struct {
	Secrets []envelope.Variable // masked, then set
	Plain   map[string]string   // set as they are
}

// Deliver masks the secrets, then sets everything at once. It returns one line
// about what is not masked, or "". After an error nothing may be relied on: the
// job must not go on.
func (c *Client) Deliver(d Delivery) (unmasked string, err error) {
	texts, unmasked := masks(d.Secrets)
	if err := c.Mask(texts); err != nil {
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

// isAncestor tells whether pid is our parent, or a parent of it, and so on up.
func isAncestor(pid int) bool {
	for next, ok := os.Getppid(), true; ok && next > 0; next, ok = parent(next) {
		if next == pid {
			return true
		}
	}
	return false
}
