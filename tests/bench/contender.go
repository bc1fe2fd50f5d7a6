//go:build linux

package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
)

//go:embed hooks/openssl.sh
var opensslHook string

//go:embed hooks/age.sh
var ageHook string

// The ways that are compared.
const (
	separate    = "hook, one by one"
	bundle      = "hook, bundle"
	hybrid      = "hook, hybrid"
	floor       = "floor"
	floorBundle = "floor, bundle"
	bashAge     = "bash, age -d"
	bashOpenSSL = "bash, OpenSSL"
	sopsExec    = "sops exec-env"
)

// A contender is a way to give a job its secrets: one process.
type contender struct {
	name   string
	args   []string
	env    []string
	user   int          // whose process it is; 0: ours
	status int          // that it ends with
	check  func() error // after a run: has it done its work?
}

// A workplace has all that contenders need.
type workplace struct {
	dir   string
	api   *api
	tools map[string]string // age, sops and our own programs, by name
	facts []string          // a job's environment, without its secrets

	x25519, hybrid kind
	rsa            *rsa.PrivateKey
}

// A kind is a hook that is installed for one kind of identity.
type kind struct {
	hook      string
	identity  string
	recipient envelope.Recipient
}

func newWorkplace(ctx context.Context, dir string, progress io.Writer) (*workplace, error) {
	w := &workplace{dir: dir, tools: map[string]string{}}
	for name, pkg := range map[string]string{"environment": "./cmd/environment", "floor": "./tests/bench/floor", "spawn": "./tests/bench/spawn"} {
		w.tools[name] = filepath.Join(dir, name)
		if err := agenttest.Build(ctx, pkg, w.tools[name]); err != nil {
			return nil, err
		}
	}
	var err error
	if w.tools["age"], err = agenttest.Tool(ctx, "age", progress); err != nil {
		return nil, err
	}
	if w.tools["sops"], err = agenttest.Tool(ctx, "sops", progress); err != nil {
		fmt.Fprintln(progress, "bench: without sops:", err)
		delete(w.tools, "sops")
	}
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	if w.x25519, err = w.install("x25519", classic.String(), classic.Recipient().String()); err != nil {
		return nil, err
	}
	quantum, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, err
	}
	if w.hybrid, err = w.install("hybrid", quantum.String(), quantum.Recipient().String()); err != nil {
		return nil, err
	}
	if w.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(w.rsa)})
	for name, text := range map[string]string{"rsa.pem": string(key), "openssl.sh": opensslHook, "age.sh": ageHook} {
		if err := os.WriteFile(w.in(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if w.facts, err = facts(); err != nil {
		return nil, err
	}
	w.api, err = serve(w.in("sockets"))
	return w, err
}

func (w *workplace) in(name string) string { return filepath.Join(w.dir, name) }

// install puts the hook where an operator would, with one identity.
func (w *workplace) install(name, identity, recipient string) (kind, error) {
	lib := w.in(name)
	k := kind{hook: filepath.Join(lib, "environment"), identity: filepath.Join(lib, "identity")}
	config := "mode: direct\nreason: a benchmark\nisolation: {expect: host, reason: a benchmark}\nidentities:\n  - file: " + k.identity + "\n"
	to, err := envelope.ParseRecipient(recipient)
	k.recipient = to
	return k, errors.Join(err,
		os.MkdirAll(filepath.Join(lib, "hooks"), 0o755),
		os.Link(w.tools["environment"], k.hook),
		os.Symlink("../environment", filepath.Join(lib, "hooks", "environment")),
		os.WriteFile(k.identity, []byte(identity+"\n"), 0o600),
		os.WriteFile(filepath.Join(lib, "config.yml"), []byte(config), 0o644))
}

// facts is the environment of a push, as the agent gives it to a hook.
func facts() ([]string, error) {
	server, err := agenttest.NewServer()
	if err != nil {
		return nil, err
	}
	defer server.Close()
	var env []string
	for name, value := range server.Record(server.Add(agenttest.Job{})).Env {
		env = append(env, name+"="+value)
	}
	return append(env, "PATH="+os.Getenv("PATH"), "HOME=/nonexistent", "BUILDKITE_HOOK_PHASE=environment"), nil
}

// values makes n secrets of 40 bytes, as access tokens are.
func values(n int) map[string]string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	vars := map[string]string{}
	for i := range n {
		text := make([]byte, 40)
		rand.Read(text)
		for j := range text {
			text[j] = letters[int(text[j])%len(letters)]
		}
		vars[fmt.Sprintf("BENCH_TOKEN_%03d", i)] = string(text)
	}
	return vars
}

// contenders are all ways for n secrets. Each has proved that it works, but for
// the floors: what they send is recorded from the hook.
func (w *workplace) contenders(ctx context.Context, n int) ([]contender, error) {
	vars := values(n)
	base := slices.Concat(w.facts, w.api.environ())
	one, err := sealed(w.x25519, base, vars)
	if err != nil {
		return nil, err
	}
	quantum, err := sealed(w.hybrid, base, vars)
	if err != nil {
		return nil, err
	}
	together, err := w.bundle(base, vars)
	if err != nil {
		return nil, err
	}
	hooks := []contender{
		{name: separate, args: []string{w.x25519.hook}, env: one},
		{name: bundle, args: []string{w.x25519.hook}, env: together},
		{name: hybrid, args: []string{w.hybrid.hook}, env: quantum},
	}
	floors := map[string]string{separate: floor, bundle: floorBundle}
	all := slices.Clone(hooks)
	for i, c := range hooks {
		c.check = func() error { return w.delivered(c.name, vars, nil) }
		all[i] = c
		if _, err := w.time(c); err != nil {
			return nil, err
		}
		name, ok := floors[c.name]
		if !ok {
			continue
		}
		masks, sent := w.api.received()
		file := w.in(fmt.Sprintf("%s %d", name, n))
		if err := os.WriteFile(file, floorFile(masks, sent), 0o600); err != nil {
			return nil, err
		}
		all = append(all, contender{name: name, args: []string{w.tools["floor"], file}, env: c.env,
			check: func() error { return w.delivered(name, vars, masks) }})
	}

	out := w.in("out")
	exported := func() error {
		defer os.Remove(out)
		text, err := os.ReadFile(out)
		for name, value := range vars {
			if err == nil && !strings.Contains(string(text), name+"=\""+value+"\"") && !strings.Contains(string(text), name+"='"+value+"'") {
				err = errors.New("a value is not set")
			}
		}
		return err
	}
	older, err := w.older(vars)
	if err != nil {
		return nil, err
	}
	all = append(all,
		contender{name: bashAge, args: []string{"/bin/bash", w.in("age.sh"), w.x25519.identity, out, w.tools["age"]}, env: one, check: exported},
		contender{name: bashOpenSSL, args: []string{"/bin/bash", w.in("openssl.sh"), w.in("rsa.pem"), out}, env: slices.Concat(base, older), check: exported})
	if sops := w.tools["sops"]; sops != "" {
		file, err := w.sopsFile(ctx, n, vars)
		if err != nil {
			return nil, err
		}
		all = append(all, contender{name: sopsExec, args: []string{sops, "exec-env", file, "export -p >" + out},
			env: append(slices.Clone(base), "SOPS_AGE_KEY_FILE="+w.x25519.identity), check: exported})
	}
	return all, nil
}

// delivered tells whether the Job API got every value, masked before it was set,
// and exactly these masks where some are given.
func (w *workplace) delivered(name string, vars map[string]string, want []string) error {
	masks, env := w.api.received()
	if want != nil && !slices.Equal(masks, want) {
		return fmt.Errorf("%s: other masks than the hook's", name)
	}
	for variable, value := range vars {
		if env[variable] != value || !slices.Contains(masks, value) {
			return fmt.Errorf("%s: %s is not delivered", name, variable)
		}
	}
	return nil
}

func floorFile(masks []string, vars map[string]string) []byte {
	var b strings.Builder
	for _, m := range masks {
		b.WriteString(m + "\x00")
	}
	b.WriteString("\x00")
	for name, value := range vars {
		b.WriteString(name + "=" + value + "\x00")
	}
	return []byte(b.String())
}

// sealed adds the values to an environment, each sealed by itself.
func sealed(k kind, base []string, vars map[string]string) ([]string, error) {
	env := slices.Clone(base)
	for name, value := range vars {
		text, err := seal(k, envelope.Label{Name: name}, plaintext.New(value))
		if err != nil {
			return nil, err
		}
		env = append(env, names.Prefix+name+"="+text)
	}
	return env, nil
}

func seal(k kind, l envelope.Label, value plaintext.Value) (string, error) {
	name, err := repo.Parse("github.com/juliagpu/cuda.jl")
	if err != nil {
		return "", err
	}
	l.Repos = []repo.Name{name}
	return envelope.Seal(l, value, k.recipient)
}

func (w *workplace) bundle(base []string, vars map[string]string) ([]string, error) {
	members := map[string]plaintext.Value{}
	for name, value := range vars {
		members[name] = plaintext.New(value)
	}
	value, carried, err := envelope.MarshalBundle(members)
	if err != nil {
		return nil, err
	}
	text, err := seal(w.x25519, envelope.Label{Name: "BENCH_BUNDLE", Type: envelope.TypeBundle, Names: carried}, value)
	return append(slices.Clone(base), names.Prefix+"BENCH_BUNDLE="+text), err
}

// older seals as the tool before this one did: the first line of a key file of
// random base64 is the password of OpenSSL's enc; RSA wraps the file.
func (w *workplace) older(vars map[string]string) ([]string, error) {
	var env []string
	for name, value := range vars {
		random := make([]byte, 128+8)
		rand.Read(random)
		file := base64.StdEncoding.EncodeToString(random[:128])
		password := file[:64]
		file = password + "\n" + file[64:128] + "\n" + file[128:] + "\n"
		salt := random[128:]
		key, err := pbkdf2.Key(sha256.New, password, salt, 100_000, 48)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(key[:32])
		if err != nil {
			return nil, err
		}
		text := []byte(value + "\n")
		padding := aes.BlockSize - len(text)%aes.BlockSize
		text = append(text, strings.Repeat(string(rune(padding)), padding)...)
		cipher.NewCBCEncrypter(block, key[32:]).CryptBlocks(text, text)
		//lint:ignore SA1019 the older tool's padding
		wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, &w.rsa.PublicKey, []byte(file))
		if err != nil {
			return nil, err
		}
		body := slices.Concat([]byte("Salted__"), salt, text)
		env = append(env, names.Prefix+name+"="+base64.StdEncoding.EncodeToString(wrapped)+";"+base64.StdEncoding.EncodeToString(body))
	}
	return env, nil
}

func (w *workplace) sopsFile(ctx context.Context, n int, vars map[string]string) (string, error) {
	plain, file := w.in("plain.env"), w.in(fmt.Sprintf("sops-%d.env", n))
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		fmt.Fprintf(&b, "%s=%s\n", name, vars[name])
	}
	if err := os.WriteFile(plain, []byte(b.String()), 0o600); err != nil {
		return "", err
	}
	defer os.Remove(plain)
	cmd := exec.CommandContext(ctx, w.tools["sops"], "encrypt", "--age", w.x25519.recipient.String(), "--output", file, plain)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("sops encrypt: %w\n%s", err, text)
	}
	return file, nil
}
