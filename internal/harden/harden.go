// Package harden closes the process to its neighbours and to the settings that
// a job's environment has for Go's runtime.
//
// A hook calls both, first thing in main:
//
//	err := harden.CleanRuntime(os.Args, os.Environ())
//	err = errors.Join(err, harden.Process())
//
// in this order: what Process sets does not survive the execve of CleanRuntime.
// Go's runtime has read those variables before main begins, but nothing of ours
// has run by then.
package harden

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CleanRuntime starts the program anew, in the same process and with the same
// arguments, if env sets a variable of Go's runtime; these are gone then, so it
// does so once. argv holds the program's name first, as os.Args does. It
// returns nil where there is nothing to do, and otherwise only if execve failed.
func CleanRuntime(argv, env []string) error {
	if len(RuntimeVariables(env)) == 0 {
		return nil
	}
	clean := slices.DeleteFunc(slices.Clone(env), isRuntimeVariable)
	program, err := program()
	if err == nil {
		err = syscall.Exec(program, argv, clean)
	}
	return fmt.Errorf("start again without GODEBUG and its like: %w", err)
}

// RuntimeVariables returns the entries of env, NAME=value, that CleanRuntime takes
// away.
func RuntimeVariables(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(entry string) bool { return !isRuntimeVariable(entry) })
}

// isRuntimeVariable knows what Go's runtime reads ("Environment Variables" of
// package runtime): a job could slow a hook down, make it write a core file, or
// have its TLS and cryptography behave as in older releases.
func isRuntimeVariable(entry string) bool {
	name, _, _ := strings.Cut(entry, "=")
	switch name {
	case "GODEBUG", "GOTRACEBACK", "GOGC", "GOMEMLIMIT", "GOMAXPROCS":
		return true
	}
	return false
}

// noCoreFiles sets both limits: without privilege nobody can raise the hard one.
func noCoreFiles() error {
	var limit unix.Rlimit
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if limit != (unix.Rlimit{}) {
		return errors.New("forbid core files: they still are allowed")
	}
	return nil
}
