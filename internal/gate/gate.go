// Package gate knows the names of variables with which a job reaches beyond its
// own command.
package gate

import (
	"path"
	"slices"
	"strings"
)

// agents are variables that decide whether the agent's hooks run, which ones, and
// where they send what. The agent sets each over the job's own (v3.81.0,
// createEnvironment; internal/job/api.go for the Job API), but can be deceived, see
// Replaces. A server has no reason to state them for a job: the agent's own
// env/protected.go says so of most.
var agents = []string{
	"BUILDKITE_ADDITIONAL_HOOKS_PATHS",
	"BUILDKITE_AGENT_EXPERIMENT", // polyglot-hooks
	"BUILDKITE_AGENT_JOB_API_SOCKET",
	"BUILDKITE_AGENT_JOB_API_TOKEN",
	"BUILDKITE_BIN_PATH",
	"BUILDKITE_BUILD_PATH", // a checkout could be laid over the hooks
	"BUILDKITE_COMMAND_EVAL",
	"BUILDKITE_ENV_FILE",
	"BUILDKITE_ENV_JSON_FILE",
	"BUILDKITE_HOOKS_PATH",
	"BUILDKITE_HOOKS_SHELL",
	"BUILDKITE_KUBERNETES_EXEC", // the bootstrap takes its environment from a socket
	"BUILDKITE_LOCAL_HOOKS_ENABLED",
	"BUILDKITE_PLUGINS_ENABLED",
	"BUILDKITE_PLUGINS_PATH",
	"BUILDKITE_SOCKETS_PATH",
}

// Replaces tells whether a job that has this variable could run without the
// agent's hooks, and so must not start. The name is one of the agent's own; or it
// begins like one of Buildkite's and holds "=": the bootstrap takes
// "BUILDKITE_HOOKS_PATH=/n" with an empty value for BUILDKITE_HOOKS_PATH, which
// then is there twice, and either may win (seen with v3.81.0).
func Replaces(name string) bool {
	name, _, assigns := strings.Cut(name, "=")
	return slices.Contains(agents, name) || assigns && strings.HasPrefix(name, "BUILDKITE")
}

// A group is what an operator may reject by one word.
type group struct {
	word     string
	patterns []string
}

// groups are variables that serve to get into other people's processes: those that
// the agent, Git and hooks start on this host, around the job's command.
var groups = []group{
	// ld.so(8), dyld(1), iconv and locales of the C library
	{"loader", []string{"LD_*", "DYLD_*", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"}},
	// bash(1), "Shell Variables"; sh(1) reads ENV
	{"shell", []string{"BASH_ENV", "ENV", "BASH_FUNC_*", "BASH_XTRACEFD", "BASHOPTS", "SHELLOPTS", "CDPATH", "GLOBIGNORE", "IFS", "PROMPT_COMMAND", "PS4"}},
	{"path", []string{"PATH"}},
	// git(1), "Environment Variables"; the last three move its configuration and keys
	{"git", []string{
		"GIT_ALLOW_PROTOCOL", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_ASKPASS", "GIT_ATTR_*", "GIT_COMMON_DIR", "GIT_CONFIG*",
		"GIT_DIR", "GIT_EDITOR", "GIT_EXEC_PATH", "GIT_EXTERNAL_DIFF", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY",
		"GIT_PAGER", "GIT_PROTOCOL_FROM_USER", "GIT_PROXY_*", "GIT_SEQUENCE_EDITOR", "GIT_SSH*", "GIT_SSL_*", "GIT_TEMPLATE_DIR",
		"GIT_TRACE*", "GIT_WORK_TREE", "SSH_ASKPASS*", "SSH_AUTH_SOCK", "HOME", "XDG_CONFIG_HOME",
	}},
	// a checkout over the next job's hooks
	{"checkout", []string{"BUILDKITE_BUILD_CHECKOUT_PATH"}},
	// Git before the first hook, no Job API, phases left out
	{"agent", []string{"BUILDKITE_USE_GITHUB_APP_GIT_CREDENTIALS", "BUILDKITE_USE_REPOSITORY_PROVIDER_GIT_CREDENTIALS", "BUILDKITE_AGENT_NO_JOB_API", "BUILDKITE_BOOTSTRAP_PHASES"}},
}

// Groups returns the words for Group, in the order of the README.
func Groups() []string {
	words := make([]string, len(groups))
	for i, g := range groups {
		words[i] = g.word
	}
	return words
}

// Group returns the word for the group that a variable is in, or "". What stands
// behind "=" in a name is not part of it for the process that gets it.
func Group(name string) string {
	name, _, _ = strings.Cut(name, "=")
	for _, g := range groups {
		for _, pattern := range g.patterns {
			if ok, _ := path.Match(pattern, name); ok {
				return g.word
			}
		}
	}
	return ""
}
