package restapi

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// An Error says why there is no answer. Nothing of the token or of an answer is in
// it.
type Error struct {
	Host   string // HOST[:PORT] that was asked
	Cause  string // in few words
	Hint   string // what can be done
	Status int    // HTTP's; 0: it did not come to one
	// Outage: the API, the way to it, the token or the configuration is at fault.
	// To ask again later, or from another machine, may help. What was asked for has
	// no part in it.
	Outage bool

	named bool // the server named the time to wait
}

func (e *Error) Error() string {
	if e.Host == "" {
		return e.Cause
	}
	return e.Host + ": " + e.Cause
}

const (
	hintServer  = "see whether the configured server is Buildkite's REST API"
	hintNetwork = "see whether this machine reaches the server, or try again later"
	hintLater   = "try again later"
)

// What the transport finds. Each ends the request.
var (
	errTooLarge = errors.New("answer too large")
	errElse     = errors.New("a redirect to somewhere else")
	errRounds   = errors.New("too many redirects")
	errNotJSON  = errors.New("not JSON")
)

// A statusError is an answer that is none of 200 and a redirect.
type statusError struct {
	status int
	header http.Header
}

func (e *statusError) Error() string { return "status " + strconv.Itoa(e.status) }

// judge says what went wrong with a try, and how long to wait for the next; a
// negative wait: there is none.
func (c *Client) judge(err error, tries int) (said *Error, wait time.Duration) {
	no := func(cause, hint string) (*Error, time.Duration) {
		return &Error{Host: c.host, Cause: cause, Hint: hint, Outage: true}, -1
	}
	var (
		own       *Error
		status    *statusError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &own): // of the limit, on a redirect
		return own, -1
	case errors.As(err, &status):
		return c.judgeStatus(status, tries)
	case errors.Is(err, errTooLarge):
		return no(fmt.Sprintf("the answer is larger than %d MiB", maxAnswer>>20), hintServer)
	case errors.Is(err, errElse):
		return no("it points to another server or scheme", hintServer)
	case errors.Is(err, errRounds):
		return no("its redirects have no end", hintServer)
	case errors.Is(err, errNotJSON):
		return no("the answer is not JSON", hintServer)
	case errors.As(err, &authority):
		return no("its certificate is of an authority that is not trusted here", "see whether the configured server and its roots are right")
	case errors.As(err, &hostname):
		return no("its certificate is for another host", "see whether the configured server is right")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return no("its certificate is not valid at this time", "see whether this machine's clock is right")
	case errors.As(err, &verify), errors.As(err, &invalid):
		return no("its certificate is not valid", "see whether the configured server and its roots are right")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return no("it does not speak TLS", hintServer)
	}
	return &Error{Host: c.host, Cause: cause(err), Hint: hintNetwork, Outage: true}, backoff(tries)
}

// cause names what the network did. The texts of its errors hold addresses that a
// server chose.
func cause(err error) string {
	var (
		name  *net.DNSError
		errno syscall.Errno
		wait  net.Error
	)
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return "no such host"
	case errors.As(err, &name):
		return "the name server does not answer"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wait) && wait.Timeout():
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ended the connection"
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return "the answer is damaged"
	}
	return "the connection failed"
}

func (c *Client) judgeStatus(e *statusError, tries int) (said *Error, wait time.Duration) {
	said = &Error{Host: c.host, Status: e.status, Outage: true}
	switch {
	case e.status == http.StatusUnauthorized:
		said.Cause, said.Hint = "the API token is not valid (401)", "put a new token in place: this one is wrong, revoked or expired"
	case e.status == http.StatusForbidden:
		said.Cause, said.Hint = "the API token may not do that (403)", "the token needs the scopes read_builds and read_pipelines, this organization, and this machine among its allowed addresses"
	case e.status == http.StatusNotFound:
		said.Cause, said.Hint = "there is no such thing, or the token's user may not see it (404)", "see whether organization and pipeline are right, and whether the token's user can read the pipeline"
		said.Outage = false
	case e.status == http.StatusTooManyRequests:
		said.Cause, said.Hint = "too many requests (429)", "all who use this token's user or organization share its limit: try again later, or raise it"
	case e.status >= 300 && e.status < 400:
		said.Cause, said.Hint = fmt.Sprintf("a redirect to nowhere (%d)", e.status), hintServer
	case e.status >= 500:
		said.Cause, said.Hint = fmt.Sprintf("the server has a fault (%d)", e.status), hintLater
	default:
		said.Cause, said.Hint = fmt.Sprintf("an answer that makes no sense here (%d)", e.status), hintServer
	}
	switch e.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		least, named := named(e.header, time.Now())
		said.named = named
		return said, max(least, backoff(tries))
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return said, backoff(tries)
	}
	return said, -1
}

// named returns how long the server wants us to wait. Retry-After is HTTP's word
// (RFC 9110, 10.2.3); the rest is Buildkite's (its documentation, REST API rate
// limits): each limit that is used up has its own time.
func named(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	if text := h.Get("Retry-After"); text != "" {
		if wait, ok := seconds(text); ok {
			return wait, true
		}
		if at, err := http.ParseTime(text); err == nil {
			return max(at.Sub(now), 0), true
		}
	}
	for _, limit := range []string{"RateLimit-", "RateLimit-User-"} {
		if left := h.Get(limit + "Remaining"); left != "" && left != "0" {
			continue
		}
		if reset, stated := seconds(h.Get(limit + "Reset")); stated {
			wait, ok = max(wait, reset), true
		}
	}
	return wait, ok
}

// seconds reads a whole number of them; more than a day is a day.
func seconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, false
	}
	return time.Duration(min(n, 24*60*60)) * time.Second, true
}
