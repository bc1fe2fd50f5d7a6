package observe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

const (
	uuidA, uuidB = "GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10", "GPU-1b7ad372-8d21-4239-8e32-63449f713690"
	migA, migB   = "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", "MIG-0a1b2c3d-1111-5222-8333-444455556666"
	migC         = "MIG-0a1b2c3d-2222-5222-8333-444455556666"
)

// A host with a whole GPU, one that is divided, and one that is divided into nothing.
const (
	hostXML = `<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
	<timestamp>Mon Nov 23 13:00:00 2026</timestamp>
	<driver_version>580.159.03</driver_version>
	<attached_gpus>3</attached_gpus>
	<gpu id="00000000:01:00.0">
		<product_name>NVIDIA A100-PCIE-40GB</product_name>
		<mig_mode>
			<current_mig>Enabled</current_mig>
			<pending_mig>Enabled</pending_mig>
		</mig_mode>
		<mig_devices>
			<mig_device>
				<index>0</index>
				<gpu_instance_id>2</gpu_instance_id>
				<compute_instance_id>0</compute_instance_id>
				<fb_memory_usage><total>19968 MiB</total><used>[N/A]</used></fb_memory_usage>
			</mig_device>
			<mig_device>
				<index>1</index>
				<gpu_instance_id>2</gpu_instance_id>
				<compute_instance_id>1</compute_instance_id>
			</mig_device>
			<mig_device>
				<index>2</index>
				<gpu_instance_id>9</gpu_instance_id>
				<compute_instance_id>0</compute_instance_id>
			</mig_device>
		</mig_devices>
		<uuid>GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10</uuid>
		<minor_number>0</minor_number>
		<processes>
			<process_info>
				<gpu_instance_id>9</gpu_instance_id>
				<compute_instance_id>0</compute_instance_id>
				<pid>4711</pid>
				<type>C</type>
			</process_info>
		</processes>
	</gpu>
	<gpu id="00000000:81:00.0">
		<mig_mode>
			<current_mig>N/A</current_mig>
			<pending_mig>N/A</pending_mig>
		</mig_mode>
		<mig_devices>
			None
		</mig_devices>
		<fb_memory_usage><total>16384 MiB</total></fb_memory_usage>
		<uuid>GPU-1b7ad372-8d21-4239-8e32-63449f713690</uuid>
		<minor_number>2</minor_number>
		<processes>
			<process_info>
				<gpu_instance_id>N/A</gpu_instance_id>
				<pid>1808</pid>
				<type>C+G</type>
				<process_name>/usr/lib/xorg/Xorg</process_name>
			</process_info>
		</processes>
	</gpu>
	<gpu id="00000000:C1:00.0">
		<mig_mode>
			<current_mig>Enabled</current_mig>
			<pending_mig>Disabled</pending_mig>
		</mig_mode>
		<mig_devices>
			None
		</mig_devices>
		<uuid>GPU-99999999-8d21-4239-8e32-63449f713690</uuid>
		<minor_number>N/A</minor_number>
	</gpu>
</nvidia_smi_log>
`
	hostList = `GPU 0: NVIDIA A100-PCIE-40GB (UUID: GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10)
  MIG 1c.3g.20gb  Device  0: (UUID: MIG-b62d579f-e90e-5e60-88e2-1b36371298b9)
  MIG 2c.3g.20gb  Device  1: (UUID: MIG-0a1b2c3d-1111-5222-8333-444455556666)
  MIG 1g.5gb+me   Device  2: (UUID: MIG-0a1b2c3d-2222-5222-8333-444455556666)
GPU 1: Quadro RTX 5000 (rev. a1) (UUID: GPU-1b7ad372-8d21-4239-8e32-63449f713690)
GPU 2: NVIDIA H100 NVL (UUID: GPU-99999999-8d21-4239-8e32-63449f713690)
`
)

