package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/witness"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

func TestRun(t *testing.T) {
	s, err := restserver.Start(t.TempDir())
	require.NoError(t, err)
	defer s.Close()
	id, err := job.ParseID(restserver.RandomID())
	require.NoError(t, err)
	b := s.AddBuild(restserver.Build{Jobs: []restserver.Job{{ID: id.String(), State: "running"}}})
	question, err := witness.Question{
		URL: s.URL, Roots: s.Roots, Token: s.Token, Organization: "juliagpu", Pipeline: "cuda-jl", Number: "1", Job: id, Deadline: 30 * time.Second,
	}.Marshal()
	require.NoError(t, err)

	for _, tt := range []struct {
		name          string
		args, environ []string
		stdin         io.Reader
		status        int
		stderr        string
	}{
		{name: "as hooks do", stdin: bytes.NewReader(question)},
		{name: "at a terminal", environ: []string{"HOME=/root"}, stdin: strings.NewReader(""), status: 2, stderr: "attest: error: the hooks start this program, without arguments and with an empty environment\nattest: hint: "},
		{name: "with certificates of a job's", environ: []string{"SSL_CERT_FILE=/tmp/x"}, stdin: bytes.NewReader(question), status: 2, stderr: "with an empty environment"},
		{name: "with an argument", args: []string{"--help"}, stdin: strings.NewReader(""), status: 2, stderr: "without arguments"},
		{name: "no question", stdin: strings.NewReader(""), status: 2, stderr: "attest: error: the question is not what this release writes\n"},
		{name: "half a question", stdin: bytes.NewReader(question[:len(question)/2]), status: 2, stderr: "attest: error: the question is not what this release writes\n"},
		{name: "too long a question", stdin: io.LimitReader(endless{}, 10*witness.MaxText), status: 2, stderr: "attest: error: the question is not what this release writes\n"},
		{name: "no input", stdin: iotest.ErrReader(errors.New("gone")), status: 75, stderr: "attest: error: the question can't be read\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, tt.status, run(tt.args, tt.environ, tt.stdin, &stdout, &stderr))
			require.Contains(t, stderr.String(), tt.stderr)
			require.NotContains(t, stdout.String()+stderr.String(), s.Token)
			if tt.status != 0 {
				require.Empty(t, stdout.String())
				return
			}
			require.Empty(t, stderr.String())
			answer, err := witness.ParseAnswer(stdout.Bytes())
			require.NoError(t, err)
			require.Equal(t, b.ID, answer.Attestation.ID)
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
