package loadbalancer

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// cluster is an API server's objects with a UID of its own.
func (a *account) cluster(uid types.UID) {
	a.t.Helper()
	kubeSystem := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: uid}}
	if _, err := a.client.CoreV1().Namespaces().Create(a.t.Context(), kubeSystem, metav1.CreateOptions{}); err != nil {
		a.t.Fatal(err)
	}
}

func adoptable(entries ...settings.Adoptable) func(*Config) {
	return func(c *Config) { c.Adoptable = entries }
}

// vanish has a Service deleted, and takes it from the API server.
func (a *account) vanish(l *LoadBalancers, s *v1.Service) {
	a.t.Helper()
	a.change(s, func(s *v1.Service) { s.DeletionTimestamp = &metav1.Time{} })
	a.delete(l, s)
	if err := a.client.Tracker().Delete(servicesResource, s.Namespace, s.Name); err != nil {
		a.t.Fatal(err)
	}
}

// denied has a Service refused for some reason, and returns what the error says.
func (a *account) denied(l *LoadBalancers, s *v1.Service, reason string) string {
	a.t.Helper()
	_, err := l.EnsureLoadBalancer(a.t.Context(), "prod", a.current(s), a.nodes)
	var retry *api.RetryError
	if err == nil || reasonOf(err) != reason || !errors.As(err, &retry) {
		a.t.Fatalf("error %v, want one with reason %s", err, reason)
	}
	a.wantCondition(s, metav1.ConditionFalse, reason, "")
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, reason) {
		a.t.Errorf("events: %s", said)
	}
	return err.Error()
}

// isOwn says whether a load balancer serves a Service, and goes with it, with all that was made for it.
func (a *account) isOwn(l *LoadBalancers, s *v1.Service, id string) {
	a.t.Helper()
	lb := a.only()
	if lb.ID != id || lb.Labels[settings.LabelServiceUID] != string(s.UID) || a.current(s).Annotations[settings.AnnotationID] != id {
		a.t.Fatalf("load balancer %s with labels %v, want %s", lb.ID, lb.Labels, id)
	}
	for _, backend := range lb.Backends {
		if backend.Name == s.Spec.Ports[0].Name && (len(backend.Members) != len(a.nodes) || backend.Members[0].Port != int(s.Spec.Ports[0].NodePort)) {
			a.t.Errorf("members %+v", backend.Members)
		}
	}
	a.unchanged(l, s)
	a.vanish(l, s)
	if left := len(a.list()) + len(a.bundles()); left > 0 {
		a.t.Errorf("%d things are left in the account: %+v %+v", left, a.list(), a.bundles())
	}
}

// A Service is deleted, its load balancer retained, and the Service made again. What the error says to do about the name helps.
func TestRetainedLoadBalancerIsTakenByTheServiceMadeAgain(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	a.cluster("uid-of-cluster")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "retain", "true", "tls-secret", "www"))
	a.ensure(l, s)
	retained := a.only()
	a.vanish(l, s)
	said := strings.Join(a.said(), "\n")
	if want := "upcloud-load-balancer-adopt: " + retained.ID; !strings.Contains(said, want) {
		t.Errorf("events do not have %q: %s", want, said)
	}

	again := example.Annotated(example.Service("https 443 31443"), "tls-secret", "www")
	again.UID = "uid-again"
	again = a.addService(again)
	_, err := l.EnsureLoadBalancer(t.Context(), "prod", again, a.nodes)
	if want := "set annotation service.beta.kubernetes.io/upcloud-load-balancer-adopt: " + retained.ID; reasonOf(err) != ReasonNameTaken ||
		!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "adoptableLoadBalancers") {
		t.Fatalf("error %v, want one that says: %s", err, want)
	}
	again = a.change(again, func(s *v1.Service) { example.Annotated(s, "adopt", strings.ToUpper(retained.ID)) })
	a.ensure(l, again)
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "AdoptedLoadBalancer") {
		t.Errorf("events: %s", said)
	}
	lb := a.only()
	if lb.Labels[settings.LabelRetainedFor] != "" || len(lb.Networks) == 0 || lb.Networks[0].DNSName != retained.Networks[0].DNSName {
		t.Errorf("labels %v, networks %v", lb.Labels, lb.Networks)
	}
	if all := a.bundles(); len(all) != 1 || all[0].Labels[settings.LabelServiceUID] != "uid-again" {
		t.Errorf("certificate bundles: %+v", all)
	}
	a.isOwn(l, again, retained.ID)
}

