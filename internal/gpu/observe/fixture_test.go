package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/devnode"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// A fixture is one container as seen from inside: testdata/NAME.txtar on a head,
// which is what the engine alone makes of it (head-a, head-b). It holds what differs from
// the head, or from the fixture that @base names. A file whose name ends in + goes
// behind the one that is there. What is not a file of the container:
//
//	@remove   files, nodes and mounts that are not there after all; with a / at the
//	          end all below that path
//	@links    symbolic links: path and target, or an errno
//	@errno    files that cannot be read: path and errno
//	@dev      device nodes: c 195:2 0666 dev/nvidia2
//	@cgroup   the device cgroup's rules as in version 1; "default" stands for runc's
//	@sockets  path, and "answers" or an errno
//	@env      NAME=value
//	@smi-…    what nvidia-smi prints: @smi-gpu, @smi-more and @smi-base for the
//	          queries, newest first; @smi-apps, @smi-x, @smi-L
//	policy.yml  what the operator says of the container
//	want        the findings of it, but for info, a line each: deny gpu.foreign;
//	            once however many there are
//
// Of the driver's mig-minors a fixture has a few lines; the others come from the formula.

// load reads a fixture on head a or b.
func load(t testing.TB, name, head string) (h Host, policy, want string) {
	t.Helper()
	all := merged(t, "head-"+head, map[string]string{})
	all = merged(t, name, all)
	policy, want = all["policy.yml"], all["want"]
	delete(all, "policy.yml")
	delete(all, "want")
	return hostOf(t, all), policy, want
}

// variant is a fixture with some files more, as in a fixture's text.
func variant(t testing.TB, name, head, text string) Host {
	t.Helper()
	all := merged(t, name, merged(t, "head-"+head, map[string]string{}))
	all = overlaid(t, txtar.Parse([]byte(text)), all)
	delete(all, "policy.yml")
	delete(all, "want")
	return hostOf(t, all)
}

// fixtures are the names of all.
func fixtures(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".txtar"); ok && !strings.HasPrefix(name, "head-") {
			all = append(all, name)
		}
	}
	return all
}

// merged puts a fixture over what is there.
func merged(t testing.TB, name string, all map[string]string) map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/" + name + ".txtar")
	require.NoError(t, err)
	return overlaid(t, archive, all)
}

func overlaid(t testing.TB, archive *txtar.Archive, all map[string]string) map[string]string {
	t.Helper()
	for _, f := range archive.Files {
		if text := string(f.Data); f.Name == "@base" {
			all = merged(t, strings.TrimSpace(text), all)
		} else if f.Name == "@remove" {
			for _, path := range linesOf(text) {
				drop(all, path)
			}
		}
	}
	for _, f := range archive.Files {
		path, more := strings.CutSuffix(f.Name, "+")
		switch {
		case path == "@base", path == "@remove":
		case more:
			all[path] += string(f.Data)
		default:
			all[path] = string(f.Data)
		}
	}
	return all
}

func drop(all map[string]string, path string) {
	matches := func(p string) bool { return p == path || strings.HasSuffix(path, "/") && strings.HasPrefix(p, path) }
	for p := range all {
		if matches(p) {
			delete(all, p)
		}
	}
	nodes := slices.DeleteFunc(entriesOf(all["@dev"]), func(node string) bool { return matches(strings.Fields(node)[3]) })
	all["@dev"] = strings.Join(nodes, "\n") + "\n"
	mounts := slices.DeleteFunc(linesOf(all["proc/self/mountinfo"]), func(line string) bool {
		return matches(strings.TrimPrefix(strings.Fields(line)[4], "/"))
	})
	all["proc/self/mountinfo"] = strings.Join(mounts, "\n") + "\n"
}

// linesOf are those that are not empty.
func linesOf(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

// entriesOf are separated by semicolons or line breaks.
func entriesOf(text string) []string {
	var all []string
	for _, one := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ';' }) {
		if one = strings.TrimSpace(one); one != "" {
			all = append(all, one)
		}
	}
	return all
}

// ownPID is the PID of the process that looks.
const ownPID = "17"

func inOwn(path string) string {
	if rest, ok := strings.CutPrefix(path, "proc/self/"); ok {
		return "proc/" + ownPID + "/" + rest
	}
	return path
}

var errnos = map[string]syscall.Errno{
	"EPERM": syscall.EPERM, "EACCES": syscall.EACCES, "ENOENT": syscall.ENOENT, "EINVAL": syscall.EINVAL,
	"EIO": syscall.EIO, "ECONNREFUSED": syscall.ECONNREFUSED, "ESRCH": syscall.ESRCH,
}

