package settings

import (
	"fmt"
	"slices"
)

// Managed says that the certificate is got by UpCloud.
func (c Certificate) Managed() bool { return c.Bundle == nil && c.Secret == "" }

// Own says that it is for the load balancer's own name.
func (c Certificate) Own() bool { return c.Managed() && len(c.Hostnames) == 0 }

// Bundles are the IDs of the user's own certificate bundles that a port has.
func (p *PortSettings) Bundles() []string {
	var all []string
	for _, certificate := range p.Certificates {
		if certificate.Bundle != nil {
			all = append(all, certificate.Bundle.BundleID)
		}
	}
	for _, config := range p.BackendTLS {
		all = append(all, config.BundleID)
	}
	return all
}

// NoSuchBundle is the problem of a port that names a certificate bundle that the account does not have. It names the annotation.
func (p *PortSettings) NoSuchBundle(id string) Problem {
	const why = "the account has no such certificate bundle: name one that it has"
	switch {
	case slices.Contains(p.tls.bundles, id):
		return InvalidAnnotation("tls-bundle", id, why)
	case slices.Contains(p.tls.backend, id):
		return InvalidAnnotation("backend-tls-bundle", id, why)
	}
	return Problem{"InvalidAnnotation", fmt.Sprintf("annotation %s: port %s has certificate bundle %s: %s", AnnotationConfig, p.FrontendName, id, why)}
}
