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
	maxFiles  = 500 // of one clone, with the folders that hold them
	maxDepth  = 8   // folders below .buildkite
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
	for _, f := range files {
		text, err := Read(folder, f)
		if err != nil {
			c.Texts = append(c.Texts, audit.Text{File: f.Path, Unread: cause(err)})
			continue
		}
		t := audit.Read(f.Path, text)
		// Other tools keep YAML there, too, and templates that are none.
		if t.Unread != "" && len(text) <= pipeline.MaxFile && !isDefault(f.Path) && !bytes.Contains(text, []byte("SECRET_")) {
			continue
		}
		if t.Unread != "" || t.Steps > 0 || len(t.Values) > 0 {
			c.Texts = append(c.Texts, t)
		}
	}
	return c, nil
}

// A File is one of a clone that may be a pipeline, or what was not looked into.
type File struct {
	Path string // in the clone's folder, with slashes
	Err  error  // why not
}

// Files are the files of a clone that may be pipelines. What can't be looked into is
// among them, since one could be in it. The error wraps ErrNoClone where the folder is
// no clone.
func Files(folder string) ([]File, error) {
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
func Read(folder string, f File) ([]byte, error) {
	if f.Err != nil {
		return nil, f.Err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return read(root, f.Path)
}

// A Clone is the folder of one, or a folder that was not looked into.
type Clone struct {
	Folder string
	Err    error // why not
}

// errLink says why a link to a clone, or to a folder of clones, is left alone.
var errLink = errors.New("a link, which is not followed here: name the folder that it leads to")

// Clones finds the clones in a folder: those in it, and one folder deeper, as in
// owner/name. What can't be looked into is among them, since one could be in it.
func Clones(folder string) ([]Clone, error) {
	found, err := below(folder, 2)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b Clone) int { return strings.Compare(a.Folder, b.Folder) })
	if len(found) > maxClones {
		return nil, fmt.Errorf("more than %d clones", maxClones)
	}
	return found, nil
}

// below returns the clones that are up to so many folders deeper, and not in another.
func below(folder string, depth int) (found []Clone, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		at, link := filepath.Join(folder, e.Name()), e.Type()&fs.ModeSymlink != 0
		if e.Name() == ".git" || !e.IsDir() && !link {
			continue
		}
		if info, err := os.Stat(at); link && (errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir()) {
			continue
		}
		var here []Clone
		switch _, err := os.Lstat(filepath.Join(at, ".git")); {
		case err == nil:
			here = []Clone{{at, nil}}
		case !errors.Is(err, fs.ErrNotExist):
			here = []Clone{{at, err}}
		case depth > 1:
			if here, err = below(at, depth-1); err != nil {
				here = []Clone{{at, err}}
			}
		}
		if link && len(here) > 0 {
			here = []Clone{{at, errLink}}
		}
		found = append(found, here...)
	}
	return found, nil
}

// places are where an agent looks for a pipeline (buildkite-agent pipeline upload
// --help).
var places = []string{"buildkite.yml", "buildkite.yaml", "buildkite.json", ".buildkite/pipeline.yml", ".buildkite/pipeline.yaml", ".buildkite/pipeline.json",
	"buildkite/pipeline.yml", "buildkite/pipeline.yaml", "buildkite/pipeline.json"}

func isDefault(file string) bool { return slices.Contains(places, file) }

// pipelineNames are how a file's name ends that may be a pipeline.
var pipelineNames = []string{".yml", ".yaml", ".json"}

// files are those that may be pipelines: where an agent looks, and all of YAML or
// JSON beside them.
func files(root *os.Root) []File {
	w := walker{root: root}
	for _, file := range places[:3] {
		if info, err := root.Lstat(file); err == nil && !info.IsDir() {
			w.found = append(w.found, File{file, nil})
		}
	}
	for _, folder := range []string{".buildkite", "buildkite"} {
		if info, err := root.Stat(folder); err == nil && info.IsDir() {
			w.walk(folder, info, 0)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.found = append(w.found, File{folder, err})
		}
	}
	if w.full {
		w.found = append(w.found, File{".", fmt.Errorf("more than %d files and folders, and the rest was not looked at", maxFiles)})
	}
	return w.found
}

// A walker goes through the folders of a clone, those that links in it lead to
// included, and through each once.
type walker struct {
	root    *os.Root
	found   []File
	folders []fs.FileInfo
	full    bool
}

func (w *walker) walk(folder string, info fs.FileInfo, depth int) {
	if slices.ContainsFunc(w.folders, func(other fs.FileInfo) bool { return os.SameFile(info, other) }) {
		return
	}
	w.folders = append(w.folders, info)
	entries, err := fs.ReadDir(w.root.FS(), folder)
	if err == nil && depth > maxDepth {
		err = fmt.Errorf("more than %d folders deep", maxDepth)
	}
	if err != nil {
		w.found = append(w.found, File{folder, err})
		return
	}
	for _, e := range entries {
		at, link := path.Join(folder, e.Name()), e.Type()&fs.ModeSymlink != 0
		named := slices.Contains(pipelineNames, path.Ext(at))
		if !named && !link && !e.IsDir() {
			continue
		}
		if w.full = w.full || len(w.found)+len(w.folders) > maxFiles; w.full {
			return
		}
		switch info, err := w.root.Stat(at); {
		case err == nil && info.IsDir():
			w.walk(at, info, depth+1)
		case named || err != nil && !errors.Is(err, fs.ErrNotExist): // one that leads out could be a folder, too
			w.found = append(w.found, File{at, err})
		}
	}
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
