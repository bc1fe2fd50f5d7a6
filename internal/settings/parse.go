package settings

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// Parse reads the text of the operator's file. The error is an *Error. Path and
// Changeable stay empty.
func Parse(text []byte) (Settings, error) {
	root, err := document(text)
	if err != nil {
		return Settings{}, err
	}
	s := Settings{Isolation: Isolation{Expect: Container}}
	err = root.fields(
		field{"mode", func(v value) error { return s.readMode(v) }},
		field{"reason", func(v value) (err error) { s.Reason, err = v.text(); return err }},
		field{"isolation", func(v value) error { return s.Isolation.read(v) }},
		field{"identities", func(v value) error { return s.readIdentities(v) }},
		field{"consume", func(v value) (err error) { s.Consume, err = v.flag(); return err }},
		field{"scope-any", func(v value) error {
			word, err := v.choice("neither allow nor refuse", "allow", "refuse")
			s.ScopeAny = word == "allow"
			return err
		}},
		field{"aliases", func(v value) (err error) { s.Rules.Aliases, err = readAliases(v); return err }},
		field{"pipelines", func(v value) (err error) { s.Rules.Pipelines, err = readPipelines(v); return err }},
		field{"triggers", func(v value) (err error) { s.Rules.Triggers, err = readTriggers(v); return err }},
		field{"sources", func(v value) (err error) { s.Rules.Sources, err = readSources(v); return err }},
		field{"repositories", func(v value) (err error) { s.Rules.Repositories, err = readPatterns(v); return err }},
		field{name: "attest"}, field{name: "users"}, field{name: "gpu"}, field{name: "waivers"},
	)
	if err != nil {
		return Settings{}, err
	}
	missing := func(key, hint string) (Settings, error) {
		return Settings{}, value{root.Node, key}.errorf(hint, "missing")
	}
	switch {
	case s.Mode == "":
		return missing("mode", "write mode: direct")
	case s.Reason == "":
		return missing("reason", "say in one line why no fork's build runs on this agent")
	case s.Identities == nil:
		return missing("identities", "write a list such as - file: /run/juliagpu-secrets/identity")
	}
	return s, nil
}

func (s *Settings) readMode(v value) error {
	mode, err := v.text()
	switch {
	case err != nil:
		return err
	case mode == "split":
		return v.errorf("on an agent on which no fork's build runs, write mode: direct, and why as reason", "split mode is not in this version")
	case mode != string(Direct):
		return v.errorf("write direct", "neither direct nor split")
	}
	s.Mode = Direct
	return nil
}

func (i *Isolation) read(v value) error {
	err := v.fields(
		field{"expect", func(v value) error {
			word, err := v.choice("neither container nor host", string(Container), string(Host))
			i.Expect = Boundary(word)
			return err
		}},
		field{"reason", func(v value) (err error) { i.Reason, err = v.text(); return err }},
	)
	switch {
	case err != nil:
		return err
	case i.Expect == Host && i.Reason == "":
		return value{v.Node, v.key + ".reason"}.errorf("say in one line why nobody else's jobs run on this machine", "missing")
	case i.Expect == Container && i.Reason != "":
		return value{v.Node, v.key + ".reason"}.errorf("leave it out, or write expect: host", "a container needs no reason")
	}
	return nil
}

func (s *Settings) readIdentities(v value) error {
	return v.items(func(v value) error {
		var file IdentityFile
		err := v.fields(
			field{"file", func(v value) (err error) {
				if file.Path, err = v.text(); err != nil {
					return err
				}
				same := func(f IdentityFile) bool { return f.Path == file.Path }
				switch {
				case !filepath.IsAbs(file.Path) || filepath.Clean(file.Path) != file.Path:
					return v.errorf("write it from / on, without . or .. or a slash too many", "not an absolute, clean path")
				case slices.ContainsFunc(s.Identities, same):
					return v.errorf("keep one", "listed twice")
				}
				return nil
			}},
			field{"retired", func(v value) (err error) { file.Retired, err = v.flag(); return err }},
		)
		switch {
		case err != nil:
			return err
		case file.Path == "":
			return value{v.Node, v.key + ".file"}.errorf("name the file that holds the identity", "missing")
		case len(s.Identities) == MaxIdentities:
			return v.errorf("leave out the oldest", "more than %d files", MaxIdentities)
		}
		s.Identities = append(s.Identities, file)
		return nil
	})
}

