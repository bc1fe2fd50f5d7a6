package procfs

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

const status = `Name:	pre-command
Umask:	0022
State:	R (running)
Pid:	17
PPid:	12
Uid:	1000	0	1000	1000
Gid:	0	0	0	0
CapInh:	0000000000000001
CapPrm:	00000000a80425fb
CapEff:	00000000a80425fa
CapBnd:	00000000a80425fb
CapAmb:	0000000000000002
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
`

func TestParseStatus(t *testing.T) {
	got, err := ParseStatus([]byte(status))
	require.NoError(t, err)
	require.Equal(t, Status{
		UID: 1000, EUID: 0, PPID: 12,
		CapInh: 1, CapPrm: 0xa80425fb, CapEff: 0xa80425fa, CapBnd: 0xa80425fb, CapAmb: 2,
		NoNewPrivs: true, Seccomp: 2,
	}, got)
	require.True(t, MKNOD.In(got.CapEff))
	require.False(t, MKNOD.In(got.CapAmb))

	for name, change := range map[string][2]string{
		"no capabilities":      {"CapBnd:", "CapBnx:"},
		"a set that is short":  {"CapBnd:\t0000", "CapBnd:\t"},
		"a set of two words":   {"CapBnd:\t", "CapBnd:\t0 "},
		"a sign":               {"CapBnd:\t00", "CapBnd:\t+0"},
		"a name twice":         {"Umask:\t0022", "NoNewPrivs:\t1"},
		"an unknown flag":      {"NoNewPrivs:\t1", "NoNewPrivs:\t2"},
		"one user":             {"Uid:\t1000\t0\t1000\t1000", "Uid:\t1000"},
		"a negative user":      {"Uid:\t1000", "Uid:\t-1"},
		"no number in Seccomp": {"Seccomp:\t2", "Seccomp:\t"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(status, change[0], change[1], 1)
			require.NotEqual(t, status, text)
			got, err := ParseStatus([]byte(text))
			require.ErrorIs(t, err, ErrMalformed)
			require.Zero(t, got)
		})
	}
}

func TestParseMounts(t *testing.T) {
	got, err := ParseMounts([]byte(`22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 98:0 /a\040b /c\134d\011\012e ro,nodev shared:1 master:2 propagate_from:3 - ext3 /dev/root rw,errors=continue
37 35 0:50 / /tmp rw,nosuid shared:7 - tmpfs  ro,size=4k
38 35 0:51 / /m\043x rw - fuse.s3 a\040b rw,with blank
39 35 0:4 net:[4026532008] /run/netns/x rw - nsfs nsfs rw
`))
	require.NoError(t, err)
	require.Equal(t, []Mount{
		{22, 27, "0:21", "/", "/proc", []string{"rw", "relatime"}, "proc", "proc", []string{"rw"}},
		{36, 35, "98:0", "/a b", "/c\\d\t\ne", []string{"ro", "nodev"}, "ext3", "/dev/root", []string{"rw", "errors=continue"}},
		{37, 35, "0:50", "/", "/tmp", []string{"rw", "nosuid"}, "tmpfs", "", []string{"ro", "size=4k"}},
		{38, 35, "0:51", "/", "/m#x", []string{"rw"}, "fuse.s3", "a b", []string{"rw", "with blank"}},
		{39, 35, "0:4", "net:[4026532008]", "/run/netns/x", []string{"rw"}, "nsfs", "nsfs", []string{"rw"}},
	}, got)
	require.False(t, got[0].ReadOnly())
	require.True(t, got[1].ReadOnly(), "the mount")
	require.True(t, got[2].ReadOnly(), "the file system")
	require.True(t, got[1].Has("nodev"))
	require.False(t, got[1].Has("no"))

	for _, line := range []string{
		"", "\n", "36 35 98:0 / /a rw master:1 ext3 /dev/root rw", "36 35 98:0 / /a - ext3 /dev/root rw",
		"x 35 98:0 / /a rw - ext3 /dev/root rw", "36 x 98:0 / /a rw - ext3 /dev/root rw",
		"36 35 98:0 / a rw - ext3 /dev/root rw", "36 35 98:0 / /a rw - ext3 /dev/root", "36 35 98:0  /a rw - ext3 /dev/root rw",
	} {
		got, err := ParseMounts([]byte("22 27 0:21 / /proc rw - proc proc rw\n" + line))
		require.Len(t, got, 1, "what is before it")
		if line != "" {
			require.ErrorIs(t, err, ErrMalformed, "%q", line)
			require.EqualError(t, err, "line 2: not as the kernel writes it")
		}
	}
}

