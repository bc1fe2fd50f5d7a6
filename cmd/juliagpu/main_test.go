package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
)

var update = flag.Bool("update", false, "write the golden files anew; read them in the diff")

func TestMain(m *testing.M) {
	if os.Getenv("JULIAGPU_TEST_AS_PROGRAM") != "" {
		main()
	}
	testscript.Main(m, map[string]func(){"juliagpu": main, "on-host": onHost})
}

// onHost is juliagpu on the host whose files are in the folder host of a script:
// proc, sys, etc, run, usr/bin/nvidia-smi and usr/bin/systemd-creds.
func onHost() {
	dir, err := filepath.Abs("host")
	if err != nil {
		panic(err)
	}
	etc := filepath.Join(dir, "etc/juliagpu-secrets")
	h := host{
		root: os.DirFS(dir).(fs.ReadLinkFS), smi: filepath.Join(dir, "usr/bin/nvidia-smi"),
		now: func() time.Time { return time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC) },
		places: places{
			config: filepath.Join(etc, "config.yml"), credentials: filepath.Join(etc, "credentials"), retired: filepath.Join(etc, "retired"),
			starts: filepath.Join(dir, "run/juliagpu-secrets/agents"), units: filepath.Join(dir, "etc/systemd/system"), otherUnits: []string{filepath.Join(dir, "run/systemd/system"), filepath.Join(dir, "usr/lib/systemd/system")},
			agents: filepath.Join(etc, "agents"), failed: filepath.Join(dir, "run/juliagpu-secrets/failures"), removed: filepath.Join(etc, "removed"),
			policies: filepath.Join(dir, "run/juliagpu-secrets/gpu"), rooms: filepath.Join(dir, "var/lib/juliagpu-secrets/agents"),
		},
		creds: filepath.Join(dir, "usr/bin/systemd-creds"), engine: filepath.Join(dir, "usr/bin/docker"),
		systemctl: filepath.Join(dir, "usr/bin/systemctl"), journalctl: filepath.Join(dir, "usr/bin/journalctl"),
		disk: func(string) int64 { return 500 << 30 },
	}
	os.Exit(runOn(h, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// TestScripts runs testdata/script: one operator's story a file. They are true on
// any machine, whatever it has of GPUs.
func TestScripts(t *testing.T) {
	hostFiles, err := txtar.ParseFile("testdata/host.txtar")
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			// The operator's file must be nobody else's to change.
			return os.Chmod(env.WorkDir, 0o755)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// status N COMMAND…: the command ends with that status.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				if got := status(ts.Exec(args[1], args[2:]...)); (got == want) == neg {
					ts.Fatalf("status %d", got)
				}
			},
			// policy ARGUMENT…: prints a policy, or ends with status 1 and a hint.
			"policy": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec("juliagpu", append([]string{"gpu", "policy"}, args...)...)
				switch status(err) {
				case 0:
					_, err = gpu.ParsePolicy([]byte(ts.ReadFile("stdout")))
					ts.Check(err)
				case 1:
					if !strings.Contains(ts.ReadFile("stderr"), "juliagpu: hint: ") {
						ts.Fatalf("no hint")
					}
				default:
					ts.Check(err)
				}
			},
			// host: the folder host becomes that of testdata/host.txtar, but for what the
			// script has put there.
			"host": func(ts *testscript.TestScript, _ bool, _ []string) {
				for _, f := range hostFiles.Files {
					path := ts.MkAbs(filepath.Join("host", f.Name))
					if _, err := os.Stat(path); err == nil {
						continue
					}
					mode := fs.FileMode(0o644)
					if filepath.Base(path) == "nvidia-smi" {
						mode = 0o755
					}
					ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
					// A child of another script that inherits the descriptor makes the file busy.
					syscall.ForkLock.RLock()
					err := os.WriteFile(path, f.Data, mode)
					syscall.ForkLock.RUnlock()
					ts.Check(err)
				}
			},
			// replace FILE OLD NEW: in that file, once.
			"replace": func(ts *testscript.TestScript, _ bool, args []string) {
				text := ts.ReadFile(args[0])
				if strings.Count(text, args[1]) != 1 {
					ts.Fatalf("%s is not there once", args[1])
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o644))
			},
			// resolved FILE WANT: the policy, behind its comments; everyone may read it.
			"resolved": func(ts *testscript.TestScript, neg bool, args []string) {
				text := ts.ReadFile(args[0])
				for strings.HasPrefix(text, "#") {
					_, text, _ = strings.Cut(text, "\n")
				}
				if (text == ts.ReadFile(args[1])) == neg {
					ts.Fatalf("it is:\n%s", text)
				}
				info, err := os.Stat(ts.MkAbs(args[0]))
				ts.Check(err)
				if info.Mode() != 0o644 {
					ts.Fatalf("mode %v", info.Mode())
				}
			},
			// mode MODE FILE…: such are their permissions.
			"mode": func(ts *testscript.TestScript, neg bool, args []string) {
				for _, file := range args[1:] {
					info, err := os.Stat(ts.MkAbs(file))
					ts.Check(err)
					if is := fmt.Sprintf("%04o", info.Mode().Perm()); is != args[0] {
						ts.Fatalf("%s: mode %s", file, is)
					}
				}
			},
			// json FILE: the report that is in it is one that programs can read.
			"json": func(ts *testscript.TestScript, neg bool, args []string) {
				var report struct {
					Schema   int
					Verdict  string
					Findings []any
					Facts    map[string]any
				}
				ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &report))
				if report.Schema != 1 || report.Verdict == "" || report.Findings == nil || report.Facts == nil {
					ts.Fatalf("not a report: %+v", report)
				}
			},
		},
	})
}

