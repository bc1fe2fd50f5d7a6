package restapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/rootfile"
)

const (
	maxHeader    = 64 << 10 // bytes
	maxRoots     = 4 << 20  // bytes
	maxRedirects = 3
)

// A transport lets go-buildkite see nothing but a redirect within the server, and
// an answer of JSON that fits. Its own retries of 429, a quarter of an hour deaf to
// any context, so never begin.
type transport struct {
	host string
	http *http.Transport
	last atomic.Pointer[time.Time] // Date of the last answer
}

func (t *transport) date() time.Time {
	if last := t.last.Load(); last != nil {
		return *last
	}
	return time.Time{}
}

// newTransport leaves out what http.DefaultTransport has for other uses: proxies
// from the environment, HTTP/2, certificates of its own choice.
func newTransport(host, roots string) (*transport, error) {
	pool, err := readRoots(roots)
	if err != nil {
		return nil, &Error{Host: host, Cause: "its roots: " + escape.Text(err.Error()), Hint: "name a file of certificates, PEM, that nobody else can change", Outage: true}
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true) // one request at a time needs no more
	return &transport{host: host, http: &http.Transport{
		Proxy:                  nil,
		DialContext:            (&net.Dialer{}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		Protocols:              &protocols,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        4,
		IdleConnTimeout:        30 * time.Second,
	}}, nil
}

// readRoots returns the host's own where no file is named.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return x509.SystemCertPool()
	}
	f, _, err := rootfile.Open(file, rootfile.Rule{User: os.Getuid()})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRoots+1))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if len(text) > maxRoots || !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no file of certificates", file)
	}
	return pool, nil
}

// RoundTrip holds the token back from any other server, whoever asks.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme != "https" || request.URL.Host != t.host || request.Host != "" && request.Host != t.host {
		return nil, errElse
	}
	response, err := t.http.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		t.last.Store(&date)
	}
	if isRedirect(response) {
		return response, nil // whose text http.Client drops
	}
	if response.StatusCode == http.StatusOK {
		kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
		if err == nil && kind == "application/json" {
			response.Body = &bounded{ReadCloser: response.Body, left: maxAnswer}
			return response, nil
		}
	}
	response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil, errNotJSON
	}
	return nil, &statusError{response.StatusCode, response.Header}
}

// isRedirect knows those that http.Client follows.
func isRedirect(r *http.Response) bool {
	switch r.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		_, err := r.Location()
		return err == nil
	}
	return false
}

// redirect follows some within the server. Each is a request like any other.
func (c *Client) redirect(next *http.Request, before []*http.Request) error {
	switch {
	case next.URL.Scheme != "https" || !strings.EqualFold(next.URL.Host, c.host) || next.URL.User != nil:
		return errElse
	case len(before) > maxRedirects:
		return errRounds
	}
	return c.limit.take(next.Context(), c.host)
}

// bounded ends an answer that is too large with an error, and stays at that.
type bounded struct {
	io.ReadCloser
	left int // bytes
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	if len(p) > b.left+1 {
		p = p[:b.left+1] // one more shows that there is more
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return n, errTooLarge
	}
	return n, err
}
