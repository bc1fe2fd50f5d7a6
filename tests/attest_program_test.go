//go:build unix

package tests

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/witness"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// newAPI is a server with a build of one running job, and the question about it.
func newAPI(t testing.TB, kind restserver.Certificate) (*restserver.Server, restserver.Build, witness.Question) {
	t.Helper()
	s, err := restserver.StartWith(t.TempDir(), "127.0.0.1", kind)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	id, err := job.ParseID(restserver.RandomID())
	require.NoError(t, err)
	b := s.AddBuild(restserver.Build{Jobs: []restserver.Job{{ID: id.String(), State: "running"}}})
	return s, b, witness.Question{
		URL: s.URL, Roots: s.Roots, Token: s.Token, PerMinute: 50, LimitFile: filepath.Join(t.TempDir(), "limit"),
		Organization: "juliagpu", Pipeline: "cuda-jl", Number: "1", Build: b.ID, Job: id, Deadline: 30 * time.Second,
	}
}

// TestAttest asks the real program, in an environment in which a job has set all it
// could think of.
func TestAttest(t *testing.T) {
	dir, _ := programs(t)
	path := filepath.Join(dir, "attest")
	other, err := restserver.Start(t.TempDir())
	require.NoError(t, err)
	defer other.Close()
	for name, value := range map[string]string{
		"HTTPS_PROXY": "http://127.0.0.1:1", "ALL_PROXY": other.URL, "SSL_CERT_FILE": other.Roots, "SSL_CERT_DIR": filepath.Dir(other.Roots),
		"GODEBUG": "http2debug=2,netdns=cgo,x509usefallbackroots=1", "RES_OPTIONS": "timeout:1", "LOCALDOMAIN": "example.org", "GOGC": "1",
	} {
		t.Setenv(name, value)
	}
	s, b, q := newAPI(t, restserver.Good)
	a, err := witness.Ask(t.Context(), path, q)
	require.NoError(t, err)
	require.Equal(t, b.ID, a.ID)
	require.Equal(t, "https://github.com/JuliaGPU/CUDA.jl.git", a.Build.Repo)
	require.Equal(t, job.Attested, a.Build.Origin)
	require.Len(t, s.Requests(), 1)
	require.Empty(t, other.Requests())
}

// TestAttestFails: what goes wrong reaches the hook as a refusal, whose words are the
// project's own.
func TestAttestFails(t *testing.T) {
	dir, _ := programs(t)
	path := filepath.Join(dir, "attest")
	other, err := restserver.Start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { other.Close() })
	for _, tt := range []struct {
		name   string
		kind   restserver.Certificate
		fault  restserver.Fault
		reason string
		noted  bool
	}{
		{name: "silent", fault: restserver.Silent, reason: "no answer in time"},
		{name: "slow", fault: restserver.Slow, reason: "no answer in time"},
		{name: "401", fault: restserver.Status(401), reason: "the API token is not valid (401)"},
		{name: "404", fault: restserver.Status(404), reason: "there is no such thing, or the token's user may not see it (404)", noted: true},
		{name: "429", fault: restserver.Status(429, "Retry-After: 60"), reason: "too many requests (429); it wants 60 s until the next request, and there is no time for that"},
		{name: "HTML", fault: restserver.HTML, reason: "the answer is not JSON"},
		{name: "a bomb", fault: restserver.Bomb(100 << 20), reason: "the answer is larger than 16 MiB"},
		{name: "a redirect", fault: restserver.Redirect(302, other.URL+"%s"), reason: "it points to another server or scheme"},
		{name: "another host's certificate", kind: restserver.OtherHost, reason: "its certificate is for another host"},
		{name: "an expired certificate", kind: restserver.Expired, reason: "its certificate is not valid at this time"},
		{name: "another authority's certificate", kind: restserver.OtherRoots, reason: "its certificate is of an authority that is not trusted here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, _, q := newAPI(t, tt.kind)
			q.Deadline = 10 * time.Second
			if strings.Contains(tt.reason, "in time") {
				q.Deadline = 500 * time.Millisecond
			}
			if tt.fault != nil {
				s.Fail("", -1, tt.fault)
			}
			began := time.Now()
			a, err := witness.Ask(t.Context(), path, q)
			require.Less(t, time.Since(began), q.Deadline+5*time.Second)
			require.Nil(t, a)
			var r *witness.Refusal
			require.ErrorAs(t, err, &r)
			assert.Contains(t, r.Reason, tt.reason)
			assert.Equal(t, !tt.noted, r.Outage)
			assert.NotContains(t, r.Reason+r.Hint, s.Token)
		})
	}
	t.Cleanup(func() { assert.Empty(t, other.Requests(), "the token went to another server") })
}

