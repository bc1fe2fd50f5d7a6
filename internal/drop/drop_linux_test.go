package drop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// TestMain is the process that drops, too: each case needs one of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "drop" {
		child(os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// child takes what args say from this process, drops, and prints what the
// kernel knows of each thread.
func child(args []string) {
	u := User{UID: 4711, GID: 4712}
	program := false
	for _, arg := range args {
		switch name, number, _ := strings.Cut(arg, "="); name {
		case "group":
			n, _ := strconv.Atoi(number)
			u.Groups = append(u.Groups, n)
		case "uid":
			u.UID, _ = strconv.Atoi(number)
		case "without": // this capability, in the bounding set too
			n, _ := strconv.Atoi(number)
			must(without(n))
		case "inheritable": // all that there are
			must(inherit())
		case "able":
			if err := Able(); err != nil {
				fmt.Println(err)
			}
			return
		case "program": // in this one's place
			program = true
		case "keep": // capabilities survive the change of user
			must(prctl(unix.PR_SET_SECUREBITS, 1<<2))
		}
	}
	started := make(chan bool)
	for range 4 { // more threads
		go func() { runtime.LockOSThread(); started <- true; select {} }()
	}
	for range 4 {
		<-started
	}
	keys := session()
	if err := To(u); err != nil {
		fmt.Println("error:", err)
		return
	}
	if program {
		must(syscall.Exec("/bin/cat", []string{"cat", "/proc/self/status"}, nil))
	}
	if n := session(); n != 0 && n == keys {
		fmt.Println("root's keys")
	}
	files, err := filepath.Glob("/proc/self/task/*/status")
	must(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Cap") || strings.Contains("Uid Gid Groups NoNewPrivs", line[:strings.IndexByte(line, ':')]) {
				fmt.Print(line)
			}
		}
	}
}

// session is the number of this thread's session keyring, or 0.
func session() int {
	n, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		return 0
	}
	return n
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// without leaves one capability, in all sets of every thread.
func without(c int) error {
	if err := prctl(unix.PR_CAPBSET_DROP, uintptr(c)); err != nil {
		return err
	}
	return change(func(d *unix.CapUserData) {
		d.Effective &^= 1 << c
		d.Permitted &^= 1 << c
	})
}

func inherit() error {
	if err := change(func(d *unix.CapUserData) { d.Inheritable = d.Permitted }); err != nil {
		return err
	}
	return prctlAmbient(unix.CAP_KILL)
}

func status(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("/proc/self/exe", append([]string{"drop"}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// needs is root, and a test binary that reaches all its threads.
func needs(t *testing.T) {
	t.Helper()
	need.Root(t, "to drop it")
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == syscall.ENOTSUP {
		need.Skip(t, "needs CGO_ENABLED=0, as the programs and make test have it")
	}
}

func TestTo(t *testing.T) {
	needs(t)
	none := strings.Repeat("0", 16)
	for _, tt := range []struct {
		name   string
		args   []string
		groups string
		bounds bool // the bounding set is empty
	}{
		{"no group but its own", []string{"-"}, "", true},
		{"some groups", []string{"group=44", "group=109"}, "44 109", true},
		{"inheritable and ambient capabilities", []string{"inheritable"}, "", true},
		{"a process that keeps its capabilities", []string{"keep"}, "", true},
		{"without CAP_SETPCAP", []string{"without=8"}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := status(t, tt.args...)
			for line, want := range map[string]string{
				"Uid": "4711\t4711\t4711\t4711", "Gid": "4712\t4712\t4712\t4712", "Groups": tt.groups,
				"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none, "NoNewPrivs": "1",
			} {
				all := regexp.MustCompile(`(?m)^`+line+`:\t?(.*)$`).FindAllStringSubmatch(out, -1)
				require.GreaterOrEqual(t, len(all), 5, "every thread: %s", out)
				for _, got := range all {
					assert.Equal(t, want, strings.TrimSpace(got[1]), line)
				}
			}
			assert.NotContains(t, out, "root's keys")
			if tt.bounds {
				assert.Regexp(t, `(?m)^CapBnd:\s+0+$`, out)
			} else {
				assert.NotRegexp(t, `(?m)^CapBnd:\s+0+$`, out)
			}
		})
	}
}

// TestToAndStart: what a program in this one's place has.
func TestToAndStart(t *testing.T) {
	needs(t)
	for _, args := range [][]string{{"program"}, {"program", "inheritable"}, {"program", "keep"}} {
		out := status(t, args...)
		for _, set := range []string{"Inh", "Prm", "Eff", "Bnd", "Amb"} {
			assert.Regexp(t, `(?m)^Cap`+set+`:\s+0+$`, out, args)
		}
		assert.Regexp(t, `(?m)^Uid:\s+4711\s+4711\s+4711\s+4711$`, out)
		assert.Regexp(t, `(?m)^NoNewPrivs:\s+1$`, out)
	}
}

func TestAble(t *testing.T) {
	needs(t)
	require.Empty(t, status(t, "able"))
	require.Empty(t, status(t, "without=8", "able"), "SETPCAP")
	for number, name := range map[int]string{0: "CHOWN", 1: "DAC_OVERRIDE", 3: "FOWNER", 5: "KILL", 6: "SETGID", 7: "SETUID"} {
		require.Equal(t, "root lacks the capability "+name+" here: give it to the container, as the Compose file does\n",
			status(t, fmt.Sprintf("without=%d", number), "able"))
	}
}

// TestRefused are processes that can't become the user, and users that nobody becomes.
func TestRefused(t *testing.T) {
	needs(t)
	const none = "error: drop to a user: root, or one of its groups, is none to drop to\n"
	require.Equal(t, none, status(t, "uid=0"))
	require.Equal(t, none, status(t, "uid=-1"))
	require.Equal(t, none, status(t, "group=0"))
	require.Equal(t, "error: drop to uid 4711: set groups: operation not permitted\n", status(t, "without=6"))
	require.Equal(t, "error: drop to uid 4711: set the user: operation not permitted\n", status(t, "without=7"))
}
