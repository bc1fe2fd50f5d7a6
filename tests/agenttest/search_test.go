//go:build unix

package agenttest

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// canary has, in base64, characters in which the two alphabets differ.
const canary = "hunter2>?>?\xff\xfe-canary"

func TestContains(t *testing.T) {
	for before := range 6 {
		for after := range 6 {
			text := []byte(strings.Repeat("#", before) + canary + strings.Repeat("\xf0", after))
			for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
				encoded := e.EncodeToString(text)
				assert.True(t, Contains([]byte(encoded), []byte(canary)), "%d before, %d after: %s", before, after, encoded)
			}
		}
	}
	for _, tt := range []struct {
		name string
		data string
		want bool
	}{
		{"as it is", "x" + canary + "y", true},
		{"nothing", "", false},
		{"all but a byte", canary[1:], false},
		{"base64 of all but a byte", base64.StdEncoding.EncodeToString([]byte(canary[:len(canary)-1])), false},
		{"base64 of another text that begins alike", base64.StdEncoding.EncodeToString([]byte("#hunter2, hunter3")), false},
		{"base64 in lines", "x: " + base64.StdEncoding.EncodeToString([]byte(canary))[:9] + "\r\n" + base64.StdEncoding.EncodeToString([]byte(canary))[9:], true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, Contains([]byte(tt.data), []byte(canary)))
		})
	}
	assert.True(t, Contains([]byte("one\r\r\ntwo three"), []byte("one\ntwo")), "through two terminals")
	assert.False(t, Contains([]byte("one\n"), []byte("one\ntwo")))
	assert.False(t, Contains([]byte(base64.StdEncoding.EncodeToString([]byte("abcd"))), []byte("abcd")), "short ones would be found by chance")
}

func TestSearch(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write("clean", "nothing here")
	write("a/raw", "..."+canary)
	write("a/encoded", "12\n45"+base64.URLEncoding.EncodeToString([]byte(canary)))
	write("b/second-needle/file", "")
	require.NoError(t, os.Symlink("/to/second-needle", filepath.Join(dir, "link")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))

	hits, err := Search(dir, []byte(canary), []byte("second-needle"))
	require.NoError(t, err)
	assert.Equal(t, []Hit{
		{"a/encoded", 5, 0},
		{"a/raw", 3, 0},
		{"b/second-needle", -1, 1},
		{"link", -1, 1},
	}, hits)

	_, err = Search(filepath.Join(dir, "missing"), []byte("x"))
	assert.Error(t, err)
}
