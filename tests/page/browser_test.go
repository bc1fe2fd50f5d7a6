//go:build unix

package page

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/tests/agenttest"
	"github.com/juliagpu/secrets-buildkite-plugin/tests/need"
)

// world is what the tests share: one browser, and the page as people get it.
var world struct {
	sync.Once
	dir           string // of the pages
	plain, inside string // their files: without recipients, and with site's
	site          *age.X25519Identity
	chromium      context.Context
	end           []func()
	err           error
}

func TestMain(m *testing.M) {
	status := m.Run()
	for _, end := range world.end {
		end()
	}
	os.Exit(status)
}

// prepare builds the pages and starts Chromium, once.
func prepare(t *testing.T) {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	if program == "" {
		need.Skip(t, "needs Chromium: apt-get install chromium")
	}
	world.Do(func() { world.err = start(program) })
	require.NoError(t, world.err)
}

func start(program string) (err error) {
	if world.dir, err = os.MkdirTemp("", "bk-page-"); err != nil {
		return err
	}
	world.end = append(world.end, func() { os.RemoveAll(world.dir) })
	if world.site, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	recipients := filepath.Join(world.dir, "recipients")
	if err := os.WriteFile(recipients, []byte(world.site.Recipient().String()+" # The Lab\n"), 0o600); err != nil {
		return err
	}
	// As a person may have saved it: with a blank and a letter outside ASCII.
	world.plain, world.inside = filepath.Join(world.dir, "seal – a copy.html"), filepath.Join(world.dir, "lab.html")
	for _, args := range [][]string{{"-o", world.plain}, {"-recipients", recipients, "-o", world.inside}} {
		if err := build(args...); err != nil {
			return err
		}
	}

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.WSURLReadTimeout(time.Minute))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses to run as root
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	world.chromium, _ = chromedp.NewContext(ctx)
	world.end = append([]func(){func() { chromedp.Cancel(world.chromium); stop() }}, world.end...)
	return chromedp.Do(world.chromium)
}

// build runs the program that makes the page.
func build(args ...string) error {
	root, err := agenttest.Root()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", append([]string{"run", "./cmd/encrypt/page"}, args...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// A tab is a page in a browser profile of its own.
type tab struct {
	*testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string
	said     []string // console, exceptions, violations of the policy
}

// open opens the page. At the test's end it must have asked for nothing but
// itself, kept nothing, and the console must be empty.
func open(t *testing.T, url string) *tab {
	t.Helper()
	p := &tab{T: t}
	ctx, cancel := chromedp.NewContext(world.chromium, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.hear))
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx)) // a time limit on the first call would be one for the tab
	p.ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, audits.Enable, cdp.Empty{})
	call(p, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	p.do(chromedp.Navigate(url))
	p.wait(`typeof encrypt === "object"`)
	t.Cleanup(func() {
		require.Equal(t, url+` {} {}`, eval[string](p, `location.href + " " + JSON.stringify(localStorage) + " " + JSON.stringify(sessionStorage)`))
		require.Empty(t, call(p, network.GetCookies, network.GetCookiesParams{}).Cookies)
		p.mu.Lock()
		defer p.mu.Unlock()
		require.Len(t, p.requests, 1, "%q", p.requests)
		require.Empty(t, p.said)
	})
	return p
}

// hear gets every event of the tab.
func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, "data:") { // the browser's own icon of a date field
			p.requests = append(p.requests, e.Request.URL)
		}
	case *runtime.EventConsoleAPICalled:
		for _, a := range e.Args {
			p.said = append(p.said, "console: "+string(a.Value)+a.Description)
		}
	case *runtime.EventExceptionThrown:
		p.said = append(p.said, "exception: "+e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		p.said = append(p.said, "log: "+e.Entry.Text)
	case *audits.EventIssueAdded:
		text, _ := json.Marshal(e.Issue)
		p.said = append(p.said, "issue: "+string(text))
	}
}

// file is the address of a saved page.
func file(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	require.NoError(p, chromedp.Do(p.ctx, actions...))
}

// call runs a command of the browser's protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.Helper()
	result, err := chromedp.Call(p.ctx, command, params)
	require.NoError(p, err)
	return result
}

func eval[T any](p *tab, script string) T {
	p.Helper()
	result, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	require.NoError(p, err, script)
	return result
}

// wait waits until the script says true. (chromedp.Poll makes functions of
// texts, which the page's policy forbids.)
func (p *tab) wait(script string) {
	p.Helper()
	require.Eventually(p, func() bool { return eval[bool](p, script) }, 30*time.Second, 10*time.Millisecond, script)
}

// typeInto types at a field, key by key.
func (p *tab) typeInto(id, text string) {
	p.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS("#"+id), text))
}

// clear empties a field, which has the focus then.
func (p *tab) clear(id string) {
	p.Helper()
	p.click("#" + id)
	p.do(chromedp.KeyEvent("a", chromedp.KeyModifiers(kb.ModifierCtrl)), chromedp.KeyEvent(kb.Backspace))
}

// press types where the focus is; keys such as kb.Tab too.
func (p *tab) press(keys string) { p.Helper(); p.do(chromedp.KeyEvent(keys)) }

func (p *tab) click(selector string) { p.Helper(); p.do(chromedp.Click(chromedp.CSS(selector))) }

// choose picks how the value comes: line, lines or file.
func (p *tab) choose(way string) { p.Helper(); p.click("input[name=from][value=" + way + "]") }

// paste pastes a text where the focus is, as a person would.
func (p *tab) paste(text string) {
	p.Helper()
	p.permitClipboard()
	quoted, err := json.Marshal(text)
	require.NoError(p, err)
	eval[chromedp.Void](p, "navigator.clipboard.writeText("+string(quoted)+")")
	call(p, input.DispatchKeyEvent, input.DispatchKeyEventParams{
		Type: input.DispatchKeyEventTypeRawKeyDown, Key: "v", Code: "KeyV", Modifiers: int64(kb.ModifierCtrl), Commands: []string{"paste"},
	})
}

// permitClipboard lets the test use it; the page needs no permission to copy.
func (p *tab) permitClipboard() {
	p.Helper()
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		_, err := chromedp.CallBrowser(p.ctx, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name}, Setting: browser.PermissionSettingGranted,
			BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
		})
		require.NoError(p, err)
	}
}

// text is what an element says.
func (p *tab) text(id string) string {
	p.Helper()
	return eval[string](p, fmt.Sprintf("document.getElementById(%q).textContent", id))
}

// value is what a field holds.
func (p *tab) value(id string) string {
	p.Helper()
	return eval[string](p, fmt.Sprintf("document.getElementById(%q).value", id))
}

// focus is the id of the element that has it.
func (p *tab) focus() string { p.Helper(); return eval[string](p, "document.activeElement.id") }

// seal presses Seal and tells whether something was sealed. A field that says
// what it means while the pointer is on its way moves the button from under it;
// then it aims again, as a person would. (TestClickThatMoves: a button that is
// pressed stays.)
func (p *tab) seal() bool {
	p.Helper()
	eval[chromedp.Void](p, `hit = false; document.getElementById("go").addEventListener("click", () => hit = true, { once: true })`)
	for range 5 {
		if p.click("#go"); eval[bool](p, "hit") {
			break
		}
	}
	return p.sealed()
}

// sealed waits until the page has sealed or refused, and tells which.
func (p *tab) sealed() bool {
	p.Helper()
	p.wait(`!document.getElementById("result").hidden || document.getElementById("status").textContent !== ""`)
	return eval[bool](p, `!document.getElementById("result").hidden`)
}
