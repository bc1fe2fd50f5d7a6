//go:build unix

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// pluginFiles are what the agent checks out of this repository as a plugin, with
// the host's folder in place of the one an operator installs to.
func (h *host) pluginFiles() map[string]string {
	h.t.Helper()
	root, err := agenttest.Root()
	require.NoError(h.t, err)
	files := map[string]string{}
	for _, name := range []string{"plugin.yml", "hooks/environment", "hooks/pre-command", "hooks/pre-exit", "hooks/lib/from-source"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(h.t, err)
		if strings.HasPrefix(name, "hooks/") {
			require.Contains(h.t, string(text), "/usr/lib/juliagpu-secrets", name)
		}
		files[name] = strings.ReplaceAll(string(text), "/usr/lib/juliagpu-secrets", h.lib)
	}
	return files
}

// plugin makes the plugin's repository, tagged v1, and returns its source as a
// pipeline names it.
func (h *host) plugin() string {
	h.t.Helper()
	dir := filepath.Join(filepath.Dir(h.dir), "secrets-buildkite-plugin")
	_, err := agenttest.GitRepo(dir, h.pluginFiles(), "v1")
	require.NoError(h.t, err)
	return "file://" + dir + "#v1"
}

// agentLevel says whether the agent's own hooks are installed, too.
func (h *host) agentLevel(installed bool) {
	if !installed {
		h.agent.HooksPath = ""
	}
}

// use is a step's plugins: this one, configured so.
func use(source string, configurations ...string) map[string]string {
	var entries []string
	for _, c := range configurations {
		entries = append(entries, `{"`+source+`":`+c+`}`)
	}
	return map[string]string{"BUILDKITE_PLUGINS": "[" + strings.Join(entries, ",") + "]"}
}

// TestPlugin: with the agent's own hook the plugin checks the wishes alone; without
// it, it does the whole job; either way once.
func TestPlugin(t *testing.T) {
	t.Parallel()
	for _, installed := range []bool{true, false} {
		name := map[bool]string{true: "beside the agent's hook", false: "alone"}[installed]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, direct)
			h.agentLevel(installed)
			to, entry := h.identity("identity", false)
			h.configure("", entry)
			source := h.plugin()
			value, expired := canary("token"), canary("expired")
			secrets := map[string]string{
				"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil),
				"SECRET_OLD":   seal(t, to, "OLD", expired, func(l *envelope.Label) { l.Branches = []string{"release"} }),
			}

			t.Run("required and granted, twice in one step", func(t *testing.T) {
				h := h.in(t)
				r := h.run(row{
					env:     use(source, `{"required":["TOKEN"],"optional":["OLD"]}`, `null`),
					secrets: secrets, values: map[string]string{"TOKEN": value}, absent: []string{"OLD"}, noOpen: []string{expired}, outcome: "granted",
					log: []string{"SECRET_TOKEN: granted\n", "~~~ :lock: GPU isolation: "},
				})
				require.Equal(t, 1, strings.Count(r.Text(), "SECRET_TOKEN: granted"), "never twice")
				require.Empty(t, r.Annotations)
			})
			t.Run("required and withheld", func(t *testing.T) {
				h := h.in(t)
				r := h.run(row{
					env: use(source, `{"required":["TOKEN","OLD"]}`), secrets: secrets, status: 1, noOpen: []string{expired},
					log: []string{"OLD: required by this step, and not granted: "},
				})
				require.Len(t, r.Annotations, 1)
				require.Contains(t, r.Annotations[0].Body, "    OLD: ")
				require.NotContains(t, r.Annotations[0].Body, "TOKEN")
				require.Equal(t, "error", r.Annotations[0].Style)
			})
			t.Run("required of a fork", func(t *testing.T) {
				h := h.in(t)
				r := h.run(row{
					env: mergeEnv(fork, use(source, `{"required":["TOKEN"]}`)), secrets: secrets, status: 1, noOpen: []string{value, expired},
					log: []string{"TOKEN: required by this step, and not granted: ", "is from github.com/mallory/cuda.jl"},
				})
				require.Len(t, r.Annotations, 1)
			})
			t.Run("forged configuration", func(t *testing.T) {
				h := h.in(t)
				h.run(row{
					env: mergeEnv(use(source, `null`), map[string]string{
						"BUILDKITE_PLUGIN_SECRETS_REQUIRED_0": "NOWHERE", "BUILDKITE_PLUGIN_SECRETS_OPTIONAL": "x",
						"BUILDKITE_PLUGIN_CONFIGURATION": `{"required":["NOWHERE"]}`,
					}),
					secrets: secrets, values: map[string]string{"TOKEN": value}, absent: []string{"OLD"}, outcome: "granted",
				})
			})
			t.Run("malformed configuration", func(t *testing.T) {
				h := h.in(t)
				h.configure("consume: true\n", entry)
				defer func() { require.Empty(t, h.identityTexts(), "a step that is wrong must not reach an identity") }()
				h.run(row{
					env: use(source, `{"require":["TOKEN"]}`), secrets: secrets, status: 1, noOpen: []string{expired},
					log: []string{"environment: error: the plugin's configuration in this step is not valid", "environment: hint: "},
				})
			})
		})
	}
}

