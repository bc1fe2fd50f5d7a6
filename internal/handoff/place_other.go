//go:build !linux

package handoff

import (
	"errors"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
)

// Split mode is for Linux: settings refuses it elsewhere.
var errLinux = errors.New("hand-offs are for Linux")

func (s Store) Leave(job.ID, []byte, User) error { return errLinux }
func (s Store) Take(job.ID) ([]byte, error)      { return nil, errLinux }
func (s Store) Owner(job.ID) (int, error)        { return 0, errLinux }
func (s Store) First() (bool, error)             { return false, errLinux }
func (s Store) Sweep() error                     { return errLinux }
