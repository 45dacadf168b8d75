package loadbalancer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// managed says that the certificate is got by UpCloud.
func (c Certificate) managed() bool { return c.Bundle == nil && c.Secret == "" }

// own says that it is for the load balancer's own name.
func (c Certificate) own() bool { return c.managed() && len(c.Hostnames) == 0 }

// bundleName is the name of the certificate bundle that is made for the Service; empty for one that the user made. The name
// is unique in the account, as the Service's UID is in it, but for that of a load balancer's own name, which is as UpCloud's own
// CCM has it.
func (c Certificate) bundleName(identity Identity) string {
	switch {
	case c.Bundle != nil:
		return ""
	case c.own():
		return ownBundleName(cmp.Or(identity.Generated, identity.Name))
	case c.Secret != "":
		return namedLike(identity.Name, identity.ServiceUID+"/secret/"+c.Secret)
	}
	return namedLike(identity.Name, identity.ServiceUID+"/managed/"+c.KeyType+"/"+strings.Join(c.Hostnames, ","))
}

// ownBundleName is the name that UpCloud's own CCM gives to the certificate for a load balancer's own name.
func ownBundleName(generatedName string) string {
	return cut(generatedName, maxName-len("-tls")) + "-tls"
}

// namedLike is a name that begins like another and ends in a digest.
func namedLike(name, of string) string {
	return cut(sanitizeName(name), maxName-9) + "-" + shortDigest(of)
}

// config is the TLS configuration of a frontend, without the bundle's ID as long as that is not known. The name of one from a
// Secret has the Secret's fingerprint, so that the load balancer itself tells whether the certificate is the current one.
func (c Certificate) config(identity Identity, fingerprints map[string]string) cloud.TLSConfig {
	switch {
	case c.Bundle != nil:
		return *c.Bundle
	case c.Secret != "":
		return cloud.TLSConfig{Name: cut(sanitizeName(c.Secret), maxName-17) + "-" + fingerprints[c.Secret]}
	}
	return cloud.TLSConfig{Name: c.bundleName(identity)}
}

// secret is a certificate with its key, out of a Secret.
type secret struct {
	certificate, intermediates, key []byte
	fingerprint                     string
}

// errSecret is a mistake in a Secret: what it says is for the Service's user.
type errSecret struct{ text string }

func (e errSecret) Error() string { return e.text }

// readSecrets reads the Secrets that the Service's certificates come from.
func (l *LoadBalancers) readSecrets(ctx context.Context, service *v1.Service, settings *Settings) (map[string]secret, error) {
	l.secretUse.set(service, settings)
	all := map[string]secret{}
	for _, port := range settings.everyPort() {
		for _, certificate := range port.Certificates {
			name := certificate.Secret
			if _, read := all[name]; name == "" || read {
				continue
			}
			if l.client == nil {
				return nil, errors.New("there is no Kubernetes API to read Secrets from")
			}
			found, err := l.client.CoreV1().Secrets(service.Namespace).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil, errSecret{fmt.Sprintf("annotation %s%s: Secret %s/%s does not exist: create it, or name another",
					AnnotationPrefix, tlsSecretName, service.Namespace, name)}
			}
			if err != nil {
				return nil, fmt.Errorf("Secret %s/%s: %w", service.Namespace, name, err)
			}
			if all[name], err = parseSecret(name, found.Data[v1.TLSCertKey], found.Data[v1.TLSPrivateKeyKey]); err != nil {
				return nil, errSecret{fmt.Sprintf("annotation %s%s: Secret %s/%s: %s", AnnotationPrefix, tlsSecretName, service.Namespace, name, err)}
			}
		}
	}
	return all, nil
}

