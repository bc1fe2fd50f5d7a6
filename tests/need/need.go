// Package need says what a test needs that a user's machine may lack.
package need

import (
	"os"
	"testing"
)

// noSkip is set by .ci/run, where all of it must be there.
const noSkip = "TESTS_MUST_NOT_SKIP"

// Root skips a test that has to run as root, with what for: "to mount".
func Root(t testing.TB, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root "+what)
	}
}

// Skip skips a test with its reason in one line, or fails it under .ci/run.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv(noSkip) != "" {
		t.Fatalf("%s, and %s is set", reason, noSkip)
	}
	t.Skip(reason)
}
