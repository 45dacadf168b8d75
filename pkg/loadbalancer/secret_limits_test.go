package loadbalancer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
)

var costOfSecret = boundedtest.Cost{Bytes: 4 << 20, BytesPerByte: 500, CPU: 5 * time.Second, CPUPerByte: 100 * time.Microsecond}

// A Secret just beyond a limit is refused before its key is checked, the time for which grows faster than its size.
func TestSecretBeyondALimitIsRefused(t *testing.T) {
	certificate, key := newCertificate(t, "www.example.com")
	padded := func(text []byte, size int) []byte {
		return append(bytes.Clone(text), bytes.Repeat([]byte("\n"), size-len(text))...)
	}
	for _, test := range []struct {
		name, want string
		chain, key []byte
	}{
		{"as large as allowed", "", padded(certificate, maxChain), padded(key, maxKey)},
		{"chain", "tls.crt is too large: 65537 bytes, at most 65536", padded(certificate, maxChain+1), key},
		{"key", "tls.key is too large: 16385 bytes, at most 16384", certificate, padded(key, maxKey+1)},
		{"as many certificates as allowed", "", bytes.Repeat(certificate, maxChainCertificates), key},
		{"certificates", "tls.crt has 21 certificates, at most 20", bytes.Repeat(certificate, maxChainCertificates+1), key},
	} {
		_, err := parseSecret("www", test.chain, test.key)
		if (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// pairOf is a certificate with a subject and host names, and its key, in PEM.
func pairOf(t *testing.T, commonNames []string, hosts ...string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var subject pkix.Name
	for _, name := range commonNames {
		subject.ExtraNames = append(subject.ExtraNames, pkix.AttributeTypeAndValue{Type: commonName, Value: name})
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, DNSNames: hosts, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// A load balancer shows a certificate for each common name of its subject, and what is bounded by hosts is bounded by all of them.
func TestHostsOfACertificateAreAllThatLoadBalancersHeed(t *testing.T) {
	for _, test := range []struct {
		common []string
		hosts  []string
		want   string // or an error
	}{
		{[]string{"victim.example", "team.example"}, []string{"www.team.example"}, "www.team.example,victim.example,team.example"},
		{[]string{"Team Example", "Victim.Example."}, nil, "victim.example"},
		{[]string{"victim.example\x00 x"}, []string{"team.example"}, "control character"},
		{nil, []string{"victim.example\x00.team.example"}, "control character"},
		{nil, []string{"*.team.example"}, "*.team.example"},
	} {
		chain, key := pairOf(t, test.common, test.hosts...)
		one, err := parseSecret("www", chain, key)
		if got := strings.Join(one.hosts, ","); err == nil && got != test.want || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q, %q: hosts %q, error %v, want %q", test.common, test.hosts, got, err, test.want)
		}
	}
}

// What stands beside the key and the certificates in a Secret does not come to the load balancer, which several tenants may have.
func TestNothingButKeyAndCertificatesIsUploaded(t *testing.T) {
	chain, key := pairOf(t, nil, "team.example")
	foreign, foreignKey := pairOf(t, nil, "victim.example")
	plain, err := parseSecret("www", chain, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"a certificate before the key": slices.Concat(foreign, key),
		"another key after it":         slices.Concat(key, foreignKey, foreign),
		"text and headers":             slices.Concat([]byte("crt-list\n"), bytes.Replace(key, []byte("KEY-----\n"), []byte("KEY-----\na: b\n\n"), 1)),
		"parameters":                   slices.Concat([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), key),
	} {
		one, err := parseSecret("www", chain, text)
		if err != nil || string(one.key) != string(plain.key) {
			t.Errorf("%s: %v, uploaded %s", name, err, one.key)
		}
	}
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")})
	if _, err := parseSecret("www", slices.Concat(chain, broken), key); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("an intermediate certificate that is none: %v", err)
	}
	if one, err := parseSecret("www", slices.Concat(chain, []byte("text\n"), foreign), key); err != nil || string(one.intermediates) != string(foreign) {
		t.Errorf("intermediates: %v %s", err, one.intermediates)
	}
}

// FuzzSecret reads a certificate chain and a key, of which parts are repeated: each is a pair or refused, at a cost in proportion
// to its size, and no error repeats the key.
func FuzzSecret(f *testing.F) {
	certificate, key := newCertificate(f, "www.example.com")
	f.Add(certificate, key, uint16(1))
	f.Add(certificate, key, uint16(20))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), key, uint16(1000))
	f.Add([]byte("-----BEGIN "), []byte("-----BEGIN EC PRIVATE KEY-----\na: b\n\n"), uint16(3000))
	large := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: make([]byte, 7000)})
	f.Add(append(bytes.Clone(large), certificate...), append(bytes.Clone(large), key...), uint16(1))
	f.Fuzz(func(t *testing.T, chain, key []byte, times uint16) {
		if (len(chain)+len(key))*int(times) > 1<<20 {
			return
		}
		chain = bytes.Repeat(chain, int(times))
		costOfSecret.Within(t, len(chain)+len(key), func() {
			if _, err := parseSecret("www", chain, key); err != nil && len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	})
}
