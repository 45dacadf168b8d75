package loadbalancer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// slice is an EndpointSlice of the Service, with endpoints such as "web-1 10.244.1.5 ready".
func slice(s *v1.Service, name string, ports map[string]int32, endpoints ...string) *discovery.EndpointSlice {
	made := &discovery.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: name, Labels: map[string]string{discovery.LabelServiceName: s.Name},
		},
		AddressType: discovery.AddressTypeIPv4,
	}
	for port, number := range ports {
		made.Ports = append(made.Ports, discovery.EndpointPort{Name: new(port), Port: new(number)})
	}
	for _, text := range endpoints {
		var pod, ip, state string
		_, _ = fmt.Sscanf(text, "%s %s %s", &pod, &ip, &state)
		made.Endpoints = append(made.Endpoints, discovery.Endpoint{
			Addresses: []string{ip}, Conditions: discovery.EndpointConditions{Ready: new(state == "ready")},
			TargetRef: &v1.ObjectReference{Kind: "Pod", Namespace: s.Namespace, Name: pod},
		})
	}
	return made
}

func (a *account) setSlice(slice *discovery.EndpointSlice) {
	a.t.Helper()
	slices := a.client.DiscoveryV1().EndpointSlices(slice.Namespace)
	_, err := slices.Update(a.t.Context(), slice, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = slices.Create(a.t.Context(), slice, metav1.CreateOptions{})
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// followPods runs FollowPods until the test ends.
func (a *account) followPods(l *LoadBalancers) {
	a.t.Helper()
	shared := informers.NewSharedInformerFactory(a.client, 0)
	services := shared.Core().V1().Services().Lister()
	_, nodes := a.listers()
	ctx, cancel := context.WithCancel(a.t.Context())
	var following sync.WaitGroup
	shared.Start(ctx.Done())
	following.Go(func() { l.FollowPods(ctx, services, nodes) })
	a.t.Cleanup(func() {
		cancel()
		following.Wait()
		shared.Shutdown()
	})
}

// wantBackend waits until the one load balancer has the backend.
func (a *account) wantBackend(want string) {
	a.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		got := summary(a.only())
		if strings.Contains(got, "backend "+want+"\n") {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("want backend %q of\n%s", want, got)
		}
	}
}

// knownSlices are the slices that are known from now on, without anybody who follows them.
func (a *account) knownSlices(l *LoadBalancers) func(...*discovery.EndpointSlice) {
	store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	l.pods.slices = discoverylisters.NewEndpointSliceLister(store)
	close(l.pods.ready)
	return func(all ...*discovery.EndpointSlice) {
		for _, one := range all {
			if err := store.Update(one); err != nil {
				a.t.Fatal(err)
			}
		}
	}
}

// podsChanged does what FollowPods does when a slice of the Service changes.
func (a *account) podsChanged(ctx context.Context, l *LoadBalancers, s *v1.Service) error {
	services, nodes := a.listers()
	return l.updatePods(ctx, cache.NewObjectName(s.Namespace, s.Name), services, nodes)
}

// renew does what FollowSecrets does when a Secret of the Service changes.
func (a *account) renew(l *LoadBalancers, s *v1.Service) error {
	_, nodes := a.listers()
	return l.renew(a.t.Context(), a.current(s), nodes)
}

func podMembers(c *Config) { c.PodMembers = true }

// Without node ports the Pods are the members, those that are ready, as they come and go.
func TestPodsAreMembers(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers(podMembers)
	a.followPods(l)
	s := example.Service("http 80 0")
	s.Spec.AllocateLoadBalancerNodePorts = new(false)
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 31000
	s = a.addService(s)
	ports := map[string]int32{"http": 8080}
	a.setSlice(slice(s, "web-a", ports, "web-1 10.244.1.5 ready", "web-2 10.244.2.5 not"))
	a.setSlice(slice(s, "web-metrics", map[string]int32{"metrics": 9090}, "web-1 10.244.1.5 ready"))
	a.setSlice(slice(s, "web-by-hand", map[string]int32{"http": 70000}, "web-9 10.244.1.9 ready"))
	ipv6 := slice(s, "web-6", ports, "web-1 fd00::5 ready")
	ipv6.AddressType = discovery.AddressTypeIPv6
	a.setSlice(ipv6)
	a.ensure(l, s)
	a.wantBackend("http tcp web-1:8080")
	lb := a.only()
	if lb.Backends[0].Members[0].IP != "10.244.1.5" || strings.Contains(example.JSON(t, lb.Backends[0].Properties), "31000") {
		t.Errorf("backend: %s", example.JSON(t, lb.Backends[0]))
	}

	a.setSlice(slice(s, "web-a", ports, "web-1 10.244.1.5 ready", "web-2 10.244.2.5 ready"))
	a.wantBackend("http tcp web-1:8080,web-2:8080")
	a.setSlice(slice(s, "web-b", ports, "web-2 10.244.2.5 ready", "web-3 10.244.1.6 ready")) // web-2 moves to another slice
	a.wantBackend("http tcp web-1:8080,web-2:8080,web-3:8080")
	if err := a.client.DiscoveryV1().EndpointSlices(s.Namespace).Delete(t.Context(), "web-a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.wantBackend("http tcp web-2:8080,web-3:8080")

	// A reconcile, a node that comes, a Secret that changes and the periodic check find all as it should be.
	a.settle(lb.ID)
	a.addNode("n3")
	a.ResetRequests()
	a.ensure(l, s)
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
		t.Fatal(err)
	}
	if err := a.renew(l, s); err != nil {
		t.Fatal(err)
	}
	a.check(l)
	if writes := a.writes(); len(writes) > 0 {
		t.Errorf("writes: %v", writes)
	}
	// Nodes do not matter.
	a.said()
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), nil); err != nil {
		t.Fatal(err)
	}
	if said := a.said(); len(said) > 0 {
		t.Errorf("events: %v", said)
	}

	// The addresses of Pods that are gone are soon other Pods', perhaps other people's.
	a.setSlice(slice(s, "web-b", ports, "web-2 10.244.2.5 not", "web-3 10.244.1.6 not"))
	a.wantBackend("http tcp ")
	a.delete(l, s)
}

