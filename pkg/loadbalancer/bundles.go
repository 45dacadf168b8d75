package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// provideCertificates finds or makes the certificate bundles that the desired frontends need, and fills in their IDs. lb is nil
// while there is no load balancer: a certificate for its own name then has to wait. What a frontend has already costs no call, unless afresh says
// that it may be of the Service's that had the load balancer before.
func (l *LoadBalancers) provideCertificates(
	ctx context.Context, service *v1.Service, asked *settings.Settings, secrets map[string]secret, desired plan.Desired, lb *cloud.LoadBalancer, afresh bool,
) error {
	if err := l.checkBundles(ctx, service, asked, lb); err != nil {
		return err
	}
	have := map[string]string{} // names of TLS configurations to bundles
	if lb != nil && !afresh {
		for _, frontend := range lb.Frontends {
			for _, config := range frontend.TLSConfigs {
				have[config.Name] = config.BundleID
			}
		}
	}
	p := &provider{balancers: l, service: service, secrets: secrets, desired: desired, lb: lb}
	ids := map[string]string{}
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			config := plan.TLSConfig(certificate, desired.Identity, fingerprintsOf(secrets))
			if config.BundleID != "" || ids[config.Name] != "" || isAwaited(certificate, secrets) {
				continue
			}
			id := have[config.Name]
			if id == "" && !(certificate.Own() && lb == nil) {
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
	if lb == nil {
		return nil
	}
	return p.await(ctx)
}

// await finds the frontends that lose a certificate to one that UpCloud has not issued yet. It costs calls only while a frontend
// changes certificates.
func (p *provider) await(ctx context.Context) error {
	ours := plan.NotesOf(p.lb.Labels, settings.LabelComponents)
	for _, want := range p.desired.Frontends {
		there := slices.IndexFunc(p.lb.Frontends, func(f cloud.Frontend) bool { return f.Name == want.Name })
		if there < 0 {
			continue
		}
		stale := slices.DeleteFunc(slices.Clone(p.lb.Frontends[there].TLSConfigs), func(t cloud.TLSConfig) bool {
			wanted := slices.ContainsFunc(want.TLS, func(w cloud.TLSConfig) bool { return w.Name == t.Name || w.BundleID == t.BundleID })
			return wanted || !ours.Has(plan.NoteTLS(cloud.TLSOwner{Frontend: want.Name}, t.Name))
		})
		if len(stale) == 0 {
			continue
		}
		next, err := p.issued(ctx, want.TLS, true)
		if err != nil {
			return err
		}
		last, err := p.issued(ctx, stale, false)
		if err != nil {
			return err
		}
		if !next && last {
			p.desired.Awaited[want.Name] = true
		}
	}
	return nil
}

// issued says whether all of the configurations, or any, have a certificate.
func (p *provider) issued(ctx context.Context, configs []cloud.TLSConfig, all bool) (bool, error) {
	for _, config := range configs {
		if config.BundleID == "" {
			continue
		}
		bundle, err := p.balancers.config.Cloud.CertificateBundle(ctx, config.BundleID)
		if err != nil && !errors.Is(err, cloud.ErrNotFound) {
			return false, err
		}
		if there := err == nil && !bundle.NotAfter.IsZero(); there != all {
			return !all, nil
		}
	}
	return all, nil
}

// provider makes certificate bundles for one Service, which it lists once at most.
type provider struct {
	balancers *LoadBalancers
	service   *v1.Service
	secrets   map[string]secret
	desired   plan.Desired
	lb        *cloud.LoadBalancer
	bundles   []cloud.CertificateBundle
	listed    bool
}

// provide returns the ID of the bundle of a certificate, after having made it, or brought it up to date.
func (p *provider) provide(ctx context.Context, certificate settings.Certificate) (string, error) {
	api := p.balancers.config.Cloud
	if !p.listed {
		var err error
		if p.bundles, err = serviceBundles(ctx, api, p.desired.Identity); err != nil {
			return "", err
		}
		p.listed = true
	}
	want := cloud.CertificateBundle{
		Name: plan.BundleName(certificate, p.desired.Identity), Labels: bundleLabels(p.desired.Identity),
	}
	if certificate.Secret != "" {
		from := p.secrets[certificate.Secret]
		want.Type, want.Certificate, want.Intermediates, want.PrivateKey = cloud.BundleManual, from.certificate, from.intermediates, from.key
	} else {
		want.Type, want.KeyType, want.Hostnames = cloud.BundleDynamic, certificate.KeyType, certificate.Hostnames
		if certificate.Own() {
			want.Hostnames = []string{dnsName(p.lb)}
		}
	}
	for _, have := range p.bundles {
		if have.Name == want.Name || certificate.Own() && p.desired.Identity.IsBundleOf([]string{want.Name}, have.Name) {
			return have.ID, p.bringUpToDate(ctx, have, want)
		}
	}
	logger := klog.FromContext(ctx)
	made, err := p.makeBundle(ctx, want)
	if errors.Is(err, cloud.ErrAlreadyExists) && certificate.Own() {
		id, failed := p.adoptOwn(ctx, want)
		if id != "" || failed != nil {
			return id, failed
		}
		want.Name = plan.NamedLike(want.Name, p.desired.Identity.ServiceUID) // another's must not keep the Service from having one
		made, err = p.makeBundle(ctx, want)
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

// adoptOwn finds the bundle that UpCloud's own CCM made for the load balancer's own name; empty: the one of that name is another's.
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
	return "", nil
}

// tellNames says once what the DNS must have, so that UpCloud gets the certificate.
func (p *provider) tellNames(ctx context.Context, certificate settings.Certificate) {
	if !certificate.Managed() || certificate.Own() {
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
	network, _ := plan.PublishedNetwork(lb)
	if network.DNSName != "" {
		return network.DNSName
	}
	return lb.DNSName
}

func bundleLabels(identity plan.Identity) cloud.Labels {
	labels := cloud.Labels{settings.LabelServiceUID: identity.ServiceUID, settings.LabelClusterName: identity.ClusterName}
	if identity.ClusterID != "" {
		labels[settings.LabelClusterID] = identity.ClusterID
	}
	if identity.ClusterUID != "" {
		labels[settings.LabelClusterUID] = identity.ClusterUID
	}
	if identity.Namespace != "" {
		labels[settings.LabelNamespace] = identity.Namespace
	}
	return labels
}

// serviceBundles lists the bundles that were made for a Service. Those of another cluster that has a Service of the same UID are left out.
func serviceBundles(ctx context.Context, api *cloud.Cloud, identity plan.Identity) ([]cloud.CertificateBundle, error) {
	found, err := api.CertificateBundles(ctx, cloud.Labels{settings.LabelServiceUID: identity.ServiceUID})
	return slices.DeleteFunc(found, func(b cloud.CertificateBundle) bool {
		return b.Labels[settings.LabelServiceUID] != identity.ServiceUID || identity.OtherCluster(b.Labels)
	}), err
}
