package fleet

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

const whole = `# an agent
AGENT_NAME=gpuci.3
AGENT_KIND=nvidia
AGENT_TAGS=queue=cuda,cap=sm_80,gpu=a100
AGENT_PRIORITY=-1
AGENT_GPU=GPU-1b7ad372-8d21-4239-8e32-63449f713690,MIG-b62d579f-e90e-5e60-88e2-1b36371298b9

AGENT_BASE=docker.io/nvidia/cuda:13.0.1-devel-ubuntu24.04
AGENT_IMAGE=juliagpu-agent:cuda
AGENT_RENDER_GID=992
AGENT_CPUS=7.5
AGENT_MEMORY=32g
AGENT_SHM=512m
AGENT_CACHE=20G
JULIA_CPU_THREADS=8
JULIA_NUM_THREADS=1
PROXY_OF_OURS=http://proxy:3128
`

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name, ".env"), []byte(text), 0o644))
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "gpuci.3", whole)
	a, err := Read(dir, "gpuci.3")
	require.NoError(t, err)
	require.Equal(t, Agent{
		Name: "gpuci.3", Dir: filepath.Join(dir, "gpuci.3"), Kind: "nvidia", Project: "gpuci3",
		Tags: []string{"queue=cuda", "cap=sm_80", "gpu=a100"}, Priority: -1,
		GPUs: []string{"GPU-1b7ad372-8d21-4239-8e32-63449f713690", "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9"},
		Base: "docker.io/nvidia/cuda:13.0.1-devel-ubuntu24.04", Image: "juliagpu-agent:cuda",
		Render: 992, CPUs: 7.5, Memory: 32 << 30, SHM: 512 << 20, Cache: 20 << 30, JuliaCPUThreads: 8, JuliaThreads: 1,
	}, a)
}

func TestReadWrong(t *testing.T) {
	for _, tt := range []struct{ name, old, new, says string }{
		{"another folder's name", "AGENT_NAME=gpuci.3", "AGENT_NAME=gpuci.4", `gpuci.3/.env:2: AGENT_NAME: not "gpuci.3", the folder's name`},
		{"a kind without a template", "AGENT_KIND=nvidia", "AGENT_KIND=../x", ".env:3: AGENT_KIND: none of upload, cpu"},
		{"no kind", "AGENT_KIND=nvidia\n", "", ".env: AGENT_KIND is missing"},
		{"a tag without a value", "cap=sm_80", "cap", "AGENT_TAGS: not of the form"},
		{"an index", "GPU-1b7ad372-8d21-4239-8e32-63449f713690", "0", "AGENT_GPU: not UUIDs"},
		{"all", "GPU-1b7ad372-8d21-4239-8e32-63449f713690", "all", "AGENT_GPU: not UUIDs"},
		{"a GPU twice", "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", "GPU-1b7ad372-8d21-4239-8e32-63449f713690", "AGENT_GPU: not UUIDs"},
		{"no size", "32g", "32", "AGENT_MEMORY: not a size such as"},
		{"no number", "7.5", "NaN", "AGENT_CPUS: not a number of processors"},
		{"less than one thread", "JULIA_NUM_THREADS=1", "JULIA_NUM_THREADS=0", "JULIA_NUM_THREADS: not a number of threads"},
		{"a misspelt setting", "AGENT_CACHE", "AGENT_CASHE", "AGENT_CASHE: no such setting"},
		{"twice", "AGENT_CPUS=7.5", "AGENT_MEMORY=1g", ".env:12: AGENT_MEMORY stands there twice"},
		{"quotes", "=juliagpu-agent:cuda", `="juliagpu-agent:cuda"`, "AGENT_IMAGE: Compose would read its value differently"},
		{"a variable", "=juliagpu-agent:cuda", "=${IMAGE}", "Compose would read its value differently"},
		{"a comment", "=32g", "=32g # much", "Compose would read its value differently"},
		{"a blank", "=32g", "= 32g", "Compose would read its value differently"},
		{"export", "AGENT_CPUS", "export AGENT_CPUS", ".env:11: not of the form NAME=value"},
		{"no group", "=992", "=render", "AGENT_RENDER_GID: not the number of a group"},
		{"a control character", "=32g", "=32g\x1b[2J", "Compose would read its value differently"},
		{"Windows' line ends", "AGENT_CPUS=7.5\n", "AGENT_CPUS=7.5\r\n", "Compose would read its value differently"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			require.Contains(t, whole, tt.old)
			write(t, dir, "gpuci.3", strings.Replace(whole, tt.old, tt.new, 1))
			_, err := Read(dir, "gpuci.3")
			require.ErrorContains(t, err, tt.says)
			e, ok := errors.AsType[*Error](err)
			require.True(t, ok)
			require.NotEmpty(t, e.Hint())
		})
	}
}

func TestAll(t *testing.T) {
	dir := t.TempDir()
	agent := func(name string) string { return strings.Replace(whole, "gpuci.3", name, 1) }
	write(t, dir, "gpuci.3", whole)
	write(t, dir, "upload", agent("upload"))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "by-hand"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "host.env"), nil, 0o644))
	agents, err := All(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"gpuci.3", "upload"}, []string{agents[0].Name, agents[1].Name})

	write(t, dir, "gpuci3", agent("gpuci3"))
	write(t, dir, "broken", "AGENT_NAME")
	agents, err = All(dir)
	require.ErrorContains(t, err, "broken/.env:1: not of the form")
	require.ErrorContains(t, err, "gpuci3: Compose can't tell it from gpuci.3")
	require.Len(t, agents, 3)
}

// TestExamples: what people copy can be read.
func TestExamples(t *testing.T) {
	shipped := filepath.Join("..", "..", "deploy", "compose")
	dir := t.TempDir() // a checkout may be in anybody's hands
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(shipped, "agents"))))
	agents, err := All(dir)
	require.NoError(t, err)
	kinds := map[string]bool{}
	for _, a := range agents {
		kinds[a.Kind] = true
		text, err := os.ReadFile(filepath.Join(a.Dir, "gpu.yml"))
		require.NoError(t, err)
		intent, err := gpu.ParseIntent(text)
		require.NoError(t, err, a.Name)
		var named []string
		for _, d := range intent.Policy.Devices {
			named = append(named, cmp.Or(d.MIG, d.UUID, d.PCI))
		}
		require.Equal(t, a.GPUs, named, a.Name)
	}
	for _, kind := range Kinds {
		require.True(t, kinds[kind], kind)
		_, err := os.Stat(filepath.Join(shipped, kind+".yml"))
		require.NoError(t, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "host.env"))
	require.NoError(t, err)
	_, err = Parse("host.env", string(text))
	require.NoError(t, err)
}
