package observe

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/doctor"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// TestAPI asks a server what the token may do.
func TestAPI(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind restserver.Certificate
		do   func(*restserver.Server, *Machine)
		want string // the first finding; empty: none but the usual
		says string
	}{
		{"well", restserver.Good, func(*restserver.Server, *Machine) {}, "", ""},
		{"no token", restserver.Good, func(s *restserver.Server, _ *Machine) { s.Token = "" }, "credential.missing", "api-token is not there"},
		{"a revoked token", restserver.Good, func(s *restserver.Server, _ *Machine) {
			s.Fail("access-token", 1, restserver.Status(http.StatusUnauthorized))
		}, "api.token", "not valid (401)"},
		{"a scope too few", restserver.Good, func(s *restserver.Server, _ *Machine) { s.Scopes = []string{"read_builds"} }, "api.scopes", "lacks read_pipelines"},
		{"scopes that write", restserver.Good, func(s *restserver.Server, _ *Machine) {
			s.Scopes = append(s.Scopes, "write_builds", "graphql")
		}, "api.power", "write_builds, graphql"},
		{"a scope too many", restserver.Good, func(s *restserver.Server, _ *Machine) { s.Scopes = append(s.Scopes, "read_agents") }, "api.more", "read_agents"},
		{"another organization", restserver.Good, func(s *restserver.Server, _ *Machine) {
			s.Fail("organizations/", 1, restserver.Status(http.StatusNotFound))
		}, "api.organization", "juliagpu: "},
		{"nobody there", restserver.Good, func(s *restserver.Server, _ *Machine) { s.Close() }, "api.unreachable", "connection refused"},
		{"a portal", restserver.Good, func(s *restserver.Server, _ *Machine) { s.Fail("", -1, restserver.HTML) }, "api.unreachable", "not JSON"},
		{"another authority", restserver.OtherRoots, func(*restserver.Server, *Machine) {}, "api.unreachable", "authority"},
		{"a clock ahead", restserver.Good, func(_ *restserver.Server, m *Machine) {
			m.Now = func() time.Time { return time.Now().Add(time.Hour) }
		}, "clock.off", "s ahead of"},
		{"a clock behind", restserver.Good, func(s *restserver.Server, m *Machine) {
			s.Fail("access-token", 1, restserver.Status(http.StatusUnauthorized))
			m.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
		}, "clock.off", "s behind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := restserver.StartWith(t.TempDir(), "127.0.0.1", tt.kind)
			require.NoError(t, err)
			t.Cleanup(func() { s.Close() })
			f := load(t, "ok")
			m := f.machine(t)
			m.Now = time.Now
			tt.do(s, &m)
			attested(t, m, s)
			r := doctor.Judge(Facts(m, Ask{}))
			if tt.want == "" {
				require.Equal(t, 0, r.Status(), r.Text(0, false, 0))
				require.Contains(t, r.Text(0, false, 0), "token with read_builds, read_pipelines")
				for _, request := range s.Requests() {
					require.Equal(t, http.MethodGet, request.Method)
				}
				require.Len(t, s.Requests(), 2)
				return
			}
			require.Equal(t, tt.want, r.Findings[0].ID, r.Text(0, false, 0))
			require.Contains(t, r.Findings[0].What, tt.says)
			require.NotContains(t, r.Text(0, false, 0)+string(r.JSON(0)), "bkua_")
		})
	}
}

// TestOffline asks nobody.
func TestOffline(t *testing.T) {
	s, err := restserver.Start(t.TempDir())
	require.NoError(t, err)
	defer s.Close()
	m := load(t, "ok").machine(t)
	m.Now = time.Now
	attested(t, m, s)
	r := doctor.Judge(Facts(m, Ask{Offline: true}))
	require.Equal(t, 0, r.Status())
	require.Contains(t, r.Text(0, false, 0), "not asked: --offline")
	require.Empty(t, s.Requests())
}

// attested turns attestation on, by a server.
func attested(t *testing.T, m Machine, s *restserver.Server) {
	t.Helper()
	dir := filepath.Join(m.Root, "etc/juliagpu-secrets")
	config, err := os.OpenFile(filepath.Join(dir, "config.yml"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = config.WriteString("attest: {token: /run/juliagpu-secrets/credentials/api-token, organization: juliagpu, api: \"" + s.URL + "\", roots: " + s.Roots + "}\n")
	require.NoError(t, err)
	require.NoError(t, config.Close())
	if s.Token != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "credentials/api-token"), []byte(s.Token+"\n"), 0o600))
	}
}
