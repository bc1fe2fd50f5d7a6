// Package envelope seals a value for an age identity and a scope, and opens it.
//
// The text of a SECRET_* variable is the standard base64 of a binary age file
// whose first stanza is a label: name and scope, readable by anyone and
// authenticated with everything else by age's header MAC. docs/format.md is the
// specification; testdata/vectors freezes it.
package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/names"

	"filippo.io/age"

	"github.com/juliagpu/secrets-buildkite-plugin/internal/plaintext"
)

// Limits, checked before any other work.
const (
	MaxSealed = 120 << 10 // bytes of the text; one variable holds 128 KiB (MAX_ARG_STRLEN, execve(2))
	MaxValue  = 64 << 10  // bytes of the value
	MinValue  = 6         // bytes; shorter ones can't be masked without masking half the log
)

// Reasons for which an envelope does not open. No message holds a byte of the
// text or the value.
var (
	// ErrMalformed: the text begins like a sealed value and is none, or one that
	// this version refuses.
	ErrMalformed = errors.New("not a sealed value")
	// ErrTampered: an identity fits, but the text was changed after sealing.
	ErrTampered = errors.New("changed after it was sealed")
	// ErrForeign: sealed to other identities than those given. The error is a
	// *ForeignError.
	ErrForeign = errors.New("sealed to an identity that is not here")
)

// A ForeignError says to whom an envelope claims to be sealed.
type ForeignError struct {
	// To holds the recipients' fingerprints of the label. Nobody vouches for
	// them: the envelope could not be opened. Empty without a label.
	To []string
}

func (e *ForeignError) Error() string {
	if len(e.To) == 0 {
		return ErrForeign.Error()
	}
	return "sealed to " + strings.Join(e.To, ", ")
}

func (e *ForeignError) Unwrap() error { return ErrForeign }

// A Form is what the text of a SECRET_* variable looks like.
type Form int

const (
	FormEmpty     Form = iota // nothing
	FormOther                 // no secret of ours
	FormAge                   // begins like an age file in base64: ours, to be opened or refused
	FormRSA                   // the older tool's: RSA alone
	FormRSAHybrid             // the older tool's: RSA and AES
)

// formAge is the base64 of "age-encryption.org/v1" and no byte more.
const formAge = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"

// FormOf looks at the text alone and opens nothing.
func FormOf(text string) Form {
	switch {
	case text == "":
		return FormEmpty
	case strings.HasPrefix(text, formAge):
		return FormAge
	case isRSABlock(text):
		return FormRSA
	}
	// The second part is OpenSSL's "Salted__", eight bytes of salt, AES-CBC.
	key, body, ok := strings.Cut(text, ";")
	if ok && isRSABlock(key) && strings.HasPrefix(body, "U2FsdGVkX1") {
		return FormRSAHybrid
	}
	return FormOther
}

// isRSABlock accepts the base64 of 256 bytes, what RSA-2048 encrypts to.
func isRSABlock(text string) bool {
	text = strings.TrimRight(text, "\r\n")
	if len(text) != base64.StdEncoding.EncodedLen(256) {
		return false
	}
	_, err := decode(text)
	return err == nil
}

// Opened is an envelope that an identity opened to its end.
type Opened struct {
	Label    Label
	Labelled bool // false: an age file of nobody's making, without name and scope
	Identity int  // which of the identities opened it
	Value    plaintext.Value
}

// Open opens the text with the first identity that fits. It returns the whole
// value or none of it: an age file proves itself only at its end.
func Open(text string, identities ...age.Identity) (Opened, error) {
	file, err := decode(text)
	if err != nil {
		return Opened{}, err
	}
	// age tries its native identities before all others, so a second identity
	// that only looks would not be asked when a native one fits, and a labelled
	// file would seem to have no label. Hence one identity, ours.
	r := &reader{identities: identities}
	// By its size: age's plain reader takes buffers for a large file, 128 KiB.
	content, size, err := age.DecryptReaderAt(bytes.NewReader(file), int64(len(file)), r)
	if err != nil {
		return Opened{}, r.explain(err)
	}
	value := make([]byte, min(size, MaxValue+1))
	if _, err := content.ReadAt(value, 0); err != nil && err != io.EOF {
		return Opened{}, ErrTampered
	}
	if size > MaxValue {
		return Opened{}, fmt.Errorf("%w: its value is larger than 64 KiB", ErrMalformed)
	}
	return Opened{Label: r.label, Labelled: r.labelled, Identity: r.fits, Value: plaintext.New(string(value))}, nil
}