// TestAttestAlone: a person who starts it, and a question that never comes.
func TestAttestAlone(t *testing.T) {
	dir, _ := programs(t)
	path := filepath.Join(dir, "attest")
	out, err := exec.CommandContext(t.Context(), path).CombinedOutput()
	require.EqualError(t, err, "exit status 2")
	require.Contains(t, string(out), "attest: error: the hooks start this program")
}

// TestAttestOrphan: whoever asked was killed, and nobody holds the token any more.
func TestAttestOrphan(t *testing.T) {
	dir, _ := programs(t)
	s, _, q := newAPI(t, restserver.Good)
	asked, gone := make(chan struct{}), make(chan struct{})
	s.Fail("", 1, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(gone)
	})
	text, err := q.Marshal()
	require.NoError(t, err)
	question := filepath.Join(t.TempDir(), "question")
	require.NoError(t, os.WriteFile(question, text, 0o600))
	hook := exec.CommandContext(t.Context(), "/bin/sh", "-c", `env -i "$0" <"$1" >/dev/null & wait`, filepath.Join(dir, "attest"), question)
	require.NoError(t, hook.Start())
	<-asked
	require.NoError(t, hook.Process.Kill())
	hook.Wait()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("it asks on")
	}
}

// TestAttestTogether: many who ask at once share one limit.
func TestAttestTogether(t *testing.T) {
	dir, _ := programs(t)
	path := filepath.Join(dir, "attest")
	s, _, q := newAPI(t, restserver.Good)
	q.PerMinute, q.Deadline = 20, time.Second // four at once, and one each 3.5 s
	var wg sync.WaitGroup
	var mu sync.Mutex
	attested := 0
	for range 8 {
		wg.Go(func() {
			_, err := witness.Ask(t.Context(), path, q)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				attested++
			} else if !strings.Contains(err.Error(), "the 20 requests a minute that the configuration grants are used up") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 4, attested)
	require.Len(t, s.Requests(), 4)
}

// BenchmarkAttest compares a question through the program with what it can't do
// without.
func BenchmarkAttest(b *testing.B) {
	dir, _ := programs(b)
	path := filepath.Join(dir, "attest")
	_, _, q := newAPI(b, restserver.Good)
	q.PerMinute, q.LimitFile = 0, ""
	b.Run("program", func(b *testing.B) {
		for b.Loop() {
			if _, err := witness.Ask(b.Context(), path, q); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("request", func(b *testing.B) { // bare: a connection, TLS, one answer
		roots := x509.NewCertPool()
		text, err := os.ReadFile(q.Roots)
		require.NoError(b, err)
		roots.AppendCertsFromPEM(text)
		for b.Loop() {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
			request, err := http.NewRequest(http.MethodGet, q.URL+"/v2/organizations/juliagpu/pipelines/cuda-jl/builds/1", nil)
			require.NoError(b, err)
			request.Header.Set("Authorization", "Bearer "+q.Token)
			response, err := transport.RoundTrip(request)
			require.NoError(b, err)
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	})
	b.Run("start", func(b *testing.B) { // until it sees that nobody asks
		for b.Loop() {
			cmd := exec.Command(path)
			cmd.Env = []string{}
			cmd.Run()
		}
	})
}
