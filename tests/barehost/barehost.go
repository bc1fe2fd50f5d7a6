//go:build linux

// Package barehost boots a host that has nothing of ours yet: Debian with its real
// systemd and Docker Engine, in namespaces of this machine, as operators meet it
// after they installed the packages.
//
// Its processes, mounts and network are its own, and end with it. What it shares
// with this machine is the kernel: loop devices, and the limits of the machine's
// own root.
package barehost

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// A Host is one that runs, until its test ends.
type Host struct {
	Root    string // its root directory, seen from here; /dev, /run and /tmp are tmpfs of its own
	Gateway string // this machine, as the host and its containers reach it: see agenttest.NewServerOn

	name string
	pid  int // of its systemd, here
}

// A Bind is a file or folder of this machine that the host has, too.
type Bind struct {
	From, To string // absolute; To is made
	ReadOnly bool
}

//go:embed boot.sh
var boot string

// Boot boots a host, and waits until its systemd says that it is up. The test is
// skipped where this machine can't, and fails where something of the host is left
// after it.
func Boot(t testing.TB, binds ...Bind) *Host {
	t.Helper()
	need.Root(t, "to boot a host in namespaces")
	base, lacks, err := makeBase(t.Context())
	if lacks != "" {
		need.Skip(t, lacks)
	}
	fatal(t, err)
	gateway, address, err := bridge()
	if err != nil {
		need.Skip(t, err.Error())
	}
	name := "barehost-" + strings.ToLower(rand.Text()[:6]) // as long as a network interface's may be
	h := &Host{Root: filepath.Join(t.TempDir(), "root"), Gateway: gateway, name: name}
	fatal(t, os.Mkdir(h.Root, 0o755))
	output(t, "tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--file", base, "--directory", h.Root)
	resolv, err := os.ReadFile("/etc/resolv.conf")
	fatal(t, err)
	for path, text := range map[string]string{
		"etc/hostname":    name + "\n",
		"etc/hosts":       "127.0.0.1 localhost\n127.0.1.1 " + name + "\n",
		"etc/machine-id":  "",
		"etc/resolv.conf": string(resolv),
	} {
		fatal(t, os.WriteFile(filepath.Join(h.Root, path), []byte(text), 0o644))
	}

	args := []string{"-ec", boot, "sh", h.Root, name}
	for _, b := range binds {
		args = append(args, b.From, b.To, map[bool]string{true: "ro", false: "rw"}[b.ReadOnly])
	}
	cmd := exec.Command("/bin/sh", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	log, err := os.Create(h.Root + ".log")
	fatal(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL,
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // since Pdeathsig is about the thread
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(ended)
	}()
	err = <-started
	t.Cleanup(func() { h.end(t, cmd, ended) })
	fatal(t, err)
	h.pid = cmd.Process.Pid

	output(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(h.pid))
	output(t, "ip", "link", "set", name, "master", "docker0", "up")
	for _, args := range [][]string{{"addr", "add", address, "dev", "eth0"}, {"link", "set", "eth0", "up"}, {"link", "set", "lo", "up"}, {"route", "add", "default", "via", gateway}} {
		output(t, "nsenter", append([]string{"--net", "--target", strconv.Itoa(h.pid), "ip"}, args...)...)
	}

	var state string
	for range 600 {
		select {
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the host did not boot: %s", text)
		case <-time.After(100 * time.Millisecond):
		}
		state, _ = h.Run("systemctl", "is-system-running")
		if state = strings.TrimSpace(state); state == "running" || state == "degraded" {
			return h
		}
	}
	jobs, _ := h.Run("systemctl", "list-jobs", "--no-pager")
	t.Fatalf("the host is %q a minute after it was started\n%s", state, jobs)
	return nil
}

// Run runs a command on the host, as root. It returns what the command prints to
// both streams, and its status.
func (h *Host) Run(command ...string) (out string, status int) {
	cmd := h.Command(context.Background(), command...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error(), -1
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// Command is one that is to run on the host.
func (h *Host) Command(ctx context.Context, command ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(h.pid), "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd",
		"/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}, command...)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// end cuts the host's power.
func (h *Host) end(t testing.TB, cmd *exec.Cmd, ended chan struct{}) {
	if cmd.Process != nil {
		cmd.Process.Kill() // and with it its namespace of processes
	}
	<-ended
	for _, folder := range cgroups(h.name) {
		if err := removeAll(folder); err != nil {
			t.Errorf("the host's cgroup is left: %v", err)
		}
	}
	if loops := h.loops(t); len(loops) > 0 {
		for _, loop := range loops {
			exec.Command("losetup", "--detach", loop).Run()
		}
		t.Errorf("the host's loop devices are left: %v", loops)
	}
}

// cgroups are the host's own, one for each hierarchy.
func cgroups(name string) []string {
	found, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	return found
}

// removeAll removes a cgroup and those below it. The kernel may need a moment after
// the last process.
func removeAll(folder string) (err error) {
	for range 100 {
		var all []string
		filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		slices.Reverse(all)
		for _, path := range all {
			unix.Rmdir(path)
		}
		if _, err = os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s is still there", folder)
}

// loops are the loop devices on files of the host. The kernel may need a moment
// after the last mount.
func (h *Host) loops(t testing.TB) (loops []string) {
	type file struct{ dev, inode uint64 }
	files := map[file]bool{}
	filepath.WalkDir(h.Root, func(path string, d fs.DirEntry, err error) error {
		var at unix.Stat_t
		if err == nil && d.Type().IsRegular() && unix.Lstat(path, &at) == nil {
			files[file{at.Dev, at.Ino}] = true
		}
		return nil
	})
	for range 100 {
		loops = nil
		all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		fatal(t, err)
		for _, path := range all {
			loop := "/dev/" + strings.Split(path, "/")[3]
			f, err := os.Open(loop)
			if err != nil {
				continue
			}
			info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
			f.Close()
			if err == nil && files[file{info.Device, info.Inode}] {
				loops = append(loops, loop)
			}
		}
		if len(loops) == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return loops
}

// bridge is where a host is attached: the network of this machine's Docker Engine,
// which leads on to wherever its containers get. The address is one of many there,
// far from those that the engine gives out.
func bridge() (gateway, address string, err error) {
	bridge, err := net.InterfaceByName("docker0")
	if err != nil {
		return "", "", errors.New("needs the network docker0 of a Docker Engine")
	}
	addresses, err := bridge.Addrs()
	if err != nil || len(addresses) == 0 {
		return "", "", errors.New("docker0 has no address")
	}
	ip, network, err := net.ParseCIDR(addresses[0].String())
	if err != nil {
		return "", "", err
	}
	own, ones := network.IP.To4(), 0
	if own != nil {
		ones, _ = network.Mask.Size()
	}
	if ones == 0 || ones > 16 {
		return "", "", fmt.Errorf("docker0 is %s, and not a network of IPv4 with room for hosts", network)
	}
	var b [2]byte
	rand.Read(b[:])
	return ip.String(), fmt.Sprintf("%d.%d.%d.%d/%d", own[0], own[1], 128+b[0]%120, 1+b[1]%250, ones), nil
}

// Packages are those of the host: what an operator installs before anything of ours.
// The release is Debian's, whatever this machine is.
const (
	release  = "bookworm"
	packages = "systemd,systemd-sysv,dbus,docker.io,iptables,fuse-overlayfs,ca-certificates,curl,git,make,procps,iproute2,e2fsprogs"
)

// makeBase is an archive of the root directory. It is made once and kept in build/.
// lacks says what this machine lacks for a host.
func makeBase(ctx context.Context) (path, lacks string, err error) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "", "needs cgroups of version 1", nil
	}
	for _, program := range []string{"mmdebstrap", "ip", "nsenter", "losetup"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", "needs " + program, nil
		}
	}
	root, err := agenttest.Root()
	if err != nil {
		return "", "", err
	}
	args := []string{"--quiet", "--variant=minbase", "--include=" + packages, "--dpkgopt=force-unsafe-io"}
	for _, dir := range []string{"doc", "info", "locale", "man", "zoneinfo"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+dir+"/*")
	}
	dir := filepath.Join(root, "build", "barehost")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	unlock, err := agenttest.Lock(filepath.Join(dir, "lock"), func() {})
	if err != nil {
		return "", "", err
	}
	defer unlock()
	path = filepath.Join(dir, fmt.Sprintf("%.8x.tar", sha256.Sum256(fmt.Append(nil, release, args))))
	if _, err := os.Stat(path); err == nil {
		return path, "", nil
	}
	older, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return "", "", err
	}
	for _, path := range older {
		if err := os.Remove(path); err != nil {
			return "", "", err
		}
	}
	fmt.Fprintln(os.Stderr, "making a bare host of", release+"'s packages (once, about a minute)")
	part := filepath.Join(dir, "part.tar")
	defer os.Remove(part)
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, release, part)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		return "", fmt.Sprintf("mmdebstrap %s: %s: %s", release, err, log.String()), nil
	}
	return path, "", os.Rename(part, path)
}

func output(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
