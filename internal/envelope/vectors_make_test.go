//go:build vectors

package envelope

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

// TestMakeVectors writes the files of testdata/vectors that are not there yet. The
// files are the specification, not this code: one that is there stays as it is.
func TestMakeVectors(t *testing.T) {
	m := &maker{t: t}
	m.id, m.to = key(t, false)
	m.second, m.toSecond = key(t, false)
	m.hybrid, m.toHybrid = key(t, true)
	m.make()
}

type maker struct {
	t                      *testing.T
	id, second, hybrid     age.Identity
	to, toSecond, toHybrid Recipient
}

const (
	jobRepo     = "repo=https://github.com/JuliaGPU/CUDA.jl.git pipeline=juliagpu/cuda-jl "
	push        = jobRepo + "branch=main"
	tagged      = jobRepo + "branch=v1.2 tag=v1.2"
	pullRequest = jobRepo + "branch=fix pull-request=17"
	vectorValue = "the value of TOKEN"
)

// a vector before it is written. Empty fields take what most vectors have.
type vector struct {
	name, expect, reason, comment string
	text                          string
	scope                         string // push
	variable                      string // SECRET_TOKEN
	sets                          map[string]string
	typ                           string
	any                           bool
	identities                    []age.Identity // the first
}

func (m *maker) write(v vector) {
	path := filepath.Join("testdata", "vectors", v.name)
	if _, err := os.Stat(path); err == nil {
		return
	}
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	line("expect", v.expect)
	line("reason", v.reason)
	if v.identities == nil {
		v.identities = []age.Identity{m.id}
	}
	for _, id := range v.identities {
		line("identity", fmt.Sprint(id))
	}
	if v.scope == "" {
		v.scope = push
	}
	line("scope", v.scope)
	if v.any {
		line("scope-any", "allowed")
	}
	if v.variable == "" {
		v.variable = "SECRET_TOKEN"
	}
	line("variable", v.variable)
	line("now", "2026-12-01T00:00:00Z")
	line("type", v.typ)
	if v.expect == "granted" && v.sets == nil {
		v.sets = map[string]string{"TOKEN": vectorValue}
	}
	for _, name := range sortedSet(keys(v.sets)) {
		line("sets", name+" "+base64.StdEncoding.EncodeToString([]byte(v.sets[name])))
	}
	line("comment", v.comment)
	b.WriteString("\n" + v.text)
	require.NoError(m.t, os.WriteFile(path, []byte(b.String()), 0o644))
}

func keys(m map[string]string) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}

func (m *maker) seal(change func(*Label)) string { return m.sealValue(vectorValue, change) }

func (m *maker) sealValue(value string, change func(*Label)) string {
	l := Label{Name: "TOKEN", Repos: cuda}
	if change != nil {
		change(&l)
	}
	return seal(m.t, l, value, m.to)
}

// craft makes what Seal would not: any stanzas, in any order, around any value,
// under a header MAC that fits. A nil recipient stands for the real one.
func (m *maker) craft(value string, stanzas ...*age.Stanza) string {
	var to []age.Recipient
	for _, s := range stanzas {
		if s == nil {
			to = append(to, m.to.age)
		} else {
			to = append(to, wrapper{s})
		}
	}
	var file bytes.Buffer
	w, err := age.Encrypt(&file, to...)
	require.NoError(m.t, err)
	fmt.Fprint(w, value)
	require.NoError(m.t, w.Close())
	return base64.StdEncoding.EncodeToString(file.Bytes())
}

func stanza(body string, args ...string) *age.Stanza {
	return &age.Stanza{Type: labelStanza, Args: args, Body: []byte(body)}
}

// label is a canonical label's text, with lines put in after those of its
// recipient.
func (m *maker) label(lines ...string) string {
	text := "name: TOKEN\nto: " + m.to.Fingerprint() + "\n"
	for _, l := range lines {
		text += l + "\n"
	}
	return text
}

const repoLine = "repo: github.com/juliagpu/cuda.jl"