// What was made by hand is taken where the configuration has its UUID, its name or its label, and for the namespaces that this has.
func TestHandMadeLoadBalancerIsTakenAsTheConfigurationAllows(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	a.cluster("uid-of-cluster")
	made := a.foreign("edge")
	if err := a.cloud.CreateLoadBalancerLabel(t.Context(), made.ID, "env", "prod"); err != nil {
		t.Fatal(err)
	}
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "adopt", made.ID))
	before := a.raw("/load-balancer/" + made.ID)
	for name, entries := range map[string][]settings.Adoptable{
		"none": nil, "another UUID": {{LoadBalancer: example.ClusterUUID}}, "another name": {{LoadBalancer: "edge2"}}, "another label": {{Label: "env=test"}},
		"label without the value": {{Label: "env="}}, "another namespace": {{LoadBalancer: made.ID, Namespaces: []string{"team"}}},
	} {
		says := a.denied(a.balancers(adoptable(entries...)), s, reasonAdoptionDenied)
		if want := "{loadBalancer: " + made.ID + ", namespaces: [default]}"; !strings.Contains(says, want) {
			t.Errorf("%s: the error does not have %q: %s", name, want, says)
		}
	}
	a.sameAs(before, made.ID)
	for name, entry := range map[string]settings.Adoptable{
		"UUID": {LoadBalancer: strings.ToUpper(made.ID)}, "name": {LoadBalancer: "edge"}, "label": {Label: "env=prod", Namespaces: []string{"default"}},
	} {
		if why, err := a.balancers(adoptable(entry)).whyNotAdopt(t.Context(), a.balancers().identity(t.Context(), "prod", s), s, new(a.only())); why != "" || err != nil {
			t.Errorf("%s: %s, %v", name, why, err)
		}
	}
	l := a.balancers(adoptable(settings.Adoptable{Label: "env=prod", Namespaces: []string{"default"}}))
	a.ensure(l, s)
	a.isOwn(l, s, made.ID)
}

// sameAs says whether a load balancer is as it was.
func (a *account) sameAs(before map[string]any, id string) {
	a.t.Helper()
	if now := a.raw("/load-balancer/" + id); example.JSON(a.t, withoutTimes(before)) != example.JSON(a.t, withoutTimes(now)) {
		a.t.Errorf("load balancer %s was changed: %v, before %v", id, now, before)
	}
}

// A cluster is made again, and its Services restored from a backup: they have other UIDs, and so has the cluster.
func TestLoadBalancerIsTakenAfterARestoreToANewCluster(t *testing.T) {
	for _, ids := range [][2]string{{"", ""}, {"old", "new"}, {"old", ""}, {"", "new"}, {"same", "same"}} {
		a := newAccount(t, simulator.Config{}, "n1")
		a.cluster("uid-of-old")
		a.setSecret("www", "www.example.com")
		s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www"))
		a.ensure(a.balancers(ofCluster(ids[0])), s)
		lb := a.only()

		a.client = fake.NewClientset()
		a.cluster("uid-of-new")
		a.setSecret("www", "www.example.com")
		restored := example.Annotated(example.Service("https 443 31443"), "tls-secret", "www", "id", lb.ID, "adopt", lb.ID)
		restored.UID = "uid-restored"
		restored = a.addService(restored)
		before := a.raw("/load-balancer/" + lb.ID)
		for _, entries := range [][]settings.Adoptable{nil, {{LoadBalancer: lb.Name}}, {{Label: settings.LabelClusterName + "=prod"}}} {
			says := a.denied(a.balancers(ofCluster(ids[1]), adoptable(entries...)), restored, reasonAdoptionDenied)
			if entries != nil && !strings.Contains(says, "labels of a Service of another cluster") {
				t.Errorf("%v: %s", entries, says)
			}
		}
		a.sameAs(before, lb.ID)
		l := a.balancers(ofCluster(ids[1]), adoptable(settings.Adoptable{Label: settings.LabelClusterUID + "=uid-of-old"}))
		a.ensure(l, restored)
		if got := a.only().Labels; got[settings.LabelClusterUID] != "uid-of-new" || got[settings.LabelClusterID] != ids[1] {
			t.Errorf("%v: labels %v", ids, got)
		}
		a.isOwn(l, restored, lb.ID)
	}
}

