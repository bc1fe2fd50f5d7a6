package settings

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// full is a file with every key.
const full = `# Agents of the documentation queue.
mode: direct
reason: only maintainers' builds run on this queue
isolation:
  expect: host
  reason: a virtual machine for each job
identities:
  - file: /run/juliagpu-secrets/identity
  - file: /run/juliagpu-secrets/identity-2025
    retired: true
consume: true
scope-any: allow
aliases:
  github.com/juliagpu/cudanative.jl: github.com/juliagpu/cuda.jl
pipelines:
  juliagpu/cuda-jl: github.com/juliagpu/cuda.jl
triggers:
  - from: github.com/juliagpu/gpucompiler.jl
    to: github.com/juliagpu/cuda.jl
sources: [webhook, schedule, trigger_job]
repositories:
  - github.com/juliagpu/*
  - github.com/julialang/julia
gpu:
  file: /run/juliagpu-secrets/gpu/gpuci.3.yml
waivers:
  - id: ns.net
    reason: the tests measure the host's network
    until: 2027-03-31
attest:
  token: /run/juliagpu-secrets/api-token
  organization: juliagpu
  deadline: 30s
  api: https://api.buildkite.example:8443
  roots: /etc/juliagpu-secrets/roots.pem
  limit: {file: /run/juliagpu-attest/limit, per-minute: 30}
older:
  key: /run/juliagpu-secrets/rsa-key
  serves:
    github.com/juliagpu/cuda.jl: [CODECOV_TOKEN, DOCUMENTER_KEY]
`

func name(t *testing.T, s string) repo.Name {
	t.Helper()
	n, err := repo.Parse(s)
	require.NoError(t, err)
	return n
}

func TestParse(t *testing.T) {
	cuda := name(t, "github.com/juliagpu/cuda.jl")
	want := Settings{
		Mode:      Direct,
		Reason:    "only maintainers' builds run on this queue",
		Isolation: Isolation{Expect: Host, Reason: "a virtual machine for each job"},
		Identities: []IdentityFile{
			{Path: "/run/juliagpu-secrets/identity"},
			{Path: "/run/juliagpu-secrets/identity-2025", Retired: true},
		},
		Consume:  true,
		ScopeAny: true,
		Rules: trust.Rules{
			Aliases:      map[repo.Name]repo.Name{name(t, "github.com/juliagpu/cudanative.jl"): cuda},
			Pipelines:    map[string]repo.Name{"juliagpu/cuda-jl": cuda},
			Triggers:     []trust.Trigger{{From: name(t, "github.com/juliagpu/gpucompiler.jl"), To: cuda}},
			Sources:      []string{"webhook", "schedule", "trigger_job"},
			Repositories: []trust.Pattern{"github.com/juliagpu/*", "github.com/julialang/julia"},
			Attest:       true,
		},
		Attest: Attest{Token: "/run/juliagpu-secrets/api-token", Organization: "juliagpu", Deadline: 30 * time.Second,
			URL: "https://api.buildkite.example:8443", Roots: "/etc/juliagpu-secrets/roots.pem",
			PerMinute: 30, Limit: "/run/juliagpu-attest/limit"},
		Older:   Older{Key: "/run/juliagpu-secrets/rsa-key", Serves: map[repo.Name][]string{cuda: {"CODECOV_TOKEN", "DOCUMENTER_KEY"}}},
		GPU:     GPU{File: "/run/juliagpu-secrets/gpu/gpuci.3.yml"},
		Waivers: []gpu.Waiver{{ID: "ns.net", Reason: "the tests measure the host's network", Until: time.Date(2027, 3, 31, 0, 0, 0, 0, time.UTC)}},
	}
	got, err := Parse([]byte(full))
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = Parse([]byte("\ufeff" + strings.ReplaceAll(full, "\n", "\r\n")))
	require.NoError(t, err)
	require.Equal(t, want, got, "from Windows")
}

// TestParseDefaults: what is left out is the stricter choice.
func TestParseDefaults(t *testing.T) {
	got, err := Parse([]byte("mode: direct\nreason: for a test\nidentities:\n- file: /i\n"))
	require.NoError(t, err)
	require.Equal(t, Settings{
		Mode:       Direct,
		Reason:     "for a test",
		Isolation:  Isolation{Expect: Container},
		Identities: []IdentityFile{{Path: "/i"}},
	}, got)
}

