package audit

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHTML: one page that loads nothing, and in which nobody else's text is more
// than text. tests/page opens it in a browser.
func TestHTML(t *testing.T) {
	r := Judge(sample(t))
	r.Requests, r.Notes = 1, []string{"10 recipients were given"}
	html, err := r.HTML()
	require.NoError(t, err)
	golden(t, "report.html", string(html))
	require.NotContains(t, string(html), "<script>alert")
	require.Contains(t, string(html), "&lt;script&gt;alert(1)&lt;/script&gt;")
	require.Contains(t, string(html), `/srv/git/\u202egpj.exe`)
	require.NotContains(t, string(html), "\u202e")
	require.NotContains(t, string(html), "hunter2")
	require.NotRegexp(t, `(?i)<(link|img|iframe|object|embed|form)\b|\bsrc=|@import|url\(|href="[^#]`, string(html), "nothing to load")
	for _, link := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(string(html), -1) {
		require.Contains(t, string(html), `id="`+strings.TrimPrefix(link[1], "#")+`"`, "a link leads nowhere")
	}

	html, err = Judge(Facts{Now: now}).HTML()
	require.NoError(t, err)
	require.Contains(t, string(html), "None was seen")
}

func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"cuda-jl": "cuda-jl", "Müller 🚀": "Müller 🚀", "a\u202eb": `a\u{202e}b`, "a\nb\x00": `a\u{a}b\u{0}`, "a\u00a0b": `a\u{a0}b`, "\xff": "\ufffd",
		"עברית": "עברית", strings.Repeat("ä", 201): strings.Repeat("ä", 200) + "…",
	} {
		require.Equal(t, want, shown(text))
	}
}
