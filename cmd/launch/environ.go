package main

import (
	"slices"
	"strings"
)

// agents are the variables that the agent sets in every job, whatever the job
// says (createEnvironment in agent/job_runner.go of v3.81.0). The second column
// says that an operator's value may hold "=".
var agents = map[string]bool{
	"BUILDKITE_AGENT_ACCESS_TOKEN": true, "BUILDKITE_AGENT_DEBUG": false, "BUILDKITE_AGENT_DEBUG_HTTP": false,
	"BUILDKITE_AGENT_DISABLE_WARNINGS_FOR": false, "BUILDKITE_AGENT_ENDPOINT": false, "BUILDKITE_AGENT_EXPERIMENT": false,
	"BUILDKITE_AGENT_PID": false, "BUILDKITE_BIN_PATH": false, "BUILDKITE_BUILD_PATH": false,
	"BUILDKITE_CANCEL_GRACE_PERIOD": false, "BUILDKITE_COMMAND_EVAL": false, "BUILDKITE_CONFIG_PATH": false,
	"BUILDKITE_ENV_FILE": false, "BUILDKITE_GIT_CHECKOUT_FLAGS": true, "BUILDKITE_GIT_CLEAN_FLAGS": true,
	"BUILDKITE_GIT_CLONE_FLAGS": true, "BUILDKITE_GIT_CLONE_MIRROR_FLAGS": true, "BUILDKITE_GIT_FETCH_FLAGS": true,
	"BUILDKITE_GIT_MIRRORS_LOCK_TIMEOUT": false, "BUILDKITE_GIT_MIRRORS_PATH": false, "BUILDKITE_GIT_MIRRORS_SKIP_UPDATE": false,
	"BUILDKITE_GIT_SUBMODULES": false, "BUILDKITE_HOOKS_PATH": false, "BUILDKITE_LOCAL_HOOKS_ENABLED": false,
	"BUILDKITE_PLUGINS_ENABLED": false, "BUILDKITE_PLUGINS_PATH": false, "BUILDKITE_PLUGIN_VALIDATION": false,
	"BUILDKITE_REDACTED_VARS": false, "BUILDKITE_SHELL": true, "BUILDKITE_SIGNAL_GRACE_PERIOD_SECONDS": false,
	"BUILDKITE_SOCKETS_PATH": false, "BUILDKITE_SSH_KEYSCAN": false, "BUILDKITE_STRICT_SINGLE_HOOKS": false,
	"BUILDKITE_TRACE_CONTEXT_ENCODING": false,
}

// forged returns the agent's variables whose value may be the job's: a job's
// variable may be named BUILDKITE_SHELL=/x, and its entry, BUILDKITE_SHELL=/x=,
// takes the place of the agent's half of the time (the agent's exec keeps the
// last of two, and they come out of a map). Such an entry holds a second "=", and
// where it hides from the file that pre-bootstrap reads, a line break.
func forged(environ []string) []string {
	var names []string
	seen := map[string]bool{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		mayHold, ok := agents[name]
		if !ok {
			continue
		}
		if seen[name] || strings.Contains(value, "\n") || !mayHold && strings.Contains(value, "=") {
			names = append(names, name)
		}
		seen[name] = true
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// change returns environ with the variables set, and those with an empty value
// left out. All others stay as the job and the agent have them.
func change(environ []string, set map[string]string) []string {
	changed := slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		_, ok := set[name]
		return ok
	})
	for name, value := range set {
		if value != "" {
			changed = append(changed, name+"="+value)
		}
	}
	return changed
}
