//go:build unix

// Package tests runs the whole thing with real parts: the released agent runs the
// hooks, and age opens what encrypt seals.
package tests

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// built are the programs under test, built once for all tests of the package.
var built struct {
	sync.Once
	dir, agent, faulty string
	err                error
	end                []func() // of other things that tests share
}

func TestMain(m *testing.M) {
	status := m.Run()
	for _, end := range built.end {
		end()
	}
	os.RemoveAll(built.dir)
	os.Exit(status)
}

// programs returns the folder of our binaries, and the agent's path.
func programs(t testing.TB) (dir, agent string) {
	t.Helper()
	built.Do(func() {
		ctx := context.Background()
		if built.dir, built.err = os.MkdirTemp("", "bk-programs-"); built.err != nil {
			return
		}
		for _, name := range []string{"environment", "pre-bootstrap", "pre-command", "pre-exit", "attest", "encrypt"} {
			if built.err = agenttest.Build(ctx, "./cmd/"+name, filepath.Join(built.dir, name)); built.err != nil {
				return
			}
		}
		if built.faulty, built.err = agenttest.BuildFaultyJobAPI(ctx, built.dir); built.err != nil {
			return
		}
		built.agent, built.err = agenttest.Tool(ctx, "buildkite-agent", os.Stderr)
	})
	require.NoError(t, built.err)
	return built.dir, built.agent
}

// A host is a machine with an agent: hooks as an operator installs them, a
// configuration, identities.
type host struct {
	t          *testing.T
	mode       mode
	dir        string // the agent's; searched for canaries
	lib        string // binaries, hooks and configuration
	identities string
	agent      agenttest.Agent
}

// A mode is one in which every row must hold.
type mode string

const (
	direct mode = "direct"
	split  mode = "split" // without users of their own for jobs
)

// inEachMode runs a test in both modes, beside all others.
func inEachMode(t *testing.T, test func(*testing.T, mode)) {
	t.Parallel()
	for _, m := range []mode{direct, split} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			test(t, m)
		})
	}
}

// newHost installs the hooks as DESIGN says: the binaries in one folder, with the
// configuration beside them, and in the hooks' folder below a symbolic link to each
// that the agent runs as it is, and a file of one line for pre-bootstrap.
func newHost(t *testing.T, m mode) *host {
	t.Helper()
	binaries, agent := programs(t)
	dir, err := os.MkdirTemp("", "bk-") // t.TempDir() is too long for sockets
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, mode: m, dir: filepath.Join(dir, "a"), lib: filepath.Join(dir, "lib"), identities: filepath.Join(dir, "run")}
	for _, d := range []string{h.dir, filepath.Join(h.lib, "hooks"), h.identities} {
		require.NoError(t, os.MkdirAll(d, 0o755))
	}
	require.NoError(t, os.Link(filepath.Join(binaries, "attest"), filepath.Join(h.lib, "attest")))
	for _, name := range []string{"environment", "pre-command", "pre-exit"} {
		require.NoError(t, os.Link(filepath.Join(binaries, name), filepath.Join(h.lib, name)))
		require.NoError(t, os.Symlink("../"+name, filepath.Join(h.lib, "hooks", name)))
	}
	h.agent = agenttest.Agent{Binary: agent, Dir: h.dir, HooksPath: filepath.Join(h.lib, "hooks"), Polyglot: true, Watch: true}
	if m == split {
		need.Root(t, "for mounts of its own")
		h.preBootstrap()
		// As a unit does at each start: the folder is filled anew.
		h.agent.Setup = "mkdir -m 711 " + runFolder + "\ncp -p " + h.identities + "/* " + runFolder + " || true"
	}
	return h
}

// preBootstrap installs the hook of that name.
func (h *host) preBootstrap() {
	h.t.Helper()
	require.NoError(h.t, os.Link(filepath.Join(built.dir, "pre-bootstrap"), filepath.Join(h.lib, "pre-bootstrap")))
	require.NoError(h.t, os.WriteFile(filepath.Join(h.lib, "hooks", "pre-bootstrap"), []byte("#!"+h.lib+"/pre-bootstrap\n"), 0o755))
}

const runFolder = "/run/juliagpu-secrets"

// configure writes the configuration: the mode, this identity file, and more.
func (h *host) configure(more string, files ...string) {
	h.t.Helper()
	text := "mode: " + string(h.mode) + "\nreason: a test's agent\nisolation: {expect: host, reason: a test's machine}\n"
	if h.mode == split && !strings.Contains(more, "consume:") {
		text += "consume: true\n"
	}
	text += "identities:\n"
	for _, f := range files {
		if h.mode == split {
			f = strings.ReplaceAll(f, h.identities, runFolder)
		}
		text += "  - " + f + "\n"
	}
	require.NoError(h.t, os.WriteFile(filepath.Join(h.lib, "config.yml"), []byte(text+more), 0o644))
}

// identity makes an identity and its file; entry is its line in a configuration.
func (h *host) identity(name string, hybrid bool) (to envelope.Recipient, entry string) {
	h.t.Helper()
	var public, private string
	if hybrid {
		id, err := age.GenerateHybridIdentity()
		require.NoError(h.t, err)
		public, private = id.Recipient().String(), id.String()
	} else {
		id, err := age.GenerateX25519Identity()
		require.NoError(h.t, err)
		public, private = id.Recipient().String(), id.String()
	}
	path := filepath.Join(h.identities, name)
	require.NoError(h.t, os.WriteFile(path, []byte("# public key: "+public+"\n"+private+"\n"), 0o600))
	to, err := envelope.ParseRecipient(public)
	require.NoError(h.t, err)
	return to, "{file: " + path + "}"
}

