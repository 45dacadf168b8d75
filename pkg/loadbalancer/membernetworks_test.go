package loadbalancer

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// attach gives each node's server an interface in the network, too.
func (a *account) attach(network string) {
	a.t.Helper()
	for _, node := range a.nodes {
		id, err := providerid.Parse(node.Spec.ProviderID)
		if err != nil {
			a.t.Fatal(err)
		}
		a.Do(a.t, http.MethodPost, "/server/"+id+"/stop", `{"stop_server":{"stop_type":"hard","timeout":"1"}}`, nil)
		a.waitState(id, "stopped")
		a.Do(a.t, http.MethodPost, "/server/"+id+"/networking/interface",
			fmt.Sprintf(`{"interface":{"type":"private","network":%q,"ip_addresses":{"ip_address":[{"family":"IPv4"}]}}}`, network), nil)
		a.Do(a.t, http.MethodPost, "/server/"+id+"/start", "", nil)
		a.waitState(id, "started")
	}
}

func (a *account) waitState(server, want string) {
	a.t.Helper()
	for {
		var answer struct{ Server struct{ State string } }
		a.Do(a.t, http.MethodGet, "/server/"+server, "", &answer)
		if answer.Server.State == want {
			return
		}
		if a.t.Context().Err() != nil {
			a.t.Fatalf("server %s is %s", server, answer.Server.State)
		}
	}
}

// Members have the address of the network that the load balancer is on, whichever of their nodes' networks that is.
func TestMembersHaveTheAddressInTheLoadBalancersNetwork(t *testing.T) {
	for name, reference := range map[string]string{"its own": "", "shared": "create/edge"} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1", "n2")
			second := a.CreateNetwork(t, "second", zone, "10.9.0.0/24")
			a.attach(second)
			proven := func(c *cloud.Cloud) func(*Config) {
				return func(config *Config) { config.Cloud, config.NodeAddresses = c, newInstances(t, c).NodeAddresses }
			}
			l := a.balancers(proven(a.connect()))
			s := example.Annotated(example.Service("http 80 30080"), "private-networks", second)
			if reference != "" {
				s = example.Annotated(s, settings.SharedName, reference)
			}
			s = a.addService(s)
			a.ensure(l, s)
			inSecond := func(when string) {
				t.Helper()
				for _, backend := range a.only().Backends {
					if len(backend.Members) != 2 {
						t.Errorf("%s: %d members", when, len(backend.Members))
					}
					for _, member := range backend.Members {
						if !strings.HasPrefix(member.IP, "10.9.0.") {
							t.Errorf("%s: member %s has address %s, which the load balancer does not reach", when, member.Name, member.IP)
						}
					}
				}
			}
			inSecond("made")
			if events := strings.Join(a.said(), "\n"); strings.Contains(events, "NodesOutsideNetwork") || strings.Contains(events, "NetworkNotAttached") {
				t.Errorf("events: %s", events)
			}
			a.ResetRequests()
			a.update(l, a.current(s))
			if total := a.Requests().Total(); total != 0 {
				t.Errorf("an update that changes nothing: %v", a.Requests())
			}
			a.ensure(l, s)
			if total := a.Requests().Total(); total != 1 {
				t.Errorf("a reconcile that changes nothing: %v", a.Requests())
			}
			restarted := a.balancers(proven(a.connect()))
			a.update(restarted, a.current(s))
			a.ensure(restarted, s)
			inSecond("after a restart")
		})
	}
}

// Nodes of other clouds are no members, and one event says so.
func TestNodesOfOtherCloudsAreNoMembers(t *testing.T) {
	for _, reference := range []string{"", "create/edge"} {
		a := newAccount(t, simulator.Config{}, "n1")
		for name, id := range map[string]string{"hetzner": "hcloud://4711", "edge": "k3s://edge", "lightsail": "aws:///eu-north-1a/i-0123456789abcdef0"} {
			a.nodes = append(a.nodes, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NodeSpec{ProviderID: id}, Status: claiming("172.16.0.99")})
		}
		l := a.balancers()
		s := example.Service("http 80 30080")
		if reference != "" {
			s = example.Annotated(s, settings.SharedName, reference)
		}
		s = a.addService(s)
		a.ensure(l, s)
		a.ensure(l, s)
		a.update(l, a.current(s))
		for _, backend := range a.only().Backends {
			if len(backend.Members) != 1 || backend.Members[0].Name != "n1" {
				t.Errorf("shared %q: members %+v, want n1 alone", reference, backend.Members)
			}
		}
		events := 0
		for _, event := range a.said() {
			if strings.Contains(event, "NodesOfOtherClouds") {
				events++
				if !strings.Contains(event, "edge, hetzner, lightsail") {
					t.Errorf("event: %s", event)
				}
			}
		}
		if events != 1 {
			t.Errorf("shared %q: %d events, want 1", reference, events)
		}
	}
}
