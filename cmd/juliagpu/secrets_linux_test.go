package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

const olderKeys = olderTestdata

// A holding is a secret, and where it stands.
type holding struct {
	file, variable string
	value          string
	label          envelope.Label
	text           string // as it was sealed at first
}

// A site is 30 pipeline files of six checkouts, with 200 secrets of three forms.
type site struct {
	*testing.T
	folder   string
	secrets  []holding
	files    []string
	from, to age.Identity
	keys     []string // of both, and the RSA key
}

func (s *site) path(file string) string { return filepath.Join(s.folder, file) }

func (s *site) read(file string) string {
	s.Helper()
	text, err := os.ReadFile(s.path(file))
	require.NoError(s, err)
	return string(text)
}

// older seals values as the older tool did, with the real openssl.
func older(form string, values []string) ([]string, error) {
	const script = `
cd "$1"
for i in $(seq 0 $3); do
	if [ $2 = bare ]; then
		openssl pkeyutl -encrypt -pubin -inkey "$4" -in $i | base64 -w0
	else
		openssl rand -base64 128 >k
		openssl pkeyutl -encrypt -pubin -inkey "$4" -in k | base64 -w0
		printf ';'
		openssl enc -aes-256-cbc -pbkdf2 -iter 100000 -md sha256 -salt -pass file:k -base64 -A -in $i
	fi
	echo
done`
	dir, err := os.MkdirTemp("", "older")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for i, value := range values {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(value+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	public, err := filepath.Abs(filepath.Join(olderKeys, "public.pem"))
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("sh", "-ec", script, "sh", dir, form, fmt.Sprint(len(values)-1), public).Output()
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err
}

const secretCount = 200

func valueOf(n int) string { return fmt.Sprintf("hunter2-%d-%s", n, strings.Repeat("x", n)) }

// formOf is today's, RSA alone, or RSA and AES.
func formOf(n int) int { return (n + n/6) % 3 }

// sealedOnce are the values of the older forms, by their number: openssl takes a while.
var sealedOnce = sync.OnceValues(func() (map[int]string, error) {
	all := map[int]string{}
	for form, name := range map[int]string{1: "bare", 2: "hybrid"} {
		var numbers []int
		var values []string
		for n := range secretCount {
			if formOf(n) == form {
				numbers, values = append(numbers, n), append(values, valueOf(n))
			}
		}
		texts, err := older(name, values)
		if err != nil {
			return nil, err
		}
		for i, n := range numbers {
			all[n] = texts[i]
		}
	}
	return all, nil
})

func newSite(t *testing.T) *site {
	if _, err := exec.LookPath("openssl"); err != nil {
		need.Skip(t, "needs openssl")
	}
	require.NoError(t, os.Chmod(filepath.Dir(t.TempDir()), 0o755))
	s := &site{T: t, folder: filepath.Join(t.TempDir(), "src")}
	var recipients [2]string
	for i, file := range []string{"from", "to"} {
		identity, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		recipients[i] = identity.Recipient().String()
		s.keys = append(s.keys, identity.String())
		require.NoError(t, os.MkdirAll(s.folder, 0o755))
		s.write("../"+file, identity.String()+"\n", 0o600)
		s.write("../"+file+".pub", recipients[i]+" # The Lab\n", 0o644)
		if i == 0 {
			s.from = identity
		} else {
			s.to = identity
		}
	}
	key, err := os.ReadFile(filepath.Join(olderKeys, "pkcs1.pem"))
	require.NoError(t, err)
	s.write("../rsa", string(key), 0o600)
	s.keys = append(s.keys, strings.Split(string(key), "\n")[1])
	recipient, err := envelope.ParseRecipient(recipients[0])
	require.NoError(t, err)

	olderTexts, err := sealedOnce()
	require.NoError(t, err)
	files := map[string]string{}
	for n := range secretCount {
		repository, err := repo.Parse(fmt.Sprintf("github.com/juliagpu/p%d.jl", n%6))
		require.NoError(t, err)
		h := holding{
			file:     fmt.Sprintf("P%d.jl/.buildkite/%s", n%6, []string{"pipeline.yml", "nightly.yml", "docs/docs.yml", "a.yaml", "b.json"}[n/6%5]),
			variable: fmt.Sprintf("SECRET_V%d", n),
			value:    valueOf(n),
			label:    envelope.Label{Name: fmt.Sprintf("V%d", n), Repos: []repo.Name{repository}},
			text:     olderTexts[n],
		}
		if h.text == "" {
			h.label.NoPullRequest = true
			if n%2 == 0 {
				h.label.Expires, h.label.Type = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), envelope.TypeFile
			}
			h.text, err = envelope.Seal(h.label, plaintext.New(h.value), recipient)
			require.NoError(t, err)
		}
		s.secrets = append(s.secrets, h)
		if files[h.file] == "" {
			s.files = append(s.files, h.file)
		}
		layout := []string{
			"  # of %[1]s, ü\n\n  %[1]s: \"%[2]s\"   # c\n",
			"  %[1]s: %[2]s\n  A%[1]s: b # \t\n",
			"  \"%[1]s\"  :  '%[2]s'\t\n",
			"  %[1]s: &%[1]s |-\n     %[2]s\n",
			"  %[1]s:\n      !!str %[2]s # d\n",
		}[n/2%5]
		if strings.HasSuffix(h.file, ".json") {
			layout = "\"%[1]s\":   \"%[2]s\",\n"
		}
		files[h.file] += fmt.Sprintf(layout, h.variable, h.text)
	}
	require.Len(t, s.files, 30)
	for i, file := range s.files {
		text := "# a pipeline\nsteps:\n- command: |\n    make   \n\nenv:\n" + files[file]
		if i%3 == 1 {
			text = "steps:\n- command: x\n  env: # of a step\n  " + strings.ReplaceAll(strings.TrimSuffix(files[file], "\n"), "\n", "\n  ") + "\n"
		}
		if strings.HasSuffix(file, ".json") {
			text = "{\"steps\": [],\n\"env\": {\n" + strings.TrimSuffix(files[file], ",\n") + "}}"
		}
		switch i % 4 {
		case 1:
			text = strings.ReplaceAll(text, "\n", "\r\n")
		case 2:
			text = strings.TrimRight(text, "\n")
		}
		s.write(file, text, 0o640)
	}
	for n := range 6 {
		s.write(fmt.Sprintf("P%d.jl/.git/config", n), fmt.Sprintf("[remote \"origin\"]\n\turl = git@github.com:JuliaGPU/P%d.jl.git\n", n), 0o644)
	}
	return s
}

func (s *site) write(file, text string, mode fs.FileMode) {
	s.Helper()
	require.NoError(s, os.MkdirAll(filepath.Dir(s.path(file)), 0o755))
	require.NoError(s, os.WriteFile(s.path(file), []byte(text), mode))
}

// command is the real program, in the site's folder.
func (s *site) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(s, err)
	cmd := exec.CommandContext(s.Context(), self, append([]string{"secrets"}, args...)...)
	cmd.Env = append(os.Environ(), "JULIAGPU_TEST_AS_PROGRAM=1")
	cmd.Dir = filepath.Dir(s.folder)
	return cmd
}

