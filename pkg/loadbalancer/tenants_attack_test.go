package loadbalancer

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// target is an account with what a tenant would like to have and may not.
type target struct {
	*account
	floating, bundle, network, edge, other string
}

func newTarget(t *testing.T) *target {
	a := &target{account: newAccount(t, simulator.Config{}, "n1", "n2")}
	fast, err := cloud.New(cloud.Config{Token: a.Token, BaseURL: a.URL, RequestsPerSecond: 1000, Burst: 10000, Concurrency: 64})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fast.Close)
	a.cloud = fast
	a.floating = a.floatingAddress()
	a.bundle = a.manualBundle("bank", "bank.example")
	var network struct{ Network struct{ UUID string } }
	a.Do(t, http.MethodPost, "/network", `{"network":{"name":"theirs","zone":"`+zone+
		`","ip_networks":{"ip_network":[{"address":"10.9.0.0/24","dhcp":"yes","family":"IPv4"}]}}}`, &network)
	a.network = network.Network.UUID
	a.edge = a.foreign("edge").ID
	victim := a.addService(serviceIn("victim", "web", "http 80 31000"))
	a.ensure(a.balancers(), victim)
	a.other = a.byName("prod-victim-web").ID
	for _, name := range []string{"bank", "own"} {
		certificate, key := newCertificate(t, map[string]string{"bank": "bank.example", "own": "www.evil.example"}[name])
		secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Name: name, ResourceVersion: "1"}, Type: v1.SecretTypeTLS,
			Data: map[string][]byte{v1.TLSCertKey: certificate, v1.TLSPrivateKeyKey: key}}
		if _, err := a.client.CoreV1().Secrets("evil").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// hostile are annotations that ask for more than the safe defaults allow.