// status is what a program ended with.
func status(err error) int {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		return -1
	}
	return 0
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "go test ./cmd/juliagpu -update writes it anew")
}

// reports are the ends that a check can come to.
var reports = map[string]page{
	"pass": {
		head: []string{"configuration: /etc/juliagpu-secrets/config.yml", "policy: /etc/juliagpu-secrets/gpu.yml"},
		report: gpu.Report{Checks: 38, GPUs: "1 of 4 GPUs (GPU-1b7ad372, 81:00.0)", Findings: []gpu.Finding{
			{ID: "container.caps", Severity: gpu.Deny, What: "capability SYS_PTRACE", Waived: "rocgdb tests attach to their children"},
			{ID: "container.nnp", Severity: gpu.Warn, What: "no_new_privs is off: setuid programs give a job what its user has not",
				Why: "one setuid program with a hole makes a job root",
				Fix: []string{"in compose.yml, this agent's service:", "    security_opt: [no-new-privileges:true]"}},
			{ID: "limits", Severity: gpu.Info, What: "no limit on memory, pids, cpu"},
		}},
		took: 6400 * time.Microsecond,
	},
	"refused": {
		head: []string{"no configuration: neither /etc/juliagpu-secrets/config.yml nor the hook /usr/lib/juliagpu-secrets/pre-command is there"},
		report: gpu.Report{Checks: 38, GPUs: "1 of 4 GPUs (GPU-1b7ad372, 81:00.0)", Findings: []gpu.Finding{
			{ID: "gpu.foreign", Severity: gpu.Deny, What: "this container can open GPU 0000:82:00.0 GPU-99999999 of agent gpuci.17 (195:3)",
				Why: "a job here could read and change what others compute there",
				Fix: []string{"in compose.yml, this agent's service: the own GPU by name, never \"all\" and never an index",
					"    environment: {NVIDIA_VISIBLE_DEVICES: \"GPU-1b7ad372-8d21-4239-8e32-63449f713690\"}",
					"then: docker compose up -d --force-recreate"}},
			{ID: "gpu.denied", Severity: gpu.Deny, Machine: true, What: "/dev/nvidia2 (195:2) is there, but the kernel refuses to open it",
				Why: "infrastructure, not your change", Fix: []string{"now: systemctl restart buildkite-agent@AGENT on the host, which makes the container anew"}},
		}},
		took: 7 * time.Millisecond,
	},
	"machine": {
		report: gpu.Report{Checks: 38, Findings: []gpu.Finding{
			{ID: "gpu.denied", Severity: gpu.Deny, Machine: true, What: "/dev/nvidia2 (195:2) is there, but the kernel refuses to open it",
				Why: "infrastructure, not your change", Fix: []string{"now: systemctl restart buildkite-agent@AGENT on the host"}},
		}},
	},
	"elsewhere": {
		head:   []string{"configuration: /etc/juliagpu-secrets/config.yml"},
		report: gpu.Report{Notes: []string{"no container is expected here: a developer's machine", "nothing is measured on darwin"}},
	},
}

