package observe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

const someUUID = "GPU-5d5ba0d6-d33d-4b2b-8f05-6b2b9e0c5f10"

func TestParseSMI(t *testing.T) {
	line := someUUID + ", 00000000:01:00.0, 12, 40960, Default, Enabled, Disabled, 0, None, No, Pending\n"
	other := strings.Replace(strings.Replace(line, "5f10", "5f11", 1), ":01:", ":02:", 1)
	got, err := parseSMI(allFields, line+strings.Replace(other, "12, 40960", "[N/A], [Insufficient Permissions]", 1))
	require.NoError(t, err)
	require.Equal(t, []gpu.SMIGPU{
		{UUID: someUUID, PCI: "0000:01:00.0", UsedMiB: 12, TotalMiB: 40960, ComputeMode: "Default", Persistence: "Enabled", MIG: "Disabled", Recovery: "None", RemapFailed: "No", RemapWaits: "Pending"},
		{UUID: someUUID[:len(someUUID)-1] + "1", PCI: "0000:02:00.0", UsedMiB: -1, TotalMiB: -1, ComputeMode: "Default", Persistence: "Enabled", MIG: "Disabled", Recovery: "None", RemapFailed: "No", RemapWaits: "Pending"},
	}, got)

	got, err = parseSMI(baseFields, "No devices were found\n")
	require.NoError(t, err)
	require.Empty(t, got)

	for name, text := range map[string]string{
		"the same GPU twice":     line + line,
		"the same slot twice":    line + strings.Replace(line, "5f10", "5f11", 1),
		"a field less":           strings.Replace(line, ", Pending", "", 1),
		"a field more":           strings.Replace(line, "None", "None, x", 1),
		"no UUID":                strings.Replace(line, someUUID, "[N/A]", 1),
		"a UUID in another form": strings.Replace(line, "GPU-5d", "GPU-5D", 1),
		"no slot":                strings.Replace(line, "00000000:01:00.0", "1", 1),
		"a number that is none":  strings.Replace(line, "40960", "40960 MiB", 1),
		"a negative number":      strings.Replace(line, "40960", "-1", 1),
		"a huge number":          strings.Replace(line, "40960", "99999999999999999999", 1),
		"an empty number":        strings.Replace(line, "40960", "", 1),
		"a control character":    strings.Replace(line, "Default", "\x1b[31mDefault", 1),
		"a letter beyond ASCII":  strings.Replace(line, "Default", "Dеfault", 1),
		"another text":           "Failed to initialize NVML: Unknown Error\n",
	} {
		got, err := parseSMI(allFields, text)
		require.ErrorIs(t, err, errSMI, name)
		require.Nil(t, got, name)
	}
}

func TestParseApps(t *testing.T) {
	n, err := parseApps(someUUID + ", 4711\n" + someUUID + ", 4712\n\n")
	require.NoError(t, err)
	require.Equal(t, 2, n)
	n, err = parseApps("No running processes found\n")
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = parseApps("\x1b]0;x\x07, 1\n")
	require.ErrorIs(t, err, errSMI)
}

func xmlOf(pci, gi, ci, used string) string {
	return `<gpu id="` + pci + `"><mig_devices><mig_device><gpu_instance_id>` + gi + `</gpu_instance_id><compute_instance_id>` + ci +
		`</compute_instance_id><fb_memory_usage><total>4864 MiB</total><used>` + used + `</used></fb_memory_usage></mig_device></mig_devices></gpu>`
}

func TestParseXML(t *testing.T) {
	const slot = "00000000:01:00.0"
	good := xmlOf(slot, "9", "0", "12 MiB")
	got, err := parseXML([]byte("<nvidia_smi_log>" + good + xmlOf("00000000:02:00.0", "9", "0", "N/A") + "<gpu id='00000000:03:00.0'><mig_devices>None</mig_devices></gpu></nvidia_smi_log>"))
	require.NoError(t, err)
	require.Equal(t, []gpu.SMIInstance{{PCI: "0000:01:00.0", GI: 9, CI: 0, UsedMiB: 12, TotalMiB: 4864}, {PCI: "0000:02:00.0", GI: 9, CI: 0, UsedMiB: -1, TotalMiB: 4864}}, got)
	for name, text := range map[string]string{
		"the same GPU twice": good + good,
		"the same slice":     strings.Replace(good, "</mig_devices>", good[strings.Index(good, "<mig_device>"):strings.Index(good, "</mig_devices>")]+"</mig_devices>", 1),
		"no slot":            xmlOf("x", "9", "0", "12 MiB"),
		"no GPU instance":    xmlOf(slot, "N/A", "0", "12 MiB"),
		"no number":          xmlOf(slot, "9", "zero", "12 MiB"),
		"another unit":       xmlOf(slot, "9", "0", "12 GiB"),
		"no end":             "<gpu>",
		"not XML":            "\x00",
		"an unknown entity":  "<gpu>&x;</gpu>",
	} {
		got, err := parseXML([]byte("<nvidia_smi_log>" + text + "</nvidia_smi_log>"))
		require.ErrorIs(t, err, errSMI, name)
		require.Nil(t, got, name)
	}
}