func hostListings() []gpu.Listing {
	return []gpu.Listing{
		{PCI: "0000:01:00.0", UUID: uuidA, Minor: 0, MIG: true, Slices: []gpu.Slice{{UUID: migA, GI: 2, CI: 0, MiB: 19968}, {UUID: migB, GI: 2, CI: 1}, {UUID: migC, GI: 9, CI: 0}}},
		{PCI: "0000:81:00.0", UUID: uuidB, Minor: 2, MiB: 16384},
		{PCI: "0000:c1:00.0", UUID: "GPU-99999999-8d21-4239-8e32-63449f713690", Minor: -1, MIG: true},
	}
}

// answers is an nvidia-smi that counts how often it was asked.
type answers struct {
	xml, list string
	err       error
	asked     []string
}

func (a *answers) run(args ...string) ([]byte, error) {
	a.asked = append(a.asked, strings.Join(args, " "))
	if args[0] == "-L" {
		return []byte(a.list), a.err
	}
	return []byte(a.xml), a.err
}

func TestList(t *testing.T) {
	smi := &answers{xml: hostXML, list: hostList}
	got, err := List(smi.run, true)
	require.NoError(t, err)
	require.Equal(t, hostListings(), got)
	require.Equal(t, []string{"-q -x", "-L"}, smi.asked)

	smi = &answers{xml: hostXML}
	got, err = List(smi.run, false)
	require.NoError(t, err)
	want := hostListings()
	for i := range want[0].Slices {
		want[0].Slices[i].UUID = ""
	}
	require.Equal(t, want, got)
	require.Equal(t, []string{"-q -x"}, smi.asked, "nothing that nobody needs")

	for name, tt := range map[string][2]string{
		"no devices":            {"<nvidia_smi_log><attached_gpus>0</attached_gpus></nvidia_smi_log>", "No devices found.\n"},
		"no devices, in words":  {"No devices were found\n", "No devices were found\n"},
		"nothing on -L of them": {"No devices were found\n", ""},
	} {
		got, err := List((&answers{xml: tt[0], list: tt[1]}).run, true)
		require.NoError(t, err, name)
		require.Empty(t, got, name)
	}

	swap := func(of, from, to string) string {
		require.Contains(t, of, from)
		return strings.Replace(of, from, to, 1)
	}
	for name, tt := range map[string]struct {
		xml, list string
		want      error
	}{
		"a slice was made meanwhile":     {hostXML, swap(hostList, "GPU 1:", "  MIG 1g.5gb Device 3: (UUID: MIG-0a1b2c3d-3333-5222-8333-444455556666)\nGPU 1:"), ErrChanged},
		"a slice was removed meanwhile":  {hostXML, swap(hostList, "  MIG 1g.5gb+me   Device  2: (UUID: "+migC+")\n", ""), ErrChanged},
		"another GPU's":                  {hostXML, swap(hostList, "GPU 0: NVIDIA A100-PCIE-40GB (UUID: "+uuidA, "GPU 0: x (UUID: GPU-00000000-d33d-4b2b-8f05-6b2b9e0c5f10"), ErrChanged},
		"before 470":                     {hostXML, swap(hostList, migA, "MIG-"+uuidA+"/2/0"), ErrOldNames},
		"a slice of no GPU":              {hostXML, "  MIG 1g.5gb Device 0: (UUID: " + migA + ")\n", errSMI},
		"the same slice twice":           {hostXML, swap(hostList, migB, migA), errSMI},
		"the same number twice":          {hostXML, swap(hostList, "Device  1", "Device  0"), errSMI},
		"the same GPU twice, listed":     {hostXML, swap(hostList, uuidB, uuidA), errSMI},
		"no UUID of a GPU, listed":       {hostXML, swap(hostList, uuidB, "[N/A]"), errSMI},
		"no UUID of a slice":             {hostXML, swap(hostList, migB, "[N/A]"), errSMI},
		"a UUID of a slice in capitals":  {hostXML, swap(hostList, migB, strings.ToUpper(migB)), errSMI},
		"a GPU that it could not ask":    {hostXML, hostList + "Unable to determine the device handle for GPU0000:C1:00.0: Unknown Error\n", errSMI},
		"an escape sequence":             {hostXML, swap(hostList, "Quadro", "\x1b[31mQuadro"), errSMI},
		"an escape sequence, of a slice": {hostXML, swap(hostList, "1g.5gb+me", "\x1b[31m1g.5gb+me"), errSMI},
		"garbage, listed":                {hostXML, "hello\n", errSMI},
		"garbage":                        {"hello", "", errSMI},
		"nothing":                        {"", "", errSMI},
		"another document":               {"<html></html>", "", errSMI},
		"half a document":                {hostXML[:len(hostXML)/2], hostList, errSMI},
		"no address":                     {swap(hostXML, `id="00000000:81:00.0"`, ""), hostList, errSMI},
		"the same address twice":         {swap(hostXML, "00000000:81:00.0", "00000000:01:00.0"), hostList, errSMI},
		"the same GPU twice":             {swap(hostXML, uuidB, uuidA), hostList, errSMI},
		"no UUID":                        {swap(hostXML, uuidB, "N/A"), hostList, errSMI},
		"a minor that no GPU has":        {swap(hostXML, "<minor_number>2<", "<minor_number>248<"), hostList, errSMI},
		"a minor that is no number":      {swap(hostXML, "<minor_number>2<", "<minor_number>two<"), hostList, errSMI},
		"a GPU instance beyond all":      {swap(hostXML, "<gpu_instance_id>9<", "<gpu_instance_id>15<"), hostList, errSMI},
		"a compute instance beyond all":  {swap(hostXML, "<compute_instance_id>1<", "<compute_instance_id>8<"), hostList, errSMI},
		"an instance that is not stated": {swap(hostXML, "<gpu_instance_id>2<", "<gpu_instance_id>N/A<"), hostList, errSMI},
		"the same instances twice":       {swap(hostXML, "<compute_instance_id>1<", "<compute_instance_id>0<"), hostList, errSMI},
		"the same index twice":           {swap(hostXML, "<index>1<", "<index>0<"), hostList, errSMI},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := List((&answers{xml: tt.xml, list: tt.list}).run, true)
			require.ErrorIs(t, err, tt.want)
			require.Nil(t, got)
		})
	}
	_, err = List((&answers{err: errSlow}).run, true)
	require.ErrorIs(t, err, errSlow)
}

