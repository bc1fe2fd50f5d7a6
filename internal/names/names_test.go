package names

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	for _, name := range []string{"A", "_", "a1", "CODECOV_TOKEN", "codecov_token", "GIT_TOKEN", "SSH_KEY", "ENVIRONMENT", "PATHS", "PROXY", strings.Repeat("A", 128)} {
		require.NoError(t, Check(name), name)
	}
	for _, name := range []string{
		"", "1A", "A-B", "A B", "A=B", "Ä", "A\n", "A.B", strings.Repeat("A", 129),
		"BUILDKITE", "BUILDKITE_COMMAND", "JULIAGPU_SECRETS", "JULIAGPU_SECRETS_NAMES", "PATH", "IFS", "ENV", "BASH_ENV", "BASH", "BASHOPTS",
		"SHELLOPTS", "PS4", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "GCONV_PATH", "GODEBUG", "GIT_SSH", "GIT_SSH_COMMAND",
		"GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_CONFIG", "GIT_CONFIG_COUNT", "GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR", "GIT_EXTERNAL_DIFF",
		"GIT_EDITOR", "GIT_PAGER", "SSH_ASKPASS", "HTTP_PROXY", "https_proxy", "All_Proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
	} {
		require.ErrorIs(t, Check(name), ErrName, name)
	}
}

// TestIsSlug: a slug may be part of a path.
func TestIsSlug(t *testing.T) {
	for _, s := range []string{"juliagpu", "cuda-dot-jl", "a_b.c", "0"} {
		require.True(t, IsSlug(s), s)
	}
	for _, s := range []string{"", ".", "..", ".a", "-a", "a/b", "A", "a b", "a%2f", "é"} {
		require.False(t, IsSlug(s), s)
	}
}
