package loadbalancer

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

const clusterUUID = "0d4f1e3b-8a5e-4a84-9b67-6a4d7a2f4c11"

func named(namespace, name string) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid-1"}}
}

func TestNames(t *testing.T) {
	for _, test := range []struct {
		clusterID, clusterName, namespace, name string
		want, wantLegacy                        string
	}{
		{"", "prod", "default", "web", "prod-default-web", ""},
		{clusterUUID, "prod", "default", "web", clusterUUID + "-default-web", ""},
		{"", "", "default", "web", "default-web", ""},
		{
			clusterUUID, "", "production", "my-application-api",
			clusterUUID + "-production-my-appl-", clusterUUID + "-production-my-application-a",
		},
		{"", "my.cluster", "default", "web", "my-cluster-default-web-", "my.cluster-default-web"},
	} {
		id := NewIdentity(test.clusterID, test.clusterName, named(test.namespace, test.name))
		if test.wantLegacy == "" {
			test.wantLegacy = test.want
		}
		if id.LegacyName != test.wantLegacy {
			t.Errorf("legacy name %q, want %q", id.LegacyName, test.wantLegacy)
		}
		digest := strings.TrimPrefix(id.Name, test.want)
		if ends := strings.HasSuffix(test.want, "-"); ends && len(digest) != 8 || !ends && digest != "" {
			t.Errorf("name %q, want %q, and a digest if that ends in a dash", id.Name, test.want)
		}
		if !validName(id.Name) {
			t.Errorf("name %q is not one that the API takes", id.Name)
		}
	}
}

// With UpCloud's own CCM, Services whose names begin alike want the same load balancer.
func TestLongNamesStayApart(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"my-application-api", "my-application-admin", "my-application-a"} {
		for _, namespace := range []string{"production-of-a-team", "production-of-b-team"} {
			got := NewIdentity(clusterUUID, "", named(namespace, name)).Name
			if other, ok := seen[got]; ok {
				t.Errorf("%s/%s and %s are both called %s", namespace, name, other, got)
			}
			seen[got] = namespace + "/" + name
			if !validName(got) {
				t.Errorf("name %q is not one that the API takes", got)
			}
		}
	}
}

func TestOwns(t *testing.T) {
	byName := NewIdentity("", "prod", named("default", "web"))
	byID := NewIdentity(clusterUUID, "prod", named("default", "web"))
	for _, test := range []struct {
		name     string
		identity Identity
		labels   cloud.Labels
		want     bool
	}{
		{"our label", byName, cloud.Labels{LabelServiceUID: "uid-1"}, true},
		{"another Service", byName, cloud.Labels{LabelServiceUID: "uid-2"}, false},
		{"another Service of the same name", byName, cloud.Labels{
			LabelServiceUID: "uid-2", LabelClusterName: "prod", LabelGeneratedName: "prod-default-web"}, false},
		{"UpCloud's CCM, cluster by name", byName, cloud.Labels{
			LabelClusterName: "prod", LabelGeneratedName: "prod-default-web"}, true},
		{"UpCloud's CCM, empty ID", byName, cloud.Labels{
			LabelClusterID: "", LabelClusterName: "prod", LabelGeneratedName: "prod-default-web"}, true},
		{"UpCloud's CCM, cluster by ID", byID, cloud.Labels{
			LabelClusterID: clusterUUID, LabelGeneratedName: clusterUUID + "-default-web"}, true},
		{"another cluster's ID", byID, cloud.Labels{
			LabelClusterID: "other", LabelGeneratedName: clusterUUID + "-default-web"}, false},
		{"a cluster with an ID is not one without", byName, cloud.Labels{
			LabelClusterID: "other", LabelClusterName: "prod", LabelGeneratedName: "prod-default-web"}, false},
		{"another cluster's name", byName, cloud.Labels{
			LabelClusterName: "stage", LabelGeneratedName: "prod-default-web"}, false},
		{"another generated name", byName, cloud.Labels{
			LabelClusterName: "prod", LabelGeneratedName: "prod-default-api"}, false},
		{"no labels", byName, nil, false},
		{"somebody's labels", byName, cloud.Labels{"team": "payments"}, false},
		{"empty label", Identity{}, cloud.Labels{LabelServiceUID: ""}, false},
		{"empty everything", Identity{}, cloud.Labels{LabelClusterName: "", LabelGeneratedName: ""}, false},
	} {
		lb := &cloud.LoadBalancer{Name: test.identity.Name, Labels: test.labels}
		if got := test.identity.Owns(lb); got != test.want {
			t.Errorf("%s: Owns = %v, want %v", test.name, got, test.want)
		}
	}
}
