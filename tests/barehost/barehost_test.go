//go:build linux

package barehost

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

func TestBoot(t *testing.T) {
	shared := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(shared, "note"), []byte("from this machine"), 0o644))
	var h *Host
	t.Run("a host", func(t *testing.T) {
		h = Boot(t, Bind{From: shared, To: "/srv/shared", ReadOnly: true})
		out, status := h.Run("systemctl", "is-system-running")
		failed, _ := h.Run("systemctl", "--failed", "--no-pager")
		require.Equal(t, "running\n", out, failed)
		require.Zero(t, status)
		out, status = h.Run("docker", "info", "--format", "{{.ServerVersion}} {{.Driver}} {{.CgroupDriver}} {{.ID}}")
		require.Zero(t, status, out)
		id, err := exec.Command("docker", "info", "--format", "{{.ID}}").Output()
		require.NoError(t, err)
		require.NotContains(t, out, strings.TrimSpace(string(id)), "an engine of its own")
		t.Log(strings.TrimSpace(out))

		out, _ = h.Run("cat", "/srv/shared/note")
		require.Equal(t, "from this machine", out)
		_, status = h.Run("touch", "/srv/shared/x")
		require.NotZero(t, status)
		_, status = h.Run("sh", "-c", "exit 7")
		require.Equal(t, 7, status)

		server, err := agenttest.NewServerOn(h.Gateway)
		require.NoError(t, err)
		defer server.Close()
		out, status = h.Run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", server.URL+"/ping")
		require.Equal(t, "401", out)
		require.Zero(t, status)

		// What it leaves to its end: a mount of a file, as of an agent's room.
		out, status = h.Run("sh", "-ec", "truncate -s 8M /var/room; mkfs.ext4 -q /var/room; mount -o loop /var/room /mnt; sleep 1000 >/dev/null 2>&1 &")
		require.Zero(t, status, out)
	})
	if h == nil {
		return // it said why
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + h.name, "/sys/class/net/" + h.name} {
		left, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}
