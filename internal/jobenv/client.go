package jobenv

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The variables with which the agent says where its Job API is. It overwrites
// the first always, the others unless the pipeline turned the API off.
const (
	VarSockets = "BUILDKITE_SOCKETS_PATH"
	VarSocket  = "BUILDKITE_AGENT_JOB_API_SOCKET"
	VarToken   = "BUILDKITE_AGENT_JOB_API_TOKEN"
	VarNoAPI   = "BUILDKITE_AGENT_NO_JOB_API"
)

// Timeout is how long all exchanges with the Job API may take together.
const Timeout = 10 * time.Second

// Limits of what is read, in bytes: one answer (a mask of 4 KiB comes back, six
// times as long where JSON escapes every byte), and all of them.
const (
	largestAnswer  = 1 << 20
	largestAnswers = 32 << 20
)

// Errors of the Job API. A caller who has something to set treats each as the
// machine's fault. None holds a text that was sent or received.
var (
	ErrNoAPI       = errors.New("the agent offers no Job API")
	ErrNotTheAgent = errors.New("the Job API's socket is not the agent's")
	ErrAnswer      = errors.New("the Job API did not do what it was asked")
)

// An Address says where a Job API claims to be.
type Address struct {
	Sockets string // the folder that the agent was given for sockets
	Socket  string
	Token   string
	Off     bool // the pipeline asked for none: without the agent's own, the rest may be anything
}

// AddressFrom reads the address from a job's environment, a list of NAME=value.
func AddressFrom(environ []string) Address {
	var a Address
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case VarSockets:
			a.Sockets = value
		case VarSocket:
			a.Socket = value
		case VarToken:
			a.Token = value
		case VarNoAPI:
			a.Off, _ = strconv.ParseBool(value)
		}
	}
	return a
}

// A Client speaks to the Job API of the agent that runs this very job, over one
// connection. Close it.
type Client struct {
	Agent   int // the process that runs the job: the agent's bootstrap
	conn    net.Conn
	answers *bufio.Reader
	token   string
}

// Dial connects, and makes sure before the first byte goes out that it is the
// agent who listens: a pipeline can turn the Job API off and leave the address
// of a socket of its own. The socket must lie where the agent puts it,
// Sockets/job-api/PID-N.sock, and PID and the kernel's word on who listens must
// both be one process, an ancestor of ours.
func Dial(a Address) (*Client, error) {
	switch {
	case a.Off && a.Socket == "":
		return nil, fmt.Errorf("%w: %s turned it off", ErrNoAPI, VarNoAPI)
	case a.Socket == "" || a.Token == "":
		return nil, fmt.Errorf("%w: %s is not set", ErrNoAPI, VarSocket)
	case a.Sockets == "" || filepath.Dir(a.Socket) != filepath.Join(a.Sockets, "job-api"):
		return nil, fmt.Errorf("%w: it does not lie in %s/job-api", ErrNotTheAgent, VarSockets)
	}
	number, _, _ := strings.Cut(filepath.Base(a.Socket), "-")
	pid, err := strconv.Atoi(number)
	if err != nil || pid < 1 || !strings.HasSuffix(a.Socket, ".sock") {
		return nil, fmt.Errorf("%w: its name is not that of a process", ErrNotTheAgent)
	}
	if !slices.Contains(Ancestors(), pid) {
		return nil, fmt.Errorf("%w: process %d, after which it is named, did not start this hook", ErrNotTheAgent, pid)
	}
	deadline := time.Now().Add(Timeout)
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("unix", a.Socket)
	if err != nil {
		return nil, fmt.Errorf("%w: nobody listens: %w", ErrNoAPI, errors.Unwrap(err))
	}
	listener, err := peer(conn.(*net.UnixConn))
	if err != nil || listener != pid {
		conn.Close()
		return nil, fmt.Errorf("%w: another process listens than it is named after", ErrNotTheAgent)
	}
	conn.SetDeadline(deadline)
	return newClient(pid, conn, a.Token), nil
}

func newClient(agent int, conn net.Conn, token string) *Client {
	return &Client{agent, conn, bufio.NewReader(io.LimitReader(conn, largestAnswers)), token}
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Mask asks the agent to redact each text in the job's log, and returns when it
// has confirmed them all. The requests go out without waiting for the answers
// in between: one by one, 600 masks take 100 ms, so 20.
func (c *Client) Mask(texts []string) error {
	written := make(chan error, 1)
	go func() { written <- c.writeMasks(texts) }()
	for _, text := range texts {
		var answer struct {
			Redacted *string `json:"redacted"`
		}
		if err := c.read(http.StatusCreated, &answer); err != nil {
			c.conn.Close() // ends the writer, too
			<-written
			return fmt.Errorf("mask: %w", err)
		}
		if answer.Redacted == nil || *answer.Redacted != text {
			c.conn.Close()
			<-written
			return fmt.Errorf("mask: %w: it confirmed something else", ErrAnswer)
		}
	}
	if err := <-written; err != nil {
		return fmt.Errorf("mask: %w: %w", ErrAnswer, err)
	}
	return nil
}

func (c *Client) writeMasks(texts []string) error {
	w := bufio.NewWriterSize(c.conn, 64<<10)
	for _, text := range texts {
		if err := c.write(w, http.MethodPost, "redactions", map[string]string{"redact": text}); err != nil {
			return err
		}
	}
	return w.Flush()
}

// Set sets variables of the job, all in one request: the agent applies it
// wholly or not at all. After an error it may have been applied.
func (c *Client) Set(vars map[string]string) error {
	w := bufio.NewWriter(c.conn)
	err := c.write(w, http.MethodPatch, "env", map[string]any{"env": vars})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return fmt.Errorf("set: %w: %w", ErrAnswer, err)
	}
	var answer struct {
		Added   []string `json:"added"`
		Updated []string `json:"updated"`
	}
	if err := c.read(http.StatusOK, &answer); err != nil {
		return fmt.Errorf("set: %w", err)
	}
	confirmed := map[string]bool{}
	for _, name := range slices.Concat(answer.Added, answer.Updated) {
		confirmed[name] = true
	}
	for name := range vars {
		if !confirmed[name] {
			return fmt.Errorf("set: %w: it did not confirm %s", ErrAnswer, name)
		}
	}
	return nil
}

// write sends one request. HTTP's own client can't send the next before the
// answer to the last, so the request is written here, its answer read by HTTP.
func (c *Client) write(w *bufio.Writer, method, route string, body any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return errors.New("a text can't be written as JSON")
	}
	fmt.Fprintf(w, "%s /api/current-job/v0/%s HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		method, route, c.token, b.Len())
	_, err := w.Write(b.Bytes())
	return err
}

// read takes one answer. What it says beyond its status is never passed on: it
// echoes what was sent.
func (c *Client) read(status int, answer any) error {
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrAnswer, noAnswer(err))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, largestAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: %s", ErrAnswer, noAnswer(err))
	}
	if response.StatusCode != status {
		return fmt.Errorf("%w: it answered %d", ErrAnswer, response.StatusCode)
	}
	if len(body) > largestAnswer || json.Unmarshal(body, answer) != nil {
		return fmt.Errorf("%w: its answer is not what the agent's looks like", ErrAnswer)
	}
	return nil
}

// noAnswer says what became of an answer; HTTP's own errors quote it.
func noAnswer(err error) string {
	switch timeout := net.Error(nil); {
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %d s", Timeout/time.Second)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "it hung up"
	}
	return "its answer is not HTTP"
}