func TestParseMajors(t *testing.T) {
	got, err := ParseMajors([]byte("Character devices:\n  1 mem\n  4 /dev/vc/0\n508 nvidia-uvm\n\nBlock devices:\n  7 loop\n259 a b\n"))
	require.NoError(t, err)
	require.Equal(t, []Major{
		{false, 1, "mem"}, {false, 4, "/dev/vc/0"}, {false, 508, "nvidia-uvm"}, {true, 7, "loop"}, {true, 259, "a b"},
	}, got)
	for _, text := range []string{"1 mem\n", "Character devices:\nx mem\n", "Character devices:\n1\n", "Block devices:\n-1 x\n", "Block devices:\n1 \n"} {
		got, err := ParseMajors([]byte(text))
		require.ErrorIs(t, err, ErrMalformed, "%q", text)
		require.Nil(t, got)
	}
}

func TestParseIDMap(t *testing.T) {
	got, err := ParseIDMap([]byte("         0     100000      65536\n     65536          0 4294901760\n"))
	require.NoError(t, err)
	require.Equal(t, []IDMap{{0, 100000, 65536}, {65536, 0, 4294901760}}, got)
	got, err = ParseIDMap(nil)
	require.NoError(t, err)
	require.Empty(t, got)
	for _, text := range []string{"0 0\n", "0 0 0 0\n", "0 0 4294967296\n", "\n", "a b c"} {
		_, err := ParseIDMap([]byte(text))
		require.ErrorIs(t, err, ErrMalformed, "%q", text)
	}
}

const stat = "7184 (cat) R 7179 7178 3575 0 -1 4194304 98 0 0 0 0 0 0 0 20 0 1 0 72167 3133440 413 18446744073709551615\n"

func TestParseStat(t *testing.T) {
	for _, name := range []string{"cat", "", "a b", ") R 1 1 1", "((", "a\nb", "x) S 1 (y"} {
		got, err := ParseStat([]byte(strings.Replace(stat, "cat", name, 1)))
		require.NoError(t, err, "%q", name)
		require.Equal(t, Stat{PID: 7184, PPID: 7179, Session: 3575, Name: name, Start: 72167}, got)
	}
	for _, text := range []string{
		"", "(", ")", "7184 cat R 7179", "7184 (cat) R 7179 7178", "x" + stat, "(cat" + stat[5:],
		strings.Replace(stat, "7179", "-1", 1), strings.Replace(stat, "72167", "x", 1),
	} {
		got, err := ParseStat([]byte(text))
		require.ErrorIs(t, err, ErrMalformed, "%q", text)
		require.Zero(t, got)
	}
}

func TestParseNamespace(t *testing.T) {
	kind, n, err := ParseNamespace("pid:[4026531836]")
	require.NoError(t, err)
	require.Equal(t, "pid", kind)
	require.EqualValues(t, 4026531836, n)
	for _, link := range []string{"", "pid", "pid:[]", "pid:[1", "pid:1]", ":[1]", "pid:[-1]", "pid:[0x1]", "/proc/1/ns/pid", "pid:[1]]"} {
		_, _, err := ParseNamespace(link)
		require.ErrorIs(t, err, ErrMalformed, "%q", link)
	}
}

