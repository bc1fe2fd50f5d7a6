//go:build unix

// Package page shows in a real Chromium that the page to seal in does what
// encrypt does, and nothing else: what it seals, the hook opens.
package page

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
)

const canary = "hunter2-canary"

// opens reads the lines on the page as YAML, with one variable called carrier,
// and returns what the identity opens.
func (p *tab) opens(carrier string, id age.Identity) envelope.Opened {
	p.Helper()
	var pipeline struct{ Env map[string]string }
	lines := p.value("output")
	require.NoError(p, yaml.Unmarshal([]byte(lines), &pipeline), lines)
	require.Len(p, pipeline.Env, 1, lines)
	require.Contains(p, pipeline.Env, carrier)
	opened, err := envelope.Open(pipeline.Env[carrier], id)
	require.NoError(p, err)
	return opened
}

// shows fails where a value stands in the page, in what it shows or in a field.
func (p *tab) showsNothingOf(value string) {
	p.Helper()
	all := eval[string](p, `document.documentElement.outerHTML + [...document.querySelectorAll("input, textarea")].map((e) => e.value).join("\n")`)
	require.NotContains(p, all, value)
}

// TestKeyboardOnly fills the form as a person without a mouse does, from the first
// field to the copied lines.
func TestKeyboardOnly(t *testing.T) {
	prepare(t)
	p := open(t, file(world.plain))
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)

	p.press(kb.Tab + "CODECOV_TOKEN" + kb.Tab)
	require.Equal(t, "from", eval[string](p, "document.activeElement.name"))
	p.press(kb.Tab)
	require.Equal(t, "Value-line", p.focus())
	p.press(canary + kb.Tab)
	require.Equal(t, "show", p.focus())
	require.Equal(t, "password", eval[string](p, `document.getElementById("Value-line").type`))
	p.press(" ")
	require.Equal(t, "text", eval[string](p, `document.getElementById("Value-line").type`))
	p.press(kb.Tab + "git@github.com:JuliaGPU/CUDA.jl.git")
	p.wait(`document.getElementById("Repos-shown").innerText === "Opens in github.com/juliagpu/cuda.jl"`)
	p.press(kb.Tab + id.Recipient().String() + " # The Lab" + kb.Tab)
	p.wait(`document.getElementById("Recipients-shown").innerText === "To ` + envelope.Fingerprint(id.Recipient().String()) + ` (The Lab)"`)
	require.Equal(t, "SUMMARY", eval[string](p, "document.activeElement.tagName"))
	p.press(kb.Tab + kb.Enter)
	require.True(t, p.sealed(), p.text("form"))

	require.Equal(t, "done", p.focus(), "a screen reader goes on from there")
	require.Equal(t, canary, p.opens("SECRET_CODECOV_TOKEN", id).Value.Reveal())
	p.showsNothingOf(canary)
	require.Equal(t, "password", eval[string](p, `document.getElementById("Value-line").type`))
	require.Equal(t, "It opens for "+envelope.Fingerprint(id.Recipient().String())+" (The Lab) in github.com/juliagpu/cuda.jl, without expiry.", p.text("closing"))
	require.Contains(t, p.text("notes"), "uploads no variable called *_TOKEN")

	p.press(kb.Tab + kb.Tab)
	require.Equal(t, "rename", p.focus())
	p.press(" ")
	require.Equal(t, canary, p.opens("SECRET_CODECOV_TOKEN_SEALED", id).Value.Reveal())
	p.press(kb.Tab + kb.Enter)
	p.wait(`document.getElementById("copied").innerText === "Copied"`)
	p.permitClipboard()
	require.Equal(t, p.value("output"), eval[string](p, "navigator.clipboard.readText()"))
	require.Equal(t, "copy", p.focus())
}