// parseSecret takes the chain apart: the API wants the certificate itself and those of its authorities separately.
func parseSecret(name string, chain, key []byte) (secret, error) {
	if len(chain) == 0 || len(key) == 0 {
		return secret{}, fmt.Errorf("it lacks %s or %s: make it with kubectl create secret tls", v1.TLSCertKey, v1.TLSPrivateKeyKey)
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return secret{}, fmt.Errorf("%s and %s are no pair: %w", v1.TLSCertKey, v1.TLSPrivateKeyKey, err)
	}
	var s secret
	for rest := chain; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type != "CERTIFICATE":
		case s.certificate == nil:
			s.certificate = pem.EncodeToMemory(block)
		default:
			s.intermediates = append(s.intermediates, pem.EncodeToMemory(block)...)
		}
	}
	s.key = bytes.TrimSpace(key)
	s.fingerprint = shortDigest(name+"\n"+string(s.certificate)+string(s.intermediates)) + shortDigest(string(s.key))
	return s, nil
}

func fingerprintsOf(secrets map[string]secret) map[string]string {
	all := map[string]string{}
	for name, one := range secrets {
		all[name] = one.fingerprint
	}
	return all
}

// provideCertificates finds or makes the certificate bundles that the desired frontends need, and fills in their IDs. lb is nil
// while there is no load balancer: a certificate for its own name then has to wait. What a frontend has already costs no call.
func (l *LoadBalancers) provideCertificates(
	ctx context.Context, service *v1.Service, settings *Settings, secrets map[string]secret, desired Desired, lb *cloud.LoadBalancer,
) error {
	have := map[string]string{} // names of TLS configurations to bundles
	if lb != nil {
		for _, frontend := range lb.Frontends {
			for _, config := range frontend.TLSConfigs {
				have[config.Name] = config.BundleID
			}
		}
	}
	p := &provider{balancers: l, service: service, secrets: secrets, desired: desired, lb: lb}
	ids := map[string]string{}
	for _, port := range settings.everyPort() {
		for _, certificate := range port.Certificates {
			config := certificate.config(desired.Identity, fingerprintsOf(secrets))
			if config.BundleID != "" || ids[config.Name] != "" {
				continue
			}
			id := have[config.Name]
			if id == "" && !(certificate.own() && lb == nil) {
				var err error
				if id, err = p.provide(ctx, certificate); err != nil {
					return err
				}
			}
			ids[config.Name] = id
		}
	}
	for i := range desired.Frontends {
		for j := range desired.Frontends[i].TLS {
			config := &desired.Frontends[i].TLS[j]
			if config.BundleID == "" {
				config.BundleID = ids[config.Name]
			}
		}
	}
	return nil
}

// provider makes certificate bundles for one Service, which it lists once at most.
type provider struct {
	balancers *LoadBalancers
	service   *v1.Service
	secrets   map[string]secret
	desired   Desired
	lb        *cloud.LoadBalancer
	bundles   []cloud.CertificateBundle
	listed    bool
}

// provide returns the ID of the bundle of a certificate, after having made it, or brought it up to date.
func (p *provider) provide(ctx context.Context, certificate Certificate) (string, error) {
	api := p.balancers.config.Cloud
	if !p.listed {
		var err error
		if p.bundles, err = serviceBundles(ctx, api, p.desired.Identity.ServiceUID); err != nil {
			return "", err
		}
		p.listed = true
	}
	want := cloud.CertificateBundle{
		Name: certificate.bundleName(p.desired.Identity), Labels: bundleLabels(p.desired.Identity),
	}
	if certificate.Secret != "" {
		from := p.secrets[certificate.Secret]
		want.Type, want.Certificate, want.Intermediates, want.PrivateKey = cloud.BundleManual, from.certificate, from.intermediates, from.key
	} else {
		want.Type, want.KeyType, want.Hostnames = cloud.BundleDynamic, certificate.KeyType, certificate.Hostnames
		if certificate.own() {
			want.Hostnames = []string{dnsName(p.lb)}
		}
	}
	for _, have := range p.bundles {
		if have.Name == want.Name {
			return have.ID, p.bringUpToDate(ctx, have, want)
		}
	}
	logger := klog.FromContext(ctx)
	made, err := api.CreateCertificateBundle(ctx, want)
	if errors.Is(err, cloud.ErrAlreadyExists) && certificate.own() {
		return p.adoptOwn(ctx, want)
	}
	if err != nil {
		return "", fmt.Errorf("certificate for Service %s/%s: %w", p.service.Namespace, p.service.Name, err)
	}
	logger.Info("Made a certificate bundle", "service", klog.KObj(p.service), "bundle", made.ID, "name", made.Name)
	p.tellNames(ctx, certificate)
	p.bundles = append(p.bundles, *made)
	return made.ID, nil
}