func (a *target) hostile() map[string][]string {
	config := func(text string) []string { return []string{"config", text} }
	return map[string][]string{
		"plan":                    {"plan", "production-small"},
		"plan in blanks":          {"plan", " production-small "},
		"plan in JSON":            config(`{"plan":"production-small"}`),
		"plan under another case": config(`{"PLAN":"production-small"}`),
		"plan with an escape":     config(`{"pl\u0061n":"production-small"}`),
		"plan twice":              config(`{"plan":"development","plan":"production-small"}`),
		"zone":                    {"zone", "de-fra1"},
		"zone in JSON":            config(`{"zone":"de-fra1"}`),
		"network":                 {"private-networks", a.network},
		"network of upper case":   {"private-networks", strings.ToUpper(a.network)},
		"network_uuid":            config(`{"network_uuid":"` + a.network + `"}`),
		"networks":                config(`{"networks":[{"name":"x","type":"private","family":"IPv4","uuid":"` + a.network + `"}]}`),
		"floating address":        {"floating-ips", a.floating},
		"two floating addresses":  {"floating-ips", "192.0.2.1," + a.floating},
		"address in JSON":         config(`{"ip_addresses":[{"address":"` + a.floating + `"}]}`),
		"bundle":                  {"mode", "http", "tls-bundle", a.bundle},
		"bundle of upper case":    {"mode", "http", "tls-bundle", strings.ToUpper(a.bundle)},
		"bundle of a port":        {"mode", "http", "tls-bundle", "http=" + a.bundle},
		"bundle in JSON":          config(`{"frontends":[{"tls_configs":[{"name":"x","certificate_bundle_uuid":"` + a.bundle + `"}]}]}`),
		"bundle of a backend":     {"backend-tls", "verify", "backend-tls-bundle", a.bundle},
		"bundle of the backend in JSON": config(`{"backends":[{"name":"http","tls_configs":[{"name":"x","certificate_bundle_uuid":"` +
			a.bundle + `"}]}]}`),
		"bundle of another backend": config(`{"backends":[{"name":"more","tls_configs":[{"name":"x","certificate_bundle_uuid":"` +
			a.bundle + `"}]}]}`),
		"bundle of another frontend": config(`{"frontends":[{"name":"more","port":8443,"mode":"http","default_backend":"http","tls_configs":[{"name":"x",` +
			`"certificate_bundle_uuid":"` + a.bundle + `"}]}]}`),
		"host names":                         {"mode", "http", "tls-hostnames", "bank.example"},
		"wildcard":                           {"mode", "http", "tls-hostnames", "http=*.bank.example", "tls-key-type", "rsa"},
		"member":                             config(`{"backends":[{"members":[{"name":"m","ip":"8.8.8.8","port":53}]}]}`),
		"metadata service":                   config(`{"backends":[{"name":"http","members":[{"name":"m","ip":"169.254.169.254","port":80}]}]}`),
		"member of another backend":          config(`{"backends":[{"name":"more","members":[{"name":"m","ip":"172.16.0.99","port":6443}]}]}`),
		"mapped member":                      config(`{"backends":[{"members":[{"name":"m","ip":"::ffff:8.8.8.8","port":53}]}]}`),
		"member by name":                     config(`{"backends":[{"members":[{"name":"m","ip":"dns.google","port":53}]}]}`),
		"dynamic member":                     config(`{"resolvers":[{"name":"r","nameservers":["8.8.8.8:53"]}],"backends":[{"resolver":"r","members":[{"name":"dns.google","type":"dynamic","port":53}]}]}`),
		"resolver alone":                     config(`{"resolvers":[{"name":"r","nameservers":["10.0.0.10:53"]}]}`),
		"health check elsewhere":             config(`{"backends":[{"properties":{"health_check_type":"http","health_check_url":"http://169.254.169.254/metadata"}}]}`),
		"health check of a user":             config(`{"backends":[{"properties":{"health_check_type":"http","health_check_url":"http://:80@169.254.169.254/metadata"}}]}`),
		"health check of no port":            config(`{"backends":[{"properties":{"health_check_type":"http","health_check_url":"http://:@169.254.169.254/metadata"}}]}`),
		"health check of two slashes":        config(`{"backends":[{"properties":{"health_check_type":"http","health_check_url":"//169.254.169.254/metadata"}}]}`),
		"name of a shared one":               config(`{"name":"edge"}`),
		"name of a group":                    config(`{"name":"team"}`),
		"another's generated name":           config(`{"name":"prod-bank-web"}`),
		"any name":                           config(`{"name":"evil"}`),
		"retain":                             {"retain", "true"},
		"retain that is unclear":             {"retain", "yes"},
		"deletion protection":                {"deletion-protection", "true"},
		"protection that is unclear":         {"deletion-protection", "1"},
		"shared by name":                     {"shared", "edge"},
		"shared by UUID":                     {"shared", a.edge},
		"shared by UUID, upper case":         {"shared", strings.ToUpper(a.edge)},
		"another's load balancer":            {"shared", a.other},
		"another's by name":                  {"shared", "prod-victim-web"},
		"a group":                            {"shared", "create/evil"},
		"a group of a name elsewhere":        {"shared", "create/prod-bank-web"},
		"a group with routes":                {"shared", "create/evil", "routes", `[{host: bank.example, path: /}]`},
		"routes on what is shared":           {"shared", "edge", "routes", `[{host: saas.example, path: /}]`, "tls-secret", "own"},
		"a frontend of the shared":           {"shared", "edge", "routes", `[{host: saas.example, path: /x}]`, "frontend", "public-http"},
		"another's load balancer as its own": {"id", a.other},
		"another's load balancer, taken":     {"adopt", a.other},
		"a shared load balancer, taken":      {"adopt", a.edge},
		"labels of the controller":           {"labels", "ccm_service_uid=uid-victim_web"},
		"labels of the controller in JSON":   config(`{"labels":[{"key":"ccm_namespace","value":"victim"}]}`),
		"frontends":                          config(`{"frontends":[` + repeated(11, `{"name":"f%d","port":2%03d,"default_backend":"http"}`) + `]}`),
		"backends":                           config(`{"backends":[` + repeated(11, `{"name":"b%d%[2]d"}`) + `]}`),
		"rules": config(`{"frontends":[{"mode":"http","rules":[` +
			repeated(51, `{"name":"r%d%[2]d","actions":[{"type":"set_forwarded_headers","action_set_forwarded_headers":{}}]}`) + `]}]}`),
	}
}

