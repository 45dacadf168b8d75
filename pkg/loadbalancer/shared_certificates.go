package loadbalancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
)

// reasonCertificateDenied is the reason of events about certificates for hosts that a Service may not serve.
const reasonCertificateDenied = "CertificateDenied"

// certificateHosts says for which host names one certificate of a Service is.
type certificateHosts struct {
	source string // in messages
	config string // the name of the TLS configuration
	hosts  []string
	// other is set if the certificate was made for another Service, whose user may change it at any time.
	other bool
}

// mayPresent returns why a Service may not present its certificates on a load balancer, and the names of the TLS configurations
// that it is about; nil: it may. A Service whose routes are bounded by hosts could otherwise show a certificate to the clients of others.
func mayPresent(
	entries []settings.SharedAccess, lb *cloud.LoadBalancer, reference settings.Reference, service *v1.Service, asked *settings.Settings, certificates []certificateHosts,
) (*settings.Problem, []string) {
	var problem *settings.Problem
	var refused []string
	for _, entry := range settings.EntriesFor(entries, lb, reference) {
		if !entry.Allows(service, asked) {
			continue
		}
		hosts, bounded := entry.CertificateHosts(asked)
		text, configs := beyondHosts(hosts, certificates)
		if !bounded || len(configs) == 0 {
			return nil, nil
		}
		if problem == nil || len(configs) < len(refused) {
			problem, refused = &settings.Problem{Reason: reasonCertificateDenied, Message: fmt.Sprintf("annotation %s%s=%s: %s; the controller's configuration allows %s: "+
				"use certificates for those hosts only, or ask the cluster's operator for more hosts", settings.AnnotationPrefix, settings.SharedName, reference, text,
				cmp.Or(strings.Join(hosts, ", "), "no host"))}, configs
		}
	}
	return problem, refused
}

// beyondHosts says which certificates are for more than the allowed hosts.
func beyondHosts(allowed []string, certificates []certificateHosts) (text string, configs []string) {
	var texts []string
	for _, certificate := range certificates {
		beyond := slices.DeleteFunc(slices.Clone(certificate.hosts), func(host string) bool { return tenants.Covers(allowed, host) })
		switch {
		case certificate.other:
			texts = append(texts, certificate.source+" was made for another Service, which can change it")
		case len(certificate.hosts) == 0:
			texts = append(texts, certificate.source+" is for hosts that are not known")
		case len(beyond) > 0:
			texts = append(texts, fmt.Sprintf("%s is for %s", certificate.source, settings.Abbreviated(strings.Join(beyond, ", "))))
		default:
			continue
		}
		configs = append(configs, certificate.config)
	}
	return strings.Join(texts, "; "), configs
}

// presented are the certificates that a Service asks for, but for those of load balancers' own names.
func (w *work) presented(ctx context.Context) ([]certificateHosts, error) {
	var all []certificateHosts
	for _, port := range w.settings.EveryPort() {
		for _, certificate := range port.Certificates {
			one := certificateHosts{config: plan.TLSConfig(certificate, w.identity, fingerprintsOf(w.secrets)).Name}
			switch {
			case certificate.Own():
				continue
			case isAwaited(certificate, w.secrets):
				made, err := w.presentedBefore(ctx, certificate)
				if err != nil {
					return nil, err
				}
				if made == nil {
					continue
				}
				one.source, one.hosts = "Secret "+w.service.Namespace+"/"+certificate.Secret, normalHosts(made.Hostnames)
			case certificate.Secret != "":
				one.source, one.hosts = "Secret "+w.service.Namespace+"/"+certificate.Secret, w.secrets[certificate.Secret].hosts
			case certificate.Bundle != nil:
				bundle, err := w.config.Cloud.CertificateBundle(ctx, certificate.Bundle.BundleID)
				if errors.Is(err, cloud.ErrNotFound) {
					continue // told of elsewhere
				}
				if err != nil {
					return nil, err
				}
				one.source, one.hosts = "certificate bundle "+bundle.ID, normalHosts(bundle.Hostnames)
				uid := bundle.Labels[settings.LabelServiceUID]
				one.other = uid != "" && uid != w.identity.ServiceUID
			default:
				one.source, one.hosts = "annotation "+settings.AnnotationPrefix+"tls-hostnames", certificate.Hostnames
			}
			all = append(all, one)
		}
	}
	return all, nil
}

// presentedBefore is the certificate bundle that was made of a Secret which cannot be used now; nil: none.
func (w *work) presentedBefore(ctx context.Context, certificate settings.Certificate) (*cloud.CertificateBundle, error) {
	all, err := serviceBundles(ctx, w.config.Cloud, w.identity)
	name := plan.BundleName(certificate, w.identity)
	i := slices.IndexFunc(all, func(b cloud.CertificateBundle) bool { return b.Name == name })
	if i < 0 {
		return nil, err
	}
	return &all[i], err
}

// normalHosts are host names as clients ask for them: of lower case, without a dot at the end.
func normalHosts(names []string) []string {
	var all []string
	for _, name := range names {
		if name = strings.ToLower(strings.TrimSuffix(name, ".")); name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// mayPresent is mayPresent for the Service's certificates as they are now.
func (w *work) mayPresent(ctx context.Context, lb *cloud.LoadBalancer) (*settings.Problem, []string, error) {
	bounded := func(entry settings.SharedAccess) bool {
		_, bounded := entry.CertificateHosts(w.settings)
		return bounded
	}
	if !slices.ContainsFunc(settings.EntriesFor(w.access, lb, *w.settings.Shared), bounded) {
		return nil, nil, nil
	}
	certificates, err := w.presented(ctx)
	if err != nil {
		return nil, nil, err
	}
	problem, configs := mayPresent(w.access, lb, *w.settings.Shared, w.service, w.settings, certificates)
	return problem, configs, nil
}

// withdraw takes certificates off a shared load balancer that the Service presents there and may not, and leaves the rest as it is.
func (w *work) withdraw(ctx context.Context, lb *cloud.LoadBalancer, problem settings.Problem, configs []string) error {
	var changes []plan.Change
	for _, frontend := range lb.Frontends {
		for _, config := range frontend.TLSConfigs {
			denied := slices.ContainsFunc(configs, func(name string) bool { return w.identity.SharedTLSName(name) == config.Name })
			if denied {
				changes = append(changes, plan.Change{Name: config.Name, Owner: cloud.TLSOwner{Frontend: frontend.Name}, DeleteTLS: true})
			}
		}
	}
	if err := w.applyShared(ctx, w.service, w.config.Cloud.Shared(lb.ID), changes); err != nil {
		return err
	}
	w.said.say(w.service, []settings.Problem{problem}, w.warn)
	return because(problem.Reason, api.NewRetryError(problem.Message, deniedRetry))
}

// deniedRetry is when a certificate that was refused is looked at again: nothing tells of a bundle that a person has replaced.
const deniedRetry = 5 * time.Minute