// hostOf makes a host of a fixture's files.
func hostOf(t testing.TB, all map[string]string) Host {
	t.Helper()
	root := fakeRoot{fstest.MapFS{"proc/self": linkTo(ownPID)}, map[string]error{}}
	answers := map[string]error{}
	for path, text := range all {
		switch path {
		case "@links":
			for _, line := range linesOf(text) {
				from, to, _ := strings.Cut(line, " ")
				if errno, ok := errnos[to]; ok {
					root.errs[inOwn(from)] = errno
					delete(root.MapFS, inOwn(from))
				} else {
					delete(root.errs, inOwn(from)) // the later line counts
					root.MapFS[inOwn(from)] = linkTo(to)
				}
			}
		case "@errno":
			for _, line := range linesOf(text) {
				from, errno, _ := strings.Cut(line, " ")
				require.Contains(t, errnos, errno)
				root.errs[inOwn(from)] = errnos[errno]
			}
		case "@dev":
			for _, line := range entriesOf(text) {
				n, mode, at := nodeOf(t, line)
				root.MapFS[at] = &fstest.MapFile{Mode: mode, Sys: n}
			}
		case "@sockets":
			for _, line := range linesOf(text) {
				at, answer, _ := strings.Cut(line, " ")
				root.MapFS[at] = &fstest.MapFile{Mode: fs.ModeSocket | 0o666}
				answers["/"+at] = nil
				if answer != "answers" {
					require.Contains(t, errnos, answer)
					answers["/"+at] = errnos[answer]
				}
			}
		case "proc/driver/nvidia-caps/mig-minors":
			root.MapFS[path] = &fstest.MapFile{Data: []byte(migMinors(t, text)), Mode: 0o444}
		default:
			if !strings.HasPrefix(path, "@") {
				root.MapFS[inOwn(path)] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
			}
		}
	}
	h := Host{
		FS:       root,
		Kernel:   kernelOf(t, root, all),
		Scratch:  "/dev/shm/juliagpu-secrets-nodes-1",
		Dial:     func(path string) error { return answer(answers, path) },
		SMI:      func(args ...string) ([]byte, error) { return fakeSMI(all, args) },
		Env:      pick(linesOf(all["@env"])),
		Platform: "linux",
	}
	return h
}

func answer(answers map[string]error, path string) error {
	if err, known := answers[path]; known {
		return err
	}
	return syscall.ENOENT
}

