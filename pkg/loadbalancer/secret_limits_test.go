package loadbalancer

import (
	"bytes"
	"encoding/pem"
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