// TestWaysOfAValue: whatever way it comes, it opens to exactly what it was.
func TestWaysOfAValue(t *testing.T) {
	prepare(t)
	x25519, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	hybrid, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	dir := t.TempDir()
	const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm9uZQ==\n-----END OPENSSH PRIVATE KEY-----\n"
	upload := func(text string) func(*tab) {
		return func(p *tab) {
			path := filepath.Join(dir, "value")
			require.NoError(p, os.WriteFile(path, []byte(text), 0o600))
			p.choose("file")
			p.do(chromedp.SetUploadFiles(chromedp.CSS("#Value-file"), []string{path}))
		}
	}
	p := open(t, file(world.plain))
	p.typeInto("Name", "TOKEN_A")
	p.typeInto("Repos", "github.com/juliagpu/cuda.jl")
	p.typeInto("Recipients", x25519.Recipient().String())
	for _, tt := range []struct {
		about string
		fill  func(*tab)
		want  string
		note  string
	}{
		{"typed", func(p *tab) { p.typeInto("Value-line", canary) }, canary, ""},
		{"typed, outside ASCII", func(p *tab) { p.typeInto("Value-line", `größer "$HOME" \ 😀`) }, `größer "$HOME" \ 😀`, ""},
		{"pasted with its line break", func(p *tab) { p.click("#Value-line"); p.paste(canary + "\n") }, canary, ""},
		{"a word", func(p *tab) { p.typeInto("Value-line", "production") }, "production", "the value is a common word"},
		{"several lines", func(p *tab) { p.choose("lines"); p.typeInto("Value-lines", "first line\nsecond line") }, "first line\nsecond line", ""},
		{"a key, pasted into the field for one line", func(p *tab) {
			p.choose("line")
			p.click("#Value-line")
			p.paste(key)
			require.Equal(p, "Value-lines", p.focus())
		}, key, ""},
		{"a key that lacks its last line break", func(p *tab) { p.choose("lines"); p.click("#Value-lines"); p.paste(strings.TrimSpace(key)) }, strings.TrimSpace(key), "lacks its last newline"},
		{"a key's file", upload(key), key, ""},
		{"a file with CR line ends", upload("first\r\nsecond\r\n"), "first\r\nsecond", "CR line ends"},
		{"bytes that are no text", func(p *tab) { upload("\xff\x00\xfe\xff")(p); p.click("#Base64") }, "/wD+/w==", ""},
	} {
		tt.fill(p)
		require.True(t, p.seal(), "%s: %s", tt.about, p.text("form"))
		require.Equal(t, tt.want, p.opens("SECRET_TOKEN_A", x25519).Value.Reveal(), tt.about)
		p.showsNothingOf(tt.want)
		if tt.note == "" {
			require.Regexp(t, `^(the line break at the end of the value was dropped)?$`, p.text("notes"), tt.about)
		} else {
			require.Contains(t, p.text("notes"), tt.note, tt.about)
		}
	}

	// Post-quantum recipients are too long to type.
	p.clear("Recipients")
	p.paste(hybrid.Recipient().String())
	p.choose("line")
	p.typeInto("Value-line", canary)
	require.True(t, p.seal(), p.text("form"))
	require.Equal(t, canary, p.opens("SECRET_TOKEN_A", hybrid).Value.Reveal())
}

// TestScope: what stands under More is sealed with the value.
func TestScope(t *testing.T) {
	prepare(t)
	p := open(t, file(world.inside))
	p.wait(`!document.getElementById("built-in").hidden`)
	require.Contains(t, p.text("sites"), "(The Lab)")
	require.False(t, eval[bool](p, `document.getElementById("Recipients").checkVisibility()`))
	p.typeInto("Name", "NPM_A")
	p.typeInto("Value-line", canary)
	p.typeInto("Repos", "https://github.com/JuliaGPU/CUDA.jl git@github.com:JuliaGPU/AMDGPU.jl")
	p.click("summary")
	p.typeInto("Pipelines", "juliagpu/cuda-jl")
	p.typeInto("Branches", "main release-*")
	p.typeInto("Tags", "v*")
	p.typeInto("Expires", "06302099")
	p.click("#NoPullRequests")
	require.True(t, p.seal(), p.text("form"))
	label, err := p.opens("SECRET_NPM_A", world.site).Label.Marshal()
	require.NoError(t, err)
	require.Equal(t, "name: NPM_A\nto: "+envelope.Fingerprint(world.site.Recipient().String())+
		"\nrepo: github.com/juliagpu/amdgpu.jl\nrepo: github.com/juliagpu/cuda.jl\npipeline: juliagpu/cuda-jl\n"+
		"branch: main\nbranch: release-*\ntag: v*\npull-requests: no\nexpires: 2099-06-30T00:00:00Z\n", string(label))

	// Again, for others than those of the page: without a name of theirs it is refused.
	p.click("#others")
	p.typeInto("Value-line", canary)
	require.False(t, p.seal())
	require.Contains(t, p.text("Recipients-error"), "no recipient to seal to")
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	p.typeInto("Recipients", other.Recipient().String())
	require.True(t, p.seal(), p.text("form"))
	require.Equal(t, canary, p.opens("SECRET_NPM_A", other).Value.Reveal())
}

