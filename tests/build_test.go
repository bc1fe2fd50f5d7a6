//go:build unix

package tests

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// commands are the programs of cmd/.
func commands(t *testing.T) []string {
	root, err := agenttest.Root()
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Join(root, "cmd"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestBuildsEverywhere builds each program for each platform that it is for.
func TestBuildsEverywhere(t *testing.T) {
	t.Parallel()
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, goarch := range []string{"amd64", "arm64"} {
			for _, name := range commands(t) {
				if goos == "windows" && name != "encrypt" {
					continue // agents on Windows are not for forks
				}
				t.Run(goos+"-"+goarch+"-"+name, func(t *testing.T) {
					out := filepath.Join(t.TempDir(), name)
					require.NoError(t, agenttest.Build(t.Context(), "./cmd/"+name, out, "GOOS="+goos, "GOARCH="+goarch))
					if goos != "linux" {
						return
					}
					file, err := elf.Open(out)
					require.NoError(t, err)
					defer file.Close()
					// An interpreter is the loader that obeys LD_PRELOAD.
					require.False(t, slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), "not static")
				})
			}
		}
	}
}

// TestBuildIsTheSameEverywhere: nothing of the machine or the checkout is in a binary.
func TestBuildIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	root, err := agenttest.Root()
	require.NoError(t, err)
	out := filepath.Join(t.TempDir(), "environment")
	require.NoError(t, agenttest.Build(t.Context(), "./cmd/environment", out))
	text, err := os.ReadFile(out)
	require.NoError(t, err)
	require.NotContains(t, string(text), root)
	require.NotContains(t, string(text), "vcs.revision")
}

// deps returns what a package imports, directly and not.
func deps(t *testing.T, pkg string) []string {
	root, err := agenttest.Root()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.Fields(string(out))
}

const (
	module          = "github.com/juliagpu/secrets-buildkite-plugin/"
	buildkiteClient = "github.com/buildkite/go-buildkite/v3/buildkite"
)

