package loadbalancer

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// podAccount has a load balancer for a Service whose port http has Pods as members, and whose port ssh nodes.
type podAccount struct {
	*account
	l       *LoadBalancers
	know    func(...*discovery.EndpointSlice)
	service *v1.Service
}

func newPodAccount(t *testing.T, annotations ...string) *podAccount {
	a := &podAccount{account: newAccount(t, simulator.Config{}, "n1", "n2")}
	a.restart()
	a.service = a.addService(example.Annotated(example.Service("http 80 0", "ssh 22 30022"), annotations...))
	a.ready("web-1 10.244.1.5", "web-2 10.244.2.5")
	a.ensure(a.l, a.service)
	a.want("at first", "web-1:8080,web-2:8080")
	return a
}

// restart is what a change of the leader is for load balancers.
func (a *podAccount) restart() {
	a.l = a.balancers(podMembers)
	a.know = a.knownSlices(a.l)
}

// ready says which Pods are, without anybody who follows them.
func (a *podAccount) ready(pods ...string) {
	a.t.Helper()
	for i := range pods {
		pods[i] += " ready"
	}
	a.know(slice(a.service, "web-a", map[string]int32{"http": 8080, "ssh": 2222}, pods...))
}

func (a *podAccount) follow() {
	a.t.Helper()
	if err := a.podsChanged(a.t.Context(), a.l, a.service); err != nil {
		a.t.Fatal(err)
	}
}

// want checks the members of the port that has Pods; those of the other one are to stay.
func (a *podAccount) want(when, pods string) {
	a.t.Helper()
	got := summary(a.only()) + "\n"
	for _, want := range []string{"backend http tcp " + pods + "\n", "backend ssh tcp n1:30022,n2:30022\n"} {
		if !strings.Contains(got, want) {
			a.t.Errorf("%s: want %s of\n%s", when, want, got)
		}
	}
}

// A mistake leaves the load balancer as it was, which goes on leading to the Service's Pods. Who becomes the leader after the mistake
// was made follows them at once.
func TestPodsOfARefusedServiceAreFollowed(t *testing.T) {
	for name, mistake := range map[string]func(*v1.Service){
		"a slip in an annotation":                     func(s *v1.Service) { example.Annotated(s, "visibilty", "private") },
		"to share, which Services with Pods cannot":   func(s *v1.Service) { example.Annotated(s, "shared", "create/web") },
		"to share, with another mistake in that wish": func(s *v1.Service) { example.Annotated(s, "shared", "create/web", "retain", "true") },
		"node ports that come with a slip": func(s *v1.Service) {
			example.Annotated(s, "visibilty", "private").Spec.Ports[0].NodePort = 30080
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newPodAccount(t)
			refused := func() {
				t.Helper()
				var retry *api.RetryError
				_, err := a.l.EnsureLoadBalancer(t.Context(), "prod", a.current(a.service), a.nodes)
				if !errors.As(err, &retry) || retry.RetryAfter() != refusedRetry {
					t.Errorf("error %v, want a refusal", err)
				}
			}
			a.change(a.service, mistake)
			refused()
			a.ready("web-2 10.244.2.5", "web-3 10.244.1.6")
			a.follow()
			a.want("when Pods come and go", "web-2:8080,web-3:8080")

			a.restart()
			a.ready("web-3 10.244.1.6", "web-4 10.244.2.6")
			refused()
			a.want("at the first look of another leader", "web-3:8080,web-4:8080")
			a.ready("web-4 10.244.2.6")
			a.follow()
			a.want("when another leader follows", "web-4:8080")
			if all := a.list(); len(all) != 1 {
				t.Errorf("load balancers: %+v", all)
			}
		})
	}
}

// A Service that leaves its Pods for nodes, to share, takes the load balancer along that leads to its Pods.
func TestNoLoadBalancerOfPodsIsLeftBehindByWhoShares(t *testing.T) {
	a := newPodAccount(t)
	a.change(a.service, func(s *v1.Service) { example.Annotated(s, "shared", "create/web").Spec.Ports[0].NodePort = 30080 })
	a.ensure(a.l, a.service)
	if lb := a.only(); lb.Labels[settings.LabelSharedGroup] != "web" || strings.Contains(summary(lb), "web-1:") {
		t.Errorf("load balancer with labels %v:\n%s", lb.Labels, summary(lb))
	}
}

// What could not be done at the first look of a Service that is refused is tried again soon, and not when the mistake is told again.
func TestPodsOfARefusedServiceThatCannotBeFollowed(t *testing.T) {
	a := newPodAccount(t)
	a.change(a.service, func(s *v1.Service) { example.Annotated(s, "visibilty", "private") })
	a.restart()
	a.ready("web-3 10.244.1.6")
	a.Inject(simulator.Fault{Operation: "PATCH /load-balancer/{uuid}/backends/{backend}", Status: http.StatusForbidden, Count: 1})
	_, err := a.l.EnsureLoadBalancer(t.Context(), "prod", a.current(a.service), a.nodes)
	var retry *api.RetryError
	if err == nil || errors.As(err, &retry) || !strings.Contains(err.Error(), "visibilty") {
		t.Errorf("error %v, want one that tells of both", err)
	}
	_, err = a.l.EnsureLoadBalancer(t.Context(), "prod", a.current(a.service), a.nodes)
	if !errors.As(err, &retry) {
		t.Errorf("error %v, want a refusal", err)
	}
	a.want("at last", "web-3:8080")
}

