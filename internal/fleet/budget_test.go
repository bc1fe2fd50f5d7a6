package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOver(t *testing.T) {
	const g = 1 << 30
	host := Host{CPUs: 16, Memory: 64 * g, Disk: 100 * g}
	full := []Agent{{CPUs: 8, Memory: 32 * g, Cache: 60 * g, JuliaCPUThreads: 8}, {CPUs: 8, Memory: 32 * g, Cache: 40 * g, JuliaCPUThreads: 8}}
	for _, tt := range []struct {
		name string
		more Agent
		host Host
		says []string
	}{
		{"all of it", Agent{}, host, nil},
		{"a processor", Agent{CPUs: 0.5}, host, []string{"AGENT_CPUS= of all agents are 16.5, and the host has 16 processors"}},
		{"both", Agent{CPUs: 0.5, JuliaCPUThreads: 1}, host, []string{"AGENT_CPUS= of all agents are 16.5, and the host has 16 processors", "JULIA_CPU_THREADS= of all agents are 17, and the host has 16 processors"}},
		{"a thread", Agent{JuliaCPUThreads: 1}, host, []string{"JULIA_CPU_THREADS= of all agents are 17, and the host has 16 processors"}},
		{"memory", Agent{Memory: g}, host, []string{"AGENT_MEMORY= of all agents are 65 GiB, and the host has 64 GiB"}},
		{"disk", Agent{Cache: g}, host, []string{"AGENT_CACHE= of all agents are 101 GiB, and the disk that has their rooms has 100 GiB"}},
		{"nothing is known", Agent{CPUs: 100, Memory: 100 * g, Cache: 100 * g}, Host{}, nil},
	} {
		require.Equal(t, tt.says, Over(append(full[:2:2], tt.more), tt.host), tt.name)
	}
}

func TestAgree(t *testing.T) {
	const whole, slice, pci = "GPU-1b7ad372-8d21-4239-8e32-63449f713690", "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", "0000:03:00.0"
	good := map[string][][]string{
		"upload": {nil}, "cpu": {nil}, "nvidia": {{whole}, {whole, whole}}, "graphics": {{whole}, {whole, whole}}, "benchmark": {{whole}, {whole, whole}},
		"nvidia-cdi": {{whole}, {slice}}, "mig": {{slice}}, "amd": {{pci}}, "intel": {{pci}},
	}
	require.Len(t, good, len(Kinds))
	for _, kind := range Kinds {
		for _, names := range [][]string{nil, {whole}, {slice}, {pci}, {whole, whole}, {slice, slice}, {pci, pci}, {whole, slice}} {
			err := Agree(kind, names)
			var fits bool
			for _, g := range good[kind] {
				fits = fits || len(g) == len(names) && (len(g) == 0 || g[0] == names[0] && g[len(g)-1] == names[len(g)-1])
			}
			require.Equal(t, fits, err == nil, "%s %v: %v", kind, names, err)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"512m": 512 << 20, "32G": 32 << 30, "1kb": 1 << 10, "1048576g": 1 << 50} {
		is, err := Size(text)
		require.NoError(t, err, text)
		require.Equal(t, want, is, text)
	}
	for _, text := range []string{"", "0g", "32", "1t", "1048577g", "9999999999g", "12345678901k"} {
		_, err := Size(text)
		require.Error(t, err, text)
	}
}

func TestNamed(t *testing.T) {
	for _, name := range []string{"gpuci.3", "img", "slice", "mig.1", "a.imgs", "service.1"} {
		require.NoError(t, Named(name), name)
	}
	for name, says := range map[string]string{
		"a.img": "no agent's name ends in .img: so is called the file of an agent's room", "host.env": "a file of settings", "a.b.conf": "a drop-in",
		"mig.slice": "a unit of systemd's", "a.SERVICE": "ends in .SERVICE", "a.d": "a folder", "a.drain": "a drain",
	} {
		require.ErrorContains(t, Named(name), says)
	}
}

func TestValid(t *testing.T) {
	require.NoError(t, Valid("a", "AGENT_CPUS", "2.5"))
	require.ErrorContains(t, Valid("a", "AGENT_CPUS", "many"), "not a number of processors")
	require.ErrorContains(t, Valid("a", "AGENT_TAGS", "queue=$x"), "write it without quotes")
	require.ErrorContains(t, Valid("a", "AGENT_CPUS", "2\nAGENT_KIND=cpu"), "one line")
}
