package jobenv

import (
	"fmt"
	"testing"
)

// values are 50 of 40 bytes: 250 masks.
func values() []string {
	var all []string
	for i := range 50 {
		all = append(all, fmt.Sprintf("%02d%s", i, long(38)))
	}
	return all
}

func BenchmarkMasks(b *testing.B) {
	vars := secrets(values()...)
	b.ReportAllocs()
	for b.Loop() {
		masks(vars)
	}
}

func BenchmarkDeliver(b *testing.B) {
	vars := secrets(values()...)
	client := (&api{}).client(b)
	b.ReportAllocs()
	for b.Loop() {
		clear(client.sent)
		if _, err := client.Deliver(Delivery{Secrets: vars}); err != nil {
			b.Fatal(err)
		}
	}
}