// A load balancer that is not deleted because it is protected goes on leading to the Pods that there are, whatever is to become of its
// Service.
func TestPodsBehindAProtectedLoadBalancerAreFollowed(t *testing.T) {
	for name, change := range map[string]func(*v1.Service){
		"the Service is deleted": func(s *v1.Service) {
			s.DeletionTimestamp, s.Finalizers = new(metav1.Now()), []string{"service.kubernetes.io/load-balancer-cleanup"}
		},
		"it becomes of type ClusterIP": func(s *v1.Service) {
			s.Spec.Type, s.Spec.Ports[1].NodePort = v1.ServiceTypeClusterIP, 0
		},
		"it becomes of type NodePort": func(s *v1.Service) {
			s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeNodePort, 30080
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newPodAccount(t, "deletion-protection", "true", "plan", "production-small")
			sessions := a.only().Backends[0].Members[0].MaxSessions
			a.change(a.service, change)
			refused := func() {
				t.Helper()
				err := a.l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(a.service))
				if err == nil || reasonOf(err) != "DeletionProtected" {
					t.Errorf("error %v", err)
				}
			}
			refused()
			a.ready("web-2 10.244.2.5", "web-3 10.244.1.6")
			a.follow()
			a.want("when Pods come and go", "web-2:8080,web-3:8080")

			a.restart()
			a.ready("web-3 10.244.1.6", "web-4 10.244.2.6")
			refused()
			a.want("at the first look of another leader", "web-3:8080,web-4:8080")
			a.ready("web-4 10.244.2.6")
			a.follow()
			a.want("when another leader follows", "web-4:8080")
			if got := a.only().Backends[0].Members[0].MaxSessions; got != sessions {
				t.Errorf("a Pod that joined has %d sessions, want %d", got, sessions)
			}
			a.ready()
			a.follow()
			a.want("when there is none left", "")

			a.change(a.service, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+"deletion-protection") })
			a.delete(a.l, a.service)
			a.ready("web-5 10.244.2.7")
			a.ResetRequests()
			a.follow()
			if requests := a.Requests(); requests.Total() > 0 {
				t.Errorf("requests for a Service that has no load balancer: %v", requests)
			}
		})
	}
}

// Pods do not take the place of nodes on a load balancer that is kept.
func TestPodsDoNotReplaceTheNodesOfAProtectedLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers(podMembers)
	know := a.knownSlices(l)
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "deletion-protection", "true"))
	a.ensure(l, s)
	before := summary(a.only())
	s = a.change(s, func(s *v1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = v1.ServiceTypeClusterIP, 0 })
	know(slice(s, "web-a", map[string]int32{"http": 8080}, "web-1 10.244.1.5 ready"))
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", s); err == nil {
		t.Error("it is not protected")
	}
	if err := a.podsChanged(t.Context(), l, s); err != nil {
		t.Fatal(err)
	}
	if after := summary(a.only()); after != before {
		t.Errorf("members: %s", after)
	}
}

// Nobody follows Pods for a load balancer that is left to the user: their addresses will be other Pods'.
func TestRetainedLoadBalancerLeadsToNoPods(t *testing.T) {
	for name, change := range map[string]func(*v1.Service){
		"the Service is deleted":       func(*v1.Service) {},
		"it becomes of type ClusterIP": func(s *v1.Service) { s.Spec.Type, s.Spec.Ports[1].NodePort = v1.ServiceTypeClusterIP, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			a := newPodAccount(t, "retain", "true")
			a.restart()
			a.change(a.service, change)
			a.said()
			a.Inject(simulator.Fault{Operation: "DELETE /load-balancer/{uuid}/labels/{key}", Status: http.StatusForbidden, Count: 1})
			if err := a.l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(a.service)); err == nil {
				t.Error("the labels cannot be taken away, and no error")
			}
			a.delete(a.l, a.service)
			a.want("in the end", "")
			if labels := a.only().Labels; labels[settings.LabelServiceUID] != "" {
				t.Errorf("labels: %v", labels)
			}
			if said := strings.Join(a.said(), "\n"); strings.Count(said, "RetainedLoadBalancer") != 1 || !strings.Contains(said, "without the Pods") {
				t.Errorf("events: %s", said)
			}
		})
	}
}

// Members keep the sessions that the plan of their load balancer allows while a mistake in the Service waits to be corrected.
func TestMembersKeepTheirSessionsDespiteMistakes(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "plan", "production-small"))
	a.ensure(l, s)
	before := a.only().Backends[0].Members[0].MaxSessions
	a.change(s, func(s *v1.Service) { example.Annotated(s, "visibilty", "private") })
	a.nodes = a.nodes[:1]
	a.update(l, a.current(s))
	members := a.only().Backends[0].Members
	if len(members) != 1 || members[0].MaxSessions != before {
		t.Errorf("members: %+v, want one with %d sessions", members, before)
	}
}
