package loadbalancer

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// listers show Services and nodes as they are now.
func (a *account) listers() (corelisters.ServiceLister, corelisters.NodeLister) {
	a.t.Helper()
	services, nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}), cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	all, err := a.client.CoreV1().Services("").List(a.t.Context(), metav1.ListOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	for i := range all.Items {
		if err := services.Add(&all.Items[i]); err != nil {
			a.t.Fatal(err)
		}
	}
	for _, node := range a.nodes {
		if err := nodes.Add(node); err != nil {
			a.t.Fatal(err)
		}
	}
	return corelisters.NewServiceLister(services), corelisters.NewNodeLister(nodes)
}

func (a *account) check(l *LoadBalancers) {
	a.t.Helper()
	services, nodes := a.listers()
	inOneRound(func(r *rounds) { l.mendDrift(a.t.Context(), services, nodes, r) })
}

// everything is all that there is of a load balancer but what every change sets.
func everything(a *account, id string) string {
	a.t.Helper()
	a.settle(id)
	text := a.raw("/load-balancer/" + id)
	var strip func(any) any
	strip = func(value any) any {
		switch value := value.(type) {
		case map[string]any:
			delete(value, "created_at")
			delete(value, "updated_at")
			for key := range value {
				value[key] = strip(value[key])
			}
		case []any:
			for i := range value {
				value[i] = strip(value[i])
			}
		}
		return value
	}
	return example.JSON(a.t, strip(text))
}

// Whatever somebody does to what was made for the Service is undone without an event of Kubernetes, and told.
func TestDriftIsMended(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := example.Service("http 80 30080")
	example.Annotated(s, "mode", "http", "tls-hostnames", "shop.example.com")
	s.Annotations[settings.AnnotationConfig] = `{"frontends":[{"name":"http","rules":[{"name":"old","priority":7,
		"matchers":[{"type":"path","match_path":{"method":"starts","value":"/old"}}],
		"actions":[{"type":"http_return","action_http_return":{"status":404,"content_type":"text/plain","payload":"QQ=="}}]}]}]}`
	s = a.addService(s)
	a.ensure(l, s)
	path := "/load-balancer/" + a.only().ID
	want := everything(a, a.only().ID)
	a.said()

	for _, test := range []struct{ name, method, path, body, told string }{
		{"a member is removed", http.MethodDelete, "/backends/http/members/n1", "", "modify backend http (2 members)"},
		{"a member is misled", http.MethodPatch, "/backends/http/members/n1", `{"port":1}`, "modify backend http (2 members)"},
		{"a backend's property is changed", http.MethodPatch, "/backends/http", `{"properties":{"health_check_interval":77}}`, ""},
		{"a frontend is deleted", http.MethodDelete, "/frontends/http", "", "create frontend http :80"},
		{"a frontend's mode is changed", http.MethodPatch, "/frontends/http", `{"mode":"tcp"}`, "modify frontend http http"},
		{"a rule is deleted", http.MethodDelete, "/frontends/http/rules/old", "", "create rule old of frontend http"},
		{"a rule is changed", http.MethodPatch, "/frontends/http/rules/old", `{"priority":8}`, "modify rule old of frontend http"},
		{"a certificate is taken away", http.MethodDelete, "/frontends/http/tls-configs/TLS", "", "create TLS configuration"},
		{"a label is changed", http.MethodPatch, "/labels/" + settings.LabelTrafficPolicy, `{"key":"` + settings.LabelTrafficPolicy + `","value":"x"}`, "modify label"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a.Do(t, test.method, path+strings.ReplaceAll(test.path, "TLS", tlsNameOf(a)), test.body, nil)
			drifted := everything(a, a.only().ID)
			a.check(l)
			events := strings.Join(a.said(), "\n")
			if test.told == "" { // a person may tune what nobody asked for
				if got := everything(a, a.only().ID); got != drifted || events != "" {
					t.Errorf("%s\nevents: %s", cmp.Diff(drifted, got), events)
				}
				a.Do(t, http.MethodPatch, path+test.path, `{"properties":{"health_check_interval":3}}`, nil)
				return
			}
			if diff := cmp.Diff(want, everything(a, a.only().ID)); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(events, "Normal MendedLoadBalancer") || !strings.Contains(events, test.told) {
				t.Errorf("events %q, want %q", events, test.told)
			}
		})
	}
}

