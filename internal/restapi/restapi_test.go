package restapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

func start(t *testing.T, kind restserver.Certificate) *restserver.Server {
	t.Helper()
	s, err := restserver.StartWith(t.TempDir(), "127.0.0.1", kind)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func client(t *testing.T, s *restserver.Server, limit Limit) *Client {
	t.Helper()
	c, err := New(Server{s.URL, s.Roots}, s.Token, limit)
	require.NoError(t, err)
	return c
}

const path = "organizations/juliagpu/pipelines/cuda-jl/builds/1"

type build struct {
	ID string `json:"id"`
}

func TestGet(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // nobody is there
	t.Setenv("ALL_PROXY", "http://127.0.0.1:1")
	s := start(t, restserver.Good)
	want := s.AddBuild(restserver.Build{})
	c := client(t, s, Limit{})
	var got build
	next, err := c.Get(t.Context(), path, url.Values{"job_states[]": {"running", "accepted"}}, &got)
	require.NoError(t, err)
	require.Zero(t, next)
	require.Equal(t, want.ID, got.ID)
	request := s.Requests()[0]
	require.Equal(t, "/v2/"+path+"?job_states%5B%5D=running&job_states%5B%5D=accepted", request.URL)
	require.Equal(t, "Bearer "+s.Token, request.Header.Get("Authorization"))
}

// TestPages lists five hundred pipelines.
func TestPages(t *testing.T) {
	s := start(t, restserver.Good)
	for i := range 500 {
		s.AddPipeline(restserver.Pipeline{Slug: "p" + strconv.Itoa(i)})
	}
	c := client(t, s, Limit{})
	seen := 0
	for page := 1; page != 0; {
		var list []struct{ Slug string }
		next, err := c.Get(t.Context(), "organizations/juliagpu/pipelines", url.Values{"page": {strconv.Itoa(page)}, "per_page": {"100"}}, &list)
		require.NoError(t, err)
		for _, p := range list {
			require.Equal(t, "p"+strconv.Itoa(seen), p.Slug)
			seen++
		}
		page = next
	}
	require.Equal(t, 500, seen)
	require.Len(t, s.Requests(), 5)

	s.Fail("page=3", 1, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "<"+s.URL+`/v2/x?page=3>; rel="next"`)
		restserver.Body("application/json", "[]")(w, r)
	})
	_, err := c.Get(t.Context(), "organizations/juliagpu/pipelines", url.Values{"page": {"3"}}, new([]any))
	require.EqualError(t, err, c.host+": its pages have no end")
}

