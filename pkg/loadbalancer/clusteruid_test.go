package loadbalancer

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// A load balancer says which cluster made it; one made before is labelled once, and then an unchanged reconcile is one call again.
func TestClusterUIDIsOnLoadBalancers(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	s := a.addService(example.Service("http 80 30080"))
	s = a.current(s)
	a.ensure(a.balancers(), s)
	if _, there := a.only().Labels[settings.LabelClusterUID]; there {
		t.Fatal("labelled, though the UID cannot be read")
	}
	kubeSystem := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "uid-of-cluster"}}
	if _, err := a.client.CoreV1().Namespaces().Create(t.Context(), kubeSystem, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l := a.balancers()
	a.ensure(l, a.current(s))
	if got := a.only().Labels[settings.LabelClusterUID]; got != "uid-of-cluster" {
		t.Errorf("label %q", got)
	}
	a.ResetRequests()
	a.ensure(l, a.current(s))
	if calls := a.Requests(); len(calls) != 1 {
		t.Errorf("an unchanged reconcile takes %v", calls)
	}
}
