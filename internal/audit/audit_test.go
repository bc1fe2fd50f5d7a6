package audit

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

var update = flag.Bool("update", false, "write the golden files anew; read them in the diff")

var now = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)

func name(s string) repo.Name {
	n, err := repo.Parse(s)
	if err != nil {
		panic(err)
	}
	return n
}

var cuda, amdgpu = name("github.com/juliagpu/cuda.jl"), name("github.com/juliagpu/amdgpu.jl")

// Recipients of two sites; nobody has their identities.
const (
	lab   = "age1xjj7w52vwjy2l8d7t2vwe6m4c6kpks30dxdag9tdta5k9wc7eu3sq89udk"
	other = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
)

func seal(t *testing.T, l envelope.Label, to ...string) string {
	t.Helper()
	var recipients []envelope.Recipient
	for _, text := range to {
		r, err := envelope.ParseRecipient(text)
		require.NoError(t, err)
		recipients = append(recipients, r)
	}
	text, err := envelope.Seal(l, plaintext.New("hunter2-canary"), recipients...)
	require.NoError(t, err)
	return text
}

// quiet is an organization of which nothing is to be said.
func quiet(t *testing.T) Facts {
	sealed := seal(t, envelope.Label{Name: "A", Repos: []repo.Name{cuda}}, lab)
	return Facts{
		Organization: "juliagpu",
		Pipelines: []Pipeline{
			{Slug: "cuda-jl", Address: "https://github.com/JuliaGPU/CUDA.jl.git", Provider: "github", Mode: "code", Rebuilds: true, Forks: true, Prefixed: true,
				Steps: Read("", []byte("steps: [{key: test, command: make, env: {SECRET_A: "+sealed+"}}]"))},
			{Slug: "amdgpu-jl", Address: "git@github.com:JuliaGPU/AMDGPU.jl", Provider: "github", Mode: "code", Rebuilds: true},
		},
		Rules: Rules{Path: "/etc/juliagpu-secrets/config.yml", Rules: trust.Rules{
			Attest: true, Pipelines: map[string]repo.Name{"juliagpu/cuda-jl": cuda, "juliagpu/amdgpu-jl": amdgpu},
		}},
		Recipients: map[string]string{envelope.Fingerprint(lab): "The Lab"},
		Now:        now,
	}
}

// TestQuiet: a finding that is always there would teach people not to read them.
func TestQuiet(t *testing.T) {
	r := Judge(quiet(t))
	require.Empty(t, r.Findings)
	require.Zero(t, r.Status())
	require.Equal(t, Counts{Pipelines: 2, Values: 1}, r.Counts)
}

