package isolation

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// host is a configuration under which nothing of a container is expected, so
// that the verdict is the same on every machine.
func host() settings.Settings {
	return settings.Settings{Mode: settings.Direct, Reason: "a test", Isolation: settings.Isolation{Expect: settings.Host, Reason: "a test's machine"}}
}

func TestCheck(t *testing.T) {
	lost := host()
	lost.GPU.Policy = &gpu.Policy{Vendor: gpu.VendorNVIDIA, Devices: []gpu.Device{{UUID: "GPU-0", GI: -1, CI: -1, Render: -1}}, Min: 1, Max: 1, Busy: gpu.BusyOff}
	nowhere := host()
	nowhere.GPU.File = "/nonexistent/gpu.yml"
	for _, tt := range []struct {
		name   string
		config settings.Settings
		err    error
		ask    Ask
		first  string
		status int
	}{
		{"a machine of one trust level", host(), nil, Ask{}, "", 0},
		{"its GPU is gone", lost, nil, Ask{}, "gpu.missing", 75},
		{"its GPU is gone, before secrets", lost, nil, Ask{Early: true}, "", 0},
		{"its policy is gone", nowhere, nil, Ask{}, "policy.trust", 1},
		{"its policy is gone, before secrets", nowhere, nil, Ask{Early: true}, "policy.trust", 1},
		{"its policy is gone, as advice", nowhere, nil, Ask{Advice: true}, "", 0},
		{"a step that needs a GPU", host(), nil, Ask{Step: gpu.Step{GPU: true}}, "gpu.missing", 75},
		{"a configuration that can't be read", settings.Settings{}, errors.New("config.yml: no"), Ask{}, "policy.trust", 1},
		{"no configuration, as advice", settings.Settings{}, fmt.Errorf("%w here", settings.ErrNone), Ask{Advice: true}, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Check(tt.config, tt.err, tt.ask).Report
			f, _ := r.First()
			require.Equal(t, tt.first, f.ID, "%v", r.Lines())
			require.Equal(t, tt.status, r.Status())
			reason, hint := Why(r)
			require.Equal(t, tt.first != "", reason != "" && hint != "")
			if tt.first != "" {
				require.Contains(t, reason, tt.first+": "+f.What)
				require.Contains(t, hint, f.Link())
			}
		})
	}
}