// TestWrongTurns: each has its message and what to do beside its field, which
// gets the focus, and puts no value on the page.
func TestWrongTurns(t *testing.T) {
	prepare(t)
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	hybrid, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	p := open(t, file(world.plain))
	clear := func(id string) func() { return func() { p.clear(id) } }
	write := func(id, text string) func() {
		return func() { p.clear(id); p.typeInto(id, text) }
	}
	fine := map[string]string{
		"Name": "TOKEN_A", "Value-line": canary, "Repos": "github.com/juliagpu/cuda.jl", "Recipients": id.Recipient().String(),
		"Pipelines": "", "Branches": "", "Expires": "",
	}
	p.click("summary")
	for field, text := range fine {
		p.typeInto(field, text)
	}
	for _, tt := range []struct {
		about      string
		turn       func()
		field      string // gets the focus
		text, hint string
	}{
		{"a name that is none", write("Name", "CODECOV-TOKEN"), "Name", "letters, digits and _", "such as CODECOV_TOKEN"},
		{"a name with the prefix", write("Name", "SECRET_TOKEN"), "Name", "has the prefix already", "type TOKEN"},
		{"a protected name", write("Name", "BASH_ENV"), "Name", "decides which code runs", ""},
		{"no name", clear("Name"), "Name", "the variable's name is missing", "such as CODECOV_TOKEN"},
		{"no value", clear("Value-line"), "Value-line", "the value is empty", "type or paste it, or choose its file"},
		{"too short a value", write("Value-line", "canar"), "Value-line", "shorter than 6 bytes", "make a longer one"},
		{"an identity as value", write("Value-line", id.String()), "Value-line", "an age identity", "stay with the operator"},
		{"an owner and a name", write("Repos", "juliagpu/cuda.jl"), "Repos", "on which forge", "write github.com/owner/name"},
		{"a local path", write("Repos", "./cuda.jl"), "Repos", "local path", "write github.com/owner/name"},
		{"no repository", clear("Repos"), "Repos", "missing", "write github.com/owner/name"},
		{"no recipient", clear("Recipients"), "Recipients", "no recipient to seal to", "ask who runs the agents"},
		{"an identity as recipient", write("Recipients", hybrid.String()), "Recipients", "the private half", "one recipient (age1…) a line"},
		{"a recipient cut short", write("Recipients", id.Recipient().String()[:50]), "Recipients", "line 1: not an age recipient", "copy it again"},
		{"two kinds", func() {
			p.clear("Recipients")
			p.paste(id.Recipient().String() + "\n" + hybrid.Recipient().String())
		}, "Recipients", "does not mix", "take one kind"},
		{"a pipeline without its organization", write("Pipelines", "cuda-jl"), "Pipelines", "organization/pipeline", "buildkite.com"},
		{"a branch in other letters", write("Branches", "größer"), "Branches", "pattern", "release-*"},
		{"a day that is past", func() { p.typeInto("Expires", "01312001") }, "Expires", "2001-01-31T00:00:00Z is past", "choose a day after today"},
		{"half a date", func() { p.press("01" + kb.Backspace); p.typeInto("Expires", kb.Backspace) }, "Expires", "not a time", "choose a day"},
	} {
		tt.turn()
		typed := p.value(tt.field)
		require.False(t, p.seal(), tt.about)
		field, _, _ := strings.Cut(tt.field, "-")
		shown := p.text(field + "-error")
		assert.Contains(t, shown, tt.text, tt.about)
		assert.Contains(t, shown, tt.hint, tt.about)
		assert.Equal(t, tt.field, p.focus(), tt.about)
		assert.Equal(t, "true", eval[string](p, `document.activeElement.getAttribute("aria-invalid")`), tt.about)
		assert.Equal(t, 1, eval[int](p, `document.querySelectorAll(".error:not(:empty)").length`), tt.about)
		assert.Contains(t, p.text("status"), "Nothing was sealed", tt.about)
		visible := p.text("form") + p.text("result")
		assert.NotContains(t, visible, canary, tt.about)
		if field == "Value" && typed != "" {
			assert.NotContains(t, visible, typed, tt.about)
		}
		assert.NotContains(t, visible, "AGE-SECRET-KEY", tt.about)

		if tt.field == "Expires" {
			eval[chromedp.Void](p, `document.getElementById("Expires").value = ""`)
		} else {
			write(tt.field, fine[tt.field])()
		}
	}
	require.True(t, p.seal(), p.text("form"))
	require.Equal(t, canary, p.opens("SECRET_TOKEN_A", id).Value.Reveal())

	// All at once: the first gets the focus, none is kept back.
	p.clear("Name")
	p.clear("Repos")
	require.False(t, p.seal())
	require.Equal(t, 3, eval[int](p, `document.querySelectorAll(".error:not(:empty)").length`))
	require.Equal(t, "Name", p.focus())
	require.False(t, eval[bool](p, `document.getElementById("result").checkVisibility()`), "nobody copies the lines from before")
}

