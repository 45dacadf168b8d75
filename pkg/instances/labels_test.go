package instances

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

func TestLabels(t *testing.T) {
	server := &cloud.Server{Plan: "2xCPU-4GB", ServerGroup: "0b5169fc-23aa-4ba7-aaab-f38868bcce38", Host: "7653311907",
		Labels: map[string]string{"node.team": "blue", "node.note": "not a label: has spaces", "node.": "nothing", "node.empty": "",
			"other": "x", "node.a/b/c": "x"}}
	for _, test := range []struct {
		prefix string
		want   map[string]string
	}{
		{"", map[string]string{LabelPlan: server.Plan, LabelServerGroup: server.ServerGroup, LabelHost: server.Host}},
		{"node.", map[string]string{LabelPlan: server.Plan, LabelServerGroup: server.ServerGroup, LabelHost: server.Host,
			"label.upcloud.com/team": "blue", "label.upcloud.com/empty": ""}},
	} {
		instances := newInstances(t, nil, func(c *Config) { c.ServerLabelPrefix = test.prefix })
		if diff := cmp.Diff(test.want, instances.labels(server)); diff != "" {
			t.Errorf("prefix %q: %s", test.prefix, diff)
		}
	}
	if got := newInstances(t, nil).labels(&cloud.Server{}); len(got) > 0 {
		t.Errorf("labels of a server that tells nothing: %v", got)
	}
}

// The node controller writes labels once. What changes about the server later follows.
func TestLabelsFollowTheServer(t *testing.T) {
	account := newAccount(t)
	id := account.CreateServer(t, "n1", zone)
	account.Do(t, http.MethodPut, "/server/"+id, `{"server":{"labels":{"label":[{"key":"node.team","value":"blue"}]}}}`, nil)
	n := node("n1", providerid.New(id))
	n.Labels = map[string]string{"label.upcloud.com/former": "x", "mine": "y", v1.LabelInstanceTypeStable: "1xCPU-1GB", LabelHost: "1"}
	client := fake.NewClientset(n)
	instances := newInstances(t, account.cloud, func(c *Config) { c.ServerLabelPrefix = "node." })
	instances.Start(client, nil)
	if _, err := instances.InstanceMetadata(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	got, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := account.cloud.Server(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"label.upcloud.com/team": "blue", "mine": "y", v1.LabelInstanceTypeStable: server.Plan,
		LabelPlan: server.Plan, LabelHost: server.Host}
	if diff := cmp.Diff(want, got.Labels); diff != "" {
		t.Error(diff)
	}
	if network := got.Annotations[AnnotationPrivateNetwork]; !strings.HasPrefix(network, "03") {
		t.Errorf("annotation %s=%q", AnnotationPrivateNetwork, network)
	}
	client.ClearActions()
	if _, err := instances.InstanceMetadata(t.Context(), got); err != nil || len(client.Actions()) > 0 {
		t.Errorf("%v, %v although nothing changed", client.Actions(), err)
	}
	if _, err := instances.NodeAddresses(t.Context(), n); err != nil || len(client.Actions()) > 0 {
		t.Errorf("%v, %v for one who only asks for addresses", client.Actions(), err)
	}
	if _, err := instances.Metadata(t.Context(), n); err != nil || len(client.Actions()) > 0 {
		t.Errorf("%v, %v for one who only asks", client.Actions(), err)
	}
}

func TestChoiceOfPrivateNetwork(t *testing.T) {
	account := newAccount(t)
	first, second := account.CreateNetwork(t, "first", zone, "10.10.0.0/24"), account.CreateNetwork(t, "second", zone, "10.20.0.0/24")
	var answer struct{ Server struct{ UUID string } }
	account.Do(t, http.MethodPost, "/server", `{"server":{"hostname":"n1","title":"n1","zone":"`+zone+`","plan":"1xCPU-1GB",
		"networking":{"interfaces":{"interface":[
			{"type":"public","ip_addresses":{"ip_address":[{"family":"IPv4"}]}},
			{"type":"private","network":"`+first+`","ip_addresses":{"ip_address":[{"family":"IPv4"}]}},
			{"type":"private","network":"`+second+`","ip_addresses":{"ip_address":[{"family":"IPv4"}]}}]}},
		"storage_devices":{"storage_device":[{"action":"create","size":20,"tier":"maxiops","title":"s"}]}}}`, &answer)
	internal := func(networks ...string) (string, error) {
		t.Helper()
		instances := newInstances(t, account.cloud, func(c *Config) { c.PrivateNetworks = networks })
		var ips []string
		metadata, err := instances.InstanceMetadata(t.Context(), tainted(node("n1", "")))
		if err != nil {
			return "", err
		}
		for _, address := range metadata.NodeAddresses {
			if address.Type == v1.NodeInternalIP {
				ips = append(ips, address.Address[:6])
			}
		}
		return strings.Join(ips, " "), nil
	}
	for _, test := range []struct {
		networks []string
		want     string
	}{
		{nil, "10.10. 10.20."},
		{[]string{second}, "10.20."},
		{[]string{strings.ToUpper(second)}, "10.20."},
		{[]string{"second"}, "10.20."},
		{[]string{"10.20.0.0/16"}, "10.20."},
		{[]string{"second", "10.0.0.0/8"}, "10.10. 10.20."},
		{[]string{"elsewhere", "first"}, "10.10."},
	} {
		if got, err := internal(test.networks...); got != test.want || err != nil {
			t.Errorf("networks %v: %q, %v, want %q", test.networks, got, err, test.want)
		}
	}
	if got, err := internal("elsewhere"); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("a network that the server is not on: %q, %v", got, err)
	}
	for _, networks := range [][]string{{""}, {"10.0.0.0/33"}, {"a/b"}} {
		if err := ValidatePrivateNetworks(networks); err == nil {
			t.Errorf("networks %q are taken", networks)
		}
	}
}
