//go:build unix && !linux

package agenttest

import (
	"errors"
	"os/exec"
)

func ownMounts(*exec.Cmd) error { return errors.New("Agent.Setup is for Linux") }
