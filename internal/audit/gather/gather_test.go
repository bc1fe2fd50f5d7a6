package gather

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/restapi"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

var now = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

// An organization answers as Buildkite's API does.
type organization struct {
	pipelines []string // JSON
	single    map[string]string
	asked     []string
	fail      func(n int) error
}

func (o *organization) Get(_ context.Context, path string, query url.Values, v any) (next int, err error) {
	o.asked = append(o.asked, path+"?"+query.Encode())
	if o.fail != nil {
		if err := o.fail(len(o.asked)); err != nil {
			return 0, err
		}
	}
	if slug, ok := strings.CutPrefix(path, "organizations/juliagpu/pipelines/"); ok {
		if o.single[slug] == "" {
			return 0, &restapi.Error{Status: 404}
		}
		return 0, json.Unmarshal([]byte(o.single[slug]), v)
	}
	size, _ := strconv.Atoi(query.Get("per_page"))
	page, _ := strconv.Atoi(query.Get("page"))
	to := min(page*size, len(o.pipelines))
	if to < len(o.pipelines) {
		next = page + 1
	}
	return next, json.Unmarshal([]byte("["+strings.Join(o.pipelines[(page-1)*size:to], ",")+"]"), v)
}

// large is an organization of so many pipelines, each with steps of about 20 KiB.
func large(n int) *organization {
	o := &organization{}
	for i := range n {
		var steps strings.Builder
		for s := range 60 {
			fmt.Fprintf(&steps, "- command: make %d\n  env:\n    SECRET_%d: YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+%s\n", s, s, strings.Repeat("A", 300))
		}
		configuration, _ := json.Marshal("steps:\n" + steps.String())
		o.pipelines = append(o.pipelines, fmt.Sprintf(`{"slug":"p-%d","repository":"https://github.com/a/p%d","visibility":"public","provider":{"id":"github"},"configuration":%s}`, i, i, configuration))
	}
	return o
}

func nothing() error { return nil }

// TestRead: 500 pipelines are five requests, and each pipeline is let go of.
func TestRead(t *testing.T) {
	o := large(500)
	var before, after, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := New("https://x", "juliagpu", now)
	told := 0
	require.NoError(t, r.Read(t.Context(), o, func() error {
		told++
		runtime.ReadMemStats(&peak)
		return nil
	}))
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.True(t, r.Done())
	require.Len(t, r.Pipelines, 500)
	require.Equal(t, 5, told)
	require.Equal(t, 5, r.Requests)
	require.Len(t, o.asked, 5)
	require.Equal(t, "organizations/juliagpu/pipelines?page=1&per_page=100", o.asked[0])
	kept := int(after.HeapAlloc) - int(before.HeapAlloc)
	t.Logf("kept %d KiB of %d KiB; the heap was at most %d MiB after a page", kept>>10, 500*len(o.pipelines[0])>>10, peak.HeapAlloc>>20)
	require.Less(t, kept, 20<<20)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.NotContains(t, string(text), "AAAA", "no sealed text is kept")
}

// TestStepless: what the list does not have is asked for, one by one.
func TestStepless(t *testing.T) {
	o := &organization{pipelines: []string{`{"slug":"a","configuration":"steps: []"}`, `{"slug":"b"}`, `{"slug":"c"}`, `{"slug":"d"}`, `{"slug":"a"}`},
		single: map[string]string{"b": `{"slug":"b","configuration":"steps: [{trigger: x}]"}`, "d": `{"slug":"d"}`}}
	r := New("https://x", "juliagpu", now)
	require.NoError(t, r.Read(t.Context(), o, nothing))
	require.Len(t, o.asked, 4)
	require.Equal(t, 4, r.Requests)
	require.Len(t, r.Pipelines, 4, "one of them came twice")
	require.Equal(t, "x", r.Pipelines[1].Steps.Triggers[0].Target)
	require.NotEmpty(t, r.Pipelines[2].Steps.Unread, "gone since")
	require.NotEmpty(t, r.Pipelines[3].Steps.Unread, "not even there")
}

