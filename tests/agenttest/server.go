//go:build unix

package agenttest

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Job is what the server hands to an agent.
type Job struct {
	ID       string            // empty: a random UUID
	Command  string            // what the job runs; empty: nothing but "true"
	Env      map[string]string // over what Buildkite sets for each job, see Server.Add
	Unset    []string          // which of those are not there at all
	CancelOn string            // cancels the job as soon as its log holds this text; empty: never
}

// A Record is what the server knows of one job.
type Record struct {
	ID           string
	Env          map[string]string // as the agent got it
	Finished     bool              // the agent said how the job ended
	ExitStatus   int               // what it said; -1 also for a job that was refused
	Signal       string            // "SIGTERM"; empty: none
	SignalReason string            // "agent_refused", "cancel", …
	ChunksFailed int               // pieces of the log that the agent could not send
	Log          string            // as sent: with the agent's timestamps, colours and a terminal's line ends
	Annotations  []Annotation      // in the order they came
	MetaData     map[string]string // of the build: all jobs of one server share it
	Pipelines    []string          // uploaded pipelines, as JSON
	Artifacts    map[string]string // path to content
}

// An Annotation is what `buildkite-agent annotate` sends.
type Annotation struct {
	Body    string `json:"body"`
	Style   string `json:"style"`
	Context string `json:"context"`
	Append  bool   `json:"append"`
}

// A Request is one call of the Agent API.
type Request struct {
	Method, Path string // "PUT", "/v3/jobs/ID/start?…"
	Body         string // gunzipped
}

// A Server is Buildkite's Agent API, as far as jobs of tests use it, on loopback.
// Agents register with Token at URL; each gets the next job that was added. It
// speaks to v3 agents and answers 401 to any other token, as the real one does.
type Server struct {
	URL   string // "http://127.0.0.1:PORT/v3"
	Token string // for registration, random

	access string // the token of registered agents
	http   *http.Server

	mu       sync.Mutex
	queue    []string // ids of jobs that no agent has yet
	jobs     map[string]*serverJob
	metaData map[string]string
	requests []Request
}

type serverJob struct {
	Job
	record   Record
	chunks   map[int]string // by sequence, from 1
	canceled bool
	finished chan struct{}
}

// NewServer starts a server on a free port of 127.0.0.1. Close it.
func NewServer() (*Server, error) { return NewServerOn("127.0.0.1") }

// NewServerOn starts one on a free port of another address, such as the one by
// which containers reach this machine.
func NewServerOn(address string) (*Server, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL:      "http://" + l.Addr().String() + "/v3",
		Token:    "registration-" + randomHex(16),
		access:   "access-" + randomHex(16),
		jobs:     make(map[string]*serverJob),
		metaData: make(map[string]string),
	}
	s.http = &http.Server{Handler: s.routes()}
	go s.http.Serve(l)
	return s, nil
}

// Close ends the server and every connection to it.
func (s *Server) Close() error { return s.http.Close() }

// Add queues a job and returns its id. The job's environment is a push to the
// branch main of github.com/JuliaGPU/CUDA.jl, with the variables that Buildkite
// sets for each job, changed by job.Env and job.Unset.
func (s *Server) Add(job Job) (id string) {
	if job.ID == "" {
		job.ID = randomUUID()
	}
	if job.Command == "" {
		job.Command = "true"
	}
	env := map[string]string{
		"BUILDKITE": "true", "CI": "true",
		"BUILDKITE_JOB_ID": job.ID, "BUILDKITE_BUILD_ID": randomUUID(), "BUILDKITE_BUILD_NUMBER": "7",
		"BUILDKITE_ORGANIZATION_SLUG": "juliagpu", "BUILDKITE_PIPELINE_SLUG": "cuda-dot-jl",
		"BUILDKITE_PIPELINE_NAME": "CUDA.jl", "BUILDKITE_PIPELINE_PROVIDER": "github",
		"BUILDKITE_PIPELINE_DEFAULT_BRANCH": "main",
		"BUILDKITE_REPO":                    "https://github.com/JuliaGPU/CUDA.jl.git",
		"BUILDKITE_BRANCH":                  "main", "BUILDKITE_COMMIT": "HEAD", "BUILDKITE_MESSAGE": "test",
		"BUILDKITE_SOURCE": "webhook", "BUILDKITE_TAG": "",
		"BUILDKITE_PULL_REQUEST": "false", "BUILDKITE_PULL_REQUEST_REPO": "", "BUILDKITE_PULL_REQUEST_BASE_BRANCH": "",
		"BUILDKITE_RETRY_COUNT": "0", "BUILDKITE_TIMEOUT": "false", "BUILDKITE_STEP_ID": randomUUID(),
		"BUILDKITE_AGENT_NAME": agentName, "BUILDKITE_COMMAND": job.Command,
	}
	maps.Copy(env, job.Env)
	for _, name := range job.Unset {
		delete(env, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[job.ID] = &serverJob{
		Job:      job,
		record:   Record{ID: job.ID, Env: env, Artifacts: make(map[string]string)},
		chunks:   make(map[int]string),
		finished: make(chan struct{}),
	}
	s.queue = append(s.queue, job.ID)
	return job.ID
}

// Cancel cancels a job as a person would on its page; the agent asks for the
// job's state once a second.
func (s *Server) Cancel(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[id].canceled = true
}

// Finished is closed when the agent has said how the job ended.
func (s *Server) Finished(id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs[id].finished
}

// Record is what is known of a job so far.
func (s *Server) Record(id string) Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	r := j.record
	r.Log = j.log()
	r.Annotations = slices.Clone(r.Annotations)
	r.Pipelines = slices.Clone(r.Pipelines)
	r.Artifacts = maps.Clone(r.Artifacts)
	r.MetaData = maps.Clone(s.metaData)
	return r
}

// Requests are all calls so far, also those of no use.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (j *serverJob) log() string {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(j.chunks)) {
		b.WriteString(j.chunks[n])
	}
	return b.String()
}