// TestJudge changes one thing of a quiet organization, and gets one finding.
func TestJudge(t *testing.T) {
	cudaLabel := func(change func(*envelope.Label)) envelope.Label {
		l := envelope.Label{Name: "A", Repos: []repo.Name{cuda}}
		change(&l)
		return l
	}
	with := func(env string) func(*Facts) {
		return func(f *Facts) {
			f.Pipelines[0].Steps = Read("", []byte("steps: [{key: test, command: make, env: {"+env+"}}]"))
		}
	}
	sealed := func(change func(*envelope.Label), to ...string) func(*Facts) {
		return with("SECRET_A: " + seal(t, cudaLabel(change), append(to, lab)...))
	}
	claimed := func(f *Facts) { f.Rules.Attest = false }
	rsa := strings.Repeat("A", 342) + "=="
	vector, err := os.ReadFile("../envelope/testdata/vectors/granted-unlabelled")
	require.NoError(t, err)
	_, unlabelled, _ := strings.Cut(string(vector), "\n\n")
	for _, tt := range []struct {
		about  string
		change func(*Facts)
		want   []string
		what   string
	}{
		{"forks, and neither attestation nor map", func(f *Facts) { claimed(f); f.Rules.Pipelines = nil }, []string{"fork.claims", "fork.rebuild", "map.none"}, ""},
		{"forks, and no configuration", func(f *Facts) { f.Rules = Rules{} }, []string{"fork.claims", "fork.rebuild", "map.none"}, ""},
		{"forks, and a map", claimed, []string{"fork.unattested", "fork.rebuild"}, ""},
		{"forks, and a map, no rebuilds", func(f *Facts) { claimed(f); f.Pipelines[0].Rebuilds = false }, []string{"fork.unattested"}, ""},
		{"forks, and a map that lacks the pipeline", func(f *Facts) { claimed(f); delete(f.Rules.Pipelines, "juliagpu/cuda-jl") }, []string{"map.missing"}, ""},
		{"no forks, and nothing attested", func(f *Facts) { claimed(f); f.Pipelines[0].Forks = false }, nil, ""},
		{"forks in direct mode", func(f *Facts) { f.Rules.Direct = true }, []string{"fork.direct"}, ""},
		{"direct mode without forks", func(f *Facts) { f.Rules.Direct = true; f.Pipelines[0].Forks = false }, nil, ""},
		{"forks without a prefix", func(f *Facts) { f.Pipelines[0].Prefixed = false }, []string{"fork.prefix"}, ""},
		{"builds on a fork", func(f *Facts) { f.Pipelines[1].Mode = "fork" }, []string{"start.fork"}, ""},
		{"an archived pipeline", func(f *Facts) { claimed(f); f.Pipelines[0].Archived = true; f.Pipelines[0].Prefixed = false }, nil, ""},

		{"another repository in the map", func(f *Facts) { f.Rules.Pipelines["juliagpu/cuda-jl"] = amdgpu }, []string{"map.other"}, "builds github.com/juliagpu/cuda.jl, mapped to github.com/juliagpu/amdgpu.jl"},
		{"an older name in the map", func(f *Facts) {
			f.Rules.Pipelines["juliagpu/cuda-jl"] = name("github.com/juliagpu/cudanative.jl")
			f.Rules.Aliases = map[repo.Name]repo.Name{name("github.com/juliagpu/cudanative.jl"): cuda}
		}, nil, ""},
		{"nothing in the map, attested", func(f *Facts) { f.Rules.Pipelines = nil }, nil, ""},
		{"a pipeline that is not there", func(f *Facts) { f.Rules.Pipelines["juliagpu/gone"] = cuda }, []string{"map.stale"}, ""},
		{"another organization's", func(f *Facts) { f.Rules.Pipelines["else/gone"] = cuda }, nil, ""},
		{"an address without a name", func(f *Facts) { f.Pipelines[1].Address = "/srv/git/x" }, []string{"map.other", "repo.unnamed"}, ""},
		{"two pipelines of a repository", func(f *Facts) {
			f.Pipelines = append(f.Pipelines, Pipeline{Slug: "nightly", Address: "https://github.com/juliagpu/cuda.jl"})
			f.Rules.Pipelines["juliagpu/nightly"] = cuda
		}, []string{"repo.twice"}, "cuda-jl, nightly"},
		{"a password", func(f *Facts) { f.Pipelines[1].Credentials = true }, []string{"repo.credentials"}, ""},
		{"a public one with values", func(f *Facts) { f.Pipelines[0].Public = true }, []string{"logs.public"}, ""},
		{"a public one without", func(f *Facts) { f.Pipelines[1].Public = true }, nil, ""},

		{"a trigger across repositories", func(f *Facts) { f.Pipelines[1].Steps = Read("", []byte("steps: [{trigger: cuda-jl}]")) }, []string{"trigger.cross"}, "starts cuda-jl of github.com/juliagpu/cuda.jl"},
		{"a trusted trigger", func(f *Facts) {
			f.Pipelines[1].Steps = Read("", []byte("steps: [{trigger: cuda-jl}]"))
			f.Rules.Triggers = []trust.Trigger{{From: amdgpu, To: cuda}}
		}, []string{"trigger.listed"}, ""},
		{"a trusted trigger the other way round", func(f *Facts) {
			f.Pipelines[1].Steps = Read("", []byte("steps: [{trigger: cuda-jl}]"))
			f.Rules.Triggers = []trust.Trigger{{From: cuda, To: amdgpu}}
		}, []string{"trigger.cross"}, ""},
		{"a trigger within", func(f *Facts) { f.Pipelines[1].Steps = Read("", []byte("steps: [{trigger: amdgpu-jl}]")) }, nil, ""},
		{"a trigger to a variable", func(f *Facts) { f.Pipelines[1].Steps = Read("", []byte("steps: [{trigger: $TARGET}]")) }, []string{"trigger.unknown"}, "starts $TARGET"},

		{"broken steps", func(f *Facts) { f.Pipelines[1].Steps = Read("", []byte("steps: [")) }, []string{"steps.unread"}, "1: not YAML from about here on"},
		{"more values than anybody has", func(f *Facts) {
			f.Pipelines[1].Steps = Read("", []byte("steps: []\nx:\n"+strings.Repeat("- env: {SECRET_A: b}\n", maxValues+1)))
		}, []string{"steps.unread"}, "more than 1000 SECRET_ variables"},
		{"steps elsewhere", func(f *Facts) {
			f.Pipelines[1].Steps = Read("", []byte("steps: [{command: buildkite-agent pipeline upload}]"))
		}, []string{"steps.elsewhere"}, ""},
		{"steps elsewhere, with a checkout", func(f *Facts) {
			f.Pipelines[1].Steps = Read("", []byte("steps: [{command: buildkite-agent pipeline upload}]"))
			f.Checkouts = []Checkout{{Folder: "x", Repositories: []repo.Name{amdgpu}}}
		}, nil, ""},

		{"any repository", sealed(func(l *envelope.Label) { l.Repos, l.Any = nil, true }), []string{"sealed.any"}, ""},
		{"any repository, and allowed", func(f *Facts) {
			f.Rules.ScopeAny = true
			sealed(func(l *envelope.Label) { l.Repos, l.Any = nil, true })(f)
		}, []string{"scope.allowed", "sealed.any"}, ""},
		{"allowed, and nothing such", func(f *Facts) { f.Rules.ScopeAny = true }, nil, ""},
		{"no label", with("SECRET_A: " + strings.TrimSpace(unlabelled)), []string{"sealed.unlabelled"}, ""},
		{"no label, and allowed", func(f *Facts) {
			f.Rules.ScopeAny = true
			with("SECRET_A: " + strings.TrimSpace(unlabelled))(f)
		}, []string{"scope.allowed", "sealed.unlabelled"}, ""},
		{"RSA", with("SECRET_A: " + rsa), []string{"sealed.older"}, ""},
		{"RSA, and a name", with("SECRET_PATH: " + rsa), []string{"sealed.older", "sealed.name"}, ""},
		{"malformed", with("SECRET_A: YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+"), []string{"sealed.malformed"}, ""},
		{"renamed", with("SECRET_B: " + seal(t, cudaLabel(func(*envelope.Label) {}), lab)), []string{"sealed.renamed"}, "SECRET_A carries"},
		{"another repository", sealed(func(l *envelope.Label) { l.Repos = []repo.Name{amdgpu} }), []string{"sealed.repository"}, "sealed for github.com/juliagpu/amdgpu.jl"},
		{"another pipeline", sealed(func(l *envelope.Label) { l.Pipelines = []string{"juliagpu/amdgpu-jl"} }), []string{"sealed.pipeline"}, "sealed for juliagpu/amdgpu-jl"},
		{"this pipeline", sealed(func(l *envelope.Label) { l.Pipelines = []string{"juliagpu/cuda-jl"} }), nil, ""},
		{"expired", sealed(func(l *envelope.Label) { l.Expires = now }), []string{"sealed.expired"}, "on 2027-01-31"},
		{"expiring", sealed(func(l *envelope.Label) { l.Expires = now.AddDate(0, 0, 30) }), []string{"sealed.expiring"}, "on 2027-03-02"},
		{"not expiring", sealed(func(l *envelope.Label) { l.Expires = now.AddDate(0, 0, 31) }), nil, ""},
		{"to nobody known", with("SECRET_A: " + seal(t, cudaLabel(func(*envelope.Label) {}), other)), []string{"sealed.unfamiliar"}, ""},
		{"to a stranger, too", sealed(func(*envelope.Label) {}, other), []string{"sealed.stranger"}, envelope.Fingerprint(other)},
		{"to a stranger, and nobody said who is none", func(f *Facts) { f.Recipients = nil; sealed(func(*envelope.Label) {}, other)(f) }, nil, ""},
		{"to more than it names", func(f *Facts) {
			v := &f.Pipelines[0].Steps.Values[0]
			v.Stanzas = append(v.Stanzas, "X25519")
		}, []string{"sealed.miscounted"}, ""},
		{"twice", with("SECRET_A: " + rsa + ", SECRET_A_SEALED: " + seal(t, cudaLabel(func(*envelope.Label) {}), lab)), []string{"sealed.older", "sealed.twice"}, ""},
		{"for an upload", func(f *Facts) {
			f.Pipelines[0].Steps = Read("", []byte("steps: [{command: buildkite-agent pipeline upload, env: {SECRET_A: "+seal(t, cudaLabel(func(*envelope.Label) {}), lab)+"}}]"))
			f.Checkouts = []Checkout{{Repositories: []repo.Name{cuda}}}
		}, []string{"sealed.upload"}, ""},
		{"for the whole pipeline, which uploads", func(f *Facts) {
			f.Pipelines[0].Steps = Read("", []byte("env: {SECRET_A: "+seal(t, cudaLabel(func(*envelope.Label) {}), lab)+"}\nsteps: [{command: buildkite-agent pipeline upload}]"))
			f.Checkouts = []Checkout{{Repositories: []repo.Name{cuda}}}
		}, nil, ""},
		{"plain", with("SECRET_A: hunter2-canary"), []string{"sealed.plain"}, ""},
		{"a word", with("SECRET_SCANNING: 'true'"), nil, ""},
		{"plain in an archived pipeline", func(f *Facts) { f.Pipelines[0].Archived = true; with("SECRET_A: hunter2-canary")(f) }, []string{"sealed.plain"}, ""},
	} {
		t.Run(tt.about, func(t *testing.T) {
			f := quiet(t)
			tt.change(&f)
			r := Judge(f)
			var got []string
			what := ""
			for _, finding := range r.Findings {
				got = append(got, finding.ID)
				require.Len(t, finding.Places, 1, finding.ID)
				what += finding.Places[0].What + "\n"
			}
			require.ElementsMatch(t, tt.want, got)
			require.Contains(t, what, tt.what)
			text, err := r.JSON()
			require.NoError(t, err)
			require.NotContains(t, string(text)+r.Text(80, false), "hunter2")
		})
	}
}