// A Service that exists keeps what it has, whoever names it and whatever the configuration says; so do those that share one.
func TestLoadBalancersInUseAreNotTaken(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	a.cluster("uid-of-cluster")
	owner := a.addService(serviceIn("default", "owner", "http 80 30080"))
	sharer := a.addService(sharingService("sharer", "create/group", []string{"http 80 30081"}))
	l := a.balancers()
	a.ensure(l, owner)
	a.ensure(l, sharer)
	edge := a.foreign("edge")
	official := ingress("ingress-nginx-controller")
	ofOfficial := a.officialCalled(official, "public")
	a.addService(example.Annotated(official, "id", ofOfficial.ID))
	taker := a.addService(serviceIn("default", "taker", "http 80 30082"))
	for id, want := range map[string]string{
		a.current(owner).Annotations[settings.AnnotationID]:  "that of Service default/owner",
		a.current(sharer).Annotations[settings.AnnotationID]: "create/group to share it",
		edge.ID:       "to share it",
		ofOfficial.ID: "that of Service ingress-nginx/ingress-nginx-controller",
	} {
		taker = a.change(taker, func(s *v1.Service) { example.Annotated(s, "adopt", id) })
		before := a.raw("/load-balancer/" + id)
		says := a.denied(a.balancers(ofCluster(example.ClusterUUID), adoptable(settings.Adoptable{LoadBalancer: id}), func(c *Config) {
			c.Shared = []settings.SharedAccess{{LoadBalancer: "edge"}}
		}), taker, reasonAdoptionDenied)
		if !strings.Contains(says, want) {
			t.Errorf("error %s, want one that says: %s", says, want)
		}
		a.sameAs(before, id)
	}
	taker = a.change(taker, func(s *v1.Service) { example.Annotated(s, "adopt", "0aded5c1-c7a3-498a-b9c8-a871611c47a2") })
	a.denied(l, taker, "NoSuchLoadBalancer")
	if n := len(a.list()); n != 4 {
		t.Errorf("%d load balancers, want 4", n)
	}
}

// Two Services name one load balancer: the first has it, and an event on the second says whose it is.
func TestLoadBalancerIsTakenOnce(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	a.cluster("uid-of-cluster")
	made := a.foreign("edge")
	l := a.balancers(adoptable(settings.Adoptable{LoadBalancer: "edge"}))
	first := a.addService(example.Annotated(serviceIn("default", "first", "http 80 30080"), "adopt", made.ID))
	second := a.addService(example.Annotated(serviceIn("default", "second", "http 80 30081"), "adopt", made.ID))
	a.ensure(l, first)
	a.said()
	if says := a.denied(l, second, reasonAdoptionDenied); !strings.Contains(says, "default/first") {
		t.Errorf("error %s", says)
	}
	// One that has a load balancer keeps it, and serves.
	a.change(first, func(s *v1.Service) { example.Annotated(s, "adopt", example.ClusterUUID) })
	a.ensure(l, first)
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "has load balancer "+made.ID) {
		t.Errorf("events: %s", said)
	}
	a.wantCondition(first, metav1.ConditionTrue, reasonAdoptionDenied, "")
	if a.only().ID != made.ID {
		t.Errorf("%+v", a.list())
	}
}

