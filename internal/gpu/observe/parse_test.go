package observe

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

func TestParseInformation(t *testing.T) {
	for name, tt := range map[string]struct {
		dir, text string
		want      gpu.NVIDIAGPU
	}{
		"all of it": {"0000:81:00.0", "Model: \t\t Quadro RTX 5000\nGPU UUID: \t GPU-1\nDevice Minor: \t 2\n",
			gpu.NVIDIAGPU{PCI: "0000:81:00.0", UUID: "GPU-1", Minor: 2, Model: "Quadro RTX 5000"}},
		"capital letters": {"0000:8A:00.0", "GPU UUID: \t GPU-1\nDevice Minor: \t 247\n",
			gpu.NVIDIAGPU{PCI: "0000:8a:00.0", UUID: "GPU-1", Minor: 247}},
		"a UUID that is not known yet": {"0000:81:00.0", "GPU UUID: \t GPU-????????-????-????-????-????????????\nDevice Minor: 0\n",
			gpu.NVIDIAGPU{PCI: "0000:81:00.0"}},
		"nothing": {"0000:81:00.0", "", gpu.NVIDIAGPU{PCI: "0000:81:00.0", Minor: -1}},
	} {
		got, err := parseInformation(tt.dir, tt.text)
		require.NoError(t, err, name)
		require.Equal(t, tt.want, got, name)
	}
	for _, tt := range [][2]string{
		{"81:00.0", ""}, {"0001:0000:81:00.0", ""}, {"0000:81:00.8", ""}, {"", ""}, {"../0000:81:00.0", ""},
		{"0000:81:00.0", "Device Minor: 256\n"}, {"0000:81:00.0", "Device Minor: -1\n"}, {"0000:81:00.0", "Device Minor:\n"},
		{"0000:81:00.0", "GPU UUID: GPU-1\nGPU UUID: GPU-2\n"},
	} {
		_, err := parseInformation(tt[0], tt[1])
		require.ErrorIs(t, err, errMalformed, "%q", tt)
	}
}

func TestDriverVersion(t *testing.T) {
	for text, want := range map[string]string{
		"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build  (dvs-builder@U22)\n": "580.159.03",
		"NVRM version: NVIDIA UNIX x86_64 Kernel Module  525.105.17  Tue Mar 28 18:02:59 UTC 2023\nGCC 12.2.0\n":  "525.105.17",
		"NVRM version: none\nGCC version: 12.2.0\n":                                                               "",
		"": "",
	} {
		require.Equal(t, want, driverVersion(text), "%q", text)
	}
}

func TestParseMinors(t *testing.T) {
	var n gpu.NVIDIA
	require.NoError(t, parseMinors(&n, "config 1\nmonitor 2\nfuture/thing 9\ngpu0/gi9/access 84\ngpu0/gi9/ci0/access 85\n"))
	require.Equal(t, gpu.NVIDIA{Config: 1, Monitor: 2, Table: []gpu.Instance{{GPU: 0, GI: 9, CI: -1, Minor: 84}, {GPU: 0, GI: 9, CI: 0, Minor: 85}}}, n)

	require.NoError(t, parseMinors(&n, migMinors(t, "")))
	require.Len(t, n.Table, 4320)
	for _, i := range n.Table {
		if i.CI < 0 {
			require.Equal(t, gpu.CapMinor(i.GPU, i.GI, -1), i.Minor)
		} else {
			require.Equal(t, gpu.CapMinor(i.GPU, i.GI, i.CI), i.Minor)
		}
	}
	require.Equal(t, 4323, gpu.MinorIMEXMgmt)

	for _, text := range []string{
		"config\n", "config x\n", "config -1\n", "config 1048576\n", "gpu0/gi9/access\n", "gpu0/gi9 84\n", "gpu0/gi09/access 84\n",
		"gpux/gi9/access 84\n", "gpu0/gi9/ci0/ci1/access 84\n", "gpu0/gi9/xi0/access 84\n", "gpu0/gi9/ci0/other 84\n", "\n",
	} {
		require.ErrorIs(t, parseMinors(&n, text), errMalformed, "%q", text)
		require.Nil(t, n.Table)
	}
}

func TestParseIMEX(t *testing.T) {
	n, err := parseIMEX("other 3\nfabric-imex-mgmt 4323\n")
	require.NoError(t, err)
	require.Equal(t, 4323, n)
	n, err = parseIMEX("")
	require.NoError(t, err)
	require.Equal(t, -1, n)
	_, err = parseIMEX("fabric-imex-mgmt x\n")
	require.ErrorIs(t, err, errMalformed)
}

