package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// TestSecretsScripts runs testdata/secrets: one operator's story a file. @OLD and @NEW
// in it are values that are sealed to old.pub and new.pub, @RSA and @AES older ones.
func TestSecretsScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/secrets",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			for _, name := range []string{"old", "new", "other"} {
				text, err := os.ReadFile(filepath.Join("testdata/identities", name))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), text, 0o600); err != nil {
					return err
				}
				_, public, _ := strings.Cut(string(text), "# public key: ")
				public, _, _ = strings.Cut(public, "\n")
				if err := os.WriteFile(filepath.Join(env.WorkDir, name+".pub"), []byte(public+" # The "+name+" lab\n"), 0o600); err != nil {
					return err
				}
			}
			key, err := os.ReadFile(filepath.Join(olderTestdata, "pkcs8.pem"))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(env.WorkDir, "rsa"), key, 0o600); err != nil {
				return err
			}
			return os.Chmod(env.WorkDir, 0o755)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				if got := status(ts.Exec(args[1], args[2:]...)); (got == want) == neg {
					ts.Fatalf("status %d", got)
				}
				for _, private := range []string{"hunter2", "of the older tool", "AGE-SECRET-KEY-1"} {
					if strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), private) {
						ts.Fatalf("it says %s", private)
					}
				}
			},
			// fill FILE…: puts values in the place of @OLD, @NEW, @OTHER, @RSA and @AES.
			"fill": func(ts *testscript.TestScript, neg bool, args []string) {
				for _, file := range args {
					var lines []string
					for line := range strings.SplitAfterSeq(ts.ReadFile(file), "\n") {
						name, _, _ := strings.Cut(strings.TrimSpace(line), ":")
						for _, to := range []string{"old", "new", "other"} {
							if mark := "@" + strings.ToUpper(to); strings.Contains(line, mark) {
								line = strings.Replace(line, mark, sealedFor(ts, to, strings.TrimPrefix(name, "SECRET_")), 1)
							}
						}
						line = strings.Replace(line, "@RSA", olderText(ts, "bare.txt"), 1)
						line = strings.Replace(line, "@AES", olderText(ts, "hybrid.txt"), 1)
						lines = append(lines, line)
					}
					ts.Check(os.WriteFile(ts.MkAbs(file), []byte(strings.Join(lines, "")), 0o644))
				}
			},
		},
	})
}

func TestOnlyHere(t *testing.T) {
	for host, want := range map[string]bool{
		"github.com": false, "gitlab.com": false, "git.example.org": false, "git.example.org:2222": false, "10.0.0.1": false, "git.example.xn--p1ai": false,
		"work": true, "work:2222": true, "github.com-work": true, "github.com.work": true, "work.github.com": true, "git.example.org-work": true,
	} {
		require.Equal(t, want, onlyHere(host), host)
	}
}

const olderTestdata = "../../internal/envelope/openssl/testdata"

func olderText(ts *testscript.TestScript, file string) string {
	text, err := os.ReadFile(filepath.Join(olderTestdata, file))
	ts.Check(err)
	return strings.TrimSpace(string(text))
}

func sealedFor(ts *testscript.TestScript, to, name string) string {
	listed, _, err := envelope.ParseRecipients(ts.ReadFile(to + ".pub"))
	ts.Check(err)
	where, err := repo.Parse("github.com/juliagpu/cuda.jl")
	ts.Check(err)
	text, err := envelope.Seal(envelope.Label{Name: name, Repos: []repo.Name{where}}, plaintext.New("hunter2-canary"), listed[0].Recipient)
	ts.Check(err)
	return text
}
