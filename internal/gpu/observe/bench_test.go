package observe

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

// The time of a fixture is the parsers', and that of fstest.MapFS: BenchmarkMachine
// has the kernel's.
func BenchmarkFacts(b *testing.B) {
	for _, name := range []string{"f6", "f1", "f2", "f4"} {
		b.Run(name, func(b *testing.B) {
			h, _, _ := load(b, name, "a")
			for b.Loop() {
				Facts(h, nil, gpu.Want{})
			}
		})
	}
	b.Run("8 GPUs with MIG, 500 processes, 500 mounts", func(b *testing.B) {
		h := crowded(b)
		f := Facts(h, nil, gpu.Want{})
		require.Empty(b, f.Unread)
		require.Len(b, f.NVIDIA.GPUs, 9)
		require.Greater(b, f.Peers.Visible, 500)
		require.Greater(b, len(f.Mounts), 450)
		for b.Loop() {
			Facts(h, nil, gpu.Want{})
		}
	})
}

// crowded is F2 with much more of everything.
func crowded(b *testing.B) Host {
	h, _, _ := load(b, "f2", "a")
	root := h.FS.(fakeRoot)
	file := func(path, text string) { root.MapFS[path] = &fstest.MapFile{Data: []byte(text), Mode: 0o444} }
	for g := 1; g <= 8; g++ {
		file(fmt.Sprintf("proc/driver/nvidia/gpus/0000:%02x:00.0/information", 0x20+g),
			fmt.Sprintf("Model: \t\t NVIDIA A100\nGPU UUID: \t GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f%02d\nDevice Minor: \t %d\n", g, g))
		for i := range 7 {
			dir := fmt.Sprintf("proc/driver/nvidia/capabilities/gpu%d/mig/gi%d", g, i+7)
			file(dir+"/access", fmt.Sprintf("DeviceFileMinor: %d\n", gpu.CapMinor(g, i+7, -1)))
			file(dir+"/ci0/access", fmt.Sprintf("DeviceFileMinor: %d\n", gpu.CapMinor(g, i+7, 0)))
		}
	}
	for pid := 1000; pid < 1500; pid++ {
		root.MapFS[fmt.Sprintf("proc/%d/ns/mnt", pid)] = linkTo("mnt:[4026532668]")
		root.MapFS[fmt.Sprintf("proc/%d/fd/0", pid)] = linkTo("/dev/null")
		file(fmt.Sprintf("proc/%d/stat", pid), fmt.Sprintf("%d (sh) S 12 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 4 0 222317 0 496 0", pid))
	}
	mounts := root.MapFS["proc/"+ownPID+"/mountinfo"]
	text := string(mounts.Data)
	for i := range 500 - strings.Count(text, "\n") {
		text += fmt.Sprintf("%d 1101 254:0 /depot/%d /depot/%d rw,nosuid,nodev,relatime - ext4 /dev/vda rw\n", 2000+i, i, i)
	}
	mounts.Data = []byte(text)
	return h
}

// What this kernel and file system cost.
func BenchmarkMachine(b *testing.B) {
	h, done := Machine(os.Environ())
	defer done()
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			Facts(h, nil, gpu.Want{})
		}
	})
	b.Run("numbers of a host with MIG", func(b *testing.B) {
		if h.NoScratch != nil || !h.Kernel.Number(controls[0]).Made() {
			b.Skip("needs the right to make device nodes")
		}
		mig, _, _ := load(b, "f2", "a")
		mig.Kernel = restricted{h.Kernel}
		o := observer{Host: mig, facts: Facts(mig, nil, gpu.Want{})}
		for b.Loop() {
			o.readings(nil)
		}
		b.ReportMetric(float64(len(o.facts.Readings)), "numbers")
	})
}

// restricted asks the real kernel, and says no as a container's cgroup would.
type restricted struct{ Kernel }

func (r restricted) Number(n devnode.Number) devnode.Access {
	r.Kernel.Number(n)
	return devnode.Access{Read: devnode.Denied, Write: devnode.Denied}
}
