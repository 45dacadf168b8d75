package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// BundleName is the name of the certificate bundle that is made for the Service; empty for one that the user made. The name
// is unique in the account, as the Service's UID is in it, but for that of a load balancer's own name, which is as UpCloud's own
// CCM has it.
func BundleName(c settings.Certificate, identity Identity) string {
	switch {
	case c.Bundle != nil:
		return ""
	case c.Own():
		return OwnBundleName(cmp.Or(identity.Generated, identity.Name))
	case c.Secret != "":
		return NamedLike(identity.plainName, identity.ServiceUID+"/secret/"+c.Secret)
	}
	return NamedLike(identity.plainName, identity.ServiceUID+"/managed/"+c.KeyType+"/"+strings.Join(c.Hostnames, ","))
}

// BundleNames are the names of the certificate bundles that are made for the Service.
func BundleNames(s *settings.Settings, identity Identity) []string {
	var names []string
	for _, port := range s.EveryPort() {
		for _, certificate := range port.Certificates {
			if name := BundleName(certificate, identity); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// OwnBundleName is the name that UpCloud's own CCM gives to the certificate for a load balancer's own name.
func OwnBundleName(generatedName string) string {
	return settings.Cut(generatedName, settings.MaxName-len("-tls")) + "-tls"
}

// IsBundleOf says whether a certificate bundle has one of the names that the Service's get, or the one in its place where another's had
// that first: names are cut, and that of a certificate for the load balancer's own name does not follow from the Service's UID.
func (i Identity) IsBundleOf(names []string, bundle string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return name == bundle || NamedLike(name, i.ServiceUID) == bundle })
}

// NamedLike is a name that begins like another and ends in a digest.
func NamedLike(name, of string) string {
	return settings.Cut(settings.SanitizeName(name), settings.MaxName-9) + "-" + settings.ShortDigest(of)
}

// TLSConfig is the TLS configuration of a frontend, without the bundle's ID as long as that is not known. The name of one from a
// Secret has the Secret's fingerprint, so that the load balancer itself tells whether the certificate is the current one.
func TLSConfig(c settings.Certificate, identity Identity, fingerprints map[string]string) cloud.TLSConfig {
	switch {
	case c.Bundle != nil:
		return *c.Bundle
	case c.Secret != "":
		return cloud.TLSConfig{Name: ofSecret(c.Secret) + fingerprints[c.Secret]}
	}
	return cloud.TLSConfig{Name: BundleName(c, identity)}
}

// ofSecret begins the names of TLS configurations from a Secret, before its fingerprint.
func ofSecret(name string) string {
	return settings.Cut(settings.SanitizeName(name), settings.MaxName-1-fingerprintLength) + "-"
}

// fingerprintLength is how long the fingerprint of a Secret is.
const fingerprintLength = 16

// keeps says whether a TLS configuration that the frontend presents is of a Secret that is awaited.
func (f Frontend) keeps(config string) bool {
	return slices.ContainsFunc(f.awaits, func(secret string) bool {
		return len(config) == len(ofSecret(secret))+fingerprintLength && strings.HasPrefix(config, ofSecret(secret))
	})
}

// httpsIsClosed says whether the port that redirects lead to is not opened yet, as its certificate is awaited. The certificate may be issued
// only if requests are answered before there is one.
func (d Desired) httpsIsClosed(have []cloud.Frontend) bool {
	awaited := slices.ContainsFunc(d.Frontends, func(f Frontend) bool { return f.Port == httpsPort && len(f.awaits) > 0 && len(f.TLS) == 0 })
	return awaited && !slices.ContainsFunc(have, func(f cloud.Frontend) bool { return f.Port == httpsPort })
}

const httpsPort = 443

// answering is what is desired, without redirects to a port that is not opened yet. have are the frontends that there are.
func (d Desired) answering(have []cloud.Frontend) Desired {
	if !d.httpsIsClosed(have) {
		return d
	}
	d.Frontends = slices.Clone(d.Frontends)
	for i := range d.Frontends {
		d.Frontends[i].Rules = slices.DeleteFunc(slices.Clone(d.Frontends[i].Rules), func(r cloud.Rule) bool { return r.Name == settings.RuleRedirect })
	}
	return d
}

// awaitedBundles are the names of certificate bundles whose Secrets cannot be used yet.
func (in Input) awaitedBundles() []string {
	var names []string
	for _, port := range in.Settings.EveryPort() {
		for _, certificate := range port.Certificates {
			if certificate.Secret != "" && in.Fingerprints[certificate.Secret] == "" {
				names = append(names, BundleName(certificate, in.Identity))
			}
		}
	}
	return names
}

// notingBundles is what is desired with the certificate bundles that are, or are about to be, there.
func (d Desired) notingBundles(noted notes) Desired {
	d.Bundles = slices.DeleteFunc(slices.Clone(d.Bundles), func(name string) bool { return slices.Contains(d.awaitedBundles, name) && !noted.Has(name) })
	return d
}
