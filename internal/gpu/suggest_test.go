package gpu

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
)

// TestSuggest: what is suggested can be pasted, whatever the driver says.
func TestSuggest(t *testing.T) {
	s := healthy()
	require.Equal(t, "gpu:\n  vendor: nvidia\n  devices:\n    - {uuid: "+ownUUID+", pci: \"0000:81:00.0\"}\n", Suggest(s.Facts).YAML())
	s.NVIDIA.GPUs[0].UUID = "GPU-x}\n+++ hello"
	require.Equal(t, "gpu:\n  vendor: nvidia\n  devices:\n    - {pci: \"0000:81:00.0\"}\n", Suggest(s.Facts).YAML())
	s.deny("c 195:2")
	require.Equal(t, "gpu:\n  vendor: none\n", Suggest(s.Facts).YAML())

	s = healthy()
	s.slice()
	require.Equal(t, "gpu:\n  vendor: nvidia\n  devices:\n    - {pci: \"0000:81:00.0\", gi: 9, ci: 0}\n", Suggest(s.Facts).YAML())
	s = healthy()
	s.amd()
	require.Equal(t, "gpu:\n  vendor: amd\n  devices:\n    - {pci: \"0000:03:00.0\", unique_id: 7193870286350716105}\n", Suggest(s.Facts).YAML())
	s.DRM = append(s.DRM, DRM{Name: "renderD129", Number: devnode.C(226, 129), PCI: "0000:03:00.0", Driver: "amdgpu"})
	require.Contains(t, Suggest(s.Facts).YAML(), "render: 128", "one GPU of several nodes")
}

// TestHostGPUs: in CDI mode both of a driver's lists show the same GPUs.
func TestHostGPUs(t *testing.T) {
	s := healthy()
	s.NVIDIA.GPUs = append(s.NVIDIA.GPUs, NVIDIAGPU{PCI: "0000:82:00.0", UUID: "GPU-????", Minor: 3})
	s.DRM = []DRM{{Name: "card0", PCI: "0000:00:02.0"}, {Name: "renderD128", PCI: "0000:82:00.0"}, {Name: "renderD129", PCI: "0000:03:00.0"}, {Name: "renderD130"}}
	require.Equal(t, []Known{{2, ownUUID, ownPCI, -1, -1, ""}, {3, "", "0000:82:00.0", -1, -1, ""}, {-1, "", "0000:03:00.0", -1, -1, ""}}, HostGPUs(s.Facts))
}
