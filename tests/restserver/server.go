// Package restserver is Buildkite's REST API on loopback, as far as builds and
// pipelines go, for tests: the shapes of its documentation, over TLS, and on demand
// everything that can go wrong.
package restserver

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Pipeline is what a test says of one. Where the answer shall have other keys, or
// lack some, Change puts them there, Absent for none.
type Pipeline struct {
	Organization  string // empty: juliagpu
	Slug          string
	Repository    string // empty: https://github.com/JuliaGPU/CUDA.jl.git
	Configuration string // YAML
	Visibility    string // empty: public
	Env           map[string]any
	Change        map[string]any
}

// A Build is what a test says of one. The zero Build is a push to main of the
// pipeline cuda-jl, number 1, with a random id and no jobs.
type Build struct {
	Organization string // empty: juliagpu
	Pipeline     string // slug; empty: cuda-jl. A pipeline that was not added is made up
	Number       int    // 0: 1
	ID           string // empty: random
	Branch       string // empty: main
	Commit       string // empty: forty times c
	Source       string // empty: webhook, or trigger_job if it is Triggered
	Tag          string // empty: null
	PullRequest  *PullRequest
	TriggeredBy  *Build // as it was returned by AddBuild
	RebuiltFrom  *Build
	Jobs         []Job
	Change       map[string]any // keys of the answer; Absent for none
}

// A PullRequest's ID is its number.
type PullRequest struct{ ID, Base, Repository string }

// A Job has a state of Buildkite's, such as running.
type Job struct{ ID, State string }

// Absent in a Change takes a key out of the answer.
var Absent any = absent{}

type absent struct{}

// A Request is one that came, whatever the answer was.
type Request struct {
	Method string
	URL    string // path and query
	Header http.Header
}

// A Fault answers in place of the server.
type Fault func(http.ResponseWriter, *http.Request)

// A Server answers at URL to those who have Token, and trust Roots.
type Server struct {
	URL   string // https://127.0.0.1:PORT
	Roots string // a file: the certificate of its own authority, PEM
	Token string // random
	// Scopes are the token's, as GET /v2/access-token tells them.
	Scopes []string

	http *http.Server

	mu        sync.Mutex
	pipelines []Pipeline
	builds    map[string]Build // by organization/pipeline/number
	faults    []*fault
	requests  []Request
}

type fault struct {
	part  string
	times int
	do    Fault
}

// Start starts a server that has a good certificate, and leaves its Roots in dir.
// Close it.
func Start(dir string) (*Server, error) { return StartWith(dir, "127.0.0.1", Good) }

// StartWith listens on another address, such as the one by which containers reach
// this machine, with a certificate that may be bad.
func StartWith(dir, address string, kind Certificate) (*Server, error) {
	roots, certificate, err := makeCertificate(kind, address)
	if err != nil {
		return nil, err
	}
	s := &Server{Roots: filepath.Join(dir, "roots-"+randomHex(4)+".pem"), Token: "bkua_" + randomHex(20), Scopes: []string{"read_builds", "read_pipelines"}, builds: make(map[string]Build)}
	if err := os.WriteFile(s.Roots, roots, 0o644); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	s.URL = "https://" + l.Addr().String()
	s.http = &http.Server{
		Handler: s, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{certificate}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // faults take connections over
	}
	go s.http.ServeTLS(l, "", "")
	return s, nil
}

// Close ends the server and every connection to it.
func (s *Server) Close() error { return s.http.Close() }

// AddPipeline adds one, and returns it in full.
func (s *Server) AddPipeline(p Pipeline) Pipeline {
	p.Organization = cmp.Or(p.Organization, "juliagpu")
	p.Repository = cmp.Or(p.Repository, "https://github.com/JuliaGPU/CUDA.jl.git")
	p.Visibility = cmp.Or(p.Visibility, "public")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pipelines = append(s.pipelines, p)
	return p
}

