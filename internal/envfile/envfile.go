// Package envfile reads the job's environment from the file that the agent gives
// to its pre-bootstrap hook.
//
// There are two forms (v3.81.0 and later, agent/job_runner.go):
//
//   - job-env-ID…: NAME="value" a line, in no order. The value is quoted as Go
//     does, the name is not: a name with a line break in it makes two lines. So
//     every line counts for what it seems to be, and for what could be behind it.
//   - job-env-json-ID…: one object of names and values, of newer agents. It can't
//     be forged, and is read where it is given.
//
// Both hold what the server states, before the agent sets its own variables. (Seen
// with v3.81.0: none of BUILDKITE_HOOKS_PATH, _BIN_PATH, _SOCKETS_PATH and their
// like is in the file, unless the job states them.)
package envfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gate"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
)

// varJSON names the file in the newer form.
const varJSON = "BUILDKITE_ENV_JSON_FILE"

// maxFile is the largest file, in bytes. Linux starts no process with more than
// 6 MiB of environment (execve(2)); quoting can make four bytes of one.
const maxFile = 24 << 20

// ErrNoFile says that this process is not the agent's pre-bootstrap hook, or that
// the file is not the agent's.
var ErrNoFile = errors.New("no file with the job's environment")

// An Environment is what the file says.
type Environment struct {
	Vars []string // NAME=value, as os.Environ has it; a name that is stated twice is there twice
	// Doubt says why nothing that it states is to be trusted; empty: nothing.
	Doubt string
	// Replaced names a variable of the agent's own that the job would replace, see
	// gate.Replaces: the job must not start. Empty: none.
	Replaced string
}

// Read reads the file that the agent names in environ, and returns the job id
// that the agent states. The error wraps ErrNoFile, job.ErrNoID or the kernel's.
func Read(environ []string) (job.ID, Environment, error) {
	lines, jsonFile, stated := job.Lookup(environ, job.VarEnvFile), job.Lookup(environ, varJSON), job.Lookup(environ, job.VarID)
	if lines == "" {
		return job.ID{}, Environment{}, fmt.Errorf("%w: %s is not set", ErrNoFile, job.VarEnvFile)
	}
	id, err := job.IDOfFile(lines, "job-env-")
	if err != nil {
		return job.ID{}, Environment{}, fmt.Errorf("%w: %s has another name", err, job.VarEnvFile)
	}
	path, parse := lines, parseLines
	if jsonFile != "" {
		path, parse = jsonFile, parseJSON
		if other, err := job.IDOfFile(jsonFile, "job-env-json-"); err != nil || other != id {
			return job.ID{}, Environment{}, fmt.Errorf("%w: %s and %s are not of one job", job.ErrNoID, job.VarEnvFile, varJSON)
		}
		// These agents state it, too. An older one may pass on what it was started with.
		if stated != id.String() {
			return job.ID{}, Environment{}, fmt.Errorf("%w: %s and %s are not of one job", job.ErrNoID, job.VarEnvFile, job.VarID)
		}
	}
	text, err := read(path)
	if err != nil {
		return id, Environment{}, err
	}
	e := parse(text)
	if own := job.Lookup(e.Vars, job.VarID); own != id.String() && e.Doubt == "" {
		e.Doubt = fmt.Sprintf("the job states %s=%s, but the agent %s", job.VarID, escape.Text(own), id)
	}
	return id, e, nil
}

// read reads a file of the agent's: it lies in the agent's folder for temporary
// files, where jobs may write, too.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if kernel := (*fs.PathError)(nil); errors.As(err, &kernel) {
			err = kernel.Err
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrNoFile, path, err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoFile, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 || st.Nlink != 1 {
		return nil, fmt.Errorf("%w: %s is not the agent's alone", ErrNoFile, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoFile, path, err)
	}
	return text, nil
}

// parseLines reads the older form.
func parseLines(text []byte) (e Environment) {
	for line := range bytes.Lines(text) {
		line, ended := strings.CutSuffix(string(line), "\n")
		name, quoted, ok := strings.Cut(line, "=")
		// Not compared with what this program's Go would write: which letters it
		// writes as they are depends on its release.
		value, err := strconv.Unquote(quoted)
		if !ended || !ok || err != nil || quoted[0] != '"' {
			// Whatever the name was, the bootstrap would see this one.
			if ok && gate.Replaces(name+"=") {
				e.replaced(name)
			}
			e.doubt("the agent's file holds a line that can't be read, %s: a variable of this job has a name that is none", escape.Text(shorten(line)))
			continue
		}
		e.add(name, value)
	}
	return e
}

// shorten leaves of a line what is no value: it may be a secret, pasted raw.
func shorten(line string) string {
	name, _, _ := strings.Cut(line, "=")
	return name
}

// parseJSON reads the newer form.
func parseJSON(text []byte) (e Environment) {
	const unreadable = "the agent's file can't be read as JSON: names and values"
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return Environment{Doubt: unreadable}
	}
	for d.More() {
		name, err := d.Token()
		var value any
		if err == nil {
			value, err = d.Token()
		}
		n, isName := name.(string)
		v, isText := value.(string)
		if err != nil || !isName || !isText {
			e.Doubt = unreadable
			return e
		}
		e.add(n, v)
	}
	if t, err := d.Token(); err != nil || t != json.Delim('}') {
		e.Doubt = unreadable
		return e
	}
	if _, err := d.Token(); err != io.EOF {
		e.doubt(unreadable)
	}
	return e
}

func (e *Environment) add(name, value string) {
	if gate.Replaces(name) {
		e.replaced(name)
	}
	if !isVariable(name) {
		e.doubt("this job has a variable named %s, which is no name", escape.Text(name))
	}
	e.Vars = append(e.Vars, name+"="+value)
}

func (e *Environment) replaced(name string) {
	if e.Replaced == "" {
		e.Replaced, _, _ = strings.Cut(name, "=")
	}
}

func (e *Environment) doubt(format string, args ...any) {
	if e.Doubt == "" {
		e.Doubt = fmt.Sprintf(format, args...)
	}
}

// isVariable accepts what a shell takes for a variable's name. An agent lets others
// through, such as BASH_FUNC_x%%: who sets one is up to something. An agent's tags
// become BUILDKITE_AGENT_META_DATA_…, whatever their letters.
func isVariable(name string) bool {
	more := ""
	if tag, ok := strings.CutPrefix(name, "BUILDKITE_AGENT_META_DATA_"); ok && tag != "" {
		more = ".:/-"
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && !(i > 0 && '0' <= c && c <= '9') && !strings.ContainsRune(more, rune(c)) {
			return false
		}
	}
	return name != ""
}
