package tests

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"
)

// breakages are what can go wrong with the host of a walk, each with what mends it, and
// the finding by which juliagpu doctor has to begin.
var breakages = []struct{ finding, breaks, mends string }{
	{"compose.missing", "mount --bind /usr/bin/false /usr/libexec/docker/cli-plugins/docker-compose", "umount /usr/libexec/docker/cli-plugins/docker-compose"},
	{"docker.socket", "chmod 666 /run/docker.sock", "chmod 660 /run/docker.sock"},

	{"driver.missing", "umount /proc/driver", "mount --bind /srv/proc/driver /proc/driver"},
	{"driver.mismatch", "echo 'Failed to initialize NVML: Driver/library version mismatch' >/usr/bin/answers/error", "rm /usr/bin/answers/error"},
	{"driver.silent", "cp /usr/bin/answers/xml /srv/xml; echo x >/usr/bin/answers/xml", "cp /srv/xml /usr/bin/answers/xml"},
	{"gpu.gone", "sed -i 's/GPU-1b7ad372/GPU-99999999/' /usr/bin/answers/xml", "cp /srv/xml /usr/bin/answers/xml"},
	{"toolkit.missing", "mv /usr/bin/nvidia-ctk /srv/", "mv /srv/nvidia-ctk /usr/bin/"},
	{"toolkit.mode", "sed -i s/cdi/csv/ /etc/nvidia-container-runtime/config.toml", "sed -i s/csv/cdi/ /etc/nvidia-container-runtime/config.toml"},
	{"cdi.missing", "mv /etc/cdi/nvidia.yaml /srv/", "mv /srv/nvidia.yaml /etc/cdi/"},

	{"hooks.missing", "mv /usr/lib/juliagpu-secrets/hooks/pre-command /srv/", "mv /srv/pre-command /usr/lib/juliagpu-secrets/hooks/"},
	{"hooks.wrong", "chmod 757 /usr/lib/juliagpu-secrets/environment", "chmod 755 /usr/lib/juliagpu-secrets/environment"},
	{"hooks.wrong", "chmod u+s /usr/lib/juliagpu-secrets/launch", "chmod u-s /usr/lib/juliagpu-secrets/launch"},
	{"config.missing", "mv /etc/juliagpu-secrets/config.yml /srv/", "mv /srv/config.yml /etc/juliagpu-secrets/"},
	{"config.two", "cp /etc/juliagpu-secrets/config.yml /usr/lib/juliagpu-secrets/", "rm /usr/lib/juliagpu-secrets/config.yml"},
	{"config.wrong", "sed -i 's/mode: split/mode: splitt/' /etc/juliagpu-secrets/config.yml", "sed -i 's/mode: splitt/mode: split/' /etc/juliagpu-secrets/config.yml"},
	{"config.paths", "sed -i 's|/run/juliagpu-secrets/credentials/|/etc/|' /etc/juliagpu-secrets/config.yml", "sed -i 's|file: /etc/|file: /run/juliagpu-secrets/credentials/|' /etc/juliagpu-secrets/config.yml"},
	{"perm.config", "chmod o+w /etc/juliagpu-secrets/config.yml", "chmod o-w /etc/juliagpu-secrets/config.yml"},
	{"perm.agents", "chown op /etc/juliagpu-secrets/agents/upload.1/.env", "chown root /etc/juliagpu-secrets/agents/upload.1/.env"},

	{"credential.missing", "mv /etc/juliagpu-secrets/credentials/identity-2027 /srv/", "mv /srv/identity-2027 /etc/juliagpu-secrets/credentials/"},
	{"credential.readable", "chmod 644 /etc/juliagpu-secrets/credentials/identity-2027", "chmod 600 /etc/juliagpu-secrets/credentials/identity-2027"},
	{"credential.wrong", "cd /etc/juliagpu-secrets/credentials; cp -p agent-token /srv/; echo 'two words' >agent-token", "cp -p /srv/agent-token /etc/juliagpu-secrets/credentials/"},
	{"identity.unreadable", "cd /etc/juliagpu-secrets/credentials; cp -p identity-2027 /srv/; echo AGE-SECRET-KEY-1 >identity-2027", "cp -p /srv/identity-2027 /etc/juliagpu-secrets/credentials/"},

	{"agent.wrong", "echo 'AGENT_SHM=\"2g\"' >>/etc/juliagpu-secrets/agents/upload.1/.env", "sed -i '$d' /etc/juliagpu-secrets/agents/upload.1/.env"},
	{"agent.incomplete", "mv /etc/juliagpu-secrets/agents/upload.1/compose.yml /srv/", "mv /srv/compose.yml /etc/juliagpu-secrets/agents/upload.1/"},
	{"agent.compose", "mv /etc/juliagpu-secrets/agents/host.env /srv/", "mv /srv/host.env /etc/juliagpu-secrets/agents/"},
	{"agent.project", "cp -r /etc/juliagpu-secrets/agents/upload.1 /etc/juliagpu-secrets/agents/upload1; sed -i s/NAME=upload.1/NAME=upload1/ /etc/juliagpu-secrets/agents/upload1/.env", "rm -r /etc/juliagpu-secrets/agents/upload1"},
	{"agent.shared-gpu", "cp -r /etc/juliagpu-secrets/agents/gpuci.1 /etc/juliagpu-secrets/agents/gpuci.9; sed -i s/NAME=gpuci.1/NAME=gpuci.9/ /etc/juliagpu-secrets/agents/gpuci.9/.env", "rm -r /etc/juliagpu-secrets/agents/gpuci.9"},
	{"agent.gpu", "sed -i s/AGENT_GPU=GPU-1b/AGENT_GPU=GPU-2b/ /etc/juliagpu-secrets/agents/gpuci.1/.env", "sed -i s/AGENT_GPU=GPU-2b/AGENT_GPU=GPU-1b/ /etc/juliagpu-secrets/agents/gpuci.1/.env"},
	{"policy.missing", "mv /etc/juliagpu-secrets/agents/gpuci.1/gpu.yml /srv/", "mv /srv/gpu.yml /etc/juliagpu-secrets/agents/gpuci.1/"},
	{"policy.wrong", "sed -i s/vendor:/vendr:/ /etc/juliagpu-secrets/agents/gpuci.1/gpu.yml", "sed -i s/vendr:/vendor:/ /etc/juliagpu-secrets/agents/gpuci.1/gpu.yml"},
	{"image.missing", "docker tag juliagpu-agent:plain kept; docker rmi --force --no-prune juliagpu-agent:plain", "docker tag kept juliagpu-agent:plain"},

	{"unit.broken", "systemctl --quiet mask --runtime buildkite-agent@upload.1", "systemctl --quiet unmask --runtime buildkite-agent@upload.1"},
	{"unit.missing", "mv /usr/lib/systemd/system/buildkite-agent@.service /srv/; systemctl daemon-reload", "mv /srv/buildkite-agent@.service /usr/lib/systemd/system/; systemctl daemon-reload"},
	// With the agents: the next start of one starts the engine.
	{"engine.down", "systemctl --quiet stop 'buildkite-agent@*' docker.socket docker.service", "systemctl start docker.service buildkite-agent@upload.1 buildkite-agent@gpuci.1"},
}