// run runs it, and requires that it says nothing that it should not.
func (s *site) run(want int, args ...string) (stdout, stderr string) {
	s.Helper()
	cmd := s.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	got := status(cmd.Run())
	require.Equal(s, want, got, "%s%s", &out, &errs)
	for _, key := range append([]string{"hunter2", "AGE-SECRET"}, s.keys...) {
		require.NotContains(s, out.String()+errs.String(), key)
	}
	return out.String(), errs.String()
}

// texts are all of a file's sealed values.
func (s *site) texts(file string) map[string]string {
	s.Helper()
	found, err := pipeline.Find([]byte(s.read(file)))
	require.NoError(s, err)
	texts := map[string]string{}
	for _, f := range found {
		texts[f.Name] = f.Text
	}
	return texts
}

// holds requires that every secret opens with an identity and no other, as what it is.
func (s *site) holds(with, without age.Identity) {
	s.Helper()
	for _, h := range s.secrets {
		text := s.texts(h.file)[h.variable]
		opened, err := envelope.Open(text, with)
		require.NoError(s, err, "%s of %s", h.variable, h.file)
		require.Equal(s, h.value, opened.Value.Reveal(), h.variable)
		to := opened.Label.To
		opened.Label.To = h.label.To
		require.Equal(s, h.label, opened.Label)
		require.Len(s, to, 1)
		_, err = envelope.Open(text, without)
		require.ErrorIs(s, err, envelope.ErrForeign)
	}
}

// all are the site's files, as they are.
func (s *site) all() map[string]string {
	s.Helper()
	all := map[string]string{}
	for _, file := range s.files {
		all[file] = s.read(file)
	}
	return all
}

// changed requires that two states differ in the texts of these secrets alone.
func (s *site) changed(before, after map[string]string, which func(holding) bool, now func(holding) string) {
	s.Helper()
	lines := 0
	for file, text := range before {
		want := text
		for _, h := range s.secrets {
			if h.file != file || !which(h) {
				continue
			}
			require.Equal(s, 1, strings.Count(want, now(h)), h.variable)
			want = strings.Replace(want, now(h), s.texts(file)[h.variable], 1)
			lines++
		}
		require.Equal(s, want, after[file], file)
		old, new := strings.SplitAfter(text, "\n"), strings.SplitAfter(after[file], "\n")
		require.Len(s, new, len(old))
		for i := range old {
			if old[i] != new[i] {
				lines--
			}
		}
		info, err := os.Stat(s.path(file))
		require.NoError(s, err)
		require.Equal(s, fs.FileMode(0o640), info.Mode())
	}
	require.Zero(s, lines, "a line for each value, and no other")
}