// TestCheckouts: a checkout's files belong to the pipelines of its repository; one
// that no pipeline builds stands by itself.
func TestCheckouts(t *testing.T) {
	f := quiet(t)
	fork := name("github.com/mallory/cuda.jl")
	file := func(l envelope.Label) []Text {
		return []Text{Read(".buildkite/pipeline.yml", []byte("steps:\n- command: make\n  env:\n    SECRET_A: "+seal(t, l, lab)+"\n"))}
	}
	f.Pipelines = append(f.Pipelines, Pipeline{Slug: "nightly", Address: "https://github.com/juliagpu/cuda.jl"})
	f.Rules.Pipelines["juliagpu/nightly"] = cuda
	f.Checkouts = []Checkout{
		{Folder: "cuda", Repositories: []repo.Name{fork, cuda}, Texts: file(envelope.Label{Name: "A", Pipelines: []string{"juliagpu/nightly"}})},
		{Folder: "else", Repositories: []repo.Name{name("github.com/else/where")}, Texts: file(envelope.Label{Name: "A", Repos: []repo.Name{cuda}})},
		{Folder: "none", Texts: file(envelope.Label{Name: "A", Repos: []repo.Name{cuda}})},
	}
	r := Judge(f)
	require.Len(t, r.Pipelines, 5)
	require.Equal(t, "juliagpu/amdgpu-jl", r.Pipelines[0].Pipeline)
	require.Len(t, r.Pipelines[1].Values, 2, "its settings', and its checkout's")
	require.Equal(t, "cuda-jl", r.Pipelines[2].Beside)
	require.Equal(t, "github.com/else/where", r.Pipelines[3].Repository)
	require.Equal(t, "none", r.Pipelines[4].Checkout)
	var ids []string
	for _, finding := range r.Findings {
		ids = append(ids, finding.ID)
	}
	require.Equal(t, []string{"sealed.repository", "repo.twice"}, ids)
	require.Equal(t, Place{Repository: "github.com/else/where", Checkout: "else", File: ".buildkite/pipeline.yml", Line: 4, Variable: "SECRET_A",
		Steps: []string{"make"}, What: "sealed for github.com/juliagpu/cuda.jl"}, r.Findings[0].Places[0])

	f.Organization, f.Pipelines, f.Rules = "", nil, Rules{}
	r = Judge(f)
	require.Len(t, r.Pipelines, 3)
	require.Zero(t, r.Counts.Pipelines)
}

