package settings

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// policies are two files that are told apart by their vendor, and a place for
// the default one.
func policies(t *testing.T) (system, named string) {
	t.Helper()
	dir := t.TempDir()
	system, named = filepath.Join(dir, "gpu.yml"), filepath.Join(dir, "named.yml")
	require.NoError(t, os.WriteFile(named, []byte("gpu: {vendor: intel, devices: [{pci: '0000:00:02.0'}]}\n"), 0o644))
	return system, named
}

func writeSystem(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte("gpu: {vendor: none}\n"), 0o644))
}

// TestPolicy says for each place where a policy can be which one counts.
func TestPolicy(t *testing.T) {
	uid := os.Getuid()
	inline := GPU{Policy: &gpu.Policy{Vendor: gpu.VendorAMD}}
	for _, tt := range []struct {
		name   string
		system bool
		gpu    func(named string) GPU
		want   gpu.Vendor // empty: none
		err    string
	}{
		{"nowhere", false, func(string) GPU { return GPU{} }, "", ""},
		{"in the default file", true, func(string) GPU { return GPU{} }, gpu.VendorNone, ""},
		{"in the configuration", false, func(string) GPU { return inline }, gpu.VendorAMD, ""},
		{"in both", true, func(string) GPU { return inline }, "", "/c.yml: gpu: a policy, and there is another in SYSTEM"},
		{"turned off, and in the default file", true, func(string) GPU { return GPU{Policy: &gpu.Policy{Off: "a reason"}} }, "", "/c.yml: gpu: a policy, and there is another in SYSTEM"},
		{"in a named file", false, func(named string) GPU { return GPU{File: named} }, gpu.VendorIntel, ""},
		{"in a named file, not in the default one", true, func(named string) GPU { return GPU{File: named} }, gpu.VendorIntel, ""},
		{"in a named file that is not there", true, func(named string) GPU { return GPU{File: named + "2"} }, "", "the policy for GPUs, NAMED2: open NAMED2: no such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			system, named := policies(t)
			if tt.system {
				writeSystem(t, system)
			}
			p, err := Settings{Path: "/c.yml", GPU: tt.gpu(named)}.policy(uid, system)
			switch {
			case tt.err != "":
				require.EqualError(t, err, strings.NewReplacer("SYSTEM", system, "NAMED", named).Replace(tt.err))
				require.Nil(t, p)
			case tt.want == "":
				require.NoError(t, err)
				require.Nil(t, p)
			default:
				require.NoError(t, err)
				require.Equal(t, tt.want, p.Vendor)
			}
		})
	}
}

// TestPolicyFile: a policy file is trusted and read as the configuration is.
func TestPolicyFile(t *testing.T) {
	uid := os.Getuid()
	system, named := policies(t)
	at := Settings{GPU: GPU{File: named}}

	p, err := at.policy(uid, system)
	require.NoError(t, err)
	require.Equal(t, named, p.Path)
	require.Equal(t, uid != 0, p.Changeable, "root's own file is root's")

	require.NoError(t, os.Chmod(named, 0o666))
	_, err = at.policy(uid, system)
	require.ErrorIs(t, err, rootfile.ErrUntrusted)

	require.NoError(t, os.WriteFile(named, []byte("gpu:\n  vendor: nvdia\n"), 0o644))
	require.NoError(t, os.Chmod(named, 0o644))
	_, err = at.policy(uid, system)
	require.EqualError(t, err, named+":2:11: gpu.vendor: not a vendor of GPUs")

	require.NoError(t, os.WriteFile(named, []byte(strings.Repeat("#", strict.MaxFile+1)), 0o644))
	_, err = at.policy(uid, system)
	require.EqualError(t, err, named+": larger than 64 KiB")

	require.NoError(t, os.WriteFile(named, []byte("# AGE-SECRET-KEY-1\n"), 0o644))
	_, err = at.policy(uid, system)
	require.EqualError(t, err, named+":1:3: an identity stands here, for everyone to read")
}

// TestPolicyLink: the file itself may not be a link, a folder on the way to it may.
func TestPolicyLink(t *testing.T) {
	uid := os.Getuid()
	system, named := policies(t)
	require.NoError(t, os.Symlink("named.yml", system))
	for _, s := range []Settings{{}, {GPU: GPU{File: system}}} {
		_, err := s.policy(uid, system)
		require.EqualError(t, err, system+": a symbolic link")
	}
	require.NoError(t, os.Remove(named))
	_, err := Settings{}.policy(uid, system)
	require.EqualError(t, err, system+": a symbolic link", "one that leads nowhere is not nothing")

	system, named = policies(t)
	folder := filepath.Join(filepath.Dir(named), "folder")
	require.NoError(t, os.Symlink(".", folder))
	p, err := Settings{GPU: GPU{File: filepath.Join(folder, "named.yml")}}.policy(uid, system)
	require.NoError(t, err)
	require.Equal(t, gpu.VendorIntel, p.Vendor)
}

// TestPolicyUnseen: what can't be looked for may be there.
func TestPolicyUnseen(t *testing.T) {
	_, named := policies(t)
	for _, s := range []Settings{{}, {GPU: GPU{Policy: &gpu.Policy{Vendor: gpu.VendorNone}}}} {
		p, err := s.policy(os.Getuid(), filepath.Join(named, "gpu.yml"))
		require.Error(t, err)
		require.NotErrorIs(t, err, fs.ErrNotExist)
		require.Nil(t, p)
	}
	require.Equal(t, "/etc/juliagpu-secrets/gpu.yml", systemPolicy)
}

// TestPolicyOfAnother: the user's own file is for direct mode alone.
func TestPolicyOfAnother(t *testing.T) {
	need.Root(t, "to give files to other users")
	system, _ := policies(t)
	writeSystem(t, system)
	require.NoError(t, os.Chown(system, 4711, -1))
	p, err := Settings{}.policy(4711, system)
	require.NoError(t, err)
	require.True(t, p.Changeable)
	_, err = Settings{}.policy(0, system)
	require.EqualError(t, err, system+": owned by uid 4711, not by root")

	path := write(t, t.TempDir(), smallest+"gpu: {vendor: none}\n")
	require.NoError(t, os.Chown(path, 4711, -1))
	s, err := Load(path, 4711)
	require.NoError(t, err)
	require.True(t, s.GPU.Policy.Changeable)
}

// TestPolicyInConfiguration: it is as trustworthy as the file around it.
func TestPolicyInConfiguration(t *testing.T) {
	system, _ := policies(t)
	path := write(t, t.TempDir(), smallest+"gpu: {vendor: none}\n")
	s, err := Load(path, os.Getuid())
	require.NoError(t, err)
	p, err := s.policy(os.Getuid(), system)
	require.NoError(t, err)
	require.Equal(t, gpu.VendorNone, p.Vendor)
	require.Equal(t, path, p.Path)
	require.Equal(t, s.Changeable, p.Changeable)
}
