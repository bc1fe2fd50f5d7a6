//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/jobenv"
)

const apiToken = "bench"

// An api is a Job API as the agent's package jobapi (v3.81.0) serves it: HTTP's
// own server on a unix socket in a process that is the hook's parent.
type api struct {
	sockets string
	socket  string

	mu    sync.Mutex
	masks []string          // in the order they came
	env   map[string]string // what the last PATCH set
}

// serve starts an api in the folder sockets; it ends with the process.
func serve(sockets string) (*api, error) {
	a := &api{sockets: sockets, socket: filepath.Join(sockets, "job-api", fmt.Sprintf("%d-1.sock", os.Getpid()))}
	if err := os.MkdirAll(filepath.Dir(a.socket), 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/current-job/v0/redactions", a.redact)
	mux.HandleFunc("PATCH /api/current-job/v0/env", a.patch)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer "+apiToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	return a, nil
}

func (a *api) redact(w http.ResponseWriter, r *http.Request) {
	var sent struct {
		Redact string `json:"redact"`
	}
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.masks = append(a.masks, sent.Redact)
	a.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]string{"redacted": sent.Redact})
}

func (a *api) patch(w http.ResponseWriter, r *http.Request) {
	var sent struct {
		Env map[string]string `json:"env"`
	}
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	names := make([]string, 0, len(sent.Env))
	for name := range sent.Env {
		names = append(names, name)
	}
	slices.Sort(names)
	a.mu.Lock()
	a.env = sent.Env
	a.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	json.NewEncoder(w).Encode(map[string][]string{"added": names, "updated": {}})
}

// received returns what came since forget was last called.
func (a *api) received() (masks []string, env map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.masks, a.env
}

func (a *api) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.masks, a.env = nil, nil
}

// environ is what the agent adds to a job's environment for it.
func (a *api) environ() []string {
	return []string{jobenv.VarSockets + "=" + a.sockets, jobenv.VarSocket + "=" + a.socket, jobenv.VarToken + "=" + apiToken}
}
