package jobenv

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/ancestors"
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
	Agent    int // the process that runs the job: the agent's bootstrap
	conn     net.Conn
	requests *bufio.Writer
	answers  *bufio.Reader
	token    string

	sent      map[string]bool // masks
	awaited   chan string     // those not confirmed, in JSON; nil: there are none
	confirmed chan error      // what came of all that were awaited
	err       error           // of the first request that could not be sent
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
	if pid != os.Getppid() && !slices.Contains(ancestors.PIDs(), pid) { // the parent, as a rule
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
	return &Client{Agent: agent, conn: conn, requests: bufio.NewWriterSize(conn, 8<<10),
		answers: bufio.NewReader(io.LimitReader(conn, largestAnswers)), token: token, sent: map[string]bool{}}
}

// Close ends the connection.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.wait()
	return err
}

// Mask asks the agent to redact each text in the job's log, and returns when it
// has confirmed them all, those of MaskEarly too. The requests go out without
// waiting for the answers in between: one by one, 600 masks take 100 ms, so 20.
func (c *Client) Mask(texts []string) error {
	for _, text := range texts {
		c.mask(text)
	}
	if err := c.requests.Flush(); err != nil && c.err == nil {
		c.err = fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if err := cmp.Or(c.wait(), c.err); err != nil {
		return fmt.Errorf("mask: %w", err)
	}
	return nil
}

// mask sends one request, unless it was sent before, and leaves the answer to a
// reader beside it.
func (c *Client) mask(text string) {
	if c.sent[text] || c.err != nil {
		return
	}
	c.sent[text] = true
	if c.awaited == nil {
		awaited, confirmed := make(chan string, maxMasks), make(chan error, 1)
		go func() { confirmed <- c.confirm(awaited) }()
		c.awaited, c.confirmed = awaited, confirmed
	}
	quoted, err := json.Marshal(text)
	if err == nil {
		err = c.write(http.MethodPost, "redactions", `{"redact":`, string(quoted), "}")
	}
	if err != nil {
		c.err = fmt.Errorf("%w: %w", ErrAnswer, err)
		return
	}
	c.awaited <- string(quoted)
}

// wait returns what came of the masks that were sent.
func (c *Client) wait() error {
	if c.awaited == nil {
		return nil
	}
	close(c.awaited)
	c.awaited = nil
	return <-c.confirmed
}

// confirm reads the answers to masks. After an error it ends the connection, and
// with it the writer.
func (c *Client) confirm(masks <-chan string) (err error) {
	for quoted := range masks {
		if err != nil {
			continue
		}
		if err = c.readMask(quoted); err != nil {
			c.conn.Close()
		}
	}
	return err
}

func (c *Client) readMask(quoted string) error {
	body, err := c.read(http.StatusCreated)
	if err != nil {
		return err
	}
	// Letter by letter as the agent writes it, as a rule; else it may still mean
	// the same.
	if string(body) == `{"redacted":`+quoted+"}\n" {
		return nil
	}
	var answer struct {
		Redacted *string `json:"redacted"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return errStrange
	}
	var text string
	if answer.Redacted == nil || json.Unmarshal([]byte(quoted), &text) != nil || *answer.Redacted != text {
		return fmt.Errorf("%w: it confirmed something else", ErrAnswer)
	}
	return nil
}

// Set sets variables of the job, all in one request: the agent applies it
// wholly or not at all. After an error it may have been applied.
func (c *Client) Set(vars map[string]string) error {
	quoted, err := json.Marshal(vars)
	if err == nil {
		err = c.write(http.MethodPatch, "env", `{"env":`, string(quoted), "}")
	}
	if err == nil {
		err = c.requests.Flush()
	}
	if err != nil {
		return fmt.Errorf("set: %w: %w", ErrAnswer, err)
	}
	body, err := c.read(http.StatusOK)
	if err != nil {
		return fmt.Errorf("set: %w", err)
	}
	var answer struct {
		Added   []string `json:"added"`
		Updated []string `json:"updated"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return fmt.Errorf("set: %w", errStrange)
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

// write sends one request, whose body comes in parts. HTTP's own client can't send
// the next before the answer to the last, so the request is written here, its
// answer read by HTTP.
func (c *Client) write(method, route string, body ...string) error {
	length := 0
	for _, part := range body {
		length += len(part)
	}
	fmt.Fprintf(c.requests, "%s /api/current-job/v0/%s HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		method, route, c.token, length)
	var err error
	for _, part := range body {
		_, err = c.requests.WriteString(part) // an error stays
	}
	return err
}

// read takes the body of one answer. What it says beyond its status is never
// passed on: it echoes what was sent.
func (c *Client) read(status int) (body []byte, err error) {
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrAnswer, noAnswer(err))
	}
	body, err = io.ReadAll(io.LimitReader(response.Body, largestAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrAnswer, noAnswer(err))
	}
	if response.StatusCode != status {
		return nil, fmt.Errorf("%w: it answered %d", ErrAnswer, response.StatusCode)
	}
	if len(body) > largestAnswer {
		return nil, errStrange
	}
	return body, nil
}

var errStrange = fmt.Errorf("%w: its answer is not what the agent's looks like", ErrAnswer)

// noAnswer says what became of an answer; HTTP's own errors quote it.
func noAnswer(err error) string {
	switch timeout := net.Error(nil); {
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %d s", Timeout/time.Second)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it hung up"
	}
	return "its answer is not HTTP"
}
