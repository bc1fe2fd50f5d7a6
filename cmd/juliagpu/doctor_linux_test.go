package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDoctorHere looks at this very machine: whatever it finds, the status, the page
// and the text for programs agree.
func TestDoctorHere(t *testing.T) {
	var page, stderr bytes.Buffer
	status := run([]string{"doctor", "--offline"}, nil, nil, &page, &stderr)
	require.Empty(t, stderr.String())
	lines := strings.Split(strings.TrimSpace(page.String()), "\n")
	require.Contains(t, lines[len(lines)-1], fmt.Sprintf(": status %d, ", status))

	var text bytes.Buffer
	require.Equal(t, status, run([]string{"doctor", "--offline", "--json"}, nil, nil, &text, &stderr))
	var report struct {
		Schema   int
		Status   int
		Verdict  string
		Place    string
		Findings []struct{ ID, Severity, What, Why, Fix string }
		Seen     []struct{ Name, Text string }
	}
	require.NoError(t, json.Unmarshal(text.Bytes(), &report))
	require.Equal(t, 1, report.Schema)
	require.Equal(t, status, report.Status)
	require.Equal(t, map[int]string{0: "well", 1: "fault", 75: "unknown"}[status], report.Verdict)
	require.NotEmpty(t, report.Seen)
	for _, f := range report.Findings {
		require.Contains(t, page.String(), f.ID+": ")
		require.NotEmpty(t, f.What)
	}
}
