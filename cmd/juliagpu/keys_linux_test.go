package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// keyHost is a host whose credentials lie in a folder, with a configuration that
// lists an identity called identity.
func keyHost(t *testing.T) host {
	t.Helper()
	need.Root(t, "whose credentials they are")
	etc := filepath.Join(t.TempDir(), "etc")
	require.NoError(t, os.MkdirAll(etc, 0o755))
	h := host{root: os.DirFS("/").(fs.ReadLinkFS), now: time.Now, creds: "/usr/bin/systemd-creds", places: places{
		config: filepath.Join(etc, "config.yml"), credentials: filepath.Join(etc, "credentials"), retired: filepath.Join(etc, "retired"),
		starts: filepath.Join(etc, "run"), units: filepath.Join(etc, "units"),
	}}
	require.NoError(t, os.WriteFile(h.config, []byte("mode: split\nconsume: true\nidentities: [{file: "+given+"/identity}]\n"), 0o644))
	return h
}

// made is an identity's file, and what must be printed nowhere.
func made(t *testing.T) (file string, text []byte, secret string) {
	t.Helper()
	text, _, err := identity.New(false, time.Now())
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "identity")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file, text, strings.Split(strings.TrimSpace(string(text)), "\n")[2]
}

// do runs a command on a host. It prints nothing of the secret.
func do(t *testing.T, h host, secret string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = runOn(h, args, nil, strings.NewReader(""), &out, &errs)
	for _, needle := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))[:40]} {
		require.NotContains(t, out.String()+errs.String(), needle)
	}
	return status, out.String(), errs.String()
}

// small is a folder on a file system of its own.
func small(t *testing.T, options string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options+"mode=755"))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestKeysFailingDisk: nothing is half there on a disk that is full or read-only.
func TestKeysFailingDisk(t *testing.T) {
	h := keyHost(t)
	file, text, secret := made(t)
	fill := func(dir string) {
		f, err := os.Create(filepath.Join(dir, "filler"))
		require.NoError(t, err)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		require.ErrorIs(t, err, unix.ENOSPC)
		require.NoError(t, f.Close())
	}
	readOnly := func(dir string) { require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) }
	for name, tt := range map[string]struct {
		spoil func(string)
		says  string
	}{
		"full":      {fill, "no space left on device"},
		"read-only": {readOnly, "read-only file system"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := small(t, "size=64k,")
			h.credentials, h.retired = filepath.Join(dir, "credentials"), filepath.Join(dir, "retired")
			require.NoError(t, os.Mkdir(h.credentials, 0o700))
			require.NoError(t, os.Mkdir(h.retired, 0o700))
			tt.spoil(dir)

			status, out, errs := do(t, h, secret, "keys", "new", "-o", filepath.Join(h.retired, "new"))
			require.Equal(t, 75, status)
			require.Empty(t, out, "no recipient of an identity that is nowhere")
			require.Contains(t, errs, "no identity was written: "+tt.says)

			status, out, errs = do(t, h, secret, "keys", "install", file)
			require.Equal(t, 75, status)
			require.Empty(t, out)
			require.Contains(t, errs, tt.says)

			for _, dir := range []string{h.credentials, h.retired} {
				left, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Empty(t, left)
			}
		})
	}
	t.Run("retire", func(t *testing.T) {
		dir := small(t, "")
		h := keyHost(t)
		h.credentials, h.retired = filepath.Join(dir, "credentials"), filepath.Join(dir, "retired")
		status, _, errs := do(t, h, secret, "keys", "install", file, "--name", "older")
		require.Zero(t, status, errs)
		require.NoError(t, os.Mkdir(h.retired, 0o700))
		readOnly(dir)
		for _, args := range [][]string{{"keys", "retire", "older"}, {"keys", "retire", "older", "--delete"}} {
			status, out, errs := do(t, h, secret, args...)
			require.Equal(t, 75, status, errs)
			require.Empty(t, out)
			is, err := os.ReadFile(filepath.Join(h.credentials, "older"))
			require.NoError(t, err)
			require.Equal(t, text, is)
		}
	})
	t.Run("another disk", func(t *testing.T) {
		h := keyHost(t)
		status, _, errs := do(t, h, secret, "keys", "install", file, "--name", "older")
		require.Zero(t, status, errs)
		h.retired = filepath.Join(small(t, ""), "retired")
		status, _, errs = do(t, h, secret, "keys", "retire", "older")
		require.Equal(t, 75, status)
		require.Contains(t, errs, "still there: invalid cross-device link")
		require.FileExists(t, filepath.Join(h.credentials, "older"))
	})
}

