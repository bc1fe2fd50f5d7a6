//go:build unix

package tests

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// A plist is a value of a property list: text, a list or a dictionary.
type plist struct {
	kind  string
	text  string
	items []plist
	keys  []string // of items, in a dictionary
}

func (p plist) at(t *testing.T, key string) plist {
	t.Helper()
	for i, k := range p.keys {
		if k == key {
			return p.items[i]
		}
	}
	t.Fatalf("there is no %s", key)
	return plist{}
}

func (p plist) texts() (all []string) {
	for _, i := range p.items {
		all = append(all, i.text)
	}
	return all
}

// readPlist reads the element that d is in.
func readPlist(t *testing.T, d *xml.Decoder, start xml.StartElement) plist {
	p := plist{kind: start.Name.Local}
	var text strings.Builder
	key := false
	for {
		token, err := d.Token()
		require.NoError(t, err)
		switch e := token.(type) {
		case xml.StartElement:
			below := readPlist(t, d, e)
			switch {
			case below.kind == "key":
				require.Equal(t, "dict", p.kind)
				require.False(t, key, "%s has no value", below.text)
				p.keys, key = append(p.keys, below.text), true
			default:
				require.True(t, p.kind != "dict" || key, "a value without a key")
				p.items, key = append(p.items, below), false
			}
		case xml.CharData:
			text.Write(e)
		case xml.EndElement:
			require.False(t, key)
			if p.text = text.String(); len(p.items) > 0 || p.kind == "dict" {
				require.Empty(t, strings.TrimSpace(p.text), "text between values")
			}
			return p
		}
	}
}

// launchdKinds are the keys that the template uses, with what launchd.plist(5) wants of them.
var launchdKinds = map[string]string{
	"Label": "string", "UserName": "string", "ProgramArguments": "array", "EnvironmentVariables": "dict", "WorkingDirectory": "string",
	"RunAtLoad": "bool", "KeepAlive": "bool", "ThrottleInterval": "integer", "ExitTimeOut": "integer", "AbandonProcessGroup": "bool",
	"ProcessType": "string", "StandardOutPath": "string", "StandardErrorPath": "string",
}

// TestLaunchd: the template is one that launchd can read, holds no secret, and names
// what make install-macos puts there.
func TestLaunchd(t *testing.T) {
	t.Parallel()
	root, err := agenttest.Root()
	require.NoError(t, err)
	const label = "org.juliagpu.buildkite-agent"
	file, err := os.ReadFile(filepath.Join(root, "deploy/launchd", label+".plist"))
	require.NoError(t, err)
	d := xml.NewDecoder(strings.NewReader(string(file)))
	var list plist
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e, ok := token.(xml.StartElement); ok {
			require.Equal(t, "plist", e.Name.Local)
			require.Empty(t, list.kind, "one list")
			list = readPlist(t, d, e)
		}
	}
	require.Len(t, list.items, 1)
	top := list.items[0]
	require.Equal(t, "dict", top.kind)
	seen := map[string]bool{}
	for i, key := range top.keys {
		require.False(t, seen[key], "%s twice", key)
		seen[key] = true
		kind := top.items[i].kind
		if kind == "true" || kind == "false" {
			kind = "bool"
		}
		require.Equal(t, launchdKinds[key], kind, key)
	}
	require.Len(t, top.keys, len(launchdKinds))
	require.Equal(t, label, top.at(t, "Label").text, "the file's name")
	require.NotContains(t, []string{"", "root"}, top.at(t, "UserName").text)
	require.Equal(t, "true", top.at(t, "KeepAlive").kind, "not only after a failure: the agent ends well after each job")

	// Everybody on the machine can read it.
	arguments := top.at(t, "ProgramArguments").texts()
	require.Contains(t, arguments, "--disconnect-after-job")
	for _, text := range append(arguments, top.at(t, "EnvironmentVariables").keys...) {
		require.NotRegexp(t, `(?i)token|secret_|bkct_|AGE-`, text)
	}
	require.NotContains(t, arguments, "--spawn")

	// What make installs, and only the programs that work on a Mac.
	dest, built := t.TempDir(), t.TempDir()
	for _, name := range []string{"environment", "pre-bootstrap", "pre-command", "pre-exit", "agent-startup", "attest", "encrypt", "juliagpu"} {
		require.NoError(t, os.MkdirAll(filepath.Join(built, "build/bin"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(built, "build/bin", name), nil, 0o755))
	}
	install := exec.CommandContext(t.Context(), "make", "-C", built, "-f", filepath.Join(root, "Makefile"), "-o", "build", "install-macos", "DESTDIR="+dest)
	out, err := install.CombinedOutput()
	require.NoError(t, err, string(out))
	hooks := ""
	for i, a := range arguments {
		if a == "--hooks-path" {
			hooks = arguments[i+1]
		}
	}
	for name, leads := range map[string]string{"environment": "environment", "pre-command": "pre-command", "pre-exit": "pre-exit"} {
		target, err := filepath.EvalSymlinks(filepath.Join(dest, hooks, name))
		require.NoError(t, err)
		require.Equal(t, filepath.Join(dest, filepath.Dir(hooks), leads), target)
	}
	for _, name := range []string{"pre-bootstrap", "agent-startup"} {
		text, err := os.ReadFile(filepath.Join(dest, hooks, name))
		require.NoError(t, err)
		require.Equal(t, "#!"+filepath.Join(filepath.Dir(hooks), name)+"\n", string(text))
		info, err := os.Stat(filepath.Join(dest, hooks, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o755), info.Mode())
	}
}
