// Package names says which names are well formed: of variables that carry or hold
// secrets, of organizations and pipelines.
package names

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// What carries a sealed value in a job's environment.
const (
	Prefix       = "SECRET_"
	SealedSuffix = "_SEALED"
)

// ErrName says that a variable's name can't be set by a sealed value.
var ErrName = errors.New("not a name that a secret can have")

// forbidden names decide which code runs or where it talks. A ciphertext hides
// its value from the reviewer, so these are refused when sealed and when opened.
// A pattern is a path.Match pattern; those of a lower-case list match any case.
var (
	forbidden = []string{
		"BUILDKITE*", "JULIAGPU_SECRETS*", "PATH", "IFS", "ENV", "BASH*", "SHELLOPTS", "PS4",
		"LD_*", "DYLD_*", "GCONV_PATH", "GODEBUG",
		"GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_CONFIG*", "GIT_PROXY_COMMAND",
		"GIT_TEMPLATE_DIR", "GIT_EXTERNAL_DIFF", "GIT_EDITOR", "GIT_PAGER", "SSH_ASKPASS", "SSL_CERT_*",
	}
	forbiddenInAnyCase = []string{"*_proxy"}
)

// Check accepts the name of a variable that a sealed value may set:
// [A-Za-z_][A-Za-z0-9_]{0,127}, and none of those that decide which code runs
// or where it talks. The error wraps ErrName and holds the name only if it is
// well formed.
func Check(name string) error {
	if !isVariable(name) {
		return fmt.Errorf("%w: names are letters, digits and _, at most 128, and don't begin with a digit", ErrName)
	}
	if matchesAny(forbidden, name) || matchesAny(forbiddenInAnyCase, strings.ToLower(name)) {
		return fmt.Errorf("%w: %s decides which code runs or where it talks", ErrName, name)
	}
	return nil
}

func isVariable(name string) bool {
	if name == "" || len(name) > 128 || '0' <= name[0] && name[0] <= '9' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}

// IsPipeline accepts organization/pipeline, both slugs.
func IsPipeline(s string) bool {
	org, pipeline, ok := strings.Cut(s, "/")
	return ok && IsSlug(org) && IsSlug(pipeline)
}

// IsSlug accepts what Buildkite makes of an organization's or pipeline's name:
// lower-case letters, digits and hyphens (_ and . in older ones). It may be part of a
// path.
func IsSlug(s string) bool {
	return s != "" && s[0] != '-' && s[0] != '.' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}
