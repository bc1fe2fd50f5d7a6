package tests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/gate"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/restserver"
)

// around puts a shell script in the place of the one-line hook; $HOOK in it runs
// pre-bootstrap as the agent would.
func (h *host) around(script string) {
	h.t.Helper()
	text := "#!/bin/sh\nHOOK='" + h.lib + "/pre-bootstrap pre-bootstrap'\n" + script + "\n"
	require.NoError(h.t, os.WriteFile(filepath.Join(h.lib, "hooks", "pre-bootstrap"), []byte(text), 0o755))
}

// TestNoHandoff: whatever becomes of pre-bootstrap or of what it leaves, a job
// starts with a whole hand-off of its own or not at all.
func TestNoHandoff(t *testing.T) {
	t.Parallel()
	const dir = runFolder + "/job/*"
	outside := func(h *host) string { // where a planted link leads to
		dir := filepath.Join(filepath.Dir(h.dir), "outside")
		require.NoError(h.t, os.MkdirAll(dir, 0o755))
		return dir
	}
	for _, tt := range []struct {
		name     string
		arrange  func(*host)
		rejected bool
		log      string
	}{
		{"killed", func(h *host) { h.around("$HOOK & kill -KILL $!; wait $!") }, true, "exit status 137"},
		{"killed a moment later", func(h *host) { h.around("$HOOK & sleep 0.01; kill -KILL $!; wait $!; exit 1") }, true, "exit status 1"},
		{"not there", func(h *host) { require.NoError(h.t, os.Remove(filepath.Join(h.lib, "pre-bootstrap"))) }, true, "job rejected"},
		{"a binary in its place, which agents hand to bash", func(h *host) {
			hook := filepath.Join(h.lib, "hooks", "pre-bootstrap")
			require.NoError(h.t, os.Remove(hook))
			require.NoError(h.t, os.Symlink("../pre-bootstrap", hook))
		}, true, "job rejected: exit status 126"},
		{"slow", func(h *host) { // a file system whose server never answers
			h.agent.Setup += "\nexec 9<>/dev/fuse && mkdir /run/slow && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 none /run/slow"
			h.configure("", "{file: /run/slow/identity}")
		}, true, "pre-bootstrap: error: no end in time"},
		{"without tmpfs", func(h *host) {
			h.agent.Setup = "mount --bind " + outside(h) + " /run\n" + h.agent.Setup
		}, true, "pre-bootstrap: error: " + runFolder + "/job: not on tmpfs"},
		{"with a full tmpfs", func(h *host) {
			h.agent.Setup += "\nmkdir " + runFolder + "/job && mount -t tmpfs -o size=4k,mode=711 tmpfs " + runFolder + "/job"
		}, true, "no space left on device"},
		{"a folder that others can write", func(h *host) { h.agent.Setup += "\nchmod 777 " + runFolder }, true, "mode 0777, others can write"},
		{"a link for the folder", func(h *host) { h.agent.Setup = "ln -s " + outside(h) + " " + runFolder }, true, runFolder + ": not a directory"},
		{"a link for the folder of jobs", func(h *host) { h.agent.Setup += "\nln -s " + outside(h) + " " + runFolder + "/job" }, true, runFolder + "/job: not a directory"},

		{"taken away", func(h *host) { h.around("$HOOK && rm -r " + dir) }, false, "no hand-off for this job"},
		{"emptied", func(h *host) { h.around("$HOOK && rm " + dir + "/handoff") }, false, "it was taken before"},
		{"another job's", func(h *host) {
			h.around(`$HOOK && cd ` + dir + ` && sed 's/"job":"......../"job":"00000000/' handoff >new && chmod 440 new && mv -f new handoff`)
		}, false, "it is for job 00000000-"},
		{"a second one", func(h *host) { h.around("$HOOK && cd " + dir + " && touch second") }, false, "there is more than one file"},
		{"half of one", func(h *host) { h.around("$HOOK && truncate -s 200 " + dir + "/handoff") }, false, "not what this release of pre-bootstrap writes"},
		{"of another release", func(h *host) { h.around(`$HOOK && sed -i s/version/release/ ` + dir + `/handoff`) }, false, "not what this release of pre-bootstrap writes"},
		{"a link to one", func(h *host) { h.around("$HOOK && cd " + dir + " && mv handoff /run/kept && ln -s /run/kept handoff") }, false, "too many levels of symbolic links"},
		{"one that others can read", func(h *host) { h.around("$HOOK && chmod 444 " + dir + "/handoff") }, false, "its mode is 0444"},
		{"one of another user", func(h *host) { h.around("$HOOK && chown 4711 " + dir + "/handoff") }, false, "written by uid 4711"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, to := readyHost(t, split)
			kept := filepath.Join(outside(h), "kept")
			require.NoError(t, os.WriteFile(kept, []byte("kept"), 0o644))
			tt.arrange(h)
			// One that takes more than a page.
			value := canary("file") + strings.Repeat("x", 5000)
			sealed := seal(t, to, "TOKEN", value, func(l *envelope.Label) { l.Type = envelope.TypeFile })
			r := row{secrets: map[string]string{"SECRET_TOKEN": sealed}, noOpen: []string{value}, log: []string{tt.log}, rejected: tt.rejected}
			if !tt.rejected {
				r.status = 75
				r.log = append(r.log, "+++ :key: Secrets\n", "environment: error: ", "nothing set: ")
			}
			h.run(r)
			text, err := os.ReadFile(kept)
			require.NoError(t, err)
			require.Equal(t, "kept", string(text))
		})
	}
}