// readyHost is a host with one identity and no rules of its own.
func readyHost(t *testing.T, m mode) (h *host, to envelope.Recipient) {
	t.Helper()
	h = newHost(t, m)
	to, entry := h.identity("identity", false)
	h.configure("", entry)
	return h, to
}

func mustRepo(s string) repo.Name {
	n, err := repo.Parse(s)
	if err != nil {
		panic(err)
	}
	return n
}

var cuda = mustRepo("github.com/juliagpu/cuda.jl")

// seal seals value as name for CUDA.jl, or as change says.
func seal(t *testing.T, to envelope.Recipient, name, value string, change func(*envelope.Label)) string {
	t.Helper()
	l := envelope.Label{Name: name, Repos: []repo.Name{cuda}}
	if change != nil {
		change(&l)
	}
	text, err := envelope.Seal(l, plaintext.New(value), to)
	require.NoError(t, err)
	return text
}

// canaries are random values whose every sight counts.
func canary(what string) string {
	id, err := age.GenerateX25519Identity() // 59 random letters
	if err != nil {
		panic(err)
	}
	return "canary-" + what + "-" + strings.ToLower(id.String()[20:44])
}

// A pull request from a branch of the repository, as GitHub's webhook spells it.
var ownPullRequest = map[string]string{
	"BUILDKITE_PULL_REQUEST": "17", "BUILDKITE_PULL_REQUEST_REPO": "git://github.com/JuliaGPU/CUDA.jl.git",
	"BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main", "BUILDKITE_BRANCH": "fix", "BUILDKITE_GITHUB_EVENT": "pull_request",
}

var fork = map[string]string{
	"BUILDKITE_PULL_REQUEST": "17", "BUILDKITE_PULL_REQUEST_REPO": "https://github.com/mallory/CUDA.jl.git",
	"BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main", "BUILDKITE_BRANCH": "mallory:fix",
}

// show is a command that prints for each name its value, which must be masked,
// and the value's SHA-256, which proves it.
func show(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, `printf '%%s\n' "raw %s: $%s"; printf 'sum %s: '; printf %%s "$%s" | sha256sum; printf %%s "$%s" | base64 -w0; echo`+"\n", n, n, n, n, n)
	}
	b.WriteString(`echo "outcome: $JULIAGPU_SECRETS; names: $JULIAGPU_SECRETS_NAMES."` + "\n")
	b.WriteString(`echo "retry: $JULIAGPU_SECRETS_RETRY"` + "\n")
	b.WriteString(`env | sed -n 's/^\(SECRET_[A-Za-z0-9_]*\)=/left \1: /p'` + "\n")
	return b.String()
}

func sum(name, value string) string {
	return fmt.Sprintf("sum %s: %x", name, sha256.Sum256([]byte(value)))
}

// A row is one job and how it must end.
type row struct {
	id      string            // the job's; empty: random
	env     map[string]string // facts that differ from a push to main
	unset   []string          // facts that are not stated at all
	secrets map[string]string // the SECRET_* of the job
	values  map[string]string // what must be set, masked
	status  int
	outcome string   // JULIAGPU_SECRETS, where the command runs
	log     []string // parts of the log
	absent  []string // variables that must be empty
	// rejected: pre-bootstrap refuses the job, and log is the agent's.
	rejected bool
	// noOpen: canaries that must be seen nowhere, not even in the command.
	noOpen []string
}

// run runs a row's job and searches everything it left for what must not be there.
func (h *host) run(r row) agenttest.Result {
	t := h.t
	t.Helper()
	env := maps.Clone(r.env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, r.secrets)
	names := slices.Sorted(maps.Keys(r.values))
	shown := slices.Concat(names, r.absent)
	var whole func(agenttest.Result) bool
	command := show(shown...)
	switch {
	case r.rejected:
		r.status = -1
		whole = agenttest.Says()
	case r.status != 0:
		whole = agenttest.Says(r.log...)
	case h.mode == split: // what is left for whoever comes next
		command += "find " + runFolder + " | sed 's/^/lies /'\n"
	}
	agent := h.agent
	agent.Before = h.refill()
	result, err := agent.RunWhole(t.Context(), agenttest.Job{ID: r.id, Env: env, Unset: r.unset, Command: command}, whole)
	text := result.Text()
	require.NoError(t, err, text+result.AgentLog)
	require.Equal(t, r.status, result.ExitStatus, text+result.AgentLog)
	log := text
	if r.rejected {
		require.Equal(t, "agent_refused", result.SignalReason, text)
		log = result.AgentLog
	}
	for _, part := range r.log {
		require.Contains(t, log, part)
	}
	if _, err := os.Stat(filepath.Join(h.lib, "config.yml")); err == nil { // without it nobody knows the identity
		require.NotContains(t, text, "lies "+runFolder+"/identity")
		require.NotContains(t, text, "lies "+runFolder+"/api-token")
	}
	require.NotRegexp(t, `lies .*/handoff`, text)
	if r.status == 0 {
		for _, name := range names {
			require.Contains(t, text, sum(name, r.values[name]), "the command has the value of %s", name)
			require.Contains(t, text, "raw "+name+": [REDACTED]")
		}
		for _, name := range r.absent {
			require.Contains(t, text, sum(name, ""), "%s is not set", name)
		}
		require.Contains(t, text, "outcome: "+r.outcome+"; names: "+strings.Join(names, " ")+".")
		for name, sealed := range r.secrets {
			if envelope.FormOf(sealed) != envelope.FormOther && envelope.FormOf(sealed) != envelope.FormEmpty {
				require.NotRegexp(t, `(?m)^left `+name+`: .`, text, "a sealed value is emptied")
			}
		}
	} else {
		require.NotContains(t, text, "\noutcome: ", "the command must not run")
	}
	// Nowhere: values that were granted but in the environment of the command,
	// others nowhere at all; identities nowhere at all.
	var granted [][]byte
	for _, name := range names {
		granted = append(granted, []byte(r.values[name]))
	}
	var never [][]byte
	for _, c := range r.noOpen {
		never = append(never, []byte(c))
	}
	never = append(never, h.identityTexts()...)
	h.search(result, granted, never)
	return result
}

