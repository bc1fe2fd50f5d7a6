package settings

import (
	"slices"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/strict"
)

// Older says which values of the older RSA forms still open. These name neither a
// variable nor a repository, so the operator does. The zero Older: none.
type Older struct {
	Key    string                 // file of the RSA key, in PEM
	Serves map[repo.Name][]string // which variables each repository may have
}

func (o *Older) read(v strict.Value) error {
	err := v.Fields(
		strict.Key("key", strict.Into(&o.Key, readPath)),
		strict.Key("serves", strict.Into(&o.Serves, readServes)),
	)
	switch {
	case err != nil:
		return err
	case o.Key == "":
		return v.Below("key").Errorf("name the file that holds the RSA key of the older tool", "missing")
	case len(o.Serves) == 0:
		return v.Below("serves").Errorf("list each repository with the variables that it may have, as in github.com/juliagpu/cuda.jl: [CODECOV_TOKEN]", "missing")
	}
	return nil
}

func readServes(v strict.Value) (map[repo.Name][]string, error) {
	serves := map[repo.Name][]string{}
	err := v.Entries(func(key, member strict.Value) error {
		name, err := readRepository(key)
		if err != nil {
			return err
		}
		return member.Items(func(v strict.Value) error {
			variable, err := v.Text()
			switch {
			case err != nil:
				return err
			case names.Check(variable) != nil || strings.HasPrefix(variable, names.Prefix):
				return v.Errorf("write it as steps read it, CODECOV_TOKEN and not SECRET_CODECOV_TOKEN", "not a variable that a sealed value may set")
			case slices.Contains(serves[name], variable):
				return v.Errorf("keep one", "listed twice")
			}
			serves[name] = append(serves[name], variable)
			return nil
		})
	})
	return serves, err
}

// Credential is the file of the key.
func (o Older) Credential() credential.File {
	return credential.File{Kind: "RSA key", Path: o.Key}
}
