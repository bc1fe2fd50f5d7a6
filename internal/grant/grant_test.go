package grant

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/wish"
)

// TestCase: who is judged how, what is opened, and that the identity is given up
// whatever comes of it.
func TestCase(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	to, err := envelope.ParseRecipient(id.Recipient().String())
	require.NoError(t, err)
	cuda, err := repo.Parse("github.com/juliagpu/cuda.jl")
	require.NoError(t, err)
	sealed := func(name string) job.Sealed {
		text, err := envelope.Seal(envelope.Label{Name: name, Repos: []repo.Name{cuda}}, plaintext.New("hunter2"), to)
		require.NoError(t, err)
		return job.Sealed{Variable: "SECRET_" + name, Text: text}
	}
	push := job.Job{
		Facts: job.Facts{Organization: "juliagpu", Pipeline: "cuda", Repo: "https://github.com/JuliaGPU/CUDA.jl", Branch: "main",
			PullRequest: "false", Source: "webhook"},
		Sealed: []job.Sealed{sealed("A"), sealed("B")},
	}
	doubted, upload, nothing := push, push, push
	doubted.Facts.Doubt = "a variable of this job has a name that is none"
	upload.Upload = true
	nothing.Sealed = []job.Sealed{{Variable: "SECRET_NOTE", Text: "plain"}}
	const doesUpload = "this step only uploads a pipeline, where $NAME would be replaced by the secret and stored"
	for _, tt := range []struct {
		name     string
		job      job.Job
		withhold string
		trusted  bool
		wanted   bool
		want     []string // outcome and reason by variable
	}{
		{"trusted", push, "", true, true, []string{"SECRET_A granted", "SECRET_B granted"}},
		{"doubted", doubted, "", false, false, []string{"SECRET_A " + doubted.Facts.Doubt, "SECRET_B " + doubted.Facts.Doubt}},
		{"doubted, and withheld", doubted, "leftovers", false, false, []string{"SECRET_A " + doubted.Facts.Doubt, "SECRET_B " + doubted.Facts.Doubt}},
		{"withheld", push, "leftovers", true, false, []string{"SECRET_A leftovers", "SECRET_B leftovers"}},
		{"an upload that lists one", upload, "", true, true, []string{"SECRET_B granted", "SECRET_A " + doesUpload}},
		{"an upload, withheld", upload, "leftovers", true, false, []string{"SECRET_A leftovers", "SECRET_B leftovers"}},
		{"nothing sealed", nothing, "", true, false, []string{"SECRET_NOTE not a sealed value, left as it is"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "identity")
			require.NoError(t, os.WriteFile(file, []byte(id.String()+"\n"), 0o600))
			config := settings.Settings{Identities: []settings.IdentityFile{{Path: file}}, Consume: true}

			c := Judge(tt.job, wish.Wishes{Optional: []string{"B"}}, config.Rules)
			if tt.withhold != "" {
				c.Withhold(tt.withhold, "mend it")
			}
			require.Equal(t, tt.trusted, c.Verdict.Trusted)
			require.Equal(t, tt.wanted, c.Wanted())
			keys, err := c.Keys(config, os.Getuid())
			require.NoError(t, err)
			require.Equal(t, tt.wanted, len(keys.Identities) > 0)
			require.NoFileExists(t, file)

			var early int
			results := c.Open(keys, config, time.Now(), func([]envelope.Variable) { early++ })
			var got []string
			for _, r := range results {
				text := r.Variable + " " + r.Reason
				if r.Outcome == unseal.Granted {
					text = r.Variable + " granted"
					early--
				}
				got = append(got, text)
			}
			require.Equal(t, tt.want, got)
			require.Zero(t, early, "told of each")
			reason, _ := c.Reason()
			require.Equal(t, tt.withhold != "" || !tt.trusted, reason != "")
		})
	}
}