// TestPlantedHandoff: what lies in a hand-off's place before the job is removed,
// and what it leads to is not.
func TestPlantedHandoff(t *testing.T) {
	t.Parallel()
	h, to := readyHost(t, split)
	outside := filepath.Join(filepath.Dir(h.dir), "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "handoff"), []byte("kept"), 0o644))
	const id = "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"
	stale := runFolder + "/job/0190b5c4-0000-4c3d-9a8b-7c6d5e4f3a2b"
	h.agent.Setup += fmt.Sprintf("\nmkdir -m 711 %s/job && ln -s %s %s/job/%s && mkdir %s && echo %s >%s/handoff && chown -R 4711 %s && ln -s /etc/passwd %s/used",
		runFolder, outside, runFolder, id, stale, "stale", stale, stale, runFolder)
	value := canary("token")
	job := agenttest.Job{ID: id, Env: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}, Command: show("TOKEN") + "find " + runFolder + " | sed 's/^/lies /'"}
	result, err := h.agent.RunWhole(t.Context(), job, nil)
	require.NoError(t, err)
	require.Contains(t, result.Text(), sum("TOKEN", value))
	require.NotContains(t, result.Text(), "lies "+stale)
	text, err := os.ReadFile(filepath.Join(outside, "handoff"))
	require.NoError(t, err)
	require.Equal(t, "kept", string(text))
}

// TestForged: what a job can do with the names of its variables, which the agent's
// file does not quote.
func TestForged(t *testing.T) {
	t.Parallel()
	unknownHead := maps.Clone(fork)
	delete(unknownHead, "BUILDKITE_PULL_REQUEST_REPO")
	for _, tt := range []struct {
		name     string
		env      map[string]string
		unset    []string
		rejected bool
		log      string
	}{
		{"the hooks' folder", map[string]string{"BUILDKITE_HOOKS_PATH": "/n"}, nil, true, "rejected: it has a variable that would take the place of BUILDKITE_HOOKS_PATH, and might run without the hooks"},
		{"the hooks' folder, in a name", map[string]string{"BUILDKITE_HOOKS_PATH=/n": ""}, nil, true, "take the place of BUILDKITE_HOOKS_PATH"},
		{"the hooks' folder, as two good lines", map[string]string{"BUILDKITE_HOOKS_PATH=\"x\"\nY": "z"}, nil, true, "take the place of BUILDKITE_HOOKS_PATH"},
		{"Kubernetes", map[string]string{"BUILDKITE_KUBERNETES_EXEC": "true"}, nil, true, "take the place of BUILDKITE_KUBERNETES_EXEC"},
		{"the agent's answer", map[string]string{"BUILDKITE_ENV_FILE=/tmp/job-env-0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b1": ""}, nil, true, "take the place of BUILDKITE_ENV_FILE"},
		{"a function of bash", map[string]string{"BASH_FUNC_git%%": "() { :; }"}, nil, false, "withheld: this job has a variable named BASH_FUNC_git%%, which is no name\n"},
		{"a dot", map[string]string{"a.b": "c"}, nil, false, "withheld: this job has a variable named a.b, which is no name\n"},
		{"a line break", map[string]string{"A\nB": "c"}, nil, false, "withheld: the agent's file holds a line that can't be read, A: "},
		{"an =", map[string]string{"A=b": "c"}, nil, false, "withheld: the agent's file holds a line that can't be read, A: "},
		{"a fact twice", map[string]string{"A=\"b\"\nBUILDKITE_PULL_REQUEST": "false"}, nil, false, "withheld: BUILDKITE_PULL_REQUEST is stated twice\n"},
		{"another job", map[string]string{"BUILDKITE_JOB_ID": "0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b"}, nil, false,
			"withheld: the job states BUILDKITE_JOB_ID=0190b5c4-1f2e-4c3d-9a8b-7c6d5e4f3a2b, but the agent "},
		// Only where the server leaves a fact out. In the bootstrap's environment the
		// whole of it is one value, which is no repository's address.
		{"a fact that is not stated", mergeEnv(unknownHead, map[string]string{"BUILDKITE_PULL_REQUEST_REPO=\"https://github.com/JuliaGPU/CUDA.jl\"\nY": "z"}),
			[]string{"BUILDKITE_PULL_REQUEST_REPO"}, false, "withheld: BUILDKITE_PULL_REQUEST_REPO is not what it was before the job began\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, to := readyHost(t, split)
			value := canary("token")
			h.run(row{env: tt.env, unset: tt.unset, secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)},
				absent: []string{"TOKEN"}, noOpen: []string{value}, outcome: "withheld", log: []string{tt.log}, rejected: tt.rejected})
		})
	}
}

