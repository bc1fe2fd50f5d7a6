package envelope

import (
	"testing"

	"filippo.io/age"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/repo"
)

func BenchmarkOpen(b *testing.B) {
	classic, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	quantum, err := age.GenerateHybridIdentity()
	if err != nil {
		b.Fatal(err)
	}
	for name, tt := range map[string]struct {
		identity  age.Identity
		recipient string
	}{
		"X25519": {classic, classic.Recipient().String()},
		"hybrid": {quantum, quantum.Recipient().String()},
	} {
		b.Run(name, func(b *testing.B) {
			to, err := ParseRecipient(tt.recipient)
			if err != nil {
				b.Fatal(err)
			}
			where, err := repo.Parse("github.com/juliagpu/cuda.jl")
			if err != nil {
				b.Fatal(err)
			}
			text, err := Seal(Label{Name: "TOKEN", Repos: []repo.Name{where}}, plaintext.New("a value of 40 bytes, as most tokens are"), to)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(text, tt.identity); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
