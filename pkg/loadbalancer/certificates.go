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
	"k8s.io/cloud-provider/api"

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

// bundleNames are the names of the certificate bundles that are made for the Service.
func (s *Settings) bundleNames(identity Identity) []string {
	var names []string
	for _, port := range s.everyPort() {
		for _, certificate := range port.Certificates {
			if name := certificate.bundleName(identity); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
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

// checkBundles refuses certificate bundles of the user's that the account has not, before anything is changed for their sake. It costs a
// call for each that is new on the load balancer; lb is nil if there is none yet.
func (l *LoadBalancers) checkBundles(ctx context.Context, service *v1.Service, settings *Settings, lb *cloud.LoadBalancer) error {
	there := map[string]bool{}
	note := func(configs []cloud.TLSConfig) {
		for _, config := range configs {
			there[config.BundleID] = true
		}
	}
	if lb != nil {
		for _, frontend := range lb.Frontends {
			note(frontend.TLSConfigs)
		}
		for _, backend := range lb.Backends {
			note(backend.TLSConfigs)
		}
	}
	for _, port := range settings.everyPort() {
		for _, id := range port.bundles() {
			if id == "" || there[id] {
				continue
			}
			_, err := l.config.Cloud.CertificateBundle(ctx, id)
			if errors.Is(err, cloud.ErrNotFound) {
				problem := port.noSuchBundle(id)
				l.said.say(service, []Problem{problem}, l.warn)
				return because(problem.Reason, api.NewRetryError(problem.Message, sharedRetry)) // nothing tells when it is made
			}
			if err != nil {
				return err
			}
			there[id] = true
		}
	}
	return nil
}

// bundles are the IDs of the user's own certificate bundles that a port has.
func (p *PortSettings) bundles() []string {
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

func (p *PortSettings) noSuchBundle(id string) Problem {
	const why = "the account has no such certificate bundle: name one that it has"
	switch {
	case slices.Contains(p.tls.bundles, id):
		return invalidAnnotation("tls-bundle", id, why)
	case slices.Contains(p.tls.backend, id):
		return invalidAnnotation("backend-tls-bundle", id, why)
	}
	return Problem{"InvalidAnnotation", fmt.Sprintf("annotation %s: port %s has certificate bundle %s: %s", AnnotationConfig, p.FrontendName, id, why)}
}
