package loadbalancer

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// memberNames are the members of the first backend.
func (a *account) memberNames() string {
	a.t.Helper()
	var names []string
	for _, member := range a.only().Backends[0].Members {
		names = append(names, member.Name)
	}
	return strings.Join(names, " ")
}

func withHTTP3(s *v1.Service) {
	s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "websecure-http3", Protocol: v1.ProtocolUDP, Port: 443, NodePort: 30443})
}

// A UDP port beside the TCP port of the same number, as for HTTP/3: the Service is served, and one event says what it does not get.
func TestUDPPortBesideItsTCPTwinIsARemark(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := example.Annotated(example.Service("websecure 443 30443"), "proxy-protocol", "443=v2")
	withHTTP3(s)
	s = a.addService(s)
	a.ensure(l, s)
	lb := a.only()
	if len(lb.Frontends) != 1 || lb.Frontends[0].Name != "websecure" || lb.Backends[0].Properties["outbound_proxy_protocol"] != "v2" {
		t.Errorf("frontends %+v, backends %+v", lb.Frontends, lb.Backends)
	}
	said := strings.Join(a.said(), "\n")
	if strings.Count(said, "UnsupportedProtocol") != 1 || !strings.Contains(said, "443/UDP (websecure-http3) is not served") {
		t.Errorf("events: %s", said)
	}
	a.nodes = nil
	a.addNode("n2")
	a.update(l, a.current(s))
	if got := a.memberNames(); got != "n2" {
		t.Errorf("members %s", got)
	}
}

// All nodes are replaced while a Service waits to be corrected. Traffic follows them, but where the mistake is about the choice of nodes.
func TestNodesAreReplacedWhileAServiceHasAMistake(t *testing.T) {
	for _, test := range []struct {
		name    string
		mistake func(*v1.Service)
		want    string
	}{
		{"a value", func(s *v1.Service) { example.Annotated(s, "timeout-client", "soon") }, "n2"},
		{"a name", func(s *v1.Service) { example.Annotated(s, "visibilty", "private") }, "n2"},
		{"the configuration", func(s *v1.Service) { example.Annotated(s, "config", `{"frontends":[{"name":1}]}`) }, "n2"},
		{"a UDP port", func(s *v1.Service) {
			s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "dns", Protocol: v1.ProtocolUDP, Port: 53, NodePort: 30053})
		}, "n2"},
		{"source ranges", func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0"} }, "n2"},
		{"a sharing that is refused", func(s *v1.Service) { example.Annotated(s, "shared", "no such/name") }, "n2"},
		{"the node selector", func(s *v1.Service) { example.Annotated(s, "node-selector", "{matchLabel: {a: b}}") }, "n1"},
		{"the node selector's name", func(s *v1.Service) { example.Annotated(s, "node-selectr", "{matchLabels: {a: b}}") }, "n1"},
	} {
		for _, restarted := range []bool{false, true} {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers()
			s := a.addService(example.Service("http 80 30080"))
			a.ensure(l, s)
			a.change(s, test.mistake)
			refuse := func() {
				if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil {
					t.Errorf("%s: not refused", test.name)
				}
			}
			if !restarted {
				refuse()
			}
			a.addNode("n2")
			if restarted { // the node came while no controller ran
				l = a.balancers()
				refuse()
			} else {
				a.update(l, a.current(s))
			}
			a.nodes = a.nodes[1:]
			a.update(l, a.current(s))
			if got := a.memberNames(); got != test.want {
				t.Errorf("%s, restarted %v: members %s, want %s", test.name, restarted, got, test.want)
			}
		}
	}
}

// The configuration names the members of a backend, and then gets a mistake: no node takes their place.
func TestMembersOfTheConfigurationStayDespiteMistakes(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "config",
		`{"backends":[{"name":"http","members":[{"name":"vm","ip":"10.0.0.1","port":80}]}]}`))
	a.ensure(l, s)
	a.change(s, func(s *v1.Service) { example.Annotated(s, "config", `{"backends":[{"name":1}]}`) })
	a.addNode("n2")
	a.update(l, a.current(s))
	if got := a.memberNames(); got != "vm" {
		t.Errorf("members %s, want vm", got)
	}
}

// The same on a load balancer that the Service shares.
func TestNodesAreReplacedWhileASharingServiceHasAMistake(t *testing.T) {
	for mistake, want := range map[string]string{"timeout-server": "n2", "node-selector": "n1"} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		s := a.addService(sharingService("web", "create/saas", []string{"http 80 30080"}))
		a.ensure(l, s)
		a.change(s, func(s *v1.Service) { example.Annotated(s, mistake, "soon") })
		a.addNode("n2")
		a.update(l, a.current(s))
		a.nodes = a.nodes[1:]
		a.update(l, a.current(s))
		if got := a.memberNames(); got != want {
			t.Errorf("%s: members %s, want %s", mistake, got, want)
		}
	}
}
