//go:build unix

// Command faultyjobapi is a bootstrap script for agents under test: it runs the
// agent's own bootstrap with a Job API that misbehaves. See agenttest.FaultyJobAPI.
//
//	faultyjobapi FAULT RECEIVED AGENT
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole program. Its status is that of the bootstrap, 2 when the
// arguments make no sense, 1 when the Job API can't be served.
func run(args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) != 3 {
		fmt.Fprintln(stderr, "usage: faultyjobapi FAULT RECEIVED AGENT")
		return 2
	}
	fault, received, agent := args[0], args[1], args[2]
	if fault == "serve" { // the sibling: here the arguments are serve RECEIVED SOCKET
		return serveSibling(received, agent, env, stdin, stdout, stderr)
	}
	if _, ok := agenttest.Faults[fault]; !ok {
		fmt.Fprintf(stderr, "faultyjobapi: error: no fault is called %q\n", fault)
		return 2
	}
	a := &api{fault: fault, env: variables(env), received: received, token: token()}
	socket := filepath.Join(a.env["BUILDKITE_SOCKETS_PATH"], "job-api", fmt.Sprintf("%d-7.sock", os.Getpid()))
	if fault == "sibling" {
		stop, err := startSibling(received, socket, append(env, "BUILDKITE_AGENT_JOB_API_TOKEN="+a.token))
		if err != nil {
			fmt.Fprintln(stderr, "faultyjobapi: error:", err)
			return 1
		}
		defer stop()
	} else {
		l, err := listen(received, socket)
		if err != nil {
			fmt.Fprintln(stderr, "faultyjobapi: error:", err)
			return 1
		}
		go a.serve(l)
	}

	// The agent signals the whole process group, so the bootstrap has each signal
	// already, and a second one would kill it. Not Ignore: that is inherited.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)

	bootstrap := exec.Command(agent, "bootstrap")
	bootstrap.Stdin, bootstrap.Stdout, bootstrap.Stderr = stdin, stdout, stderr
	bootstrap.Env = append(env, "BUILDKITE_AGENT_NO_JOB_API=true",
		"BUILDKITE_AGENT_JOB_API_SOCKET="+socket, "BUILDKITE_AGENT_JOB_API_TOKEN="+a.token)
	var exit *exec.ExitError
	if err := bootstrap.Run(); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(stderr, "faultyjobapi: error:", err)
		return 1
	}
	os.Remove(socket)
	ws := bootstrap.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		// End as it did, so that the agent reports the same signal.
		signal.Reset()
		syscall.Kill(os.Getpid(), ws.Signal())
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// startSibling starts a process that serves at socket, and returns once it listens.
func startSibling(received, socket string, env []string) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "serve", received, socket)
	cmd.Env, cmd.Stderr = env, os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		input.Close()
		cmd.Wait()
	}
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		stop()
		return nil, fmt.Errorf("sibling: %w", err)
	}
	return stop, nil
}

// serveSibling serves until its input ends, which is when the wrapper does.
func serveSibling(received, socket string, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	l, err := listen(received, socket)
	if err != nil {
		fmt.Fprintln(stderr, "faultyjobapi: error:", err)
		return 1
	}
	fmt.Fprintln(stdout, "ready")
	a := &api{fault: "ok", env: variables(env), received: received}
	a.token = a.env["BUILDKITE_AGENT_JOB_API_TOKEN"]
	go a.serve(l)
	io.Copy(io.Discard, stdin)
	return 0
}

// listen makes the socket as the agent does, in a directory of mode 0700.
func listen(received, socket string) (net.Listener, error) {
	if err := os.MkdirAll(received, 0o700); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	return net.Listen("unix", socket)
}

// An api is a Job API, base /api/current-job/v0, as the agent's package jobapi
// (v3.81.0) answers where its fault does not say otherwise.
type api struct {
	fault    string
	token    string
	received string // directory

	mu  sync.Mutex
	env map[string]string
}

// serve answers on l until the process ends.
func (a *api) serve(l net.Listener) {
	http.Serve(recordingListener{l, a.received}, http.HandlerFunc(a.answer))
}

func (a *api) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	switch a.fault {
	case "never":
		<-r.Context().Done()
		return
	case "close", "garbage":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		if a.fault == "garbage" {
			io.WriteString(conn, "\x00\xff\x16not HTTP at all\r\n\r\n{}")
		}
		return
	case "huge":
		w.WriteHeader(http.StatusOK)
		filler := []byte(strings.Repeat("x", 64<<10))
		for err == nil {
			_, err = w.Write(filler)
		}
		return
	case "slow":
		time.Sleep(200 * time.Millisecond)
	}
	status, reply := a.reply(r, body)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(reply)
}

// reply is what the request is answered with, as JSON.
func (a *api) reply(r *http.Request, body []byte) (status int, reply any) {
	refuse := func(status int, why string) (int, any) { return status, map[string]string{"error": why} }
	if r.Header.Get("Authorization") != "Bearer "+a.token {
		return refuse(401, "invalid authorization token")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch route := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/current-job/v0"); route {
	case "GET /env":
		return 200, map[string]any{"env": a.env}

	case "PATCH /env":
		var patch struct {
			Env map[string]*string `json:"env"`
		}
		if err := json.Unmarshal(body, &patch); err != nil {
			return refuse(400, "failed to decode request body: "+err.Error())
		}
		switch a.fault {
		case "422":
			return refuse(422, "the following environment variables are protected, and cannot be modified: [FAULT]")
		case "500":
			return refuse(500, "fault")
		case "echo-wrong":
			return 200, map[string][]string{"added": {"OTHER"}, "updated": {}}
		}
		added, updated := []string{}, []string{}
		for name, value := range patch.Env {
			if value == nil {
				return refuse(422, "removing environment variables is not permitted on this endpoint")
			}
			if _, ok := a.env[name]; ok {
				updated = append(updated, name)
			} else {
				added = append(added, name)
			}
		}
		for name, value := range patch.Env {
			a.env[name] = *value
		}
		slices.Sort(added)
		slices.Sort(updated)
		return 200, map[string][]string{"added": added, "updated": updated}

	case "DELETE /env":
		var del struct {
			Keys []string `json:"keys"`
		}
		if err := json.Unmarshal(body, &del); err != nil {
			return refuse(400, "failed to decode request body: "+err.Error())
		}
		deleted := []string{}
		for _, name := range del.Keys {
			if _, ok := a.env[name]; ok {
				delete(a.env, name)
				deleted = append(deleted, name)
			}
		}
		return 200, map[string][]string{"deleted": deleted}

	case "POST /redactions":
		var text struct {
			Redact string `json:"redact"`
		}
		if err := json.Unmarshal(body, &text); err != nil {
			return refuse(400, "failed to decode request body: "+err.Error())
		}
		if a.fault == "redact-500" {
			return refuse(500, "fault")
		}
		return 201, map[string]string{"redacted": text.Redact}
	}
	return refuse(404, "no such route")
}

// A recordingListener writes what comes over each connection to a file of its own.
type recordingListener struct {
	net.Listener
	received string // directory
}

func (l recordingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(l.received, "")
	if err != nil {
		conn.Close()
		return nil, err
	}
	return recordingConn{conn, f}, nil
}

type recordingConn struct {
	net.Conn
	file *os.File
}

func (c recordingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if _, err := c.file.Write(p[:n]); err != nil {
		return 0, err
	}
	return n, err
}

func (c recordingConn) Close() error {
	c.file.Close()
	return c.Conn.Close()
}

func variables(env []string) map[string]string {
	m := make(map[string]string)
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		m[name] = value
	}
	return m
}

func token() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}
