package loadbalancer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

type jsonObject = map[string]any

// official makes the load balancer that UpCloud's own CCM (1.2.3) makes for a Service, and writes its annotations: defaults for
// each port, over which the configuration is laid; where that lists frontends or backends, there are no others; fields that it
// leaves empty have the defaults. A frontend of mode http on port 443, or that asks for it, gets a certificate for the load
// balancer's own name.
func (a *account) official(s *v1.Service, clusterID string) (*v1.Service, cloud.LoadBalancer) {
	t := a.t
	t.Helper()
	identity := plan.NewIdentity(clusterID, "prod", s)
	var frontends, backends []any
	for _, port := range s.Spec.Ports {
		name := settings.PortName(port)
		frontends = append(frontends, jsonObject{"name": name, "mode": "http", "port": port.Port, "default_backend": name, "rules": []any{},
			"networks":    []any{jsonObject{"name": "public-IPv4"}, jsonObject{"name": "private-IPv4"}},
			"properties":  jsonObject{"timeout_client": 10, "http2_enabled": false},
			"tls_configs": []any{}})
		properties := jsonObject{"timeout_server": 10, "timeout_tunnel": 3600, "health_check_type": "tcp", "health_check_interval": 10,
			"health_check_fall": 3, "health_check_rise": 3, "health_check_url": "/", "health_check_expected_status": 200, "tls_enabled": false,
			"tls_verify": false, "tls_use_system_ca": false, "http2_enabled": false, "health_check_tls_verify": false}
		if s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
			properties["health_check_type"], properties["health_check_url"] = "http", fmt.Sprintf("http://:%d", s.Spec.HealthCheckNodePort)
		}
		var members []any
		for _, node := range a.nodes {
			ip, _ := plan.InternalIPv4(node)
			members = append(members, jsonObject{"name": node.Name, "ip": ip.String(), "port": port.NodePort, "weight": 100, "max_sessions": 1000,
				"type": "static", "enabled": true})
		}
		backends = append(backends, jsonObject{"name": name, "members": members, "properties": properties})
	}
	request := jsonObject{"name": identity.LegacyName, "plan": "development", "zone": zone, "configured_status": "started", "resolvers": []any{},
		"networks": []any{jsonObject{"name": "public-IPv4", "type": "public", "family": "IPv4"},
			jsonObject{"name": "private-IPv4", "type": "private", "family": "IPv4", "uuid": must(a.cloud.PrivateNetworks(t.Context(), zone))[0].ID}}}
	config := jsonObject{}
	if text, ok := s.Annotations[settings.AnnotationConfig]; ok {
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
	}
	for key, value := range config {
		request[key] = value
	}
	labels, _ := config["labels"].([]any)
	for _, pair := range [][2]string{{"ccm_cluster_id", clusterID}, {"ccm_cluster_name", "prod"}, {"ccm_generated_name", identity.LegacyName},
		{"ccm_external_traffic_policy", strings.ToLower(string(s.Spec.ExternalTrafficPolicy))}} {
		labels = append(labels, jsonObject{"key": pair[0], "value": pair[1]})
	}
	request["labels"] = labels
	request["backends"] = officialMerge(config["backends"], backends)
	frontends = officialMerge(config["frontends"], frontends)
	request["frontends"] = []any{}

	var made struct {
		ID      string `json:"uuid"`
		DNSName string `json:"dns_name"`
	}
	a.Do(t, http.MethodPost, "/load-balancer", example.JSON(t, request), &made)
	bundle := ""
	for _, one := range frontends {
		frontend := one.(jsonObject)
		configs, _ := frontend["tls_configs"].([]any)
		auto := fmt.Sprint(frontend["port"]) == "443" && len(configs) == 0
		if len(configs) > 0 && configs[0].(jsonObject)["name"] == "needs-certificate" {
			auto = true
		}
		if auto && frontend["mode"] == "http" {
			name := settings.Cut(identity.LegacyName, 60) + "-tls"
			if bundle == "" {
				made, err := a.cloud.CreateCertificateBundle(t.Context(), cloud.CertificateBundle{Name: name, Type: cloud.BundleDynamic,
					KeyType: "ecdsa", Hostnames: []string{made.DNSName}})
				if err != nil {
					t.Fatal(err)
				}
				bundle = made.ID
			}
			frontend["tls_configs"] = []any{jsonObject{"name": name, "certificate_bundle_uuid": bundle}}
		}
		a.Do(t, http.MethodPost, "/load-balancer/"+made.ID+"/frontends", example.JSON(t, frontend), nil)
	}
	a.settle(made.ID)
	s = s.DeepCopy()
	example.Annotated(s, "id", made.ID, "name", identity.LegacyName)
	return a.addService(s), a.only()
}

