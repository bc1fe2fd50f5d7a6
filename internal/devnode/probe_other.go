//go:build !linux

package devnode

import (
	"errors"
	"io/fs"
)

// A Prober asks the kernel about devices: Linux alone has device cgroups.
type Prober struct{}

var errLinux = errors.New("only on linux")

// Open is an error here.
func Open() (*Prober, error) { return nil, errLinux }

// Dir is empty here.
func (*Prober) Dir() string { return "" }

// Close does nothing here.
func (*Prober) Close() error { return nil }

// Number is Unknown here.
func (*Prober) Number(Number) Access { return Access{Cause: errLinux.Error()} }

// Path is Unknown here.
func (*Prober) Path(string) Access { return Access{Cause: errLinux.Error()} }

// Of knows only a Number that stands in for what the system says of a file, for tests.
func Of(info fs.FileInfo) (Number, bool) {
	n, ok := info.Sys().(Number)
	return n, ok && info.Mode()&fs.ModeDevice != 0
}