// What one namespace left in the account is no other's, unless the configuration names that one.
func TestRetainedLoadBalancerIsNotAnotherNamespaces(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	a.cluster("uid-of-cluster")
	l := a.balancers()
	s := a.addService(example.Annotated(serviceIn("bank", "web", "http 80 30080"), "retain", "true", "labels", "env=prod"))
	a.ensure(l, s)
	lb := a.only()
	a.vanish(l, s)
	evil := a.addService(example.Annotated(serviceIn("evil", "web", "http 80 30081"), "adopt", lb.ID))
	before := a.raw("/load-balancer/" + lb.ID)
	allowed := tenants.Limits{Adopt: new(true), Retain: new(true)}
	for name, change := range map[string]func(*Config){
		"nothing": func(*Config) {}, "a label": adoptable(settings.Adoptable{Label: "env=prod"}), "a UUID": adoptable(settings.Adoptable{LoadBalancer: lb.ID}),
		"tenants that may": func(c *Config) {
			c.Tenants, c.Adoptable = &tenants.Config{Default: allowed}, []settings.Adoptable{{LoadBalancer: lb.ID}}
		},
	} {
		t.Log(name)
		a.denied(a.balancers(change), evil, reasonAdoptionDenied)
	}
	says := a.denied(a.balancers(func(c *Config) {
		c.Tenants, c.Adoptable = &tenants.Config{}, []settings.Adoptable{{LoadBalancer: lb.ID, Namespaces: []string{"evil"}}}
	}), evil, ReasonDenied)
	if !strings.Contains(says, "(annotation adopt), allowed is none") {
		t.Errorf("error %s", says)
	}
	a.sameAs(before, lb.ID)
	l = a.balancers(func(c *Config) {
		c.Tenants, c.Adoptable = &tenants.Config{Default: allowed}, []settings.Adoptable{{LoadBalancer: lb.ID, Namespaces: []string{"evil"}}}
	})
	a.ensure(l, evil)
	a.isOwn(l, evil, lb.ID)
}

// A call fails at any place of an adoption, with its effect or without.
func TestInterruptedAdoptionIsTakenUpAgain(t *testing.T) {
	for _, fault := range []simulator.Fault{{Status: http.StatusInternalServerError}, {Drop: true, AfterEffect: true}} {
		for skip := range 16 {
			a := newAccount(t, simulator.Config{}, "n1")
			a.cluster("uid-of-old")
			a.setSecret("www", "www.example.com")
			s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www"))
			a.ensure(a.balancers(ofCluster("old")), s)
			lb := a.only()
			a.client = fake.NewClientset()
			a.cluster("uid-of-new")
			a.setSecret("www", "www.example.com")
			restored := example.Annotated(example.Service("https 443 31443"), "tls-secret", "www", "adopt", lb.ID)
			restored.UID = "uid-restored"
			restored = a.addService(restored)
			l := a.balancers(ofCluster("new"), adoptable(settings.Adoptable{Label: settings.LabelClusterID + "=old"}))
			fault.Skip, fault.Count = skip, 1
			a.Inject(fault)
			var err error
			for range 20 {
				if _, err = l.EnsureLoadBalancer(t.Context(), "prod", a.current(restored), a.nodes); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatalf("call %d: %v", skip, err)
			}
			a.isOwn(l, restored, lb.ID)
		}
	}
}

// A load balancer that was taken and is gone is made again, as any other.
func TestTakenLoadBalancerThatIsGoneIsMadeAgain(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	made := a.foreign("edge")
	l := a.balancers(adoptable(settings.Adoptable{LoadBalancer: made.ID}))
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "adopt", made.ID))
	a.ensure(l, s)
	if err := a.cloud.DeleteLoadBalancer(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	a.eventually("gone", func() string {
		if _, err := a.cloud.LoadBalancer(t.Context(), made.ID); !errors.Is(err, cloud.ErrNotFound) {
			return "it is there"
		}
		return ""
	})
	a.ensure(l, s)
	if got := a.only(); got.ID == made.ID || got.Labels[settings.LabelServiceUID] != string(s.UID) {
		t.Errorf("%+v", got)
	}
}
