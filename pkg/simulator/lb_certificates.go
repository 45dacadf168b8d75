package simulator

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Types of certificate bundle: brought by the user, made for host names, and authorities that backends are checked with.
const (
	bundleManual    = "manual"
	bundleDynamic   = "dynamic"
	bundleAuthority = "authority"
)

// certificateBundle is a certificate bundle as the API shows it. The private key is never shown.
type certificateBundle struct {
	Certificate      string   `json:"certificate,omitempty"` // base64 of PEM, like all three
	CreatedAt        stamp    `json:"created_at"`
	Hostnames        []string `json:"hostnames"`
	Intermediates    string   `json:"intermediates,omitempty"`
	KeyType          string   `json:"key_type"`
	Labels           []Label  `json:"labels"`
	Name             string   `json:"name"`
	NotAfter         stamp    `json:"not_after"`
	NotBefore        stamp    `json:"not_before"`
	OperationalState string   `json:"operational_state"`
	Services         []string `json:"services"`
	Type             string   `json:"type"`
	UpdatedAt        stamp    `json:"updated_at"`
	UUID             string   `json:"uuid"`

	privateKey string
}

type bundleRequest struct {
	Type          string    `json:"type"`
	Name          *string   `json:"name"`
	Certificate   *string   `json:"certificate"`
	Intermediates nullable  `json:"intermediates"`
	PrivateKey    *string   `json:"private_key"`
	KeyType       *string   `json:"key_type"`
	Hostnames     *[]string `json:"hostnames"`
	Labels        *[]Label  `json:"labels"`
}

func (r *bundleRequest) applyTo(b *certificateBundle) {
	assign(&b.Name, r.Name)
	assign(&b.Certificate, r.Certificate)
	assign(&b.privateKey, r.PrivateKey)
	assign(&b.KeyType, r.KeyType)
	assign(&b.Hostnames, r.Hostnames)
	assign(&b.Labels, r.Labels)
	if r.Intermediates.given {
		b.Intermediates = r.Intermediates.value
	}
}

func (s *Simulator) bundle(c *call) (*certificateBundle, error) {
	b, ok := s.bundles.get(c.path("bundle"))
	if !ok {
		return nil, problemNotFound("Certificate bundle")
	}
	return b, nil
}

// shownBundle is the bundle with the load balancers that use it.
func (s *Simulator) shownBundle(b *certificateBundle) certificateBundle {
	out := *b
	out.Services = s.servicesWithBundle(b.UUID)
	return out
}

func (s *Simulator) servicesWithBundle(uuid string) []string {
	users := []string{}
	uses := func(list []TLSConfig) bool {
		return slices.ContainsFunc(list, func(t TLSConfig) bool { return t.CertificateBundleUUID == uuid })
	}
	for lb := range s.loadBalancers.all() {
		if slices.ContainsFunc(lb.Frontends, func(f Frontend) bool { return uses(f.TLSConfigs) }) ||
			slices.ContainsFunc(lb.Backends, func(k Backend) bool { return uses(k.TLSConfigs) }) {
			users = append(users, lb.UUID)
		}
	}
	return users
}

func (s *Simulator) listBundles(c *call) (any, error) {
	filters := labelFilters(c.request.URL.Query())
	all := []certificateBundle{}
	for b := range s.bundles.all() {
		if matchLabels(b.Labels, filters) {
			all = append(all, s.shownBundle(b))
		}
	}
	slices.SortStableFunc(all, func(a, b certificateBundle) int { return time.Time(a.CreatedAt).Compare(time.Time(b.CreatedAt)) })
	return page(c, all)
}

func (s *Simulator) getBundle(c *call) (any, error) {
	b, err := s.bundle(c)
	if err != nil {
		return nil, err
	}
	return s.shownBundle(b), nil
}

func (s *Simulator) createBundle(c *call) (any, error) {
	var req bundleRequest
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	now := s.creation()
	b := &certificateBundle{Type: req.Type, UUID: s.newUUID(loadBalancerKind), Labels: []Label{}, OperationalState: "idle",
		CreatedAt: now, UpdatedAt: now}
	req.applyTo(b)
	if err := s.checkBundle(b); err != nil {
		return nil, err
	}
	s.bundles.put(b.UUID, b)
	s.issueCertificates()
	return s.shownBundle(b), nil
}