// A Service that gets node ports has nodes as members from then on, and the other way round.
func TestFromPodsToNodes(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers(podMembers)
	a.followPods(l)
	s := a.addService(example.Service("http 80 0"))
	a.setSlice(slice(s, "web-a", map[string]int32{"http": 8080}, "web-1 10.244.1.5 ready"))
	a.ensure(l, s)
	a.wantBackend("http tcp web-1:8080")
	id := a.only().ID
	for _, step := range []struct {
		nodePort int32
		want     string
	}{{30080, "http tcp n1:30080,n2:30080"}, {0, "http tcp web-1:8080"}} {
		s = a.current(s)
		s.Spec.Ports[0].NodePort = step.nodePort
		if _, err := a.client.CoreV1().Services(s.Namespace).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		a.ensure(l, s)
		a.wantBackend(step.want)
	}
	if a.only().ID != id {
		t.Error("there is another load balancer")
	}
}

// Which Pods are ready must be known before any load balancer is changed.
func TestPodsAreWaitedFor(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(podMembers)
	s := a.addService(example.Service("http 80 0"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.EnsureLoadBalancer(ctx, "prod", s, a.nodes); err == nil || len(a.list()) > 0 {
		t.Errorf("error %v, load balancers %v", err, a.list())
	}
	l.pods.wait = 0 // a controller's own context does not end
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", s, a.nodes); err == nil || !strings.Contains(err.Error(), "EndpointSlices") {
		t.Errorf("error %v", err)
	}
}

// Unless it is allowed, and on a load balancer that is shared, a Service without node ports is refused.
func TestPodsAreNoMembersUnlessAllowed(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	for name, l := range map[string]*LoadBalancers{"not allowed": a.balancers(), "shared": a.balancers(podMembers)} {
		s := example.Service("http 80 0")
		s.Name = strings.ReplaceAll(name, " ", "-")
		if name == "shared" {
			example.Annotated(s, "shared", "group")
		}
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.addService(s), a.nodes)
		if err == nil || !strings.Contains(err.Error(), "allocateLoadBalancerNodePorts") {
			t.Errorf("%s: %v", name, err)
		}
		if said := strings.Join(a.said(), "\n"); !strings.Contains(said, settings.ReasonNodePortMissing) {
			t.Errorf("%s: events: %s", name, said)
		}
	}
	if all := a.list(); len(all) > 0 {
		t.Errorf("load balancers: %v", all)
	}
}