// TestMoveOver migrates 200 secrets of three forms in 30 files, then rotates them.
func TestMoveOver(t *testing.T) {
	s := newSite(t)
	isOlder := func(h holding) bool { return envelope.FormOf(h.text) != envelope.FormAge }
	atFirst := func(h holding) string { return h.text }
	first := s.all()
	const olderCount, sealedCount = 133, 67

	out, _ := s.run(0, "migrate", "--key", "rsa", "-R", "from.pub", "--dry-run", "src")
	require.Contains(t, out, fmt.Sprintf("\n%d values to be sealed again; nothing was written\n", olderCount))
	require.Equal(t, first, s.all())
	out, _ = s.run(0, "rotate", "--identity", "from", "-R", "to.pub", "--dry-run", "src")
	require.Contains(t, out, fmt.Sprintf("\n%d values to be sealed again, %d in an older form; nothing was written\n", sealedCount, olderCount))

	out, _ = s.run(0, "migrate", "--key", "rsa", "-R", "from.pub", "src")
	require.Contains(t, out, "\nopens in github.com/juliagpu/p3.jl (remote origin of src/P3.jl)\n")
	require.Contains(t, out, "\nsrc/P0.jl/.buildkite/")
	require.Contains(t, out, ": SECRET_V1: sealed again\n")
	require.NotContains(t, out, ": SECRET_V0: ", "sealed today")
	require.Contains(t, out, fmt.Sprintf("\n%d values sealed again; 30 files written\n", olderCount))
	migrated := s.all()
	s.changed(first, migrated, isOlder, atFirst)
	s.holds(s.from, s.to)
	out, _ = s.run(0, "migrate", "--key", "rsa", "-R", "from.pub", "src")
	require.Contains(t, out, "there is nothing to seal again\n")

	texts := map[string]string{}
	for _, h := range s.secrets {
		texts[h.variable] = s.texts(h.file)[h.variable]
	}
	out, _ = s.run(0, "rotate", "--identity", "from", "-R", "to.pub", "src")
	require.Contains(t, out, "\n200 values sealed again; 30 files written\n")
	rotated := s.all()
	s.changed(migrated, rotated, func(holding) bool { return true }, func(h holding) string { return texts[h.variable] })
	s.holds(s.to, s.from)

	for _, identities := range [][]string{{"-i", "from"}, {"-i", "from", "-i", "to"}, {"-i", "to"}} {
		out, _ = s.run(0, append([]string{"rotate", "-R", "to.pub", "--json", "src"}, identities...)...)
		var report struct {
			Schema int
			Counts map[string]int
			Files  []any
		}
		require.NoError(t, json.Unmarshal([]byte(out), &report))
		require.Equal(t, 1, report.Schema)
		require.Equal(t, 200, report.Counts["already"])
		require.Equal(t, 0, report.Counts["written"])
		require.Len(t, report.Files, 30)
	}
	require.Equal(t, rotated, s.all(), "what is done stays as it is")

	// The wrong identity opens nothing, and takes nothing away.
	s.run(1, "rotate", "--identity", "from", "-R", "from.pub", "src")
	require.Equal(t, rotated, s.all())
	entries := 0
	require.NoError(t, filepath.WalkDir(s.folder, func(path string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			entries++
		}
		return err
	}))
	require.Equal(t, 30+6, entries, "nothing was left beside them")
}

// temporary is what a killed run may leave, of sealed texts.
var temporary = regexp.MustCompile(`^\.[a-z]+\.(yml|yaml|json)\.\d+$`)

// TestKilled: whenever the program is killed, each file is as it was or as it is to be,
// and the same command finishes it.
func TestKilled(t *testing.T) {
	s := newSite(t)
	atFirst := s.all()
	migrate := []string{"migrate", "--key", "rsa", "-R", "from.pub", "src"}
	s.run(0, migrate...)
	migrated := s.all()
	s.killed(8, atFirst, migrate, s.from, s.to)
	s.killed(30, migrated, []string{"rotate", "--identity", "from", "-R", "to.pub", "src"}, s.to, s.from)
}