// TestFromAPI reads what the documentation shows, and what is left out of it.
func TestFromAPI(t *testing.T) {
	sealed := seal(t, envelope.Label{Name: "A", Repos: []repo.Name{cuda}}, lab)
	p, steps, err := FromAPI([]byte(`{"slug":"my-pipeline","repository":"git@github.com:acme-inc/my-pipeline.git","visibility":"public","archived_at":null,
		"provider":{"id":"github","webhook_url":"","settings":{"build_pull_requests":true,"build_pull_request_forks":true,"prefix_pull_request_fork_branch_names":true,"trigger_mode":"code"}},
		"steps":[{"type":"script","name":"Test :white_check_mark:","command":"script/test.sh","env":{"SECRET_A":"` + sealed + `"},"agent_query_rules":[]},
			{"type":"waiter"},{"type":"trigger","trigger_project_slug":"other"},{"type":"script","command":"buildkite-agent pipeline upload","env":{"SECRET_B":"` + sealed + `"}}],
		"env":{"SECRET_P":"hunter2"}}`))
	require.NoError(t, err)
	require.True(t, steps)
	require.Equal(t, "github.com/acme-inc/my-pipeline", p.Repository().String())
	require.True(t, p.Public && p.Forks && p.Prefixed && p.Rebuilds && !p.Archived)
	require.Equal(t, 4, p.Steps.Steps)
	require.Equal(t, []Trigger{{Step: "other", Target: "other"}}, p.Steps.Triggers)
	require.Equal(t, []Wasted{{Step: "buildkite-agent pipeline upload", Variable: "SECRET_B"}}, p.Steps.Wasted)
	require.Len(t, p.Steps.Values, 3)
	for _, v := range p.Steps.Values {
		require.Zero(t, v.Line)
	}

	p, steps, err = FromAPI([]byte(`{"slug":"x","repository":"https://bot:hunter2-canary@github.com/a/b","archived_at":"2026-01-01","allow_rebuilds":false,
		"provider":{"id":"elsewhere"},"configuration":"env:\n  SECRET_A: ` + sealed + `\nsteps:\n- wait\n","steps":[{"type":"waiter"}],"env":{"SECRET_A":"` + sealed + `","SECRET_B":"` + sealed + `","N":7}}`))
	require.NoError(t, err)
	require.True(t, steps && p.Archived && !p.Rebuilds && p.Credentials)
	require.Equal(t, "https://github.com/a/b", p.Address)
	require.Len(t, p.Steps.Values, 2, "one of them in both")
	require.Equal(t, 2, p.Steps.Values[0].Line)
	written, err := json.Marshal(p)
	require.NoError(t, err)
	require.NotContains(t, string(written), "hunter2")
	require.NotContains(t, string(written), sealed[100:150])
	var again Pipeline
	require.NoError(t, json.Unmarshal(written, &again))
	require.Equal(t, p, again, "what is kept between two runs is the same")

	for _, text := range []string{`{"slug":"x"}`, `{"slug":"x","provider":null,"configuration":null}`} {
		_, steps, err = FromAPI([]byte(text))
		require.NoError(t, err)
		require.False(t, steps, text)
	}
	_, steps, err = FromAPI([]byte(`{"slug":"x","steps":[]}`))
	require.NoError(t, err)
	require.True(t, steps)
	for _, text := range []string{``, `[]`, `{}`, `{"slug":7}`, `null`} {
		_, _, err = FromAPI([]byte(text))
		require.ErrorIs(t, err, ErrNoPipeline, text)
	}
}

