//go:build !js

package main

import (
	_ "embed"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/pipeline"
)

// The scripts of encrypt completion. Each asks encrypt completion -- WORD..., with
// the words before the cursor, what may come next.
//
//go:embed completion/encrypt.bash
var bashScript string

//go:embed completion/encrypt.zsh
var zshScript string

//go:embed completion/encrypt.fish
var fishScript string

//go:embed completion/encrypt.ps1
var powershellScript string

var shells = map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript, "powershell": powershellScript}

var shellNames = []string{"bash", "zsh", "fish", "powershell"}

func completion(args []string, stdout io.Writer) error {
	if len(args) > 0 && args[0] == "--" {
		_, err := io.WriteString(stdout, strings.Join(append(answers(args[1:]), ""), "\n"))
		return err
	}
	o, err := parse(append([]string{"completion"}, args...))
	if err != nil {
		return err
	}
	if len(o.operands) != 1 || shells[o.operands[0]] == "" {
		return misused("encrypt completion --help says where it goes", "which shell? %s", strings.Join(shellNames, ", "))
	}
	_, err = io.WriteString(stdout, shells[o.operands[0]])
	return err
}

// answers are the words that may follow those before the cursor; :file stands for
// any file. A shell offers those that begin like what is typed.
func answers(before []string) []string {
	before = slices.DeleteFunc(slices.Clone(before), func(s string) bool { return s == "=" }) // bash splits there
	c, word, rest := commandOf(before)
	if len(rest) > 0 {
		if f, ok := c.flag(rest[len(rest)-1]); ok && f.takes != "" {
			if slices.Contains(f.words, anyStep) {
				return stepKeys(rest)
			}
			return f.words
		}
	}
	var all []string
	switch {
	case word == "show":
		all = append(all, anyFile)
	case word == "completion" && len(rest) == 0:
		all = append(all, shellNames...)
	case len(before) == 0:
		all = append(all, "show", "completion")
	}
	for _, f := range c.flags() {
		for _, name := range f.names {
			all = append(all, dashed(name))
		}
	}
	return all
}

// flag finds a flag as package flag does: with one hyphen or two.
func (c *command) flag(arg string) (flagSpec, bool) {
	name, ok := strings.CutPrefix(arg, "-")
	name = strings.TrimPrefix(name, "-")
	for _, f := range c.flags() {
		if ok && slices.Contains(f.names, name) {
			return f, true
		}
	}
	return flagSpec{}, false
}

// harmless are keys that no shell takes for anything else.
var harmless = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// stepKeys are those of the file of --write.
func stepKeys(args []string) (keys []string) {
	i := slices.IndexFunc(args, func(s string) bool { return strings.TrimLeft(s, "-") == "write" })
	if i < 0 || i+1 == len(args) {
		return nil
	}
	f, err := os.Open(args[i+1])
	if err != nil {
		return nil
	}
	defer f.Close()
	file, err := io.ReadAll(io.LimitReader(f, pipeline.MaxFile+1))
	if err != nil {
		return nil
	}
	keys, _ = pipeline.Keys(file)
	return slices.DeleteFunc(keys, func(key string) bool { return !harmless.MatchString(key) })
}
