package observe

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
)

// A Host is where Facts looks: this machine, or one that a test made up.
type Host struct {
	FS     fs.ReadLinkFS // the root directory; paths have no slash in front
	Kernel Kernel
	// Scratch is where Kernel makes nodes; NoScratch says why there is no such place.
	Scratch   string
	NoScratch error
	Dial      func(path string) error // connects to a unix socket, and hangs up
	SMI       func(args ...string) ([]byte, error)
	Env       map[string]string // the names of EnvNames alone, so that no secret is in it
	Platform  string            // runtime.GOOS
}

// A Kernel answers who may open a device, for a number or for a node that exists.
// It is asked from several goroutines at once.
type Kernel interface {
	Number(devnode.Number) devnode.Access
	Path(path string) devnode.Access
}

// EnvNames are the variables that Facts looks at. None is evidence of
// isolation: a job sets them as it likes.
var EnvNames = []string{
	"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
	"ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK",
	"LD_PRELOAD", "LD_LIBRARY_PATH",
	"HOME", "BUILDKITE_BUILD_PATH", "BUILDKITE_BUILD_CHECKOUT_PATH", "CUDA_MPS_PIPE_DIRECTORY",
}

// Machine is this machine, as a process with that environment sees it. What it
// made is removed by close.
func Machine(env []string) (h Host, close func()) {
	h = Host{
		FS:       os.DirFS("/").(fs.ReadLinkFS),
		Dial:     dial,
		SMI:      smi.run,
		Env:      pick(env),
		Platform: runtime.GOOS,
	}
	prober, err := devnode.Open()
	if err != nil {
		prober, h.NoScratch = &devnode.Prober{}, err
	}
	h.Kernel, h.Scratch = prober, prober.Dir()
	return h, func() { prober.Close() }
}

// pick leaves nothing of an environment but what EnvNames names. Of a name that
// is there twice the last counts, as in most programs.
func pick(env []string) map[string]string {
	picked := map[string]string{}
	for _, name := range EnvNames {
		for _, entry := range env {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				picked[name] = value
			}
		}
	}
	return picked
}

// answerTime is how long a socket may take: connecting on one machine takes no
// time at all, unless the daemon hangs.
const answerTime = 50 * time.Millisecond

func dial(path string) error {
	conn, err := net.DialTimeout("unix", path, answerTime)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, syscall.EPROTOTYPE), errors.Is(err, syscall.EAGAIN):
		return nil // somebody listens, for packets, or to more than can wait in line
	}
	return err
}
