package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// The add-on is restarted, and then the API server is, while the add-on runs. Its Service keeps its load balancer, which
// follows the Nodes afterwards.
func TestRestartsKeepTheLoadBalancersOfTheAddOn(t *testing.T) {
	k := newAddOnCluster(t, "restart")
	account := simulatortest.Start(t, simulator.Config{})
	const lease = "upcloud-load-balancers"
	ccm := k.startAsDeployed(account, lease)
	k.join(account, "restart-1")
	service := annotatedService("ours", "status", "ip")
	class := "upcloud.com/load-balancer"
	service.Spec.LoadBalancerClass = &class
	if _, err := k.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	first := k.onlyBalancer(account, "", "restart-1")

	ccm.Stop()
	if err := k.client.CoordinationV1().Leases("kube-system").Delete(t.Context(), lease, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The lease outlasts the restart of the API server: a ccm that loses it ends, and would only be restarted.
	k.startAsDeployed(account, lease, "--leader-elect-lease-duration=10m", "--leader-elect-renew-deadline=9m")
	k.join(account, "restart-2")
	k.onlyBalancer(account, first, "restart-1", "restart-2")

	if err := k.plane.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.join(account, "restart-3")
	k.onlyBalancer(account, first, "restart-1", "restart-2", "restart-3")
}

// join registers a node that is ready.
func (k *kubernetesOf) join(account *simulatortest.Server, name string) {
	k.t.Helper()
	node := k.node(name, account.CreateServer(k.t, name, zone))
	k.eventually("Node "+name+" is registered", func() string {
		if _, err := k.client.CoreV1().Nodes().Create(k.t.Context(), node, metav1.CreateOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
}

// onlyBalancer waits until the account has one load balancer with these members, published in the Service, and returns its ID. A load
// balancer with another ID than the one that is wanted fails the test.
func (k *kubernetesOf) onlyBalancer(account *simulatortest.Server, id string, members ...string) (found string) {
	k.t.Helper()
	k.eventually(fmt.Sprint("one load balancer has the members ", members), func() string {
		var all []struct {
			UUID     string
			Backends []struct{ Members []struct{ Name string } }
		}
		account.Do(k.t, http.MethodGet, "/load-balancer", "", &all)
		if len(all) != 1 || len(all[0].Backends) == 0 {
			return fmt.Sprintf("there are %d: %v", len(all), all)
		}
		if found = all[0].UUID; id != "" && found != id {
			k.t.Fatalf("load balancer %s took the place of %s", found, id)
		}
		for _, backend := range all[0].Backends {
			var names []string
			for _, member := range backend.Members {
				names = append(names, member.Name)
			}
			slices.Sort(names)
			if !slices.Equal(names, members) {
				return strings.Join(names, ", ")
			}
		}
		var service *v1.Service
		service, err := k.client.CoreV1().Services("default").Get(k.t.Context(), "ours", metav1.GetOptions{})
		if err != nil || len(service.Status.LoadBalancer.Ingress) == 0 {
			return fmt.Sprint("the Service is not published: ", err)
		}
		return ""
	})
	return found
}
