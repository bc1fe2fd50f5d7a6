// Package openssl opens the two forms of the older tool, which sealed with OpenSSL:
// RSA alone, or RSA for a password and AES for the value. envelope.FormOf tells them.
//
// Neither proves itself, nor names a variable or a repository: whoever may open one
// may open all. So there is one error for whatever is wrong, and the operator lists
// what may be opened where (settings.Older).
package openssl

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

// ErrClosed is all that is said of a value that does not open.
var ErrClosed = errors.New("sealed for another RSA key, or damaged")

// ErrKey says that a text is no key that could open either form.
var ErrKey = errors.New("not an RSA key")

// A Key opens what was sealed for it. fmt shows none of it.
type Key struct{ rsa *rsa.PrivateKey }

// Format shows what it is.
func (Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, "RSA key") }

// bytes of a key, and so of a block; of the file that the password is in, base64 of
// 128 bytes in lines of 64; and of the password, its first line, which is all that
// OpenSSL reads of it (-pass file:).
const (
	block        = 256
	passwordFile = 175
	password     = 64
)

// ParseKey reads a key of 2048 bits in PEM, PKCS#1 or PKCS#8. The error wraps ErrKey,
// and holds nothing of the text.
func ParseKey(text []byte) (*Key, error) {
	p, _ := pem.Decode(text)
	if p == nil {
		return nil, fmt.Errorf("%w: no PEM block in it", ErrKey)
	}
	var key any
	var err error
	switch p.Type {
	case "RSA PRIVATE KEY":
		if p.Headers["DEK-Info"] != "" {
			return nil, fmt.Errorf("%w: a passphrase closes it: openssl rsa -in KEY -out OTHER takes it off", ErrKey)
		}
		key, err = x509.ParsePKCS1PrivateKey(p.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(p.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, fmt.Errorf("%w: a passphrase closes it: openssl rsa -in KEY -out OTHER takes it off", ErrKey)
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return nil, fmt.Errorf("%w: the public half: take the private one", ErrKey)
	default:
		return nil, fmt.Errorf("%w: another kind of PEM", ErrKey)
	}
	if err != nil { // whose text may quote what is wrong
		return nil, fmt.Errorf("%w: its numbers don't add up: copy the whole file", ErrKey)
	}
	own, ok := key.(*rsa.PrivateKey)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: a key of another kind", ErrKey)
	case own.Size() != block:
		return nil, fmt.Errorf("%w: of %d bits, and the older tool's has 2048", ErrKey, own.N.BitLen())
	}
	return &Key{own}, nil
}

// Open returns the value, without the line breaks at its end, which the older hook
// took away, too. Its only error is ErrClosed.
func (k *Key) Open(text string) (plaintext.Value, error) {
	first, second, hybrid := strings.Cut(strings.TrimRight(text, "\r\n"), ";")
	sealed, err := base64.StdEncoding.Strict().DecodeString(strings.TrimRight(first, "\r\n"))
	if err != nil || len(sealed) != block {
		return plaintext.Value{}, ErrClosed
	}
	var value []byte
	if hybrid {
		value, err = k.openHybrid(sealed, second)
	} else {
		//lint:ignore SA1019 what the older tool sealed with
		value, err = rsa.DecryptPKCS1v15(nil, k.rsa, sealed)
	}
	value = bytes.TrimRight(value, "\r\n")
	if err != nil || len(value) == 0 || bytes.IndexByte(value, 0) >= 0 { // what no variable can be
		return plaintext.Value{}, ErrClosed
	}
	return plaintext.New(string(value)), nil
}

// iterations are PBKDF2's, as the older tool asked for.
const iterations = 100_000

// openHybrid goes the whole way whatever the first part says: where that is not a
// password, a random one is used in its place, and nobody can tell the two apart by
// time or error (RFC 3218).
func (k *Key) openHybrid(sealed []byte, text string) ([]byte, error) {
	body, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, ErrClosed
	}
	salted, ok := bytes.CutPrefix(body, []byte("Salted__"))
	if !ok || len(salted) < 8+aes.BlockSize || (len(salted)-8)%aes.BlockSize != 0 {
		return nil, ErrClosed
	}
	salt, closed := salted[:8], bytes.Clone(salted[8:])

	file := make([]byte, passwordFile)
	rand.Read(file)
	//lint:ignore SA1019 as above, and made for this
	if err := rsa.DecryptPKCS1v15SessionKey(nil, k.rsa, sealed, file); err != nil {
		return nil, ErrClosed
	}
	both, err := pbkdf2.Key(sha256.New, string(file[:password]), salt, iterations, 32+aes.BlockSize)
	if err != nil {
		return nil, ErrClosed
	}
	cbc, err := aes.NewCipher(both[:32])
	if err != nil {
		return nil, ErrClosed
	}
	cipher.NewCBCDecrypter(cbc, both[32:]).CryptBlocks(closed, closed)
	return unpad(closed)
}

// unpad takes PKCS#7's padding off, in the same time whatever it is.
func unpad(text []byte) ([]byte, error) {
	n := int(text[len(text)-1])
	good := subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, aes.BlockSize)
	for i := range aes.BlockSize {
		inside := subtle.ConstantTimeLessOrEq(i+1, n)
		same := subtle.ConstantTimeByteEq(text[len(text)-1-i], byte(n))
		good &= subtle.ConstantTimeSelect(inside, same, 1)
	}
	if good != 1 {
		return nil, ErrClosed
	}
	return text[:len(text)-n], nil
}
