package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// tlsConfig returns what the API's listeners need for HTTPS; nil: they speak HTTP.
func (o *options) tlsConfig() (*tls.Config, error) {
	if !o.tls && o.tlsCert == "" {
		return nil, nil
	}
	var certificate tls.Certificate
	var err error
	if o.tlsCert != "" {
		if certificate, err = tls.LoadX509KeyPair(o.tlsCert, o.tlsKey); err != nil {
			return nil, fmt.Errorf("--tls-cert, --tls-key: %w: give a PEM certificate and its key", err)
		}
	} else if certificate, err = selfSigned(); err != nil {
		return nil, fmt.Errorf("--tls: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, nil
}

// selfSigned makes a certificate for this machine's loopback names, for clients that are told not to verify it.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "upcloud-sim"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		DNSNames:     []string{"localhost", "api.upcloud.com"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func overTLS(listeners []net.Listener, config *tls.Config) []net.Listener {
	if config == nil {
		return listeners
	}
	out := make([]net.Listener, len(listeners))
	for i, l := range listeners {
		out[i] = tls.NewListener(l, config)
	}
	return out
}
