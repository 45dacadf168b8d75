package simulator

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"time"
)

// Dynamic certificate bundles get a certificate once each of their host names leads to a load balancer that uses the
// bundle, or its _acme-challenge name to the challenge domain: as with the real authority, which looks the names up in the
// DNS. Here the names are those that SetDNS was told, and the authority is the simulator's own.

// States of a certificate bundle.
const (
	bundleIdle              = "idle"
	bundlePending           = "pending"
	bundleSetupChallenge    = "setup-challenge"
	bundleCompleteChallenge = "complete-challenge"
)

const (
	// of the form recorded: one for the account
	challengeDomainName = "_acme-challenge.5a9c3f0d71b24e86a1d0c7e2f4b6983d5e017ac2946f8b30.upcloudlb.com"
	certificateLife     = 90 * 24 * time.Hour
	renewBefore         = 30 * 24 * time.Hour
	maxAliases          = 8
)

// SetDNS tells the simulated cloud where a name leads: to another name, as a CNAME, or to an IP address. An empty target
// takes the name back.
func (s *Simulator) SetDNS(name, target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runDue()
	s.changing()
	s.setDNS(name, target)
	s.runDue()
}

func (s *Simulator) setDNS(name, target string) {
	if s.dns == nil {
		s.dns = map[string]string{}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if target == "" {
		delete(s.dns, name)
		return
	}
	s.dns[name] = strings.ToLower(strings.TrimSuffix(target, "."))
	s.issueCertificates()
}

// leadsTo follows a name to where it leads, by way of every alias between.
func (s *Simulator) leadsTo(name string, reached func(string) bool) bool {
	name = strings.ToLower(name)
	for range maxAliases {
		target, known := s.dns[name]
		if !known {
			return false
		}
		if reached(target) {
			return true
		}
		name = target
	}
	return false
}

// isProven says whether the authority would believe that the bundle's host names are the account's.
func (s *Simulator) isProven(b *certificateBundle) bool {
	targets := map[string]bool{}
	for _, uuid := range s.servicesWithBundle(b.UUID) {
		if lb, ok := s.loadBalancers.get(uuid); ok && lb.ready && !lb.deleting {
			lb.addNames(targets)
		}
	}
	for _, host := range b.Hostnames {
		bare, wildcard := strings.CutPrefix(host, "*.")
		byName := !wildcard && s.leadsTo(host, func(t string) bool { return targets[t] })
		byChallenge := s.leadsTo("_acme-challenge."+bare, func(t string) bool { return t == challengeDomainName })
		if !byName && !byChallenge {
			return false
		}
	}
	return len(b.Hostnames) > 0
}

// addNames adds the names and addresses that lead to the load balancer.
func (lb *loadBalancer) addNames(to map[string]bool) {
	for _, n := range lb.Networks {
		to[n.DNSName] = true
	}
	for _, node := range lb.Nodes {
		for _, n := range node.Networks {
			for _, a := range n.IPAddresses {
				to[a.Address] = a.Listen || to[a.Address]
			}
		}
	}
	for _, f := range lb.IPAddresses {
		to[f.Address] = true
	}
}

// issueCertificates starts the challenge of each dynamic bundle that lacks a certificate and would pass. The lock is held.
func (s *Simulator) issueCertificates() {
	for b := range s.bundles.all() {
		if b.Type == bundleDynamic && b.Certificate == "" && b.OperationalState == bundleIdle && s.isProven(b) {
			s.challenge(b, bundlePending, bundleSetupChallenge, bundleCompleteChallenge)
		}
	}
}

// challenge takes the bundle through the states, then gives it a certificate.
func (s *Simulator) challenge(b *certificateBundle, states ...string) {
	b.OperationalState, b.UpdatedAt = states[0], stamp(s.now())
	if len(states) > 1 {
		s.after(s.durationOf(certificateStep), func() { s.challenge(b, states[1:]...) })
		return
	}
	hosts, kind, now := b.Hostnames, b.KeyType, s.now()
	authority := s.authority
	var issued keyPair
	s.operate(s.durationOf(certificateStep), func(context.Context) (err error) {
		if authority == nil {
			if authority, err = newAuthority(now); err != nil {
				return err
			}
		}
		issued, err = authority.issue(hosts, kind, now)
		return err
	}, func(err error) {
		b.OperationalState = bundleIdle
		if err != nil {
			s.reportPlane("issue certificate", b.UUID, err)
			return
		}
		if s.authority == nil {
			s.authority = authority
		}
		if authority != s.authority {
			s.challenge(b, bundleCompleteChallenge) // two at once made an authority each: the first one stays
			return
		}
		s.certificateIssued(b, issued, now)
	})
}

// certificateStep is how long each step of a challenge takes.
const certificateStep = 10 * time.Second

func (s *Simulator) certificateIssued(b *certificateBundle, issued keyPair, now time.Time) {
	b.Certificate = base64.StdEncoding.EncodeToString([]byte(issued.Certificate))
	b.privateKey = base64.StdEncoding.EncodeToString([]byte(issued.Key))
	b.NotBefore, b.NotAfter = stamp(now), stamp(now.Add(certificateLife))
	b.UpdatedAt = stamp(s.now())
	for _, uuid := range s.servicesWithBundle(b.UUID) {
		if lb, ok := s.loadBalancers.get(uuid); ok {
			s.loadBalancerChanged(lb)
		}
	}
	s.renewLater(b)
}

// renewLater starts another challenge when the certificate's time is nearly over.
func (s *Simulator) renewLater(b *certificateBundle) {
	expires := b.NotAfter
	s.after(max(0, time.Time(expires).Add(-renewBefore).Sub(s.now())), func() {
		now, there := s.bundles.get(b.UUID)
		if there && now == b && b.NotAfter == expires && b.OperationalState == bundleIdle && s.isProven(b) {
			s.challenge(b, bundlePending, bundleSetupChallenge, bundleCompleteChallenge)
		}
	})
}

// keyPair is a certificate and its key, in PEM.
type keyPair struct{ Certificate, Key string }

// CertificateAuthority returns the certificate, in PEM, of the authority that issues the certificates of dynamic bundles;
// nil before the first.
func (s *Simulator) CertificateAuthority() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.authority == nil {
		return nil
	}
	return []byte(s.authority.Certificate)
}

func newAuthority(now time.Time) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upcloud-sim certificate authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	pair, err := signed(template, template, key, key)
	return &pair, err
}

// issue makes a certificate for the host names, with a key of that type: rsa or ecdsa.
func (a *keyPair) issue(hosts []string, kind string, now time.Time) (keyPair, error) {
	var key crypto.Signer
	var err error
	if kind == "rsa" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return keyPair{}, err
	}
	block, _ := pem.Decode([]byte(a.Certificate))
	keyBlock, _ := pem.Decode([]byte(a.Key))
	if block == nil || keyBlock == nil {
		return keyPair{}, errors.New("the authority's certificate cannot be read")
	}
	parent, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return keyPair{}, err
	}
	signer, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return keyPair{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return signed(template, parent, key, signer)
}

func signed(template, parent *x509.Certificate, key crypto.Signer, by any) (keyPair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return keyPair{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	}, nil
}