// TestErrorsWhileTyping come when a field is left, and go when it is right.
func TestErrorsWhileTyping(t *testing.T) {
	prepare(t)
	p := open(t, file(world.plain))
	p.press(kb.Tab + "A-B")
	require.Empty(t, p.text("Name-error"))
	p.press(kb.Tab)
	p.wait(`document.getElementById("Name-error").innerText.includes("letters, digits and _")`)
	p.press(kb.ArrowRight)
	require.Empty(t, p.text("Repos-error"), "nobody has been there yet")
	p.click("#Name")
	p.press(kb.End + kb.Backspace + kb.Backspace)
	p.wait(`document.getElementById("Name-error").innerText === ""`)
}

// TestFromAServer: one request and no other; the page works from http too, where
// browsers give pages no clipboard of the newer kind.
func TestFromAServer(t *testing.T) {
	prepare(t)
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeFile(w, r, world.inside)
	}))
	defer server.Close()
	p := open(t, server.URL+"/encrypt")
	p.typeInto("Name", "TOKEN_A")
	p.typeInto("Repos", "github.com/juliagpu/cuda.jl")
	p.typeInto("Value-line", canary)
	require.True(t, p.seal(), p.text("form"))
	require.Equal(t, canary, p.opens("SECRET_TOKEN_A", world.site).Value.Reveal())

	p.permitClipboard()
	eval[chromedp.Void](p, `Object.defineProperty(navigator, "clipboard", {value: undefined, configurable: true})`)
	p.click("#copy")
	p.wait(`document.getElementById("copied").innerText === "Copied"`)
	eval[chromedp.Void](p, `delete navigator.clipboard`)
	require.Equal(t, p.value("output"), eval[string](p, "navigator.clipboard.readText()"))
	require.EqualValues(t, 1, requests.Load())
}

// TestSavedByTheBrowser: what a browser saves of the running page works, too, and
// holds nothing of what was typed.
func TestSavedByTheBrowser(t *testing.T) {
	prepare(t)
	p := open(t, file(world.inside))
	p.typeInto("Name", "TOKEN_A")
	p.typeInto("Repos", "github.com/juliagpu/cuda.jl")
	p.typeInto("Value-line", canary)
	p.click("#show")
	html := "<!doctype html>" + eval[string](p, "document.documentElement.outerHTML")
	require.NotContains(t, html, canary)
	path := filepath.Join(t.TempDir(), "saved.html")
	require.NoError(t, os.WriteFile(path, []byte(html), 0o600))

	p = open(t, file(path))
	require.Equal(t, 1, eval[int](p, `document.querySelectorAll("#sites li").length`))
	p.typeInto("Name", "TOKEN_A")
	p.typeInto("Repos", "github.com/juliagpu/cuda.jl")
	p.typeInto("Value-line", canary)
	require.True(t, p.seal(), p.text("form"))
	require.Equal(t, canary, p.opens("SECRET_TOKEN_A", world.site).Value.Reveal())
}