// refill returns what puts back the credentials that there are now, where a job has
// consumed them.
func (h *host) refill() func() error {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.identities, "*"))
	require.NoError(h.t, err)
	texts, infos := map[string][]byte{}, map[string]os.FileInfo{}
	for _, f := range files {
		info, err := os.Lstat(f)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if texts[f], err = os.ReadFile(f); err == nil {
			infos[f] = info
		}
	}
	put := func(f string) error {
		for other, info := range infos { // a file of two names
			if other != f && os.SameFile(info, infos[f]) && os.Link(other, f) == nil {
				return nil
			}
		}
		return os.WriteFile(f, texts[f], infos[f].Mode().Perm())
	}
	return func() error {
		for f := range infos {
			if _, err := os.Lstat(f); err == nil {
				continue
			}
			if err := put(f); err != nil {
				return err
			}
		}
		return nil
	}
}

func (h *host) identityTexts() [][]byte {
	var texts [][]byte
	files, err := filepath.Glob(filepath.Join(h.identities, "*"))
	require.NoError(h.t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(h.t, err)
		for line := range strings.SplitSeq(string(text), "\n") {
			if strings.HasPrefix(line, "AGE-SECRET-KEY-") || strings.HasPrefix(line, "bkua_") { // Buildkite's user tokens
				texts = append(texts, []byte(line))
			}
		}
	}
	return texts
}

// search looks for canaries, raw and in base64, in logs, requests, files, process
// arguments and environments.
func (h *host) search(result agenttest.Result, granted, never [][]byte) {
	t := h.t
	t.Helper()
	for _, c := range slices.Concat(granted, never) {
		lines := [][]byte{c}
		for line := range strings.Lines(string(c)) {
			if len(strings.TrimSpace(line)) >= 8 {
				lines = append(lines, []byte(strings.TrimSpace(line)))
			}
		}
		for _, c := range lines {
			require.False(t, agenttest.Contains([]byte(result.Log), c), "a canary in the job's log")
			require.False(t, agenttest.Contains([]byte(result.AgentLog), c), "a canary in the agent's log")
			for _, r := range result.Requests {
				require.False(t, agenttest.Contains([]byte(r.Body), c), "a canary in a request to %s", r.Path)
			}
			for _, p := range result.Processes {
				require.False(t, agenttest.Contains([]byte(p.Cmdline), c), "a canary in the arguments of %s", p.Exe)
			}
		}
	}
	for _, c := range never {
		for _, p := range result.Processes {
			require.False(t, agenttest.Contains([]byte(p.Environ), c), "a canary in the environment of %s", p.Exe)
		}
	}
	// Those that run before the values are there. What the agent starts afterwards
	// for the job's hooks and command has them, as it must.
	early := 0
	for _, p := range result.Processes {
		args := strings.TrimRight(strings.ReplaceAll(p.Cmdline, "\x00", " "), " ")
		if strings.HasSuffix(args, "/environment") || strings.HasSuffix(args, " bootstrap") || strings.Contains(args, "buildkite-agent start") || strings.Contains(args, "/pre-bootstrap") {
			early++
			for _, c := range granted {
				require.False(t, agenttest.Contains([]byte(p.Environ), c), "a canary in the environment of %s", args)
			}
		}
	}
	require.True(t, early > 0 || len(result.Processes) == 0, "the agent itself was not watched")
	if all := slices.Concat(granted, never); len(all) > 0 {
		hits, err := agenttest.Search(h.dir, all...)
		require.NoError(t, err)
		require.Empty(t, hits, "canaries in files")
	}
}

func TestTrustedPush(t *testing.T) { inEachMode(t, testTrustedPush) }