// TestAgentsFile looks at what the agent gives to pre-bootstrap: the file holds
// what the server states, and none of what the agent sets.
func TestAgentsFile(t *testing.T) {
	t.Parallel()
	h, _ := readyHost(t, split)
	h.around(`sed 's/^/file /' "$BUILDKITE_ENV_FILE"; env | sed 's/^/env /'`)
	result, err := h.agent.Run(t.Context(), agenttest.Job{Env: map[string]string{"BUILDKITE_GIT_CLONE_FLAGS": "-v", "A B": "c\nd"}})
	require.NoError(t, err)
	var file, env []string
	for line := range strings.Lines(result.AgentLog) {
		if _, name, ok := strings.Cut(line, "file "); ok && strings.Contains(name, `="`) {
			file = append(file, strings.TrimSpace(name))
		}
		if _, name, ok := strings.Cut(line, "env "); ok {
			env = append(env, strings.TrimSpace(name))
		}
	}
	require.Contains(t, file, `BUILDKITE_JOB_ID="`+result.ID+`"`)
	require.Contains(t, file, `BUILDKITE_GIT_CLONE_FLAGS="-v"`, "as the server states it")
	require.Contains(t, file, `A B="c\nd"`)
	for _, line := range file {
		name, _, _ := strings.Cut(line, "=")
		require.False(t, gate.Replaces(name), line)
	}
	for _, line := range env {
		require.False(t, strings.HasPrefix(line, "BUILDKITE_JOB_ID=") || strings.HasPrefix(line, "A B="), line)
	}
}

// TestReject: what an operator does not want to start at all. The identity is
// given up all the same.
func TestReject(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, reject string
		env          map[string]string
		log          string // empty: it starts
	}{
		{"a fork's repository", "{repositories: [github.com/mallory/*]}", fork, "this agent's operator rejects repository github.com/mallory/cuda.jl"},
		{"the pipeline's repository", "{repositories: [github.com/juliagpu/cuda.jl]}", nil, "this agent's operator rejects repository github.com/juliagpu/cuda.jl"},
		{"no repository to compare", "{repositories: [github.com/mallory/*]}", map[string]string{"BUILDKITE_REPO": "/tmp/x"}, "it states no repository that could be compared"},
		{"a pipeline", "{pipelines: [juliagpu/cuda-dot-jl]}", nil, "this agent's operator rejects pipeline juliagpu/cuda-dot-jl"},
		{"a loader's variable", "{variables: [shell, loader]}", map[string]string{"LD_PRELOAD": "/tmp/x.so"}, "it sets LD_PRELOAD, and this agent's operator rejects the group loader"},
		{"a name that can't be read", "{variables: [loader]}", map[string]string{"LD_PRELOAD=/tmp/x.so:": ""}, "and this agent's operator rejects some jobs"},
		{"a fact twice", "{pipelines: [juliagpu/x]}", map[string]string{"A=\"b\"\nBUILDKITE_BRANCH": "x"}, "BUILDKITE_BRANCH is stated twice, and this agent's operator rejects some jobs"},
		{"others", "{repositories: [github.com/mallory/*], pipelines: [juliagpu/x], variables: [loader, shell, git, checkout, agent]}", map[string]string{"PATH": os.Getenv("PATH")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, split)
			to, entry := h.identity("identity", false)
			h.configure("reject: "+tt.reject+"\n", entry)
			value := canary("token")
			secrets := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}
			if tt.log == "" {
				h.run(row{env: tt.env, secrets: secrets, values: map[string]string{"TOKEN": value}, outcome: "granted"})
				return
			}
			h.around("$HOOK; status=$?; find " + runFolder + " | sed 's/^/lies /'; exit $status")
			r := h.run(row{env: tt.env, secrets: secrets, noOpen: []string{value}, log: []string{tt.log}, rejected: true})
			require.Contains(t, r.AgentLog, "lies "+runFolder)
			require.NotContains(t, r.AgentLog, "lies "+runFolder+"/identity")
		})
	}
}