// in is the same host for a subtest.
func (h *host) in(t *testing.T) *host {
	other := *h
	other.t = t
	return &other
}

// TestVendoredPlugin: a plugin out of the repository's own checkout runs after the
// checkout.
func TestVendoredPlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t, direct)
	h.agentLevel(false)
	to, entry := h.identity("identity", false)
	h.configure("", entry)
	files := map[string]string{"README.md": "a repository\n"}
	for name, text := range h.pluginFiles() {
		files[".buildkite/plugins/secrets-buildkite-plugin/"+name] = text
	}
	dir := filepath.Join(filepath.Dir(h.dir), "repository")
	_, err := agenttest.GitRepo(dir, files)
	require.NoError(t, err)
	h.agent.Repos = map[string]string{"https://github.com/JuliaGPU/CUDA.jl.git": dir}
	value := canary("token")
	h.run(row{
		env:     mergeEnv(map[string]string{"BUILDKITE_REPO": "https://github.com/JuliaGPU/CUDA.jl.git"}, use("./.buildkite/plugins/secrets-buildkite-plugin", `{"required":["TOKEN"]}`)),
		secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		values:  map[string]string{"TOKEN": value}, outcome: "granted",
	})
}

// TestBesideBuildkitesSecretsPlugin: Buildkite's own plugin has the same name, and
// so the same prefix of variables.
func TestBesideBuildkitesSecretsPlugin(t *testing.T) {
	t.Parallel()
	h, to := readyHost(t, direct)
	source := h.plugin()
	theirs := filepath.Join(filepath.Dir(h.dir), "buildkite-plugins", "secrets-buildkite-plugin")
	_, err := agenttest.GitRepo(theirs, map[string]string{
		"hooks/environment": "#!/bin/bash\nexport THEIRS=\"$BUILDKITE_PLUGIN_SECRETS_VARIABLES_THEIRS\"\n",
	}, "v1")
	require.NoError(t, err)
	value := canary("token")
	r := h.run(row{
		env:     map[string]string{"BUILDKITE_PLUGINS": `[{"file://` + theirs + `#v1":{"variables":{"THEIRS":"path-of-theirs"}}},{"` + source + `":{"required":["TOKEN"]}}]`},
		secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
		values:  map[string]string{"TOKEN": value}, outcome: "granted",
	})
	require.Contains(t, r.Text(), "SECRET_TOKEN: granted")
}

// TestUploadWithAWish: a step that uploads a pipeline gets what it lists.
func TestUploadWithAWish(t *testing.T) {
	t.Parallel()
	for _, installed := range []bool{true, false} {
		h := newHost(t, direct)
		h.agentLevel(installed)
		to, entry := h.identity("identity", false)
		h.configure("", entry)
		listed, other := canary("listed"), canary("other")
		result, err := h.agent.RunWhole(t.Context(), agenttest.Job{
			Env: mergeEnv(use(h.plugin(), `{"optional":["LISTED"]}`), map[string]string{
				"SECRET_LISTED": seal(t, to, "LISTED", listed, nil), "SECRET_OTHER": seal(t, to, "OTHER", other, nil),
			}),
			Command: "buildkite-agent pipeline upload pipeline.yml",
		}, agenttest.Says("1 granted, 1 withheld"))
		require.NoError(t, err)
		require.Contains(t, result.Text(), "SECRET_LISTED: granted\n")
		require.Contains(t, result.Text(), "SECRET_OTHER: withheld: this step only uploads a pipeline")
		h.search(result, [][]byte{[]byte(listed)}, append(h.identityTexts(), []byte(other)))
	}
}

