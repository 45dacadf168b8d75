package plan

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

func named(namespace, name string) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid-1"}}
}

func TestNames(t *testing.T) {
	for _, test := range []struct {
		clusterID, clusterName, namespace, name string
		want, wantLegacy                        string
	}{
		{"", "prod", "default", "web", "prod-default-web", ""},
		{example.ClusterUUID, "prod", "default", "web", example.ClusterUUID + "-default-web", ""},
		{"", "", "default", "web", "default-web", ""},
		{
			example.ClusterUUID, "", "production", "my-application-api",
			example.ClusterUUID + "-production-my-appl-", example.ClusterUUID + "-production-my-application-a",
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
		if !settings.ValidName(id.Name) {
			t.Errorf("name %q is not one that the API takes", id.Name)
		}
	}
}

// With UpCloud's own CCM, Services whose names begin alike want the same load balancer.
func TestLongNamesStayApart(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"my-application-api", "my-application-admin", "my-application-a"} {
		for _, namespace := range []string{"production-of-a-team", "production-of-b-team"} {
			got := NewIdentity(example.ClusterUUID, "", named(namespace, name)).Name
			if other, ok := seen[got]; ok {
				t.Errorf("%s/%s and %s are both called %s", namespace, name, other, got)
			}
			seen[got] = namespace + "/" + name
			if !settings.ValidName(got) {
				t.Errorf("name %q is not one that the API takes", got)
			}
		}
	}
}

func TestOwns(t *testing.T) {
	byName := NewIdentity("", "prod", named("default", "web"))
	byID := NewIdentity(example.ClusterUUID, "prod", named("default", "web"))
	for _, test := range []struct {
		name     string
		identity Identity
		labels   cloud.Labels
		want     bool
	}{
		{"our label", byName, cloud.Labels{settings.LabelServiceUID: "uid-1"}, true},
		{"another Service", byName, cloud.Labels{settings.LabelServiceUID: "uid-2"}, false},
		{"another Service of the same name", byName, cloud.Labels{
			settings.LabelServiceUID: "uid-2", settings.LabelClusterName: "prod", settings.LabelGeneratedName: "prod-default-web"}, false},
		{"UpCloud's CCM, cluster by name", byName, cloud.Labels{
			settings.LabelClusterName: "prod", settings.LabelGeneratedName: "prod-default-web"}, true},
		{"UpCloud's CCM, empty ID", byName, cloud.Labels{
			settings.LabelClusterID: "", settings.LabelClusterName: "prod", settings.LabelGeneratedName: "prod-default-web"}, true},
		{"UpCloud's CCM, cluster by ID", byID, cloud.Labels{
			settings.LabelClusterID: example.ClusterUUID, settings.LabelGeneratedName: example.ClusterUUID + "-default-web"}, true},
		{"UpCloud's CCM, a name that was cut", NewIdentity(example.ClusterUUID, "prod", named("ingress-nginx", "ingress-nginx-controller")), cloud.Labels{
			settings.LabelClusterID: example.ClusterUUID, settings.LabelGeneratedName: example.ClusterUUID + "-ingress-nginx-ingress-nginx"}, false},
		{"our label, and another cluster's ID", byID, cloud.Labels{settings.LabelServiceUID: "uid-1", settings.LabelClusterID: "other"}, false},
		{"our label, and no cluster's ID", byID, cloud.Labels{settings.LabelServiceUID: "uid-1", settings.LabelClusterID: ""}, true},
		{"another cluster's ID", byID, cloud.Labels{
			settings.LabelClusterID: "other", settings.LabelGeneratedName: example.ClusterUUID + "-default-web"}, false},
		{"a cluster with an ID is not one without", byName, cloud.Labels{
			settings.LabelClusterID: "other", settings.LabelClusterName: "prod", settings.LabelGeneratedName: "prod-default-web"}, false},
		{"another cluster's name", byName, cloud.Labels{
			settings.LabelClusterName: "stage", settings.LabelGeneratedName: "prod-default-web"}, false},
		{"another generated name", byName, cloud.Labels{
			settings.LabelClusterName: "prod", settings.LabelGeneratedName: "prod-default-api"}, false},
		{"no labels", byName, nil, false},
		{"somebody's labels", byName, cloud.Labels{"team": "payments"}, false},
		{"empty label", Identity{}, cloud.Labels{settings.LabelServiceUID: ""}, false},
		{"empty everything", Identity{}, cloud.Labels{settings.LabelClusterName: "", settings.LabelGeneratedName: ""}, false},
	} {
		lb := &cloud.LoadBalancer{Name: test.identity.Name, Labels: test.labels}
		if got := test.identity.Owns(lb); got != test.want {
			t.Errorf("%s: Owns = %v, want %v", test.name, got, test.want)
		}
	}
}

// Without an ID, the cluster's UID makes names unique in an account; certificate bundles are by the Service's UID, and keep theirs.
func TestNamesOfClustersWithoutID(t *testing.T) {
	s := named("default", "web")
	plain, one, other := NewIdentity("", "kubernetes", s), NewIdentity("", "kubernetes", s).InCluster("a"), NewIdentity("", "kubernetes", s).InCluster("b")
	if one.Name == other.Name || one.Name == plain.Name || !strings.HasPrefix(one.Name, "kubernetes-default-web-") || one.LegacyName != plain.LegacyName {
		t.Errorf("%s, %s and %s", plain.Name, one.Name, other.Name)
	}
	long := named(strings.Repeat("n", 40), strings.Repeat("s", 60))
	if a, b := NewIdentity("", "kubernetes", long).InCluster("a").Name, NewIdentity("", "kubernetes", long).InCluster("b").Name; a == b || !settings.ValidName(a) {
		t.Errorf("%s and %s", a, b)
	}
	if with := NewIdentity("prod", "kubernetes", s); with.InCluster("a").Name != with.Name {
		t.Errorf("with an ID: %s, was %s", with.InCluster("a").Name, with.Name)
	}
	certificate := settings.Certificate{Secret: "www"}
	if was, is := BundleName(certificate, plain), BundleName(certificate, one); was != is {
		t.Errorf("the bundle of a Secret is %s, was %s", is, was)
	}
	made := &cloud.LoadBalancer{Labels: one.labels(s)}
	earlier := &cloud.LoadBalancer{Labels: plain.labels(s)}
	if !one.Owns(made) || !one.Owns(earlier) || other.Owns(made) || !other.OtherCluster(made.Labels) || one.OtherCluster(earlier.Labels) {
		t.Error("ownership does not go by the cluster's UID")
	}
	delete(made.Labels, settings.LabelServiceUID)
	if other.OwnsNamed(made) || other.Owns(made) || !one.Owns(made) {
		t.Error("ownership by name does not go by the cluster's UID")
	}
	own := settings.Certificate{Hostnames: []string{}}
	for _, lb := range []*cloud.LoadBalancer{made, earlier} {
		asking := s.DeepCopy()
		asking.Annotations = map[string]string{settings.AnnotationPrefix + "mode": "http"}
		asking.Spec.Ports = []v1.ServicePort{{Name: "https", Port: 443, NodePort: 30443}}
		if name := BundleName(own, one.Of(lb)); !(Cluster{Name: "kubernetes", UID: "a"}).AsksFor(asking, name) {
			t.Errorf("bundle %s is not asked for", name)
		}
	}
}
