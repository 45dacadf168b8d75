package doctor_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/routes"
)

// Routes of clusters that are gone are listed: those whose next hop is no server, and those that lead to a server which is a node of
// this cluster now. Those of clusters that run, and of people, are not.
func TestRoutesOfClustersThatAreGoneAreListed(t *testing.T) {
	r := newRig(t)
	servers, addresses := map[string]string{}, map[string]string{}
	for _, name := range []string{"ours", "theirs"} {
		servers[name] = r.sim.CreateServer(t, name, zone)
		all, err := r.cloud.ServerAddresses(testContext(t), servers[name])
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range all {
			if address.Access == "private" {
				addresses[name] = address.IP.String()
			}
		}
	}
	r.apply(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-1"}, Spec: corev1.NodeSpec{ProviderID: providerid.New(servers["ours"])}})
	own, other := string(routes.NewOwner(clusterUID)), string(routes.NewOwner("another"))
	var list []string
	for i, route := range [][2]string{
		{own + "0123456789ab-4", addresses["ours"]},
		{other + "0123456789ab-4", addresses["theirs"]},
		{other + "1123456789ab-4", addresses["ours"]},
		{other + "2123456789ab-4", "172.16.99.99"},
		{"by-hand", "172.16.99.98"},
	} {
		list = append(list, fmt.Sprintf(`{"name":%q,"route":"10.244.%d.0/24","nexthop":%q}`, route[0], i, route[1]))
	}
	r.sim.Do(t, "POST", "/router", `{"router":{"name":"shared","static_routes":[`+strings.Join(list, ",")+`]}}`, nil)
	r.sim.Do(t, "POST", "/router", `{"router":{"name":"ccm-dead","labels":[{"key":"ccm_cluster","value":"dead"}],"static_routes":[]}}`, nil)
	report, err := doctor.NewRoutes(doctor.RoutesConfig{Cloud: r.cloud, Kubernetes: r.kube}).Examine(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	wantListed(t, "findings", report.Findings, "route-of-another-cluster "+other+"1123456789ab-4", "route-of-another-cluster "+other+"2123456789ab-4",
		"unused-router ccm-dead")
	for _, f := range report.Findings {
		if f.Removable() || f.Action != "" {
			t.Errorf("%s may be acted upon", f.Title)
		}
	}
}
