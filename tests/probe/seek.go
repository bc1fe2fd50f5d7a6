//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// needles are what a job must not see, by the words with which seek reports them.
// They tell nothing of the test's own values, which the seeker must not bring along.
var needles = map[string]*regexp.Regexp{
	"identity": regexp.MustCompile(`^AGE-SECRET-KEY-1[A-Z0-9]{40,}`),
	"token":    regexp.MustCompile(`^registration-[0-9a-f]{32}`),
	"value":    regexp.MustCompile(`^canary-[a-z]+-[a-z0-9]{24}`),
}

var prefixes = map[string]string{"identity": "AGE-SECRET-KEY-1", "token": "registration-", "value": "canary-"}

// folders are where files may lie; what the seeker may not read it passes over.
var folders = []string{"/run", "/tmp", "/var/lib/juliagpu-secrets", "/dev/shm", "/root", "."}

// seek looks through all that a process may look at, and prints a line for each
// place where a needle is: once, or again and again until the file until is there.
func seek(until string) {
	fmt.Println("SEEKING as", os.Getuid(), os.Geteuid())
	s := &seeker{found: map[string]bool{}}
	for round := 1; ; round++ {
		s.places = 0
		// A directory that nobody can list is still there for who knows the name.
		for _, dir := range append(folders, "/run/juliagpu-secrets/job/"+os.Getenv("BUILDKITE_JOB_ID")) {
			s.walk(dir)
		}
		processes, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range processes {
			if p != fmt.Sprintf("/proc/%d", os.Getpid()) {
				s.process(p)
			}
		}
		if _, err := os.Stat(until); until == "" || err == nil {
			fmt.Printf("SOUGHT in %d places of %d processes, %d times\n", s.places, len(processes), round)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

type seeker struct {
	places int
	found  map[string]bool
}

// look reports the needles in text. The hash tells two apart, and no log masks it.
func (s *seeker) look(text []byte, where string) {
	s.places++
	for word, prefix := range prefixes {
		for rest := text; ; {
			i := bytes.Index(rest, []byte(prefix))
			if i < 0 {
				break
			}
			if needle := needles[word].Find(rest[i:min(len(rest), i+200)]); needle != nil {
				line := fmt.Sprintf("FOUND %s %.3x in %s", word, sha256.Sum256(needle), where)
				if !s.found[line] {
					s.found[line] = true
					fmt.Println(line)
				}
			}
			rest = rest[i+len(prefix):]
		}
		// As the hand-off has it.
		coded := base64.StdEncoding.EncodeToString([]byte(prefix))[:len(prefix)*8/6]
		for i, rest := bytes.Index(text, []byte(coded)), text; i >= 0; i = bytes.Index(rest, []byte(coded)) {
			plain := make([]byte, 150)
			n, _ := base64.StdEncoding.Decode(plain, rest[i:i+min(200, len(rest)-i)/4*4])
			if needles[word].Match(plain[:n]) {
				s.look(plain[:n], where)
			}
			rest = rest[i+len(coded):]
		}
	}
}

func (s *seeker) walk(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			s.file(path)
		}
		return nil
	})
}

func (s *seeker) file(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return // a program, or a log; no pipe that would make it wait
	}
	text, _ := io.ReadAll(f)
	s.look(text, path)
}

func (s *seeker) process(proc string) {
	for _, name := range []string{"environ", "cmdline"} {
		if text, err := os.ReadFile(proc + "/" + name); err == nil {
			s.look(text, proc+"/"+name)
		}
	}
	fds, _ := filepath.Glob(proc + "/fd/*")
	for _, fd := range fds {
		if info, err := os.Stat(fd); err == nil && info.Mode().IsRegular() {
			s.file(fd)
		}
	}
	for _, dir := range []string{"/cwd/.", "/root/run/.", "/root/tmp/."} {
		if _, err := os.ReadDir(proc + dir); err == nil && !strings.HasPrefix(proc+dir, "/proc/1/root") {
			files, _ := filepath.Glob(proc + dir + "/*")
			for _, file := range files {
				if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() {
					s.file(file)
				}
			}
		}
	}
	s.memory(proc)
}

func (s *seeker) memory(proc string) {
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		return
	}
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		return
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		from, to, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseInt(from, 16, 64)
		end, err2 := strconv.ParseInt(to, 16, 64)
		// Where a program keeps what it reads: it can be written.
		if err1 != nil || err2 != nil || !strings.HasPrefix(fields[1], "rw") || end-start > 64<<20 {
			continue
		}
		for ; start < end; start += 1 << 20 {
			text := make([]byte, min(1<<20, end-start))
			if n, err := mem.ReadAt(text, start); n > 0 || err == nil {
				s.look(text[:n], proc+"/mem")
			}
		}
	}
}
