package haproxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{}
	var der []byte
	a.key, der = issue(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	var err error
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

var serial int64

func issue(t *testing.T, by *authority, template *x509.Certificate) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial++
	template.SerialNumber = big.NewInt(serial)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// pair is a certificate for a host name, in PEM, with its key.
func (a *authority) pair(t *testing.T, host string) (certificate, key []byte) {
	t.Helper()
	private, der := issue(t, a, &x509.Certificate{Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) serverConfig(t *testing.T, host string) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(a.pair(t, host))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// bundle makes a manual certificate bundle, and returns its UUID.
func (b *bench) bundle(t *testing.T, name string, a *authority, host string) string {
	t.Helper()
	certificate, key := a.pair(t, host)
	var made struct{ UUID string }
	b.Do(t, "POST", "/load-balancer/certificate-bundles", fmt.Sprintf(`{"type":"manual","name":%q,"certificate":%q,"private_key":%q}`,
		name, b64(certificate), b64(key)), &made)
	return made.UUID
}

func (b *bench) authorityBundle(t *testing.T, name string, a *authority) string {
	t.Helper()
	var made struct{ UUID string }
	b.Do(t, "POST", "/load-balancer/certificate-bundles", fmt.Sprintf(`{"type":"authority","name":%q,"certificate":%q}`,
		name, b64(a.pem)), &made)
	return made.UUID
}

// authorityOf is one of which the certificate alone is known.
func authorityOf(t *testing.T, text []byte) *authority {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%q is no certificate", text)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate: certificate, pem: text}
}
