package main

import (
	"encoding/json"
	"syscall/js"
	"time"
)

// main gives the page what it calls. Forms and answers go through JSON, values
// as bytes, which the page clears.
func main() {
	look := func(_ js.Value, args []js.Value) any {
		return reply(read(args[0]).look(time.Now(), embedded))
	}
	seal := func(_ js.Value, args []js.Value) any {
		value := make([]byte, args[1].Length())
		defer clear(value)
		js.CopyBytesToGo(value, args[1])
		return reply(read(args[0]).seal(value, time.Now(), embedded))
	}
	names := []any{}
	for _, name := range sites(embedded) {
		names = append(names, name)
	}
	js.Global().Set("encrypt", map[string]any{"sites": names, "look": js.FuncOf(look), "seal": js.FuncOf(seal)})
	select {} // the functions live as long as the page
}

func read(text js.Value) (f form) {
	if err := json.Unmarshal([]byte(text.String()), &f); err != nil {
		panic(err) // the page's own mistake
	}
	return f
}

func reply(a answer) string {
	text, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	return string(text)
}
