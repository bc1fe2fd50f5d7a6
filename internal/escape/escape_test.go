package escape

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"main":             "main",
		"a branch":         "a branch",
		"":                 `""`,
		" main":            `" main"`,
		"main\n+++ hello":  `"main\n+++ hello"`,
		"\x1b[31mred":      `"\x1b[31mred"`,
		"gіthub":           `"g\u0456thub"`,
		`"`:                `"\""`,
		`\n`:               `"\\n"`,
		"\xff":             `"\xff"`,
		"\u202etxt":        `"\u202etxt"`,
		"a\rb":             `"a\rb"`,
		"\x1b_bk;t=1\x07x": `"\x1b_bk;t=1\ax"`,
	} {
		require.Equal(t, want, Text(in), "%q", in)
	}
	require.Equal(t, strings.Repeat("a", 200)+"…", Text(strings.Repeat("a", 201)))
}

func TestJSON(t *testing.T) {
	require.Equal(t, "{\"a\": \"\\u00e4\\u202e\\ud83d\\ude80\\u007f\"}\n", string(JSON([]byte("{\"a\": \"ä\u202e🚀\x7f\"}\n"))))
}
