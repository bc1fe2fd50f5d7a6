package jobenv

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// An api is the agent's side, as far as these tests go.
type api struct {
	sync.Mutex
	masked []string
	env    map[string]string
	paths  []string
	status int                                // answered to all, if not 0
	body   func(w http.ResponseWriter, n int) // written instead of the answer, if not nil
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.Lock()
	defer a.Unlock()
	a.paths = append(a.paths, r.Method+" "+r.URL.Path)
	if r.Header.Get("Authorization") != "Bearer token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, _ := io.ReadAll(r.Body)
	if a.status != 0 {
		w.WriteHeader(a.status)
		w.Write(body) // echoes, as the agent's errors do
		return
	}
	if a.body != nil {
		a.body(w, len(a.paths))
		return
	}
	var sent struct {
		Redact string            `json:"redact"`
		Env    map[string]string `json:"env"`
	}
	json.Unmarshal(body, &sent)
	if r.Method == http.MethodPost {
		a.masked = append(a.masked, sent.Redact)
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]string{"redacted": sent.Redact})
		return
	}
	a.env = sent.Env
	json.NewEncoder(w).Encode(map[string][]string{"added": slices.Collect(maps.Keys(sent.Env)), "updated": {}})
}

func (a *api) client(t testing.TB) *Client {
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return newClient(0, conn, "token")
}

func TestDeliver(t *testing.T) {
	agent := &api{}
	vars := secrets("the first value", "the <second> & \"last\"\nvalue \u2028 ü")
	unmasked, err := agent.client(t).Deliver(Delivery{Secrets: vars, Plain: map[string]string{"SECRET_V0": ""}})
	require.NoError(t, err)
	require.Empty(t, unmasked)
	want, _ := masks(vars)
	require.Equal(t, want, agent.masked)
	require.Equal(t, map[string]string{"V0": "the first value", "V1": vars[1].Value.Reveal(), "SECRET_V0": ""}, agent.env)
	require.Equal(t, "PATCH /api/current-job/v0/env", agent.paths[len(agent.paths)-1], "masks first")
	require.Len(t, slices.DeleteFunc(agent.paths, func(p string) bool { return p == "POST /api/current-job/v0/redactions" }), 1)
}

// TestDeliverMany: more masks than both socket buffers hold, so that a client
// that writes all before it reads would never end.
func TestDeliverMany(t *testing.T) {
	var values []string
	for i := range 300 {
		values = append(values, fmt.Sprintf("%d-%s", i, strings.Repeat("\x01", 4000)))
	}
	agent := &api{}
	_, err := agent.client(t).Deliver(Delivery{Secrets: secrets(values...)})
	require.NoError(t, err)
	require.Len(t, agent.masked, maxMasks)
	require.Len(t, agent.env, 300)
}

// TestFaultyAPI: nothing that an API answers makes a delivery succeed that may
// not have, and no error holds a word of what was sent.
func TestFaultyAPI(t *testing.T) {
	const canary = "canary-7f3a"
	for name, agent := range map[string]*api{
		"refuses":           {status: 422},
		"breaks":            {status: 500},
		"unauthorized":      {status: 401},
		"redirects":         {status: 302},
		"confirms nothing":  {body: func(w http.ResponseWriter, _ int) { w.WriteHeader(201); io.WriteString(w, "{}") }},
		"confirms another":  {body: func(w http.ResponseWriter, _ int) { w.WriteHeader(201); io.WriteString(w, `{"redacted":"x"}`) }},
		"not JSON":          {body: func(w http.ResponseWriter, _ int) { w.WriteHeader(201); io.WriteString(w, "canary-7f3a") }},
		"endless":           {body: func(w http.ResponseWriter, _ int) { w.WriteHeader(201); io.Copy(w, zeros{}) }},
		"confirms no name":  {body: patchAnswer(`{"added":[],"updated":[]}`)},
		"confirms one name": {body: patchAnswer(`{"added":["V0"]}`)},
		"hangs up":          {body: func(http.ResponseWriter, int) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := agent.client(t).Deliver(Delivery{Secrets: secrets(canary), Plain: map[string]string{"SECRET_V0": ""}})
			require.ErrorIs(t, err, ErrAnswer)
			require.NotContains(t, err.Error(), canary)
		})
	}
}

