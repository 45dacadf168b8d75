package cloud

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Kinds of certificate bundle.
const (
	BundleManual  = "manual"  // a certificate and its key, brought by the user
	BundleDynamic = "dynamic" // a certificate that UpCloud gets and renews for host names
)

// CertificateBundle is a certificate that load balancers of the account may use. The private key is only ever written.
type CertificateBundle struct {
	ID            string    `json:"uuid,omitempty"`
	Name          string    `json:"name"` // unique in the account
	Type          string    `json:"type,omitempty"`
	Labels        Labels    `json:"labels"`
	Hostnames     []string  `json:"hostnames,omitempty"`
	KeyType       string    `json:"key_type,omitempty"`    // rsa or ecdsa
	Certificate   []byte    `json:"certificate,omitempty"` // PEM, like the next two
	Intermediates []byte    `json:"intermediates,omitempty"`
	PrivateKey    []byte    `json:"private_key,omitempty"`
	State         string    `json:"operational_state,omitempty"`
	NotAfter      time.Time `json:"not_after,omitzero"`
	Created       time.Time `json:"created_at,omitzero"`
}

// CertificateBundlePatch holds what shall change of a bundle; what is nil stays as it is.
type CertificateBundlePatch struct {
	Labels        Labels   `json:"labels,omitzero"` // all of them
	Hostnames     []string `json:"hostnames,omitempty"`
	Certificate   []byte   `json:"certificate,omitempty"`
	Intermediates *[]byte  `json:"intermediates,omitempty"` // of an empty one: none
	PrivateKey    []byte   `json:"private_key,omitempty"`
}

const bundlesPath = "/load-balancer/certificate-bundles"

func bundlePath(id string) string { return bundlesPath + "/" + url.PathEscape(id) }

// CertificateBundles lists the bundles that carry all the given labels.
func (c *Cloud) CertificateBundles(ctx context.Context, labels Labels) ([]CertificateBundle, error) {
	query := url.Values{}
	for key, value := range labels {
		query.Add("label", key+"="+value)
	}
	return pages(ctx, c, bundlesPath, query, func(b CertificateBundle) string { return b.ID })
}

// CertificateBundle reads one bundle. Errors: ErrNotFound.
func (c *Cloud) CertificateBundle(ctx context.Context, id string) (*CertificateBundle, error) {
	bundle := &CertificateBundle{}
	if err := c.call(ctx, http.MethodGet, bundlePath(id), nil, bundle); err != nil {
		return nil, err
	}
	if !strings.EqualFold(bundle.ID, id) {
		return nil, notAbout("certificate bundle " + id)
	}
	return bundle, nil
}

// CreateCertificateBundle makes a bundle. Errors: ErrAlreadyExists when the name is taken, ErrInvalid when certificate and
// key are no pair.
func (c *Cloud) CreateCertificateBundle(ctx context.Context, spec CertificateBundle) (*CertificateBundle, error) {
	bundle := &CertificateBundle{}
	if err := c.call(ctx, http.MethodPost, bundlesPath, spec, bundle); err != nil {
		return nil, err
	}
	if bundle.ID == "" {
		return nil, notAbout("the certificate bundle " + spec.Name)
	}
	return bundle, nil
}

// ModifyCertificateBundle changes what the patch holds. Load balancers that use the bundle take it over by themselves.
func (c *Cloud) ModifyCertificateBundle(ctx context.Context, id string, patch CertificateBundlePatch) error {
	return c.call(ctx, http.MethodPatch, bundlePath(id), patch, nil)
}

// DeleteCertificateBundle deletes a bundle. Already gone: nil. Errors: ErrInUse while a load balancer uses it.
func (c *Cloud) DeleteCertificateBundle(ctx context.Context, id string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, bundlePath(id), nil, nil))
}

// CertificateChallengeDomain is where the _acme-challenge names of wildcard certificates must lead.
func (c *Cloud) CertificateChallengeDomain(ctx context.Context) (string, error) {
	var answer struct {
		Domain string `json:"domain"`
	}
	err := c.call(ctx, http.MethodGet, bundlesPath+"/dns-challenge-domain", nil, &answer)
	return answer.Domain, err
}