// TestFaults: whatever goes wrong is an error of few words.
func TestFaults(t *testing.T) {
	other := start(t, restserver.Good)
	for _, tt := range []struct {
		name   string
		fault  restserver.Fault
		times  int // 0: always
		cause  string
		status int
		noted  bool // it is not an outage
		tries  int  // 0: any number
		allow  time.Duration
	}{
		{name: "slow", fault: restserver.Slow, cause: "no answer in time"},
		{name: "silent", fault: restserver.Silent, cause: "no answer in time"},
		{name: "half-closed", fault: restserver.HalfClosed, cause: "it ended the connection"},
		{name: "cut", fault: restserver.Cut, cause: "it ended the connection"},
		{name: "401", fault: restserver.Status(401), cause: "the API token is not valid (401)", status: 401, tries: 1},
		{name: "403", fault: restserver.Status(403), cause: "the API token may not do that (403)", status: 403, tries: 1},
		{name: "404", fault: restserver.Status(404), cause: "there is no such thing, or the token's user may not see it (404)", status: 404, noted: true, tries: 1},
		{name: "422", fault: restserver.Status(422), cause: "an answer that makes no sense here (422)", status: 422, tries: 1},
		{name: "204", fault: restserver.Status(204), cause: "an answer that makes no sense here (204)", status: 204, tries: 1},
		{name: "304", fault: restserver.Status(304), cause: "a redirect to nowhere (304)", status: 304, tries: 1},
		{name: "501", fault: restserver.Status(501), cause: "the server has a fault (501)", status: 501, tries: 1},
		{name: "500", fault: restserver.Status(500), cause: "the server has a fault (500)", status: 500},
		{name: "429", fault: restserver.Status(429), cause: "too many requests (429)", status: 429},
		{name: "429, wait", fault: restserver.Status(429, "Retry-After: 42"), cause: "too many requests (429); it wants 42 s until the next request, and there is no time for that", status: 429, tries: 1, allow: time.Minute / 2},
		{name: "429, reset", fault: restserver.Status(429, "RateLimit-User-Remaining: 0", "RateLimit-User-Reset: 40"), cause: "too many requests (429); it wants 40 s until the next request, and there is no time for that", status: 429, tries: 1, allow: time.Minute / 2},
		{name: "503, wait", fault: restserver.Status(503, "Retry-After: 42"), cause: "the server has a fault (503); it wants 42 s until the next request, and there is no time for that", status: 503, tries: 1, allow: time.Minute / 2},
		{name: "502 once", fault: restserver.Status(502), times: 1, allow: 10 * time.Second},
		{name: "cut twice", fault: restserver.Cut, times: 2, allow: 10 * time.Second},
		{name: "429 once, go on", fault: restserver.Status(429, "Retry-After: 0"), times: 1, allow: 10 * time.Second},
		{name: "HTML", fault: restserver.HTML, cause: "the answer is not JSON", tries: 1},
		{name: "HTML that says JSON", fault: restserver.Body("application/json", "<html>"), cause: "the answer is not the JSON that Buildkite documents", status: 200, tries: 1},
		{name: "another shape", fault: restserver.Body("application/json", `[{"id":"secret"}]`), cause: "the answer is not the JSON that Buildkite documents", status: 200, tries: 1},
		{name: "two answers", fault: restserver.Body("application/json", `{"id":"a"}{"id":"b"}`), cause: "the answer is not the JSON that Buildkite documents", status: 200, tries: 1},
		{name: "nothing", fault: restserver.Body("application/json", ""), cause: "the answer is not the JSON that Buildkite documents", status: 200, tries: 1},
		{name: "no packed text", fault: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			restserver.Body("application/json", strings.Repeat("{}", 100))(w, r)
		}, cause: "the answer is damaged"},
		{name: "large", fault: restserver.Large(100 << 20), cause: "the answer is larger than 16 MiB", tries: 1, allow: time.Minute / 2},
		{name: "a bomb", fault: restserver.Bomb(100 << 20), cause: "the answer is larger than 16 MiB", tries: 1, allow: time.Minute / 2},
		{name: "as large as may be", fault: restserver.Bomb(maxAnswer), times: 1, allow: time.Minute / 2},
		{name: "large headers", fault: restserver.LargeHeader(maxHeader), cause: "the connection failed"},
		{name: "to another server", fault: restserver.Redirect(302, other.URL+"%s"), cause: "it points to another server or scheme", tries: 1},
		{name: "to another scheme", fault: func(w http.ResponseWriter, r *http.Request) {
			restserver.Redirect(302, "http://"+r.Host+"%s")(w, r)
		}, cause: "it points to another server or scheme", tries: 1},
		{name: "to a user", fault: func(w http.ResponseWriter, r *http.Request) {
			restserver.Redirect(302, "https://a:b@"+r.Host+"%s")(w, r)
		}, cause: "it points to another server or scheme", tries: 1},
		{name: "to nowhere", fault: restserver.Redirect(302, ""), cause: "a redirect to nowhere (302)", status: 302, tries: 1},
		{name: "to itself, twice", fault: restserver.Redirect(307, "%s"), times: 2, allow: 10 * time.Second},
		{name: "to itself, always", fault: restserver.Redirect(301, "%s"), cause: "its redirects have no end", tries: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, restserver.Good)
			s.AddBuild(restserver.Build{})
			times := tt.times
			if times == 0 {
				times = -1
			}
			s.Fail("", times, tt.fault)
			allow := tt.allow
			if allow == 0 {
				allow = 600 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), allow)
			defer cancel()
			var got build
			_, err := client(t, s, Limit{}).Get(ctx, path, nil, &got)
			for _, r := range s.Requests() {
				require.Equal(t, "Bearer "+s.Token, r.Header.Get("Authorization"))
			}
			if tt.cause == "" {
				require.NoError(t, err)
				return
			}
			var e *Error
			require.ErrorAs(t, err, &e)
			cause, _, _ := strings.Cut(e.Cause, ", 2 times") // which depends on the machine
			cause, _, _ = strings.Cut(cause, ", 3 times")
			assert.Equal(t, tt.cause, cause)
			assert.Equal(t, tt.status, e.Status)
			assert.Equal(t, !tt.noted, e.Outage)
			assert.NotEmpty(t, e.Hint)
			assert.Equal(t, strings.TrimPrefix(s.URL, "https://"), e.Host)
			assert.NotContains(t, fmt.Sprintf("%+v", err), s.Token)
			if tt.tries != 0 {
				assert.Len(t, s.Requests(), tt.tries)
			}
			if allow > 10*time.Second {
				assert.NoError(t, ctx.Err(), "it returned at once")
			}
		})
	}
	t.Cleanup(func() { assert.Empty(t, other.Requests(), "the token went to another server") })
}