// readAliases reads a mapping from older names to today's. Today's are no
// aliases themselves: one look-up must lead to the end.
func readAliases(v value) (map[repo.Name]repo.Name, error) {
	aliases := map[repo.Name]repo.Name{}
	err := v.entries(func(key, member value) error {
		older, err := readRepository(key)
		if err != nil {
			return err
		}
		aliases[older], err = readRepository(member)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, member := range v.members() {
		today, _ := repo.Parse(member.Value)
		if _, ok := aliases[today]; ok {
			return nil, member.errorf("lead to the name that the repository has today, and give that no alias", "leads to an alias")
		}
	}
	return aliases, nil
}

func readPipelines(v value) (map[string]repo.Name, error) {
	pipelines := map[string]repo.Name{}
	err := v.entries(func(key, member value) (err error) {
		if !isPipeline(key.Value) {
			return key.errorf("take both from the pipeline's address, buildkite.com/organization/pipeline", "not organization/pipeline, both as slugs")
		}
		pipelines[key.Value], err = readRepository(member)
		return err
	})
	return pipelines, err
}

// isPipeline accepts organization/pipeline, as Buildkite's slugs are written.
func isPipeline(s string) bool {
	slug := func(s string) bool {
		return s != "" && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
	}
	organization, pipeline, ok := strings.Cut(s, "/")
	return ok && slug(organization) && slug(pipeline)
}

func readTriggers(v value) ([]trust.Trigger, error) {
	var triggers []trust.Trigger
	err := v.items(func(v value) error {
		var t trust.Trigger
		err := v.fields(
			field{"from", func(v value) (err error) { t.From, err = readRepository(v); return err }},
			field{"to", func(v value) (err error) { t.To, err = readRepository(v); return err }},
		)
		if err == nil && (t.From.IsZero() || t.To.IsZero()) {
			err = v.errorf("write from: the repository whose builds trigger, to: the triggered one", "from or to is missing")
		}
		triggers = append(triggers, t)
		return err
	})
	return triggers, err
}

func readSources(v value) ([]string, error) {
	var sources []string
	err := v.items(func(v value) error {
		source, err := v.choice("not a source of builds", "webhook", "ui", "api", "schedule", "trigger_job")
		sources = append(sources, source)
		return err
	})
	return sources, err
}

func readPatterns(v value) ([]trust.Pattern, error) {
	var patterns []trust.Pattern
	err := v.items(func(v value) error {
		text, err := v.text()
		if err != nil {
			return err
		}
		p, err := trust.ParsePattern(text)
		if err != nil {
			hint := "write it as in github.com/juliagpu/cuda.jl or github.com/juliagpu/*"
			owner, all := strings.CutSuffix(text, "/*")
			if all {
				text = owner + "/x" // any name stands for them all
			}
			if name := spelling(text); name != "" && all {
				hint = "write " + strings.TrimSuffix(name, "x") + "*"
			} else if name != "" {
				hint = "write " + name
			}
			return v.errorf(hint, "neither a repository in its one spelling nor all of an owner")
		}
		patterns = append(patterns, p)
		return nil
	})
	return patterns, err
}

// readRepository reads a name in its one spelling.
func readRepository(v value) (repo.Name, error) {
	text, err := v.text()
	if err != nil {
		return repo.Name{}, err
	}
	name, err := repo.Parse(text)
	if err != nil {
		hint := "write it as in github.com/juliagpu/cuda.jl"
		if name := spelling(text); name != "" {
			hint = "write " + name
		}
		return repo.Name{}, v.errorf(hint, "not a repository in its one spelling")
	}
	return name, nil
}

// spelling returns the one spelling of an address, or of a name in another one,
// and nothing where that isn't certain. Without a dot in its host it could be
// part of a secret.
func spelling(text string) string {
	name, err := repo.FromURL(text)
	if err != nil {
		name, _ = repo.FromURL("https://" + text)
	}
	host, _, _ := strings.Cut(name.String(), "/")
	if !strings.Contains(host, ".") {
		return ""
	}
	return name.String()
}