// Variables returns what o sets when the variable carrier holds it, sorted by
// name: one variable, or those of a bundle. It refuses a carrier that the label
// doesn't name. The caller delivers by o.Label.Type.
func (o Opened) Variables(carrier string) ([]Variable, error) {
	name := o.Label.Name
	if !o.Labelled {
		name = strings.TrimPrefix(carrier, names.Prefix)
		if err := names.Check(name); err != nil {
			return nil, err
		}
	} else if !o.Label.CarriedBy(carrier) {
		return nil, fmt.Errorf("%w: sealed as %s, which %s%s carries", names.ErrName, name, names.Prefix, name)
	}
	check := CheckValue
	if o.Label.Type == TypeFile {
		check = checkSize
	}
	if err := check(o.Value); err != nil {
		return nil, err
	}
	if o.Label.Type == TypeBundle {
		return parseBundle(o.Value, o.Label.Names)
	}
	return []Variable{{name, o.Value}}, nil
}

// CheckValue accepts what a variable can hold: 6 bytes to 64 KiB of UTF-8
// without NUL, since the Job API speaks JSON. The error wraps ErrValue.
func CheckValue(v plaintext.Value) error {
	if err := checkSize(v); err != nil {
		return err
	}
	switch text := v.Reveal(); {
	case strings.IndexByte(text, 0) >= 0:
		return fmt.Errorf("%w: it holds a NUL byte", ErrValue)
	case !utf8.ValidString(text):
		return fmt.Errorf("%w: it is not UTF-8 text", ErrValue)
	}
	return nil
}

func checkSize(v plaintext.Value) error {
	switch n := len(v.Reveal()); {
	case n < MinValue:
		return fmt.Errorf("%w: it is shorter than %d bytes", ErrValue, MinValue)
	case n > MaxValue:
		return fmt.Errorf("%w: it is larger than 64 KiB", ErrValue)
	}
	return nil
}

// A Peeked is what anyone can read of an envelope. Nothing vouches for it: use it
// to show, never to decide.
type Peeked struct {
	Label    Label
	Labelled bool     // false: an age file without name and scope
	Stanzas  []string // type of each stanza that wraps the file key, such as X25519; anyone's text in printable ASCII
}

// Peek reads an envelope's header without a key.
func Peek(text string) (Peeked, error) {
	file, err := decode(text)
	if err != nil {
		return Peeked{}, err
	}
	r := &reader{}
	_, err = age.Decrypt(bytes.NewReader(file), r) // fails always: r holds no identity
	if err := r.explain(err); !errors.Is(err, ErrForeign) {
		return Peeked{}, err
	}
	return Peeked{r.label, r.labelled, r.wrapping}, nil
}

// decode undoes the base64: strictly, so that one file has one text.
func decode(text string) ([]byte, error) {
	if len(text) > MaxSealed {
		return nil, fmt.Errorf("%w: it is larger than 120 KiB", ErrMalformed)
	}
	// Go's decoder skips line breaks, even a strict one.
	if strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%w: it holds a line break; it must stand on one line", ErrMalformed)
	}
	file, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		if len(text)%4 != 0 {
			return nil, fmt.Errorf("%w: the text ends early", ErrMalformed)
		}
		return nil, fmt.Errorf("%w: it is not standard base64", ErrMalformed)
	}
	return file, nil
}

// The label's stanza: its type, and its one argument, the format's version.
const (
	labelStanza  = "juliagpu-secret"
	labelVersion = "1"
)

// reader is the one identity that age.Decrypt gets. It reads the label, checks
// the stanzas, then asks the real identities.
type reader struct {
	identities []age.Identity

	asked    bool // age parsed the header
	opened   bool // an identity fits
	fits     int
	label    Label
	labelled bool
	wrapping []string // type of each stanza but the label
	err      error    // what is wrong with the header
}

