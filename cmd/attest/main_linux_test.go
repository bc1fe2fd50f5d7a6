package main

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestClosesFirst: it is closed to its neighbours when it begins to read the question,
// with the token in it.
func TestClosesFirst(t *testing.T) {
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	dumpable := -1
	run(nil, nil, reader(func() (err error) {
		dumpable, err = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		return errors.Join(err, io.EOF)
	}), io.Discard, io.Discard)
	require.Zero(t, dumpable)
}

// A reader has nothing to read.
type reader func() error

func (r reader) Read([]byte) (int, error) { return 0, r() }
