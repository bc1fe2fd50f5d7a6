package mapping

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

func entries(t testing.TB) map[string]repo.Name {
	all := map[string]repo.Name{}
	for slug, text := range map[string]string{"juliagpu/cuda-jl": "github.com/juliagpu/cuda.jl", "juliagpu/amdgpu-jl": "github.com/juliagpu/amdgpu.jl"} {
		name, err := repo.Parse(text)
		require.NoError(t, err)
		all[slug] = name
	}
	return all
}

const (
	amd  = "juliagpu/amdgpu-jl: github.com/juliagpu/amdgpu.jl"
	cuda = "juliagpu/cuda-jl: github.com/juliagpu/cuda.jl"
	mode = "mode: direct\nreason: a test\nidentities: [{file: /a}]\n"
)

func TestAdd(t *testing.T) {
	for _, tt := range []struct{ about, file, want string }{
		{"nothing", "", "pipelines:\n  " + amd + "\n  " + cuda + "\n"},
		{"no section", "# top\n" + mode, "# top\n" + mode + "pipelines:\n  " + amd + "\n  " + cuda + "\n"},
		{"no line break at the end", strings.TrimSpace(mode), mode + "pipelines:\n  " + amd + "\n  " + cuda + "\n"},
		{"a section in the middle", "mode: direct\npipelines: # ours\n    x/y: github.com/x/y # why\n    # z/z: commented\nreason: a test\nidentities: [{file: /a}]\n",
			"mode: direct\npipelines: # ours\n    x/y: github.com/x/y # why\n    " + amd + "\n    " + cuda + "\n    # z/z: commented\nreason: a test\nidentities: [{file: /a}]\n"},
		{"a section at the end", mode + "pipelines:\n  x/y: github.com/x/y", mode + "pipelines:\n  x/y: github.com/x/y\n  " + amd + "\n  " + cuda + "\n"},
		{"an entry that is there, in quotes", "pipelines:\n  'juliagpu/cuda-jl': \"github.com/juliagpu/cuda.jl\"\n", "pipelines:\n  'juliagpu/cuda-jl': \"github.com/juliagpu/cuda.jl\"\n  " + amd + "\n"},
		{"an entry that says something else", "pipelines:\n  juliagpu/cuda-jl: github.com/mallory/cuda.jl\n", "pipelines:\n  juliagpu/cuda-jl: github.com/mallory/cuda.jl\n  " + amd + "\n"},
		{"all are there", "pipelines:\n  " + cuda + "\n  " + amd + "\n", "pipelines:\n  " + cuda + "\n  " + amd + "\n"},
		{"a section without any", "pipelines: # none yet\nx: y\n", "pipelines: # none yet\n  " + amd + "\n  " + cuda + "\nx: y\n"},
		{"line ends of Windows", "mode: direct\r\npipelines:\r\n  x/y: github.com/x/y\r\n", "mode: direct\r\npipelines:\r\n  x/y: github.com/x/y\r\n  " + amd + "\r\n  " + cuda + "\r\n"},
	} {
		got, added, err := Add([]byte(tt.file), entries(t))
		require.NoError(t, err, tt.about)
		require.Equal(t, tt.want, string(got), tt.about)
		require.Equal(t, string(got) == tt.file, len(added) == 0, tt.about)
		again, added, err := Add(got, entries(t))
		require.NoError(t, err, tt.about)
		require.Empty(t, added, tt.about)
		require.Equal(t, string(got), string(again), tt.about)
	}
	for _, tt := range []struct{ about, file string }{
		{"in braces", "pipelines: {x/y: github.com/x/y}\n"},
		{"all in braces", "{mode: direct}\n"},
		{"an end of the document", "mode: direct\n...\n"},
		{"a list", "pipelines: [a]\n"},
		{"a value of two lines", "pipelines:\n  x/y: github.com/\n    x\n"},
		{"no mapping", "- a\n"},
	} {
		_, _, err := Add([]byte(tt.file), entries(t))
		require.ErrorIs(t, err, ErrLayout, tt.about)
	}
	for _, file := range []string{"a: [", "a: &b c\n", "pipelines:\n  a: b\n  a: c\n", "#" + strings.Repeat("x", strict.MaxFile)} {
		_, _, err := Add([]byte(file), entries(t))
		var e *strict.Error
		require.ErrorAs(t, err, &e, file)
	}
	_, _, err := Add([]byte("#"+strings.Repeat("x", strict.MaxFile-50)+"\na: b\n"), entries(t))
	var e *strict.Error
	require.ErrorAs(t, err, &e, "it would become too large to be read")
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yml")
	added, err := Write(path, entries(t))
	require.NoError(t, err)
	require.Len(t, added, 2)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, Section(entries(t)), string(text))

	require.NoError(t, os.WriteFile(path, []byte(mode), 0o644))
	require.NoError(t, os.Chmod(path, 0o600))
	added, err = Write(path, entries(t))
	require.NoError(t, err)
	require.Len(t, added, 2)
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, mode+Section(entries(t)), string(text))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	added, err = Write(path, entries(t))
	require.NoError(t, err)
	require.Empty(t, added)

	_, err = Write(t.TempDir(), entries(t))
	require.Error(t, err)
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing is left over")
}

// FuzzAdd: an edited file is the file with one run of bytes more, which has the
// entries, or the file is left alone with a reason.
func FuzzAdd(f *testing.F) {
	for _, text := range []string{mode, "pipelines:\n  a/b: c/d\nx: |\n  y\n", "pipelines:\r\n- a\r\n", "? pipelines\n: {a: b}\n", "--- {}\n...\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		edited, added, err := Add(file, entries(t))
		if err != nil {
			require.Nil(t, added)
			return
		}
		same := 0
		for same < len(file) && file[same] == edited[same] {
			same++
		}
		require.True(t, bytes.HasSuffix(edited, file[same:]) || bytes.HasPrefix(edited, file), "%q", edited)
		again, more, err := Add(edited, entries(t))
		require.NoError(t, err)
		require.Empty(t, more)
		require.Equal(t, edited, again)
	})
}
