package settings

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// needsCertificate is the name of a TLS configuration for which UpCloud's own CCM, and so this program, lets UpCloud get a
// certificate for the load balancer's own name.
const needsCertificate = "needs-certificate"

// applyTo lays the configuration over what the other annotations said: field by field, it wins.
func (o *overlay) applyTo(all *Settings) error {
	all.Load = cloud.LoadBalancerPatch{
		Name: o.Name, Plan: cmp.Or(o.Plan, all.Load.Plan), ConfiguredStatus: o.ConfiguredStatus,
		MaintenanceDay:  cmp.Or(o.MaintenanceDay, all.Load.MaintenanceDay),
		MaintenanceTime: cmp.Or(o.MaintenanceTime, all.Load.MaintenanceTime),
	}
	all.Zone = cmp.Or(o.Zone, all.Zone)
	if o.NetworkID != "" {
		all.Private = []string{o.NetworkID}
	}
	if len(o.Networks) > 0 {
		if err := o.setNetworks(all); err != nil {
			return err
		}
	}
	if len(o.Addresses) > 0 {
		all.Addresses = o.Addresses
	}
	if len(o.Labels) > 0 {
		merged := maps.Clone(all.Labels)
		if merged == nil {
			merged = cloud.Labels{}
		}
		maps.Copy(merged, o.Labels)
		all.Labels = merged
	}
	all.Resolvers, all.unknown = o.Resolvers, o.unknown
	if err := o.setBackends(all); err != nil {
		return err
	}
	return o.setFrontends(all)
}

func (o *overlay) setNetworks(all *Settings) error {
	names := map[string]bool{}
	for i, network := range o.Networks {
		if names[network.Name] {
			return fmt.Errorf("networks[%d].name is %q, as another's: give each network a name of its own", i, network.Name)
		}
		names[network.Name] = true
		if network.Type == "public" && network.ID != "" {
			return fmt.Errorf("networks[%d].uuid is %s: a public network has none", i, network.ID)
		}
		o.Networks[i].Family = "IPv4"
	}
	all.Networks = o.Networks
	return nil
}

// setBackends finds the port that each backend is about, by name. Without a name it is about the only port. What fits no
// port is a backend beside those of the ports.
func (o *overlay) setBackends(all *Settings) error {
	seen := map[string]bool{}
	for i, backend := range o.Backends {
		if backend.Name == "" && len(o.Backends) == 1 && len(all.Ports) == 1 {
			backend.Name = all.Ports[0].Name
		}
		if backend.Name == "" || seen[backend.Name] {
			return fmt.Errorf("backends[%d].name is %q: want a name, which no other backend has", i, backend.Name)
		}
		seen[backend.Name] = true
		at := slices.IndexFunc(all.Ports, func(p PortSettings) bool { return p.Name == backend.Name })
		if at < 0 {
			all.MoreBackends = append(all.MoreBackends, backend)
			continue
		}
		port := &all.Ports[at]
		maps.Copy(port.Backend, backend.Properties)
		port.Resolver = cmp.Or(backend.Resolver, port.Resolver)
		if len(backend.Members) > 0 {
			port.Members = backend.Members
		}
		if len(backend.TLSConfigs) > 0 {
			for j, config := range backend.TLSConfigs {
				if config.BundleID == "" {
					return fmt.Errorf("backends[%d].tls_configs[%d].certificate_bundle_uuid is missing", i, j)
				}
			}
			port.BackendTLS = backend.TLSConfigs
		}
	}
	return nil
}

// setFrontends finds the port that each frontend is about, by name, or else by number. Without a name it is about the only
// port. What fits no port is a frontend beside those of the ports.
func (o *overlay) setFrontends(all *Settings) error {
	seen := map[string]bool{}
	for i, frontend := range o.Frontends {
		if frontend.Name == "" && len(o.Frontends) == 1 && len(all.Ports) == 1 {
			frontend.Name = all.Ports[0].Name
		}
		if frontend.Name == "" || seen[frontend.Name] {
			return fmt.Errorf("frontends[%d].name is %q: want a name, which no other frontend has", i, frontend.Name)
		}
		seen[frontend.Name] = true
		certificates, err := certificatesOf(frontend, i)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(all.Ports, func(p PortSettings) bool { return p.Name == frontend.Name })
		if at < 0 && frontend.Port != 0 && frontend.DefaultBackend != "" {
			at = slices.IndexFunc(all.Ports, func(p PortSettings) bool {
				return p.servicePort == frontend.Port && !p.unserved && !slices.ContainsFunc(o.Frontends, func(f cloud.Frontend) bool { return f.Name == p.Name })
			})
		}
		if at < 0 {
			if frontend.Port == 0 || frontend.DefaultBackend == "" {
				return fmt.Errorf("frontends[%d].name is %q, which is no port of the Service: want the name of one, or for a frontend "+
					"beside those of the ports its port and default_backend, too", i, frontend.Name)
			}
			all.MoreFrontends = append(all.MoreFrontends, PortSettings{
				Name: frontend.DefaultBackend, FrontendName: frontend.Name, Port: frontend.Port, Frontend: cloud.Properties{},
			}.over(frontend, certificates))
			continue
		}
		all.Ports[at].FrontendName = frontend.Name
		all.Ports[at] = all.Ports[at].over(frontend, certificates)
	}
	return nil
}

// over lays a frontend's configuration over the settings.
func (p PortSettings) over(frontend cloud.Frontend, certificates []Certificate) PortSettings {
	p.Mode = cmp.Or(frontend.Mode, p.Mode)
	p.Port = cmp.Or(frontend.Port, p.Port)
	p.DefaultBackend = cmp.Or(frontend.DefaultBackend, p.DefaultBackend)
	maps.Copy(p.Frontend, frontend.Properties)
	p.Rules = frontend.Rules
	if len(certificates) > 0 {
		p.Certificates = certificates
	}
	for _, network := range frontend.Networks {
		p.Networks = append(p.Networks, network.Name)
	}
	return p
}

func certificatesOf(frontend cloud.Frontend, i int) ([]Certificate, error) {
	var all []Certificate
	for j, config := range frontend.TLSConfigs {
		switch {
		case config.Name == needsCertificate:
			return []Certificate{{Hostnames: []string{}, KeyType: "ecdsa"}}, nil // alone, as with UpCloud's own CCM
		case config.BundleID == "":
			return nil, fmt.Errorf("frontends[%d].tls_configs[%d].certificate_bundle_uuid is missing; it may be only with the name %s",
				i, j, needsCertificate)
		}
		all = append(all, Certificate{Bundle: &config})
	}
	return all, nil
}
