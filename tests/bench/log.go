//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

const logSize = 20e6 // bytes

// masked are the numbers of secrets whose masks slow a log down.
var masked = []int{0, 10, 50}

// logs has a real agent print a log of 20 MB with each number of secrets, and
// returns how fast, in MB/s: the median of three interleaved jobs.
func (w *workplace) logs(ctx context.Context, progress io.Writer) (map[int]float64, error) {
	binary, err := agenttest.Tool(ctx, "buildkite-agent", progress)
	if err != nil {
		return nil, err
	}
	log, took, work := w.in("log"), w.in("took"), w.in("agent")
	if err := os.WriteFile(log, logText(), 0o644); err != nil {
		return nil, err
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		return nil, err
	}
	agent := agenttest.Agent{Binary: binary, Dir: work, Polyglot: true, Timeout: 5 * time.Minute,
		HooksPath: filepath.Join(filepath.Dir(w.x25519.hook), "hooks")}
	speeds := map[int][]float64{}
	for range 3 {
		for _, n := range masked {
			env := map[string]string{}
			for name, value := range values(n) {
				if env[names.Prefix+name], err = seal(w.x25519, envelope.Label{Name: name}, plaintext.New(value)); err != nil {
					return nil, err
				}
			}
			// What the terminal does not take, the agent has not redacted yet.
			command := fmt.Sprintf("start=$(date +%%s%%N); cat %s; end=$(date +%%s%%N); echo $JULIAGPU_SECRETS $((end-start)) >%s", log, took)
			result, err := agent.Run(ctx, agenttest.Job{Env: env, Command: command})
			if err != nil {
				return nil, err
			}
			text, err := os.ReadFile(took)
			if err != nil {
				return nil, fmt.Errorf("%w\n%s", err, result.AgentLog)
			}
			outcome, number, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
			nanoseconds, err := strconv.ParseInt(number, 10, 64)
			if err != nil || (outcome == "granted") != (n > 0) {
				return nil, fmt.Errorf("a job with %d secrets: %q", n, outcome)
			}
			speeds[n] = append(speeds[n], logSize/1e6/(float64(nanoseconds)/1e9))
			os.Remove(took)
		}
	}
	medians := map[int]float64{}
	for n, all := range speeds {
		medians[n] = median(all)
	}
	return medians, nil
}

// logText is what a build's log looks like: lines of words, numbers and paths.
func logText() []byte {
	words := strings.Fields("Precompiling Testing Installed CUDA GPUArrays kernel src/device/intrinsics.jl:42 warning: " +
		"0x7f3a9c00 passed failed [052768ef] 1.0+2.5im time: 0.0031s CuArray{Float32,2} julia> test/base/array.jl Summary: | Pass Total")
	random := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < logSize {
		for range 8 {
			b.WriteString(words[random.IntN(len(words))])
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
