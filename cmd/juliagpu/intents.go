package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/fleet"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// readIntents reads what each agent of a host is to have: NAME/gpu.yml of each
// folder, in order of names, and what .env beside it says that it is given. One that
// can't be read or understood is an error: it may be about anything.
func readIntents(folder string) ([]gpu.Intent, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, refuse("make a folder for each agent there, with its gpu.yml: docs/gpu.md says how to write it", "%s: %s", escape.Text(folder), cause(err))
	}
	var all []gpu.Intent
	for _, e := range entries {
		path := filepath.Join(folder, e.Name(), "gpu.yml")
		text, err := readTrusted(path) // first: who could take it away could hide it
		switch {
		case strings.HasPrefix(e.Name(), "."), absent(path, err):
			continue // no agent's, or one whose policy is written by hand
		case errors.Is(err, fs.ErrPermission):
			return nil, refuse("run it as root, on the host", "%s: %s", escape.Text(path), cause(err))
		case errors.As(err, new(*fs.PathError)):
			return nil, refuse("mend it or take it away: it may be about the same GPU", "%s: %s", escape.Text(path), cause(err))
		case err != nil:
			return nil, err
		case !gpu.IsAgent(e.Name()):
			return nil, refuse("letters, digits, dots, hyphens and underscores, as in gpuci.3", "%s: its folder's name is not an agent's", escape.Text(path))
		}
		intent, err := gpu.ParseIntent(text)
		var at *strict.Error
		if errors.As(err, &at) {
			at.Path = escape.Text(path)
			return nil, refuse(at.Hint(), "%s", at)
		}
		if err != nil {
			return nil, err
		}
		intent.Agent, intent.Path = e.Name(), path
		agent, err := fleet.Read(folder, e.Name())
		if intent.Policy.Off != "" && err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, hinted(err) // nothing else says what that agent has
		}
		intent.Given = agent.GPUs
		all = append(all, intent)
	}
	return all, nil
}

// absent tells whether an error of readTrusted's says that nothing is at a path. A
// link to what is not there now is something, and may be about any GPU.
func absent(path string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return false
	}
	_, folderErr := os.Stat(filepath.Dir(path))
	_, linkErr := os.Readlink(path)
	return folderErr == nil && linkErr != nil
}

// distrusted is the refusal of a file that somebody else could have changed.
func distrusted(err *rootfile.Error) error {
	hint := err.Hint()
	if hint != "" {
		hint = escape.Text(hint)
	}
	return refuse(hint, "%s", escape.Text(err.Error()))
}

// readTrusted reads an operator's file that nobody else could have changed. The
// error is what open(2) says, or a refusal.
func readTrusted(path string) ([]byte, error) {
	file, _, err := rootfile.Open(path, rootfile.Rule{User: os.Getuid()})
	var untrusted *rootfile.Error
	if errors.As(err, &untrusted) {
		return nil, distrusted(untrusted)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, strict.MaxFile+1)) // which ParseIntent refuses
}
