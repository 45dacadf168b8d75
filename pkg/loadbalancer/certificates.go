package loadbalancer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// secret is a certificate with its key, out of a Secret.
type secret struct {
	certificate, intermediates, key []byte
	fingerprint                     string
	hosts                           []string // that the certificate is for
}

// errSecret is why a Secret cannot be used: what it says is for the Service's user.
type errSecret struct{ reason, text string }

// reasonInvalidSecret is the reason of events about Secrets with a mistake.
const reasonInvalidSecret = "InvalidSecret"

func (e errSecret) Error() string { return e.text }

// readSecrets reads the Secrets that the Service's certificates come from. It returns those that can be used, and for each of the others
// what it lacks.
func (l *LoadBalancers) readSecrets(
	ctx context.Context, service *v1.Service, asked *settings.Settings,
) (all map[string]secret, awaited []settings.Problem, err error) {
	l.secretUse.set(service, asked)
	all = map[string]secret{}
	read := map[string]bool{"": true}
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			name := certificate.Secret
			if read[name] {
				continue
			}
			read[name] = true
			one, err := l.readSecret(ctx, service, name)
			var mistake errSecret
			switch {
			case errors.As(err, &mistake):
				awaited = append(awaited, settings.Problem{Reason: mistake.reason, Message: mistake.text})
			case err != nil:
				return nil, nil, err
			default:
				all[name] = one
			}
		}
	}
	return all, awaited, nil
}

// isAwaited says whether a certificate is that of a Secret that cannot be used yet.
func isAwaited(certificate settings.Certificate, secrets map[string]secret) bool {
	_, there := secrets[certificate.Secret]
	return certificate.Secret != "" && !there
}

// readSecret reads one Secret of the Service's namespace. A mistake in it is an errSecret.
func (l *LoadBalancers) readSecret(ctx context.Context, service *v1.Service, name string) (secret, error) {
	if l.client == nil {
		return secret{}, errors.New("there is no Kubernetes API to read Secrets from")
	}
	found, err := l.client.CoreV1().Secrets(service.Namespace).Get(ctx, name, metav1.GetOptions{})
	if version, err := secretVersion(found, err); err == nil {
		l.secretUse.noteRead(service, name, version)
	}
	if apierrors.IsForbidden(err) {
		return secret{}, errSecret{reasonInvalidSecret, fmt.Sprintf("annotation %s%s: Secret %s/%s may not be read: bind the ClusterRole upcloud-ccm-secrets to the "+
			"service account of the ccm in namespace %s (docs/security.md#secrets); the API server says: %s", settings.AnnotationPrefix,
			settings.TLSSecretName, service.Namespace, name, service.Namespace, apierrors.ReasonForError(err))}
	}
	if apierrors.IsNotFound(err) {
		return secret{}, errSecret{ReasonCertificatePending, fmt.Sprintf("annotation %s%s: Secret %s/%s does not exist yet: its certificate is presented once it "+
			"does, and a port without another certificate is opened then; create it, or name another", settings.AnnotationPrefix, settings.TLSSecretName,
			service.Namespace, name)}
	}
	if err != nil {
		return secret{}, fmt.Errorf("Secret %s/%s: %w", service.Namespace, name, err)
	}
	one, err := parseSecret(name, found.Data[v1.TLSCertKey], found.Data[v1.TLSPrivateKeyKey])
	if err != nil {
		return secret{}, errSecret{reasonInvalidSecret, fmt.Sprintf("annotation %s%s: Secret %s/%s: %s", settings.AnnotationPrefix, settings.TLSSecretName,
			service.Namespace, name, err)}
	}
	return one, nil
}