func linkTo(target string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

// nodeOf reads c 195:2 0666 dev/nvidia2.
func nodeOf(t testing.TB, line string) (devnode.Number, fs.FileMode, string) {
	t.Helper()
	words := strings.Fields(line)
	require.Len(t, words, 4, line)
	n, ok := numberOf(words[1])
	require.True(t, ok, line)
	bits, err := strconv.ParseUint(words[2], 8, 9)
	require.NoError(t, err)
	mode := fs.ModeDevice | fs.FileMode(bits)
	if n.Kind = devnode.Kind(words[0][0]); n.Kind == devnode.Char {
		mode |= fs.ModeCharDevice
	}
	return n, mode, words[3]
}

// migMinors is the driver's whole table, with a fixture's lines in their places.
func migMinors(t testing.TB, some string) string {
	t.Helper()
	given := map[string]string{}
	for _, line := range linesOf(some) {
		name, minor, _ := strings.Cut(line, " ")
		given[name] = minor
	}
	var b strings.Builder
	write := func(name string, minor int) {
		text := strconv.Itoa(minor)
		if other, ok := given[name]; ok {
			text = other
		}
		b.WriteString(name + " " + text + "\n")
	}
	write("config", 1)
	write("monitor", 2)
	minor := 3
	for g := range 32 {
		for i := range 15 {
			write(fmt.Sprintf("gpu%d/gi%d/access", g, i), minor)
			minor++
			for c := range 8 {
				write(fmt.Sprintf("gpu%d/gi%d/ci%d/access", g, i, c), minor)
				minor++
			}
		}
	}
	return b.String()
}

// fakeRoot is a root directory in which some files answer with an error.
type fakeRoot struct {
	fstest.MapFS
	errs map[string]error
}

func (r fakeRoot) err(op, name string) error {
	if err := r.errs[inOwn(name)]; err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (r fakeRoot) Open(name string) (fs.File, error) {
	if err := r.err("open", name); err != nil {
		return nil, err
	}
	return r.MapFS.Open(name)
}

func (r fakeRoot) ReadLink(name string) (string, error) {
	if err := r.err("readlink", name); err != nil {
		return "", err
	}
	return r.MapFS.ReadLink(name)
}

// runcRules are runc's rules for every container.
const runcRules = "c *:* m; b *:* m; c 1:3 rwm; c 1:5 rwm; c 1:7 rwm; c 1:8 rwm; c 1:9 rwm; c 5:0 rwm; c 5:2 rwm; c 136:* rwm"

// fakeKernel answers from a cgroup's rules, as the kernel does: first whether the
// node can be made, or the user may, and then the cgroup.
type fakeKernel struct {
	root  fakeRoot
	rules []string
	mknod string // why no node can be made
	dac   bool   // modes do not matter
}

func kernelOf(t testing.TB, root fakeRoot, all map[string]string) fakeKernel {
	t.Helper()
	k := fakeKernel{root: root, rules: entriesOf(strings.Replace(all["@cgroup"], "default", runcRules, 1))}
	status, err := procfs.ParseStatus([]byte(all["proc/self/status"]))
	require.NoError(t, err)
	user, err := root.ReadLink("proc/self/ns/user")
	require.NoError(t, err)
	if !procfs.MKNOD.In(status.CapEff) || user != "user:[4026531837]" {
		k.mknod = devnode.MknodEPERM
	}
	k.dac = status.UID == 0 && status.CapEff>>1&1 == 1 // CAP_DAC_OVERRIDE
	return k
}

func (k fakeKernel) allows(n devnode.Number, way string) bool {
	for _, rule := range k.rules {
		words := strings.Fields(rule)
		major, minor, _ := strings.Cut(words[1], ":")
		if (words[0] == "a" || words[0] == string(n.Kind)) && strings.Contains(words[2], way) &&
			(major == "*" || major == strconv.Itoa(int(n.Major))) && (minor == "*" || minor == strconv.Itoa(int(n.Minor))) {
			return true
		}
	}
	return false
}

func (k fakeKernel) ask(n devnode.Number) devnode.Access {
	a := devnode.Access{Read: devnode.Denied, Write: devnode.Denied}
	if k.allows(n, "r") {
		a.Read = devnode.Allowed
	}
	if k.allows(n, "w") {
		a.Write = devnode.Allowed
	}
	return a
}

func (k fakeKernel) Number(n devnode.Number) devnode.Access {
	switch {
	case k.mknod != "":
		return devnode.Access{Cause: k.mknod}
	case !k.allows(n, "m"):
		return devnode.Access{Cause: devnode.MknodEPERM}
	}
	return k.ask(n)
}

func (k fakeKernel) Path(path string) devnode.Access {
	info, err := k.root.Lstat(strings.TrimPrefix(path, "/"))
	if err != nil {
		return devnode.Access{Read: devnode.Absent, Write: devnode.Absent}
	}
	n, _ := devnode.Of(info)
	a := k.ask(n)
	if !k.dac && info.Mode()&0o004 == 0 {
		a.Read, a.Cause = devnode.Unknown, "access: permission denied"
	}
	if !k.dac && info.Mode()&0o002 == 0 {
		a.Write, a.Cause = devnode.Unknown, "access: permission denied"
	}
	return a
}

var errNoSMI = errors.New("no such program in this fixture")

func fakeSMI(all map[string]string, args []string) ([]byte, error) {
	name, tier := "", false
	switch {
	case args[0] == "--query-gpu="+strings.Join(allFields, ","):
		name, tier = "@smi-gpu", true
	case args[0] == "--query-gpu="+strings.Join(moreFields, ","):
		name, tier = "@smi-more", true
	case args[0] == "--query-gpu="+strings.Join(baseFields, ","):
		name, tier = "@smi-base", true
	case strings.HasPrefix(args[0], "--query-compute-apps="):
		name = "@smi-apps"
	default:
		name = "@smi-" + strings.Trim(args[len(args)-1], "-")
	}
	text, ok := all[name]
	switch {
	case tier && !ok && all["@smi-gpu"]+all["@smi-more"]+all["@smi-base"] != "":
		return nil, fmt.Errorf("%w 2", errStatus)
	case !ok:
		return nil, errNoSMI
	}
	return []byte(text), nil
}

// What fixtures state of the driver's table is what the formula says.
func TestFixtureMinors(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/f2.txtar")
	require.NoError(t, err)
	i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "proc/driver/nvidia-caps/mig-minors" })
	given := string(archive.Files[i].Data)
	require.Len(t, linesOf(given), 8)
	whole := migMinors(t, "")
	for line := range strings.Lines(given) {
		require.Contains(t, whole, line)
	}
	require.Equal(t, 4322, strings.Count(whole, "\n"))
	require.Contains(t, whole, "gpu31/gi14/ci7/access 4322\n")
}