func TestParseProperties(t *testing.T) {
	for text, want := range map[string]gpu.KFDNode{
		"location_id 768\ndomain 0\ndrm_render_minor 128\nunique_id 7\n": {PCI: "0000:03:00.0", Render: 128, UniqueID: 7},
		"location_id 33545\ndomain 1\n":                                  {PCI: "0001:83:01.1", Render: -1},
		"drm_render_minor 0\n":                                           {Render: -1},
		"simd_count x\n":                                                 {Render: -1},
	} {
		got := gpu.KFDNode{Render: -1}
		require.NoError(t, parseProperties(&got, text), "%q", text)
		require.Equal(t, want, got, "%q", text)
	}
	for _, text := range []string{
		"location_id 65536\n", "domain 65536\nlocation_id 1\n", "drm_render_minor 1048576\n", "unique_id -1\n",
		"unique_id 1\nunique_id 2\n", "domain\n",
	} {
		require.ErrorIs(t, parseProperties(new(gpu.KFDNode), text), errMalformed, "%q", text)
	}
}

func TestParseErrCount(t *testing.T) {
	n, err := parseErrCount("ue: 12\nce: 3\n")
	require.NoError(t, err)
	require.EqualValues(t, 12, n)
	for _, text := range []string{"", "ce: 1\n", "ue: -1\n", "ue: 1\nue: 2\n", "ue: 9223372036854775808\n"} {
		_, err := parseErrCount(text)
		require.Error(t, err, "%q", text)
	}
}

func TestParseUevent(t *testing.T) {
	var d gpu.DRM
	require.NoError(t, parseUevent(&d, "DRIVER=i915\nPCI_ID=8086:9A49\nPCI_SLOT_NAME=0000:00:02.0\nX\n"))
	require.Equal(t, gpu.DRM{PCI: "0000:00:02.0", ID: "8086:9A49", Driver: "i915"}, d)
	require.NoError(t, parseUevent(new(gpu.DRM), "DRIVER=simple-framebuffer\nOF_NAME=x\n"))
	require.ErrorIs(t, parseUevent(&d, "PCI_SLOT_NAME=x\n"), errMalformed)
}

func TestInterfaces(t *testing.T) {
	require.Equal(t, []string{"lo", "eth0", "enp3s0"}, interfaces("Inter-|   Receive\n face |bytes\n    lo: 0 0\n  eth0: 1\nenp3s0:1 2\n  ..: 1\n a/b: 2\n"))
	for name, want := range map[string]bool{
		"eno1": true, "enp3s0": true, "ens5": true, "enx001122334455": true, "enp3s0f0np0": true, "wlan0": true, "wlp2s0": true, "ib0": true, "ibp1s0": true,
		"eth0": false, "lo": false, "docker0": false, "veth12ab": false, "br-1234": false, "ens": false, "wg0": false, "bond0": false,
	} {
		require.Equal(t, want, physical().MatchString(name), name)
	}
}

func TestHomeOf(t *testing.T) {
	text := "root:x:0:0:root:/root:/bin/bash\nbad\nb:x:1000:1000::/home/b:/bin/sh\nc:x:1000:1000::/home/c:/bin/sh\n"
	require.Equal(t, "/root", homeOf(text, 0))
	require.Equal(t, "/home/b", homeOf(text, 1000), "the first line counts")
	require.Empty(t, homeOf(text, 7))
}

func TestLimitTexts(t *testing.T) {
	for text, want := range map[string]string{"max": "", "34359738368": "34359738368", "9223372036854771712": "", "-1": "", "": "", "0": "0"} {
		require.Equal(t, want, bounded(text), "%q", text)
	}
	for _, tt := range [][3]string{{"max", "100000", ""}, {"200000", "100000", "2"}, {"50000", "100000", "0.5"}, {"-1", "100000", ""}, {"1", "0", ""}, {"", "", ""}} {
		require.Equal(t, tt[2], cpus(tt[0], tt[1]), "%q", tt)
	}
}

// Laws: what is taken can be written again, and means the same.

