package gpu

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestJSON: programs find what they look for, lists as lists.
func TestJSON(t *testing.T) {
	var got struct {
		Schema       int
		Verdict      string
		Milliseconds float64
		Findings     []Finding
		Facts        map[string]any
	}
	s := healthy()
	text := Check(s.Facts, s.Demand).JSON(s.Facts, 1500*time.Microsecond)
	require.Contains(t, string(text), `"findings": []`)
	require.NoError(t, json.Unmarshal(text, &got))
	require.Equal(t, 1, got.Schema)
	require.Equal(t, "pass", got.Verdict)
	require.Equal(t, 1.5, got.Milliseconds)
	require.Contains(t, got.Facts, "nvidia")
	s.deny("c 195:2")
	require.Contains(t, string(Check(s.Facts, s.Demand).JSON(s.Facts, 0)), `"verdict": "machine"`)
}
