//go:build unix

package page

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/audit"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/trust"
)

// openReport opens a report. At the test's end it must have asked for nothing but
// itself, and the console must be empty.
func openReport(t *testing.T, f audit.Facts) (p *tab, took time.Duration) {
	t.Helper()
	prepare(t)
	f.Now = time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	html, err := audit.Judge(f).HTML()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "audit.html")
	require.NoError(t, os.WriteFile(path, html, 0o600))
	p = &tab{T: t}
	ctx, cancel := chromedp.NewContext(world.chromium, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.hear))
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx))
	p.ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	began := time.Now()
	p.do(chromedp.Navigate(file(path)))
	p.wait(`document.readyState === "complete"`)
	took = time.Since(began)
	t.Logf("%d KiB, loaded in %d ms", len(html)>>10, took.Milliseconds())
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		require.Len(t, p.requests, 1, "%q", p.requests)
		require.Empty(t, p.said)
	})
	return p, took
}

// hostile are names that somebody may have chosen.
var hostile = []string{`<script>document.title = "stolen"</script>`, `"><img src=x onerror=document.title="stolen">`, "\u202egnp.exe", "שלום", "{{.}}", strings.Repeat("long", 500)}

// pipelines are n, with something to say of each.
func pipelines(n int) audit.Facts {
	f := audit.Facts{Organization: "juliagpu", Rules: audit.Rules{Path: "/etc/juliagpu-secrets/config.yml", Rules: trust.Rules{Pipelines: map[string]repo.Name{}}}}
	for i := range n {
		slug := fmt.Sprintf("pipeline-%d-jl", i)
		if i < len(hostile) {
			slug = hostile[i]
		}
		name, _ := repo.Parse(fmt.Sprintf("github.com/juliagpu/package%d.jl", i))
		if i%2 == 0 {
			f.Rules.Pipelines["juliagpu/"+slug] = name
		}
		step := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(hostile[i%len(hostile)][:min(20, len(hostile[i%len(hostile)]))])
		f.Pipelines = append(f.Pipelines, audit.Pipeline{
			Slug: slug, Address: "https://" + name.String(), Public: i%3 == 0, Forks: i%4 == 0, Prefixed: i%8 == 0, Rebuilds: true, Mode: "code",
			Steps: audit.Read("", fmt.Appendf(nil, "steps: [{label: \"%s\", command: make, env: {SECRET_A: %s==, SECRET_B: hunter2-canary}}]", step, strings.Repeat("A", 342))),
		})
	}
	return f
}

// TestAuditOfMany: five hundred pipelines are there at once, and what somebody called
// them is text.
func TestAuditOfMany(t *testing.T) {
	p, took := openReport(t, pipelines(500))
	require.Less(t, took, 10*time.Second)
	require.Equal(t, "juliagpu: audit of pipelines, 2027-01-31", eval[string](p, "document.title"))
	require.Equal(t, 500, eval[int](p, `document.querySelectorAll("#table tbody tr").length`))
	require.Equal(t, 0, eval[int](p, `document.querySelectorAll("img, main script").length`))
	require.Contains(t, eval[[]string](p, `[...document.querySelectorAll("#table tbody th bdi")].slice(0, 5).map((e) => e.textContent)`), hostile[0], "as it was called")
	require.False(t, eval[bool](p, `document.body.textContent.includes("hunter2")`))
	require.False(t, eval[bool](p, `document.body.textContent.includes("\u202e")`))

	// Sorted and filtered by keyboard.
	eval[chromedp.Void](p, `document.querySelector("thead th:last-child button").focus()`)
	p.press("\r")
	p.press("\r")
	require.Equal(t, "descending", eval[string](p, `document.querySelector("thead th:last-child").getAttribute("aria-sort")`))
	require.Equal(t, "danger", eval[string](p, `document.querySelector("#table tbody tr .severity").textContent`))
	eval[chromedp.Void](p, `document.getElementById("filter").focus()`)
	p.press("PACKAGE499")
	require.Equal(t, "1 of 500", p.text("filtered"))
	require.Equal(t, 1, eval[int](p, `document.querySelectorAll("#table tbody tr:not([hidden])").length`))
}

// TestAuditWithoutScript: all of it can be read.
func TestAuditWithoutScript(t *testing.T) {
	p, _ := openReport(t, pipelines(5))
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.do(chromedp.Reload())
	p.mu.Lock()
	p.requests = p.requests[:1]
	p.mu.Unlock()
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
	p.wait(`document.readyState === "complete"`)
	require.Equal(t, 0, eval[int](p, `document.querySelectorAll("thead button").length`), "its script did not run")
	require.False(t, eval[bool](p, `document.getElementById("filter").checkVisibility()`))
	require.True(t, eval[bool](p, `document.querySelector("#table tbody td").checkVisibility()`))
}

// TestAuditLooks: as TestLooks, and on paper.
func TestAuditLooks(t *testing.T) {
	pictures := os.Getenv("PAGE_SCREENSHOTS")
	p, _ := openReport(t, pipelines(12))
	for _, screen := range []struct {
		width         int64
		scheme, media string
	}{{400, "light", ""}, {400, "dark", ""}, {800, "light", ""}, {1600, "light", ""}, {1600, "dark", ""}, {800, "light", "print"}} {
		name := fmt.Sprintf("audit-%d-%s%s", screen.width, screen.scheme, screen.media)
		p.do(chromedp.EmulateViewport(screen.width, 900))
		call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Media: screen.media, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: screen.scheme}},
		})
		assert.LessOrEqual(t, eval[int64](p, "document.documentElement.scrollWidth"), screen.width, name)
		assert.Empty(t, eval[[]string](p, faint), "%s: contrast", name)
		if screen.width != 800 {
			assert.Empty(t, eval[[]string](p, outside), "%s: beyond the edge", name)
		}
		if pictures == "" {
			continue
		}
		picture, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(pictures, name+".png"), picture, 0o644))
	}
}

// TestAuditScreenReader: headings, a table with headers, and a name for each control.
func TestAuditScreenReader(t *testing.T) {
	p, _ := openReport(t, pipelines(3))
	roles := map[string]int{}
	for _, node := range call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
		if node.Ignored || node.Role == nil {
			continue
		}
		roles[string(node.Role.Value)]++
		for _, property := range node.Properties {
			if property.Name == "focusable" && string(property.Value.Value) == "true" {
				assert.NotContains(t, []string{"", `""`}, string(node.Name.Value), "a %s without a name", node.Role.Value)
			}
		}
	}
	t.Log(roles)
	require.Equal(t, 8, roles[`"columnheader"`])
	require.Equal(t, 3, roles[`"rowheader"`])
	require.Equal(t, 1, roles[`"main"`])
	require.Greater(t, roles[`"heading"`], 6)
}