func TestWithoutPassword(t *testing.T) {
	for address, want := range map[string]string{
		"git@github.com:a/b":                         "git@github.com:a/b",
		"https://github.com/a/b":                     "https://github.com/a/b",
		"https://github.com/a/b@c":                   "https://github.com/a/b@c",
		"ssh://git@github.com/a/b":                   "ssh://github.com/a/b",
		"https://user@github.com/a/b":                "https://github.com/a/b",
		"https://u:hunter2@github.com/a/b":           "!https://github.com/a/b",
		"https://u:hun@ter2@github.com/a/b":          "!https://github.com/a/b",
		"https://ghp_hunter2hunter2h@github.com/a/b": "!https://github.com/a/b",
		"u:hunter2@github.com:a/b":                   "!github.com:a/b",
		"":                                           "",
	} {
		got, secret := withoutPassword(address)
		if secret {
			got = "!" + got
		}
		require.Equal(t, want, got, address)
	}
}

// TestDocs: docs/operators.md has the table of findings, as it is.
func TestDocs(t *testing.T) {
	file, err := os.ReadFile("../../docs/operators.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(file), "\n| finding | |")
	require.True(t, ok, "no table of findings")
	section, _, _ = strings.Cut(section, "\n\n")
	var want strings.Builder
	for _, k := range kinds {
		fmt.Fprintf(&want, "\n| `%s` | %s | %s | %s |", k.id, k.severity, k.title, k.fix)
	}
	_, rows, _ := strings.Cut(section, "|\n|")
	_, rows, _ = strings.Cut(rows, "\n")
	require.Equal(t, want.String()[1:], strings.TrimSpace(rows))
}

// TestKinds: IDs are unique, and the worst stand first.
func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for i, k := range kinds {
		require.Regexp(t, `^[a-z]+\.[a-z]+$`, k.id)
		require.False(t, seen[k.id], k.id)
		seen[k.id] = true
		require.True(t, i == 0 || kinds[i-1].severity >= k.severity, k.id)
		for _, text := range []string{k.title, k.why, k.fix} {
			require.NotEmpty(t, text, k.id)
			require.False(t, strings.HasSuffix(text, ".") || strings.Contains(text, "|"), text)
		}
	}
}

