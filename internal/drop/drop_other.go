//go:build !linux

package drop

import "errors"

// To is for Linux alone.
func To(User) error { return errors.ErrUnsupported }

// Able is for Linux alone.
func Able() error { return errors.ErrUnsupported }
