//go:build unix

package page

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// states are what a person may have before the eyes, each made from the one before.
var states = []struct {
	name string
	make func(*tab)
}{
	{"empty", func(*tab) {}},
	{"refused", func(p *tab) {
		p.click("summary")
		p.typeInto("Name", "CODECOV-TOKEN")
		p.typeInto("Repos", "JuliaGPU/CUDA.jl")
		p.typeInto("Recipients", "age1qqqq")
		p.typeInto("Pipelines", "cuda-jl")
		p.choose("lines")
		require.False(p, p.seal())
	}},
	{"sealed", func(p *tab) {
		eval[chromedp.Void](p, `for (const id of ["Name", "Repos", "Recipients", "Pipelines"]) document.getElementById(id).value = ""`)
		p.typeInto("Name", "CODECOV_TOKEN")
		p.typeInto("Repos", "https://github.com/JuliaGPU/CUDA.jl")
		p.typeInto("Recipients", world.site.Recipient().String()+" # The Lab")
		p.typeInto("Branches", "main a-long-name-of-a-branch-that-some-people-like-to-use-*")
		p.typeInto("Value-lines", " production")
		require.True(p, p.seal(), p.text("form"))
	}},
}

// screens are a phone and a desk, by day and by night.
var screens = []struct {
	width  int64
	scheme string
}{{320, "light"}, {320, "dark"}, {1200, "light"}, {1200, "dark"}}

// TestLooks: nothing scrolls sideways but the lines, and every text can be read
// (WCAG 2.2, 1.4.3: contrast 4.5; 1.4.11: 3 for the edges of controls). With
// PAGE_SCREENSHOTS=DIR it leaves pictures to look at.
func TestLooks(t *testing.T) {
	prepare(t)
	pictures := os.Getenv("PAGE_SCREENSHOTS")
	p := open(t, file(world.plain))
	for _, state := range states {
		state.make(p)
		for _, screen := range screens {
			name := fmt.Sprintf("%s-%d-%s", state.name, screen.width, screen.scheme)
			p.do(chromedp.EmulateViewport(screen.width, 800))
			call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: screen.scheme}},
			})
			assert.LessOrEqual(t, eval[int64](p, "document.documentElement.scrollWidth"), screen.width, name)
			assert.Empty(t, eval[[]string](p, outside), "%s: beyond the edge", name)
			assert.Empty(t, eval[[]string](p, faint), "%s: contrast", name)
			if pictures == "" {
				continue
			}
			picture, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(pictures, name+".png"), picture, 0o644))
		}
	}
}

// outside lists the elements that stand out of the window.
const outside = `[...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)
	.map((e) => e.tagName + " " + e.id)`

// faint lists texts and edges of controls with too little contrast.
const faint = `(() => {
	const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return { rgb: [r, g, b], a }; };
	const light = ({ rgb }) => rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
		.reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
	const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
	const back = (e) => { const c = parse(getComputedStyle(e).backgroundColor); return c.a === 1 || !e.parentElement ? c : back(e.parentElement); };
	const found = [];
	for (const e of document.querySelectorAll("body *")) {
		if (!e.checkVisibility()) continue;
		const style = getComputedStyle(e);
		const says = (e.value || [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join("")).trim();
		if (says && contrast(parse(style.color), back(e)) < 4.5) found.push(e.tagName + " " + e.id + " " + style.color);
		if (e.matches("input[type=text], input[type=password], input[type=date], textarea") && contrast(parse(style.borderColor), back(e.parentElement)) < 3)
			found.push("edge of " + e.id + " " + style.borderColor);
	}
	return found;
})()`

// TestScreenReader asks Chromium what it tells one: each control has a name, a
// field at fault says so, with what is wrong.
func TestScreenReader(t *testing.T) {
	prepare(t)
	p := open(t, file(world.plain))
	text := func(v *accessibility.Value) string {
		if v == nil {
			return ""
		}
		return string(v.Value)
	}
	for _, state := range states {
		state.make(p)
		roles, invalid := map[string]int{}, 0
		for _, node := range call(p, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
			if node.Ignored {
				continue
			}
			role, name := text(node.Role), text(node.Name)
			for _, property := range node.Properties {
				switch {
				case property.Name == "focusable" && text(property.Value) == "true" && role != `"RootWebArea"` && role != `"spinbutton"`:
					roles[role]++
					assert.NotContains(t, []string{"", `""`}, name, "%s: a %s without a name", state.name, role)
				case property.Name == "invalid" && text(property.Value) == `"true"`:
					invalid++
					assert.NotContains(t, []string{"", `""`}, text(node.Description), "%s: %s does not say what is wrong", state.name, name)
				}
			}
		}
		t.Logf("%s: %v, %d invalid", state.name, roles, invalid)
		switch state.name {
		case "empty":
			assert.Equal(t, 4, roles[`"textbox"`], "name, value, repository, recipients")
		case "refused":
			assert.Equal(t, 5, invalid, "name, value, repository, recipients, pipelines")
		case "sealed":
			assert.Zero(t, invalid)
		}
	}
}
