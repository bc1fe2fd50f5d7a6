//go:build unix

package tests

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

// TestAgeOpensWhatWeSeal: the payload is the raw value and nothing else.
func TestAgeOpensWhatWeSeal(t *testing.T) {
	t.Parallel()
	program, err := agenttest.Tool(t.Context(), "age", os.Stderr)
	require.NoError(t, err)
	for _, hybrid := range []bool{false, true} {
		h := newHost(t, direct)
		to, _ := h.identity("identity", hybrid)
		for i, value := range []string{"a token", "two\nlines\n", "\"quoted\" $HOME \\ ü 😀", strings.Repeat("0123456789abcdef", envelope.MaxValue/16)} {
			t.Run(fmt.Sprintf("hybrid=%v-%d", hybrid, i), func(t *testing.T) {
				file, err := base64.StdEncoding.DecodeString(seal(t, to, "TOKEN", value, nil))
				require.NoError(t, err)
				cmd := exec.CommandContext(t.Context(), program, "-d", "-i", filepath.Join(h.identities, "identity"))
				cmd.Stdin = bytes.NewReader(file)
				got, err := cmd.Output()
				require.NoError(t, err)
				require.Equal(t, value, string(got))
			})
		}
	}
}

// TestAgeReadsOurIdentities: what juliagpu keys new writes and keys recipients prints
// serves age as what age-keygen writes does.
func TestAgeReadsOurIdentities(t *testing.T) {
	t.Parallel()
	program, err := agenttest.Tool(t.Context(), "age", os.Stderr)
	require.NoError(t, err)
	juliagpu := filepath.Join(t.TempDir(), "juliagpu")
	require.NoError(t, agenttest.Build(t.Context(), "./cmd/juliagpu", juliagpu))
	for _, kind := range [][]string{nil, {"--hybrid"}} {
		dir := t.TempDir()
		run := func(stdin string, name string, args ...string) string {
			cmd := exec.CommandContext(t.Context(), name, args...)
			cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
			out, err := cmd.Output()
			require.NoError(t, err, "%s %s", name, args)
			return string(out)
		}
		to := strings.TrimSpace(run("", juliagpu, append([]string{"keys", "new", "-o", "identity"}, kind...)...))
		recipients := run("", juliagpu, "keys", "recipients", "identity")
		require.Contains(t, recipients, "\n"+to+"\n")
		require.NoError(t, os.WriteFile(filepath.Join(dir, "recipients"), []byte(recipients), 0o644))

		sealed := run("one", program, "-R", "recipients")
		require.Equal(t, "one", run(sealed, program, "-d", "-i", "identity"))
		sealed = run("two", program, "-r", to)
		require.Equal(t, "two", run(sealed, program, "-d", "-i", "identity"))
		sealed = run("three", program, "-e", "-i", "identity") // to the identity's own recipient
		require.Equal(t, "three", run(sealed, program, "-d", "-i", "identity"))
		_, line, err := envelope.ParseRecipients(recipients)
		require.NoError(t, err, line)
	}
}
