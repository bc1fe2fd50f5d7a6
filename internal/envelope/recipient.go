package envelope

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
)

// ErrRecipient says that a text is not an age recipient of a kind we seal to.
var ErrRecipient = errors.New("not an age recipient")

// A Recipient is the public half of an identity, to which a value is sealed.
type Recipient struct {
	text string
	age  age.Recipient
}

// ParseRecipient reads an X25519 (age1…) or post-quantum hybrid (age1pq1…)
// recipient. The error wraps ErrRecipient and never holds the text, which might
// be an identity pasted by mistake.
func ParseRecipient(s string) (Recipient, error) {
	switch {
	case strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-"):
		return Recipient{}, fmt.Errorf("%w: it is an identity, the private half: keep it away from here, and ask for the recipient that age-keygen -y prints", ErrRecipient)
	case strings.HasPrefix(s, "age1pq1"):
		r, err := age.ParseHybridRecipient(s)
		if err != nil {
			return Recipient{}, fmt.Errorf("%w: it begins with age1pq1, but its letters don't add up", ErrRecipient)
		}
		return Recipient{s, r}, nil
	case strings.HasPrefix(s, "age1"):
		r, err := age.ParseX25519Recipient(s)
		if err != nil {
			return Recipient{}, fmt.Errorf("%w: it begins with age1, but its letters don't add up", ErrRecipient)
		}
		return Recipient{s, r}, nil
	}
	return Recipient{}, fmt.Errorf("%w: recipients begin with age1", ErrRecipient)
}

// A Listed recipient stands in a recipients' file.
type Listed struct {
	Recipient
	Name string // the comment behind it; anyone's text
}

// ParseRecipients reads a recipients' file: one a line, each with its name behind
// a #. line is where the error is, which is ParseRecipient's.
func ParseRecipients(text string) (all []Listed, line int, err error) {
	for text := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line++
		key, name, _ := strings.Cut(text, "#")
		if key = strings.TrimSpace(key); key == "" {
			continue
		}
		r, err := ParseRecipient(key)
		if err != nil {
			return nil, line, err
		}
		all = append(all, Listed{r, strings.TrimSpace(name)})
	}
	return all, 0, nil
}

// String returns the recipient as it was written.
func (r Recipient) String() string { return r.text }

// Fingerprint names r in labels, logs and configurations.
func (r Recipient) Fingerprint() string { return Fingerprint(r.text) }

// PostQuantum tells which of the two kinds r is. age does not mix them.
func (r Recipient) PostQuantum() bool {
	_, ok := r.age.(*age.HybridRecipient)
	return ok
}

// Fingerprint is the first 16 hex digits of the SHA-256 of a recipient's text.
func Fingerprint(recipient string) string {
	sum := sha256.Sum256([]byte(recipient))
	return hex.EncodeToString(sum[:8])
}
