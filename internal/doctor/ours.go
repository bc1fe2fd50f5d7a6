package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

func hooksMissing(f *Facts) []found {
	if len(f.Hooks.Missing) == 0 {
		return nil
	}
	if len(f.Hooks.Builds) == 0 {
		return one("none of ours is installed")
	}
	return one("not there: %s", names(f.Hooks.Missing))
}

func hooksWrong(f *Facts) []found { return ifs(f.Hooks.Wrong) }

func hooksMixed(f *Facts) []found {
	if len(f.Hooks.Builds) < 2 {
		return nil
	}
	var parts []string
	for build, programs := range f.Hooks.Builds {
		parts = append(parts, build+": "+names(programs))
	}
	slices.Sort(parts)
	return one("%s", strings.Join(parts, "; "))
}

func permConfig(f *Facts) []found { return if1(f.Config.Open) }

func configMissing(f *Facts) []found {
	if !f.Config.Missing {
		return nil
	}
	return one("%s is not there", f.Config.Path)
}

func configTwo(f *Facts) []found {
	if !f.Config.Two {
		return nil
	}
	return one("/usr/lib/juliagpu-secrets/config.yml and /etc/juliagpu-secrets/config.yml")
}

func configWrong(f *Facts) []found { return if1(f.Config.Wrong) }

func configDirect(f *Facts) []found {
	if !direct(f.Config.Is) {
		return nil
	}
	return one("%s: mode: direct", f.Config.Path)
}

// Given is the folder in which an agent's container has its credentials.
const Given = "/run/juliagpu-secrets/credentials"

func configPaths(f *Facts) []found {
	if f.Config.Is == nil || len(f.Agents) == 0 {
		return nil
	}
	var others []string
	for _, c := range f.Config.Is.Credentials() {
		if path.Dir(c.Path) != Given {
			others = append(others, c.Path)
		}
	}
	if others == nil {
		return nil
	}
	return one("%s names %s", f.Config.Path, names(others))
}

// credentials is a finding for each of which problem returns one.
func credentials(f *Facts, problem func(Credential) Problem) (all []found) {
	for _, c := range f.Credentials {
		if p := problem(c); p.What != "" {
			all = append(all, found{Problem: p})
		}
	}
	return all
}

func credentialMissing(f *Facts) []found {
	return credentials(f, func(c Credential) (p Problem) {
		if c.Needed && !c.There && c.Open.What == "" {
			p.What = c.Path + " is not there"
		}
		return p
	})
}

func credentialReadable(f *Facts) []found {
	return credentials(f, func(c Credential) (p Problem) {
		if c.Kind != NotNamed {
			p = c.Open
		}
		return p
	})
}

func credentialOther(f *Facts) []found {
	return credentials(f, func(c Credential) (p Problem) {
		if c.Kind == NotNamed {
			p = c.Open
		}
		return p
	})
}

func credentialTwice(f *Facts) []found {
	return credentials(f, func(c Credential) (p Problem) {
		if c.Beside != "" {
			p.What = fmt.Sprintf("%s: both %s and %s", c.Kind, c.Path, c.Beside)
		}
		return p
	})
}

func credentialUnloaded(f *Facts) (all []found) {
	for _, c := range f.Credentials {
		if len(c.Unloaded) == 0 {
			continue
		}
		name := strings.TrimSuffix(path.Base(c.Path), ".cred")
		all = append(all, found{about: c.Unloaded, Problem: Problem{
			fmt.Sprintf("%s: the units of %s have no LoadCredentialEncrypted=%s:", c.Path, names(c.Unloaded), name),
			fmt.Sprintf("systemctl edit buildkite-agent@: [Service] LoadCredentialEncrypted=%s:%s; /usr/share/juliagpu-secrets/systemd/encrypted.conf is an example", name, c.Path),
		}})
	}
	return all
}

func credentialWrong(f *Facts) []found {
	return credentials(f, func(c Credential) (p Problem) {
		if c.Kind != "identity" {
			p = c.Wrong
		}
		return p
	})
}

func identityUnreadable(f *Facts) []found {
	return credentials(f, func(c Credential) (p Problem) {
		if c.Kind == "identity" {
			p = c.Wrong
		}
		return p
	})
}

func credentialPlain(f *Facts) []found {
	var plain []string
	for _, c := range f.Credentials {
		if c.There && !c.Encrypted && c.Kind != NotNamed {
			plain = append(plain, c.Path)
		}
	}
	if plain == nil {
		return nil
	}
	return one("%s", names(plain))
}

func credentialKept(f *Facts) []found {
	if !f.JobRuns || f.Config.Is == nil || !f.Config.Is.Consume {
		return nil
	}
	return credentials(f, func(c Credential) (p Problem) {
		if c.There {
			p.What = c.Path + " is there beside a job"
		}
		return p
	})
}

func credentialGone(f *Facts) []found {
	if f.JobRuns {
		return nil
	}
	return credentials(f, func(c Credential) (p Problem) {
		if c.Needed && !c.There {
			p.What = c.Path + " is not there"
		}
		return p
	})
}

func identityRetired(f *Facts) (all []found) {
	if f.Config.Is != nil {
		for _, i := range f.Config.Is.Identities {
			if i.Retired {
				all = append(all, one("%s says retired: true of %s", f.Config.Path, i.Path)...)
			}
		}
	}
	return all
}

func usersMissing(f *Facts) []found { return if1(f.Config.Users) }
func usersOwn(f *Facts) []found     { return ifs(f.Own) }

func apiUnreachable(f *Facts) []found {
	if f.API.Token {
		return nil
	}
	return if1(f.API.Silent)
}

func apiToken(f *Facts) []found {
	if !f.API.Token {
		return nil
	}
	return if1(f.API.Silent)
}

// needed are the scopes that attestation asks with.
var needed = []string{"read_builds", "read_pipelines"}

// scopes are those of the token for which is holds.
func (f *Facts) scopes(is func(string) bool) (all []string) {
	for _, s := range f.API.Scopes {
		if is(s) {
			all = append(all, s)
		}
	}
	return all
}

func apiScopes(f *Facts) []found {
	var lacking []string
	for _, s := range needed {
		if !slices.Contains(f.API.Scopes, s) {
			lacking = append(lacking, s)
		}
	}
	if !f.API.Asked || lacking == nil {
		return nil
	}
	return one("it lacks %s", strings.Join(lacking, " and "))
}

// reads tells whether a scope lets nobody change anything. A name of which that is
// not certain, as graphql, does not.
func reads(scope string) bool { return strings.HasPrefix(scope, "read_") }

func apiPower(f *Facts) []found {
	if more := f.scopes(func(s string) bool { return !reads(s) }); more != nil {
		return one("it has %s", names(more))
	}
	return nil
}

func apiMore(f *Facts) []found {
	if more := f.scopes(func(s string) bool { return reads(s) && !slices.Contains(needed, s) }); more != nil {
		return one("it has %s", names(more))
	}
	return nil
}

func apiOrganization(f *Facts) []found {
	if p := f.API.Organization; p.What != "" {
		return []found{{Problem: Problem{fmt.Sprintf("%s: %s", f.Config.Is.Attest.Organization, p.What), p.Fix}}}
	}
	return nil
}
