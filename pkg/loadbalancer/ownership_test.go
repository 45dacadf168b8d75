package loadbalancer

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// ingress is a Service of an ingress controller. UpCloud's own CCM cuts the names of all of them to the same text.
func ingress(name string) *v1.Service {
	s := example.Service("http 80 30080")
	s.Namespace, s.Name, s.UID = "ingress-nginx", name, types.UID("uid-of-"+name)
	return s
}

// officialCalled makes a load balancer as UpCloud's own CCM does, with a name that the Service's configuration gives.
func (a *account) officialCalled(s *v1.Service, name string) cloud.LoadBalancer {
	t := a.t
	t.Helper()
	a.Do(t, http.MethodPost, "/load-balancer", example.JSON(t, jsonObject{"name": name, "plan": "development", "zone": zone, "configured_status": "started",
		"networks": []any{jsonObject{"name": "public-IPv4", "type": "public", "family": "IPv4"},
			jsonObject{"name": "private-IPv4", "type": "private", "family": "IPv4", "uuid": must(a.cloud.PrivateNetworks(t.Context(), zone))[0].ID}},
		"labels": []any{jsonObject{"key": "ccm_cluster_id", "value": example.ClusterUUID}, jsonObject{"key": "ccm_cluster_name", "value": "prod"},
			jsonObject{"key": "ccm_generated_name", "value": plan.NewIdentity(example.ClusterUUID, "prod", s).LegacyName}},
		"resolvers": []any{}, "frontends": []any{}, "backends": []any{}}), nil)
	all := a.list()
	made := all[slices.IndexFunc(all, func(lb cloud.LoadBalancer) bool { return lb.Name == name })]
	a.settle(made.ID)
	return made
}

func (a *account) exists(id string) bool {
	return slices.ContainsFunc(a.list(), func(lb cloud.LoadBalancer) bool { return lb.ID == id && !lb.State.Deleting() })
}

func ofCluster(id string) func(*Config) { return func(c *Config) { c.ClusterID = id } }

// Two load balancers of UpCloud's own CCM have the same label, as it cuts the names of their Services. The Service of one has a mistake in
// an annotation, the other is deleted.
func TestCutNameIsNoReasonToDeleteAnothersLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(ofCluster(example.ClusterUUID))
	external, internal := ingress("ingress-nginx-controller"), ingress("ingress-nginx-controller-internal")
	ofExternal, ofInternal := a.officialCalled(external, "public"), a.officialCalled(internal, "internal")
	external = a.addService(example.Annotated(external, "id", ofExternal.ID))
	internal = a.addService(example.Annotated(internal, "id", ofInternal.ID, "mode", "htp"))
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", internal, a.nodes); err == nil {
		t.Fatal("the mistake is not refused")
	}
	if got := must(a.cloud.LoadBalancer(t.Context(), ofInternal.ID)).Labels[settings.LabelServiceUID]; got != string(internal.UID) {
		t.Errorf("a refused Service's load balancer has UID %q in its labels", got)
	}
	a.delete(l, external)
	if a.exists(ofExternal.ID) || !a.exists(ofInternal.ID) {
		t.Errorf("left are %v, want %s alone", a.list(), ofInternal.ID)
	}
}

// The load balancer was never labelled: the CCM that deletes the other Service has seen nothing else.
func TestDeletionFollowsNoCutName(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	external, internal := ingress("ingress-nginx-controller"), ingress("ingress-nginx-controller-internal")
	ofExternal, ofInternal := a.officialCalled(external, "public"), a.officialCalled(internal, "internal")
	external = a.addService(example.Annotated(external, "id", ofExternal.ID))
	a.addService(example.Annotated(internal, "id", ofInternal.ID))
	a.delete(a.balancers(ofCluster(example.ClusterUUID)), external)
	if a.exists(ofExternal.ID) || !a.exists(ofInternal.ID) {
		t.Errorf("left are %v, want %s alone", a.list(), ofInternal.ID)
	}
}