// bringUpToDate gives an uploaded bundle the Secret's certificate. UpCloud keeps the others up to date.
func (p *provider) bringUpToDate(ctx context.Context, have, want cloud.CertificateBundle) error {
	if want.Type != cloud.BundleManual {
		return nil
	}
	klog.FromContext(ctx).Info("Uploading a certificate", "service", klog.KObj(p.service), "bundle", have.ID, "name", have.Name)
	return p.balancers.config.Cloud.ModifyCertificateBundle(ctx, have.ID, cloud.CertificateBundlePatch{
		Certificate: want.Certificate, Intermediates: &want.Intermediates, PrivateKey: want.PrivateKey,
	})
}

// adoptOwn finds the bundle that UpCloud's own CCM made for the load balancer's own name.
func (p *provider) adoptOwn(ctx context.Context, want cloud.CertificateBundle) (string, error) {
	all, err := p.balancers.config.Cloud.CertificateBundles(ctx, nil)
	if err != nil {
		return "", err
	}
	for _, have := range all {
		if have.Name == want.Name && have.Type == cloud.BundleDynamic && slices.Equal(have.Hostnames, want.Hostnames) {
			return have.ID, nil
		}
	}
	return "", fmt.Errorf("a certificate bundle called %s exists, and is not for the host name %s of the load balancer: delete or rename it",
		want.Name, strings.Join(want.Hostnames, ", "))
}

// tellNames says once what the DNS must have, so that UpCloud gets the certificate.
func (p *provider) tellNames(ctx context.Context, certificate Certificate) {
	if !certificate.managed() || certificate.own() {
		return
	}
	target := "the load balancer's name, which the Service's status will have"
	if p.lb != nil && dnsName(p.lb) != "" {
		target = dnsName(p.lb)
	}
	text := fmt.Sprintf("UpCloud gets a certificate for %s once these names lead to the load balancer: make them CNAMEs of %s",
		strings.Join(certificate.Hostnames, ", "), target)
	if slices.ContainsFunc(certificate.Hostnames, func(name string) bool { return strings.HasPrefix(name, "*.") }) {
		domain, err := p.balancers.config.Cloud.CertificateChallengeDomain(ctx)
		if err == nil {
			text += "; for a wildcard *.NAME make _acme-challenge.NAME a CNAME of " + domain
		}
	}
	p.balancers.tell(p.service, "CertificateRequested", "%s", text)
}

// dnsName is the load balancer's own name: the public one, if there is.
func dnsName(lb *cloud.LoadBalancer) string {
	network, _ := publishedNetwork(lb)
	if network.DNSName != "" {
		return network.DNSName
	}
	return lb.DNSName
}

func bundleLabels(identity Identity) cloud.Labels {
	labels := cloud.Labels{LabelServiceUID: identity.ServiceUID, LabelClusterName: identity.ClusterName}
	if identity.ClusterID != "" {
		labels[LabelClusterID] = identity.ClusterID
	}
	return labels
}

// serviceBundles lists the bundles that were made for a Service.
func serviceBundles(ctx context.Context, api *cloud.Cloud, serviceUID string) ([]cloud.CertificateBundle, error) {
	found, err := api.CertificateBundles(ctx, cloud.Labels{LabelServiceUID: serviceUID})
	return slices.DeleteFunc(found, func(b cloud.CertificateBundle) bool { return b.Labels[LabelServiceUID] != serviceUID }), err
}

// deleteBundles deletes those of a Service's bundles that are not to be kept and that nothing uses.
func deleteBundles(ctx context.Context, api *cloud.Cloud, cleanup bundleCleanup) error {
	all, err := serviceBundles(ctx, api, cleanup.serviceUID)
	if err != nil {
		return err
	}
	for _, bundle := range all {
		if slices.Contains(cleanup.keep, bundle.Name) {
			continue
		}
		if err := api.DeleteCertificateBundle(ctx, bundle.ID); err != nil && !errors.Is(err, cloud.ErrInUse) {
			return err
		}
	}
	return nil
}
