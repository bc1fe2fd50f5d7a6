package plaintext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValueIsNeverPrinted(t *testing.T) {
	const canary = "hunter2-canary"
	v := New(canary)
	type outer struct{ inner struct{ v Value } }
	var o outer
	o.inner.v = v

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
		for _, x := range []any{v, &v, []Value{v}, map[string]Value{"a": v}, o, &o, struct{ V Value }{v}} {
			require.NotContains(t, fmt.Sprintf(verb, x), canary, "%s of %T", verb, x)
			require.NotContains(t, fmt.Sprintf(verb, x), fmt.Sprintf("%x", canary), "%s of %T", verb, x)
		}
	}
	text, err := json.Marshal(map[string]any{"a": v, "b": []Value{v}})
	require.NoError(t, err)
	require.NotContains(t, string(text), canary)

	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("value", "v", v, "o", o)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("value", "v", v, "o", o)
	require.NotContains(t, log.String(), canary)

	require.Equal(t, canary, v.Reveal())
	require.Empty(t, Value{}.Reveal())
}