func testTrustedPush(t *testing.T, m mode) {
	h, to := readyHost(t, m)
	value := canary("token")
	mode := map[mode]string{
		direct: "mode direct: a test's agent\nthe identity is not consumed: jobs on this agent can read it\n",
		split:  "mode split, without users of their own for jobs: a test's agent\n",
	}
	r := h.run(row{
		secrets: map[string]string{"SECRET_CODECOV_TOKEN": seal(t, to, "CODECOV_TOKEN", value, nil), "SECRET_NOTE": "plain text", "SECRET_EMPTY": ""},
		values:  map[string]string{"CODECOV_TOKEN": value},
		outcome: "granted",
		log: []string{
			"~~~ :key: Secrets\n" + mode[m], "isolation expected of the host: a test's machine\n",
			"SECRET_CODECOV_TOKEN: granted\n", "SECRET_NOTE: not a sealed value, left as it is\n",
			"1 granted, 0 withheld, 0 refused, in ", "left SECRET_NOTE: plain text",
		},
	})
	require.NotContains(t, r.Text(), "\nSECRET_EMPTY:", "an empty one is silently nothing")
}

func TestOwnPullRequest(t *testing.T) { inEachMode(t, testOwnPullRequest) }

func testOwnPullRequest(t *testing.T, m mode) {
	h, to := readyHost(t, m)
	value := canary("token")
	h.run(row{
		env:     ownPullRequest,
		secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		values:  map[string]string{"TOKEN": value}, outcome: "granted",
	})
}

func TestFork(t *testing.T) { inEachMode(t, testFork) }

func testFork(t *testing.T, m mode) {
	h := newHost(t, m)
	to, entry := h.identity("identity", false)
	h.configure("consume: true\n", entry)
	key := h.identityTexts()
	value := canary("token")
	r := h.run(row{
		env: fork,
		secrets: map[string]string{
			"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil),
			"SECRET_ANY":   seal(t, to, "ANY", value, nil)[:60],
		},
		absent: []string{"TOKEN", "ANY"}, noOpen: []string{value}, outcome: "withheld",
		log: []string{
			"~~~ :key: Secrets\n",
			"SECRET_TOKEN: withheld: pull request 17 is from github.com/mallory/cuda.jl, not from github.com/juliagpu/cuda.jl\n",
			"hint: expected for forks; a maintainer can push the branch to the repository\n",
			"0 granted, 2 withheld, 0 refused, in ",
		},
	})
	h.search(r, nil, key)
	if m == direct { // in split mode run looks for itself
		require.Empty(t, h.identityTexts(), "the identity is gone before the fork's code starts")
	}
}

// TestForkWithVariablesOfStrangeNames: a name may hold "=". In a process's
// environment "A=b" with the value "c" is A=b=c, and may come after the agent's
// own A. Of two thousand one comes after it almost surely.
func TestForkWithVariablesOfStrangeNames(t *testing.T) {
	inEachMode(t, testForkWithVariablesOfStrangeNames)
}

func testForkWithVariablesOfStrangeNames(t *testing.T, m mode) {
	h := newHost(t, m)
	to, entry := h.identity("identity", false)
	h.configure("consume: true\npipelines:\n  juliagpu/cuda-dot-jl: github.com/juliagpu/cuda.jl\n", entry)
	key := h.identityTexts()
	value := canary("token")
	env := maps.Clone(fork)
	for i := range 2000 {
		env[fmt.Sprintf("BUILDKITE_PULL_REQUEST_REPO=https://x%d", i)] = "y@github.com/JuliaGPU/CUDA.jl"
	}
	env[""] = "a variable without a name"
	if m == split {
		h.run(row{
			env: env, secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}, noOpen: []string{value}, rejected: true,
			log: []string{"rejected: it has a variable that would take the place of BUILDKITE_PULL_REQUEST_REPO, and might run without the hooks"},
		})
		return
	}
	r := h.run(row{
		env: env, secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		absent: []string{"TOKEN"}, noOpen: []string{value}, outcome: "withheld",
		log: []string{"SECRET_TOKEN: withheld: BUILDKITE_PULL_REQUEST_REPO holds an =, so another variable may stand in its place\n"},
	})
	h.search(r, nil, key)
	require.Empty(t, h.identityTexts(), "the identity is given up all the same")
}

// TestOlder: values of the older RSA forms open where the operator lists them, under
// the rules of all others, and their key is given up like an identity.
func TestOlder(t *testing.T) { inEachMode(t, testOlder) }

func testOlder(t *testing.T, m mode) {
	vectors := "../internal/envelope/openssl/testdata/"
	read := func(name string) string {
		text, err := os.ReadFile(vectors + name)
		require.NoError(t, err)
		return string(text)
	}
	h := newHost(t, m)
	to, entry := h.identity("identity", false)
	key := filepath.Join(h.identities, "identity-rsa") // run looks for what begins like it
	require.NoError(t, os.WriteFile(key, []byte(read("pkcs8.pem")), 0o600))
	if m == split {
		key = runFolder + "/identity-rsa"
	}
	h.configure("consume: true\nolder: {key: "+key+", serves: {github.com/juliagpu/cuda.jl: [BARE, HYBRID]}}\n", entry)
	value := canary("value")
	secrets := map[string]string{"SECRET_BARE": read("bare.txt"), "SECRET_HYBRID": read("hybrid.txt"), "SECRET_OTHER": read("bare.txt"), "SECRET_NEW": seal(t, to, "NEW", value, nil)}
	h.run(row{
		secrets: secrets, absent: []string{"OTHER"}, outcome: "granted",
		values: map[string]string{"BARE": "a value of the older tool", "HYBRID": fmt.Sprintf("a longer value, %0300d", 7), "NEW": value},
		log: []string{
			"SECRET_BARE: granted", "sealed in the older RSA form: seal it again with encrypt",
			"SECRET_OTHER: withheld: sealed in the older RSA form, in which this agent's operator lets github.com/juliagpu/cuda.jl have no OTHER\n",
		},
	})
	require.NoError(t, os.WriteFile(filepath.Join(h.identities, "identity-rsa"), []byte(read("pkcs8.pem")), 0o600)) // direct mode has consumed both
	h.identity("identity", false)
	h.run(row{
		env: fork, secrets: secrets, absent: []string{"BARE", "HYBRID", "OTHER", "NEW"}, outcome: "withheld",
		noOpen: []string{"a value of the older tool", "a longer value, 000"}, log: []string{"SECRET_BARE: withheld: pull request 17 is from"},
	})
}

