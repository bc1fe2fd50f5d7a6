package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"
)

// TestFindRecipients: the command line wins over the checkout, the checkout over
// what was built in.
func TestFindRecipients(t *testing.T) {
	var texts []string
	for range 3 {
		identity, err := age.GenerateX25519Identity()
		require.NoError(t, err)
		texts = append(texts, identity.Recipient().String())
	}
	here := checkout(t.TempDir())
	file := filepath.Join(string(here), inCheckout)
	embedded := texts[2] + " # everybody"
	find := func(o options) recipient {
		t.Helper()
		all, err := findRecipients(o, here, embedded)
		require.NoError(t, err)
		require.Len(t, all, 1)
		return all[0]
	}

	got := find(options{})
	require.Equal(t, texts[2], got.Recipient.String())
	require.Equal(t, "this build of encrypt", got.from)
	require.Contains(t, got.String(), " (everybody)")

	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(texts[1]), 0o600))
	require.Equal(t, texts[1], find(options{}).Recipient.String())
	require.Equal(t, texts[0], find(options{recipients: list{texts[0]}}).Recipient.String())

	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("# much\n", maxRecipients)), 0o600))
	_, err := findRecipients(options{}, here, embedded)
	require.ErrorContains(t, err, "larger than any recipients' file")
}

// TestEmbeddedRecipientsParse: what this build carries is a recipients' file.
func TestEmbeddedRecipientsParse(t *testing.T) {
	_, err := parseRecipients(embedded, "this build")
	require.NoError(t, err)
}
