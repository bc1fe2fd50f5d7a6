package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// A yard is a host with one agent, upload.1, that can be started.
type yard struct {
	t *testing.T
	host
}

const (
	agentToken = "bkct_canary-of-the-token"
	apiToken   = "bkua_canary-of-the-api"
	oneKey     = "AGE-SECRET-KEY-CANARY\n"
)

func newYard(t *testing.T) yard {
	t.Helper()
	need.Root(t, "to mount a room")
	memory, err := os.MkdirTemp("/dev/shm", "yard-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(memory) })
	disk := t.TempDir()
	y := yard{t, host{root: os.DirFS("/").(fs.ReadLinkFS), now: time.Now, places: places{
		agents: filepath.Join(disk, "agents"), config: filepath.Join(disk, "config.yml"), credentials: filepath.Join(disk, "credentials"),
		starts: filepath.Join(memory, "run", "agents"), policies: filepath.Join(memory, "gpu"), rooms: filepath.Join(disk, "rooms"),
	}}}
	t.Cleanup(func() { unix.Unmount(filepath.Join(y.rooms, "upload.1"), unix.MNT_DETACH) })
	y.write(y.agents+"/upload.1/.env", "AGENT_NAME=upload.1\nAGENT_KIND=upload\nAGENT_TAGS=queue=upload\nAGENT_IMAGE=a\nAGENT_CACHE=32m\n")
	y.write(y.agents+"/upload.1/gpu.yml", "gpu: {vendor: none}\n")
	y.write(y.config, "mode: split\nconsume: true\nidentities: [{file: "+given+"/identity}]\nusers: {trusted: buildkite-trusted, other: buildkite-other}\n"+
		"attest: {token: "+given+"/api-token, organization: juliagpu}\n")
	y.write(y.credentials+"/agent-token", agentToken+"\n")
	y.write(y.credentials+"/identity", oneKey)
	y.write(y.credentials+"/api-token", apiToken+"\n")
	return y
}

func (y yard) write(path, text string) {
	y.t.Helper()
	require.NoError(y.t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(y.t, os.WriteFile(path, []byte(text), 0o600))
}

// start is the folder that a container gets.
func (y yard) start(name string) string { return filepath.Join(y.starts, "upload.1", name) }

// prepare returns what the command prints. None of it is a credential.
func (y yard) prepare(env ...string) (status int, stdout, stderr string) {
	y.t.Helper()
	var out, errs bytes.Buffer
	status = runOn(y.host, []string{"agent", "prepare", "upload.1"}, env, nil, &out, &errs)
	for _, needle := range []string{agentToken, apiToken, strings.TrimSpace(oneKey)} {
		require.NotContains(y.t, out.String()+errs.String(), needle)
	}
	return status, out.String(), errs.String()
}

func (y yard) names() (names []string) {
	entries, err := os.ReadDir(y.start(""))
	if err != nil {
		require.ErrorIs(y.t, err, os.ErrNotExist)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestPrepare(t *testing.T) {
	y := newYard(t)
	status, out, errs := y.prepare()
	require.Equal(t, "", errs)
	require.Zero(t, status)
	require.Equal(t, "upload.1: no GPU\nupload.1: "+y.rooms+"/upload.1.img: made\nupload.1: room: "+y.rooms+"/upload.1/jobs\n"+
		"upload.1: credentials: agent token, identity, API token\n", out)
	for name, text := range map[string]string{"agent.cfg": "token=\"" + agentToken + "\"\n", "identity": oneKey, "api-token": apiToken + "\n"} {
		is, err := os.ReadFile(y.start(name))
		require.NoError(t, err)
		require.Equal(t, text, string(is))
		info, err := os.Stat(y.start(name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
	info, err := os.Stat(y.start(""))
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o700, info.Mode())
	require.FileExists(t, y.policies+"/upload.1.yml")
	require.DirExists(t, y.rooms+"/upload.1/jobs/kept")

	// Again: nothing of what was there is left, and the folder is the same.
	y.write(y.start("left"), "x")
	require.NoError(t, os.Mkdir(y.start("folder"), 0o700))
	y.write(y.start("folder/x"), "x")
	require.NoError(t, os.Symlink(y.credentials, y.start("link")))
	y.write(y.rooms+"/upload.1/jobs/trap", "x")
	status, _, errs = y.prepare()
	require.Zero(t, status, errs)
	require.Equal(t, []string{"agent.cfg", "api-token", "identity"}, y.names())
	require.FileExists(t, y.credentials+"/identity", "no link is followed")
	require.NoFileExists(t, y.rooms+"/upload.1/jobs/trap")
	again, err := os.Stat(y.start(""))
	require.NoError(t, err)
	require.True(t, os.SameFile(info, again))
}

// TestPrepareUnit takes the credentials from where systemd puts a unit's.
func TestPrepareUnit(t *testing.T) {
	y := newYard(t)
	unit := filepath.Join(t.TempDir(), "unit")
	y.write(unit+"/credentials_agent-token", agentToken)
	y.write(unit+"/credentials_api-token", apiToken)
	y.write(unit+"/identity", oneKey)
	require.NoError(t, os.RemoveAll(y.credentials))
	status, _, errs := y.prepare("CREDENTIALS_DIRECTORY=" + unit)
	require.Zero(t, status, errs)
	require.Equal(t, []string{"agent.cfg", "api-token", "identity"}, y.names())

	y.write(unit+"/credentials_identity", oneKey)
	status, _, errs = y.prepare("CREDENTIALS_DIRECTORY=" + unit)
	require.Equal(t, 1, status)
	require.Contains(t, errs, "identity: both "+unit+"/identity and "+unit+"/credentials_identity")
	require.Empty(t, y.names())
}

func TestPrepareFails(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil  func(y *yard)
		status int
		says   string
		hint   string
	}{
		"no such agent":    {func(y *yard) { os.RemoveAll(y.agents + "/upload.1") }, 1, "there is no agent upload.1 in ", "juliagpu agent new upload.1"},
		"no policy wanted": {func(y *yard) { os.Remove(y.agents + "/upload.1/gpu.yml") }, 1, "agent upload.1 has no ", "docs/gpu.md"},
		"a wrong one":      {func(y *yard) { y.write(y.agents+"/upload.1/gpu.yml", "gpu: {vendor: some}\n") }, 1, "gpu.yml:1:15", ""},
		"no size": {func(y *yard) {
			y.write(y.agents+"/upload.1/.env", "AGENT_NAME=upload.1\nAGENT_KIND=upload\nAGENT_TAGS=queue=upload\nAGENT_IMAGE=a\n")
		}, 1, "AGENT_CACHE is missing or too small", "AGENT_CACHE=40g"},
		"no configuration":             {func(y *yard) { os.Remove(y.config) }, 1, "config.yml: no such file", "docs/operators.md"},
		"a wrong configuration":        {func(y *yard) { y.write(y.config, "mode: splitt\n") }, 1, "config.yml:1:7", ""},
		"a configuration of anybody's": {func(y *yard) { os.Chmod(y.config, 0o666) }, 1, "config.yml: ", ""},
		"an identity elsewhere":        {func(y *yard) { y.write(y.config, "mode: split\nconsume: true\nidentities: [{file: /root/identity}]\n") }, 1, "identity /root/identity: no container has it", given + "/NAME"},
		"an identity for the agent": {func(y *yard) {
			y.write(y.config, "mode: split\nconsume: true\nidentities: [{file: "+given+"/agent.cfg}]\n")
		}, 1, "agent.cfg: no container has it", ""},
		"no token":                 {func(y *yard) { os.Remove(y.credentials + "/agent-token") }, 1, "agent token ", "put it there"},
		"no identity":              {func(y *yard) { os.Remove(y.credentials + "/identity") }, 1, "/identity: no such file", "put it there"},
		"an identity of anybody's": {func(y *yard) { os.Chmod(y.credentials+"/identity", 0o644) }, 1, "/identity: mode", "chmod"},
		"an empty token":           {func(y *yard) { y.write(y.credentials+"/agent-token", "\n") }, 1, "one word on one line", "chown root it, and chmod 600"},
		"two tokens":               {func(y *yard) { y.write(y.credentials+"/agent-token", "a\nb\n") }, 1, "one word on one line", ""},
		"no token but settings":    {func(y *yard) { y.write(y.credentials+"/agent-token", "x\"spawn=\"9\n") }, 1, "agent-token: not a token", "copy it again"},
		"a token too long":         {func(y *yard) { y.write(y.credentials+"/agent-token", strings.Repeat("a", 5000)) }, 1, "too large", ""},
		"not in memory":            {func(y *yard) { y.starts = filepath.Join(t.TempDir(), "agents") }, 75, "is not in memory", "tmpfs"},
		"a folder of somebody's": {func(y *yard) {
			os.MkdirAll(y.start(""), 0o700)
			os.Chown(y.start(""), 4711, 4711)
		}, 75, "not a directory of root's alone", "remove it"},
		"a twin of Compose's": {func(y *yard) {
			y.write(y.agents+"/upload1/.env", "AGENT_NAME=upload1\nAGENT_KIND=upload\nAGENT_TAGS=queue=upload\nAGENT_IMAGE=a\n")
		}, 1, "Compose can't tell upload.1 from upload1", "rename one"},
		"an encrypted identity, by hand": {func(y *yard) {
			y.write(y.credentials+"/identity.cred", "x")
			os.Remove(y.credentials + "/identity")
		}, 1, "/identity.cred: encrypted", "systemctl start buildkite-agent@NAME"},
		"a link": {func(y *yard) {
			os.MkdirAll(y.starts, 0o700)
			os.Symlink(y.credentials, filepath.Join(y.starts, "upload.1"))
		}, 75, "not a directory of root's alone", "remove it"},
		"something in the room's place": {func(y *yard) {
			os.MkdirAll(y.rooms+"/upload.1", 0o755)
			require.NoError(t, unix.Mount("tmpfs", y.rooms+"/upload.1", "tmpfs", 0, ""))
		}, 75, "something else is mounted there", "mend"},
		"it runs": {func(y *yard) {
			status, _, errs := y.prepare()
			require.Zero(y.t, status, errs)
			cmd := exec.Command("unshare", "--mount", "--propagation=private", "sh", "-ec",
				"mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/juliagpu-secrets; mount --bind \"$0\" /var/lib/juliagpu-secrets; echo; exec sleep 100", y.rooms+"/upload.1/jobs")
			out, err := cmd.StdoutPipe()
			require.NoError(y.t, err)
			require.NoError(y.t, cmd.Start())
			y.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			_, err = out.Read(make([]byte, 1))
			require.NoError(y.t, err)
		}, 75, "still in use: process ", "systemctl stop buildkite-agent@upload.1"},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			tt.spoil(&y)
			status, out, errs := y.prepare()
			require.Equal(t, tt.status, status, errs)
			require.Empty(t, out)
			require.Contains(t, errs, tt.says)
			require.Contains(t, errs, "juliagpu: hint: ")
			require.Contains(t, errs, tt.hint)
			switch name {
			case "a link": // what it leads to stays
				require.Len(t, y.names(), 3)
			case "it runs": // and has them
				require.Equal(t, []string{"agent.cfg", "api-token", "identity"}, y.names())
			default:
				require.Empty(t, y.names())
			}
		})
	}
}

// TestPrepareFull: memory that is full takes all the credentials, or none.
func TestPrepareFull(t *testing.T) {
	y := newYard(t)
	small := filepath.Join(t.TempDir(), "small")
	require.NoError(t, os.Mkdir(small, 0o755))
	require.NoError(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=16k,mode=755"))
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	y.starts = filepath.Join(small, "agents")
	y.write(y.credentials+"/identity", strings.Repeat("# a comment\n", 5000)+oneKey)
	status, _, errs := y.prepare()
	require.Equal(t, 75, status)
	require.Contains(t, errs, "/identity: no space left on device")
	require.Contains(t, errs, "hint: make room in memory there")
	require.Empty(t, y.names())
}