// sample is an organization in which there is something to see.
func sample(t *testing.T) Facts {
	f := quiet(t)
	f.Rules.Attest = false
	f.Rules.Pipelines["juliagpu/gone-jl"] = cuda
	expiring := seal(t, envelope.Label{Name: "CODECOV_TOKEN", Repos: []repo.Name{cuda}, Expires: now.AddDate(0, 0, 12)}, lab)
	deploy := seal(t, envelope.Label{Name: "DEPLOY_KEY", Repos: []repo.Name{cuda}, Branches: []string{"main"}, Tags: []string{"v*"}}, lab, other)
	f.Pipelines[0].Public, f.Pipelines[0].Prefixed = true, false
	f.Pipelines[0].Steps = Read("", []byte("env: {SECRET_PLAIN: hunter2-canary}\nsteps: [{command: buildkite-agent pipeline upload}]"))
	f.Pipelines[1].Steps = Read("", []byte("steps: [{trigger: cuda-jl, label: ':rocket: downstream'}]"))
	f.Pipelines = append(f.Pipelines,
		Pipeline{Slug: "a-pipeline-with-a-name-that-is-longer-than-most-names-of-pipelines-are", Address: "https://gitlab.com/a-group/with-another-group/and-a-repository-of-a-long-name", Rebuilds: true},
		Pipeline{Slug: "<script>alert(1)</script>", Address: "/srv/git/\u202egpj.exe", Forks: true},
		Pipeline{Slug: "old", Address: "https://github.com/juliagpu/old", Archived: true},
		Pipeline{Slug: "two-jl", Address: "https://github.com/juliagpu/amdgpu.jl", Mode: "fork"},
	)
	f.Checkouts = []Checkout{
		{Folder: "/src/cuda", Repositories: []repo.Name{cuda}, Texts: []Text{
			Read(".buildkite/pipeline.yml", []byte("env:\n  SECRET_CODECOV_TOKEN: "+expiring+"\nsteps:\n- label: ':rocket: deploy'\n  command: make\n  env:\n    SECRET_DEPLOY_KEY: "+deploy+"\n    SECRET_OTHER: "+deploy+"\n")),
			Read(".buildkite/broken.yml", []byte("steps:\n- {\n")),
		}},
		{Folder: "/src/else", Repositories: []repo.Name{name("github.com/else/where")}, Texts: []Text{
			Read(".buildkite/pipeline.yml", []byte("env:\n  SECRET_"+strings.Repeat("LONG", 40)+": "+strings.Repeat("A", 342)+"==\n")),
		}},
	}
	return f
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, file, text string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "go test ./internal/audit -update writes it anew")
}