// AddBuild adds one in place of the one with its number, and returns it in full.
func (s *Server) AddBuild(b Build) Build {
	b.Organization, b.Pipeline = cmp.Or(b.Organization, "juliagpu"), cmp.Or(b.Pipeline, "cuda-jl")
	b.Number, b.ID = cmp.Or(b.Number, 1), cmp.Or(b.ID, RandomID())
	b.Branch, b.Commit = cmp.Or(b.Branch, "main"), cmp.Or(b.Commit, strings.Repeat("c", 40))
	if b.TriggeredBy != nil {
		b.Source = cmp.Or(b.Source, "trigger_job")
	}
	b.Source = cmp.Or(b.Source, "webhook")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.builds[b.key()] = b
	return b
}

func (b Build) key() string { return fmt.Sprintf("%s/%s/%d", b.Organization, b.Pipeline, b.Number) }

// Fail has the next requests whose path and query hold part answered by a fault, so
// many of them; times < 0: all. What was said first comes first.
func (s *Server) Fail(part string, times int, do Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &fault{part, times, do})
}

// Requests returns those that came, in their order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// ServeHTTP answers as the server does that Start started.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, Request{r.Method, r.URL.RequestURI(), r.Header.Clone()})
	var do Fault
	for _, f := range s.faults {
		if f.times != 0 && strings.Contains(r.URL.RequestURI(), f.part) {
			f.times--
			do = f.do
			break
		}
	}
	s.mu.Unlock()

	for _, limit := range []string{"", "User-"} { // never used up, unless a fault says so
		w.Header().Set("RateLimit-"+limit+"Remaining", "35")
		w.Header().Set("RateLimit-"+limit+"Limit", "50")
		w.Header().Set("RateLimit-"+limit+"Reset", "42")
	}
	switch {
	case do != nil:
		do(w, r)
	case r.Header.Get("Authorization") != "Bearer "+s.Token:
		say(w, http.StatusUnauthorized, "Authentication required. Please supply a valid API Access Token")
	case r.Method != http.MethodGet:
		say(w, http.StatusForbidden, "Your token has only scopes to read")
	default:
		s.answer(w, r)
	}
}

// answer knows the paths
//
//	/v2/access-token
//	/v2/organizations/ORG/pipelines[/SLUG[/builds/NUMBER]]
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path == "/v2/access-token" {
		send(w, map[string]any{"uuid": RandomID(), "scopes": s.Scopes, "description": "for tests"})
		return
	}
	part := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if len(part) < 3 || part[0] != "organizations" || part[2] != "pipelines" {
		say(w, http.StatusNotFound, "No such endpoint")
		return
	}
	organization := part[1]
	switch {
	case len(part) == 3:
		s.list(w, r, organization)
		return
	case len(part) == 4:
		if p, ok := s.pipeline(organization, part[3]); ok {
			send(w, s.pipelineJSON(p))
			return
		}
	case len(part) == 6 && part[4] == "builds":
		if b, ok := s.builds[organization+"/"+part[3]+"/"+part[5]]; ok {
			send(w, s.buildJSON(b, r))
			return
		}
	}
	say(w, http.StatusNotFound, "Not Found")
}

// list answers a page of pipelines, with the links to others.
func (s *Server) list(w http.ResponseWriter, r *http.Request, organization string) {
	var all []Pipeline
	for _, p := range s.pipelines {
		if p.Organization == organization {
			all = append(all, p)
		}
	}
	number := func(name string, otherwise, most int) int {
		n, err := strconv.Atoi(r.URL.Query().Get(name))
		if err != nil || n < 1 {
			return otherwise
		}
		return min(n, most)
	}
	page, size := number("page", 1, len(all)+1), number("per_page", 30, 100)
	begin, end := min((page-1)*size, len(all)), min(page*size, len(all))
	var links []string
	link := func(page int, name string) {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(page))
		links = append(links, fmt.Sprintf(`<%s%s?%s>; rel=%q`, s.URL, r.URL.Path, q.Encode(), name))
	}
	if begin > 0 {
		link(1, "first")
		link(page-1, "prev")
	}
	if end < len(all) {
		link(page+1, "next")
		link((len(all)+size-1)/size, "last")
	}
	if links != nil {
		w.Header().Set("Link", strings.Join(links, ", "))
	}
	answer := []map[string]any{}
	for _, p := range all[begin:end] {
		answer = append(answer, s.pipelineJSON(p))
	}
	send(w, answer)
}

