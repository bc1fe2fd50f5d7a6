//go:build linux

// Floor makes the exchanges with the Job API that the hook makes, with names,
// values and masks that lie ready in a file: no hook that delivers the same can
// be much faster. It is the hook's own client, and what no settings, identity,
// trust, opening or report costs.
//
//	floor FILE
//
// The file holds each mask, an empty text, then each variable as NAME=value, all
// ended by NUL.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/jobenv"
)

func main() {
	debug.SetGCPercent(-1) // as in the hook
	if err := run(os.Args[1], os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, "floor: error:", err)
		os.Exit(1)
	}
}

func run(path string, environ []string) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(file)
	var masks []string
	for {
		mask, rest, _ := strings.Cut(text, "\x00")
		text = rest
		if mask == "" {
			break
		}
		masks = append(masks, mask)
	}
	vars := map[string]string{}
	for text != "" {
		line, rest, _ := strings.Cut(text, "\x00")
		text = rest
		name, value, _ := strings.Cut(line, "=")
		vars[name] = value
	}
	client, err := jobenv.Dial(jobenv.AddressFrom(environ))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Mask(masks); err != nil {
		return err
	}
	return client.Set(vars)
}
