//go:build !windows

package main

// The terminal that controls the program (tty(4)).
const terminalIn, terminalOut = "/dev/tty", "/dev/tty"
