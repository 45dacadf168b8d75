package loadbalancer

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// The last Service of a group may have the load balancer deleted: some time after it was marked, and not if somebody joins.
func TestLastOfGroupDeletesTheLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	now := time.Now()
	clock := func(l *LoadBalancers) *LoadBalancers {
		l.now = func() time.Time { return now }
		return l
	}
	x, y := clock(a.balancers(func(c *Config) { c.ClusterName = "x" })), clock(a.balancers(func(c *Config) { c.ClusterName = "y" }))
	last := a.addService(routing("last", "create/saas", `[{path: /foo}]`, "shared-deletion", "last"))
	late := a.addService(routing("late", "create/saas", `[{path: /foo}]`))
	goes := func() error {
		if _, exists, err := x.GetLoadBalancer(t.Context(), "prod", a.current(last)); !exists || err != nil {
			t.Fatalf("exists %v, %v", exists, err)
		}
		return x.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(last))
	}
	a.ensure(x, last)
	if err := goes(); err == nil || !strings.Contains(err.Error(), "is deleted in 2m30s") {
		t.Fatal(err)
	}
	if _, text := a.fails(y, late); !strings.Contains(text, "about to be deleted") {
		t.Error(text)
	}
	now = now.Add(doomDead + time.Minute) // whoever wanted to delete it has died
	a.ensure(y, late)
	if err := x.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(last)); err != nil {
		t.Fatal(err)
	}
	if _, marked := a.only().Labels[LabelDeleting]; marked || routesOf(a.only(), "ccm-80") == "" {
		t.Errorf("in use and marked: %v", a.only().Labels)
	}
	a.delete(y, late)
	if err := goes(); err == nil {
		t.Fatal("deleted at once")
	}
	now = now.Add(doomWait - time.Second)
	if err := goes(); err == nil || len(a.list()) != 1 {
		t.Fatal("deleted too early")
	}
	now = now.Add(2 * time.Second)
	if err := goes(); err != nil {
		t.Fatal(err)
	}
	a.eventually("the load balancer is gone", func() string {
		if all := a.list(); len(all) > 0 {
			return summary(all[0])
		}
		return ""
	})
}

// Certificates of a Service are on the hub beside others', follow their Secret, and go with the Service.
func TestCertificatesOnAHub(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("one", "one.example")
	a.setSecret("two", "two.example")
	one := a.addService(sharingService("one", "create/saas", []string{"https 443 30443"}, settings.RoutesName, `[{host: one.example, path: /}]`, "tls-secret", "one"))
	two := a.addService(sharingService("two", "create/saas", []string{"https 443 30444"}, settings.RoutesName, `[{host: two.example, path: /}]`, "tls-secret", "two"))
	a.ensure(l, one)
	a.ensure(l, two)
	hub := func() cloud.Frontend { return a.only().Frontends[0] }
	if configs := hub().TLSConfigs; len(configs) != 2 || hub().Mode != "http" {
		t.Fatalf("%+v", hub())
	}
	names := fmt.Sprint(hub().TLSConfigs)
	a.ResetRequests()
	a.ensure(l, one)
	if a.Requests().Total() != 1 {
		t.Errorf("unchanged: %v", a.Requests())
	}
	a.setSecret("one", "one.example")
	a.ensure(l, one)
	if configs := hub().TLSConfigs; len(configs) != 2 || fmt.Sprint(configs) == names {
		t.Errorf("after a new certificate: %+v", configs)
	}
	a.delete(l, one)
	if configs := hub().TLSConfigs; len(configs) != 1 {
		t.Errorf("after one has gone: %+v", configs)
	}
	a.delete(l, two)
	bundles, err := a.cloud.CertificateBundles(t.Context(), nil)
	if lb := a.only(); err != nil || len(bundles)+len(lb.Frontends)+len(lb.Backends) > 0 {
		t.Errorf("left: %v, %s, %v", bundles, summary(lb), err)
	}
}

