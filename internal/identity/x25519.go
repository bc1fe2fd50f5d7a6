package identity

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// An x25519Identity unwraps what age's own does (age-encryption.org/v1, "The X25519
// recipient type"), in half the time: age computes the public key anew for each
// stanza, which costs as much as the exchange itself.
type x25519Identity struct{ key *ecdh.PrivateKey }

// fileKeySize is that of every age file.
const fileKeySize = 16

// Unwrap implements age.Identity.
func (i x25519Identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != "X25519" {
			continue
		}
		key, err := i.unwrap(s)
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

func (i x25519Identity) unwrap(s *age.Stanza) ([]byte, error) {
	if len(s.Args) != 1 || strings.ContainsAny(s.Args[0], "\r\n") || len(s.Body) != fileKeySize+chacha20poly1305.Overhead {
		return nil, errStanza
	}
	share, err := base64.RawStdEncoding.Strict().DecodeString(s.Args[0])
	if err != nil {
		return nil, errStanza
	}
	public, err := ecdh.X25519().NewPublicKey(share)
	if err != nil {
		return nil, errStanza
	}
	shared, err := i.key.ECDH(public)
	if err != nil { // a point of low order
		return nil, errStanza
	}
	salt := slices.Concat(share, i.key.PublicKey().Bytes())
	wrapping, err := hkdf.Key(sha256.New, shared, salt, "age-encryption.org/v1/X25519", chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.New(wrapping)
	if err != nil {
		return nil, err
	}
	// The nonce may be fixed: each wrapping key wraps one file key.
	key, err := aead.Open(nil, make([]byte, chacha20poly1305.NonceSize), s.Body, nil)
	if err != nil {
		return nil, age.ErrIncorrectIdentity
	}
	return key, nil
}

var errStanza = errors.New("invalid X25519 stanza")

// parseX25519 reads AGE-SECRET-KEY-1… . age checks the text; it does not give the
// scalar out.
func parseX25519(line string) (x25519Identity, *age.X25519Recipient, error) {
	checked, err := age.ParseX25519Identity(line)
	if err != nil {
		return x25519Identity{}, nil, err
	}
	key, err := ecdh.X25519().NewPrivateKey(bech32Data(strings.TrimPrefix(line, "AGE-SECRET-KEY-1")))
	return x25519Identity{key}, checked.Recipient(), err
}

// bech32Data returns what the part of a valid Bech32 text behind its 1 holds: five
// bits a letter, the last six letters a checksum (BIP 173).
func bech32Data(text string) []byte {
	var data []byte
	var bits, n uint
	for _, c := range text[:len(text)-6] {
		bits = bits<<5 | uint(strings.IndexRune("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", c))
		if n += 5; n >= 8 {
			n -= 8
			data = append(data, byte(bits>>n))
		}
	}
	return data
}
