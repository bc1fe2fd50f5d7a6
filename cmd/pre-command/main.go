// Pre-command is the hook that looks, before a job's command runs, whether the
// job can reach its own GPU, no other, and no neighbour: it refuses the command
// where it can't be sure.
//
// It runs as a static binary, as the job's user and after code of the job's
// choice: so nothing that a job can write decides for it, no variable, no program,
// no file of the checkout.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/agentcmd"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/harden"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/isolation"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

func main() {
	debug.SetGCPercent(-1) // it lives for milliseconds
	debug.SetMemoryLimit(32 << 20)
	os.Exit(run(os.Args, os.Environ(), os.Stdout))
}

// run is the whole hook. Its status is 0 when the command may run, 1 when it must
// not, 75 when the machine is at fault and another agent may do better.
func run(args, environ []string, stdout io.Writer) int {
	if err := harden.CleanRuntime(args, environ); err != nil {
		fmt.Fprintln(stdout, "pre-command: error:", escape.Text(err.Error()))
		return gpu.StatusMachine
	}
	asPlugin := len(args) == 2 && args[1] == "plugin"
	if asPlugin && isAgentHook(environ) {
		return gpu.StatusPass // which has said all there is to say, the step's wishes included
	}
	theJob := job.Parse(environ)
	wishes, wishErr := wish.Find(theJob.Plugins), error(nil)
	if asPlugin {
		wishes, wishErr = wish.Parse(theJob.PluginConfig)
	}
	if wishErr != nil {
		fmt.Fprintf(stdout, "+++ :no_entry: GPU isolation\npre-command: error: %s\npre-command: hint: plugin.yml of the plugin lists what it takes\n", escape.Text(wishErr.Error()))
		return gpu.StatusRefused
	}
	config, configErr := settings.Installed(os.Getuid())
	result := isolation.Check(config, configErr, isolation.Ask{
		Environ: environ, Advice: asPlugin,
		Step: gpu.Step{GPU: wishes.GPU, MinVRAMMiB: wishes.MinVRAMMiB, BusyDeny: wishes.BusyDeny},
	})
	report := result.Report
	if configErr == nil && !asPlugin {
		report = report.With(exposed(config)...)
	}
	status := report.Status()
	io.WriteString(stdout, log(report, status, result.Took))
	if configErr == nil && config.Isolation.Report {
		upload(environ, report.JSON(result.Facts, result.Took), stdout)
	}
	if report.Count(gpu.Deny)+report.Count(gpu.Warn) > 0 {
		annotate(environ, report, stdout)
	}
	return status
}

// isAgentHook tells whether the agent itself runs this very program before the
// plugin does. The folder is the agent's word; a job that forges it fools itself.
func isAgentHook(environ []string) bool {
	executable, err := os.Executable()
	if err != nil {
		return false
	}
	own, ownErr := os.Stat(executable)
	hook, hookErr := os.Stat(filepath.Join(job.Lookup(environ, "BUILDKITE_HOOKS_PATH"), "pre-command"))
	return ownErr == nil && hookErr == nil && os.SameFile(own, hook)
}

// log is one group of the job's log: closed when the command may run.
func log(r gpu.Report, status int, took time.Duration) string {
	var b strings.Builder
	measured := fmt.Sprintf("%d checks, %d ms", r.Checks, took.Milliseconds())
	if status == gpu.StatusPass {
		fmt.Fprintf(&b, "~~~ :lock: GPU isolation: %s, %s\n", r.Summary(), measured)
	} else {
		fmt.Fprintf(&b, "+++ :no_entry: GPU isolation: %s\n", r.Summary())
	}
	for _, line := range r.Lines() {
		fmt.Fprintln(&b, line)
	}
	switch status {
	case gpu.StatusRefused:
		fmt.Fprintf(&b, "the command does not run: the agent's operator mends what stands above (exit status %d; %s)\n^^^ +++\n", status, measured)
	case gpu.StatusMachine:
		fmt.Fprintf(&b, "the command does not run: infrastructure, not your change; another agent may do better (exit status %d; %s)\n^^^ +++\n", status, measured)
	}
	return b.String()
}

// annotate puts what is refused or a warning on the build's page, once for each
// agent, whose fault it is. It is an extra: the log has it, too.
func annotate(environ []string, r gpu.Report, stdout io.Writer) {
	style := "warning"
	if r.Count(gpu.Deny) > 0 {
		style = "error"
	}
	name := job.Lookup(environ, "BUILDKITE_AGENT_NAME")
	text := "Agent `" + strings.ReplaceAll(escape.Text(name), "`", "'") + "`: " + r.Annotation()
	if err := agentcmd.Run(environ, strings.NewReader(text), "", "annotate", "--style", style, "--context", "gpu-isolation-"+name); err != nil {
		fmt.Fprintln(stdout, "no annotation: the agent did not take it")
	}
}

// upload keeps the whole report as an artifact of the build.
func upload(environ []string, text []byte, stdout io.Writer) {
	err := func() error {
		dir, err := os.MkdirTemp("", "gpu-isolation-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := os.WriteFile(filepath.Join(dir, "gpu-isolation.json"), text, 0o600); err != nil {
			return err
		}
		return agentcmd.Run(environ, bytes.NewReader(nil), dir, "artifact", "upload", "gpu-isolation.json")
	}()
	if err != nil {
		fmt.Fprintln(stdout, "no artifact gpu-isolation.json: the agent did not take it")
	}
}