// TestIdentities: a file that resists fails the job, wanted or not.
func TestIdentities(t *testing.T) {
	file := filepath.Join(t.TempDir(), "identity")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Link(file, file+"2"))
	config := settings.Settings{Identities: []settings.IdentityFile{{Path: file}}, Consume: true}
	_, err := Case{}.Keys(config, os.Getuid())
	require.Error(t, err)
	config.Consume = false
	_, err = Case{}.Keys(config, os.Getuid())
	require.NoError(t, err)
}

// TestAttestation: what is asked for, and what its answer, or none, comes to.
func TestAttestation(t *testing.T) {
	facts := job.Facts{Organization: "juliagpu", Pipeline: "cuda", Repo: "https://github.com/JuliaGPU/CUDA.jl", Branch: "main",
		PullRequest: "false", Source: "webhook", Event: "push"}
	sealed := []job.Sealed{{Variable: "SECRET_A", Text: "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"}, {Variable: "SECRET_B", Text: "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"}}
	push := job.Job{Facts: facts, Sealed: sealed}
	fork, triggered, upload, nothing := push, push, push, push
	fork.Facts.PullRequest, fork.Facts.PullRequestRepo = "17", "https://github.com/mallory/CUDA.jl"
	triggered.Facts.Source, triggered.Facts.TriggeredFrom, triggered.Facts.Event = "trigger_job", "0190", ""
	upload.Upload = true
	nothing.Sealed = nil
	for _, tt := range []struct {
		name      string
		job       job.Job
		wishes    wish.Wishes
		undecided bool
		reason    string
	}{
		{"a push", push, wish.Wishes{}, true, "Buildkite's API does not attest this build"},
		{"triggered", triggered, wish.Wishes{}, true, "triggered by build 0190, which nobody attests"},
		{"a fork's", fork, wish.Wishes{}, false, "pull request 17 is from github.com/mallory/cuda.jl, not from github.com/juliagpu/cuda.jl"},
		{"nothing sealed", nothing, wish.Wishes{}, false, "nobody asks Buildkite's API for a job that has nothing to open"},
		{"an upload that lists nothing", upload, wish.Wishes{}, false, "nobody asks Buildkite's API for a job that has nothing to open"},
		{"an upload that lists one", upload, wish.Wishes{Optional: []string{"B"}}, true, "Buildkite's API does not attest this build"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Judge(tt.job, tt.wishes, trust.Rules{Attest: true})
			require.Equal(t, tt.undecided, c.Undecided)
			require.Equal(t, tt.reason, c.Verdict.Reason)
			require.False(t, c.Verdict.Trusted, "before anybody has been asked")
			require.False(t, c.Wanted())
			for _, r := range c.Open(Keys{}, settings.Settings{}, time.Now(), nil) {
				if tt.job.Upload && !tt.undecided {
					require.Equal(t, onlyUploads, r.Reason)
				} else {
					require.Equal(t, tt.reason, r.Reason)
				}
			}
			require.False(t, Judge(tt.job, tt.wishes, trust.Rules{}).Undecided, "attestation is off")
		})
	}

	// A fork that says it is all there is can have somebody ask, but where the operator
	// says what there is.
	alone := fork
	alone.Facts.Repo = alone.Facts.PullRequestRepo
	require.True(t, Judge(alone, wish.Wishes{}, trust.Rules{Attest: true}).Undecided)
	cuda, err := repo.Parse("github.com/juliagpu/cuda.jl")
	require.NoError(t, err)
	require.False(t, Judge(alone, wish.Wishes{}, trust.Rules{Attest: true, Pipelines: map[string]repo.Name{"juliagpu/cuda": cuda}}).Undecided)
	require.False(t, Judge(alone, wish.Wishes{}, trust.Rules{Attest: true, Repositories: []trust.Pattern{"github.com/juliagpu/*"}}).Undecided)

	c := Judge(push, wish.Wishes{}, trust.Rules{Attest: true})
	yes := c.Attested(&trust.Attestation{Build: facts})
	require.True(t, yes.Verdict.Trusted && yes.Wanted() && !yes.Undecided && !yes.Outage)

	other := facts
	other.Branch = "dev"
	no := c.Attested(&trust.Attestation{Build: other})
	require.False(t, no.Verdict.Trusted || no.Wanted() || no.Undecided || no.Outage)
	reason, _ := no.Reason()
	require.Equal(t, "the job states main for BUILDKITE_BRANCH, but Buildkite's API dev", reason)

	for _, outage := range []bool{false, true} {
		down := c.Unattested("no answer", "run it again", outage)
		require.False(t, down.Verdict.Trusted || down.Wanted() || down.Undecided)
		require.Equal(t, outage, down.Outage)
		reason, hint := down.Reason()
		said := map[bool]string{false: "Buildkite's API does not attest this build: no answer", true: "Buildkite's API could not be asked: no answer"}[outage]
		require.Equal(t, said, reason)
		require.Equal(t, "run it again", hint)
		for _, r := range down.Open(Keys{}, settings.Settings{}, time.Now(), nil) {
			require.Equal(t, unseal.Withheld, r.Outcome)
			require.Equal(t, outage, r.Loud)
		}
		down.Withhold("leftovers", "")
		reason, _ = down.Reason()
		require.Equal(t, said, reason, "the first one")
	}

	c.Withhold("a neighbour can read this", "")
	require.False(t, c.Undecided, "the token is not read there, either")
	reason, _ = c.Reason()
	require.Equal(t, "a neighbour can read this", reason)
}