func repeated(n int, format string) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(format, i, i))
	}
	return strings.Join(all, ",")
}

// beyond looks at what is in the account, and says what namespace evil has there that the safe defaults do not allow.
func (a *target) beyond(before map[string]string) []string {
	a.t.Helper()
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	nodes := map[string]bool{}
	for _, node := range a.nodes {
		for _, address := range node.Status.Addresses {
			nodes[address.Address] = address.Type == v1.NodeInternalIP
		}
	}
	for _, lb := range a.list() {
		if known, there := before[lb.ID]; there {
			if now := fmt.Sprint(withoutTimes(a.raw("/load-balancer/" + lb.ID))); now != known {
				add("load balancer %s, which is another's, was changed: %s", lb.Name, now)
			}
			continue
		}
		if lb.Plan != DefaultPlan || lb.Zone != zone || !slices.Contains([]string{"prod-evil-web", "prod-evil-served"}, lb.Name) || len(lb.Addresses) > 0 || len(lb.Resolvers) > 0 {
			add("load balancer %s: plan %s, zone %s, addresses %v, resolvers %v", lb.Name, lb.Plan, lb.Zone, lb.Addresses, lb.Resolvers)
		}
		if lb.Labels[settings.LabelNamespace] != "evil" || !strings.HasPrefix(lb.Labels[settings.LabelServiceUID], "uid-evil_") {
			add("labels %v", lb.Labels)
		}
		if slices.ContainsFunc(lb.Networks, func(n cloud.LoadBalancerNetwork) bool { return n.ID == a.network }) {
			add("it is in another's network")
		}
		rules := 0
		for _, frontend := range lb.Frontends {
			rules += len(frontend.Rules)
			for _, config := range frontend.TLSConfigs {
				if config.BundleID == a.bundle {
					add("frontend %s presents another's bundle", frontend.Name)
				}
			}
		}
		for _, backend := range lb.Backends {
			if url, _ := backend.Properties["health_check_url"].(string); strings.Contains(url, "169.254") {
				add("health check %s", url)
			}
			if len(backend.TLSConfigs) > 0 {
				add("backend %s uses another's bundle", backend.Name)
			}
			for _, member := range backend.Members {
				if !nodes[member.IP] {
					add("member %s %s", member.Name, member.IP)
				}
			}
		}
		if len(lb.Frontends) > 10 || len(lb.Backends) > 10 || rules > 50 {
			add("%d frontends, %d backends, %d rules", len(lb.Frontends), len(lb.Backends), rules)
		}
	}
	for _, bundle := range a.bundles() {
		if bundle.ID != a.bundle {
			add("certificate bundle %s for %v", bundle.Name, bundle.Hostnames)
		}
	}
	return all
}

// A user with the right to write Services in one namespace gets nothing that the safe defaults do not allow, whether a Service is made so
// or changed later, and whatever happens to it then; and nothing of it stays when it goes.
func TestHostileServicesGetNothingBeyondThePolicy(t *testing.T) {
	a := newTarget(t)
	before := map[string]string{}
	for _, lb := range a.list() {
		before[lb.ID] = fmt.Sprint(withoutTimes(a.raw("/load-balancer/" + lb.ID)))
	}
	l := a.balancers(func(c *Config) {
		c.Tenants = &tenants.Config{}
		c.Shared = []settings.SharedAccess{{LoadBalancer: "edge"}, {LoadBalancer: "create/team", Namespaces: []string{"team"}}}
	})
	hostile := a.hostile()
	if len(hostile) < 40 {
		t.Fatalf("%d hostile Services", len(hostile))
	}
	l.deleteWait = time.Millisecond
	harmless := []string{"another's load balancer as its own"} // it is not believed, and the Service served
	served := a.addService(serviceIn("evil", "served", "http 80 30081"))
	for name, annotations := range hostile {
		t.Run(name, func(t *testing.T) {
			s := a.addService(example.Annotated(serviceIn("evil", "web", "http 80 30080"), annotations...))
			a.said()
			_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
			said := strings.Join(a.said(), "\n")
			if !slices.Contains(harmless, name) && (err == nil || said == "") {
				t.Errorf("made so: error %v, events %q", err, said)
			}
			if found := a.beyond(before); len(found) > 0 {
				t.Errorf("made so: %s", strings.Join(found, "\n"))
			}
			a.remove(l, s)
			a.attackLater(t, l, served, before, annotations)
			if strings.Contains(name, "retain") || strings.Contains(name, "protection") {
				a.remove(l, served)
				if left := a.list(); len(left) != len(before) {
					t.Errorf("%d load balancers are left, want %d", len(left), len(before))
				}
				served = a.addService(serviceIn("evil", "served", "http 80 30081"))
			}
		})
	}
	a.remove(l, served)
	if left := a.list(); len(left) != len(before) {
		t.Errorf("%d load balancers are left, want %d", len(left), len(before))
	}
}

