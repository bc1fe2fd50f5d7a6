package observe

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/home"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/procfs"
)

// startup are files that shells, git, Julia and other tools of builds run or obey
// without being asked to.
var startup = []string{
	".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".cargo/config", ".cargo/config.toml",
	".condarc", ".config/fish/config.fish", ".config/git/config", ".config/pip/pip.conf", ".curlrc", ".docker/config.json",
	".gdbinit", ".gemrc", ".gitconfig", ".julia/config/startup.jl", ".lldbinit", ".npmrc",
	".pip/pip.conf", ".profile", ".pythonstartup", ".Rprofile", ".ssh/config", ".ssh/environment",
	".ssh/rc", ".wgetrc", ".zprofile", ".zshenv", ".zshrc",
}

// homes are the directories where programs of this job look for settings, and
// where its checkout lies. Nothing in them is opened.
func (o *observer) homes() []gpu.Home {
	uid := o.facts.Process.UID
	dirs := []string{o.Env["HOME"], o.passwd(uid)}
	if uid == 0 {
		dirs = append(dirs, "/root")
	}
	if checkout := o.Env["BUILDKITE_BUILD_CHECKOUT_PATH"]; checkout != "" {
		dirs = append(dirs, path.Dir(path.Clean(checkout)))
	}
	dirs = append(dirs, o.Env["BUILDKITE_BUILD_PATH"])
	var all []gpu.Home
	for _, dir := range dirs {
		name, ok := within(dir)
		h := gpu.Home{Path: path.Clean(dir), Emptied: o.emptied(path.Clean(dir))}
		if !ok || slices.ContainsFunc(all, func(other gpu.Home) bool { return other.Path == h.Path }) {
			continue
		}
		if _, err := o.FS.Lstat(name); err != nil {
			continue // nothing there, or nothing that this user can look into
		}
		for _, file := range startup {
			if _, err := o.FS.Lstat(path.Join(name, file)); err == nil {
				h.Startup = append(h.Startup, file)
			}
		}
		all = append(all, h)
	}
	return all
}

// emptied tells whether a directory is among those that package kept removes. Root
// alone can say so: it looks for a directory of its, below one that is its alone.
func (o *observer) emptied(dir string) bool {
	if !procfs.Under(dir, home.Lasting) {
		return false
	}
	for name, mode := range map[string]fs.FileMode{home.Lasting: 0o755, home.Kept: 0o700} {
		info, err := o.FS.Lstat(name[1:])
		if err != nil || info.Mode() != fs.ModeDir|mode {
			return false
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 {
			return false
		}
	}
	return true
}

// passwd is a user's home, as libraries find it without $HOME.
func (o *observer) passwd(uid int) string {
	text, err := o.read("etc/passwd", mostBytes)
	o.missed(gpu.FromHomes, "/etc/passwd", err)
	return homeOf(string(text), uid)
}

// homeOf finds it in the lines of passwd(5).
func homeOf(text string, uid int) string {
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ":")
		if len(fields) == 7 && fields[2] == strconv.Itoa(uid) {
			return fields[5]
		}
	}
	return ""
}