// TestReport shows reports on a narrow and on a wide terminal, in colour, and as
// they go into a file.
func TestReport(t *testing.T) {
	for name, p := range reports {
		golden(t, name+"-40.txt", p.text(40, false))
		golden(t, name+"-200.txt", p.text(200, false))
		golden(t, name+"-colour.txt", strings.ReplaceAll(p.text(200, true), "\x1b", "^["))
		for line := range strings.Lines(p.text(40, false)) {
			line = strings.TrimSuffix(line, "\n")
			pasted := strings.HasPrefix(line, "           ") // as it is, whole
			last := line[strings.LastIndex(line, " ")+1:]    // a word can't be broken
			require.True(t, pasted || strings.Contains(last, "/") || utf8.RuneCountInString(line) <= 40, line)
		}
		for line := range strings.Lines(p.text(0, false)) {
			require.NotRegexp(t, `^    [^ ]`, line, "broken where no terminal asks for it")
		}
	}
}

// facts of a host with two GPUs of NVIDIA's, of which the first is open.
func facts() gpu.Facts {
	allowed := devnode.Access{Read: devnode.Allowed, Write: devnode.Allowed}
	return gpu.Facts{
		Platform: "linux", Method: gpu.Probed,
		NVIDIA: gpu.NVIDIA{GPUs: []gpu.NVIDIAGPU{
			{PCI: "0000:81:00.0", UUID: "GPU-1b7ad372-8d21-4239-8e32-63449f713690", Minor: 2},
			{PCI: "0000:82:00.0", UUID: "GPU-99999999-8d21-4239-8e32-63449f713690", Minor: 3},
		}},
		Readings: gpu.Readings{
			{Number: devnode.C(195, 2), Access: allowed},
			{Number: devnode.C(195, 3), Access: devnode.Access{Read: devnode.Denied, Write: devnode.Denied}},
		},
	}
}

