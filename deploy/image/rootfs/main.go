// Rootfs writes what the image of an agent has of this project, as one archive:
// the programs, the folder of hooks, and the directories that are mounted over.
//
//	go run ./deploy/image/rootfs -o build/image/rootfs.tar
//
// The same Go release makes the same bytes of the same sources, for this machine's
// architecture. The directories above ours are in it, or they would get the time
// of the image's build.
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/replace"
)

// Where the programs look for each other: docs/image.md.
const lib = "usr/lib/juliagpu-secrets/"

// age is the time of each file. Of 1970, tar says that it is implausible.
var age = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stderr)) }

// run is the whole program. Its status is 0 when the archive was written, 1 when
// it could not be, 2 when the arguments make no sense.
func run(args, env []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("rootfs", flag.ContinueOnError)
	fs.SetOutput(stderr)
	out := fs.String("o", "build/image/rootfs.tar", "write the archive to this `file`")
	if fs.Parse(args) != nil || fs.NArg() > 0 {
		return 2
	}
	archive, err := build(env)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(*out), 0o755)
	}
	if err == nil {
		err = replace.File(*out, archive, func(f *os.File) error { return f.Chmod(0o644) })
	}
	if err != nil {
		fmt.Fprintln(stderr, "rootfs: error:", err)
		return 1
	}
	return 0
}

// build builds the programs, as make build does, and returns the archive.
func build(env []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "rootfs-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	files := map[string]file{}
	for _, name := range []string{"etc", "etc/juliagpu-secrets", "usr", "usr/bin", "usr/lib", "usr/lib/juliagpu-secrets", lib + "hooks", "var", "var/lib", "var/lib/juliagpu-secrets"} {
		files[name+"/"] = file{kind: tar.TypeDir}
	}
	programs := []string{lib + "agent-startup", lib + "attest", lib + "environment", lib + "launch", lib + "pre-bootstrap", lib + "pre-command", lib + "pre-exit", "usr/bin/juliagpu"}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/")
	cmd.Env = append(env, "CGO_ENABLED=0", "GOOS=linux")
	for _, path := range programs {
		cmd.Args = append(cmd.Args, "./cmd/"+filepath.Base(path))
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, text)
	}
	for _, path := range programs {
		program, err := os.ReadFile(filepath.Join(dir, filepath.Base(path)))
		if err != nil {
			return nil, err
		}
		files[path] = file{kind: tar.TypeReg, text: program}
	}
	for _, hook := range []string{"environment", "pre-command", "pre-exit"} {
		files[lib+"hooks/"+hook] = file{kind: tar.TypeSymlink, mode: 0o777, link: "../" + hook}
	}
	for _, hook := range []string{"agent-startup", "pre-bootstrap"} { // the agent would hand an ELF file to bash
		files[lib+"hooks/"+hook] = file{kind: tar.TypeReg, text: []byte("#!/" + lib + hook + "\n")}
	}
	return pack(files)
}

// A file is root's, and nobody else can write to it.
type file struct {
	kind byte
	mode int64 // of links, where it means nothing; 0755 for all others
	link string
	text []byte
}

// pack writes files by their names, a directory before what is in it.
func pack(files map[string]file) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		header := tar.Header{Format: tar.FormatUSTAR, Typeflag: f.kind, Name: name, Linkname: f.link, Mode: cmp.Or(f.mode, 0o755), Size: int64(len(f.text)), ModTime: age}
		if err := w.WriteHeader(&header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return archive.Bytes(), err
}