// A Service without a load balancer comes first after the change of controllers.
func TestServiceOfTheSameCutNameGetsItsOwnLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(ofCluster(example.ClusterUUID))
	external, internal := ingress("ingress-nginx-controller"), ingress("ingress-nginx-controller-internal")
	ofExternal := a.officialCalled(external, "public")
	external = a.addService(example.Annotated(external, "id", ofExternal.ID))
	internal = a.addService(internal)
	before := a.raw("/load-balancer/" + ofExternal.ID)
	a.ensure(l, internal)
	if got := a.current(internal).Annotations[settings.AnnotationID]; got == ofExternal.ID || len(a.list()) != 2 {
		t.Errorf("the Service has %s, of %v", got, a.list())
	}
	if diff := cmp.Diff(before, a.raw("/load-balancer/"+ofExternal.ID)); diff != "" {
		t.Error(diff)
	}
	a.ensure(l, external)
	if got := a.current(external).Annotations[settings.AnnotationID]; got != ofExternal.ID {
		t.Errorf("the other Service has %s, want %s", got, ofExternal.ID)
	}
}

// Names are joined by dashes, which namespaces and Services have in theirs. The label is whole, and still stands for two Services.
func TestNameOfTwoNamespacesIsNoProof(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(ofCluster(example.ClusterUUID))
	victim, other := ingress("c"), ingress("b-c")
	victim.Namespace, other.Namespace = "a-b", "a"
	theirs := a.officialCalled(victim, "public")
	a.addService(victim)
	other = a.addService(other)
	before := a.raw("/load-balancer/" + theirs.ID)
	a.ensure(l, other)
	if got := a.current(other).Annotations[settings.AnnotationID]; got == theirs.ID {
		t.Errorf("Service a/b-c has taken the load balancer of a-b/c")
	}
	if diff := cmp.Diff(before, a.raw("/load-balancer/"+theirs.ID)); diff != "" {
		t.Error(diff)
	}
	a.delete(l, a.current(other))
	if !a.exists(theirs.ID) {
		t.Error("the deletion of a/b-c has deleted the load balancer of a-b/c")
	}
	named := example.Annotated(a.current(victim), "id", theirs.ID)
	victim = must(a.client.CoreV1().Services(named.Namespace).Update(t.Context(), named, metav1.UpdateOptions{}))
	a.ensure(l, victim)
	if got := a.current(victim).Annotations[settings.AnnotationID]; got != theirs.ID {
		t.Errorf("with the annotation, Service a-b/c has %s, want %s", got, theirs.ID)
	}
}

// Both Services may have it by its label, and both name it: it stays as it is, and an event says what to do.
func TestLoadBalancerThatTwoServicesNameIsNotChanged(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(ofCluster(example.ClusterUUID))
	one, other := ingress("ingress-nginx-controller"), ingress("ingress-nginx-controller-internal")
	lb := a.officialCalled(one, "public")
	one, other = a.addService(example.Annotated(one, "id", lb.ID)), a.addService(example.Annotated(other, "id", lb.ID))
	before := a.raw("/load-balancer/" + lb.ID)
	a.ensure(l, other)
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "Service ingress-nginx/ingress-nginx-controller names it, too") {
		t.Errorf("events: %s", said)
	}
	a.delete(l, other)
	if diff := cmp.Diff(before, a.raw("/load-balancer/"+lb.ID)); diff != "" {
		t.Error(diff)
	}
	a.ensure(l, one)
	if got := a.current(one).Annotations[settings.AnnotationID]; got != lb.ID {
		t.Errorf("the Service that is left has %s, want %s", got, lb.ID)
	}
}

// A cluster is restored from a copy of another's etcd, and gets a cluster ID of its own. Its Services have the UIDs and the annotations of
// the original's.
func TestCopyOfAClusterLeavesTheOriginalsLoadBalancers(t *testing.T) {
	original := newAccount(t, simulator.Config{}, "n1")
	l := original.balancers(ofCluster("original"))
	s := example.Annotated(example.Service("https 443 30443"), "tls-secret", "www")
	original.setSecret("www", "www.example.com")
	s = original.addService(s)
	original.ensure(l, s)
	lb, bundles := original.only(), original.bundles()
	before := original.raw("/load-balancer/" + lb.ID)

	twin := *original
	twin.client = fake.NewClientset()
	copied := original.current(s)
	copied.ResourceVersion = ""
	copied.Spec.Ports[0].NodePort = 30999
	twin.setSecret("www", "www.example.com")
	copied = twin.addService(copied)
	of := twin.balancers(ofCluster("copy"))
	twin.ensure(of, copied)
	if got := twin.current(copied).Annotations[settings.AnnotationID]; got == lb.ID {
		t.Error("the copy has the original's load balancer")
	}
	if said := strings.Join(twin.said(), "\n"); !strings.Contains(said, "belongs to the cluster with ID original") {
		t.Errorf("events: %s", said)
	}
	twin.delete(of, copied)
	if diff := cmp.Diff(before, original.raw("/load-balancer/"+lb.ID)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(bundles, original.bundles()); diff != "" {
		t.Error(diff)
	}
}

// A cluster that is given an ID later on keeps what it has.
func TestClusterIDThatIsAddedKeepsTheLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(a.balancers(), s)
	before := a.only()
	a.ensure(a.balancers(ofCluster("first")), s)
	if got := a.only(); got.ID != before.ID || got.Labels[settings.LabelClusterID] != "first" {
		t.Errorf("%s with %v, want %s with the ID", got.ID, got.Labels, before.ID)
	}
}

