//go:build !js

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

func TestReadEnvFile(t *testing.T) {
	for _, tt := range []struct{ about, text, want string }{
		{"one", "A=hunter2-canary", "A=hunter2-canary"},
		{"line ends of Windows", "A=hunter2-canary\r\nB=hunter3-canary\r\n", "A=hunter2-canary B=hunter3-canary"},
		{"a mark of Windows", "\ufeffA=hunter2-canary\n", "A=hunter2-canary"},
		{"comments and blank lines", "# A=hunter1-canary\n\n \t\n  #\nA=hunter2-canary\n", "A=hunter2-canary"},
		{"more of =", "A=hunter2=canary==\n", "A=hunter2=canary=="},
		{"quotes, dollars and backslashes are letters", `A="$HOME\n$(id)"`, `A="$HOME\n$(id)"`},
		{"the name that sets SECRET_B", "SECRET_SECRET_B=hunter2-canary", "SECRET_B=hunter2-canary"},

		{"export", "export A=hunter2-canary", "error: f:1: not NAME=VALUE"},
		{"blanks before the name", "  A=hunter2-canary", "error: f:1: not NAME=VALUE"},
		{"a blank behind the name", "A =hunter2-canary", "error: f:1: not NAME=VALUE"},
		{"no name", "\n=hunter2-canary", "error: f:2: not NAME=VALUE"},
		{"YAML", "A: hunter2-canary", "error: f:1: not NAME=VALUE"},
		{"nothing behind =", "A=", "error: f:1: no value behind ="},
		{"blanks behind =", "A=      ", "error: A: the value is one character, repeated"},
		{"the end of some base64", "canaryhunter==", "error: f:1: no value behind ="},
		{"twice", "A=hunter2-canary\nA=hunter2-canary", "error: f:2: its name can't be in this bundle"},
		{"the bundle's carrier", "SECRET_SECRET_CI=hunter2-canary", "error: f:1: its name can't be in this bundle"},
		{"its other name", "SECRET_SECRET_CI_SEALED=hunter2-canary", "error: f:1: its name can't be in this bundle"},
		{"a name that runs code", "LD_PRELOAD=hunter2-canary", "error: f:1: its name can't be in this bundle"},
		{"the prefix", "SECRET_A=hunter2-canary", "error: f:1: its name can't be in this bundle"},
		{"a name that is too long", strings.Repeat("A", 129) + "=hunter2-canary", "error: f:1: its name can't be in this bundle"},
		{"short", "A=12345", "error: A: the value is shorter than 6 bytes: to mask it would mask half the log"},
		{"a lone CR at the end", "A=hunter2-canary\r", "A=hunter2-canary\r"},
		{"NUL", "A=hunter2\x00canary", "error: f: not text in UTF-8"},
		{"UTF-16", "\xff\xfeA\x00", "error: f: not text in UTF-8"},
	} {
		var said strings.Builder
		b := bundle{"CI", map[string]plaintext.Value{}, func(format string, _ ...any) { said.WriteString(format) }}
		err := b.read(strings.NewReader(tt.text), "f")
		if want, ok := strings.CutPrefix(tt.want, "error: "); ok {
			require.Error(t, err, tt.about)
			assert.Equal(t, want, err.Error(), tt.about)
			var r *refusal
			require.ErrorAs(t, err, &r, tt.about)
			assert.NotEmpty(t, r.hint, tt.about)
			assert.NotContains(t, r.text+r.hint, "canary", tt.about)
			continue
		}
		require.NoError(t, err, tt.about)
		var got []string
		for _, name := range []string{"A", "B", "SECRET_B"} {
			if v, ok := b.values[name]; ok {
				got = append(got, name+"="+v.Reveal())
			}
		}
		assert.Equal(t, tt.want, strings.Join(got, " "), tt.about)
		assert.Len(t, b.values, len(got), tt.about)
	}
}

// FuzzReadEnvFile: what is taken is there line by line, and an error shows nothing
// that is no name.
func FuzzReadEnvFile(f *testing.F) {
	f.Add("A=hunter2-canary\r\n# x\nB=\"c\"")
	f.Add("canaryhunter==\n")
	f.Add("export A=b")
	f.Fuzz(func(t *testing.T, text string) {
		b := bundle{"CI", map[string]plaintext.Value{}, func(string, ...any) {}}
		if err := b.read(strings.NewReader(text), "f"); err != nil {
			require.Regexp(t, `^f(:[0-9]+)?: [a-zA-Z' =-]+$|^[A-Za-z_0-9]{1,128}: [A-Za-z0-9_:., -]+$`, err.Error())
			return
		}
		for name, v := range b.values {
			name = strings.TrimPrefix(name, "SECRET_")
			require.Contains(t, text, name+"="+v.Reveal())
		}
	})
}