// Names of others' load balancers can be guessed. No user learns from them which UUIDs those have, or whose they are.
func TestTenantsDoNotLearnOfOthersLoadBalancers(t *testing.T) {
	a := newTarget(t)
	l := a.balancers(func(c *Config) {
		c.Tenants = &tenants.Config{}
		c.Shared = []settings.SharedAccess{{LoadBalancer: "edge", Namespaces: []string{"team"}}}
	})
	const unknown = "0aded5c1-c7a3-498a-b9c8-a871611c47a2"
	for name, annotations := range map[string][]string{
		"the name of another's":             {"shared", "prod-victim-web"},
		"the name of a shared one":          {"shared", "edge"},
		"a name that the other one had":     {"shared", unknown, "name", "prod-victim-web"},
		"a name that the shared one had":    {"shared", unknown, "name", "edge"},
		"a group of the name":               {"shared", "create/prod-victim-web"},
		"the name for a load balancer":      {"config", `{"name":"prod-victim-web"}`},
		"the name of another's as its own":  {"adopt", unknown, "name", "prod-victim-web"},
		"an annotation of another's, taken": {"id", unknown, "name", "edge", "shared", "edge"},
	} {
		t.Run(name, func(t *testing.T) {
			s := a.addService(example.Annotated(serviceIn("evil", "web", "http 80 30080"), annotations...))
			a.said()
			_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
			for _, text := range append(a.said(), fmt.Sprint(err), example.JSON(t, a.current(s).Status)) {
				if strings.Contains(text, a.other) || strings.Contains(text, a.edge) || strings.Contains(text, "victim/web") {
					t.Errorf("it says: %s", text)
				}
			}
			if err == nil {
				t.Error("no error")
			}
			a.remove(l, s)
		})
	}
}

// remove has a Service deleted, and takes it from the API server.
func (a *target) remove(l *LoadBalancers, s *v1.Service) {
	a.t.Helper()
	a.change(s, func(s *v1.Service) { s.DeletionTimestamp = &metav1.Time{} })
	a.delete(l, s)
	if err := a.client.Tracker().Delete(servicesResource, s.Namespace, s.Name); err != nil {
		a.t.Fatal(err)
	}
}

// attackLater has a Service served without the annotations, then sets them, and does everything to it that the controllers do.
func (a *target) attackLater(t *testing.T, l *LoadBalancers, s *v1.Service, before map[string]string, annotations []string) {
	t.Helper()
	a.change(s, func(s *v1.Service) { s.Annotations = nil })
	a.ensure(l, s)
	a.change(s, func(s *v1.Service) { example.Annotated(s, annotations...) })
	_, _ = l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
	_ = l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes[:1])
	_ = l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
	services, nodes := a.listers()
	_ = l.renew(t.Context(), a.current(s), nodes)
	inOneRound(func(r *rounds) { l.mendDrift(t.Context(), services, nodes, r) })
	inOneRound(func(r *rounds) { l.mendShared(t.Context(), services, nodes, r) })
	if found := a.beyond(before); len(found) > 0 {
		t.Errorf("changed later: %s", strings.Join(found, "\n"))
	}
}
