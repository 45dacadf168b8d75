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
		return cloud.TLSConfig{Name: settings.Cut(settings.SanitizeName(c.Secret), settings.MaxName-17) + "-" + fingerprints[c.Secret]}
	}
	return cloud.TLSConfig{Name: BundleName(c, identity)}
}
