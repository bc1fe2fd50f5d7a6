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