// parseSecret takes the chain apart: the API wants the certificate itself and those of its authorities separately.
func parseSecret(name string, chain, key []byte) (secret, error) {
	if len(chain) == 0 || len(key) == 0 {
		return secret{}, fmt.Errorf("it lacks %s or %s: make it with kubectl create secret tls", v1.TLSCertKey, v1.TLSPrivateKeyKey)
	}
	if err := checkSecretSize(chain, key); err != nil {
		return secret{}, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return secret{}, fmt.Errorf("%s and %s are no pair: %w", v1.TLSCertKey, v1.TLSPrivateKeyKey, err)
	}
	s := secret{}
	if s.hosts, err = hostsOf(pair.Leaf); err != nil {
		return secret{}, fmt.Errorf("%s: %w", v1.TLSCertKey, err)
	}
	for _, block := range blocksOf(chain, func(kind string) bool { return kind == "CERTIFICATE" }) {
		if s.certificate == nil {
			s.certificate = pem.EncodeToMemory(block)
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return secret{}, fmt.Errorf("a certificate after the first one in %s cannot be read, which load balancers refuse: %w; "+
				"leave it out", v1.TLSCertKey, err)
		}
		s.intermediates = append(s.intermediates, pem.EncodeToMemory(block)...)
	}
	// The key alone: load balancers would take a certificate beside it for one to be shown.
	keys := blocksOf(key, func(kind string) bool { return kind == "PRIVATE KEY" || strings.HasSuffix(kind, " PRIVATE KEY") })
	s.key = bytes.TrimSpace(pem.EncodeToMemory(keys[0])) // which is the one that the pair was made of
	s.fingerprint = settings.ShortDigest(name+"\n"+string(s.certificate)+string(s.intermediates)) + settings.ShortDigest(string(bytes.TrimSpace(key)))
	return s, nil
}

// blocksOf are the blocks of those kinds in PEM, without headers.
func blocksOf(text []byte, is func(kind string) bool) (blocks []*pem.Block) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return blocks
		}
		if is(block.Type) {
			blocks = append(blocks, &pem.Block{Type: block.Type, Bytes: block.Bytes})
		}
	}
}

// hostsOf are the names that clients may ask for to be shown a certificate: its subject alternative names, and each common name of its
// subject, which load balancers heed too unless it is no host name at all.
func hostsOf(leaf *x509.Certificate) ([]string, error) {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	var common []string
	for _, attribute := range leaf.Subject.Names {
		if name, isText := attribute.Value.(string); isText && attribute.Type.Equal(commonName) {
			common = append(common, name)
		}
	}
	for _, name := range slices.Concat(names, common) {
		if strings.ContainsFunc(name, unicode.IsControl) { // programs in C may take what is before it for the name
			return nil, fmt.Errorf("the certificate is for the name %.100q, which has a control character; use one for host names", name)
		}
	}
	common = slices.DeleteFunc(common, func(name string) bool { return strings.ContainsAny(name, " /@:") })
	return normalHosts(append(names, common...)), nil
}

// commonName is the OID of the attribute CN.
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// maxChain and maxKey are how many bytes of PEM a Secret's certificate chain and key may have: more than a chain in use has, and an RSA
// key of 16384 bits. maxChainCertificates is the number of certificates in the chain.
const maxChain, maxKey, maxChainCertificates = 64 << 10, 16 << 10, 20

// checkSecretSize bounds what is parsed: the time to check a key grows faster than its size.
func checkSecretSize(chain, key []byte) error {
	if len(chain) > maxChain {
		return fmt.Errorf("%s is too large: %d bytes, at most %d are allowed; leave out certificates that clients do not need",
			v1.TLSCertKey, len(chain), maxChain)
	}
	if len(key) > maxKey {
		return fmt.Errorf("%s is too large: %d bytes, at most %d are allowed; use a smaller key", v1.TLSPrivateKeyKey, len(key), maxKey)
	}
	if n := bytes.Count(chain, []byte("-----BEGIN ")); n > maxChainCertificates {
		return fmt.Errorf("%s has %d certificates, at most %d are allowed; leave out those that clients do not need", v1.TLSCertKey, n,
			maxChainCertificates)
	}
	return nil
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
func (l *LoadBalancers) checkBundles(ctx context.Context, service *v1.Service, asked *settings.Settings, lb *cloud.LoadBalancer) error {
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
	for _, port := range asked.EveryPort() {
		for _, id := range port.Bundles() {
			if id == "" || there[id] {
				continue
			}
			_, err := l.config.Cloud.CertificateBundle(ctx, id)
			if errors.Is(err, cloud.ErrNotFound) {
				problem := port.NoSuchBundle(id)
				l.said.say(service, []settings.Problem{problem}, l.warn)
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
