// Package identity makes and loads the age identities.
//
// Nothing in it prints key material: its errors say which line of which file is
// wrong, never what stands there, and an Identity shows its fingerprint.
package identity

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/credential"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/envelope"
	"github.com/juliagpu/secrets-buildkite-plugin/internal/settings"
)

// MaxFile is the largest identity file, in bytes: hundreds of X25519 identities.
const MaxFile = 64 << 10

// ErrMalformed says that a file is not what age-keygen writes.
var ErrMalformed = errors.New("not an identity file")

// An Identity opens what is sealed to its recipient. fmt shows its file and
// fingerprint; age's own types would show the key.
type Identity struct {
	File        string
	Retired     bool   // opens, and its user should be warned
	Recipient   string // its public half
	Fingerprint string // of the recipient, see envelope.Fingerprint
	Age         age.Identity
}

// Format shows where i is from, and what it is called in labels.
func (i Identity) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "identity %s (%s)", i.Fingerprint, i.File)
}

// Load reads all files, in order; each holds one identity or more as age-keygen
// writes them, post-quantum ones too. A file belongs to root or uid, and nobody
// else may read it. With the first error nothing is loaded: it wraps
// fs.ErrNotExist, rootfile.ErrUntrusted, credential.ErrTooLarge or ErrMalformed.
func Load(files []settings.IdentityFile, uid int) ([]Identity, error) {
	var all []Identity
	for _, file := range files {
		text, err := credential.File{Kind: "identity", Path: file.Path}.Read(uid, MaxFile)
		if err != nil {
			return nil, err
		}
		identities, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("identity %s: %w", file.Path, err)
		}
		for _, i := range identities {
			i.File, i.Retired = file.Path, file.Retired
			all = append(all, i)
		}
	}
	return all, nil
}

// New makes an identity: X25519, or post-quantum. The text is of a file as age-keygen
// writes it, and holds the key.
func New(postQuantum bool, now time.Time) (text []byte, made Identity, err error) {
	var key fmt.Stringer
	if postQuantum {
		key, err = age.GenerateHybridIdentity()
	} else {
		key, err = age.GenerateX25519Identity()
	}
	if err == nil {
		made, err = parseLine(key.String())
	}
	if err != nil {
		return nil, Identity{}, err
	}
	return fmt.Appendf(nil, "# created: %s\n# public key: %s\n%s\n", now.Format(time.RFC3339), made.Recipient, key), made, nil
}

// Parse reads the text of a file that age-keygen writes: one identity a line,
// comments and empty lines. The error wraps ErrMalformed, and quotes nothing: age's
// own parser quotes a line that it can't read.
func Parse(text []byte) ([]Identity, error) {
	var identities []Identity
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line := strings.TrimRight(string(line), "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		i, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d %w", ErrMalformed, n, err)
		}
		identities = append(identities, i)
	}
	if len(identities) == 0 {
		return nil, fmt.Errorf("%w: it holds no identity; age-keygen makes one", ErrMalformed)
	}
	return identities, nil
}

func parseLine(line string) (Identity, error) {
	begins := func(prefixes ...string) bool {
		for _, p := range prefixes {
			if strings.HasPrefix(line, p) {
				return true
			}
		}
		return false
	}
	switch {
	case begins("AGE-SECRET-KEY-1"):
		i, recipient, err := parseX25519(line)
		if err != nil { // it quotes the line
			return Identity{}, errors.New("begins like an identity, but its letters don't add up: copy the whole line")
		}
		return of(i, recipient.String()), nil
	case begins("AGE-SECRET-KEY-PQ-1"):
		i, err := age.ParseHybridIdentity(line)
		if err != nil {
			return Identity{}, errors.New("begins like a post-quantum identity, but its letters don't add up: copy the whole line")
		}
		return of(i, i.Recipient().String()), nil
	case begins("age1"):
		return Identity{}, errors.New("is a recipient, the public half: put the identity here, which begins with AGE-SECRET-KEY-")
	case begins("age-encryption.org/", "-----BEGIN AGE ENCRYPTED FILE-----"):
		return Identity{}, errors.New("begins an encrypted file: nobody is here to type a passphrase, so put the identity itself on tmpfs")
	case begins("-----BEGIN "):
		return Identity{}, errors.New("begins a key in PEM, such as OpenSSH's and OpenSSL's: make an age identity with age-keygen")
	case begins("AGE-PLUGIN-"):
		return Identity{}, errors.New("names an age plugin: no other program is started here, so make an identity with age-keygen")
	}
	return Identity{}, errors.New("is neither an identity nor a comment")
}

func of(i age.Identity, recipient string) Identity {
	return Identity{Age: i, Recipient: recipient, Fingerprint: envelope.Fingerprint(recipient)}
}