// TestAskReadsTheToken: where it can't, or should not, nobody is asked.
func TestAskReadsTheToken(t *testing.T) {
	theJob := job.Job{Facts: job.Facts{Organization: "juliagpu", Pipeline: "cuda", Repo: "https://github.com/JuliaGPU/CUDA.jl", Branch: "main",
		PullRequest: "false", Source: "webhook"}, Sealed: []job.Sealed{{Variable: "SECRET_A", Text: "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"}}}
	c := Judge(theJob, wish.Wishes{}, trust.Rules{Attest: true})
	token := filepath.Join(t.TempDir(), "token")
	config := settings.Settings{Attest: settings.Attest{Token: token, Organization: "juliagpu", Deadline: time.Second}}

	got := c.Ask(config, os.Getuid(), job.ID{}, "/nowhere/attest")
	reason, _ := got.Reason()
	require.Equal(t, "Buildkite's API could not be asked: API token "+token+": no such file or directory", reason)
	require.True(t, got.Outage)

	require.NoError(t, os.WriteFile(token, []byte("bkua_hunter2\n"), 0o644))
	got = c.Ask(config, os.Getuid(), job.ID{}, "/nowhere/attest")
	reason, hint := got.Reason()
	require.Equal(t, "Buildkite's API could not be asked: API token "+token+": mode 0644, readable by others", reason)
	require.Equal(t, "chmod 600 "+token, hint)

	require.NoError(t, os.Chmod(token, 0o600))
	got = c.Ask(config, os.Getuid(), mustID("0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"), "/nowhere/attest")
	reason, _ = got.Reason()
	require.Equal(t, "Buildkite's API could not be asked: attest: /nowhere/attest is not there", reason)
	require.True(t, got.Outage, "no program to ask with")

	config.Attest.Organization = "julialang"
	got = c.Ask(config, os.Getuid(), job.ID{}, "/nowhere/attest")
	reason, _ = got.Reason()
	require.Equal(t, "Buildkite's API does not attest this build: this agent's token is for the organization julialang", reason)
	require.False(t, got.Outage)

	require.Equal(t, c.Attested(&trust.Attestation{}), c.Attested(&trust.Attestation{}).Ask(config, os.Getuid(), job.ID{}, ""), "nobody is asked twice")
}
