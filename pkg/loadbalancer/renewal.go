package loadbalancer

import (
	"context"
	"errors"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// renewCertificates uploads what has changed in the Secrets of a Service that has to wait for something else to be corrected: an annotation,
// or another Secret. It changes the content of certificate bundles that there are, and nothing on the load balancer. It makes no
// call while all are current.
func (l *LoadBalancers) renewCertificates(ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings) error {
	r := &renewal{LoadBalancers: l, identity: identity, service: service, sharing: asked.Shared != nil || l.config.Tenants != nil,
		uploaded: maps.Clone(l.records.get(service.UID).uploaded)}
	if r.uploaded == nil {
		r.uploaded = map[string]string{}
	}
	var failed []error
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			if certificate.Secret != "" {
				failed = append(failed, r.renew(ctx, certificate))
			}
		}
	}
	l.records.change(service.UID, func(record *serviceRecord) { record.uploaded = r.uploaded })
	return errors.Join(failed...)
}

// noteUploaded remembers that the certificates of these Secrets are those that the Service's bundles have.
func (l *LoadBalancers) noteUploaded(service *v1.Service, secrets map[string]secret) {
	l.records.change(service.UID, func(record *serviceRecord) { record.uploaded = fingerprintsOf(secrets) })
}

// renewal is the renewal of a Service's certificates, whose bundles it lists once at most.
type renewal struct {
	*LoadBalancers
	identity plan.Identity
	service  *v1.Service
	sharing  bool
	uploaded map[string]string // fingerprints by the names of Secrets
	bundles  []cloud.CertificateBundle
	listed   bool
}

func (r *renewal) renew(ctx context.Context, certificate settings.Certificate) error {
	one, err := r.readSecret(ctx, r.service, certificate.Secret)
	var mistake errSecret
	if errors.As(err, &mistake) || err == nil && r.uploaded[certificate.Secret] == one.fingerprint {
		return nil
	}
	if err != nil {
		return err
	}
	if !r.listed {
		if r.bundles, err = serviceBundles(ctx, r.config.Cloud, r.identity); err != nil {
			return err
		}
		r.listed = true
	}
	name := plan.BundleName(certificate, r.identity)
	for _, have := range r.bundles {
		if have.Name != name || r.sharing && !isRenewalOf(one, have) {
			continue
		}
		klog.FromContext(ctx).Info("Uploading a certificate", "service", klog.KObj(r.service), "bundle", have.ID, "name", have.Name)
		err := r.config.Cloud.ModifyCertificateBundle(ctx, have.ID, cloud.CertificateBundlePatch{
			Certificate: one.certificate, Intermediates: &one.intermediates, PrivateKey: one.key,
		})
		if err != nil {
			return err
		}
		r.uploaded[certificate.Secret] = one.fingerprint
	}
	return nil
}

// isRenewalOf says whether a certificate is for no other hosts than the one that a bundle has. Which hosts a Service may present on a load
// balancer that it shares is checked elsewhere, when nothing else is wrong.
func isRenewalOf(one secret, have cloud.CertificateBundle) bool {
	known := normalHosts(have.Hostnames)
	return len(one.hosts) > 0 && !slices.ContainsFunc(normalHosts(one.hosts), func(host string) bool { return !slices.Contains(known, host) })
}
