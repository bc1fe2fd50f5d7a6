//go:build !linux

package main

import (
	"errors"
	"os"
)

// Split mode is for Linux: settings says so first.
func environ() ([]string, error) { return os.Environ(), nil }

func gpuGroups() ([]int, error) { return nil, errors.ErrUnsupported }

func giveStreams(uid, gid int) {}

func leaveBehind(string) error { return errors.ErrUnsupported }
