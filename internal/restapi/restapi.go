// Package restapi asks Buildkite's REST API, for programs that hold a token of it.
//
// It speaks to one server, over TLS, past no proxy, and follows no redirect to
// another. What it asks for is bounded in size and time, tried again where that may
// help, and counted against a limit that all processes of a machine share. It tells
// people what was wrong, never what the token or an answer was.
//
// It runs on go-buildkite, without its types of answers: one of these refuses a
// build whole where a provider states no settings, as the documentation's own does.
package restapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/buildkite/go-buildkite/v3/buildkite"
)

// Default is Buildkite's own server.
const Default = "https://api.buildkite.com"

// A Server is who answers.
type Server struct {
	URL string // https://HOST[:PORT], nothing behind it
	// Roots is a file of certificates, PEM, that the server's one must come from;
	// root or the program's user owns it. Empty: the host's, which SSL_CERT_FILE and
	// SSL_CERT_DIR of the program's environment change (crypto/x509). Who must not
	// obey these starts the program without them.
	Roots string
}

// A Limit is how many requests are made in any one minute, by all processes that
// name the same file. The zero Limit is none.
type Limit struct {
	PerMinute int
	File      string // made where it is not there; see limit.go
}

const (
	maxAnswer = 16 << 20         // bytes, when unpacked
	patience  = 15 * time.Second // for one try, from the name server to the last byte
	maxToken  = 4096             // bytes
)

// A Client asks one server with one token. Several goroutines may use it at once.
type Client struct {
	api      *buildkite.Client
	host     string
	limit    Limit
	patience time.Duration
	date     func() time.Time
}

// New checks what it is given, reads the roots, and asks nobody yet. The error is
// an *Error.
func New(server Server, token string, limit Limit) (*Client, error) {
	host, err := hostOf(server.URL)
	if err != nil {
		return nil, err
	}
	if err := checkToken(host, token); err != nil {
		return nil, err
	}
	if limit != (Limit{}) && (limit.PerMinute < 1 || limit.File == "") {
		return nil, &Error{Host: host, Cause: "a limit is a number of requests and a file", Hint: "see the configuration", Outage: true}
	}
	transport, err := newTransport(host, server.Roots)
	if err != nil {
		return nil, err
	}
	c := &Client{host: host, limit: limit, patience: patience, date: transport.date}
	c.api, err = buildkite.NewOpts(
		buildkite.WithBaseURL(server.URL+"/"), buildkite.WithTokenAuth(token), buildkite.WithUserAgent("juliagpu-secrets"),
		buildkite.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: c.redirect}),
	)
	if err != nil {
		return nil, &Error{Host: host, Cause: "its URL makes no sense", Hint: "write https://HOST", Outage: true}
	}
	return c, nil
}

// Date is the server's clock when its last answer came, whatever that was. Zero: it
// has not said.
func (c *Client) Date() time.Time { return c.date() }

// hostOf accepts a URL in its one spelling, and returns HOST[:PORT].
func hostOf(text string) (string, error) {
	u, err := url.Parse(text)
	ok := err == nil && u.Scheme == "https" && text == "https://"+u.Host
	if ok {
		name, port := u.Hostname(), u.Port()
		n, err := strconv.ParseUint(port, 10, 16)
		ok = port == "" && !strings.HasSuffix(u.Host, ":") || err == nil && n > 0
		ok = ok && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.:") == ""
	}
	if !ok {
		return "", &Error{Cause: "the REST API's server is none", Hint: "write https://HOST or https://HOST:PORT, in lower case and with nothing behind it", Outage: true}
	}
	return u.Host, nil
}

// checkToken: a header is one line.
func checkToken(host, token string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, odd) {
		return &Error{Host: host, Cause: "the API token is not one printable word", Hint: "put the token that Buildkite showed into its file, and nothing else", Outage: true}
	}
	return nil
}

// Get asks for a path below /v2/, such as organizations/ORG/pipelines, and decodes
// the answer's JSON into v. next is the number of the next page, always larger than
// that of this one; 0: this is the last. It tries again, within ctx, what may go
// better then: give ctx a deadline. Where the wait would pass that, it returns at
// once. The error is an *Error.
func (c *Client) Get(ctx context.Context, path string, query url.Values, v any) (next int, err error) {
	if !isPath(path) {
		return 0, &Error{Host: c.host, Cause: "a name in what to ask for makes no sense"}
	}
	target := "v2/" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var before *Error // of the try before
	for tries := 1; ; tries++ {
		if err := c.limit.take(ctx, c.host); err != nil {
			return 0, err
		}
		body, next, err := c.try(ctx, target)
		if err == nil {
			if err := json.Unmarshal(body, v); err != nil {
				return 0, &Error{Host: c.host, Status: http.StatusOK, Cause: "the answer is not the JSON that Buildkite documents", Hint: hintServer, Outage: true}
			}
			if page, _ := strconv.Atoi(query.Get("page")); next != 0 && next <= max(page, 1) {
				return 0, &Error{Host: c.host, Status: http.StatusOK, Cause: "its pages have no end", Hint: hintServer, Outage: true}
			}
			return next, nil
		}
		said, wait := c.judge(err, tries)
		if wait < 0 {
			return 0, said
		}
		if ctx.Err() != nil && before != nil {
			tries, said = tries-1, before // says more than that this one came too late
		}
		before = said
		if err := sleep(ctx, wait); err != nil {
			if tries > 1 {
				said.Cause += fmt.Sprintf(", %d times", tries)
			}
			if errors.Is(err, errTooLong) && said.named {
				said.Cause += fmt.Sprintf("; it wants %d s until the next request, and there is no time for that", (wait+time.Second-1)/time.Second)
			}
			return 0, said
		}
	}
}

// isPath accepts names that need no escape and go nowhere else.
func isPath(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." ||
			strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
			return false
		}
	}
	return true
}

// try asks once.
func (c *Client) try(ctx context.Context, target string) (body []byte, next int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	request, err := c.api.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept", "application/json")
	var answer bytes.Buffer // go-buildkite decodes the beginning only, and would have a second try write over the first
	response, err := c.api.Do(request.WithContext(ctx), &answer)
	if ctx.Err() != nil {
		// Whatever is heard of a connection while we hang up, and a server that ends
		// its answer early then.
		return nil, 0, ctx.Err()
	}
	if err != nil {
		return nil, 0, err
	}
	return answer.Bytes(), response.NextPage, nil
}

var errTooLong = errors.New("past the deadline")

// sleep waits, or says at once that ctx ends before.
func sleep(ctx context.Context, wait time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return errTooLong
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// backoff is how long to wait after so many tries, at random, so that many who
// began together don't go on together.
func backoff(tries int) time.Duration {
	most := min(250*time.Millisecond<<min(tries-1, 10), 8*time.Second)
	return most/2 + rand.N(most/2)
}
