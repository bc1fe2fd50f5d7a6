package observe

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/escape"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/restapi"
)

// apiPatience is for all requests together.
const apiPatience = 5 * time.Second

// api asks Buildkite what the token of attestation may do: two requests, past the
// limit that agents share, whose file is not touched.
func (o *observer) api(file credential.File) {
	c := o.facts.Config.Is
	var a doctor.API
	var clock doctor.Clock
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.facts.API = a
		o.facts.Clock.Asked, o.facts.Clock.Off = clock.Asked, clock.Off
	}()
	switch {
	case c == nil || !c.Rules.Attest:
		return
	case o.ask.Offline:
		a.Why = "--offline"
		return
	}
	token, err := file.Word(o.UID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.Why = "no token is here in the clear"
		return
	case err != nil:
		a.Why = "the token can't be read"
		return
	}
	client, err := restapi.New(restapi.Server{URL: c.Attest.URL, Roots: c.Attest.Roots}, token, restapi.Limit{})
	if err != nil {
		a.Silent = o.problemOf(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), apiPatience)
	defer cancel()
	var about struct {
		Scopes []string `json:"scopes"`
	}
	_, err = client.Get(ctx, "access-token", nil, &about)
	if date := client.Date(); !date.IsZero() {
		clock.Asked, clock.Off = true, o.Now().Sub(date)
	}
	if err != nil {
		var said *restapi.Error
		a.Token = errors.As(err, &said) && said.Status == 401
		a.Silent = o.problemOf(err)
		return
	}
	a.Asked, a.Host = true, c.Attest.URL
	for _, s := range about.Scopes {
		a.Scopes = append(a.Scopes, escape.Text(s))
	}
	var list []struct{}
	if _, err := client.Get(ctx, "organizations/"+c.Attest.Organization+"/pipelines", url.Values{"per_page": {"1"}}, &list); err != nil {
		a.Organization = o.problemOf(err)
	}
}

func (o *observer) problemOf(err error) doctor.Problem {
	var said *restapi.Error
	if errors.As(err, &said) {
		return doctor.Problem{What: o.plain(said.Error()), Fix: said.Hint}
	}
	return o.problem(err)
}