// patchAnswer confirms each mask, and answers text to PATCH.
func patchAnswer(text string) func(http.ResponseWriter, int) {
	want, _ := masks(secrets("canary-7f3a"))
	return func(w http.ResponseWriter, n int) {
		if n > len(want) {
			io.WriteString(w, text)
			return
		}
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]string{"redacted": want[n-1]})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestNotHTTP(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		go io.Copy(io.Discard, theirs)
		io.WriteString(theirs, "220 canary-7f3a ESMTP\r\n\r\n")
	}()
	err := newClient(0, ours, "token").Mask([]string{"canary-7f3a"})
	require.ErrorIs(t, err, ErrAnswer)
	require.NotContains(t, err.Error(), "canary-7f3a")
	theirs.Close()
}

// TestDialLooksFirst: whatever is wrong with the address, nobody gets a byte.
// The server is this very process, and so no ancestor of ours.
func TestDialLooksFirst(t *testing.T) {
	dir := t.TempDir()
	listen := func(path string) string {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		l, err := net.Listen("unix", path)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				got, _ := io.ReadAll(conn)
				if len(got) > 0 {
					t.Errorf("a socket that is not the agent's got %d bytes", len(got))
				}
			}
		}()
		return path
	}
	api := filepath.Join(dir, "job-api")
	parent := os.Getppid()
	for name, tt := range map[string]struct {
		address Address
		want    error
	}{
		"off": {Address{Sockets: dir, Off: true}, ErrNoAPI},
		"off, and a socket of the pipeline's own": {Address{Sockets: dir, Socket: listen(fmt.Sprintf("%s/%d-9.sock", api, parent)), Token: "t", Off: true}, ErrNotTheAgent},
		"no socket":           {Address{Sockets: dir, Token: "t"}, ErrNoAPI},
		"no token":            {Address{Sockets: dir, Socket: fmt.Sprintf("%s/%d-0.sock", api, parent)}, ErrNoAPI},
		"no folder":           {Address{Socket: listen(fmt.Sprintf("%s/x/%d-1.sock", dir, parent)), Token: "t"}, ErrNotTheAgent},
		"another folder":      {Address{Sockets: dir, Socket: listen(fmt.Sprintf("%s/y/%d-1.sock", dir, parent)), Token: "t"}, ErrNotTheAgent},
		"a folder further up": {Address{Sockets: dir, Socket: fmt.Sprintf("%s/../%s/y/%d-1.sock", api, filepath.Base(dir), parent), Token: "t"}, ErrNotTheAgent},
		"no number":           {Address{Sockets: dir, Socket: listen(api + "/agent.sock"), Token: "t"}, ErrNotTheAgent},
		"a number below one":  {Address{Sockets: dir, Socket: listen(api + "/0-1.sock"), Token: "t"}, ErrNotTheAgent},
		"no .sock":            {Address{Sockets: dir, Socket: listen(fmt.Sprintf("%s/%d-1", api, parent)), Token: "t"}, ErrNotTheAgent},
		"ourselves":           {Address{Sockets: dir, Socket: listen(fmt.Sprintf("%s/%d-1.sock", api, os.Getpid())), Token: "t"}, ErrNotTheAgent},
		"an ancestor's name":  {Address{Sockets: dir, Socket: listen(fmt.Sprintf("%s/%d-1.sock", api, parent)), Token: "t"}, ErrNotTheAgent},
		"nobody listens":      {Address{Sockets: dir, Socket: fmt.Sprintf("%s/%d-2.sock", api, parent), Token: "t"}, ErrNoAPI},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Dial(tt.address)
			require.ErrorIs(t, err, tt.want)
			require.Nil(t, c)
		})
	}
}

func TestAddressFrom(t *testing.T) {
	env := []string{VarSockets + "=/s", VarSocket + "=/s/job-api/1-1.sock", "X=y", VarToken + "=t=", VarNoAPI + "=true"}
	require.Equal(t, Address{Sockets: "/s", Socket: "/s/job-api/1-1.sock", Token: "t=", Off: true}, AddressFrom(env))
	require.False(t, AddressFrom(append(env, VarNoAPI+"=false")).Off)
}