// TestParseAttestDefaults: a minute, less than what Buildkite allows, and in split mode
// a limit that agents share.
func TestParseAttestDefaults(t *testing.T) {
	const attest = "identities:\n- file: /i\nattest: {token: /t, organization: a}\n"
	want := Attest{Token: "/t", Organization: "a", Deadline: time.Minute, URL: "https://api.buildkite.com"}
	got, err := Parse([]byte("mode: direct\nreason: for a test\n" + attest))
	require.NoError(t, err)
	require.Equal(t, want, got.Attest)
	require.True(t, got.Rules.Attest)
	require.Equal(t, []credential.File{{Kind: "identity", Path: "/i"}, {Kind: "API token", Path: "/t"}}, got.Credentials())
	got, err = Parse([]byte("mode: split\nconsume: true\n" + attest))
	require.NoError(t, err)
	want.Limit, want.PerMinute = "/run/juliagpu-secrets/attest.limit", 40
	require.Equal(t, want, got.Attest)
}

// TestParseErrors gives each mistake with its place, its cause and what to do.
// A text that begins with + stands below a good file of four lines.
func TestParseErrors(t *testing.T) {
	const good = "mode: direct\nreason: for a test\nidentities:\n- file: /i\n"
	const anyKey = "write one of mode, reason, isolation, identities, consume, scope-any, aliases, pipelines, triggers, sources, repositories, gpu, waivers, users, reject, attest, older"
	const yaml = "look for a blank too few or too many, a tab, or text that needs quotes"
	const example = "write it as in github.com/juliagpu/cuda.jl"
	for _, tt := range []struct{ name, text, want, hint string }{
		// Older values.
		{"older, no key", "+older: {serves: {github.com/juliagpu/cuda.jl: [A]}}", "5:8: older.key: missing", "name the file that holds the RSA key of the older tool"},
		{"older, for nobody", "+older: {key: /k}", "5:8: older.serves: missing", "list each repository with the variables that it may have, as in github.com/juliagpu/cuda.jl: [CODECOV_TOKEN]"},
		{"older, with the prefix", "+older: {key: /k, serves: {github.com/juliagpu/cuda.jl: [SECRET_A]}}", "5:57: older.serves.github.com/juliagpu/cuda.jl: not a variable that a sealed value may set", "write it as steps read it, CODECOV_TOKEN and not SECRET_CODECOV_TOKEN"},
		{"older, twice", "+older: {key: /k, serves: {github.com/juliagpu/cuda.jl: [A, A]}}", "5:60: older.serves.github.com/juliagpu/cuda.jl: listed twice", "keep one"},
		{"older, a pattern", "+older: {key: /k, serves: {github.com/juliagpu/*: [A]}}", "5:27: older.serves.github.com/juliagpu/*: not a repository in its one spelling", example},
		// The file.
		{"empty", "", "empty", "write mode: split or mode: direct, and what else the README asks for"},
		{"only a comment", "# nothing\n", "empty", "write mode: split or mode: direct, and what else the README asks for"},
		{"only a mark", "---\n", "2:1: nothing, where a mapping (key: value) belongs", "write a mapping (key: value)"},
		{"a list", "- mode: direct\n", "1:1: a list, where a mapping (key: value) belongs", "write a mapping (key: value)"},
		{"too large", strings.Repeat("#", strict.MaxFile+1), "larger than 64 KiB", ""},
		{"not UTF-8", "+# caf\xe9", "5:6: not text in UTF-8", "save the file as UTF-8, without control characters"},
		{"UTF-16", "\xff\xfem\x00o\x00", "1:1: not text in UTF-8", "save the file as UTF-8, without control characters"},
		{"a NUL", "+# \x00", "5:3: not text in UTF-8", "save the file as UTF-8, without control characters"},
		{"two documents", "+---\nmode: direct\n", "5:1: a second document", "keep one"},
		{"two documents, one broken", "+--- \"\n", "5: not YAML from about here on", yaml},
		{"something after the end", "+...\n[a, \"", "6: not YAML from about here on", yaml},
		{"not YAML, first line", "mode: [direct", "1: not YAML from about here on", yaml},
		{"a tab", "mode: direct\n\treason: x\n", "2: not YAML from about here on", yaml},
		{"a colon", "mode: direct\nreason: x: y\n", "2: not YAML from about here on", yaml},
		{"an unknown alias", "+consume: *hunter2", "an alias (*)", "write the value itself"},
		{"an alias", "+consume: &a true\nscope-any: *a", "5:10: consume: an anchor (&)", "write the value itself"},

		// What makes YAML say more than it shows.
		{"an anchor", "+consume: &a true", "5:10: consume: an anchor (&)", "write the value itself"},
		{"an anchor on a key", "+&a consume: true", "5:1: an anchor (&)", "write the value itself"},
		{"an anchor in a list", "+sources: [&a ui]", "5:11: sources: an anchor (&)", "write the value itself"},
		{"a tag", "+consume: !!bool true", "5:10: consume: a tag (!)", "write the value itself"},
		{"a tag of one's own", "+consume: !x true", "5:10: consume: a tag (!)", "write the value itself"},
		{"a merge key", "+<<: {consume: true}", "5:1: a merge key (<<)", "write the value itself"},
		{"a merge key inside", "+isolation: {<<: {expect: host}}", "5:13: isolation: a merge key (<<)", "write the value itself"},
		{"a list as key", "+? [a]\n: b", "5:3: a key is a list", "write a word, or put it in quotes"},
		{"a number as key", "+pipelines: {1: github.com/a/b}", "5:13: pipelines: a key is a number", "write a word, or put it in quotes"},
		{"a key twice", "+mode: direct", "5:1: mode: given twice, first on line 1", "keep one"},
		{"a key twice, quoted", "+\"mode\": direct", "5:1: mode: given twice, first on line 1", "keep one"},
		{"a key twice inside", "+isolation: {expect: host, expect: host}", "5:27: isolation.expect: given twice, first on line 5", "keep one"},
		{"a pipeline twice", "+pipelines:\n  a/b: github.com/a/b\n  a/b: github.com/a/c", "7:3: pipelines.a/b: given twice, first on line 6", "keep one"},

		// Keys.
		{"an unknown key", "+hunter: x", "5:1: hunter: unknown key", anyKey},
		{"a slip", "+isolaton: x", "5:1: isolaton: unknown key", "write isolation"},
		{"another case", "+Consume: true", "5:1: Consume: unknown key", "write consume"},
		{"another joint", "+scope_any: allow", "5:1: scope_any: unknown key", "write scope-any"},
		{"a slip inside", "+isolation:\n  expcet: host", "6:3: isolation.expcet: unknown key", "write expect"},
		{"unknown inside", "mode: direct\nreason: x\nidentities: [{path: /i}]", "3:15: identities.path: unknown key", "write one of file, retired"},
		{"a key that could hide", "+\"a\\u202eb\": x", `5:1: "a\u202eb": unknown key`, anyKey},
		{"triggers that nobody attests", "+triggers: [{from: github.com/a/b, to: github.com/a/c}]", "5:11: triggers: nobody attests who triggered a build", "write attest:, too, or leave the pairs out"},
		{"attest, nothing said", "+attest: {organization: a}", "5:9: attest.token: missing", "name the file that holds an API token with the scopes read_builds and read_pipelines"},
		{"attest, no organization", "+attest: {token: /t}", "5:9: attest.organization: missing", "name the organization whose builds the token may read"},
		{"attest, no slug", "+attest: {token: /t, organization: a/b}", "5:35: attest.organization: not an organization's slug", "take it from the organization's address, buildkite.com/organization"},
		{"attest, the token itself", "+attest: {token: bkua_hunter2}", "5:17: attest.token: not an absolute, clean path", "write it from / on, without . or .. or a slash too many"},
		{"attest, a deadline that no question takes", "+attest: {token: /t, organization: a, deadline: 1.0005s}", "5:48: attest.deadline: not a deadline", "write it as in 60s, 1s to 5m: a job waits no longer for its secrets"},
		{"attest, an endless deadline", "+attest: {token: /t, organization: a, deadline: 1h}", "5:48: attest.deadline: not a deadline", "write it as in 60s, 1s to 5m: a job waits no longer for its secrets"},
		{"attest, in the clear", "+attest: {token: /t, organization: a, api: \"http://127.0.0.1:1\"}", "5:43: attest.api: not the address of an API", "write it as in https://api.buildkite.com, or leave it out"},
		{"attest, with a path", "+attest: {token: /t, organization: a, api: \"https://x/v2\"}", "5:43: attest.api: not the address of an API", "write it as in https://api.buildkite.com, or leave it out"},
		{"attest, a user's", "+attest: {token: /t, organization: a, api: \"https://x@y\"}", "5:43: attest.api: not the address of an API", "write it as in https://api.buildkite.com, or leave it out"},
		{"attest, a limit of nobody's", "+attest: {token: /t, organization: a, limit: {per-minute: 9}}", "1:1: attest.limit.file: missing", "name a file in a folder of the agent's user; agents that name the same one share the limit"},
		{"attest, no request at all", "+attest: {token: /t, organization: a, limit: {per-minute: 0}}", "5:58: attest.limit.per-minute: not a whole number from 1 to 1000", "write digits alone, without quotes"},
		// gpu and waivers; package gpu tests what it reads.
		{"gpu", "+gpu: x", "5:6: gpu: text, where a mapping (key: value) belongs", "write a mapping (key: value)"},
		{"a policy", "+gpu: {vendor: nvidia}", "5:6: gpu.devices: missing", "list the GPUs that this agent's jobs have, or write vendor: none"},
		{"a slip in a policy", "+gpu:\n  vendor: none\n  busi: off", "7:3: gpu.busi: unknown key", "write busy"},
		{"a policy and a file", "+gpu: {vendor: none, file: /etc/gpu.yml}", "5:27: gpu.file: stands beside other keys, or in a policy file",
			"leave it out, or write gpu: {file: PATH} in config.yml and nothing else there"},
		{"a policy's relative file", "+gpu: {file: gpu.yml}", "5:13: gpu.file: not an absolute, clean path", "write it from / on, without . or .. or a slash too many"},
		{"a policy's file with dots", "+gpu: {file: /etc/../gpu.yml}", "5:13: gpu.file: not an absolute, clean path", "write it from / on, without . or .. or a slash too many"},
		{"a policy's file as list", "+gpu: {file: [/etc/gpu.yml]}", "5:13: gpu.file: a list, where text belongs", "write text, in quotes if it looks like something else"},
		{"a waiver alone", "+waivers: x", "5:10: waivers: text, where a list (- item) belongs", "write a list (- item)"},
		{"a waiver without reason", "+waivers: [{id: ns.pid}]", "5:11: waivers.reason: missing", "say why this is right here: every job prints it"},

		// mode and reason.
		{"no mode", "reason: x\nidentities: [{file: /i}]", "1:1: mode: missing", "write mode: split, or mode: direct on an agent on which no fork's build runs"},
		{"another mode", "mode: hunter2\n", "1:7: mode: neither direct nor split", "write one of direct, split"},
		{"mode as list", "mode: [direct]\n", "1:7: mode: a list, where text belongs", "write text, in quotes if it looks like something else"},
		{"no reason", "mode: direct\nidentities: [{file: /i}]", "1:1: reason: missing", "say in one line why no fork's build runs on this agent"},
		{"reason without text", "mode: direct\nreason:\n", "2:8: reason: nothing, where text belongs", "write text, in quotes if it looks like something else"},
		{"an empty reason", "reason: ''\n", "1:9: reason: empty, or with a blank at its beginning or end", ""},
		{"a blank reason", "reason: ' x'\n", "1:9: reason: empty, or with a blank at its beginning or end", ""},
		{"a number as reason", "reason: 1\n", "1:9: reason: a number, where text belongs", "write text, in quotes if it looks like something else"},
		{"a date as reason", "reason: 2026-01-01\n", "1:9: reason: a date, where text belongs", "write text, in quotes if it looks like something else"},
		{"reason of two lines", "reason: |\n  a\n  b\n", "1:9: reason: empty, or with a blank at its beginning or end", ""},
		{"reason of two lines, quoted", "reason: \"a\\nb\"\n", "1:9: reason: not one line of printable text", ""},
		{"reason with an escape", "reason: \"a\\e[31m\"\n", "1:9: reason: not one line of printable text", ""},
		{"reason that runs backwards", "reason: \"a\\u202eb\"\n", "1:9: reason: not one line of printable text", ""},

		// isolation.
		{"isolation as text", "+isolation: host", "5:12: isolation: text, where a mapping (key: value) belongs", "write a mapping (key: value)"},
		{"isolation, empty", "+isolation: {}", "5:12: isolation: nothing in it", "leave the key out, or say something"},
		{"expect none", "+isolation: {expect: none}", "5:21: isolation.expect: neither container nor host", "write one of container, host"},
		{"expect with a slip", "+isolation: {expect: contaner}", "5:21: isolation.expect: neither container nor host", "write container"},
		{"host without reason", "+isolation: {expect: host}", "5:12: isolation.reason: missing", "say in one line why nobody else's jobs run on this machine"},
		{"reason without host", "+isolation: {reason: x}", "5:12: isolation.reason: a container needs no reason", "leave it out, or write expect: host"},

		// identities.
		{"no identities", "mode: direct\nreason: x\n", "1:1: identities: missing", "write a list such as - file: /run/juliagpu-secrets/identity"},
		{"no identity", "identities: []", "1:13: identities: nothing in it", "leave the key out, or say something"},
		{"a path alone", "identities: /i", "1:13: identities: text, where a list (- item) belongs", "write a list (- item)"},
		{"a path in the list", "identities: [/i]", "1:14: identities: text, where a mapping (key: value) belongs", "write a mapping (key: value)"},
		{"no file", "identities: [{retired: true}]", "1:14: identities.file: missing", "name the file that holds the identity"},
		{"a relative file", "identities: [{file: i}]", "1:21: identities.file: not an absolute, clean path", "write it from / on, without . or .. or a slash too many"},
		{"a file with dots", "identities: [{file: /a/../i}]", "1:21: identities.file: not an absolute, clean path", "write it from / on, without . or .. or a slash too many"},
		{"a file with a home", "identities: [{file: ~/i}]", "1:21: identities.file: not an absolute, clean path", "write it from / on, without . or .. or a slash too many"},
		{"a file twice", "identities: [{file: /i}, {file: /i}]", "1:33: identities.file: listed twice", "keep one"},
		{"retired: yes", "identities: [{file: /i, retired: yes}]", "1:34: identities.retired: neither true nor false", "write true or false"},
		{"17 files", "identities:\n" + files(17), "18:3: identities: more than 16 files", "leave out the oldest"},
		{"an identity as value", "identities: [{file: AGE-SECRET-KEY-1QQQ}]", "1:21: an identity stands here, for everyone to read",
			"put it into a file of its own, mode 600, and name that under identities; if others could read it, make a new one"},
		{"an identity in a comment", "+# age-secret-key-pq-1qqq", "5:3: an identity stands here, for everyone to read",
			"put it into a file of its own, mode 600, and name that under identities; if others could read it, make a new one"},
		{"an identity in what is not YAML", "\t[AGE-SECRET-KEY-1QQQ", "1:3: an identity stands here, for everyone to read",
			"put it into a file of its own, mode 600, and name that under identities; if others could read it, make a new one"},

		// consume and scope-any.
		{"consume: yes", "+consume: yes", "5:10: consume: neither true nor false", "write true or false"},
		{"consume: True", "+consume: True", "5:10: consume: neither true nor false", "write true or false"},
		{"consume: \"true\"", "+consume: \"true\"", "5:10: consume: neither true nor false", "write true or false"},
		{"scope-any: true", "+scope-any: true", "5:12: scope-any: true or false, where text belongs", "write text, in quotes if it looks like something else"},
		{"scope-any: allowed", "+scope-any: allowed", "5:12: scope-any: neither allow nor refuse", "write one of allow, refuse"},

		// Repositories.
		{"an address", "+aliases: {https://github.com/JuliaGPU/CUDAnative.jl.git: github.com/juliagpu/cuda.jl}",
			"5:11: aliases.https://github.com/JuliaGPU/CUDAnative.jl.git: not a repository in its one spelling", "write github.com/juliagpu/cudanative.jl"},
		{"an address with a token", "+pipelines: {a/b: 'https://hunter2:hunter2@github.com/JuliaGPU/CUDA.jl'}",
			"5:18: pipelines.a/b: not a repository in its one spelling", "write github.com/juliagpu/cuda.jl"},
		{"an address for SSH", "+pipelines: {a/b: 'git@github.com:JuliaGPU/CUDA.jl'}",
			"5:18: pipelines.a/b: not a repository in its one spelling", "write github.com/juliagpu/cuda.jl"},
		{"another case's name", "+triggers: [{from: github.com/JuliaGPU/CUDA.jl, to: github.com/a/b}]",
			"5:19: triggers.from: not a repository in its one spelling", "write github.com/juliagpu/cuda.jl"},
		{"no repository", "+pipelines: {a/b: cuda.jl}", "5:18: pipelines.a/b: not a repository in its one spelling", example},
		{"half a secret", "+pipelines: {a/b: Hunter2/Hunter2}", "5:18: pipelines.a/b: not a repository in its one spelling", example},
		{"a pattern where one belongs", "+pipelines: {a/b: github.com/a/*}", "5:18: pipelines.a/b: not a repository in its one spelling", example},
		{"repository of nothing", "+pipelines: {a/b: }", "5:18: pipelines.a/b: nothing, where text belongs", "write text, in quotes if it looks like something else"},
		{"an alias of an alias", "+aliases:\n  github.com/a/a: github.com/a/b\n  github.com/a/b: github.com/a/c", "6:19: aliases.github.com/a/a: leads to an alias",
			"lead to the name that the repository has today, and give that no alias"},
		{"aliases in a circle", "+aliases:\n  github.com/a/a: github.com/a/b\n  github.com/a/b: github.com/a/a", "6:19: aliases.github.com/a/a: leads to an alias",
			"lead to the name that the repository has today, and give that no alias"},
		{"an alias of itself", "+aliases: {github.com/a/a: github.com/a/a}", "5:27: aliases.github.com/a/a: leads to an alias",
			"lead to the name that the repository has today, and give that no alias"},
		{"no aliases", "+aliases: {}", "5:10: aliases: nothing in it", "leave the key out, or say something"},
		{"a pipeline without organization", "+pipelines: {cuda-jl: github.com/a/b}", "5:13: pipelines.cuda-jl: not organization/pipeline, both as slugs",
			"take both from the pipeline's address, buildkite.com/organization/pipeline"},
		{"a pipeline with blanks", "+pipelines: {JuliaGPU/CUDA jl: github.com/a/b}", "5:13: pipelines.JuliaGPU/CUDA jl: not organization/pipeline, both as slugs",
			"take both from the pipeline's address, buildkite.com/organization/pipeline"},
		{"no pipelines", "+pipelines: {}", "5:12: pipelines: nothing in it", "leave the key out, or say something"},
		{"a trigger to nowhere", "+triggers: [{from: github.com/a/b}]", "5:12: triggers: from or to is missing", "write from: the repository whose builds trigger, to: the triggered one"},
		{"an unknown source", "+sources: [hunter2]", "5:11: sources: not a source of builds", "write one of webhook, ui, api, schedule, trigger_job"},
		{"a source with a slip", "+sources:\n- trigger-job", "6:3: sources: not a source of builds", "write trigger_job"},
		{"no sources", "+sources: []", "5:10: sources: nothing in it", "leave the key out, or say something"},
		{"a star alone", "+repositories: ['*']", "5:16: repositories: neither a repository in its one spelling nor all of an owner",
			"write it as in github.com/juliagpu/cuda.jl or github.com/juliagpu/*"},
		{"all of an owner as an address", "+repositories: ['https://github.com/JuliaGPU/*']", "5:16: repositories: neither a repository in its one spelling nor all of an owner",
			"write github.com/juliagpu/*"},
		{"a repository as an address", "+repositories: ['https://github.com/JuliaGPU/CUDA.jl']", "5:16: repositories: neither a repository in its one spelling nor all of an owner",
			"write github.com/juliagpu/cuda.jl"},
		{"no repositories", "+repositories: []", "5:15: repositories: nothing in it", "leave the key out, or say something"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.text
			if below, ok := strings.CutPrefix(text, "+"); ok {
				text = good + below
			}
			s, err := Parse([]byte(text))
			require.Empty(t, s)
			var e *strict.Error
			require.ErrorAs(t, err, &e)
			assert.EqualError(t, err, tt.want)
			assert.Equal(t, tt.hint, e.Hint())
		})
	}
}