// TestHostSMI: what programs say when they fail, of which a person is told.
func TestHostSMI(t *testing.T) {
	if _, err := exec.LookPath("/bin/sh"); err != nil {
		need.Skip(t, "needs /bin/sh")
	}
	dir := t.TempDir()
	ask := func(name, text string) error {
		path := filepath.Join(dir, name)
		syscall.ForkLock.RLock() // as in TestRunner
		err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755)
		syscall.ForkLock.RUnlock()
		require.NoError(t, err)
		_, err = List(HostSMI(path), true)
		return err
	}
	for name, tt := range map[string]struct {
		text string
		want StatusError
	}{
		"mismatch": {"echo 'Failed to initialize NVML: Driver/library version mismatch'; echo 'NVML library version: 580.95'; exit 18",
			StatusError{18, "Failed to initialize NVML: Driver/library version mismatch; NVML library version: 580.95"}},
		"none":   {"echo No devices were found; exit 6", StatusError{6, "No devices were found"}},
		"stderr": {"echo '<?xml version=\"1.0\" ?>'; echo '  Unable to determine the device handle' >&2; exit 255", StatusError{255, "Unable to determine the device handle"}},
		"silent": {"exit 9", StatusError{9, ""}},
		"flood":  {"i=0; while [ $i -lt 500 ]; do echo xxxxxxxxxx >&2; i=$((i+1)); done; exit 4", StatusError{4, strings.TrimSuffix(strings.Repeat("xxxxxxxxxx; ", 32), "; ")}},
	} {
		err := ask(name, tt.text)
		var got *StatusError
		require.ErrorAs(t, err, &got, name)
		require.Equal(t, tt.want, *got, name)
	}
	require.ErrorIs(t, ask("huge", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"), errLarge)
	_, err := List(HostSMI(filepath.Join(dir, "missing")), true)
	require.ErrorIs(t, err, os.ErrNotExist)

	r := runner{program: filepath.Join(dir, "hangs"), most: 1 << 20, limit: 50 * time.Millisecond, patience: 50 * time.Millisecond}
	require.NoError(t, os.WriteFile(r.program, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755))
	_, err = List(r.run, true)
	require.True(t, errors.Is(err, errSlow) || errors.Is(err, syscall.ETXTBSY), err)
}

// TestDevices: a host's drivers, without a question to the kernel.
func TestDevices(t *testing.T) {
	for _, name := range []string{"f1-cdi", "f2", "f4", "f5"} {
		h, _, _ := load(t, name, "a")
		whole, got := Facts(h, nil, gpu.Want{}), Devices(h.FS)
		require.Equal(t, gpu.Facts{Platform: "linux", RDMA: -1, Unread: map[gpu.Source]string{},
			BootID: whole.BootID, Majors: whole.Majors, NVIDIA: whole.NVIDIA, DRM: whole.DRM, KFD: whole.KFD}, got)
	}
	f := Devices(fakeRoot{fstest.MapFS{}, nil})
	require.Empty(t, f.NVIDIA.GPUs)
	require.Contains(t, f.Unread, gpu.FromBootID)
	require.Contains(t, f.Unread, gpu.FromDevices)
}

// Laws: what was read can be written again, and means the same.

func FuzzParseGPUs(f *testing.F) {
	f.Add([]byte(hostXML))
	f.Add([]byte("No devices were found\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		gpus, err := parseGPUs(text)
		if err != nil {
			require.Nil(t, gpus)
			return
		}
		again, err := parseGPUs([]byte(xmlOfAll(gpus)))
		require.NoError(t, err)
		require.Equal(t, gpus, again)
	})
}

func xmlOfAll(gpus []listed) string {
	var b strings.Builder
	b.WriteString("<nvidia_smi_log>")
	for _, g := range gpus {
		mode, minor := "Disabled", "N/A"
		if g.MIG {
			mode = "Enabled"
		}
		if g.Minor >= 0 {
			minor = fmt.Sprint(g.Minor)
		}
		fmt.Fprintf(&b, "<gpu id='%s'><uuid>%s</uuid><minor_number>%s</minor_number><mig_mode><current_mig>%s</current_mig></mig_mode><fb_memory_usage><total>%d MiB</total></fb_memory_usage><mig_devices>", g.PCI, g.UUID, minor, mode, g.MiB)
		for i, s := range g.Slices {
			fmt.Fprintf(&b, "<mig_device><index>%d</index><gpu_instance_id>%d</gpu_instance_id><compute_instance_id>%d</compute_instance_id><fb_memory_usage><total>%d MiB</total></fb_memory_usage></mig_device>", g.numbers[i], s.GI, s.CI, s.MiB)
		}
		b.WriteString("</mig_devices></gpu>")
	}
	b.WriteString("</nvidia_smi_log>")
	return b.String()
}

func FuzzParseUUIDs(f *testing.F) {
	f.Add(hostList)
	f.Add("No devices found.\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseUUIDs(text)
		if err != nil {
			require.Nil(t, all)
			return
		}
		var b strings.Builder
		for at, uuid := range all {
			require.Contains(t, text, uuid)
			require.Contains(t, text, at.gpu)
			b.Reset()
			fmt.Fprintf(&b, "GPU 0: x (UUID: %s)\n  MIG x Device %d: (UUID: %s)\n", at.gpu, at.number, uuid)
			one, err := parseUUIDs(b.String())
			require.NoError(t, err)
			require.Equal(t, map[place]string{at: uuid}, one)
		}
	})
}