func TestCertificates(t *testing.T) {
	for kind, cause := range map[restserver.Certificate]string{
		restserver.OtherHost:  "its certificate is for another host",
		restserver.Expired:    "its certificate is not valid at this time",
		restserver.NotYet:     "its certificate is not valid at this time",
		restserver.OtherRoots: "its certificate is of an authority that is not trusted here",
	} {
		s := start(t, kind)
		_, err := client(t, s, Limit{}).Get(t.Context(), path, nil, new(build))
		require.EqualError(t, err, strings.TrimPrefix(s.URL, "https://")+": "+cause)
		require.True(t, err.(*Error).Outage)
		require.Empty(t, s.Requests())
	}
	// The host's own roots don't know the test's.
	s := start(t, restserver.Good)
	c, err := New(Server{URL: s.URL}, s.Token, Limit{})
	require.NoError(t, err)
	_, err = c.Get(t.Context(), path, nil, new(build))
	require.ErrorContains(t, err, "of an authority that is not trusted here")
}

// TestNobody asks where no server of the kind is.
func TestNobody(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go http.Serve(plain, http.NotFoundHandler())
	t.Cleanup(func() { plain.Close() })
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	deaf.Close()
	for host, cause := range map[string]string{
		plain.Addr().String(): "it does not speak TLS",
		deaf.Addr().String():  "connection refused",
	} {
		c, err := New(Server{URL: "https://" + host}, "token", Limit{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err = c.Get(ctx, path, nil, new(build))
		require.ErrorContains(t, err, host+": "+cause)
	}
}

// TestPatience: a try has a time of its own.
func TestPatience(t *testing.T) {
	s := start(t, restserver.Good)
	s.AddBuild(restserver.Build{})
	s.Fail("", 1, restserver.Silent)
	c := client(t, s, Limit{})
	c.patience = 200 * time.Millisecond
	for range 5 { // on a busy machine the second may take longer, too
		if _, err := c.Get(t.Context(), path, nil, new(build)); err == nil {
			break
		}
	}
	require.GreaterOrEqual(t, len(s.Requests()), 2)
}

func TestCanceled(t *testing.T) {
	s := start(t, restserver.Good)
	s.Fail("", -1, restserver.Silent)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := client(t, s, Limit{}).Get(ctx, path, nil, new(build))
	require.ErrorContains(t, err, "canceled")
}

func TestNew(t *testing.T) {
	for _, url := range []string{
		"", "api.buildkite.com", "http://api.buildkite.com", "https://", "https://api.buildkite.com/", "https://api.buildkite.com/v2", "https://api.buildkite.com?x", "https://api.buildkite.com?",
		"https://api.buildkite.com#x", "https://api.buildkite.com#", "https://a:b@api.buildkite.com", "https://a@api.buildkite.com", "HTTPS://api.buildkite.com", "https://API.buildkite.com",
		"https://api.buildkite.com:", "https://api.buildkite.com:x", "https://api.buildkite.com:0", "https://api.buildkite.com:65536", "https://api.buildkite.com:+1", "https:api.buildkite.com",
		"https://api.build kite.com", "https://api.buildkite.com\n", " https://api.buildkite.com", "https://api.buildkite.com\\x", "https://аpi.buildkite.com", "https://[::1", "https://:443", "https://%61pi.buildkite.com",
	} {
		_, err := New(Server{URL: url}, "token", Limit{})
		require.Error(t, err, "%q", url)
	}
	for _, url := range []string{Default, "https://127.0.0.1:8443", "https://[::1]:8443", "https://localhost"} {
		_, err := New(Server{URL: url}, "token", Limit{})
		require.NoError(t, err, "%q", url)
	}
	for _, token := range []string{"", "a b", "a\n", "a\r\nX: y", "ä", "\x00", "a\x7f", strings.Repeat("a", maxToken+1)} {
		_, err := New(Server{URL: Default}, token, Limit{})
		require.EqualError(t, err, "api.buildkite.com: the API token is not one printable word", "%q", token)
	}
	for _, limit := range []Limit{{PerMinute: 1}, {File: "/f"}, {PerMinute: -1, File: "/f"}} {
		_, err := New(Server{URL: Default}, "token", limit)
		require.Error(t, err, "%v", limit)
	}
	writable := filepath.Join(t.TempDir(), "roots")
	require.NoError(t, os.WriteFile(writable, nil, 0o600))
	require.NoError(t, os.Chmod(writable, 0o666))
	empty := filepath.Join(t.TempDir(), "roots")
	require.NoError(t, os.WriteFile(empty, []byte("no certificate"), 0o600))
	for _, roots := range []string{writable, empty, "roots", "/nowhere/roots"} {
		_, err := New(Server{Default, roots}, "token", Limit{})
		require.ErrorContains(t, err, "api.buildkite.com: its roots: ", roots)
	}
}

// TestElsewhere: whatever a library asks for, only the server gets it, with its token.
func TestElsewhere(t *testing.T) {
	s, other := start(t, restserver.Good), start(t, restserver.Good)
	transport, err := newTransport(strings.TrimPrefix(s.URL, "https://"), other.Roots)
	require.NoError(t, err)
	for _, change := range []func(*http.Request){
		func(r *http.Request) {},
		func(r *http.Request) { r.URL.Host = transport.host; r.URL.Scheme = "http" },
		func(r *http.Request) { r.URL.Host = transport.host; r.Host = "example.org" },
	} {
		request, err := http.NewRequest(http.MethodGet, other.URL+"/v2/"+path, nil)
		require.NoError(t, err)
		change(request)
		_, err = transport.RoundTrip(request)
		require.ErrorIs(t, err, errElse)
	}
	require.Empty(t, slices.Concat(s.Requests(), other.Requests()))
	require.Nil(t, transport.http.Proxy, "one from the environment would not count for loopback")
}

func TestPath(t *testing.T) {
	s := start(t, restserver.Good)
	c := client(t, s, Limit{})
	for _, path := range []string{"", "/", "a//b", "../x", "a/../b", "a/./b", "a?b", "a#b", "a%2fb", "a b", "a/", "https://example.org", "a\n"} {
		_, err := c.Get(t.Context(), path, nil, new(build))
		require.ErrorContains(t, err, "makes no sense", "%q", path)
	}
	require.Empty(t, s.Requests())
}

func TestNamed(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		headers string
		want    time.Duration
		ok      bool
	}{
		{headers: ""},
		{headers: "Retry-After: 7", want: 7 * time.Second, ok: true},
		{headers: "Retry-After: 0", ok: true},
		{headers: "Retry-After: -7"},
		{headers: "Retry-After: 7.5"},
		{headers: "Retry-After: 4294967295", want: 24 * time.Hour, ok: true},
		{headers: "Retry-After: 99999999999999999999"},
		{headers: "Retry-After: Fri, 02 Jan 2026 03:05:05 GMT", want: time.Minute, ok: true},
		{headers: "Retry-After: Fri, 02 Jan 2026 03:03:05 GMT", ok: true},
		{headers: "Retry-After: soon|RateLimit-Reset: 9", want: 9 * time.Second, ok: true},
		{headers: "Retry-After: 7|RateLimit-Reset: 9", want: 7 * time.Second, ok: true},
		{headers: "RateLimit-Reset: 9", want: 9 * time.Second, ok: true},
		{headers: "RateLimit-Reset: 9|RateLimit-User-Reset: 11", want: 11 * time.Second, ok: true},
		{headers: "RateLimit-Reset: 9|RateLimit-Remaining: 80|RateLimit-User-Reset: 3|RateLimit-User-Remaining: 0", want: 3 * time.Second, ok: true},
		{headers: "RateLimit-Reset: 9|RateLimit-Remaining: 80|RateLimit-User-Reset: 3|RateLimit-User-Remaining: 35"},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(tt.headers, "|") {
			name, value, _ := strings.Cut(line, ": ")
			h.Set(name, value)
		}
		got, ok := named(h, now)
		require.Equal(t, tt.want, got, tt.headers)
		require.Equal(t, tt.ok, ok, tt.headers)
	}
}

func TestBackoff(t *testing.T) {
	for tries := 1; tries < 100; tries++ {
		wait := backoff(tries)
		require.Greater(t, wait, 100*time.Millisecond)
		require.LessOrEqual(t, wait, 8*time.Second)
	}
}

// TestDate: the server's clock is known from whatever it answers.
func TestDate(t *testing.T) {
	s := start(t, restserver.Good)
	c := client(t, s, Limit{})
	require.Zero(t, c.Date())
	s.Fail("", 1, restserver.Status(http.StatusForbidden, "Date: Mon, 23 Nov 2026 13:00:00 GMT"))
	_, err := c.Get(t.Context(), "access-token", nil, new(any))
	require.Error(t, err)
	require.Equal(t, "2026-11-23T13:00:00Z", c.Date().UTC().Format(time.RFC3339))
	s.Fail("", 1, restserver.Status(http.StatusForbidden, "Date: yesterday"))
	_, err = c.Get(t.Context(), "access-token", nil, new(any))
	require.Error(t, err)
	require.Equal(t, 2026, c.Date().Year(), "no answer of sense changes nothing")
}