// The kernel that runs the tests writes what the parsers read.
func TestThisKernel(t *testing.T) {
	if runtime.GOOS != "linux" {
		need.Skip(t, "needs Linux")
	}
	read := func(name string) []byte {
		text, err := os.ReadFile("/proc/" + name)
		require.NoError(t, err)
		return text
	}
	s, err := ParseStatus(read("self/status"))
	require.NoError(t, err)
	require.Equal(t, os.Getuid(), s.UID)
	require.Equal(t, os.Getppid(), s.PPID)
	mounts, err := ParseMounts(read("self/mountinfo"))
	require.NoError(t, err)
	require.NotEmpty(t, mounts)
	majors, err := ParseMajors(read("devices"))
	require.NoError(t, err)
	require.Contains(t, majors, Major{Number: 1, Name: "mem"})
	ids, err := ParseIDMap(read("self/uid_map"))
	require.NoError(t, err)
	require.NotEmpty(t, ids)
	st, err := ParseStat(read("self/stat"))
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), st.PID)
	require.Equal(t, os.Getppid(), st.PPID)
	link, err := os.Readlink("/proc/self/ns/user")
	require.NoError(t, err)
	kind, _, err := ParseNamespace(link)
	require.NoError(t, err)
	require.Equal(t, "user", kind)
}

// What a parser takes, written again as the kernel would, is the same value.

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(status))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseStatus(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			require.Zero(t, s)
			return
		}
		nnp := 0
		if s.NoNewPrivs {
			nnp = 1
		}
		again, err := ParseStatus(fmt.Appendf(nil,
			"Uid:\t%d\t%d\t0\t0\nPPid:\t%d\nCapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\nNoNewPrivs:\t%d\nSeccomp:\t%d\n",
			s.UID, s.EUID, s.PPID, s.CapInh, s.CapPrm, s.CapEff, s.CapBnd, s.CapAmb, nnp, s.Seccomp))
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("36 35 98:0 /a\\040b /c\\134d ro,nodev shared:1 master:2 - ext3 /dev/root rw,errors=continue\n37 35 0:50 / / rw - tmpfs  ro\n"))
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace
	f.Fuzz(func(t *testing.T, text []byte) {
		mounts, err := ParseMounts(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
		}
		var b strings.Builder
		for _, m := range mounts {
			require.True(t, strings.HasPrefix(m.Point, "/"))
			require.NotEmpty(t, m.Root)
			fmt.Fprintf(&b, "%d %d %s %s %s %s - %s %s %s\n", m.ID, m.Parent, m.Device, escape(m.Root), escape(m.Point),
				strings.Join(m.Options, ","), escape(m.Type), escape(m.Source), strings.Join(m.Super, ","))
		}
		again, err := ParseMounts([]byte(b.String()))
		require.NoError(t, err)
		require.Equal(t, mounts, again)
	})
}

func FuzzParseMajors(f *testing.F) {
	f.Add([]byte("Character devices:\n  1 mem\n508 nvidia-uvm\n\nBlock devices:\n  7 loop\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		majors, err := ParseMajors(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		var b strings.Builder
		for _, m := range majors {
			b.WriteString(map[bool]string{true: "Block", false: "Character"}[m.Block] + " devices:\n")
			fmt.Fprintf(&b, "%3d %s\n", m.Number, m.Name)
		}
		again, err := ParseMajors([]byte(b.String()))
		require.NoError(t, err)
		require.Equal(t, majors, again)
	})
}

func FuzzParseIDMap(f *testing.F) {
	f.Add([]byte("         0     100000      65536\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ids, err := ParseIDMap(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		var b strings.Builder
		for _, m := range ids {
			fmt.Fprintf(&b, "%10d %10d %10d\n", m.Inside, m.Outside, m.Count)
		}
		again, err := ParseIDMap([]byte(b.String()))
		require.NoError(t, err)
		require.Equal(t, ids, again)
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(stat))
	f.Add([]byte(strings.Replace(stat, "cat", "x) S 1 (y\n", 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseStat(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := ParseStat([]byte(fmt.Sprintf("%d (%s) S %d 0 %d%s %d", s.PID, s.Name, s.PPID, s.Session, strings.Repeat(" 0", 15), s.Start)))
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func FuzzParseNamespace(f *testing.F) {
	f.Add("pid:[4026531836]")
	f.Fuzz(func(t *testing.T, link string) {
		kind, n, err := ParseNamespace(link)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, m, err := ParseNamespace(kind + ":[" + strconv.FormatUint(n, 10) + "]")
		require.NoError(t, err)
		require.Equal(t, kind, again)
		require.Equal(t, n, m)
	})
}