// TestPolicy: the page could neither load nor send if it tried.
func TestPolicy(t *testing.T) {
	prepare(t)
	html, err := os.ReadFile(world.plain)
	require.NoError(t, err)
	m := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindSubmatch(html)
	require.NotNil(t, m)
	hash := `'sha256-[A-Za-z0-9+/]{43}='`
	require.Regexp(t, `^default-src 'none'; script-src `+hash+` `+hash+` 'wasm-unsafe-eval'; style-src `+hash+`; base-uri 'none'; form-action 'none'$`, string(m[1]))
	require.NotRegexp(t, `(?i)<(link|img|iframe|a|object|embed)\b|\bsrc=|@import|url\(`, string(html), "nothing to load")

	var reached atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer server.Close()
	p := open(t, file(world.plain))
	tried := eval[string](p, strings.ReplaceAll(`(async () => {
		const refused = [];
		addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
		try { await fetch("http://127.0.0.1:9/") } catch {}
		new Image().src = "http://127.0.0.1:9/";
		navigator.sendBeacon("http://127.0.0.1:9/", "x");
		const script = document.createElement("script");
		script.textContent = "stolen = 1";
		document.body.append(script);
		const form = document.createElement("form");
		form.action = "http://127.0.0.1:9/";
		document.body.append(form);
		form.submit();
		await new Promise((done) => setTimeout(done, 300));
		return refused.sort().join(" ") + " " + typeof stolen;
	})()`, "http://127.0.0.1:9/", server.URL))
	require.Zero(t, reached.Load())
	require.Equal(t, "connect-src connect-src form-action img-src script-src-elem undefined", tried)
	p.mu.Lock()
	defer p.mu.Unlock()
	require.NotEmpty(t, p.said, "what the other tests demand to be empty")
	p.said, p.requests = nil, p.requests[:1]
}

// TestBrowserThatIsTooOld is told so.
func TestBrowserThatIsTooOld(t *testing.T) {
	prepare(t)
	html, err := os.ReadFile(world.plain)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "old.html")
	// The policy goes, so that the script that makes the browser older runs.
	old := regexp.MustCompile(`<meta http-equiv[^>]*>`).ReplaceAllString(string(html), "<script>delete globalThis.DecompressionStream; encrypt = {sites: []}</script>")
	require.NoError(t, os.WriteFile(path, []byte(old), 0o600))
	p := open(t, file(path))
	require.Contains(t, p.text("broken"), "too old to seal")
	require.Contains(t, p.text("broken"), "Firefox 113")
	require.False(t, eval[bool](p, `document.getElementById("form").checkVisibility()`))
}

// TestSlowClick: leaving a field by pressing Seal shows the field's error, which
// would move the button away before it comes up again.
func TestSlowClick(t *testing.T) {
	prepare(t)
	p := open(t, file(world.plain))
	p.do(chromedp.EmulateViewport(1200, 1400))
	p.typeInto("Name", "A-B")
	at := eval[[]float64](p, `(() => { const { x, y, width, height } = document.getElementById("go").getBoundingClientRect(); return [x + width / 2, y + height / 2]; })()`)
	mouse := func(what input.DispatchMouseEventType) {
		p.do(chromedp.MouseEvent(what, at[0], at[1], chromedp.ButtonLeft, chromedp.ClickCount(1)))
	}
	mouse(chromedp.MousePressed)
	time.Sleep(500 * time.Millisecond) // a slow finger; longer than any delay of the page
	mouse(chromedp.MouseReleased)
	require.False(t, p.sealed())
	require.Equal(t, "Name", p.focus())
}