// TestText shows a report on terminals of different widths.
func TestText(t *testing.T) {
	r := Judge(sample(t))
	r.Requests, r.Notes = 1, []string{"10 recipients were given"}
	for _, width := range []int{40, 80, 200} {
		text := r.Text(width, false)
		golden(t, fmt.Sprintf("report-%d.txt", width), text)
		for line := range strings.Lines(text) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), width, line)
		}
	}
	golden(t, "report-colour.txt", strings.ReplaceAll(r.Text(80, true), "\x1b", "^["))
	for width := 40; width <= 200; width++ {
		for line := range strings.Lines(r.Text(width, false)) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), width, line)
			require.NotContains(t, line, "\u202e")
		}
	}
	text, err := r.JSON()
	require.NoError(t, err)
	golden(t, "report.json", string(text))
	require.Equal(t, 1, r.Status())
}

// TestManyPlaces: people are shown some of them, but every danger.
func TestManyPlaces(t *testing.T) {
	f := quiet(t)
	f.Rules.Pipelines = map[string]repo.Name{"x/y": cuda}
	for i := range 100 {
		f.Pipelines = append(f.Pipelines, Pipeline{Slug: fmt.Sprintf("p-%03d", i), Address: fmt.Sprintf("https://github.com/a/p%d", i), Credentials: true})
	}
	text := Judge(f).Text(80, false)
	require.Equal(t, 100+18, strings.Count(text, "\n  p-"), "all of the danger; of map.missing those behind amdgpu-jl and cuda-jl")
	require.Contains(t, text, "and 82 more")
}

// FuzzFromAPI: whatever the API answers, a report comes out that holds no letter
// which could harm a terminal.
func FuzzFromAPI(f *testing.F) {
	f.Add([]byte(`{"slug":"x","repository":"https://a:b@c/d","configuration":"steps: [{trigger: x, env: {SECRET_A: b}}]"}`))
	f.Add([]byte(`{"slug":"\u202e","steps":[{"name":"\u001b[2J","env":{"SECRET_A\n":"b"}}],"env":{"SECRET_A":"b"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		p, _, err := FromAPI(answer)
		if err != nil {
			require.ErrorIs(t, err, ErrNoPipeline)
			return
		}
		r := Judge(Facts{Organization: "juliagpu", Pipelines: []Pipeline{p}, Now: now})
		text := strings.ReplaceAll(r.Text(80, false), "…", "")
		json, err := r.JSON()
		require.NoError(t, err)
		for _, s := range []string{text, string(json)} {
			require.False(t, strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }), "%q", s)
		}
		assert.True(t, slices.IsSortedFunc(r.Findings, func(a, b Finding) int { return int(b.Severity - a.Severity) }))
	})
}
