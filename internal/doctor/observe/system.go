package observe

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// runType is the file system of /run.
func (o *observer) runType() string {
	text, err := os.ReadFile(o.path("/proc/self/mountinfo"))
	if err != nil {
		o.unseen("/proc/self/mountinfo", err)
		return ""
	}
	mounts, err := procfs.ParseMounts(text)
	if err != nil {
		o.unread("/proc/self/mountinfo: " + err.Error())
		return ""
	}
	m, _ := procfs.MountOf(mounts, starts)
	return m.Type
}

// own finds users of the host that have jobs' numbers: of the configuration, or
// those of the image.
func (o *observer) own() {
	numbers := map[int]string{4711: "buildkite-trusted", 4712: "buildkite-other"}
	if c := o.facts.Config.Is; c != nil {
		for _, u := range []settings.User{c.Users.Trusted, c.Users.Other} {
			if u.UID != 0 {
				numbers[u.UID] = u.Name
			}
		}
	}
	for _, fields := range o.table("/etc/passwd") {
		uid, err := strconv.Atoi(fields[2%len(fields)])
		if name := numbers[uid]; err == nil && name != "" && !strings.HasPrefix(fields[0], "buildkite-") {
			o.facts.Own = append(o.facts.Own, doctor.Problem{What: fmt.Sprintf("user %s has number %d", escape.Text(fields[0]), uid)})
		}
	}
	for _, fields := range o.table("/etc/subuid") {
		if len(fields) != 3 {
			continue
		}
		first, err := strconv.Atoi(fields[1])
		count, countErr := strconv.Atoi(fields[2])
		for uid := range numbers {
			if err == nil && countErr == nil && first <= uid && uid < first+count {
				o.facts.Own = append(o.facts.Own, doctor.Problem{What: "/etc/subuid gives such numbers to " + escape.Text(fields[0]), Fix: "give that user a range from 100000 on"})
				break
			}
		}
	}
}

// table is a file of lines with fields between colons.
func (o *observer) table(path string) (rows [][]string) {
	text, err := os.ReadFile(o.path(path))
	if err != nil {
		return nil
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if line := s.Text(); line != "" && line[0] != '#' {
			rows = append(rows, strings.Split(line, ":"))
		}
	}
	return rows
}

// socket tells who may give the engine orders.
func (o *observer) socket() {
	path := o.path("/run/docker.sock")
	info, err := os.Stat(path)
	if err != nil {
		if path = o.path("/var/run/docker.sock"); o.Root != "/" {
			return
		}
		if info, err = os.Stat(path); err != nil {
			return
		}
	}
	s := &o.facts.Socket
	s.Mode, s.Others = fmt.Sprintf("%#o", info.Mode().Perm()), info.Mode().Perm()&0o002 != 0
	_, gid := ownerOf(info)
	if gid == 0 || info.Mode().Perm()&0o020 == 0 {
		return
	}
	for _, g := range o.table("/etc/group") {
		if len(g) == 4 && g[2] == strconv.Itoa(gid) {
			s.Group = escape.Text(g[0])
			for name := range strings.SplitSeq(g[3], ",") {
				if name != "" && name != "root" {
					s.People = append(s.People, escape.Text(name))
				}
			}
		}
	}
	for _, u := range o.table("/etc/passwd") {
		if len(u) > 3 && u[3] == strconv.Itoa(gid) && u[2] != "0" && !slices.Contains(s.People, u[0]) {
			s.People = append(s.People, escape.Text(u[0]))
		}
	}
}

// swap finds what is swapped to a disk in the clear. zram is memory, and a mapped
// device says in its name's sake what it is (dm-crypt: CRYPT-…).
func (o *observer) swap() {
	text, err := os.ReadFile(o.path("/proc/swaps"))
	if err != nil {
		return
	}
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) == 0 || strings.HasPrefix(fields[0], "/dev/zram") {
			continue
		}
		kind, _ := os.ReadFile(o.path("/sys/block/" + filepath.Base(fields[0]) + "/dm/uuid"))
		if !strings.HasPrefix(string(kind), "CRYPT-") {
			o.facts.Swap = append(o.facts.Swap, escape.Text(fields[0]))
		}
	}
}

// disks are those that jobs fill, each once. None of them is waited for.
func (o *observer) disks() {
	paths := []string{o.facts.Engine.Root, "/var/lib/containerd", "/var/lib/juliagpu-secrets", "/", "/run"}
	type answer struct {
		there bool
		Space
		err error
	}
	answers, answered := make([]answer, len(paths)), make([]bool, len(paths))
	var group sync.WaitGroup
	for i, path := range paths {
		group.Go(func() {
			answers[i], answered[i] = within(o.Patience, func() (a answer) {
				if a.there = path != "" && o.there(path); a.there {
					a.Space, a.err = o.Space(o.path(path))
				}
				return a
			})
		})
	}
	group.Wait()
	seen := map[uint64]bool{}
	for i, a := range answers {
		path := paths[i]
		switch {
		case !answered[i]:
			o.unread(path + ": no answer in time")
		case a.err != nil:
			o.unseen(escape.Text(path), &fs.PathError{Op: "statfs", Path: path, Err: a.err})
		case a.there && a.Total > 0 && !seen[a.Device]:
			seen[a.Device] = true
			o.facts.Disks = append(o.facts.Disks, doctor.Disk{Path: escape.Text(path), Free: a.Free, Total: a.Total, FreeFiles: a.FreeFiles, Files: a.Files})
		}
	}
}
