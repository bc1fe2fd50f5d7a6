//go:build unix

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Setup is how an agent was started: its arguments, its environment, and its
// configuration file, in this order of precedence (v3.81.0, cliconfig/loader.go).
// What the agent sets by itself is not in it.
type Setup struct {
	// File is the agent's configuration file, absolute; empty: it has none.
	File string

	args, env []string
	file      map[string]string
}

// Setup reads how the agent was started, on the kernel's word. It needs the
// agent's privilege.
func (a Agent) Setup() (Setup, error) {
	var s Setup
	for name, list := range map[string]*[]string{"cmdline": &s.args, "environ": &s.env} {
		text, err := os.ReadFile(procFile(a.PID, name))
		if err != nil {
			return Setup{}, fmt.Errorf("how the agent was started: %w", err)
		}
		*list = strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
	}
	if err := s.find(filepath.Dir(a.Exe)); err != nil {
		return Setup{}, err
	}
	if s.File == "" {
		return s, nil
	}
	text, err := os.ReadFile(s.File)
	if err != nil {
		return Setup{}, err
	}
	s.file = parse(string(text))
	return s, nil
}

// find finds the configuration file: the one that is named, else the first of the
// agent's defaults that is there (defaultConfigFilePaths, clicommand/agent_start.go).
func (s *Setup) find(folder string) error {
	if named := s.Values("config", "BUILDKITE_AGENT_CONFIG"); len(named) > 0 {
		path := named[len(named)-1]
		if !filepath.IsAbs(path) {
			return fmt.Errorf("the agent's configuration file has a relative path: write it from / on")
		}
		s.File = path
		return nil
	}
	for _, path := range []string{
		filepath.Join(folder, "buildkite-agent.cfg"),
		filepath.Join(s.lookup("HOME"), ".buildkite-agent/buildkite-agent.cfg"),
		"/usr/local/etc/buildkite-agent/buildkite-agent.cfg",
		"/etc/buildkite-agent/buildkite-agent.cfg",
	} {
		if _, err := os.Stat(path); err == nil && filepath.IsAbs(path) {
			s.File = path
			return nil
		}
	}
	return nil
}

// Values returns what a setting was given as, in the strongest place that has it:
// each occurrence of its flag, else its variable, else the file. A flag that takes
// a value has it behind "=" or as the next argument; for one that does not, as
// --disconnect-after-job, the next argument is no part of it: see On.
func (s Setup) Values(flag, variable string) []string {
	var values []string
	for i, arg := range s.args {
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case name != flag || !strings.HasPrefix(arg, "-"):
		case ok:
			values = append(values, value)
		case i+1 < len(s.args):
			values = append(values, s.args[i+1])
		}
	}
	if len(values) > 0 {
		return values
	}
	if value := s.lookup(variable); value != "" {
		return []string{value}
	}
	if value := s.file[flag]; value != "" {
		return []string{value}
	}
	return nil
}

// On tells whether a setting that takes no value is on.
func (s Setup) On(flag, variable string) bool {
	values := []string{s.file[flag]}
	if value := s.lookup(variable); value != "" {
		values = []string{value}
	}
	for _, arg := range s.args {
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == flag && strings.HasPrefix(arg, "-") {
			if !ok {
				value = "true"
			}
			values = []string{value}
		}
	}
	on, _ := strconv.ParseBool(values[0])
	return on
}

// InArguments tells whether a setting was given as an argument, where every user
// of the machine can read it.
func (s Setup) InArguments(flag string) bool {
	return slices.ContainsFunc(s.args, func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		return name == flag && strings.HasPrefix(arg, "-")
	})
}

// InFile tells whether the configuration file has a setting.
func (s Setup) InFile(flag string) bool { return s.file[flag] != "" }

func (s Setup) lookup(name string) string {
	for _, entry := range s.env {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// parse reads a configuration file, lines of name="value" or name: value. Where
// the agent's own reading of odd quotes differs, so may this one.
func parse(text string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			name, value, ok = strings.Cut(line, ":")
		}
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if quote := strings.IndexAny(value, `"'`); quote == 0 {
			value, _, _ = strings.Cut(value[1:], value[:1])
		} else {
			value, _, _ = strings.Cut(value, "#")
		}
		settings[strings.TrimSpace(strings.TrimPrefix(name, "export "))] = strings.TrimSpace(value)
	}
	return settings
}