// TestFreshContainer: without a reason only the first job in a container gets
// secrets where jobs have no users of their own.
func TestFreshContainer(t *testing.T) {
	t.Parallel()
	for _, fresh := range []bool{true, false} {
		t.Run(fmt.Sprintf("fresh=%v", fresh), func(t *testing.T) {
			t.Parallel()
			h, to := readyHost(t, split)
			text, err := os.ReadFile(filepath.Join(h.lib, "config.yml"))
			require.NoError(t, err)
			config := strings.Replace(string(text), "reason: a test's agent\n", "", 1)
			require.NoError(t, os.WriteFile(filepath.Join(h.lib, "config.yml"), []byte(config), 0o644))
			value := canary("token")
			r := row{secrets: map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}, values: map[string]string{"TOKEN": value}, outcome: "granted",
				log: []string{"mode split, without users of their own for jobs: the first job in this container\n"}}
			if !fresh {
				h.agent.Setup += "\ncp " + runFolder + "/identity /run/again"
				h.around("$HOOK && mv /run/again " + runFolder + "/identity && $HOOK")
				r.values, r.absent, r.noOpen, r.outcome = nil, []string{"TOKEN"}, []string{value}, "withheld"
				r.log = []string{"withheld: jobs on this agent have no users of their own, and this is not the first one here\n"}
			}
			h.run(r)
		})
	}
}

// TestAttestedFreshContainer: where an earlier job may have left something running that
// reads what root does, the token is not read, and nobody is asked.
func TestAttestedFreshContainer(t *testing.T) {
	t.Parallel()
	h := newAttestingHost(t, split, restserver.Good, "20s", "")
	text, err := os.ReadFile(filepath.Join(h.lib, "config.yml"))
	require.NoError(t, err)
	config := strings.Replace(string(text), "reason: a test's agent\n", "", 1)
	require.NoError(t, os.WriteFile(filepath.Join(h.lib, "config.yml"), []byte(config), 0o644))
	h.around("$HOOK && cp -p " + h.identities + "/* " + runFolder + " && $HOOK")
	log := h.run(states(h.build(restserver.Build{})), "jobs on this agent have no users of their own, and this is not the first one here", 1) // the first one's
	require.NotContains(t, log, "retry: 1", "another time is no better")
}

