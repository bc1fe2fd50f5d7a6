package restserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// A Certificate is what a server shows.
type Certificate int

const (
	Good       Certificate = iota
	OtherHost              // of another host
	Expired                // no longer valid
	NotYet                 // not valid yet
	OtherRoots             // of another authority than that in Roots
)

// Certify makes an authority, PEM, and its good certificate for hosts of these names.
func Certify(names ...string) (roots []byte, server tls.Certificate, err error) {
	return certify(Good, &x509.Certificate{DNSNames: names})
}

// makeCertificate makes an authority, and what it says of a server.
func makeCertificate(kind Certificate, address string) (roots []byte, server tls.Certificate, err error) {
	return certify(kind, &x509.Certificate{IPAddresses: []net.IP{net.ParseIP(address)}})
}

func certify(kind Certificate, template *x509.Certificate) (roots []byte, server tls.Certificate, err error) {
	authority, authorityKey, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "restserver's authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	if err != nil {
		return nil, tls.Certificate{}, err
	}
	roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})
	if kind == OtherRoots {
		roots, _, err = Certify("example.org")
		if err != nil {
			return nil, tls.Certificate{}, err
		}
	}
	template.Subject, template.ExtKeyUsage = pkix.Name{CommonName: "restserver"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	switch kind {
	case OtherHost:
		template.IPAddresses, template.DNSNames = nil, []string{"example.org"}
	case Expired:
		template.NotBefore, template.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	case NotYet:
		template.NotBefore, template.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
	}
	certificate, key, err := sign(template, authority, authorityKey)
	if err != nil {
		return nil, tls.Certificate{}, err
	}
	return roots, tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}, nil
}

// sign makes a certificate that parent vouches for; nil: itself.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, key, err
}