// TestResume: an end at any request loses none of those before it, and makes none twice.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "state.json")
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755))
	o := large(250)
	o.pipelines = append(o.pipelines, `{"slug":"late"}`)
	o.single = map[string]string{"late": `{"slug":"late","configuration":"steps: []"}`}
	full := errors.New("out of reach")
	r := New("https://x", "juliagpu", now)
	for n := 1; ; n++ {
		require.Less(t, n, 10)
		o.fail = func(asked int) error {
			if asked == 2*n { // each time one request goes well
				return full
			}
			return nil
		}
		err := r.Read(t.Context(), o, r.Saver(path))
		if err == nil {
			break
		}
		require.ErrorIs(t, err, full)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
		again, err := Resume(path, "https://x", "juliagpu", now.Add(time.Hour))
		require.NoError(t, err)
		require.Equal(t, r.Pipelines, again.Pipelines)
		r = again
	}
	require.Len(t, r.Pipelines, 251)
	require.Equal(t, 4, r.Requests)

	require.NoError(t, r.Save(path))
	_, err := Resume(path, "https://x", "juliagpu", now)
	require.ErrorIs(t, err, ErrStale, "it is done")
}

// TestResumeNot: what can't be gone on with.
func TestResumeNot(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "state.json")
	_, err := Resume(path, "https://x", "juliagpu", now)
	require.ErrorIs(t, err, fs.ErrNotExist)
	good := New("https://x", "juliagpu", now)
	good.Next = 3
	require.NoError(t, good.Save(path))
	_, err = Resume(path, "https://x", "juliagpu", now)
	require.NoError(t, err)
	for about, resume := range map[string]func() (*Reading, error){
		"old":          func() (*Reading, error) { return Resume(path, "https://x", "juliagpu", now.Add(stale+1)) },
		"of tomorrow":  func() (*Reading, error) { return Resume(path, "https://x", "juliagpu", now.Add(-1)) },
		"elsewhere":    func() (*Reading, error) { return Resume(path, "https://y", "juliagpu", now) },
		"organization": func() (*Reading, error) { return Resume(path, "https://x", "else", now) },
	} {
		_, err := resume()
		require.ErrorIs(t, err, ErrStale, about)
	}
	for _, text := range []string{"", "{", `{"schema":2}`, strings.Replace(mustJSON(t, good), `"next":3`, `"next":-3`, 1),
		strings.Replace(mustJSON(t, good), `"requests"`, `"stepless":["x"],"requests"`, 1)} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := Resume(path, "https://x", "juliagpu", now)
		require.ErrorIs(t, err, ErrStale, text)
	}
	require.NoError(t, good.Save(path))
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = Resume(path, "https://x", "juliagpu", now)
	require.ErrorIs(t, err, rootfile.ErrUntrusted)

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink("elsewhere", path))
	require.Error(t, good.Save(path), "a link is left alone")
	good.Next = 3
	save := good.Saver(path)
	good.Next = 4
	require.Error(t, save())
	require.NoError(t, good.Saver("")())
}