// TestImports keeps what each program can reach small.
func TestImports(t *testing.T) {
	t.Parallel()
	for pkg, rules := range map[string]struct {
		banned []string
		why    string
	}{
		"./cmd/encrypt":          {[]string{module + "internal/identity", module + "internal/jobenv", module + "internal/unseal", "github.com/spf13/cobra"}, "authors hold recipients only; an author's tool needs no identity and no job"},
		"./cmd/pre-command":      {[]string{"filippo.io/age", module + "internal/envelope", module + "internal/identity", module + "internal/jobenv", "github.com/spf13/cobra", "net/http", "testing"}, "it runs after code of the job's choice: it holds no key and opens nothing"},
		"./internal/gpu":         {[]string{module + "internal/gpu/observe", module + "internal/settings", module + "internal/job", "net", "os/exec"}, "it judges what package observe has read"},
		"./internal/gpu/observe": {[]string{module + "internal/settings", module + "internal/job", "net/http"}, "what a container can reach does not depend on jobs"},
		"./internal/strict":      {[]string{"net", "os/exec"}, "it reads text"},
		"./internal/procfs":      {[]string{"net", "os/exec"}, "it reads text"},
		"./cmd/pre-bootstrap":    {[]string{"net/http", module + "internal/jobenv", module + "internal/jobfile"}, "it opens and leaves; it talks to nobody and starts nothing"},
		"./internal/handoff":     {[]string{module + "internal/identity", module + "internal/unseal", module + "internal/settings", module + "internal/jobenv", "net"}, "it keeps a text that it can't read"},
		"./internal/envfile":     {[]string{module + "internal/identity", module + "internal/settings", "net"}, "reading what a job states decides nothing"},
		"./internal/gate":        {[]string{"os", "net"}, "names in, words out"},
		"./internal/grant":       {[]string{module + "internal/jobenv", module + "internal/handoff", "net/http"}, "opening and delivering are two things"},
		"./cmd/launch":           {[]string{module + "internal/identity", module + "internal/unseal", module + "internal/grant", module + "internal/jobenv", "net", "os/exec"}, "it is root with a job's environment: it opens nothing, and starts nothing but the agent"},
		"./cmd/agent-startup":    {[]string{module + "internal/jobenv", "net/http"}, "it looks at an agent, and no job is there yet"},
		"./cmd/attest":           {[]string{"filippo.io/age", module + "internal/identity", module + "internal/envelope", module + "internal/unseal", module + "internal/settings", module + "internal/jobenv", "github.com/spf13/cobra", "testing"}, "it reads foreign JSON with a token: it has no key, no job and no configuration"},
		"./cmd/pre-exit":         {[]string{module + "internal/identity", module + "internal/envelope/openssl", "filippo.io/age/plugin"}, "it removes files and opens nothing"},
		"./internal/agent":       {[]string{module + "internal/settings", module + "internal/job", "net"}, "launch is root when it asks who started it: little code"},
		"./internal/drop":        {[]string{module + "internal/settings", "net", "os/exec"}, "launch is root when it drops that: little code"},
		"./internal/home":        {[]string{module + "internal/settings", "net", "os/exec"}, "launch is root when it makes directories: little code"},
		"./internal/trust":       {[]string{"net", "net/http", "os/exec", module + "internal/identity", module + "internal/settings"}, "trust is a pure function: facts in, verdict out"},
		"./internal/witness":     {[]string{"net", "net/http", "net/url", "crypto/tls", buildkiteClient, module + "internal/restapi", module + "internal/settings", module + "internal/identity"}, "hooks link it, so that they need not link TLS and foreign JSON"},
		"./internal/doctor":      {[]string{"net/http", "os/exec", "debug/buildinfo", module + "internal/restapi", module + "internal/identity"}, "it judges facts; internal/doctor/observe looks"},
		"./internal/restapi":     {[]string{module + "internal/settings", module + "internal/job", module + "internal/identity", "os/exec"}, "it carries questions of others"},
		"./internal/repo":        {[]string{"net", "net/url", "os/exec"}, "net/url is more lenient than a comparison may be"},
		"./internal/escape":      {[]string{"os", "net"}, "it makes texts printable and nothing else"},
		"./internal/unseal":      {[]string{module + "internal/jobenv", "net/http"}, "opening and delivering are two things"},
		"./internal/jobenv":      {[]string{module + "internal/identity", module + "internal/trust", "filippo.io/age/plugin"}, "delivery sees values, never a key"},
		"./internal/envelope":    {[]string{module + "internal/identity", module + "internal/job", "os/exec"}, "what a sealed value is does not depend on jobs"},

		"./internal/reseal":       {[]string{module + "internal/audit", module + "internal/restapi", module + "internal/jobenv", "net/http", "os/exec"}, "it opens hundreds of secrets at once: it talks to nobody and starts nothing"},
		"./internal/sealed":       {[]string{module + "internal/identity", module + "internal/settings", "net", "os/exec"}, "anyone can tell, so no key is needed"},
		"./internal/audit":        {[]string{module + "internal/identity", module + "internal/restapi", module + "internal/settings", "net/http", "os/exec"}, "facts in, a report out"},
		"./internal/audit/gather": {[]string{module + "internal/identity", module + "internal/settings", "os/exec"}, "a clone's git would run what its configuration says"},
	} {
		for _, dep := range deps(t, pkg) {
			require.NotContains(t, rules.banned, dep, "%s: %s", pkg, rules.why)
		}
	}
	for _, name := range commands(t) {
		if name == "encrypt" || name == "juliagpu" || name == "attest" {
			continue // people run the first two; the third is what hooks ask, so that none of them links REST itself
		}
		for _, dep := range deps(t, "./cmd/"+name) {
			require.NotContains(t, []string{"github.com/spf13/cobra", "golang.org/x/term", buildkiteClient, "testing"}, dep,
				"./cmd/%s: a hook starts before every job: flags, terminals and REST are for other programs", name)
		}
	}
}

// importers are this module's packages that import a package themselves.
func importers(t *testing.T, of string) []string {
	root, err := agenttest.Root()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, "./cmd/...", "./internal/...")
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(string(out)) {
		if pkg, imported, _ := strings.Cut(strings.TrimSpace(line), " "); imported == of {
			found = append(found, strings.TrimPrefix(pkg, module))
		}
	}
	slices.Sort(found)
	return found
}

// TestWhoAsksTheAPI names the one package that speaks to Buildkite's REST API, and
// those that may use it.
func TestWhoAsksTheAPI(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"internal/restapi"}, importers(t, buildkiteClient))
	require.Equal(t, []string{"cmd/juliagpu", "internal/attest", "internal/audit/gather", "internal/doctor/observe"}, importers(t, module+"internal/restapi"))
}

// TestWhoSeesSecrets names every package that can see a plaintext. Whoever adds
// one here has thought about it.
func TestWhoSeesSecrets(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"cmd/encrypt", "internal/envelope", "internal/envelope/openssl", "internal/grant", "internal/shape"}, importers(t, module+"internal/plaintext"))
}
