// Package gather collects the facts of an audit: from Buildkite's REST API, and
// from clones of repositories.
package gather

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/restapi"
)

// A Client asks Buildkite's REST API: restapi's, or a test's.
type Client interface {
	Get(ctx context.Context, path string, query url.Values, v any) (next int, err error)
}

const (
	perPage  = 100 // the API's most (docs: apis/rest-api#pagination)
	maxPages = 200 // of an organization that has more we know only these
	saveEach = 25  // single pipelines
)

// Who waits learns soon that nobody answers; later on a limit may be used up, which
// takes a minute to be free again.
const (
	patienceAtFirst = 20 * time.Second
	patience        = 90 * time.Second
)

// A Reading is how far an organization has been read. It holds facts alone: no
// token, no sealed text, no value.
type Reading struct {
	Schema       int              `json:"schema"`
	Server       string           `json:"server"`
	Organization string           `json:"organization"`
	Began        time.Time        `json:"began"`
	Next         int              `json:"next"` // page; 0: all are read
	Pipelines    []audit.Pipeline `json:"pipelines"`
	Stepless     []string         `json:"stepless,omitempty"` // slugs of those whose steps the list did not have
	Requests     int              `json:"requests"`           // made in all
}

// New is a reading at its beginning.
func New(server, organization string, now time.Time) *Reading {
	return &Reading{Schema: 1, Server: server, Organization: organization, Began: now.UTC(), Next: 1}
}

// Done tells whether nothing is left to ask.
func (r *Reading) Done() bool { return r.Next == 0 && len(r.Stepless) == 0 }

// Read reads on to the end: pages of a hundred pipelines, and then one by one those
// whose steps the pages did not have. told is called after each request; what it
// returns ends the reading. Where it ends early, what was read is in r, and Read
// goes on from there.
func (r *Reading) Read(ctx context.Context, client Client, told func() error) error {
	path := "organizations/" + url.PathEscape(r.Organization) + "/pipelines"
	wait := patienceAtFirst
	for r.Next > 0 {
		if r.Next > maxPages {
			return fmt.Errorf("more than %d pipelines", maxPages*perPage)
		}
		var page []json.RawMessage
		next, err := get(ctx, client, wait, path, url.Values{"per_page": {strconv.Itoa(perPage)}, "page": {strconv.Itoa(r.Next)}}, &page)
		if err != nil {
			return err
		}
		r.Requests++
		wait = patience
		for _, answer := range page {
			if err := r.add(answer); err != nil {
				return err
			}
		}
		r.Next = next
		if err := told(); err != nil {
			return err
		}
	}
	for len(r.Stepless) > 0 {
		slug := r.Stepless[0]
		var answer json.RawMessage
		_, err := get(ctx, client, wait, path+"/"+url.PathEscape(slug), nil, &answer)
		var api *restapi.Error
		if errors.As(err, &api) && !api.Outage {
			err, answer = nil, nil // gone since, or of a name that can't be asked for
		}
		if err != nil {
			return err
		}
		r.Requests++
		wait = patience
		i := slices.IndexFunc(r.Pipelines, func(p audit.Pipeline) bool { return p.Slug == slug })
		if p, steps, err := audit.FromAPI(answer); err == nil && p.Slug == slug && steps {
			r.Pipelines[i] = p
		} else {
			r.Pipelines[i].Steps.Unread = "Buildkite's API does not state them"
		}
		r.Stepless = r.Stepless[1:]
		if err := told(); err != nil {
			return err
		}
	}
	return nil
}

// get has a deadline of its own: the client waits for its limit within that.
func get(ctx context.Context, client Client, wait time.Duration, path string, query url.Values, v any) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return client.Get(ctx, path, query, v)
}

// add takes one pipeline of a page. One that was there before is there again where
// another was made in between, and moved the pages.
func (r *Reading) add(answer json.RawMessage) error {
	p, steps, err := audit.FromAPI(answer)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(r.Pipelines, func(have audit.Pipeline) bool { return have.Slug == p.Slug }) {
		return nil
	}
	r.Pipelines = append(r.Pipelines, p)
	if !steps {
		r.Stepless = append(r.Stepless, p.Slug)
	}
	return nil
}