func (m *maker) make() {
	granted := func(name, comment, text string, change func(*vector)) {
		v := vector{name: "granted-" + name, expect: "granted", comment: comment, text: text}
		if change != nil {
			change(&v)
		}
		m.write(v)
	}
	withheld := func(name, reason, comment, text string, change func(*vector)) {
		v := vector{name: "withheld-" + name, expect: "withheld", reason: reason, comment: comment, text: text}
		if change != nil {
			change(&v)
		}
		m.write(v)
	}
	refused := func(name, reason, comment, text string, change func(*vector)) {
		v := vector{name: "refused-" + name, expect: "refused", reason: reason, comment: comment, text: text}
		if change != nil {
			change(&v)
		}
		m.write(v)
	}
	at := func(scope string) func(*vector) { return func(v *vector) { v.scope = scope } }
	anyAllowed := func(v *vector) { v.any = true }
	expires := func(s string) func(*Label) {
		return func(l *Label) { l.Expires, _ = time.Parse(time.RFC3339, s) }
	}

	granted("x25519", "one recipient, one repository", m.seal(nil), nil)
	granted("hybrid", "post-quantum recipient", seal(m.t, Label{Name: "TOKEN", Repos: cuda}, vectorValue, m.toHybrid),
		func(v *vector) { v.identities = []age.Identity{m.hybrid} })
	granted("second-recipient", "two recipients, the identity of the second", seal(m.t, Label{Name: "TOKEN", Repos: cuda}, vectorValue, m.to, m.toSecond),
		func(v *vector) { v.identities = []age.Identity{m.second} })
	granted("second-identity", "two identities, the second fits", m.seal(nil), func(v *vector) { v.identities = []age.Identity{m.second, m.id} })
	granted("several-repos", "one of three repositories", m.seal(func(l *Label) {
		l.Repos = []repo.Name{mustRepo("github.com/juliagpu/amdgpu.jl"), cuda[0], mustRepo("git.example.org/Team/Tool")}
	}), nil)
	granted("pipeline", "a pipeline and no repository", m.seal(func(l *Label) { l.Repos, l.Pipelines = nil, []string{"juliagpu/cuda-jl"} }), nil)
	granted("repo-and-pipeline", "both must match", m.seal(func(l *Label) { l.Pipelines = []string{"juliagpu/cuda-jl", "juliagpu/other"} }), nil)
	granted("branch", "a glob matches", m.seal(func(l *Label) { l.Branches = []string{"m?i*", "x"} }), nil)
	granted("tag", "a glob over tags", m.seal(func(l *Label) { l.Tags = []string{"v*"} }), at(tagged))
	granted("branch-or-tag", "with both keys a tag's build needs a tag", m.seal(func(l *Label) { l.Branches, l.Tags = []string{"main"}, []string{"v*"} }), at(tagged))
	granted("own-pull-request", "without branch and tag every ref will do", m.seal(nil), at(pullRequest))
	granted("expires-later", "seven months left", m.seal(expires("2027-06-30T00:00:00Z")), nil)
	granted("expires-in-a-second", "valid until the second it names", m.seal(expires("2026-12-01T00:00:01Z")), nil)
	granted("sealed-suffix", "SECRET_TOKEN_SEALED may carry TOKEN", m.seal(nil), func(v *vector) { v.variable = "SECRET_TOKEN_SEALED" })
	granted("name-with-suffix", "SECRET_TOKEN_SEALED may carry TOKEN_SEALED", m.seal(func(l *Label) { l.Name = "TOKEN_SEALED" }),
		func(v *vector) {
			v.variable, v.sets = "SECRET_TOKEN_SEALED", map[string]string{"TOKEN_SEALED": vectorValue}
		})
	granted("scope-any", "where the operator allows it", m.seal(func(l *Label) { l.Repos, l.Any = nil, true }), anyAllowed)
	granted("unlabelled", "an age file of anybody's, where the operator allows scope: any", m.craft(vectorValue, nil), anyAllowed)
	several := "first line\nsecond line: ü 😀\n\ttab\r\n"
	granted("several-lines", "line breaks, tabs and UTF-8 stay as they are", m.sealValue(several, nil), func(v *vector) { v.sets = map[string]string{"TOKEN": several} })
	largest := strings.Repeat("0123456789abcdef", MaxValue/16)
	granted("largest-value", "64 KiB", m.sealValue(largest, nil), func(v *vector) { v.sets = map[string]string{"TOKEN": largest} })
	granted("smallest-value", "6 bytes", m.sealValue("sesame", nil), func(v *vector) { v.sets = map[string]string{"TOKEN": "sesame"} })
	granted("unknown-stanza", "age ignores stanzas it does not know, behind the label too", m.craft(vectorValue, stanza(m.label(repoLine), "1"), nil,
		&age.Stanza{Type: "grease-stanza", Args: []string{"x"}, Body: []byte("y")}), nil)
	bundle := `{"TOKEN_A":"value of A","TOKEN_B":"value of \"B\" \u00fc \ud83d\ude00"}`
	named := func(names ...string) func(*Label) {
		return func(l *Label) { l.Name, l.Type, l.Names = "BUNDLE", TypeBundle, names }
	}
	inBundle := func(v *vector) { v.variable = "SECRET_BUNDLE" }
	granted("bundle", "two variables in one ciphertext", m.sealValue(bundle, named("TOKEN_A", "TOKEN_B")), func(v *vector) {
		v.variable, v.sets = "SECRET_BUNDLE", map[string]string{"TOKEN_A": "value of A", "TOKEN_B": "value of \"B\" ü 😀"}
	})
	granted("file", "becomes a private file; any bytes", m.sealValue("\x00\x01\x02\xfd\xfe\xff", func(l *Label) { l.Type = TypeFile }),
		func(v *vector) { v.typ, v.sets = "file", map[string]string{"TOKEN": "\x00\x01\x02\xfd\xfe\xff"} })
	granted("git-credentials", "for the agent's own checkout", m.seal(func(l *Label) { l.Type = TypeGitCredentials }), func(v *vector) { v.typ = "git-credentials" })
	granted("ssh-key", "for the agent's own checkout", m.seal(func(l *Label) { l.Type = TypeSSHKey }), func(v *vector) { v.typ = "ssh-key" })

	withheld("foreign-identity", "does not hold", "sealed to another identity", m.seal(nil), func(v *vector) { v.identities = []age.Identity{m.second} })
	withheld("foreign-kind", "does not hold", "sealed to an identity of the other kind", m.seal(nil), func(v *vector) { v.identities = []age.Identity{m.hybrid} })
	withheld("expired", "expired on 2026-11-30", "a day ago", m.seal(expires("2026-11-30T00:00:00Z")), nil)
	withheld("expired-now", "expired on 2026-12-01", "this very second", m.seal(expires("2026-12-01T00:00:00Z")), nil)
	withheld("other-pipeline", "sealed for pipeline juliagpu/other", "another pipeline of the same repository", m.seal(func(l *Label) { l.Pipelines = []string{"juliagpu/other"} }), nil)
	withheld("other-branch", "not for branch main", "no glob matches", m.seal(func(l *Label) { l.Branches = []string{"release-*"} }), nil)
	withheld("branch-for-tag", "not for tag v1.2", "with branch alone a tag's build gets nothing, whatever its name", m.seal(func(l *Label) { l.Branches = []string{"*"} }), at(tagged))
	withheld("tag-for-branch", "not for branch main", "with tag alone a branch's build gets nothing", m.seal(func(l *Label) { l.Tags = []string{"*"} }), nil)
	withheld("branch-in-pull-request", "pull request", "a pull request's branch name is the head's to choose", m.seal(func(l *Label) { l.Branches = []string{"*"} }), at(pullRequest))
	withheld("no-pull-requests", "not to open in pull requests", "own branches included", m.seal(func(l *Label) { l.NoPullRequest = true }), at(pullRequest))

	refused("other-repository", "but this job builds github.com/juliagpu/cuda.jl", "copied from another repository", m.seal(func(l *Label) { l.Repos = []repo.Name{mustRepo("github.com/juliagpu/amdgpu.jl")} }), nil)
	refused("other-repository-any-allowed", "but this job builds github.com/juliagpu/cuda.jl", "the trap: scope: any allowed does not make a label disappear", m.seal(func(l *Label) { l.Repos = []repo.Name{mustRepo("github.com/juliagpu/amdgpu.jl")} }), anyAllowed)
	refused("other-repository-same-pipeline", "but this job builds github.com/juliagpu/cuda.jl", "both must match", m.seal(func(l *Label) {
		l.Repos, l.Pipelines = []repo.Name{mustRepo("github.com/juliagpu/amdgpu.jl")}, []string{"juliagpu/cuda-jl"}
	}), nil)
	refused("renamed", "sealed as TOKEN", "moved to a name that is printed", m.seal(nil), func(v *vector) { v.variable = "SECRET_GREETING" })
	refused("renamed-case", "sealed as TOKEN", "names are compared byte by byte", m.seal(nil), func(v *vector) { v.variable = "SECRET_token" })
	refused("renamed-suffix-twice", "sealed as TOKEN", "the suffix counts once", m.seal(nil), func(v *vector) { v.variable = "SECRET_TOKEN_SEALED_SEALED" })
	refused("scope-any", "any repository", "where the operator does not allow it", m.seal(func(l *Label) { l.Repos, l.Any = nil, true }), nil)
	refused("unlabelled", "without a label", "where the operator does not allow scope: any", m.craft(vectorValue, nil), nil)
	refused("unlabelled-forbidden-name", "decides which code runs", "an age file can't set PATH either", m.craft(vectorValue, nil), func(v *vector) { v.variable, v.any = "SECRET_PATH", true })

	good := m.label(repoLine)
	bad := func(name, reason, comment, body string) {
		refused("label-"+name, reason, comment, m.craft(vectorValue, stanza(body, "1"), nil), nil)
	}
	refused("label-last", "label is not first", "behind the recipient's stanza", m.craft(vectorValue, nil, stanza(good, "1")), anyAllowed)
	refused("label-twice", "label is not first, or there are two", "two labels", m.craft(vectorValue, stanza(good, "1"), stanza(good, "1"), nil), nil)
	refused("label-version-2", "another version", "never read as no label", m.craft(vectorValue, stanza(good, "2"), nil), anyAllowed)
	refused("label-no-version", "another version", "never read as no label", m.craft(vectorValue, stanza(good), nil), anyAllowed)
	refused("label-two-arguments", "another version", "exactly one argument", m.craft(vectorValue, stanza(good, "1", "1"), nil), anyAllowed)
	bad("empty", "label is not valid", "no line", "")
	bad("unknown-key", "does not know", "fails closed", good+"colour: red\n")
	bad("order", "canonical", "keys in another order", "to: "+m.to.Fingerprint()+"\nname: TOKEN\n"+repoLine+"\n")
	bad("name-twice", "canonical", "a key that comes once", "name: TOKEN\n"+good)
	bad("repo-twice", "canonical", "a repeated value", m.label(repoLine, repoLine))
	bad("repos-unsorted", "canonical", "values out of order", m.label(repoLine, "repo: github.com/juliagpu/amdgpu.jl"))
	bad("crlf", "label is not valid", "CR before LF", strings.ReplaceAll(good, "\n", "\r\n"))
	bad("no-last-newline", "does not end", "the last line is cut", strings.TrimSuffix(good, "\n"))
	bad("empty-line", "line 4", "an empty line", good+"\n")
	bad("no-blank", "line 3", "no blank behind the colon", m.label("repo:github.com/juliagpu/cuda.jl"))
	bad("two-blanks", "label is not valid", "two blanks behind the colon", m.label("repo:  github.com/juliagpu/cuda.jl"))
	bad("empty-value", "label is not valid", "a key without a value", m.label(repoLine, "branch: "))
	bad("no-scope", "names no repository", "no repo, no pipeline, not any", m.label())
	bad("any-beside-repo", "beside a repository", "any stands alone", m.label(repoLine, "scope: any"))
	bad("scope-other", "scope other than any", "scope knows one value", m.label("scope: all"))
	bad("no-recipient", "no recipient", "to is missing", "name: TOKEN\n"+repoLine+"\n")
	bad("recipient-short", "fingerprint", "to is not 16 hex digits", "name: TOKEN\nto: 0123\n"+repoLine+"\n")
	bad("recipient-upper", "fingerprint", "to in upper case", "name: TOKEN\nto: 0123456789ABCDEF\n"+repoLine+"\n")
	bad("repo-case", "one spelling", "a forge that folds case", m.label("repo: github.com/JuliaGPU/CUDA.jl"))
	bad("repo-url", "label is not valid", "an address, not a name", m.label("repo: https://github.com/juliagpu/cuda.jl"))
	bad("pipeline-upper", "pipeline", "not a slug", m.label("pipeline: JuliaGPU/CUDA"))
	bad("pipeline-no-organization", "pipeline", "no organization", m.label("pipeline: cuda-jl"))
	bad("pull-requests-yes", "pull-requests other than no", "no is the only value", m.label(repoLine, "pull-requests: yes"))
	bad("expires-offset", "expires", "another spelling of a time", m.label(repoLine, "expires: 2027-06-30T02:00:00+02:00"))
	bad("expires-fraction", "expires", "a fraction of a second", m.label(repoLine, "expires: 2027-06-30T00:00:00.5Z"))
	bad("expires-date", "expires", "no time of day", m.label(repoLine, "expires: 2027-06-30"))
	bad("type-unknown", "type", "fails closed", m.label(repoLine, "type: keyring"))
	bad("bundle-without-names", "names go with the type bundle", "names are for reviewers and lint", m.label(repoLine, "type: bundle"))
	bad("names-without-bundle", "names go with the type bundle", "names of nothing", m.label(repoLine, "names: A,B"))
	bad("names-unsorted", "canonical", "names in another order", m.label(repoLine, "type: bundle", "names: B,A"))
	bad("names-forbidden", "decides which code runs", "a bundle can't set PATH either", m.label(repoLine, "type: bundle", "names: A,PATH"))
	bad("name-forbidden", "decides which code runs", "LD_PRELOAD", strings.Replace(good, "TOKEN", "LD_PRELOAD", 1))
	bad("name-proxy", "decides which code runs", "in any case", strings.Replace(good, "TOKEN", "Https_Proxy", 1))
	bad("name-invalid", "not a name", "a hyphen", strings.Replace(good, "TOKEN", "TO-KEN", 1))
	bad("utf-8", "printable", "a letter outside ASCII", m.label(repoLine, "branch: ü"))
	bad("control", "printable", "an escape sequence", m.label(repoLine, "branch: \x1b[31m"))
	bad("too-large", "larger than 4 KiB", "4 KiB is the limit", m.label(repoLine, "branch: "+strings.Repeat("a", MaxLabel)))

	refused("scrypt", "passphrase", "a passphrase beside a recipient", m.craft(vectorValue, stanza(good, "1"), nil, &age.Stanza{Type: "scrypt", Args: []string{"c2FsdHNhbHRzYWx0c2FsdA", "10"}, Body: make([]byte, 32)}), nil)
	crowd := []*age.Stanza{stanza(good, "1"), nil}
	for range MaxRecipients {
		crowd = append(crowd, &age.Stanza{Type: "other", Args: []string{"x"}, Body: []byte("y")})
	}
	refused("33-stanzas", "more than 32 recipients", "the limit is 32", m.craft(vectorValue, crowd...), nil)

	text := m.seal(nil)
	file, _ := base64.StdEncoding.DecodeString(text)
	flip := func(i int) string {
		changed := bytes.Clone(file)
		changed[i] ^= 1
		return base64.StdEncoding.EncodeToString(changed)
	}
	inLabel := bytes.Index(file, []byte("\n")) + len("-> juliagpu-secret 1\n") + 20
	refused("flipped-label", "", "one bit of the label; the header MAC covers it", flip(inLabel), nil)
	refused("flipped-mac", "changed after it was sealed", "one bit of the header MAC", flip(bytes.Index(file, []byte("\n--- "))+8), nil)
	refused("flipped-payload", "changed after it was sealed", "one bit of the value", flip(len(file)-20), nil)
	refused("flipped-tag", "changed after it was sealed", "the last bit", flip(len(file)-1), nil)
	refused("cut-payload", "changed after it was sealed", "the last three bytes are missing", base64.StdEncoding.EncodeToString(file[:len(file)-3]), nil)
	refused("cut-header", "header is damaged", "ends within the label", base64.StdEncoding.EncodeToString(file[:60]), nil)
	refused("trailing", "changed after it was sealed", "a byte behind the end", base64.StdEncoding.EncodeToString(append(bytes.Clone(file), 0)), nil)
	other := m.seal(func(l *Label) { l.Repos = []repo.Name{mustRepo("github.com/juliagpu/amdgpu.jl")} })
	otherFile, _ := base64.StdEncoding.DecodeString(other)
	end := bytes.Index(file, []byte("\n-> X25519"))
	otherEnd := bytes.Index(otherFile, []byte("\n-> X25519"))
	refused("swapped-label", "changed after it was sealed", "the label of another envelope of the same author", base64.StdEncoding.EncodeToString(append(bytes.Clone(file[:end]), otherFile[otherEnd:]...)), nil)

	refused("base64-line-break", "line break", "as base64 -w64 prints it", text[:64]+"\n"+text[64:], nil)
	refused("base64-newline-at-end", "line break", "a YAML block scalar adds it", text+"\n", nil)
	refused("base64-blank", "", "a blank at the end", text+" ", nil)
	refused("base64-quote", "", "a closing quote pasted along", text+`"`, nil)
	refused("base64-url", "not standard base64", "the other alphabet", text[:len(text)-6]+"-_"+text[len(text)-4:], nil)
	padded := text
	for !strings.HasSuffix(padded, "=") {
		padded = m.sealValue(vectorValue+strings.Repeat("!", len(padded)%2+1), nil)
		if !strings.HasSuffix(padded, "=") {
			padded = m.sealValue(vectorValue+"!!", nil)
		}
	}
	refused("base64-unpadded", "ends early", "without its padding", strings.TrimRight(padded, "="), nil)
	body := strings.TrimRight(padded, "=")
	refused("base64-trailing-bits", "not standard base64", "another spelling of the same bytes", body[:len(body)-1]+string(body[len(body)-1]+1)+padded[len(body):], nil)
	refused("prefix-alone", "header is damaged", "begins like an age file and is none", formAge, nil)
	refused("prefix-and-garbage", "", "begins like an age file and is none", formAge+"aGVsbG8gd29ybGQ=", nil)
	refused("too-large", "larger than 120 KiB", "checked before any work", formAge+strings.Repeat("A", MaxSealed), nil)

	craftValue := func(name, reason, comment, value string) {
		refused("value-"+name, reason, comment, m.craft(value, stanza(good, "1"), nil), nil)
	}
	craftValue("too-large", "larger than 64 KiB", "64 KiB is the limit", strings.Repeat("a", MaxValue+1))
	craftValue("short", "shorter than 6 bytes", "5 bytes", "abcde")
	craftValue("empty", "shorter than 6 bytes", "nothing", "")
	craftValue("nul", "NUL", "an environment has no NUL", "abc\x00def")
	craftValue("not-utf-8", "UTF-8", "the Job API speaks JSON", "abcdef\xff")
	craftBundle := func(name, reason, comment, names, value string) {
		refused("bundle-"+name, reason, comment, m.craft(value, stanza(strings.Replace(m.label(repoLine, "type: bundle", "names: "+names), "TOKEN", "BUNDLE", 1), "1"), nil), inBundle)
	}
	craftBundle("not-json", "JSON object", "no JSON", "A", "A=value of A")
	craftBundle("array", "JSON object", "a list", "A", `["value of A"]`)
	craftBundle("duplicate", "twice", "which of them counts?", "A", `{"A":"value of A","A":"another value"}`)
	craftBundle("duplicate-escaped", "twice", "the same name in another spelling", "A", `{"A":"value of A","\u0041":"another value"}`)
	craftBundle("number", "other than a string", "a number", "A", `{"A":123456789}`)
	craftBundle("object", "other than a string", "an object", "A", `{"A":{"A":"value of A"}}`)
	craftBundle("null", "other than a string", "null", "A", `{"A":null}`)
	craftBundle("surrogate", "surrogate", "half a pair", "A", `{"A":"value of \ud83d A"}`)
	craftBundle("surrogate-low", "surrogate", "the other half", "A", `{"A":"value of \ude00 A"}`)
	craftBundle("nul", "NUL", "an environment has no NUL", "A", `{"A":"value of \u0000"}`)
	craftBundle("short", "shorter than 6 bytes", "a member is a value", "A", `{"A":"abc"}`)
	craftBundle("unnamed", "does not name", "reviewers would not see B", "A", `{"A":"value of A","B":"value of B"}`)
	craftBundle("missing", "lacks", "B is promised and not there", "A,B", `{"A":"value of A"}`)
	craftBundle("trailing", "goes on", "a second object", "A", `{"A":"value of A"}{"A":"value of A"}`)
	craftBundle("cut", "JSON object", "ends early", "A", `{"A":"value of A"`)

	rsa := bytes.Repeat([]byte{0xa5, 0x17}, 128)
	withheld("older-rsa", "older RSA form", "256 bytes in base64: named, not opened", base64.StdEncoding.EncodeToString(rsa), nil)
	withheld("older-rsa-hybrid", "older RSA form", "two parts joined by ; and OpenSSL's Salted__", base64.StdEncoding.EncodeToString(rsa)+";"+base64.StdEncoding.EncodeToString([]byte("Salted__saltsaltciphertextciphertext")), nil)
	m.write(vector{name: "ignored-plain", expect: "ignored", comment: "no secret of ours: left alone", text: "just a value"})
	m.write(vector{name: "ignored-armor", expect: "ignored", comment: "age's armour is not our form", text: "-----BEGIN AGE ENCRYPTED FILE-----"})
	m.write(vector{name: "ignored-blank-before", expect: "ignored", comment: "a blank before it: no prefix of ours", text: " " + text})
	m.write(vector{name: "silent-empty", expect: "silent", comment: "an empty variable is nothing", text: ""})
}