// A Service that moves leaves nothing behind, wherever it goes.
func TestMovingBetweenLoadBalancers(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	set := func(reference string) {
		a.change(s, func(s *v1.Service) {
			if s.Annotations == nil {
				s.Annotations = map[string]string{}
			}
			s.Annotations[settings.AnnotationPrefix+settings.SharedName] = reference
			if reference == "" {
				delete(s.Annotations, settings.AnnotationPrefix+settings.SharedName)
			}
		})
	}
	names := func() (all []string) {
		for _, lb := range a.list() {
			for _, f := range lb.Frontends {
				all = append(all, lb.Name+"/"+f.Name)
			}
		}
		return all
	}
	for _, step := range []struct{ reference, want string }{
		{"", "[prod-default-web/http]"}, {"create/one", "[one/ccm-80]"}, {"create/two", "[two/ccm-80]"}, {"", "[prod-default-web/http]"},
	} {
		set(step.reference)
		a.ensure(l, s)
		if got := fmt.Sprint(names()); got != step.want {
			t.Errorf("with %q: %s, want %s", step.reference, got, step.want)
		}
	}
	set("create/one")
	a.ensure(l, s)
	set("create/two") // and is deleted before anything came of it
	a.delete(l, s)
	if got := names(); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// What somebody does to the Service's components is mended, and a load balancer that is as it should be is looked at once for all.
func TestSharedLoadBalancersAreMended(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	var services []*v1.Service
	for _, name := range []string{"one", "two"} {
		s := a.addService(routing(name, "create/saas", `[{host: `+name+`.example, path: /}]`))
		a.ensure(l, s)
		services = append(services, s)
	}
	factory := informers.NewSharedInformerFactory(a.client, 0)
	lister := factory.Core().V1().Services().Lister()
	for _, s := range services {
		if err := factory.Core().V1().Services().Informer().GetIndexer().Add(a.current(s)); err != nil {
			t.Fatal(err)
		}
	}
	_, nodes := a.listers()
	a.ResetRequests()
	inOneRound(func(r *rounds) { l.mendShared(t.Context(), lister, nodes, r) })
	if a.Requests().Total() != 1 {
		t.Errorf("nothing to mend: %v", a.Requests())
	}
	lb := a.only()
	want := routesOf(lb, "ccm-80")
	a.Do(t, http.MethodDelete, "/load-balancer/"+lb.ID+"/frontends/ccm-80/rules/"+lb.Frontends[0].Rules[0].Name, "", nil)
	inOneRound(func(r *rounds) { l.mendShared(t.Context(), lister, nodes, r) })
	if got := routesOf(a.only(), "ccm-80"); got != want {
		t.Errorf("mended: %s, want %s", got, want)
	}
}

// What a Service leaves may be in the way of what it wants next: a hub of its routes, of a port that it wants as a whole now.
func TestFromRoutesToPortsAndBack(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(sharingService("web", "create/saas", []string{"http 80 30080", "https 443 30443"}))
	routes := `[{host: web.example, path: /}]`
	setRoutes := func(text string) func(*v1.Service) {
		return func(s *v1.Service) {
			s.Annotations[settings.AnnotationPrefix+settings.RoutesName] = text
			if text == "" {
				delete(s.Annotations, settings.AnnotationPrefix+settings.RoutesName)
			}
		}
	}
	a.change(s, setRoutes(routes))
	a.ResetRequests()
	a.ensure(l, s)
	if n := a.Requests().Of("POST /load-balancer/{uuid}/backends"); n != 3 { // one for each port, and one that none matches
		t.Errorf("%d backends were made, want 3: %v", n, a.Requests())
	}
	for _, step := range []struct{ routes, mode string }{{"", "tcp"}, {routes, "http"}, {"", "tcp"}} {
		a.change(s, setRoutes(step.routes))
		a.said()
		a.ensure(l, s)
		lb := a.only()
		for _, name := range []string{"ccm-80", "ccm-443"} {
			if frontend := frontendNamed(&lb, name); frontend == nil || frontend.Mode != step.mode {
				t.Errorf("with routes %q: %s", step.routes, summary(lb))
			}
		}
		for _, event := range a.said() {
			if strings.Contains(event, "Conflict") {
				t.Errorf("with routes %q it is said: %s", step.routes, event)
			}
		}
	}
}

// HTTP/2 and the certificate that it needs go together.
func TestSharedPortLosesHTTP2AndItsCertificate(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("cert", "www.example.com")
	s := a.addService(sharingService("web", "create/saas", []string{"web 8443 30443"}, "tls-secret", "cert", "mode", "http", "http2", "true"))
	a.ensure(l, s)
	a.change(s, func(s *v1.Service) {
		delete(s.Annotations, settings.AnnotationPrefix+settings.TLSSecretName)
		delete(s.Annotations, settings.AnnotationPrefix+"http2")
	})
	a.ensure(l, s)
	lb := a.only()
	if frontend := frontendNamed(&lb, "ccm-8443"); frontend == nil || len(frontend.TLSConfigs) > 0 || frontend.Properties["http2_enabled"] != false {
		t.Errorf("the frontend is %+v", frontend)
	}
}

func frontendNamed(lb *cloud.LoadBalancer, name string) *cloud.Frontend {
	i := slices.IndexFunc(lb.Frontends, func(f cloud.Frontend) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return &lb.Frontends[i]
}
