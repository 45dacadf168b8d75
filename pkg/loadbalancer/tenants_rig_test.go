package loadbalancer

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

var servicesResource = v1.SchemeGroupVersion.WithResource("services")

// serviceIn is a Service of some namespace and name.
func serviceIn(namespace, name string, ports ...string) *v1.Service {
	s := example.Service(ports...)
	s.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "_" + name)}
	return s
}

// byName returns the load balancer of that name.
func (a *account) byName(name string) cloud.LoadBalancer {
	a.t.Helper()
	for _, lb := range a.list() {
		if lb.Name == name {
			return lb
		}
	}
	a.t.Fatalf("there is no load balancer %s", name)
	return cloud.LoadBalancer{}
}
