//go:build !linux

package main

import "github.com/rogpeppe/go-internal/testscript"

// talk needs a pseudo-terminal; scripts that use it begin with [!linux] skip.
func talk(ts *testscript.TestScript, _ bool, _ []string) { ts.Fatalf("talk runs on Linux only") }
