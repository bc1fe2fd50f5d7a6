package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"golang.org/x/tools/txtar"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// An announcer says when something is written.
type announcer chan struct{}

func (a announcer) Write(text []byte) (int, error) {
	select {
	case a <- struct{}{}:
	default:
	}
	return len(text), nil
}

// TestNewAtOnce: of two that are made at the same time, and can't be there both, there
// is one. Both have shown what they are about to write.
func TestNewAtOnce(t *testing.T) {
	need.Root(t, "whose folders they are")
	files, err := txtar.ParseFile("testdata/host.txtar")
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		agents [2]string
		args   []string
		says   string
	}{
		"one GPU":             {[2]string{"rocm.1", "rocm.2"}, []string{"--kind", "amd", "--gpu", "0000:03:00.0", "--render-gid", "992"}, "both have the GPU at 0000:03:00.0"},
		"one Compose project": {[2]string{"cpu.1", "cpu1"}, []string{"--kind", "cpu"}, "it calls both cpu1"},
		"one name":            {[2]string{"cpu.1", "cpu.1"}, []string{"--kind", "cpu"}, "/cpu.1 is there"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Chmod(dir, 0o755))
			for _, f := range files.Files {
				path := filepath.Join(dir, f.Name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, f.Data, 0o644))
			}
			etc := filepath.Join(dir, "etc")
			require.NoError(t, os.Mkdir(etc, 0o755))
			h := host{root: os.DirFS(dir).(fs.ReadLinkFS), smi: "/nowhere", now: time.Now, places: places{agents: filepath.Join(etc, "agents")}, disk: func(string) int64 { return 0 }}
			lock, err := os.Open(etc)
			require.NoError(t, err)
			defer lock.Close()
			require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))

			ended := make(chan int, 2)
			var errs [2]bytes.Buffer
			for i, name := range tt.agents {
				out := make(announcer, 1)
				go func() {
					ended <- runOn(h, append([]string{"agent", "new", name, "--yes"}, tt.args...), nil, strings.NewReader(""), out, &errs[i])
				}()
				select {
				case <-out:
				case status := <-ended:
					require.Fail(t, "ended early", "%d: %s", status, errs[i].String())
				}
			}
			require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_UN))
			require.Equal(t, 1, <-ended+<-ended)
			require.Contains(t, errs[0].String()+errs[1].String(), tt.says)
			made, err := os.ReadDir(h.agents)
			require.NoError(t, err)
			require.Len(t, made, 1)
		})
	}
}
