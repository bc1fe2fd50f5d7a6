package settings

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/gpu"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// Parse reads the text of the operator's file. The error is a *strict.Error. Path
// and Changeable stay empty.
func Parse(text []byte) (Settings, error) {
	root, err := strict.Parse(text, "write mode: split or mode: direct, and what else the README asks for")
	if err != nil {
		return Settings{}, err
	}
	s := Settings{Isolation: Isolation{Expect: Container}}
	err = root.Fields(
		strict.Key("mode", s.readMode),
		strict.Key("reason", strict.Into(&s.Reason, strict.Value.Text)),
		strict.Key("isolation", s.Isolation.read),
		strict.Key("identities", s.readIdentities),
		strict.Key("consume", strict.Into(&s.Consume, strict.Value.Flag)),
		strict.Key("scope-any", func(v strict.Value) error {
			word, err := v.Choice("neither allow nor refuse", "allow", "refuse")
			s.ScopeAny = word == "allow"
			return err
		}),
		strict.Key("aliases", strict.Into(&s.Rules.Aliases, readAliases)),
		strict.Key("pipelines", strict.Into(&s.Rules.Pipelines, readPipelines)),
		strict.Key("triggers", strict.Into(&s.Rules.Triggers, readTriggers)),
		strict.Key("sources", strict.Into(&s.Rules.Sources, readSources)),
		strict.Key("repositories", strict.Into(&s.Rules.Repositories, readPatterns)),
		strict.Key("gpu", s.GPU.read),
		strict.Key("waivers", strict.Into(&s.Waivers, gpu.ReadWaivers)),
		strict.Key("users", s.readUsers),
		strict.Key("reject", s.readReject),
		strict.Key("attest", s.readAttest),
		strict.Key("older", s.Older.read),
	)
	if err != nil {
		return Settings{}, err
	}
	if err := s.checkMode(root); err != nil {
		return Settings{}, err
	}
	if v, ok := root.Get("triggers"); ok && !s.Rules.Attest {
		return Settings{}, v.Errorf("write attest:, too, or leave the pairs out", "nobody attests who triggered a build")
	}
	if err := s.Attest.limits(root, s.Mode); err != nil {
		return Settings{}, err
	}
	return s, nil
}

func (s *Settings) readMode(v strict.Value) error {
	mode, err := v.Choice("neither direct nor split", string(Direct), string(Split))
	s.Mode = Mode(mode)
	return err
}

func (i *Isolation) read(v strict.Value) error {
	err := v.Fields(
		strict.Key("expect", func(v strict.Value) error {
			word, err := v.Choice("neither container nor host", string(Container), string(Host))
			i.Expect = Boundary(word)
			return err
		}),
		strict.Key("reason", strict.Into(&i.Reason, strict.Value.Text)),
		strict.Key("report", func(v strict.Value) error {
			_, err := v.Choice("a report has one place", "artifact")
			i.Report = true
			return err
		}),
	)
	switch {
	case err != nil:
		return err
	case i.Expect == Host && i.Reason == "":
		return v.Below("reason").Errorf("say in one line why nobody else's jobs run on this machine", "missing")
	case i.Expect == Container && i.Reason != "":
		return v.Below("reason").Errorf("leave it out, or write expect: host", "a container needs no reason")
	}
	return nil
}

func (s *Settings) readIdentities(v strict.Value) error {
	return v.Items(func(v strict.Value) error {
		var file IdentityFile
		err := v.Fields(
			strict.Key("file", func(v strict.Value) (err error) {
				if file.Path, err = readPath(v); err != nil {
					return err
				}
				if slices.ContainsFunc(s.Identities, func(f IdentityFile) bool { return f.Path == file.Path }) {
					return v.Errorf("keep one", "listed twice")
				}
				return nil
			}),
			strict.Key("retired", strict.Into(&file.Retired, strict.Value.Flag)),
		)
		switch {
		case err != nil:
			return err
		case file.Path == "":
			return v.Below("file").Errorf("name the file that holds the identity", "missing")
		case len(s.Identities) == MaxIdentities:
			return v.Errorf("leave out the oldest", "more than %d files", MaxIdentities)
		}
		s.Identities = append(s.Identities, file)
		return nil
	})
}

// read takes a policy, or the file that holds it.
func (g *GPU) read(v strict.Value) (err error) {
	if file, ok := v.Only("file"); ok {
		g.File, err = readPath(file)
		return err
	}
	policy, err := gpu.ReadPolicy(v)
	g.Policy = &policy
	return err
}

func readPath(v strict.Value) (string, error) {
	path, err := v.Text()
	if err == nil && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
		err = v.Errorf("write it from / on, without . or .. or a slash too many", "not an absolute, clean path")
	}
	return path, err
}

// readAliases reads a mapping from older names to today's. Today's are no
// aliases themselves: one look-up must lead to the end.
func readAliases(v strict.Value) (map[repo.Name]repo.Name, error) {
	aliases := map[repo.Name]repo.Name{}
	err := v.Entries(func(key, member strict.Value) error {
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
	return aliases, v.Entries(func(_, member strict.Value) error {
		if today, err := readRepository(member); err != nil || !aliases[today].IsZero() {
			return member.Errorf("lead to the name that the repository has today, and give that no alias", "leads to an alias")
		}
		return nil
	})
}

func readPipelines(v strict.Value) (map[string]repo.Name, error) {
	pipelines := map[string]repo.Name{}
	err := v.Entries(func(key, member strict.Value) error {
		slug, err := key.Text()
		switch {
		case err != nil:
			return err
		case !names.IsPipeline(slug):
			return key.Errorf("take both from the pipeline's address, buildkite.com/organization/pipeline", "not organization/pipeline, both as slugs")
		}
		pipelines[slug], err = readRepository(member)
		return err
	})
	return pipelines, err
}

func readTriggers(v strict.Value) ([]trust.Trigger, error) {
	var triggers []trust.Trigger
	err := v.Items(func(v strict.Value) error {
		var t trust.Trigger
		err := v.Fields(
			strict.Key("from", strict.Into(&t.From, readRepository)),
			strict.Key("to", strict.Into(&t.To, readRepository)),
		)
		if err == nil && (t.From.IsZero() || t.To.IsZero()) {
			err = v.Errorf("write from: the repository whose builds trigger, to: the triggered one", "from or to is missing")
		}
		triggers = append(triggers, t)
		return err
	})
	return triggers, err
}

func readSources(v strict.Value) ([]string, error) {
	var sources []string
	err := v.Items(func(v strict.Value) error {
		source, err := v.Choice("not a source of builds", "webhook", "ui", "api", "schedule", "trigger_job")
		sources = append(sources, source)
		return err
	})
	return sources, err
}

func readPatterns(v strict.Value) ([]trust.Pattern, error) {
	var patterns []trust.Pattern
	err := v.Items(func(v strict.Value) error {
		text, err := v.Text()
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
			return v.Errorf(hint, "neither a repository in its one spelling nor all of an owner")
		}
		patterns = append(patterns, p)
		return nil
	})
	return patterns, err
}

// readRepository reads a name in its one spelling.
func readRepository(v strict.Value) (repo.Name, error) {
	text, err := v.Text()
	if err != nil {
		return repo.Name{}, err
	}
	name, err := repo.Parse(text)
	if err != nil {
		hint := "write it as in github.com/juliagpu/cuda.jl"
		if name := spelling(text); name != "" {
			hint = "write " + name
		}
		return repo.Name{}, v.Errorf(hint, "not a repository in its one spelling")
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