// What is as it should be costs one call for a hundred load balancers, and nothing is written or said.
func TestCheckOfManyIsFewCalls(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	for i := range 120 {
		s := example.Service("http 80 30080", "https 443 30443")
		s.Name, s.UID = fmt.Sprintf("web-%d", i), types.UID(fmt.Sprintf("uid-%d", i))
		a.ensure(l, a.addService(s))
		a.said()
	}
	a.ResetRequests()
	a.check(l)
	if requests := a.Requests(); requests.Total() != 2 || requests.Of("GET /load-balancer") != 2 {
		t.Errorf("requests: %v", requests)
	}
	if said := a.said(); len(said) > 0 {
		t.Errorf("events: %v", said)
	}
	if len(l.tending.bySvc) != 120 || &l.tending.bySvc["uid-1"].nodes[0] != &l.tending.bySvc["uid-119"].nodes[0] {
		t.Error("the names of the nodes are kept for each Service")
	}
}

func TestNothingIsAskedWithoutServices(t *testing.T) {
	a := newAccount(t, simulator.Config{})
	a.check(a.balancers())
	if requests := a.Requests(); requests.Total() != 0 {
		t.Errorf("requests: %v", requests)
	}
}

// What others put on the load balancer stays, and a Service that goes or is not to be served is left alone.
func TestCheckLeavesAlone(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	id := a.only().ID
	a.Do(t, http.MethodPost, "/load-balancer/"+id+"/backends", `{"name":"mine","members":[]}`, nil)
	a.Do(t, http.MethodPost, "/load-balancer/"+id+"/frontends", `{"name":"mine","mode":"tcp","port":9000,"default_backend":"mine"}`, nil)
	a.said()
	before := everything(a, id)
	a.check(l)
	if got := everything(a, id); got != before {
		t.Errorf("what is a person's: %s", cmp.Diff(before, got))
	}

	a.Do(t, http.MethodDelete, "/load-balancer/"+id+"/frontends/http", "", nil)
	before = everything(a, id)
	now := metav1.Now()
	for name, change := range map[string]func(*v1.Service){
		"of another type":         func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeClusterIP },
		"being deleted":           func(s *v1.Service) { s.DeletionTimestamp = &now },
		"with a wrong annotation": func(s *v1.Service) { example.Annotated(s, "mode", "x") },
		"another of its name":     func(s *v1.Service) { s.UID = "uid-2" },
	} {
		was := a.current(s)
		a.change(s, change)
		a.check(l)
		if got := everything(a, id); got != before {
			t.Errorf("a Service %s: %s", name, cmp.Diff(before, got))
		}
		if _, err := a.client.CoreV1().Services(s.Namespace).Update(t.Context(), was, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if said := a.said(); len(said) > 0 {
		t.Errorf("events: %v", said)
	}
	a.check(l)
	if got := everything(a, id); got == before {
		t.Error("the Service itself is not mended")
	}
	a.delete(l, s)
	a.check(l)
	if left := a.list(); len(left) > 0 {
		t.Errorf("made again after the Service went: %v", left)
	}
}

// A load balancer that somebody deletes is made again; the annotation lets the controller publish the new one.
func TestLostLoadBalancerIsMadeAgain(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	first := a.only().ID
	a.Do(t, http.MethodDelete, "/load-balancer/"+first, "", nil)
	for deadline := time.Now().Add(time.Minute); len(a.list()) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("it is there still")
		}
	}
	a.check(l)
	if second := a.only().ID; second == first || a.current(s).Annotations[settings.AnnotationID] != second {
		t.Errorf("annotations %v", a.current(s).Annotations)
	}
}

// With addresses in the status, those follow the load balancer.
func TestCheckPublishesNewAddresses(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	want := a.ensure(l, s)
	a.change(s, func(s *v1.Service) { s.Status.LoadBalancer.Ingress[0].IP = "192.0.2.1" })
	a.settle(a.only().ID)
	a.check(l)
	if diff := cmp.Diff(*want, a.current(s).Status.LoadBalancer); diff != "" {
		t.Error(diff)
	}
}

// It ends with its context, and does nothing when it is switched off.
func TestFollowDriftEnds(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	services, nodes := a.listers()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.balancers().FollowDrift(ctx, services, nodes)
	}()
	cancel()
	<-ended
	a.balancers(func(c *Config) { c.CheckInterval = -1 }).FollowDrift(t.Context(), services, nodes)
}

// tlsNameOf is the name of the first frontend's certificate.
func tlsNameOf(a *account) string { return a.only().Frontends[0].TLSConfigs[0].Name }

// A node that joins aside is as it should be.
func TestCheckLetsNodesJoin(t *testing.T) {
	a := newJoiningAccount(t, nil)
	a.addNode("n3")
	a.update()
	a.want("while n3 joins", "n1 100 1000", "n2 100 1000", "n3 0 1")
	a.settle(a.only().ID)
	a.said()
	a.ResetRequests()
	a.check(a.l)
	if writes, said := a.writes(), a.said(); len(writes)+len(said) > 0 || a.Requests().Of("GET /load-balancer") != 1 {
		t.Errorf("requests %v, events %v", a.Requests(), said)
	}
}