func mustJSON(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// TestNoAnswer: what the API does not document is an error, whatever it is.
func TestNoAnswer(t *testing.T) {
	for _, pipeline := range []string{`7`, `{}`, `null`} {
		r := New("https://x", "juliagpu", now)
		require.ErrorIs(t, r.Read(t.Context(), &organization{pipelines: []string{pipeline}}, nothing), audit.ErrNoPipeline)
	}
}

// write makes files below a folder.
func write(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for file, text := range files {
		file = filepath.Join(folder, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
}

const config = `[core]
	repositoryformatversion = 0
[remote "origin"]
	url = git@github.com:mallory/CUDA.jl.git
	fetch = +refs/heads/*:refs/remotes/origin/*
[remote "upstream"]
	url = "https://user:hunter2@github.com/JuliaGPU/CUDA.jl"
	pushurl = https://github.com/else/where
[remote "usb"]
	url = /media/usb
[branch "main"]
	remote = origin
`

// TestCheckout reads a clone as somebody may have left it.
func TestCheckout(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"secret.yml":                        "steps: [{command: x, env: {SECRET_X: hunter2-canary}}]",
		"c/.git/config":                     config,
		"c/buildkite.yml":                   "steps: [{command: x, env: {SECRET_A: hunter2-canary}}]",
		"c/.buildkite/pipeline.yml":         "steps: [",
		"c/.buildkite/sub/nightly.yaml":     "steps: [{trigger: x}]",
		"c/.buildkite/templates/broken.yml": "{% if %}",
		"c/.buildkite/templates/sealed.yml": "{% if %} SECRET_A",
		"c/.buildkite/elsewhere.yml":        "runtimes: []",
		"c/.buildkite/large.json":           "\"" + strings.Repeat("x", 1<<20) + "\"",
		"c/.buildkite/pipeline.sh":          "steps: []",
		"c/else/.buildkite/pipeline.yml":    "steps: [wait]",
		"w/.git":                            "gitdir: ../c/.git/worktrees/w\n",
		"c/.git/worktrees/w/commondir":      "../..\n",
		"own/er/.git/config":                "",
		"own/er/.buildkite/pipeline.yml":    "steps: [wait]",
		"own/plain/README":                  "",
		"own/deep/er/.git/config":           "",
		"c/vendor/.git/config":              "",
		".git/HEAD":                         "",
	})
	require.NoError(t, os.Symlink("../../secret.yml", filepath.Join(dir, "c/.buildkite/link.yml")))
	require.NoError(t, os.Symlink("pipeline.yml", filepath.Join(dir, "c/.buildkite/inside.yml")))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, "c/.buildkite/zero.yml")))

	c, err := Checkout(filepath.Join(dir, "c"))
	require.NoError(t, err)
	require.Equal(t, "[github.com/juliagpu/cuda.jl github.com/mallory/cuda.jl]", fmt.Sprint(c.Repositories))
	got := map[string]string{}
	for _, text := range c.Texts {
		got[text.File] = fmt.Sprintf("%d steps, %d values, %d triggers, %s", text.Steps, len(text.Values), len(text.Triggers), text.Unread)
	}
	require.Equal(t, map[string]string{
		"buildkite.yml":                   "1 steps, 1 values, 0 triggers, ",
		".buildkite/pipeline.yml":         "0 steps, 0 values, 0 triggers, 1: not YAML from about here on",
		".buildkite/sub/nightly.yaml":     "1 steps, 0 values, 1 triggers, ",
		".buildkite/templates/sealed.yml": "0 steps, 0 values, 0 triggers, 1: not YAML from about here on",
		".buildkite/large.json":           "0 steps, 0 values, 0 triggers, larger than 1 MiB",
		".buildkite/link.yml":             "0 steps, 0 values, 0 triggers, path escapes from parent",
		".buildkite/zero.yml":             "0 steps, 0 values, 0 triggers, path escapes from parent",
	}, got)
	require.NotContains(t, fmt.Sprintf("%+v", c), "hunter2")

	c, err = Checkout(filepath.Join(dir, "w"))
	require.NoError(t, err)
	require.Len(t, c.Repositories, 2, "of a worktree")

	_, err = Checkout(filepath.Join(dir, "own"))
	require.ErrorIs(t, err, ErrNoClone)
	_, err = Checkout(filepath.Join(dir, "nowhere"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	found, err := Clones(dir)
	require.NoError(t, err)
	require.Equal(t, []Clone{{filepath.Join(dir, "c"), nil}, {filepath.Join(dir, "own/er"), nil}, {filepath.Join(dir, "w"), nil}}, found)
	_, err = Clones(filepath.Join(dir, "nowhere"))
	require.Error(t, err)
}

// FuzzRemotes: whatever a clone's configuration holds, its repositories have names.
func FuzzRemotes(f *testing.F) {
	f.Add(config)
	f.Add("[remote \"x]\nurl=https://github.com/a/b")
	f.Fuzz(func(t *testing.T, text string) {
		for remote := range remoteURLs(text) {
			require.NotEmpty(t, remote)
		}
	})
}
