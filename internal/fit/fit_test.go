package fit

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		about, text string
		width       int
		want        string
	}{
		{"nothing", "", 10, "> \n"},
		{"fits", "ab cd", 10, "> ab cd\n"},
		{"fits to the last column", "abcd efg", 10, "> abcd efg\n"},
		{"one too many", "abcd efgh", 10, "> abcd\n... efgh\n"},
		{"a word that is too long", "ab abcdefghijkl cd", 10, "> ab\n... abcdefghijkl\n... cd\n"},
		{"letters, not bytes", "äöüß €€€", 10, "> äöüß €€€\n"},
	} {
		assert.Equal(t, tt.want, Wrap(tt.text, tt.width, "> ", "... "), tt.about)
	}
}

func TestRow(t *testing.T) {
	assert.Equal(t, "  --json\n", Row("--json", "", 80, 12))
	assert.Equal(t, "  --json    for programs\n", Row("--json", "for programs", 80, 12))
	assert.Equal(t, "  --programs\n            for them\n", Row("--programs", "for them", 80, 12), "no blank would be between")
	assert.Equal(t, "  --json\n      for programs\n", Row("--json", "for programs", 40, 12), "no room for two columns")
}