// Pods come and go whatever waits to be corrected in the Service, and no matter how few nodes there are.
func TestPodsAreFollowedDespiteMistakes(t *testing.T) {
	mistakes := map[string]func(*v1.Service){
		"in an annotation": func(s *v1.Service) { example.Annotated(s, "visibilty", "private") },
		"in the Service":   func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/99"} },
	}
	for name, mistake := range mistakes {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers(podMembers)
			know := a.knownSlices(l)
			s := a.addService(example.Service("http 80 0"))
			ports := map[string]int32{"http": 8080}
			know(slice(s, "web-a", ports, "web-1 10.244.1.5 ready", "web-2 10.244.1.6 ready"))
			a.ensure(l, s)

			s = a.current(s)
			mistake(s)
			if _, err := a.client.CoreV1().Services(s.Namespace).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := l.EnsureLoadBalancer(t.Context(), "prod", s, a.nodes); err == nil {
				t.Fatal("there is no mistake")
			}
			if err := l.UpdateLoadBalancer(t.Context(), "prod", s, a.nodes); err != nil {
				t.Fatal(err)
			}
			if got := summary(a.only()); !strings.Contains(got+"\n", "backend http tcp web-1:8080,web-2:8080\n") {
				t.Errorf("after the mistake:\n%s", got)
			}
			know(slice(s, "web-a", ports, "web-1 10.244.1.5 not", "web-2 10.244.1.6 ready", "web-3 10.244.1.7 ready"))
			if err := a.podsChanged(t.Context(), l, s); err != nil {
				t.Fatal(err)
			}
			if got := summary(a.only()); !strings.Contains(got+"\n", "backend http tcp web-2:8080,web-3:8080\n") {
				t.Errorf("after a Pod came and another went:\n%s", got)
			}
		})
	}
}

// A Pod that became a member when a Secret changed, and has gone since, is one no longer.
func TestPodsThatRenewMadeMembersGo(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(podMembers)
	know := a.knownSlices(l)
	s := a.addService(example.Service("http 80 0"))
	one := slice(s, "web-a", map[string]int32{"http": 8080}, "web-1 10.244.1.5 ready")
	know(one)
	a.ensure(l, s)
	know(slice(s, "web-a", map[string]int32{"http": 8080}, "web-1 10.244.1.5 ready", "web-2 10.244.1.6 ready"))
	if err := a.renew(l, s); err != nil {
		t.Fatal(err)
	}
	know(one)
	if err := a.podsChanged(t.Context(), l, s); err != nil {
		t.Fatal(err)
	}
	if got := summary(a.only()); !strings.Contains(got+"\n", "backend http tcp web-1:8080\n") {
		t.Errorf("a Pod that has gone is a member:\n%s", got)
	}
}

// Who follows Pods does not wait for a Service that is about to go: the Pods of others would wait, too.
func TestPodsOfServicesThatGoHoldUpNobody(t *testing.T) {
	a := newAccount(t, simulator.Config{})
	l := a.balancers(podMembers)
	s := example.Service("http 80 0")
	s.DeletionTimestamp, s.Finalizers = new(metav1.Now()), []string{"service.kubernetes.io/load-balancer-cleanup"}
	s = a.addService(s)
	unlock, err := l.locks.lock(t.Context(), string(s.UID))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.podsChanged(ctx, l, s); err != nil {
		t.Error(err)
	}
}

// A slice that is given to another Service is no longer this one's.
func TestSlicesMayChangeTheirService(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(podMembers)
	a.followPods(l)
	s := a.addService(example.Service("http 80 0"))
	a.ensure(l, s)
	moving := slice(s, "web-a", map[string]int32{"http": 8080}, "web-1 10.244.1.5 ready")
	a.setSlice(moving)
	a.wantBackend("http tcp web-1:8080") // by who follows Pods: nothing of the slice is left to be looked at
	moving = moving.DeepCopy()
	moving.Labels[discovery.LabelServiceName] = "other"
	a.setSlice(moving)
	a.wantBackend("http tcp ")
}
