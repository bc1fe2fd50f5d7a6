//go:build unix && !linux

package kept

import (
	"context"
	"errors"
)

// Ready is for Linux.
func (r Room) Ready(context.Context, func(string, ...any)) error {
	return errors.New("agents have containers on Linux alone")
}

// Unused is for Linux.
func (r Room) Unused() error { return nil }

// Remove is for Linux.
func (r Room) Remove() error { return nil }