func FuzzParseInformation(f *testing.F) {
	f.Add("0000:81:00.0", "Model: \t\t Quadro RTX 5000\nGPU UUID: \t GPU-1\nDevice Minor: \t 2\n")
	f.Fuzz(func(t *testing.T, dir, text string) {
		g, err := parseInformation(dir, text)
		if err != nil {
			require.Zero(t, g)
			return
		}
		require.NotContains(t, g.UUID, "?")
		require.True(t, -1 <= g.Minor && g.Minor <= 255)
		again := "GPU UUID: " + g.UUID + "\nModel: " + g.Model + "\n"
		if g.Minor >= 0 {
			again += "Device Minor: " + strconv.Itoa(g.Minor) + "\n"
		}
		g2, err := parseInformation(g.PCI, again)
		require.NoError(t, err)
		require.Equal(t, g, g2)
	})
}

func FuzzColons(f *testing.F) {
	f.Add("ModifyDeviceFiles: 0\nRegistryDwords: \"\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := colons(text)
		if err != nil {
			return
		}
		var b strings.Builder
		for key, value := range all {
			b.WriteString(key + ": " + value + "\n")
		}
		again, err := colons(b.String())
		require.NoError(t, err)
		require.Equal(t, all, again)
	})
}

func FuzzParseAccess(f *testing.F) {
	f.Add("DeviceFileMinor: 84\nDeviceFileMode: 292\nDeviceFileModify: 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		minor, err := parseAccess(text)
		if err == nil {
			again, err := parseAccess(fmt.Sprintf("DeviceFileMinor: %d\n", minor))
			require.NoError(t, err)
			require.Equal(t, minor, again)
		}
	})
}

func FuzzParseMinors(f *testing.F) {
	f.Add("config 1\nmonitor 2\ngpu0/gi9/access 84\ngpu0/gi9/ci0/access 85\n")
	f.Fuzz(func(t *testing.T, text string) {
		n := gpu.NVIDIA{Config: -1, Monitor: -1}
		if parseMinors(&n, text) != nil {
			require.Nil(t, n.Table)
			return
		}
		var b strings.Builder
		if n.Config >= 0 {
			fmt.Fprintf(&b, "config %d\n", n.Config)
		}
		if n.Monitor >= 0 {
			fmt.Fprintf(&b, "monitor %d\n", n.Monitor)
		}
		for _, i := range n.Table {
			ci := ""
			if i.CI >= 0 {
				ci = fmt.Sprintf("/ci%d", i.CI)
			}
			fmt.Fprintf(&b, "gpu%d/gi%d%s/access %d\n", i.GPU, i.GI, ci, i.Minor)
		}
		again := gpu.NVIDIA{Config: -1, Monitor: -1}
		require.NoError(t, parseMinors(&again, b.String()))
		require.Equal(t, n, again)
	})
}

func FuzzParseUevent(f *testing.F) {
	f.Add("DRIVER=amdgpu\nPCI_ID=1002:744C\nPCI_SLOT_NAME=0000:03:00.0\n")
	f.Fuzz(func(t *testing.T, text string) {
		var d, again gpu.DRM
		if parseUevent(&d, text) != nil {
			return
		}
		written := "DRIVER=" + d.Driver + "\nPCI_ID=" + d.ID + "\n"
		if d.PCI != "" {
			written += "PCI_SLOT_NAME=" + d.PCI + "\n"
		}
		require.NoError(t, parseUevent(&again, written))
		require.Equal(t, d, again)
	})
}

func FuzzParseProperties(f *testing.F) {
	f.Add("location_id 768\ndomain 0\ndrm_render_minor 128\nunique_id 7193870286350716105\n")
	f.Fuzz(func(t *testing.T, text string) {
		k := gpu.KFDNode{Render: -1}
		if parseProperties(&k, text) != nil {
			require.Equal(t, gpu.KFDNode{Render: -1}, k)
			return
		}
		require.True(t, k.Render == -1 || 0 < k.Render && k.Render < 1<<20)
		if k.PCI != "" {
			pci, ok := pciAddress(k.PCI)
			require.True(t, ok)
			require.Equal(t, k.PCI, pci)
		}
	})
}

func FuzzParseErrCount(f *testing.F) {
	f.Add("ue: 0\nce: 3\n")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseErrCount(text)
		if err == nil {
			require.GreaterOrEqual(t, n, int64(0))
			again, err := parseErrCount(fmt.Sprintf("ue: %d\n", n))
			require.NoError(t, err)
			require.Equal(t, n, again)
		}
	})
}

func FuzzInterfaces(f *testing.F) {
	f.Add("    lo: 0 0\n  eth0: 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range interfaces(text) {
			require.NotContains(t, name, "/")
			require.NotEqual(t, "..", name)
		}
	})
}