// Unwrap implements age.Identity.
func (r *reader) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	r.asked = true
	if r.err = r.read(stanzas); r.err != nil {
		return nil, r.err
	}
	for i, identity := range r.identities {
		key, err := identity.Unwrap(stanzas)
		if errors.Is(err, age.ErrIncorrectIdentity) || err == nil && key == nil {
			continue
		}
		if err != nil { // it quotes the header, so it is not passed on
			r.err = fmt.Errorf("%w: a stanza of its header is damaged", ErrMalformed)
			return nil, r.err
		}
		r.opened, r.fits = true, i
		return key, nil
	}
	return nil, age.ErrIncorrectIdentity
}

// read takes the label and refuses what format version 1 does not have.
func (r *reader) read(stanzas []*age.Stanza) error {
	for i, s := range stanzas {
		switch {
		case s.Type == labelStanza && i > 0:
			return fmt.Errorf("%w: its label is not first, or there are two", ErrMalformed)
		case s.Type == labelStanza && !slices.Equal(s.Args, []string{labelVersion}):
			return fmt.Errorf("%w: its label is of another version than 1; a newer release may read it", ErrMalformed)
		case s.Type == labelStanza:
			label, err := ParseLabel(s.Body)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrMalformed, err)
			}
			r.label, r.labelled = label, true
		case s.Type == "scrypt":
			return fmt.Errorf("%w: it is sealed with a passphrase; seal it to a recipient", ErrMalformed)
		default:
			r.wrapping = append(r.wrapping, s.Type)
		}
	}
	if len(r.wrapping) > MaxRecipients {
		return fmt.Errorf("%w: it is sealed to more than %d recipients", ErrMalformed, MaxRecipients)
	}
	return nil
}

// explain says in our words why age.Decrypt failed: its errors quote the input.
func (r *reader) explain(err error) error {
	switch {
	case !r.asked:
		return fmt.Errorf("%w: its age header is damaged", ErrMalformed)
	case r.err != nil:
		return r.err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the text ends early", ErrMalformed)
	case r.opened:
		return ErrTampered
	}
	return &ForeignError{To: r.label.To}
}

// Seal seals value for the recipients, labelled with l, whose To it fills in.
// It refuses what Open or Variables would refuse.
func Seal(l Label, value plaintext.Value, recipients ...Recipient) (string, error) {
	l.To = nil
	for _, r := range recipients {
		l.To = append(l.To, r.Fingerprint())
		if r.PostQuantum() != recipients[0].PostQuantum() {
			return "", fmt.Errorf("%w: age does not mix X25519 (age1…) with post-quantum (age1pq1…) recipients; take one kind", ErrRecipient)
		}
	}
	l.To = sortedSet(l.To)
	body, err := l.Marshal()
	if err != nil {
		return "", err
	}
	if _, err := (Opened{Label: l, Labelled: true, Value: value}).Variables(names.Prefix + l.Name); err != nil {
		return "", err
	}
	to := []age.Recipient{labeller{body, recipients[0].PostQuantum()}}
	for i, r := range recipients {
		if !slices.ContainsFunc(recipients[:i], func(e Recipient) bool { return e.text == r.text }) {
			to = append(to, r.age)
		}
	}
	var file bytes.Buffer
	w, err := age.Encrypt(&file, to...)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	if _, err := io.WriteString(w, value.Reveal()); err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	text := base64.StdEncoding.EncodeToString(file.Bytes())
	if len(text) > MaxSealed {
		return "", fmt.Errorf("%w: sealed, it would be larger than 120 KiB; fewer recipients or a shorter value fit", ErrValue)
	}
	return text, nil
}

// labeller is the recipient that writes the label beside the real stanzas.
type labeller struct {
	body        []byte
	postQuantum bool
}

// Wrap implements age.Recipient; age calls WrapWithLabels instead.
func (w labeller) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := w.WrapWithLabels(fileKey)
	return stanzas, err
}

// WrapWithLabels implements age.RecipientWithLabels. It must report what the
// real recipients report, or age refuses to mix.
func (w labeller) WrapWithLabels([]byte) ([]*age.Stanza, []string, error) {
	var labels []string
	if w.postQuantum {
		labels = []string{"postquantum"}
	}
	return []*age.Stanza{{Type: labelStanza, Args: []string{labelVersion}, Body: w.body}}, labels, nil
}
