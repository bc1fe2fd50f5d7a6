package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// systemPolicy is where a policy for GPUs is looked for that no configuration
// names.
const systemPolicy = "/etc/juliagpu-secrets/gpu.yml"

// Policy returns the operator's policy for GPUs: the one in the configuration, or
// in the file that it names, or in /etc/juliagpu-secrets/gpu.yml; nil where there
// is none. The first beside the last is an error: two sources could disagree.
//
// A file is trusted as Load trusts the configuration, where uid is for direct
// mode; 0 trusts root's alone. Neither may it be a symbolic link, though links on
// the way to it are judged and followed: the resolver replaces the file itself,
// and what a container sees of it is a mount. The error is a *strict.Error, or
// wraps rootfile.ErrUntrusted or fs.ErrNotExist.
func (s Settings) Policy(uid int) (*gpu.Policy, error) { return s.policy(uid, systemPolicy) }

// DefaultPolicy is Policy for an agent without configuration.
func DefaultPolicy(uid int) (*gpu.Policy, error) { return Settings{}.Policy(uid) }

func (s Settings) policy(uid int, system string) (*gpu.Policy, error) {
	if s.GPU.File != "" {
		return loadPolicy(s.GPU.File, uid)
	}
	_, err := os.Lstat(system)
	there := err == nil
	switch {
	case !there && !errors.Is(err, fs.ErrNotExist):
		return nil, err // what can't be seen may be there
	case there && s.GPU.Policy != nil:
		return nil, &strict.Error{Path: s.Path, Key: "gpu", Cause: "a policy, and there is another in " + system, Remedy: "keep one: they could disagree"}
	case there:
		return loadPolicy(system, uid)
	}
	return s.GPU.Policy, nil
}

// loadPolicy reads and parses a policy file.
func loadPolicy(path string, uid int) (*gpu.Policy, error) {
	// Whoever could put a link here between the two calls could as well put a file.
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, &strict.Error{Path: path, Cause: "a symbolic link", Remedy: "name the file itself: gpu: {file: …} in config.yml"}
	}
	text, changeable, err := read(path, uid)
	if errors.Is(err, fs.ErrNotExist) { // of a directory on the way, it may be
		return nil, fmt.Errorf("the policy for GPUs, %s: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	p, err := gpu.ParsePolicy(text)
	if err != nil {
		return nil, in(path, err)
	}
	p.Path, p.Changeable = path, changeable
	return &p, nil
}