// files returns n items of identities, one a line.
func files(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("- file: /" + string(rune('a'+i)) + "\n")
	}
	return b.String()
}

func TestSixteenIdentities(t *testing.T) {
	s, err := Parse([]byte("mode: direct\nreason: x\nidentities:\n" + files(MaxIdentities)))
	require.NoError(t, err)
	require.Len(t, s.Identities, MaxIdentities)
}

// FuzzParse: whatever the text, Parse returns a *strict.Error or settings that hold
// what the rest of the program relies on.
func FuzzParse(f *testing.F) {
	for _, s := range []string{full, smallest, split, "mode: direct", "{", "&a [*a]", "? {? a}", "- - - -", "<<: *a", "%TAG ! !x", "a: !<x> b", "\ufeff---\n...\n---"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if err != nil {
			var e *strict.Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Cause)
			require.Equal(t, Settings{}, s)
			return
		}
		line := func(s string) bool {
			return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
		}
		again := func(n repo.Name) {
			parsed, err := repo.Parse(n.String())
			require.NoError(t, err)
			require.Equal(t, n, parsed)
		}
		require.Contains(t, []Mode{Direct, Split}, s.Mode)
		require.True(t, line(s.Reason) || s.Reason == "" && s.Mode == Split)
		require.True(t, s.Users == Users{} || s.Mode == Split && s.Users.Trusted.Name != s.Users.Other.Name && line(s.Users.Trusted.Name) && line(s.Users.Other.Name))
		require.True(t, s.Mode == Direct || s.Consume || s.Users != Users{})
		require.True(t, s.Isolation.Expect == Host && line(s.Isolation.Reason) || s.Isolation == Isolation{Expect: Container})
		require.NotEmpty(t, s.Identities)
		require.LessOrEqual(t, len(s.Identities), MaxIdentities)
		paths := map[string]bool{}
		for _, i := range s.Identities {
			require.True(t, filepath.IsAbs(i.Path) && filepath.Clean(i.Path) == i.Path && line(i.Path), i.Path)
			paths[i.Path] = true
		}
		require.Len(t, paths, len(s.Identities))
		for older, today := range s.Rules.Aliases {
			again(older)
			again(today)
			require.NotContains(t, s.Rules.Aliases, today)
		}
		for slug, n := range s.Rules.Pipelines {
			require.Equal(t, 1, strings.Count(slug, "/"))
			again(n)
		}
		for _, trigger := range s.Rules.Triggers {
			again(trigger.From)
			again(trigger.To)
		}
		for _, source := range s.Rules.Sources {
			require.True(t, slices.Contains([]string{"webhook", "ui", "api", "schedule", "trigger_job"}, source))
		}
		for _, p := range s.Rules.Repositories {
			parsed, err := trust.ParsePattern(string(p))
			require.NoError(t, err)
			require.Equal(t, p, parsed)
		}
		require.True(t, s.Rules.Pipelines == nil || len(s.Rules.Pipelines) > 0)
		require.True(t, s.Rules.Sources == nil || len(s.Rules.Sources) > 0)
		require.True(t, s.Rules.Repositories == nil || len(s.Rules.Repositories) > 0)
		require.Equal(t, s.Attest != Attest{}, s.Rules.Attest)
		if a := s.Attest; s.Rules.Attest {
			require.True(t, filepath.IsAbs(a.Token) && names.IsSlug(a.Organization) && a.Deadline >= time.Second && (a.PerMinute > 0) == (a.Limit != ""))
			require.True(t, strings.HasPrefix(a.URL, "https://") && strings.Count(a.URL, "/") == 2)
		}
		require.True(t, s.Rules.Attest || s.Rules.Triggers == nil)
		require.True(t, s.GPU.File == "" || s.GPU.Policy == nil && filepath.IsAbs(s.GPU.File) && filepath.Clean(s.GPU.File) == s.GPU.File && line(s.GPU.File))
		require.True(t, s.GPU.Policy == nil || s.GPU.Policy.Off != "" || s.GPU.Policy.Vendor != "")
		for _, w := range s.Waivers {
			_, waivable, _ := gpu.Waivable(w.ID)
			require.True(t, waivable && line(w.Reason))
		}
	})
}