// The same of a load balancer that the Services of both share: the port stays the original's.
func TestCopyOfAClusterLeavesTheOriginalsPartsOfASharedLoadBalancer(t *testing.T) {
	original := newAccount(t, simulator.Config{}, "n1")
	s := original.addService(sharingService("web", "create/saas", []string{"http 80 30080"}, "tls-secret", "www", "mode", "http"))
	original.setSecret("www", "www.example.com")
	original.ensure(original.balancers(ofCluster("original")), s)
	lb := original.only()
	before := original.raw("/load-balancer/" + lb.ID)

	twin := *original
	twin.client = fake.NewClientset()
	twin.setSecret("www", "www.example.com")
	copied := original.current(s)
	copied.ResourceVersion = ""
	copied.Spec.Ports[0].NodePort = 30999
	copied = twin.addService(copied)
	of := twin.balancers(ofCluster("copy"))
	if _, err := of.EnsureLoadBalancer(t.Context(), "prod", copied, twin.nodes); err == nil || !strings.Contains(err.Error(), "which was first and stays") {
		t.Errorf("error %v, want that the port is another's", err)
	}
	twin.update(of, twin.current(copied))
	if err := of.EnsureLoadBalancerDeleted(t.Context(), "prod", twin.current(copied)); err != nil {
		t.Error(err)
	}
	parts := func(whole map[string]any) string {
		return example.JSON(t, []any{whole["frontends"], backendsCalled(whole, plan.KeyOf(lb.Frontends[0].DefaultBackend))})
	}
	if diff := cmp.Diff(parts(before), parts(original.raw("/load-balancer/"+lb.ID))); diff != "" {
		t.Error(diff)
	}
}

// backendsCalled are those of a Service's.
func backendsCalled(whole map[string]any, key string) (found []any) {
	all, _ := whole["backends"].([]any)
	for _, one := range all {
		if name, _ := one.(map[string]any)["name"].(string); plan.KeyOf(name) == key {
			found = append(found, one)
		}
	}
	return found
}

// Parts from before the cluster had an ID are the Service's still.
func TestClusterIDThatIsAddedKeepsThePartsOfASharedLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	s := a.addService(sharingService("web", "create/saas", []string{"http 80 30080"}))
	a.ensure(a.balancers(), s)
	before := a.only()
	l := a.balancers(ofCluster("first"))
	a.ensure(l, s)
	if got := a.only(); len(got.Frontends) != 1 || got.Frontends[0].DefaultBackend != before.Frontends[0].DefaultBackend {
		t.Errorf("%+v, want %+v", got.Frontends, before.Frontends)
	}
	a.delete(l, s)
	if got := a.only(); len(got.Frontends) > 0 || plan.HasParts(&got, l.identity(t.Context(), "prod", s).Key()) {
		t.Errorf("left: %+v", got)
	}
}

// A Service is gone though nobody deleted it, or another has its name: etcd was set back. What it had stays, but not what a Service has
// that was deleted.
func TestServiceThatVanishedKeepsItsLoadBalancer(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		s := a.addService(example.Service("http 80 30080"))
		a.ensure(l, s)
		seen := a.current(s)
		if err := a.client.CoreV1().Services(s.Namespace).Delete(t.Context(), s.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if replaced {
			other := example.Service("http 80 30080")
			other.UID = "another"
			a.addService(other)
		}
		if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", seen); err != nil {
			t.Error(err)
		}
		if len(a.list()) != 1 {
			t.Errorf("replaced %v: %d load balancers, want 1", replaced, len(a.list()))
		}
		seen.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", seen); err != nil || len(a.list()) != 0 {
			t.Errorf("replaced %v: error %v, %d load balancers of a Service that was deleted", replaced, err, len(a.list()))
		}
	}
}