func TestWithheld(t *testing.T) { inEachMode(t, testWithheld) }

func testWithheld(t *testing.T, m mode) {
	for name, tt := range map[string]struct {
		env    map[string]string
		change func(*envelope.Label)
		log    string
		loud   bool
	}{
		"triggered": {env: map[string]string{"BUILDKITE_SOURCE": "trigger_job", "BUILDKITE_TRIGGERED_FROM_BUILD_ID": "0190"},
			log: "withheld: triggered by build 0190, which nobody attests"},
		"fork built by hand": {env: map[string]string{"BUILDKITE_BRANCH": "mallory:main", "BUILDKITE_SOURCE": "ui"},
			log: "withheld: branch mallory:main stands for a commit of a fork"},
		"a comment": {env: map[string]string{"BUILDKITE_GITHUB_EVENT": "issue_comment"}, log: "withheld: the event issue_comment can be caused by anyone"},
		"expired": {change: func(l *envelope.Label) { l.Expires = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) },
			log: "withheld: expired on 2026-01-01", loud: true},
		"branch": {change: func(l *envelope.Label) { l.Branches = []string{"release-*"} },
			log: "withheld: sealed for branch release-*, not for branch main"},
		"branch, in a pull request": {env: ownPullRequest, change: func(l *envelope.Label) { l.Branches = []string{"*"} }, log: "withheld: sealed for branches or tags"},
		"pull request":              {env: ownPullRequest, change: func(l *envelope.Label) { l.NoPullRequest = true }, log: "withheld: sealed not to open in pull requests"},
		"pipeline": {change: func(l *envelope.Label) { l.Pipelines = []string{"juliagpu/other"} },
			log: "withheld: sealed for pipeline juliagpu/other, not for "},
		"lines that would start a group": {env: map[string]string{"BUILDKITE_BRANCH": "a:b\n+++ Deployed\x1b[32m"}, log: `withheld: BUILDKITE_BRANCH makes no sense: "a:b\n+++ Deployed\x1b[32m"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, to := readyHost(t, m)
			value := canary("token")
			r := h.run(row{
				env: tt.env, secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, tt.change)},
				absent: []string{"TOKEN"}, noOpen: []string{value}, outcome: "withheld", log: []string{"SECRET_TOKEN: " + tt.log},
			})
			require.Equal(t, tt.loud, strings.Contains(r.Text(), "+++ :key: Secrets\n"), "open where nobody would expect it")
		})
	}
}

func TestRefused(t *testing.T) { inEachMode(t, testRefused) }

func testRefused(t *testing.T, m mode) {
	amdgpu := mustRepo("github.com/juliagpu/amdgpu.jl")
	for name, tt := range map[string]struct {
		variable string
		change   func(*envelope.Label)
		mangle   func(string) string
		log      string
	}{
		"another repository": {change: func(l *envelope.Label) { l.Repos = []repo.Name{amdgpu} },
			log: "refused: sealed for github.com/juliagpu/amdgpu.jl, but this job builds github.com/juliagpu/cuda.jl\n"},
		"renamed":        {variable: "SECRET_GREETING", log: "refused: not a name that a secret can have: sealed as TOKEN"},
		"malformed":      {mangle: func(s string) string { return s[:len(s)-3] }, log: "refused: not a sealed value: the text ends early\n"},
		"tampered":       {mangle: func(s string) string { return s[:len(s)-8] + "AAAA" + s[len(s)-4:] }, log: "refused: changed after it was sealed\n"},
		"any repository": {change: func(l *envelope.Label) { l.Repos, l.Any = nil, true }, log: "refused: sealed for any repository"},
		"type":           {change: func(l *envelope.Label) { l.Type = envelope.TypeSSHKey }, log: "refused: its type is ssh-key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, to := readyHost(t, m)
			value, good := canary("token"), canary("good")
			variable := "SECRET_TOKEN"
			if tt.variable != "" {
				variable = tt.variable
			}
			text := seal(t, to, "TOKEN", value, tt.change)
			if tt.mangle != nil {
				text = tt.mangle(text)
			}
			h.run(row{
				secrets: map[string]string{variable: text, "SECRET_GOOD": seal(t, to, "GOOD", good, nil)},
				status:  1, noOpen: []string{value, good},
				log: []string{"+++ :key: Secrets\n", variable + ": " + tt.log, "SECRET_GOOD: could be opened, but is not set\n", "nothing set: 1 could be opened, 0 withheld, 1 refused, in "},
			})
		})
	}
}

func TestTag(t *testing.T) { inEachMode(t, testTag) }

func testTag(t *testing.T, m mode) {
	h, to := readyHost(t, m)
	deploy, main := canary("deploy"), canary("main")
	h.run(row{
		env: map[string]string{"BUILDKITE_TAG": "v1.2", "BUILDKITE_BRANCH": "v1.2"},
		secrets: map[string]string{
			"SECRET_DOCUMENTER": seal(t, to, "DOCUMENTER", deploy, func(l *envelope.Label) { l.Branches, l.Tags = []string{"main"}, []string{"v*"} }),
			"SECRET_MAIN":       seal(t, to, "MAIN", main, func(l *envelope.Label) { l.Branches = []string{"*"} }),
		},
		values: map[string]string{"DOCUMENTER": deploy}, absent: []string{"MAIN"}, noOpen: []string{main}, outcome: "granted",
		log: []string{"SECRET_MAIN: withheld: sealed for branch *, not for tag v1.2\n"},
	})
}

func TestRotation(t *testing.T) { inEachMode(t, testRotation) }

func testRotation(t *testing.T, m mode) {
	h := newHost(t, m)
	fresh, one := h.identity("new", false)
	old, two := h.identity("old", false)
	gone, _ := h.identity("gone", false)
	require.NoError(t, os.Remove(filepath.Join(h.identities, "gone")))
	h.configure("", one, strings.Replace(two, "}", ", retired: true}", 1))
	a, b, c := canary("a"), canary("b"), canary("c")
	h.run(row{
		secrets: map[string]string{"SECRET_A": seal(t, fresh, "A", a, nil), "SECRET_B": seal(t, old, "B", b, nil), "SECRET_C": seal(t, gone, "C", c, nil)},
		values:  map[string]string{"A": a, "B": b}, absent: []string{"C"}, noOpen: []string{c}, outcome: "granted",
		log: []string{
			"+++ :key: Secrets\n", "SECRET_A: granted\n",
			"SECRET_B: granted; opened by the retired identity " + old.Fingerprint() + "; seal it again for the new recipient\n",
			"SECRET_C: withheld: sealed to " + gone.Fingerprint() + ", which this agent does not hold\n",
		},
	})
}

func TestSeveralLines(t *testing.T) { inEachMode(t, testSeveralLines) }

func testSeveralLines(t *testing.T, m mode) {
	h, to := readyHost(t, m)
	value := canary("line-1") + "\n\t" + canary("line-2") + "\r\n" + canary("line \"3\" $HOME 'ü'") + "\n"
	// The log shows each line masked, so the row's own check by the whole does not fit.
	result, err := h.agent.RunWhole(t.Context(), agenttest.Job{
		Env:     map[string]string{"SECRET_KEY_FILE": seal(t, to, "KEY_FILE", value, nil)},
		Command: `printf %s "$KEY_FILE"; echo; printf 'sum KEY_FILE: '; printf %s "$KEY_FILE" | sha256sum; printf %s "$KEY_FILE" | base64 -w0; echo; set -x; : "$KEY_FILE"`,
	}, nil)
	require.NoError(t, err)
	require.Zero(t, result.ExitStatus, result.Text())
	require.Contains(t, result.Text(), sum("KEY_FILE", value))
	require.GreaterOrEqual(t, strings.Count(result.Text(), "[REDACTED]"), 4)
	h.search(result, [][]byte{[]byte(value)}, h.identityTexts())
}

func TestBundle(t *testing.T) { inEachMode(t, testBundle) }

func testBundle(t *testing.T, m mode) {
	h := newHost(t, m)
	to, entry := h.identity("identity", true)
	h.configure("", entry)
	values := map[string]string{}
	members := map[string]plaintext.Value{}
	for _, name := range []string{"A", "B", "CI_TOKEN"} {
		values[name] = canary(name)
		members[name] = plaintext.New(values[name])
	}
	text, names, err := envelope.MarshalBundle(members)
	require.NoError(t, err)
	sealed := seal(t, to, "CI", text.Reveal(), func(l *envelope.Label) { l.Type, l.Names = envelope.TypeBundle, names })
	h.run(row{secrets: map[string]string{"SECRET_CI": sealed}, values: values, outcome: "granted",
		log: []string{"SECRET_CI: granted as A, B, CI_TOKEN\n"}})
}

func TestFiftySecrets(t *testing.T) { inEachMode(t, testFiftySecrets) }

func testFiftySecrets(t *testing.T, m mode) {
	for _, hybrid := range []bool{false, true} {
		t.Run(fmt.Sprintf("hybrid=%v", hybrid), func(t *testing.T) {
			t.Parallel()
			h := newHost(t, m)
			to, entry := h.identity("identity", hybrid)
			h.configure("", entry)
			secrets, values := map[string]string{}, map[string]string{}
			for i := range 50 {
				name := fmt.Sprintf("TOKEN_%02d", i)
				values[name] = canary(fmt.Sprint(i))
				secrets["SECRET_"+name] = seal(t, to, name, values[name], nil)
			}
			h.run(row{secrets: secrets, values: values, outcome: "granted", log: []string{"50 granted, 0 withheld, 0 refused, in "}})
		})
	}
}

// TestUpload: an upload would write what $NAME stands for into the build.
func TestUpload(t *testing.T) { inEachMode(t, testUpload) }

func testUpload(t *testing.T, m mode) {
	h, to := readyHost(t, m)
	value := canary("token")
	result, err := h.agent.RunWhole(t.Context(), agenttest.Job{
		Env:     map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		Command: "buildkite-agent pipeline upload pipeline.yml",
	}, agenttest.Says("0 granted, 1 withheld"))
	require.NoError(t, err)
	require.Contains(t, result.Text(), "SECRET_TOKEN: withheld: this step only uploads a pipeline")
	h.search(result, nil, append(h.identityTexts(), []byte(value)))
}

func TestNothingSealed(t *testing.T) { inEachMode(t, testNothingSealed) }

func testNothingSealed(t *testing.T, m mode) {
	h := newHost(t, m)
	_, entry := h.identity("identity", false)
	h.configure("", entry)
	h.run(row{secrets: map[string]string{"SECRET_NOTE": "plain", "MY_SECRET_X": seal(t, mustTo(t, h), "X", "not ours", nil)}, absent: []string{"X"}, outcome: "none"})
}

func mustTo(t *testing.T, h *host) envelope.Recipient {
	to, _ := h.identity("other", false)
	return to
}

func TestNoConfiguration(t *testing.T) { inEachMode(t, testNoConfiguration) }

func testNoConfiguration(t *testing.T, m mode) {
	h := newHost(t, m)
	// Without a configuration it expects a container, which this machine is or is not.
	require.NoError(t, os.Remove(filepath.Join(h.lib, "hooks", "pre-command")))
	to, _ := h.identity("identity", false)
	value := canary("token")
	h.run(row{
		secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		absent:  []string{"TOKEN"}, noOpen: []string{value}, outcome: "withheld",
		log: []string{"SECRET_TOKEN: withheld: this agent has no configuration\n", "hint: the agent's operator writes /etc/juliagpu-secrets/config.yml"},
	})
}

// TestMachineAtFault: the job fails with a status that a retry can name, and
// nothing is set.
func TestMachineAtFault(t *testing.T) { inEachMode(t, testMachineAtFault) }

func testMachineAtFault(t *testing.T, m mode) {
	for name, tt := range map[string]struct {
		break_   func(*host, string)
		log      string
		rejected bool // in split mode the job does not even start
	}{
		"configuration": {func(h *host, entry string) { h.configure("colour: red\n", entry) }, "config.yml:", true},
		"no identity": {func(h *host, entry string) {
			h.configure("", entry)
			require.NoError(h.t, os.Remove(filepath.Join(h.identities, "identity")))
		}, "identity", false},
		"identity others can read": {func(h *host, entry string) {
			h.configure("", entry)
			require.NoError(h.t, os.Chmod(filepath.Join(h.identities, "identity"), 0o644))
		}, "mode 0644", false},
		"identity with a second name": {func(h *host, entry string) {
			h.configure("consume: true\n", entry)
			require.NoError(h.t, os.Link(filepath.Join(h.identities, "identity"), filepath.Join(h.identities, "second")))
			h.agent.Setup = strings.ReplaceAll(h.agent.Setup, "cp -p ", "cp -pd ") // keeps them one file
		}, "identity", true},
		"a hook others can write": {func(h *host, entry string) {
			h.configure("", entry)
			hook := filepath.Join(h.lib, "environment") // a hard link, so far
			text, err := os.ReadFile(hook)
			require.NoError(h.t, err)
			require.NoError(h.t, os.Remove(hook))
			require.NoError(h.t, os.WriteFile(hook, text, 0o755))
			require.NoError(h.t, os.Chmod(hook, 0o775))
		}, "lib/environment: mode 0775", false},
		"a configuration others can write": {func(h *host, entry string) {
			h.configure("", entry)
			require.NoError(h.t, os.Chmod(filepath.Join(h.lib, "config.yml"), 0o666))
		}, "config.yml", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, m)
			to, entry := h.identity("identity", false)
			tt.break_(h, entry)
			value := canary("token")
			if m == split && tt.rejected {
				h.run(row{secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}, noOpen: []string{value},
					rejected: true, log: []string{"pre-bootstrap: error: ", tt.log}})
				return
			}
			h.run(row{
				secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
				status:  75, noOpen: []string{value}, log: []string{"+++ :key: Secrets\n", "environment: error: ", tt.log, "nothing set: "},
			})
		})
	}
}

func TestFaultyJobAPI(t *testing.T) { inEachMode(t, testFaultyJobAPI) }

func testFaultyJobAPI(t *testing.T, m mode) {
	for fault, want := range map[string]string{
		"422":        "it answered 422",
		"500":        "it answered 500",
		"redact-500": "it answered 500",
		"slow":       "no answer within 10 s",
		"never":      "no answer within 10 s",
		"close":      "it hung up",
		"garbage":    "its answer is not HTTP",
		"huge":       "",
		"echo-wrong": "it did not confirm",
		"sibling":    "another process listens than it is named after",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			h, to := readyHost(t, m)
			received := filepath.Join(h.dir, "..", "received")
			h.agent.BootstrapScript = agenttest.FaultyJobAPI{Program: built.faulty, Binary: h.agent.Binary, Fault: fault, Received: received}.BootstrapScript()
			secrets, values := map[string]string{}, []string{}
			for i := range 12 { // enough masks for "slow" to add up
				values = append(values, canary(fmt.Sprint(i)))
				secrets[fmt.Sprintf("SECRET_T%d", i)] = seal(t, to, fmt.Sprintf("T%d", i), values[i], nil)
			}
			h.run(row{secrets: secrets, status: 75, noOpen: values, log: []string{"+++ :key: Secrets\n", "environment: error: ", want, "nothing set: "}})
			if fault == "sibling" {
				files, err := os.ReadDir(received)
				require.NoError(t, err)
				for _, f := range files {
					info, err := f.Info()
					require.NoError(t, err)
					require.Zero(t, info.Size(), "a socket that is not the agent's got something")
				}
			}
		})
	}
}

// TestPipelineTurnsJobAPIOff: a pipeline can turn the API off and leave the address
// of a socket of its own.
func TestPipelineTurnsJobAPIOff(t *testing.T) { inEachMode(t, testPipelineTurnsJobAPIOff) }

func testPipelineTurnsJobAPIOff(t *testing.T, m mode) {
	off := map[string]string{"BUILDKITE_AGENT_NO_JOB_API": "true", "BUILDKITE_AGENT_JOB_API_SOCKET": "/tmp/mine.sock", "BUILDKITE_AGENT_JOB_API_TOKEN": "x"}
	h, to := readyHost(t, m)
	value := canary("token")
	secrets := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}
	if m == split {
		h.run(row{env: off, secrets: secrets, noOpen: []string{value}, rejected: true,
			log: []string{"it has a variable that would take the place of BUILDKITE_AGENT_JOB_API_"}})
		off = map[string]string{"BUILDKITE_AGENT_NO_JOB_API": "true"}
		h.run(row{env: off, secrets: secrets, status: 75, noOpen: []string{value}, log: []string{"the agent offers no Job API"}})
	} else {
		h.run(row{env: off, secrets: secrets, status: 75, noOpen: []string{value},
			log: []string{"the Job API's socket is not the agent's", "BUILDKITE_AGENT_JOB_API_SOCKET"}})
	}

	// With nothing to grant the job runs on.
	forked := maps.Clone(fork)
	maps.Copy(forked, off)
	result, err := h.agent.RunWhole(t.Context(), agenttest.Job{Env: mergeEnv(forked, secrets), Command: `echo "TOKEN is <$TOKEN>"`}, nil)
	require.NoError(t, err)
	require.Zero(t, result.ExitStatus, result.Text())
	require.Contains(t, result.Text(), "TOKEN is <>")
	h.search(result, nil, append(h.identityTexts(), []byte(value)))
}

func mergeEnv(a, b map[string]string) map[string]string {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// TestRuntimeVariables: what Go's runtime reads of a job's environment changes
// nothing, and the proxies and certificates of a job are never consulted.
func TestRuntimeVariables(t *testing.T) { inEachMode(t, testRuntimeVariables) }

func testRuntimeVariables(t *testing.T, m mode) {
	h, to := readyHost(t, m)
	value := canary("token")
	h.run(row{
		env: map[string]string{
			// Without X25519 and ChaCha20 a hook that heeds GODEBUG opens nothing.
			"GODEBUG": "fips140=only", "GOTRACEBACK": "crash", "GOGC": "off", "GOMEMLIMIT": "8MiB", "GOMAXPROCS": "1",
			"HTTPS_PROXY": "http://127.0.0.1:9", "SSL_CERT_FILE": "/dev/null", "TMPDIR": "/nowhere", "HOME": "/nowhere",
		},
		secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		values:  map[string]string{"TOKEN": value}, outcome: "granted",
	})
}

// TestWithoutPolyglotHooks: an agent that can't run binary hooks runs no job
// either, and opens nothing.
func TestWithoutPolyglotHooks(t *testing.T) { inEachMode(t, testWithoutPolyglotHooks) }

func testWithoutPolyglotHooks(t *testing.T, m mode) {
	h := newHost(t, m)
	h.agent.Polyglot = false
	to, entry := h.identity("identity", false)
	h.configure("", entry)
	value := canary("token")
	h.run(row{secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}, status: 126, noOpen: []string{value}})
}

// TestPreBootstrapInDirectMode opens nothing, and keeps jobs away that could run
// without hooks, or that the operator does not want.
func TestPreBootstrapInDirectMode(t *testing.T) {
	t.Parallel()
	h := newHost(t, direct)
	h.preBootstrap()
	to, entry := h.identity("identity", false)
	h.configure("reject: {variables: [loader]}\n", entry)
	value := canary("token")
	secrets := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}
	h.run(row{secrets: secrets, values: map[string]string{"TOKEN": value}, outcome: "granted", log: []string{"mode direct: a test's agent\n"}})
	h.run(row{secrets: secrets, noOpen: []string{value}, rejected: true, env: map[string]string{"LD_AUDIT": "/tmp/x.so"},
		log: []string{"rejected: it sets LD_AUDIT, and this agent's operator rejects the group loader"}})
	h.run(row{secrets: secrets, noOpen: []string{value}, rejected: true, env: map[string]string{"BUILDKITE_HOOKS_PATH=/n": ""},
		log: []string{"rejected: it has a variable that would take the place of BUILDKITE_HOOKS_PATH"}})
}