// killed kills a command at so many moments of its run, each time from the same files
// on, after which all of it opens with the one identity and not with the other.
func (s *site) killed(moments int, before map[string]string, args []string, with, without age.Identity) {
	s.Helper()
	again := func() {
		for file, text := range before {
			s.write(file, text, 0o640)
		}
	}
	again()
	began := time.Now()
	s.run(0, args...)
	whole := time.Since(began)
	partly, left := 0, 0
	for n := range moments {
		again()
		cmd := s.command(args...)
		require.NoError(s, cmd.Start())
		time.Sleep(whole / 4 * time.Duration(n*5) / time.Duration(moments)) // a moment, which is what is tested
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		done := 0
		for _, file := range s.files {
			if s.read(file) == before[file] {
				continue
			}
			done++
			for _, text := range s.texts(file) {
				_, err := envelope.Open(text, with)
				require.NoError(s, err, "all of a file or nothing")
			}
		}
		if 0 < done && done < len(s.files) {
			partly++
		}
		require.NoError(s, filepath.WalkDir(s.folder, func(path string, e fs.DirEntry, err error) error {
			if err == nil && temporary.MatchString(e.Name()) {
				left++
				text, err := os.ReadFile(path)
				require.NoError(s, err)
				require.NotContains(s, string(text), "hunter2")
				return os.Remove(path)
			}
			return err
		}))
		s.run(0, args...)
		s.holds(with, without)
	}
	s.Logf("%s: killed %d times within %s: %d times between two files, %d hidden files left", args[0], moments, whole, partly, left)
}

// TestStopped: an interrupt ends the run between two files, and the same command goes on.
func TestStopped(t *testing.T) {
	s := newSite(t)
	before := s.all()
	cmd := s.command("migrate", "--key", "rsa", "-R", "from.pub", "src")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	require.NoError(t, cmd.Start())
	// The first file is done, and the others take seconds.
	require.Eventually(t, func() bool { return !maps.Equal(before, s.all()) }, time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 75, status(cmd.Wait()), errs.String())
	require.Regexp(t, `^juliagpu: error: stopped: \d+ of 30 files were not looked at\njuliagpu: hint: the same command goes on\n$`, errs.String())
	s.run(0, "migrate", "--key", "rsa", "-R", "from.pub", "src")
	s.holds(s.from, s.to)
}

// TestHardened: the process is closed to its neighbours before a key is read.
func TestHardened(t *testing.T) {
	dumpable := func() int {
		got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		require.NoError(t, err)
		return got
	}
	before := dumpable()
	t.Cleanup(func() { unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0) })
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	for _, command := range [][]string{{"rotate", "--identity"}, {"migrate", "--key"}} {
		require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
		var errs bytes.Buffer
		args := append([]string{"secrets"}, append(command, "no such key", "-r", identity.Recipient().String())...)
		require.Equal(t, 2, run(args, nil, nil, io.Discard, &errs))
		require.Contains(t, errs.String(), "no such key")
		require.Zero(t, dumpable(), "that far it came")
	}
}

// TestReadOnly: what a user may not write stays, and the rest is done.
func TestReadOnly(t *testing.T) {
	need.Root(t, "to be another user")
	s := newSite(t)
	s.run(0, "migrate", "--key", "rsa", "-R", "from.pub", "src")
	self, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	s.write("../program", string(program), 0o755)
	const user = 4711
	for _, file := range []string{"../from", "../to"} {
		require.NoError(t, os.Chown(s.path(file), user, user))
	}
	require.NoError(t, filepath.WalkDir(s.folder, func(path string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		return os.Chown(path, user, user)
	}))
	closed := s.files[0]
	require.NoError(t, os.Chmod(s.path(closed), 0o440))
	folder := filepath.Join("P5.jl", ".buildkite", "docs")
	require.NoError(t, os.Chmod(s.path(folder), 0o555))
	before := s.read(closed)
	for _, args := range [][]string{{"--dry-run"}, nil} {
		cmd := s.command(append([]string{"rotate", "--identity", "from", "-R", "to.pub", "src"}, args...)...)
		cmd.Path = s.path("../program")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		out, err := cmd.CombinedOutput()
		require.Equal(t, 1, status(err), string(out))
		require.Contains(t, string(out), closed+": failed: permission denied\n")
		require.Contains(t, string(out), folder+"/docs.yml: failed: permission denied\n")
		if args == nil {
			require.Contains(t, string(out), "; 28 files written\n")
		}
	}
	require.Equal(t, before, s.read(closed))
	require.NoError(t, os.Chmod(s.path(closed), 0o640))
	require.NoError(t, os.Chmod(s.path(folder), 0o755))
	require.NoError(t, os.Chown(s.path("../from"), 0, 0))
	s.run(0, "rotate", "--identity", "from", "-R", "to.pub", "src")
	info, err := os.Stat(s.path(s.files[1]))
	require.NoError(t, err)
	require.EqualValues(t, user, info.Sys().(*syscall.Stat_t).Uid, "its owner stays")
}