func TestSMI(t *testing.T) {
	ask := func(change string) gpu.Facts {
		return Facts(variant(t, "f2", "a", change), nil, gpu.Want{SMI: true})
	}
	f := ask("")
	require.Empty(t, f.Unread)
	require.True(t, f.SMI.Asked)
	require.Len(t, f.SMI.Instances, 1)

	f = ask("-- @remove --\n@smi-gpu\n-- @smi-more --\n" + someUUID + ", 00000000:01:00.0, 12, 40960, Default, Enabled, Disabled, 3\n")
	require.Empty(t, f.Unread)
	require.Equal(t, 3, f.SMI.GPUs[0].Uncorrected)
	require.Empty(t, f.SMI.GPUs[0].Recovery)
	require.Empty(t, f.SMI.Instances, "MIG is off")

	f = ask("-- @remove --\n@smi-gpu\n-- @smi-base --\n" + someUUID + ", 00000000:01:00.0, 12, 40960\n-- @smi-apps --\n" + someUUID + ", 4711\n")
	require.Empty(t, f.Unread)
	require.Equal(t, gpu.SMIGPU{UUID: someUUID, PCI: "0000:01:00.0", UsedMiB: 12, TotalMiB: 40960, Uncorrected: -1}, f.SMI.GPUs[0])
	require.Equal(t, 1, f.SMI.Processes)

	for name, tt := range map[string][2]string{
		"a lie":              {"-- @smi-gpu --\nnothing\n", errSMI.Error()},
		"no program":         {"-- @remove --\n@smi-gpu\n", errNoSMI.Error()},
		"a preload":          {"-- etc/ld.so.preload --\n/x.so\n", "/etc/ld.so.preload is not empty"},
		"no mount":           {"-- @remove --\nusr/bin/nvidia-smi\n", "/usr/bin/nvidia-smi is not a read-only mount of its own"},
		"a mount to write":   {"-- proc/self/mountinfo+ --\n1900 1101 254:0 /x /usr/bin/nvidia-smi rw - ext4 /dev/vda rw\n", "/usr/bin/nvidia-smi is not a read-only mount of its own"},
		"a larger mount":     {"-- @remove --\nusr/bin/nvidia-smi\n-- proc/self/mountinfo+ --\n1900 1101 254:0 /x /usr ro - ext4 /dev/vda rw\n", "/usr/bin/nvidia-smi is not a read-only mount of its own"},
		"processes in doubt": {"-- @smi-apps --\n?\n", errSMI.Error()},
		"no XML":             {"-- @smi-x --\n<\n", errSMI.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			f := ask(tt[0])
			require.Equal(t, tt[1], f.Unread[gpu.FromSMI])
		})
	}
	require.Equal(t, gpu.SMI{}, Facts(variant(t, "f2", "a", ""), nil, gpu.Want{}).SMI)
}