func (s *Server) pipeline(organization, slug string) (Pipeline, bool) {
	for _, p := range s.pipelines {
		if p.Organization == organization && p.Slug == slug {
			return p, true
		}
	}
	return Pipeline{}, false
}

func (s *Server) pipelineJSON(p Pipeline) map[string]any {
	env := p.Env
	if env == nil {
		env = map[string]any{}
	}
	return changed(map[string]any{
		"id": "849411f9-9e6d-4739-a0d8-e247088e9b52", "graphql_id": "UGlwZWxpbmU=", "name": p.Slug, "slug": p.Slug,
		"url": s.URL + "/v2/organizations/" + p.Organization + "/pipelines/" + p.Slug, "web_url": "https://buildkite.com/" + p.Organization + "/" + p.Slug,
		"repository": p.Repository, "branch_configuration": nil, "default_branch": "main", "visibility": p.Visibility,
		"provider":   map[string]any{"id": "github", "webhook_url": ""}, // no settings, as in the documentation's example of a build
		"created_at": "2015-05-09T21:05:59.874Z", "archived_at": nil, "cluster_id": nil,
		"env": env, "configuration": p.Configuration, "steps": []any{map[string]any{"type": "script", "command": "buildkite-agent pipeline upload"}},
	}, p.Change)
}

func (s *Server) buildURL(b Build) string {
	return fmt.Sprintf("%s/v2/organizations/%s/pipelines/%s/builds/%d", s.URL, b.Organization, b.Pipeline, b.Number)
}

func (s *Server) buildJSON(b Build, r *http.Request) map[string]any {
	orNull := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	answer := map[string]any{
		"id": b.ID, "graphql_id": "QnVpbGQ=", "url": s.buildURL(b), "web_url": "https://buildkite.com/", "number": b.Number,
		"state": "running", "blocked": false, "cancel_reason": nil, "message": "a message", "commit": b.Commit, "branch": b.Branch, "tag": orNull(b.Tag),
		"env": map[string]any{}, "source": b.Source, "creator": map[string]any{"id": RandomID(), "name": "Ada", "email": "ada@example.org"},
		"created_at": "2015-05-09T21:05:59.874Z", "started_at": nil, "finished_at": nil, "meta_data": map[string]any{},
		"pull_request": map[string]any{}, "merge_queue": nil, "rebuilt_from": nil, "triggered_from": nil,
	}
	if p := b.PullRequest; p != nil {
		answer["pull_request"] = map[string]any{"id": p.ID, "base": orNull(p.Base), "repository": orNull(p.Repository)}
	}
	if t := b.TriggeredBy; t != nil {
		answer["triggered_from"] = map[string]any{"build_id": t.ID, "build_number": t.Number, "build_pipeline_slug": t.Pipeline}
	}
	if o := b.RebuiltFrom; o != nil {
		answer["rebuilt_from"] = map[string]any{"id": o.ID, "number": o.Number, "url": s.buildURL(*o)}
	}
	query := r.URL.Query()
	if query.Get("exclude_jobs") != "true" {
		states, jobs := query["job_states[]"], []any{}
		for _, j := range b.Jobs {
			if states == nil || slices.Contains(states, j.State) {
				jobs = append(jobs, map[string]any{"id": j.ID, "type": "script", "name": ":julia:", "state": j.State, "command": "julia test.jl", "agent": map[string]any{"name": "agent-1"}})
			}
		}
		answer["jobs"] = jobs
	}
	if query.Get("exclude_pipeline") != "true" {
		p, ok := s.pipeline(b.Organization, b.Pipeline)
		if !ok {
			p = Pipeline{Organization: b.Organization, Slug: b.Pipeline, Repository: "https://github.com/JuliaGPU/CUDA.jl.git"}
		}
		answer["pipeline"] = s.pipelineJSON(p)
	}
	return changed(answer, b.Change)
}

func changed(answer, change map[string]any) map[string]any {
	maps.Copy(answer, change)
	maps.DeleteFunc(answer, func(_ string, value any) bool { return value == Absent })
	return answer
}

func send(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(answer)
}

func say(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// RandomID is a UUID as Buildkite writes it.
func RandomID() string {
	h := randomHex(16)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
