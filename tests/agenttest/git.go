//go:build unix

package agenttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// GitRepo makes a Git repository in the directory dir, with one commit on the
// branch main that holds files (path to content, all executable, so that hooks
// work), and a tag of that commit for each of tags. It returns the commit's hash.
func GitRepo(dir string, files map[string]string, tags ...string) (commit string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := git(dir, "init", "--quiet", "--initial-branch=main"); err != nil {
		return "", err
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return "", err
		}
	}
	if _, err := git(dir, "add", "--all"); err != nil {
		return "", err
	}
	if _, err := git(dir, "commit", "--quiet", "--allow-empty", "--message=test"); err != nil {
		return "", err
	}
	for _, tag := range tags {
		if _, err := git(dir, "tag", tag); err != nil {
			return "", err
		}
	}
	return git(dir, "rev-parse", "HEAD")
}

// git runs Git without the configuration of whoever runs the tests.
func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.com",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.com",
	}
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, text)
	}
	return strings.TrimSpace(string(text)), nil
}

// gitConfig is a global Git configuration under which each address of repos is
// fetched from its local directory instead.
func gitConfig(repos map[string]string) string {
	var b strings.Builder
	b.WriteString("[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n")
	for address, dir := range repos {
		fmt.Fprintf(&b, "[url %q]\n\tinsteadOf = %q\n", dir, address)
	}
	return b.String()
}