// TestPolicy: what is printed is a policy, with what to look at before.
func TestPolicy(t *testing.T) {
	for name, tt := range map[string]struct {
		agent  string
		change func(*gpu.Facts)
	}{
		"policy-one":   {"", func(*gpu.Facts) {}},
		"policy-agent": {"gpuci.3", func(*gpu.Facts) {}},
		"policy-host": {"", func(f *gpu.Facts) {
			all := f.Readings[0].Access
			f.Readings[1].Access = all
			f.Readings = append(gpu.Readings{{Number: devnode.C(1, 1), Access: all}}, f.Readings...)
			f.NVIDIA.GPUs[1].UUID = ""
		}},
		"policy-none":       {"", func(f *gpu.Facts) { f.Readings, f.NVIDIA.GPUs, f.Method = nil, nil, gpu.Listed }},
		"policy-privileged": {"", func(f *gpu.Facts) { f.NVIDIA.GPUs = nil }},
		"policy-amd": {"", func(f *gpu.Facts) {
			f.NVIDIA.GPUs = nil
			f.Readings = gpu.Readings{
				{Number: devnode.C(226, 128), Access: f.Readings[0].Access},
				{Number: devnode.C(226, 129), Access: devnode.Access{Cause: "access: permission denied"}},
			}
			f.DRM = []gpu.DRM{{Name: "renderD128", Number: devnode.C(226, 128), PCI: "0000:03:00.0", Driver: "amdgpu"},
				{Name: "renderD129", Number: devnode.C(226, 129), PCI: "0000:43:00.0", Driver: "amdgpu"}}
			f.Unread = map[gpu.Source]string{gpu.FromKFD: "permission denied"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := facts()
			tt.change(&f)
			text, err := suggestion(f, tt.agent)
			require.NoError(t, err)
			golden(t, name+".yml", text)
			p, err := gpu.ParsePolicy([]byte(text))
			require.NoError(t, err)
			require.Equal(t, gpu.Suggest(f).Devices, p.Devices)
		})
	}
}

// TestSummary shows what resolve says, on a narrow and on a wide terminal.
func TestSummary(t *testing.T) {
	h := gpu.Hardware{Facts: facts()}
	lines := summary("gpuci.3", gpu.Policy{Vendor: gpu.VendorNVIDIA, Devices: []gpu.Device{
		{UUID: "GPU-1b7ad372-8d21-4239-8e32-63449f713690", PCI: "0000:81:00.0", GI: -1, CI: -1},
		{UUID: "GPU-99999999-8d21-4239-8e32-63449f713690", MIG: "MIG-b62d579f-e90e-5e60-88e2-1b36371298b9", PCI: "0000:82:00.0", GI: 9, CI: 0},
	}}, h)
	lines = append(lines, "policy: /run/juliagpu-secrets/gpu/gpuci.3.yml")
	for _, width := range []int{40, 200} {
		golden(t, fmt.Sprintf("summary-%d.txt", width), narrow(lines, width))
	}
	require.Equal(t, strings.Join(lines, "\n")+"\n", narrow(lines, 0))
}

// TestOthers: a slip in an agent's name prints no book.
func TestOthers(t *testing.T) {
	var all []gpu.Intent
	require.Empty(t, others(all))
	for i := range 18 {
		all = append(all, gpu.Intent{Agent: fmt.Sprint("a", i)})
	}
	require.Equal(t, "; there are a0, a1", others(all[:2]))
	require.True(t, strings.HasSuffix(others(all[:16]), ", a14, a15"))
	require.True(t, strings.HasSuffix(others(all), ", a14, a15, and 2 more"))
}

// TestNoPolicy: a guess is worse than none.
func TestNoPolicy(t *testing.T) {
	for want, change := range map[string]func(*gpu.Facts){
		"which devices can be opened can't be measured on darwin":    func(f *gpu.Facts) { f.Platform = "darwin" },
		"the kernel can't be asked which devices can be opened here": func(f *gpu.Facts) { f.Method = gpu.NotAsked },
		"what the drivers say makes no policy: 4:":                   func(f *gpu.Facts) { f.NVIDIA.GPUs[0].PCI = "81:00.0" },
	} {
		f := facts()
		change(&f)
		_, err := suggestion(f, "")
		var r *refusal
		require.ErrorAs(t, err, &r, want)
		assert.Contains(t, err.Error(), want)
		assert.Equal(t, 1, r.status)
		assert.NotEmpty(t, r.hint)
	}
}

// TestFull: a report that nobody could read is no pass.
func TestFull(t *testing.T) {
	var stderr bytes.Buffer
	require.Equal(t, 1, run([]string{"completion", "bash"}, nil, nil, full{}, &stderr))
	require.Equal(t, "juliagpu: error: standard output: no space left\n", stderr.String())
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestDocumentedCommands: the arguments of each command that the documents for
// operators show are ones that it takes.
func TestDocumentedCommands(t *testing.T) {
	shown := 0
	for _, page := range []string{"README.md", "docs/operators.md", "docs/macos.md"} {
		file, err := os.ReadFile(filepath.Join("../..", page))
		require.NoError(t, err)
		for line := range strings.Lines(string(file)) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			for _, prompt := range []string{"# ", "$ ", "$ sudo "} {
				line, ok := strings.CutPrefix(line, prompt+"juliagpu ")
				if !ok {
					continue
				}
				shown++
				root := (&program{}).commands()
				args := strings.Fields(strings.TrimRight(line, `\`))
				if known := func(c *cobra.Command) bool { return c.Name() == args[0] }; args[0] == "secrets" && !slices.ContainsFunc(root.Commands(), known) {
					continue // it comes with the next change
				}
				c, rest, err := root.Find(args)
				require.NoError(t, err, "%s: %s", page, line)
				require.True(t, c.Runnable() && !c.HasSubCommands(), "%s: %s", page, line)
				require.NoError(t, c.ParseFlags(rest), "%s: %s", page, line)
				require.NoError(t, c.ValidateArgs(c.Flags().Args()), "%s: %s", page, line)
			}
		}
	}
	require.Greater(t, shown, 8)
}