func (s *Simulator) modifyBundle(c *call) (any, error) {
	b, err := s.bundle(c)
	if err != nil {
		return nil, err
	}
	var req bundleRequest
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	next := *b
	req.applyTo(&next)
	next.UpdatedAt = stamp(s.now())
	if err := s.checkBundle(&next); err != nil {
		return nil, err
	}
	if b.Type == bundleDynamic && !slices.Equal(b.Hostnames, next.Hostnames) {
		next.Certificate, next.privateKey = "", "" // of other host names
		next.NotBefore, next.NotAfter = stamp{}, stamp{}
	}
	*b = next
	s.issueCertificates()
	for _, uuid := range s.servicesWithBundle(b.UUID) {
		if lb, ok := s.loadBalancers.get(uuid); ok {
			s.loadBalancerChanged(lb)
		}
	}
	return s.shownBundle(b), nil
}

func (s *Simulator) deleteBundle(c *call) (any, error) {
	b, err := s.bundle(c)
	if err != nil {
		return nil, err
	}
	if users := s.servicesWithBundle(b.UUID); len(users) > 0 {
		return nil, &problem{status: http.StatusConflict, code: "RESOURCE_IN_USE",
			title: "Certificate bundle is used by the service " + users[0] + "."}
	}
	s.bundles.remove(b.UUID)
	return nil, nil
}

type challengeDomain struct {
	Domain string `json:"domain"`
}

func (s *Simulator) challengeDomain(*call) (any, error) {
	return challengeDomain{challengeDomainName}, nil
}

// checkBundle also fills in what a certificate says of itself.
func (s *Simulator) checkBundle(b *certificateBundle) error {
	var v validator
	v.add(componentName.MatchString(b.Name), "name", nameReason)
	v.oneOf(b.Type, "type", bundleManual, bundleDynamic, bundleAuthority)
	for other := range s.bundles.all() {
		if other.Name == b.Name && other.UUID != b.UUID {
			return problemConflict("Certificate bundle with the name '" + b.Name + "' already exists.")
		}
	}
	switch b.Type {
	case bundleDynamic:
		v.within(len(b.Hostnames), 1, 100, "hostnames")
		v.oneOf(b.KeyType, "key_type", "rsa", "ecdsa")
	case bundleManual:
		_, err := tls.X509KeyPair(decodePEM(b.Certificate), decodePEM(b.privateKey))
		v.add(err == nil, "certificate", "The certificate and the private key are not valid, or not a pair.")
		b.readCertificate()
	case bundleAuthority:
		v.add(x509.NewCertPool().AppendCertsFromPEM(decodePEM(b.Certificate)), "certificate", "The certificate is not valid.")
		b.readCertificate()
	}
	if len(v.invalid) > 0 {
		return invalid(v.invalid...)
	}
	return nil
}

func decodePEM(text string) []byte {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return b
}

// readCertificate fills in what the certificate itself says.
func (b *certificateBundle) readCertificate() {
	block, _ := pem.Decode(decodePEM(b.Certificate))
	if block == nil {
		return
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return
	}
	b.NotBefore, b.NotAfter = stamp(c.NotBefore), stamp(c.NotAfter)
	b.Hostnames = c.DNSNames
	if len(b.Hostnames) == 0 {
		b.Hostnames = []string{c.Subject.CommonName} // [""] when there is none, as recorded
	}
	if b.Type == bundleManual {
		b.KeyType = strings.ToLower(c.PublicKeyAlgorithm.String())
	}
}

// addCertificates gives the data plane the bundles that the load balancer uses: certificate, chain, key.
func (s *Simulator) addCertificates(spec *LoadBalancerSpec) {
	add := func(list []TLSConfig) {
		for _, t := range list {
			b, ok := s.bundles.get(t.CertificateBundleUUID)
			if !ok {
				continue
			}
			text := append([]byte{}, decodePEM(b.Certificate)...)
			text = append(append(text, '\n'), decodePEM(b.Intermediates)...)
			spec.Certificates[b.UUID] = append(append(text, '\n'), decodePEM(b.privateKey)...)
		}
	}
	for _, f := range spec.LoadBalancer.Frontends {
		add(f.TLSConfigs)
	}
	for _, k := range spec.LoadBalancer.Backends {
		add(k.TLSConfigs)
	}
}