// The real runner, with programs that do what nvidia-smi must not.
func TestRunner(t *testing.T) {
	if _, err := exec.LookPath("/bin/sh"); err != nil {
		need.Skip(t, "needs /bin/sh")
	}
	dir := t.TempDir()
	program := func(name, text string) runner {
		path := filepath.Join(dir, name)
		// A child of another test that inherits the descriptor makes the file busy.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
		return runner{program: path, most: 1000, limit: time.Minute, patience: 50 * time.Millisecond}
	}
	t.Run("answers", func(t *testing.T) {
		t.Setenv("LD_PRELOAD_OF_A_JOB", "x")
		out, err := program("answers", `echo "$# $2 $LANG $(pwd) ${LD_PRELOAD_OF_A_JOB-unset}"; read line || echo no input; echo lost >&2`).run("-q", "-x")
		require.NoError(t, err)
		require.Equal(t, "2 -x C / unset\nno input\n", string(out))
	})
	t.Run("fails", func(t *testing.T) {
		out, err := program("fails", "echo half; exit 9").run()
		require.ErrorIs(t, err, errStatus)
		require.EqualError(t, err, "exit status 9")
		require.Nil(t, out)
	})
	t.Run("is missing", func(t *testing.T) {
		_, err := runner{program: filepath.Join(dir, "none"), limit: time.Minute}.run()
		require.ErrorIs(t, err, os.ErrNotExist)
	})
	t.Run("floods", func(t *testing.T) {
		out, err := program("floods", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done").run()
		require.ErrorIs(t, err, errLarge)
		require.Nil(t, out)
	})
	t.Run("floods and ends", func(t *testing.T) {
		_, err := program("ends", "i=0; while [ $i -lt 200 ]; do echo xxxxxxxxxx; i=$((i+1)); done").run()
		require.ErrorIs(t, err, errLarge)
	})
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		pids := filepath.Join(dir, "pids")
		r := program("hangs", "trap '' TERM; sleep 1000 & echo $$ $! >"+pids+"; wait")
		r.limit = time.Second // for the program to begin
		out, err := r.run()
		require.ErrorIs(t, err, errSlow)
		require.Nil(t, out)
		text, err := os.ReadFile(pids)
		require.NoError(t, err, "the program has begun")
		for _, pid := range strings.Fields(string(text)) {
			require.Eventually(t, func() bool { return ended(pid) }, 10*time.Second, 5*time.Millisecond, "its children, too")
		}
	})
	t.Run("leaves a child that keeps the pipe", func(t *testing.T) {
		pids := filepath.Join(dir, "left")
		_, err := program("leaves", "sleep 1000 & echo $! >"+pids).run()
		require.ErrorIs(t, err, exec.ErrWaitDelay)
		text, err := os.ReadFile(pids)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return ended(strings.TrimSpace(string(text))) }, 10*time.Second, 5*time.Millisecond)
	})
	t.Run("hangs and can't be killed", func(t *testing.T) {
		t.Parallel()
		// A program that leaves its group stands for one that the kernel does not let go.
		if _, err := exec.LookPath("setsid"); err != nil {
			need.Skip(t, "needs setsid")
		}
		pids := filepath.Join(dir, "kept")
		r := program("kept", "setsid sh -c 'echo $$ >"+pids+"; exec sleep 1000' & wait")
		r.limit = time.Second // for the program to begin
		_, err := r.run()
		require.ErrorIs(t, err, errSlow)
		text, err := os.ReadFile(pids)
		require.NoError(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		require.NoError(t, err)
		p, err := os.FindProcess(pid)
		require.NoError(t, err)
		require.NoError(t, p.Kill())
	})
}

// ended tells whether a process is gone, but perhaps for its parent's asking.
func ended(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ")
}

func FuzzParseSMI(f *testing.F) {
	f.Add(someUUID + ", 00000000:01:00.0, 12, 40960, Default, Enabled, Disabled, 0, None, No, No\n")
	f.Fuzz(func(t *testing.T, text string) {
		gpus, err := parseSMI(allFields, text)
		if err != nil {
			require.Nil(t, gpus)
			return
		}
		number := func(n int) string {
			if n < 0 {
				return "[N/A]"
			}
			return strconv.Itoa(n)
		}
		word := func(s string) string {
			if s == "" {
				return "[N/A]"
			}
			return s
		}
		var b strings.Builder
		for _, g := range gpus {
			fmt.Fprintf(&b, "%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s\n", g.UUID, g.PCI, number(g.UsedMiB), number(g.TotalMiB),
				word(g.ComputeMode), word(g.Persistence), word(g.MIG), number(g.Uncorrected), word(g.Recovery), word(g.RemapFailed), word(g.RemapWaits))
		}
		require.True(t, plain(strings.ReplaceAll(b.String(), "\n", "")))
		again, err := parseSMI(allFields, b.String())
		require.NoError(t, err)
		require.Equal(t, gpus, again)
	})
}

func FuzzParseXML(f *testing.F) {
	f.Add([]byte("<nvidia_smi_log>" + xmlOf("00000000:01:00.0", "9", "0", "12 MiB") + "</nvidia_smi_log>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseXML(text)
		if err != nil {
			require.Nil(t, all)
			return
		}
		seen := map[gpu.SMIInstance]bool{}
		for _, i := range all {
			i.UsedMiB, i.TotalMiB = 0, 0
			require.False(t, seen[i])
			seen[i] = true
			require.True(t, i.GI >= 0 && i.CI >= 0)
		}
	})
}

func FuzzParseApps(f *testing.F) {
	f.Add(someUUID + ", 4711\n")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseApps(text)
		require.True(t, err == nil || n == 0)
		require.LessOrEqual(t, n, strings.Count(text, "\n")+1)
	})
}