// TestFileSecret: the variable is the path of a private file, which is gone when
// the job is.
func TestFileSecret(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"true", "exit 3"} {
		h, to := readyHost(t, direct)
		value := "\x00\xff" + canary("bytes") + "\n" + canary("line")
		sealed := seal(t, to, "KEY_FILE", value, func(l *envelope.Label) { l.Type = envelope.TypeFile })
		result, err := h.agent.RunWhole(t.Context(), agenttest.Job{
			Env: map[string]string{"SECRET_KEY_FILE": sealed},
			Command: `printf 'sum KEY_FILE: '; sha256sum <"$KEY_FILE"; stat -c 'file: %a %n' "$KEY_FILE"; stat -c 'folder: %a' "$(dirname "$KEY_FILE")"
base64 -w0 "$KEY_FILE"; echo; ` + command,
		}, agenttest.Says("secrets: removed the files of this job"))
		require.NoError(t, err)
		text := result.Text()
		require.Contains(t, text, "SECRET_KEY_FILE: granted, a file\n")
		require.Contains(t, text, sum("KEY_FILE", value))
		require.Contains(t, text, "folder: 700\n")
		require.Regexp(t, `(?m)^file: 600 (/dev/shm|/tmp)/juliagpu-secrets-\d+-\d+/KEY_FILE$`, text)
		path := text[strings.Index(text, "file: 600 ")+len("file: 600 "):]
		path, _, _ = strings.Cut(path, "\n")
		require.NoDirExists(t, filepath.Dir(path))
		require.Contains(t, text, "[REDACTED]", "its base64 is masked")
		h.search(result, [][]byte{[]byte(value)}, h.identityTexts())
	}
}

// TestFileIsNotLeftWhereDeliveryFails: half a delivery is none.
func TestFileIsNotLeftWhereDeliveryFails(t *testing.T) {
	t.Parallel()
	h, to := readyHost(t, direct)
	require.NoError(t, os.Remove(filepath.Join(h.lib, "hooks", "pre-exit")), "nobody clears up behind the hook")
	h.agent.BootstrapScript = agenttest.FaultyJobAPI{Program: built.faulty, Binary: h.agent.Binary, Fault: "422", Received: filepath.Join(h.dir, "..", "received")}.BootstrapScript()
	value := canary("bytes")
	h.run(row{
		secrets: map[string]string{"SECRET_KEY_FILE": seal(t, to, "KEY_FILE", value, func(l *envelope.Label) { l.Type = envelope.TypeFile })},
		status:  75, noOpen: []string{value}, log: []string{"nothing set: "},
	})
	for _, root := range []string{"/dev/shm", "/tmp"} {
		folders, err := filepath.Glob(root + "/juliagpu-secrets-*/KEY_FILE")
		require.NoError(t, err)
		for _, f := range folders {
			text, err := os.ReadFile(f)
			require.False(t, err == nil && string(text) == value, "%s is left", f)
		}
	}
}

// fromSource runs the plugin's way out where nothing is installed, with one text
// of the script replaced.
func fromSource(t *testing.T, old, text, configuration string, args ...string) (output string, status int) {
	t.Helper()
	root, err := agenttest.Root()
	require.NoError(t, err)
	script, err := os.ReadFile(filepath.Join(root, "hooks", "lib", "from-source"))
	require.NoError(t, err)
	require.Contains(t, string(script), old)
	dir := filepath.Join(t.TempDir(), "hooks", "lib")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, "from-source")
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(script), old, text, 1)), 0o755))
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{path}, args...)...)
	cmd.Env = []string{"HOME=" + os.Getenv("HOME"), "PATH=/nowhere", "GOFLAGS=-toolexec=/nowhere/evil", "BUILDKITE_PLUGIN_CONFIGURATION=" + configuration}
	cmd.Env = append(cmd.Env, "PATH=/usr/bin:/bin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestPluginFromSource: without installed hooks the plugin builds its own, out of
// reach of the job's environment.
func TestPluginFromSource(t *testing.T) {
	t.Parallel()
	root, err := agenttest.Root()
	require.NoError(t, err)
	if _, err := os.Stat("/usr/local/go/bin/go"); err != nil {
		need.Skip(t, "needs Go in /usr/local/go")
	}
	const checkout = `checkout=$(cd "$(dirname "$0")/../.." && pwd -P)`
	output, status := fromSource(t, checkout, "checkout="+root, `{}`, "environment", "plugin")
	require.Zero(t, status, output)
	require.Empty(t, output, "nothing sealed, nothing to say")
	output, status = fromSource(t, checkout, "checkout="+root, `{"required":["TOKEN"]}`, "environment", "plugin")
	require.Equal(t, 1, status, "the argument arrives: %s", output)
	require.Contains(t, output, "TOKEN: required by this step, and not granted: no variable SECRET_TOKEN holds a sealed value")
}

// TestPluginWithoutAnything says whom to ask, and fails where a step can't do
// without its secrets.
func TestPluginWithoutAnything(t *testing.T) {
	t.Parallel()
	const path = "PATH=/usr/local/go/bin:/usr/lib/go/bin:/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin"
	for configuration, want := range map[string]int{"": 0, `{"optional":["A"]}`: 0, `{"required":["A"]}`: 75} {
		output, status := fromSource(t, path, "PATH=/bin-without-go:/bin", configuration, "environment", "plugin")
		require.Equal(t, want, status, output)
		require.Contains(t, output, "secrets: error: this agent has neither the hooks in /usr/lib/juliagpu-secrets nor Go to build them\n")
		require.Contains(t, output, "secrets: hint: ask the agent's operator")
	}
}
