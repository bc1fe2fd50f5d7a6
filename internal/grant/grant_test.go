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
			identities, err := c.Identities(config, os.Getuid())
			require.NoError(t, err)
			require.Equal(t, tt.wanted, len(identities) > 0)
			require.NoFileExists(t, file)

			var early int
			results := c.Open(identities, config, time.Now(), func([]envelope.Variable) { early++ })
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
	_, err := Case{}.Identities(config, os.Getuid())
	require.Error(t, err)
	config.Consume = false
	_, err = Case{}.Identities(config, os.Getuid())
	require.NoError(t, err)
}