// breakages breaks the host, and mends it again.
func (w *walk) breakages() {
	w.t.Helper()
	first := func() (id, all string) {
		out, status := w.as(true, "juliagpu doctor --json")
		var report struct {
			Findings []struct{ ID, Severity string }
		}
		require.NoError(w.t, json.Unmarshal([]byte(out), &report), out)
		if len(report.Findings) == 0 || report.Findings[0].Severity != "fault" {
			return fmt.Sprint("none, status ", status), out
		}
		require.Equal(w.t, 1, status, out)
		return report.Findings[0].ID, out
	}
	names := map[string]bool{}
	for _, b := range breakages {
		id, all := first()
		require.Equal(w.t, "none, status 0", id, "before %s: %s", b.breaks, all)
		w.mustAs(true, "set -e; "+b.breaks)
		id, all = first()
		if b.finding != id {
			w.t.Errorf("%s: %s, not %s: %s", b.breaks, id, b.finding, all)
		}
		plain, _ := w.as(true, "juliagpu doctor")
		if !strings.HasPrefix(plain, b.finding+": ") {
			w.t.Errorf("%s: the first line is not of %s: %s", b.breaks, b.finding, plain)
		}
		w.mustAs(true, "set -e; "+b.mends)
		names[id] = true
	}
	require.Greater(w.t, len(names), 20)
}
