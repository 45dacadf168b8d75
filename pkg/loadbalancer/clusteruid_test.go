package loadbalancer

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// inCluster makes the API server that of a cluster.
func (a *account) inCluster(uid string) {
	a.t.Helper()
	kubeSystem := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: types.UID(uid)}}
	if _, err := a.client.CoreV1().Namespaces().Create(a.t.Context(), kubeSystem, metav1.CreateOptions{}); err != nil {
		a.t.Fatal(err)
	}
}

// A load balancer says which cluster made it; one made before is labelled once, and then an unchanged reconcile is one call again.
func TestClusterUIDIsOnLoadBalancers(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	s := a.addService(example.Service("http 80 30080"))
	s = a.current(s)
	a.ensure(a.balancers(), s)
	before := a.only()
	if _, there := before.Labels[settings.LabelClusterUID]; there {
		t.Fatal("labelled, though the UID cannot be read")
	}
	a.inCluster("uid-of-cluster")
	l := a.balancers()
	a.ensure(l, a.current(s))
	got := a.only()
	if got.Labels[settings.LabelClusterUID] != "uid-of-cluster" {
		t.Errorf("labels %v", got.Labels)
	}
	generated := settings.LabelGeneratedName
	if got.ID != before.ID || got.Name != before.Name || got.Labels[generated] != before.Labels[generated] {
		t.Errorf("%s (%s) of %v is not %s (%s) any more", got.ID, got.Name, got.Labels, before.ID, before.Name)
	}
	a.ResetRequests()
	a.ensure(l, a.current(s))
	if calls := a.Requests(); len(calls) != 1 {
		t.Errorf("an unchanged reconcile takes %v", calls)
	}
}

// Two clusters of one account have neither a cluster ID nor a name of their own, and the same Services. Each has its load balancers, and
// deletes no others.
func TestClustersWithoutIDShareAnAccount(t *testing.T) {
	first := newAccount(t, simulator.Config{}, "n1")
	second := *first
	second.client = fake.NewClientset()
	first.inCluster("uid-of-the-first")
	second.inCluster("uid-of-the-second")
	one, other := example.Service("http 80 30080", "https 443 30443"), example.Service("http 80 30080", "https 443 30443")
	other.UID = "uid-of-the-others-service"
	one, other = first.addService(one), second.addService(other)
	l, m := first.balancers(), second.balancers()
	first.ensure(l, one)
	second.ensure(m, other)
	names := map[string]bool{}
	for _, lb := range first.list() {
		names[lb.Name] = true
	}
	if len(names) != 2 {
		t.Fatalf("load balancers %v, want one for each cluster", names)
	}
	ofFirst := first.current(one).Annotations[settings.AnnotationID]
	second.delete(m, second.current(other))
	if all := first.list(); len(all) != 1 || all[0].ID != ofFirst {
		t.Errorf("left are %v, want %s", all, ofFirst)
	}
}

// A Service of the same UID, with the annotation of the other's load balancer, in a cluster of another UID.
func TestLoadBalancerOfAClusterOfAnotherUIDIsLeftAlone(t *testing.T) {
	first := newAccount(t, simulator.Config{}, "n1")
	second := *first
	second.client = fake.NewClientset()
	first.inCluster("uid-of-the-first")
	second.inCluster("uid-of-the-second")
	s := first.addService(example.Service("http 80 30080"))
	first.ensure(first.balancers(), s)
	made, copied := first.only(), first.current(s)
	second.said()
	second.addService(copied)
	m := second.balancers()
	before := first.raw("/load-balancer/" + made.ID)
	second.ensure(m, copied)
	if said := strings.Join(second.said(), "\n"); !strings.Contains(said, "it belongs to the cluster with UID uid-of-the-first, and this one has uid-of-the-second") {
		t.Errorf("events: %s", said)
	}
	second.delete(m, second.current(copied))
	if diff := cmp.Diff(before, first.raw("/load-balancer/"+made.ID)); diff != "" {
		t.Error(diff)
	}
}