// officialMerge fills what a list of the configuration leaves empty with the defaults of the same name.
func officialMerge(given any, defaults []any) []any {
	all, _ := given.([]any)
	if len(all) == 0 {
		return defaults
	}
	for _, one := range all {
		component := one.(jsonObject)
		empty := func(value any) bool { return value == nil || value == "" || value == 0.0 }
		if empty(component["name"]) && len(all) == 1 && len(defaults) == 1 {
			component["name"] = defaults[0].(jsonObject)["name"]
		}
		for _, standard := range defaults {
			for field, value := range standard.(jsonObject) {
				if component["name"] == standard.(jsonObject)["name"] && empty(component[field]) {
					component[field] = value
				}
			}
		}
	}
	return all
}

// What UpCloud's own CCM made is taken over as it is: nothing is written to it but our labels, whatever its Service's annotations
// say, as those are what it was made of.
func TestTakeOverChangesNothing(t *testing.T) {
	readme, err := os.ReadFile("testdata/readme-config.json")
	if err != nil {
		t.Fatal(err)
	}
	local := func(s *v1.Service) {
		s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 32000
	}
	two := []string{"http 80 30080", "https 443 30443"}
	for _, test := range []struct {
		name      string
		clusterID string
		ports     []string
		config    string
		change    func(*v1.Service)
	}{
		{name: "no configuration", ports: two},
		{name: "cluster with an ID, and a name that was cut", clusterID: "0d4f1e3b-8a5e-4a84-9b67-6a4d7a2f4c11", ports: two,
			change: func(s *v1.Service) { s.Namespace, s.Name = "production-environment", "my-application-api" }},
		{name: "externalTrafficPolicy Local", ports: two, change: local},
		{name: "externalTrafficPolicy Local and properties", ports: two[:1], change: local,
			config: `{"backends":[{"properties":{"timeout_server":30,"outbound_proxy_protocol":"v2","health_check_type":"http","health_check_url":"http://:32000"}}]}`},
		{name: "the example of its documentation", ports: two[1:], config: string(readme)},
		{name: "mode tcp", ports: two, config: `{"plan":"development","frontends":[{"name":"http","mode":"tcp"},{"name":"https","mode":"tcp"}],
			"backends":[{"name":"http","properties":{"outbound_proxy_protocol":"v2"}},{"name":"https","properties":{"outbound_proxy_protocol":"v2"}}]}`},
		{name: "certificate asked for", ports: []string{"web 8443 30443"},
			config: `{"frontends":[{"mode":"http","tls_configs":[{"name":"needs-certificate"}]}]}`},
		{name: "empty values", ports: two[:1], config: `{"plan":"development","frontends":[{"name":"","mode":"http","port":80,"rules":[],
			"tls_configs":[]}],"labels":[{"key":"env","value":"prod"}],"networks":[{"name":"public-IPv4","type":"public","family":"IPv4"},
			{"name":"private-IPv4","type":"private","family":"IPv4","uuid":"PRIVATE"}],"maintenance_dow":"sunday","maintenance_time":"20:01:01Z"}`},
		{name: "private", ports: two[:1], config: `{"networks":[{"name":"private","type":"private","family":"IPv4","uuid":"PRIVATE"}],
			"frontends":[{"name":"http","mode":"tcp","port":80,"networks":[{"name":"private"}]}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1", "n2")
			l := a.balancers(func(c *Config) { c.ClusterID = test.clusterID })
			s := example.Service(test.ports...)
			if test.config != "" {
				config := strings.ReplaceAll(test.config, "0aded5c1-c7a3-498a-b9c8-a871611c47a2", a.newBundle(cloud.BundleManual))
				config = strings.ReplaceAll(config, "PRIVATE", must(a.cloud.PrivateNetworks(t.Context(), zone))[0].ID)
				example.Annotated(s, "config", config)
			}
			if test.change != nil {
				test.change(s)
			}
			s, before := a.official(s, test.clusterID)
			raw := a.raw("/load-balancer/" + before.ID)
			a.ResetRequests()
			for range 2 {
				a.ensure(l, s)
			}
			if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
				t.Fatal(err)
			}
			for _, write := range a.writes() {
				if write != "POST /load-balancer/{uuid}/labels" {
					t.Errorf("writes: %v", a.writes())
				}
			}
			changing := cmpopts.IgnoreMapEntries(func(key string, _ any) bool {
				return slices.Contains([]string{"labels", "updated_at", "operational_state"}, key)
			})
			if diff := cmp.Diff(raw, a.raw("/load-balancer/"+before.ID), changing); diff != "" {
				t.Error(diff)
			}
			if said := a.said(); len(said) > 0 {
				t.Errorf("events: %q", said)
			}
			a.unchanged(l, s)
			a.delete(l, s)
			for _, bundle := range a.bundles() {
				if bundle.Type == cloud.BundleDynamic {
					t.Errorf("left in the account: %+v", bundle)
				}
			}
		})
	}
}

// A port that the configuration does not list is not served by UpCloud's own CCM, though the Service has it and its status says that
// all is well. Here it is.
func TestPortsThatTheConfigurationDoesNotListAreServed(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s, before := a.official(example.Annotated(example.Service("http 80 30080", "https 443 30443"), "config",
		`{"frontends":[{"name":"https","mode":"tcp"}],"backends":[{"name":"https"}]}`), "")
	if got := summary(before); strings.Contains(got, ":80") {
		t.Fatal(got)
	}
	a.ensure(l, s)
	want := example.Lines("backend http tcp n1:30080", "backend https tcp n1:30443", "frontend http tcp :80 -> http", "frontend https tcp :443 -> https")
	if diff := cmp.Diff(want, summary(a.only())); diff != "" {
		t.Error(diff)
	}
}

// A Service that is made after the change of controllers is of mode tcp, or of the mode that the configuration file has.
func TestDefaultModeOfNewPorts(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(func(c *Config) { c.DefaultMode = "http" })
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	if got := summary(a.only()); !strings.Contains(got, "frontend http http :80") {
		t.Error(got)
	}
}

// TLS is to be passed through to the Pods, where UpCloud's own CCM had terminated it: its certificate goes from the frontend at once, and from
// the account with the Service.
func TestTLSPassthroughAfterATakeOver(t *testing.T) {
	for _, annotation := range [][2]string{{"mode", "tcp"}, {"config", `{"frontends":[{"name":"https","mode":"tcp"}]}`}} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		s, before := a.official(example.Service("https 443 30443"), "")
		if frontend := before.Frontends[0]; frontend.Mode != "http" || len(frontend.TLSConfigs) != 1 {
			t.Fatalf("%+v", frontend)
		}
		a.ensure(l, s)
		a.change(s, func(s *v1.Service) { example.Annotated(s, annotation[0], annotation[1]) })
		a.ensure(l, s)
		if frontend := a.only().Frontends[0]; frontend.Mode != "tcp" || len(frontend.TLSConfigs) != 0 {
			t.Errorf("%s: %+v", annotation, frontend)
		}
		a.unchanged(l, s)
		a.delete(l, s)
		if left := a.bundles(); len(left) > 0 {
			t.Errorf("%s: left in the account: %+v", annotation, left)
		}
	}
}