// routes follows the agent's package api (v3.81.0). What is not there answers 200
// and {}, which the agent takes for success.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	// handle answers with what f returns, as JSON. f runs under the lock.
	handle := func(pattern string, f func(r *http.Request, body []byte) (status int, reply any)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := readBody(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.requests = append(s.requests, Request{r.Method, r.URL.RequestURI(), string(body)})
			status, reply := http.StatusUnauthorized, any(map[string]string{"message": "unauthorized"})
			if s.authorized(r) {
				status, reply = f(r, body)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(reply)
		})
	}
	// handleJob is handle for the routes of one job.
	handleJob := func(pattern string, f func(j *serverJob, r *http.Request, body []byte) (status int, reply any)) {
		handle(pattern, func(r *http.Request, body []byte) (int, any) {
			j, ok := s.jobs[r.PathValue("id")]
			if !ok {
				return http.StatusNotFound, map[string]string{"message": "no such job"}
			}
			return f(j, r, body)
		})
	}
	type object map[string]any

	handle("/", func(*http.Request, []byte) (int, any) { return 200, object{} })
	handle("POST /v3/register", func(*http.Request, []byte) (int, any) {
		return 200, object{
			"id": randomUUID(), "name": agentName, "access_token": s.access, "endpoint": s.URL,
			"ping_interval": 1, "job_status_interval": 1, "heartbeat_interval": 60,
		}
	})
	handle("POST /v3/heartbeat", func(r *http.Request, body []byte) (int, any) {
		var beat object
		json.Unmarshal(body, &beat)
		return 200, object{"sent_at": beat["sent_at"], "received_at": time.Now().UTC().Format(time.RFC3339Nano)}
	})
	handle("GET /v3/ping", func(*http.Request, []byte) (int, any) {
		if len(s.queue) == 0 {
			return 200, object{}
		}
		id := s.queue[0]
		s.queue = s.queue[1:]
		return 200, object{"job": object{"id": id, "state": "assigned"}}
	})

	handleJob("GET /v3/jobs/{id}", func(j *serverJob, _ *http.Request, _ []byte) (int, any) {
		if j.canceled {
			return 200, object{"state": "canceling"}
		}
		return 200, object{"state": "running"}
	})
	handleJob("PUT /v3/jobs/{id}/accept", func(j *serverJob, _ *http.Request, _ []byte) (int, any) {
		return 200, object{
			"id": j.ID, "endpoint": s.URL, "state": "accepted", "env": j.record.Env,
			"chunks_max_size_bytes": 100_000, "log_max_size_bytes": 100_000_000,
		}
	})
	handleJob("POST /v3/jobs/{id}/chunks", func(j *serverJob, r *http.Request, body []byte) (int, any) {
		sequence, err := strconv.Atoi(r.URL.Query().Get("sequence"))
		if err != nil {
			return 422, object{"message": "sequence: not a number"}
		}
		j.chunks[sequence] = string(body)
		if j.CancelOn != "" && strings.Contains(j.log(), j.CancelOn) {
			j.canceled = true
		}
		return 201, object{}
	})
	handleJob("PUT /v3/jobs/{id}/finish", func(j *serverJob, _ *http.Request, body []byte) (int, any) {
		var end struct {
			ExitStatus   string `json:"exit_status"`
			Signal       string `json:"signal"`
			SignalReason string `json:"signal_reason"`
			ChunksFailed int    `json:"chunks_failed_count"`
		}
		err := json.Unmarshal(body, &end)
		status, err2 := strconv.Atoi(end.ExitStatus)
		if err != nil || err2 != nil {
			return 422, object{"message": "malformed"}
		}
		if j.record.Finished {
			return 422, object{"message": "finished before"}
		}
		j.record.Finished = true
		j.record.ExitStatus, j.record.Signal, j.record.SignalReason = status, end.Signal, end.SignalReason
		j.record.ChunksFailed = end.ChunksFailed
		close(j.finished)
		return 200, object{}
	})
	handleJob("POST /v3/jobs/{id}/annotations", func(j *serverJob, _ *http.Request, body []byte) (int, any) {
		var a Annotation
		if json.Unmarshal(body, &a) != nil {
			return 422, object{"message": "malformed"}
		}
		j.record.Annotations = append(j.record.Annotations, a)
		return 201, object{}
	})
	// Not 202, so the agent takes it for done and does not poll.
	handleJob("POST /v3/jobs/{id}/pipelines", func(j *serverJob, _ *http.Request, body []byte) (int, any) {
		j.record.Pipelines = append(j.record.Pipelines, string(body))
		return 200, object{}
	})
	handleJob("POST /v3/jobs/{id}/artifacts", func(j *serverJob, _ *http.Request, body []byte) (int, any) {
		var batch struct {
			ID        string           `json:"id"`
			Artifacts []map[string]any `json:"artifacts"`
		}
		if json.Unmarshal(body, &batch) != nil {
			return 422, object{"message": "malformed"}
		}
		ids := []string{}
		for range batch.Artifacts {
			ids = append(ids, randomUUID())
		}
		origin := strings.TrimSuffix(s.URL, "/v3")
		return 201, object{"id": batch.ID, "artifact_ids": ids, "upload_instructions": object{
			"data":   object{"path": "${artifact:path}"},
			"action": object{"url": origin, "method": "POST", "path": "/upload/" + j.ID, "file_input": "file"},
		}}
	})
	mux.HandleFunc("POST /upload/{id}", s.upload)

	for _, of := range []string{"jobs", "builds"} {
		data := func(pattern string, f func(key, value string) (int, any)) {
			handle("POST /v3/"+of+"/{id}/data/"+pattern, func(_ *http.Request, body []byte) (int, any) {
				var d struct{ Key, Value string }
				if len(body) > 0 && json.Unmarshal(body, &d) != nil {
					return 422, object{"message": "malformed"}
				}
				return f(d.Key, d.Value)
			})
		}
		data("set", func(key, value string) (int, any) {
			s.metaData[key] = value
			return 200, object{}
		})
		data("get", func(key, _ string) (int, any) {
			value, ok := s.metaData[key]
			if !ok {
				return 404, object{"message": "no such key"}
			}
			return 200, object{"key": key, "value": value}
		})
		data("exists", func(key, _ string) (int, any) {
			_, ok := s.metaData[key]
			return 200, object{"exists": ok}
		})
		data("keys", func(string, string) (int, any) { return 200, slices.Sorted(maps.Keys(s.metaData)) })
	}
	return mux
}

// authorized says whether r has the token that its route asks for.
func (s *Server) authorized(r *http.Request) bool {
	token := s.access
	if r.URL.Path == "/v3/register" {
		token = s.Token
	}
	return r.Header.Get("Authorization") == "Token "+token
}

// upload takes one artifact, as a form without a token: the real place is S3.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	file, _, err := r.FormFile("file")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	content, err := io.ReadAll(file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{r.Method, r.URL.RequestURI(), string(content)})
	if j, ok := s.jobs[r.PathValue("id")]; ok {
		j.record.Artifacts[r.FormValue("path")] = string(content)
	}
}

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Encoding") != "gzip" {
		return body, err
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// randomUUID is a version 7 UUID, as Buildkite's are, but of random bits only.
func randomUUID() string {
	h := randomHex(16)
	return fmt.Sprintf("%s-%s-7%s-8%s-%s", h[:8], h[8:12], h[13:16], h[17:20], h[20:])
}
