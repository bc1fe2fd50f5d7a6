package unseal

import (
	"os"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope/openssl"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// What one sealed value comes to by itself is frozen in the vectors of
// internal/envelope. Here is what several come to together, and what only the
// operator's policy decides.

var (
	today = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	push  = job.Facts{Organization: "juliagpu", Pipeline: "cuda-jl", Repo: "https://github.com/JuliaGPU/CUDA.jl", Branch: "main", PullRequest: "false"}
)

type world struct {
	t      *testing.T
	policy Policy
	to     envelope.Recipient
}

func newWorld(t *testing.T) *world {
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	to, err := envelope.ParseRecipient(id.Recipient().String())
	require.NoError(t, err)
	return &world{t, Policy{Identities: []identity.Identity{{Fingerprint: to.Fingerprint(), Age: id}}, Now: today}, to}
}

func name(s string) repo.Name {
	n, err := repo.Parse(s)
	if err != nil {
		panic(err)
	}
	return n
}

// seal returns SECRET_<variable> sealed as name.
func (w *world) seal(variable, as string, change func(*envelope.Label)) job.Sealed {
	l := envelope.Label{Name: as, Repos: []repo.Name{name("github.com/juliagpu/cuda.jl")}}
	if change != nil {
		change(&l)
	}
	text, err := envelope.Seal(l, plaintext.New("the value of "+as), w.to)
	require.NoError(w.t, err)
	return job.Sealed{Variable: "SECRET_" + variable, Text: text}
}

func TestOpenAllOrNone(t *testing.T) {
	w := newWorld(t)
	good := w.seal("A", "A", nil)
	withheld := w.seal("B", "B", func(l *envelope.Label) { l.Branches = []string{"release"} })
	renamed := w.seal("C", "X", nil)
	other := job.Sealed{Variable: "SECRET_D", Text: "plain"}
	empty := job.Sealed{Variable: "SECRET_E"}

	results := Open([]job.Sealed{good, withheld, other, empty}, push, w.policy)
	require.Len(t, results, 3, "an empty one is nothing")
	require.Equal(t, []Outcome{Granted, Withheld, Ignored}, outcomes(results))
	require.Equal(t, "the value of A", results[0].Set[0].Value.Reveal())
	require.Nil(t, results[1].Set)
	granted, kept, refused, set := AllOrNone(results)
	require.Equal(t, []int{1, 1, 0}, []int{granted, kept, refused})
	require.True(t, set)

	results = Open([]job.Sealed{good, withheld, renamed}, push, w.policy)
	require.Equal(t, []Outcome{Granted, Withheld, Refused}, outcomes(results))
	_, _, _, set = AllOrNone(results)
	require.False(t, set, "one refused, none set")
}

func outcomes(results []Result) []Outcome {
	var os []Outcome
	for _, r := range results {
		os = append(os, r.Outcome)
	}
	return os
}

func TestDuplicates(t *testing.T) {
	w := newWorld(t)
	bundle := func(l *envelope.Label) { l.Type, l.Names = envelope.TypeBundle, []string{"A", "Z"} }
	carry := func(variable string) job.Sealed {
		l := envelope.Label{Name: variable, Repos: []repo.Name{name("github.com/juliagpu/cuda.jl")}}
		bundle(&l)
		text, err := envelope.Seal(l, plaintext.New(`{"A":"value of A","Z":"value of Z"}`), w.to)
		require.NoError(t, err)
		return job.Sealed{Variable: "SECRET_" + variable, Text: text}
	}
	for what, sealed := range map[string][]job.Sealed{
		"with and without suffix": {w.seal("A", "A", nil), w.seal("A_SEALED", "A", nil)},
		"alone and in a bundle":   {w.seal("A", "A", nil), carry("BUNDLE")},
		"in two bundles":          {carry("BUNDLE"), carry("OTHER")},
	} {
		results := Open(sealed, push, w.policy)
		require.Equal(t, []Outcome{Refused, Refused}, outcomes(results), what)
		require.Empty(t, results[0].Set)
	}
	results := Open([]job.Sealed{w.seal("A", "A", nil), w.seal("SECRET_A", "SECRET_A", nil)}, push, w.policy)
	require.Equal(t, Refused, results[1].Outcome, "it would set a variable that is emptied")

	expired := w.seal("A_SEALED", "A", func(l *envelope.Label) { l.Expires = today })
	results = Open([]job.Sealed{w.seal("A", "A", nil), expired}, push, w.policy)
	require.Equal(t, []Outcome{Granted, Withheld}, outcomes(results), "one that is withheld sets nothing")
}

func TestWarnings(t *testing.T) {
	w := newWorld(t)
	old := newWorld(t)
	old.policy.Identities[0].Retired = true
	w.policy.Identities = append(w.policy.Identities, old.policy.Identities...)

	results := Open([]job.Sealed{
		w.seal("A", "A", nil), old.seal("B", "B", nil),
		w.seal("C", "C", func(l *envelope.Label) { l.Expires = today.AddDate(0, 0, 29) }),
		w.seal("D", "D", func(l *envelope.Label) { l.Expires = today.AddDate(0, 0, 31) }),
	}, push, w.policy)
	require.Equal(t, []Outcome{Granted, Granted, Granted, Granted}, outcomes(results))
	require.Empty(t, results[0].Warning)
	require.Contains(t, results[1].Warning, old.to.Fingerprint())
	require.Contains(t, results[2].Warning, "2026-12-30")
	require.Empty(t, results[3].Warning)
}

func TestLoud(t *testing.T) {
	w, stranger := newWorld(t), newWorld(t)
	for what, tt := range map[string]struct {
		sealed job.Sealed
		loud   bool
	}{
		"expired": {w.seal("A", "A", func(l *envelope.Label) { l.Expires = today }), true},
		"rotated": {stranger.seal("A", "A", nil), true},
		"branch":  {w.seal("A", "A", func(l *envelope.Label) { l.Branches = []string{"x"} }), false},
	} {
		results := Open([]job.Sealed{tt.sealed}, push, w.policy)
		require.Equal(t, Withheld, results[0].Outcome, what)
		require.Equal(t, tt.loud, results[0].Loud, what)
		require.NotEmpty(t, results[0].Hint, what)
	}
	require.Contains(t, Open([]job.Sealed{stranger.seal("A", "A", nil)}, push, w.policy)[0].Reason, stranger.to.Fingerprint())
}

// TestAliases: a renamed repository's older secrets go on opening.
func TestAliases(t *testing.T) {
	w := newWorld(t)
	sealed := []job.Sealed{w.seal("A", "A", func(l *envelope.Label) { l.Repos = []repo.Name{name("github.com/juliagpu/cudanative.jl")} })}
	require.Equal(t, []Outcome{Refused}, outcomes(Open(sealed, push, w.policy)))
	w.policy.Rules = trust.Rules{Aliases: map[repo.Name]repo.Name{name("github.com/juliagpu/cudanative.jl"): name("github.com/juliagpu/cuda.jl")}}
	require.Equal(t, []Outcome{Granted}, outcomes(Open(sealed, push, w.policy)))
}

// TestWithholdOpensNothing: a fork's sealed values are not even looked into.
func TestWithholdOpensNothing(t *testing.T) {
	w := newWorld(t)
	sealed := []job.Sealed{
		w.seal("A", "A", nil), {Variable: "SECRET_B", Text: w.seal("B", "B", nil).Text[:60]},
		{Variable: "SECRET_C", Text: "plain"}, {Variable: "SECRET_D"},
	}
	require.True(t, AnySealed(sealed))
	require.False(t, AnySealed(sealed[2:]))
	results := Withhold(sealed, "a fork", "expected")
	require.Equal(t, []Outcome{Withheld, Withheld, Ignored}, outcomes(results))
	require.Equal(t, "a fork", results[0].Reason)
	require.Equal(t, "expected", results[1].Hint)
	require.True(t, results[0].Sealed())
	require.False(t, results[2].Sealed())
}

// TestManyKeepTheirOrder: values open side by side and come back in order.
func TestManyKeepTheirOrder(t *testing.T) {
	w := newWorld(t)
	var sealed []job.Sealed
	for i := range 100 {
		n := string([]byte{'A' + byte(i/10), '0' + byte(i%10)})
		sealed = append(sealed, w.seal(n, n, nil))
	}
	for i, r := range Open(sealed, push, w.policy) {
		require.Equal(t, sealed[i].Variable, r.Variable)
		require.Equal(t, Granted, r.Outcome)
		require.Equal(t, "the value of "+r.Set[0].Name, r.Set[0].Value.Reveal())
	}
}

// TestOlder: a value of an older form opens where the operator lists it, and only
// there.
func TestOlder(t *testing.T) {
	text := func(name string) string {
		text, err := os.ReadFile("../envelope/openssl/testdata/" + name)
		require.NoError(t, err)
		return string(text)
	}
	key, err := openssl.ParseKey([]byte(text("pkcs1.pem")))
	require.NoError(t, err)
	bare, hybrid := text("bare.txt"), text("hybrid.txt")
	fork := push
	fork.Repo = "https://github.com/mallory/CUDA.jl"
	nowhere := push
	nowhere.Repo = "somewhere"
	renamed := push
	renamed.Repo = "https://github.com/JuliaGPU/CUDAnative.jl"
	serves := map[repo.Name][]string{name("github.com/juliagpu/cuda.jl"): {"A", "PATH_TO"}}
	for what, tt := range map[string]struct {
		variable, text string
		build          job.Facts
		key            *openssl.Key
		outcome        Outcome
		says           string
	}{
		"bare":               {"A", bare, push, key, Granted, "a value of the older tool"},
		"hybrid":             {"A", hybrid, push, key, Granted, "a longer value, 0000"},
		"an alias":           {"A", bare, renamed, key, Granted, "a value"},
		"no key":             {"A", bare, push, nil, Withheld, "which this agent does not open"},
		"another name":       {"B", bare, push, key, Withheld, "lets github.com/juliagpu/cuda.jl have no B"},
		"another repository": {"A", bare, fork, key, Withheld, "lets github.com/mallory/cuda.jl have no A"},
		"no repository":      {"A", bare, nowhere, key, Withheld, "have no A"},
		"a forbidden name":   {"LD_PRELOAD", bare, push, key, Refused, "LD_PRELOAD"},
		"damaged":            {"A", "AAAA" + bare[4:], push, key, Withheld, "sealed for another RSA key, or damaged"},
		"damaged, hybrid":    {"A", hybrid[:len(hybrid)-24] + "AAAAAAAAAAAAAAAAAAAAAAAA", push, key, Withheld, "sealed for another RSA key, or damaged"},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.policy.Older, w.policy.Serves = tt.key, serves
			w.policy.Rules.Aliases = map[repo.Name]repo.Name{name("github.com/juliagpu/cudanative.jl"): name("github.com/juliagpu/cuda.jl")}
			r := Open([]job.Sealed{{Variable: "SECRET_" + tt.variable, Text: tt.text}}, tt.build, w.policy)[0]
			require.Equal(t, tt.outcome, r.Outcome, r.Reason)
			if tt.outcome != Granted {
				require.Contains(t, r.Reason, tt.says)
				require.Empty(t, r.Set)
				require.NotEmpty(t, r.Hint)
				return
			}
			require.Equal(t, tt.variable, r.Set[0].Name)
			require.Contains(t, r.Set[0].Value.Reveal(), tt.says)
			require.Contains(t, r.Warning, "seal it again")
		})
	}
}
