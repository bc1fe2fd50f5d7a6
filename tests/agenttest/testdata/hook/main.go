// Command hook is a hook for the tests of agenttest: it masks one text, then sets
// FROM_HOOK over the Job API, and says how that went.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	socket := os.Getenv("BUILDKITE_AGENT_JOB_API_SOCKET")
	rel, err := filepath.Rel(os.Getenv("BUILDKITE_SOCKETS_PATH"), socket)
	fmt.Println("hook: socket", rel, err)
	client := &http.Client{
		Timeout: 2 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}},
	}
	send := func(method, path string, body any) {
		text, _ := json.Marshal(body)
		r, _ := http.NewRequest(method, "http://job/api/current-job/v0"+path, strings.NewReader(string(text)))
		r.Header.Set("Authorization", "Bearer "+os.Getenv("BUILDKITE_AGENT_JOB_API_TOKEN"))
		answer, err := client.Do(r)
		if err != nil {
			fmt.Println("hook:", method, path, "no answer")
			return
		}
		defer answer.Body.Close()
		_, err = io.ReadAll(io.LimitReader(answer.Body, 1<<20))
		fmt.Println("hook:", method, path, answer.StatusCode, err)
	}
	send("POST", "/redactions", map[string]string{"redact": os.Getenv("TO_MASK")})
	send("PATCH", "/env", map[string]any{"env": map[string]string{"FROM_HOOK": "set-by-hook"}})
}
