package envelope_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/identity"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/job"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/unseal"
)

// TestVectors holds every file of testdata/vectors to what it says. The files
// are frozen: one that must change is a new version of the format.
// docs/format.md, section 8, says how to read them.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/*")
	require.NoError(t, err)
	count := map[string]int{}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			v := readVector(t, file)
			count[v.expect]++
			results := unseal.Open([]job.Sealed{{Variable: v.variable, Text: v.text}}, v.build, v.policy)
			if v.expect == "silent" {
				require.Empty(t, results)
				return
			}
			require.Len(t, results, 1)
			got := results[0]
			require.Equal(t, v.typ == "file", got.File)
			if v.typ != "" && v.typ != "file" {
				// Not delivered yet: opened, and refused by the type's name.
				require.Equal(t, unseal.Refused, got.Outcome)
				require.Contains(t, got.Reason, "type is "+v.typ)
				got.Set = open(t, v)
				got.Outcome = unseal.Granted
			}
			require.Equal(t, v.expect, outcomes[got.Outcome], got.Reason)
			require.Contains(t, got.Reason, v.reason)
			sets := map[string]string{}
			for _, s := range got.Set {
				sets[s.Name] = s.Value.Reveal()
			}
			require.Equal(t, v.sets, sets)
			if len(v.text) > 40 {
				require.NotContains(t, got.Reason+got.Hint, v.text[30:])
			}
			require.NotContains(t, got.Reason+got.Hint, "the value of TOKEN")
		})
	}
	require.GreaterOrEqual(t, len(files), 40)
	require.Greater(t, count["refused"], count["granted"]+count["withheld"]+count["ignored"])
}

var outcomes = map[unseal.Outcome]string{
	unseal.Granted: "granted", unseal.Withheld: "withheld", unseal.Refused: "refused", unseal.Ignored: "ignored",
}

type vector struct {
	expect, reason, variable, typ, text string
	sets                                map[string]string
	build                               job.Facts
	policy                              unseal.Policy
}

func open(t *testing.T, v vector) []envelope.Variable {
	opened, err := envelope.Open(v.text, v.policy.Identities[0].Age)
	require.NoError(t, err)
	vars, err := opened.Variables(v.variable)
	require.NoError(t, err)
	return vars
}

func readVector(t *testing.T, file string) vector {
	contents, err := os.ReadFile(file)
	require.NoError(t, err)
	header, text, ok := strings.Cut(string(contents), "\n\n")
	require.True(t, ok)
	v := vector{text: text, sets: map[string]string{}}
	for line := range strings.SplitSeq(header, "\n") {
		key, value, ok := strings.Cut(line, ": ")
		require.True(t, ok, line)
		switch key {
		case "expect":
			v.expect = value
		case "reason":
			v.reason = value
		case "variable":
			v.variable = value
		case "type":
			v.typ = value
		case "identity":
			ids, err := age.ParseIdentities(strings.NewReader(value))
			require.NoError(t, err)
			v.policy.Identities = append(v.policy.Identities, identity.Identity{Age: ids[0]})
		case "scope-any":
			v.policy.ScopeAny = value == "allowed"
		case "now":
			v.policy.Now, err = time.Parse(time.RFC3339, value)
			require.NoError(t, err)
		case "sets":
			name, encoded, _ := strings.Cut(value, " ")
			set, err := base64.StdEncoding.DecodeString(encoded)
			require.NoError(t, err)
			v.sets[name] = string(set)
		case "scope":
			v.build.PullRequest = "false"
			for field := range strings.FieldsSeq(value) {
				key, fact, _ := strings.Cut(field, "=")
				switch key {
				case "repo":
					v.build.Repo = fact
				case "pipeline":
					v.build.Organization, v.build.Pipeline, _ = strings.Cut(fact, "/")
				case "branch":
					v.build.Branch = fact
				case "tag":
					v.build.Tag = fact
				case "pull-request":
					v.build.PullRequest = fact
				default:
					t.Fatalf("scope holds %q", key)
				}
			}
		case "comment":
		default:
			t.Fatalf("a vector has the key %q", key)
		}
	}
	return v
}
