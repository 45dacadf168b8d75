package loadbalancer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// onNodes is an EndpointSlice of the Service with a ready endpoint on each of the nodes.
func onNodes(s *v1.Service, nodes ...string) *discovery.EndpointSlice {
	made := slice(s, s.Name+"-a", map[string]int32{"http": 8080})
	for i, node := range nodes {
		made.Endpoints = append(made.Endpoints, discovery.Endpoint{Addresses: []string{fmt.Sprintf("10.244.0.%d", i+1)}, NodeName: new(node)})
	}
	return made
}

// followEndpoints runs FollowEndpoints until the test ends.
func (a *account) followEndpoints(l *LoadBalancers) {
	a.t.Helper()
	shared := informers.NewSharedInformerFactory(a.client, 0)
	services := shared.Core().V1().Services().Lister()
	_, nodes := a.listers()
	ctx, cancel := context.WithCancel(a.t.Context())
	var following sync.WaitGroup
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	following.Go(func() { l.FollowEndpoints(ctx, services, nodes) })
	a.t.Cleanup(func() {
		cancel()
		following.Wait()
		shared.Shutdown()
	})
}

func memberNames(a *account) []string {
	var names []string
	for _, backend := range a.only().Backends {
		for _, member := range backend.Members {
			names = append(names, member.Name)
		}
	}
	slices.Sort(names)
	return names
}

// With more nodes than members those with Pods are members, wherever the Pods go, and few others change.
func TestNodesWithEndpointsAreMembersFirst(t *testing.T) {
	for _, reference := range []string{"", "create/edge"} {
		t.Run(reference, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1", "n2", "n3", "n4", "n5", "n6")
			l := a.balancers()
			s := example.Annotated(example.Service("http 80 30080"), "max-members", "2")
			if reference != "" {
				s = example.Annotated(s, settings.SharedName, reference)
			}
			s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 31000
			s = a.addService(s)
			a.setSlice(onNodes(s, "n5"))
			a.followEndpoints(l)
			a.ensure(l, s)
			before := memberNames(a)
			if len(before) != 2 || !slices.Contains(before, "n5") {
				t.Fatalf("members %v, want n5 and another", before)
			}
			for _, node := range []string{"n1", "n2", "n6", "n3"} {
				a.setSlice(onNodes(s, node))
				a.eventually("the node of the Pod is a member", func() string {
					if got := memberNames(a); len(got) != 2 || !slices.Contains(got, node) {
						return fmt.Sprint(got)
					}
					return ""
				})
				a.ensure(l, s)
				if got := memberNames(a); !slices.Contains(got, node) {
					t.Errorf("after a reconcile: %v", got)
				}
			}
		})
	}
}

// A load balancer none of whose members can serve is not called ready, and is as soon as one can, whether nodes have to be chosen or not.
func TestConditionTellsThatNoNodeHasEndpoints(t *testing.T) {
	for _, most := range []int{2, 100} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1", "n2", "n3")
			l := a.balancers(func(c *Config) { c.MaxMembers = most })
			s := example.Service("http 80 30080")
			s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 31000
			s = a.addService(s)
			a.setSlice(onNodes(s))
			a.followEndpoints(l)
			a.ensure(l, s)
			condition := func(status metav1.ConditionStatus, reason string) func() string {
				return func() string {
					got := meta.FindStatusCondition(a.current(s).Status.Conditions, ConditionReady)
					if got == nil || got.Status != status || got.Reason != reason {
						return fmt.Sprintf("%+v", got)
					}
					return ""
				}
			}
			a.eventually("no endpoint", condition(metav1.ConditionFalse, reasonNoLocalEndpoints))
			a.setSlice(onNodes(s, "n2"))
			a.eventually("one endpoint", condition(metav1.ConditionTrue, ReasonReady))
			a.setSlice(onNodes(s))
			a.eventually("none again", condition(metav1.ConditionFalse, reasonNoLocalEndpoints))
			if got := len(memberNames(a)); got != min(most, 3) {
				t.Errorf("%d members", got)
			}
		})
	}
}

// Where nodes need not be chosen, nothing waits for endpoints, and that they are not known is no news. Pods as members need no node.
func TestConditionNeedsNoEndpoints(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := example.Service("http 80 30080")
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 31000
	s = a.addService(s)
	l.local.wait = time.Hour
	a.ensure(l, s)
	if got := a.ready(s); got.Reason != ReasonReady {
		t.Errorf("condition %+v", got)
	}
	w := &work{LoadBalancers: l, service: s.DeepCopy(), settings: &settings.Settings{}, serving: map[string]bool{}, nodes: a.nodes}
	if got := w.localRemarks(); len(got) != 1 {
		t.Errorf("nodes without endpoints: %v", got)
	}
	w.service.Spec.Ports[0].NodePort = 0
	if got := w.localRemarks(); len(got) != 0 {
		t.Errorf("Pods as members: %v", got)
	}
}

// Nothing is watched for Services that do not need it, and what cannot be watched holds nothing up.
func TestEndpointsAreWatchedOnlyWhereNeeded(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2", "n3")
	l := a.balancers(func(c *Config) { c.MaxMembers = 2 })
	l.local.wait = time.Millisecond
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	select {
	case <-l.local.wanted:
		t.Error("endpoints are watched for a Service that all nodes serve")
	default:
	}
	a.change(s, func(s *v1.Service) {
		s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 31000
	})
	a.ensure(l, s)
	if got := memberNames(a); len(got) != 2 {
		t.Errorf("members %v", got)
	}
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, reasonEndpointsUnknown) {
		t.Errorf("events: %s", said)
	}
}

// Of what is watched only the Service and the nodes are kept, whether a slice is seen once or again.
func TestSlicesAreKeptSmall(t *testing.T) {
	s := example.Service("http 80 30080")
	made := onNodes(s, "n1", "n1", "n2")
	made.Endpoints = append(made.Endpoints, discovery.Endpoint{NodeName: new("n3"), Conditions: discovery.EndpointConditions{Ready: new(false)}}, discovery.Endpoint{})
	for range 2 {
		kept, err := nodesOnly(made)
		if err != nil {
			t.Fatal(err)
		}
		made = kept.(*discovery.EndpointSlice)
		var nodes []string
		for _, endpoint := range made.Endpoints {
			nodes = append(nodes, *endpoint.NodeName)
		}
		if strings.Join(nodes, ",") != "n1,n2" || len(made.Ports) > 0 || made.Labels[discovery.LabelServiceName] != s.Name {
			t.Errorf("kept %v: %+v", nodes, made)
		}
	}
}