// TestKeysSystemd has the real systemd-creds encrypt, with a key of the host's that
// is this test's alone.
func TestKeysSystemd(t *testing.T) {
	if asChild := os.Getenv("JULIAGPU_TEST_SYSTEMD"); asChild == "" {
		need.Root(t, "to mount")
		if _, err := os.Stat("/usr/bin/systemd-creds"); err != nil {
			need.Skip(t, "needs systemd-creds")
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation=private", "sh", "-ec",
			"mkdir -p /var/lib/systemd; mount --bind \"$1\" /var/lib/systemd; exec \"$0\" -test.run '^TestKeysSystemd$' -test.v", os.Args[0], t.TempDir())
		cmd.Env = append(os.Environ(), "JULIAGPU_TEST_SYSTEMD=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "--- PASS: TestKeysSystemd")
		return
	}
	h := keyHost(t)
	file, text, secret := made(t)
	status, out, errs := do(t, h, secret, "keys", "install", file, "--encrypt")
	require.Zero(t, status, errs)
	require.Empty(t, errs)
	require.Contains(t, out, "LoadCredentialEncrypted=identity:/etc/juliagpu-secrets/credentials/identity.cred\n")
	ciphertext, err := os.ReadFile(filepath.Join(h.credentials, "identity.cred"))
	require.NoError(t, err)
	require.NotContains(t, string(ciphertext), secret)
	entries, err := os.ReadDir(h.credentials)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing in the clear beside it")

	// As a unit's LoadCredentialEncrypted=identity: opens it: by that name alone.
	opened, err := exec.CommandContext(t.Context(), h.creds, "decrypt", "--name=identity", filepath.Join(h.credentials, "identity.cred"), "-").Output()
	require.NoError(t, err)
	require.Equal(t, string(text), string(opened))
	require.Error(t, exec.CommandContext(t.Context(), h.creds, "decrypt", "--name=other", filepath.Join(h.credentials, "identity.cred"), "-").Run())

	status, out, errs = do(t, h, secret, "keys", "recipients")
	require.Zero(t, status, errs)
	require.Contains(t, out, "\nage1")

	// Of another machine: said, with the reason; and it can be taken away all the same.
	require.NoError(t, os.Rename(filepath.Join(h.credentials, "identity.cred"), filepath.Join(h.credentials, "other.cred")))
	status, _, errs = do(t, h, secret, "keys", "install", file, "--name", "other", "--encrypt")
	require.Equal(t, 75, status)
	require.Contains(t, errs, "systemd-creds decrypt: ")
	status, out, errs = do(t, h, secret, "keys", "retire", "other")
	require.Zero(t, status, errs)
	require.Contains(t, out, "kept as ")
}

// TestKeysWidths shows what install and retire say on a narrow and a wide terminal:
// what is to be pasted stays whole.
func TestKeysWidths(t *testing.T) {
	p := &program{host: thisHost()}
	p.host.config, p.host.units = "/nowhere/config.yml", "/nowhere/units"
	for _, width := range []int{40, 200} {
		text := narrow(p.next("/root/identity", "identity-2026", true), width)
		golden(t, fmt.Sprintf("keys-next-%d.txt", width), text)
		for line := range strings.Lines(text) {
			last := line[strings.LastIndex(line, " ")+1:]
			require.True(t, strings.HasPrefix(line, "           ") || strings.Contains(last, "/") || utf8.RuneCountInString(line) <= width+1, line)
		}
	}
}