// TestUsers: the hand-off is the job's user's alone, and nothing is opened while a
// process of that user is alive. (Without the launcher the job itself is root's.)
func TestUsers(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name  string
		env   map[string]string
		setup string   // UID stands for the trusted user, OTHER for the other one
		log   []string // the agent's
		owner string
	}{
		{"trusted", nil, "", []string{": trusted: 1 opened, 0 withheld, 0 refused"}, "UID"},
		{"a fork", fork, "", []string{": not trusted, pull request 17 is from github.com/mallory/cuda.jl", ": 0 opened, 1 withheld, 0 refused"}, "OTHER"},
		{"a process is left", nil, "setpriv --reuid UID --regid UID --clear-groups sleep 600 &", []string{": trusted, process ", " of the user that jobs run as (uid UID) is left from an earlier job: 0 opened, 1 withheld"}, "UID"},
		{"a process of the other user is left", nil, "setpriv --reuid OTHER --regid OTHER --clear-groups sleep 600 &", []string{": trusted: 1 opened"}, "UID"},
		{"processes can't be seen", nil, "mount -t proc -o hidepid=2 proc /proc", []string{": trusted, not every process can be seen: /proc is mounted with hidepid: 0 opened, 1 withheld"}, "UID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// Users of its own for each row: rows see each other's processes.
			uid, other := strconv.Itoa(47300+2*i), strconv.Itoa(47301+2*i)
			users := strings.NewReplacer("UID", uid, "OTHER", other)
			owner := users.Replace(tt.owner)
			h, to := readyHost(t, split)
			text, err := os.ReadFile(filepath.Join(h.lib, "config.yml"))
			require.NoError(t, err)
			config := strings.Replace(string(text), "reason: a test's agent\n", "users: {trusted: \""+uid+":"+uid+"\", other: \""+other+":"+other+"\"}\n", 1)
			require.NoError(t, os.WriteFile(filepath.Join(h.lib, "config.yml"), []byte(config), 0o644))
			h.agent.Setup += "\n" + users.Replace(tt.setup)
			h.around("$HOOK; status=$?; stat -c 'lies %n %u:%g %a' " + runFolder + "/job/* " + runFolder + "/job/*/*; exit $status")
			value := canary("token")
			env := mergeEnv(map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil)}, tt.env)
			result, err := h.agent.RunWhole(t.Context(), agenttest.Job{Env: env}, agenttest.Says("it is for uid "+owner+", and this hook runs as uid 0"))
			require.NoError(t, err)
			require.Equal(t, 75, result.ExitStatus, result.Text())
			for _, part := range tt.log {
				require.Contains(t, result.AgentLog, users.Replace(part))
			}
			require.Contains(t, result.AgentLog, fmt.Sprintf("lies %s/job/%s %s:%s 700", runFolder, result.ID, owner, owner))
			require.Contains(t, result.AgentLog, fmt.Sprintf("lies %s/job/%s/handoff 0:%s 440", runFolder, result.ID, owner))
			h.search(result, nil, append(h.identityTexts(), []byte(value)))
		})
	}
}

// TestIdentityInReach: where the identity stays, no job starts beside one that
// its user could read; a fork's, which opens nothing, neither.
func TestIdentityInReach(t *testing.T) {
	t.Parallel()
	for name, facts := range map[string]map[string]string{"trusted": nil, "a fork": fork} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, split)
			_, entry := h.identity("identity", false)
			h.configure("consume: false\n", entry)
			config := filepath.Join(h.lib, "config.yml")
			text, err := os.ReadFile(config)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(config, []byte(strings.Replace(string(text), "reason: a test's agent\n", "users: {trusted: \"4711:4711\", other: \"4712:4712\"}\n", 1)), 0o644))
			h.agent.Setup += "\nchmod 644 " + runFolder + "/identity"
			result, err := h.agent.Run(t.Context(), agenttest.Job{Env: facts, Command: "echo it ran"})
			require.NoError(t, err)
			require.Equal(t, "agent_refused", result.SignalReason)
			require.Contains(t, result.AgentLog, "mode 0644, readable by others")
			require.NotContains(t, result.Text(), "it ran")
		})
	}
}

// TestSplitPlugin: the plugin's wishes count in split mode, too.
func TestSplitPlugin(t *testing.T) {
	t.Parallel()
	h, to := readyHost(t, split)
	source := h.plugin()
	value, other := canary("token"), canary("other")
	secrets := map[string]string{"SECRET_TOKEN": seal(t, to, "TOKEN", value, nil), "SECRET_OTHER": seal(t, to, "OTHER", other, nil)}
	r := h.run(row{env: use(source, `{"required":["TOKEN"]}`), secrets: secrets, values: map[string]string{"TOKEN": value, "OTHER": other}, outcome: "granted"})
	require.Equal(t, 1, strings.Count(r.Text(), "SECRET_TOKEN: granted"), "never twice")
	h.run(row{env: mergeEnv(fork, use(source, `{"required":["TOKEN"]}`)), secrets: secrets, status: 1, noOpen: []string{value, other},
		log: []string{"TOKEN: required by this step, and not granted: "}})

	result, err := h.agent.RunWhole(t.Context(), agenttest.Job{
		Env:     mergeEnv(secrets, use(source, `{"optional":["TOKEN"]}`)),
		Command: "buildkite-agent pipeline upload pipeline.yml",
	}, agenttest.Says("1 granted, 1 withheld"))
	require.NoError(t, err)
	require.Contains(t, result.Text(), "SECRET_OTHER: withheld: this step only uploads a pipeline")
	h.search(result, [][]byte{[]byte(value)}, append(h.identityTexts(), []byte(other)))
}
