package gather

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// Limits of what is read of clones: anybody may have written them.
const (
	maxClones = 5000
	maxFiles  = 500 // of one clone
	maxDepth  = 8
	maxConfig = 1 << 20
)

// ErrNoClone says that a folder is no clone of a Git repository.
var ErrNoClone = errors.New("no clone of a repository: there is no .git")

// Checkout reads one clone: what its remotes are, and its pipeline files. It starts
// no program, follows no link out of the folder, and reads no file larger than a
// pipeline's.
func Checkout(folder string) (audit.Checkout, error) {
	c := audit.Checkout{Folder: folder}
	files, err := Files(folder)
	if err != nil {
		return c, err
	}
	c.Repositories = remotes(folder)
	for _, file := range files {
		text, err := Read(folder, file)
		if err != nil {
			c.Texts = append(c.Texts, audit.Text{File: file, Unread: cause(err)})
			continue
		}
		t := audit.Read(file, text)
		// Other tools keep YAML there, too, and templates that are none.
		if t.Unread != "" && !isDefault(file) && !bytes.Contains(text, []byte("SECRET_")) {
			continue
		}
		if t.Unread != "" || t.Steps > 0 || len(t.Values) > 0 {
			c.Texts = append(c.Texts, t)
		}
	}
	return c, nil
}

// Files are the files of a clone that may be pipelines, in its folder and with
// slashes. The error wraps ErrNoClone where that is none.
func Files(folder string) ([]string, error) {
	if _, err := os.Lstat(filepath.Join(folder, ".git")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(folder); err != nil {
				return nil, err
			}
			return nil, ErrNoClone
		}
		return nil, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return files(root), nil
}

// Read reads a file of Files. Links within the clone are followed; what is no regular
// file is not waited for.
func Read(folder, file string) ([]byte, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return read(root, file)
}

// Clones finds the clones in a folder: those in it, and one folder deeper, as in
// owner/name.
func Clones(folder string) (found []string, err error) {
	for _, pattern := range []int{1, 2} {
		more, err := below(folder, pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	slices.Sort(found)
	if len(found) > maxClones {
		return nil, fmt.Errorf("more than %d clones", maxClones)
	}
	return found, nil
}

// below returns the clones that are so many folders deeper, and not in another.
func below(folder string, depth int) (found []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		at := filepath.Join(folder, e.Name())
		if !e.IsDir() || e.Name() == ".git" {
			continue
		}
		_, err := os.Lstat(filepath.Join(at, ".git"))
		switch clone := err == nil; {
		case clone && depth == 1:
			found = append(found, at)
		case !clone && depth > 1:
			if more, err := below(at, depth-1); err == nil {
				found = append(found, more...)
			}
		}
	}
	return found, nil
}

// places are where an agent looks for a pipeline (buildkite-agent pipeline upload
// --help).
var places = []string{"buildkite.yml", "buildkite.yaml", "buildkite.json", ".buildkite/pipeline.yml", ".buildkite/pipeline.yaml", ".buildkite/pipeline.json",
	"buildkite/pipeline.yml", "buildkite/pipeline.yaml", "buildkite/pipeline.json"}

func isDefault(file string) bool { return slices.Contains(places, file) }

// files are those that may be pipelines: where an agent looks, and all of YAML or
// JSON beside them.
func files(root *os.Root) (found []string) {
	for _, file := range places[:3] {
		if info, err := root.Lstat(file); err == nil && !info.IsDir() {
			found = append(found, file)
		}
	}
	for _, folder := range []string{".buildkite", "buildkite"} {
		fs.WalkDir(root.FS(), folder, func(file string, e fs.DirEntry, err error) error {
			switch {
			case err != nil || len(found) >= maxFiles:
				return fs.SkipDir
			case e.IsDir() && strings.Count(file, "/") > maxDepth:
				return fs.SkipDir
			case !e.IsDir() && slices.Contains([]string{".yml", ".yaml", ".json"}, path.Ext(file)):
				found = append(found, file)
			}
			return nil
		})
	}
	return found
}

// read reads a file of at most a pipeline's size.
func read(root *os.Root, file string) ([]byte, error) {
	info, err := root.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, pipeline.MaxFile+1)) // one more than fits, so that it is refused
}

// remotes are the repositories of a clone's remotes: of upstream, of origin, of
// the rest.
func remotes(folder string) (names []repo.Name) {
	urls := Remotes(folder)
	order := []string{"upstream", "origin"}
	for remote := range urls {
		if !slices.Contains(order[:2], remote) {
			order = append(order, remote)
		}
	}
	slices.Sort(order[2:])
	for _, remote := range order {
		if name, err := repo.FromURL(urls[remote]); err == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Remotes are the addresses of a clone's remotes; one may hold a password.
// .git/config is read as text: git would run what its configuration says.
func Remotes(folder string) map[string]string {
	config := filepath.Join(folder, ".git", "config")
	if info, err := os.Lstat(filepath.Join(folder, ".git")); err == nil && info.Mode().IsRegular() {
		config = filepath.Join(common(folder), "config") // of a worktree, or of a submodule
	}
	return remoteURLs(line(config, maxConfig))
}

// common is the Git folder behind a file .git, with that of all worktrees where
// there are several (gitrepository-layout(5)).
func common(folder string) string {
	at := func(base, to string) string {
		if filepath.IsAbs(to) {
			return to
		}
		return filepath.Join(base, to)
	}
	to, _ := strings.CutPrefix(strings.TrimSpace(line(filepath.Join(folder, ".git"), 4096)), "gitdir: ")
	git := at(folder, to)
	if shared := strings.TrimSpace(line(filepath.Join(git, "commondir"), 4096)); shared != "" {
		return at(git, shared)
	}
	return git
}

// line reads a small regular file; nothing where it is none.
func line(file string, limit int64) string {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, limit))
	return string(text)
}

// remoteURLs reads the url of each remote of a Git configuration, as far as git
// itself writes it: no includes, no line that goes on (git-config(1), "Syntax").
func remoteURLs(config string) map[string]string {
	urls := map[string]string{}
	remote := ""
	for lines := bufio.NewScanner(strings.NewReader(config)); lines.Scan(); {
		text := strings.TrimSpace(lines.Text())
		if section, ok := strings.CutPrefix(text, "["); ok {
			remote = ""
			kind, quoted, _ := strings.Cut(section, " ")
			if strings.EqualFold(kind, "remote") {
				remote, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(quoted), `"`), `"]`)
			}
			continue
		}
		key, value, ok := strings.Cut(text, "=")
		if ok && remote != "" && strings.EqualFold(strings.TrimSpace(key), "url") && urls[remote] == "" {
			urls[remote] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return urls
}

// cause is an error without the path.
func cause(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return err.Error()
}
