package doctor_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// What the doctor leaves to a person.
func TestLoadBalancersThatAreOnlyListed(t *testing.T) {
	r := newBalancerRig(t)
	web := r.known(t, balanced("web"))
	id := r.idOf(t, "test-default-web")
	r.annotate(t, web, id)
	lost := r.known(t, balanced("lost"))
	r.annotate(t, lost, r.idOf(t, "test-default-lost"))
	if err := r.cloud.DeleteLoadBalancer(testContext(t), r.idOf(t, "test-default-lost")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(r.balancers(t)) > 1; {
		if time.Now().After(deadline) {
			t.Fatal("the load balancer is there still")
		}
	}
	r.foreign(t, "copied", maps.Clone(r.balancers(t)["test-default-web"].Labels))
	r.foreign(t, "group", cloud.Labels{"ccm_shared_group": "group", "ccm_cluster_name": "kubernetes"})

	r.pass(48 * time.Hour)
	want := []string{"lost-load-balancer Service/default/lost", "second-load-balancer copiedService/default/web", "unused-shared-load-balancer group"}
	before := r.state(t)
	report := r.fix(t)
	wantListed(t, "findings", report.Findings, want...)
	if after := r.state(t); after != before || report.Left() != 3 {
		t.Errorf("%d are left; the account was\n%s\nand is\n%s", report.Left(), before, after)
	}
}

// annotate writes on a Service in Kubernetes which load balancer it has.
func (r *balancerRig) annotate(t *testing.T, s *corev1.Service, id string) {
	t.Helper()
	s = s.DeepCopy()
	s.Annotations[settings.AnnotationID] = id
	if _, err := r.kube.CoreV1().Services(s.Namespace).Update(testContext(t), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A certificate goes when its Service asks for another, and stays while it is in use.
func TestFixRemovesCertificatesThatNoServiceAsksFor(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web", "tls-hostnames", "a.example"))
	bundle := r.bundles(t)[0]
	if _, err := r.cloud.CreateCertificateBundle(testContext(t), cloud.CertificateBundle{
		Name: "former", Type: cloud.BundleDynamic, KeyType: "ecdsa", Hostnames: []string{"b.example"}, Labels: bundle.Labels,
	}); err != nil {
		t.Fatal(err)
	}
	r.pass(48 * time.Hour)
	wantListed(t, "findings", r.examine(t).Findings, "orphan-certificate former")
	report := r.fixForLong(t)
	if left := r.bundles(t); len(left) != 1 || left[0].ID != bundle.ID || report.Left() > 0 {
		t.Errorf("%d findings are left, and the certificates %v", report.Left(), left)
	}
}

// A certificate that was made for one Service, and that another one names, stays, though no load balancer uses it yet.
func TestCertificatesThatAnotherServiceNamesStay(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web", "tls-hostnames", "a.example"))
	former, err := r.cloud.CreateCertificateBundle(testContext(t), cloud.CertificateBundle{
		Name: "former", Type: cloud.BundleDynamic, KeyType: "ecdsa", Hostnames: []string{"b.example"}, Labels: r.bundles(t)[0].Labels,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.pass(2 * safetyAge)
		r.fix(t)
	}
	r.apply(t, balanced("pending", "tls-bundle", "http="+former.ID))
	r.config.Now = true
	report := r.fixForLong(t)
	if left := r.bundles(t); len(left) != 2 {
		t.Fatalf("the certificates are %v", left)
	}
	for _, bundle := range r.bundles(t) {
		if bundle.Labels[doctor.LabelQuarantine] != "" {
			t.Errorf("%s is in quarantine still", bundle.Name)
		}
	}
	wantListed(t, "findings", report.Findings, "orphan-certificate former: Service/default/pending names it")
}

// Without the UID of the cluster, nothing is touched: a name is one that every cluster has, and IDs are given twice.
func TestLoadBalancersWithoutTheUIDAreOnlyListed(t *testing.T) {
	r := newBalancerRig(t)
	for _, id := range []string{"", "test"} {
		lb := r.serveAs(t, id, "", balanced("gone"+id))
		r.empties(t, r.idOf(t, plan.NewIdentity(id, "kubernetes", lb).Name))
	}
	r.serve(t, "", balanced("left", "shared", "create/group"))
	r.config.Now = true
	before := r.state(t)
	report := r.fixForLong(t)
	if after := r.state(t); after != before || report.Left() == 0 {
		t.Errorf("%d findings; the account was\n%s\nand is\n%s", report.Left(), before, after)
	}
	for _, f := range report.Findings {
		if f.Outcome != doctor.OutcomeKept && f.Outcome != "" {
			t.Errorf("%s %s: %s", f.Kind, f.Title, f.Outcome)
		}
	}
}

// A Service that went to another controller's class leaves its load balancer behind.
func TestLoadBalancersOfAnotherClassAreListed(t *testing.T) {
	r := newBalancerRig(t)
	s := r.known(t, balanced("web"))
	other := "example.com/other"
	s.Spec.LoadBalancerClass = &other
	if _, err := r.kube.CoreV1().Services(s.Namespace).Update(testContext(t), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.pass(48 * time.Hour)
	wantListed(t, "findings", r.fixForLong(t).Findings, "other-class-load-balancer test-default-webService/default/web")
	r.idOf(t, "test-default-web")
}

// With the credentials of another account, or a cluster ID that is not this cluster's, nothing is judged.
func TestMismatchesOfLoadBalancers(t *testing.T) {
	r, other := newBalancerRig(t), newBalancerRig(t)
	s := r.known(t, balanced("web"))
	r.annotate(t, s, r.idOf(t, "test-default-web"))
	r.config.Cluster.ID = "prodction"
	if _, err := r.doctor(t).Examine(testContext(t)); !errors.Is(err, doctor.ErrMismatch) || !strings.Contains(err.Error(), "test") {
		t.Errorf("a wrong ID: %v", err)
	}
	r.config.Cluster.ID = "test"
	r.config.Cloud = other.cloud
	if _, err := r.doctor(t).Examine(testContext(t)); !errors.Is(err, doctor.ErrMismatch) || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("another account: %v", err)
	}
}

// A load balancer that has been on its way for two days does not come up by itself; one that was stopped may stay so.
func TestLoadBalancersThatHaveNotComeUp(t *testing.T) {
	r := &balancerRig{rig: newRigOf(t, simulator.Config{Profile: simulator.Realistic})}
	r.configure()
	var made struct{ Network struct{ UUID string } }
	r.sim.Do(t, "POST", "/network", `{"network":{"name":"n","zone":"fi-hel1","ip_networks":{"ip_network":[
		{"address":"10.9.0.0/24","dhcp":"yes","family":"IPv4"}]}}}`, &made)
	for name, status := range map[string]string{"slow": "started", "off": "stopped"} {
		r.apply(t, balanced(name))
		if _, err := r.cloud.CreateLoadBalancer(testContext(t), cloud.LoadBalancer{
			Name: name, Zone: zone, Plan: "development", ConfiguredStatus: status,
			Labels:    cloud.Labels{settings.LabelServiceUID: "uid-" + name, settings.LabelClusterID: "test"},
			Networks:  []cloud.LoadBalancerNetwork{{Name: "in", Type: "private", Family: "IPv4", ID: made.Network.UUID}},
			Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
		}); err != nil {
			t.Fatal(err)
		}
	}
	r.pass(5 * time.Second) // too short for it to come up
	r.config.SafetyAge = time.Second
	wantListed(t, "findings", r.examine(t).Findings, "stuck-load-balancer slowService/default/slow")
	r.config.SafetyAge = 72 * time.Hour
	wantListed(t, "while it is young", r.examine(t).Findings)
}

// What retain left can be taken, and so can what a Service names that was restored from a backup: the report has the annotation to set.
func TestLoadBalancersThatCanBeTakenAreListed(t *testing.T) {
	r := newBalancerRig(t)
	kept := balanced("kept", "retain", "true")
	l := r.controller("test", clusterUID, kept)
	if err := r.ensure(t, l, kept); err != nil {
		t.Fatal(err)
	}
	if err := l.EnsureLoadBalancerDeleted(testContext(t), "kubernetes", kept); err != nil {
		t.Fatal(err)
	}
	r.serveAs(t, "test", otherUID, balanced("web"))
	restored := balanced("web")
	restored.UID = "uid-restored"
	restored.Annotations[settings.AnnotationID] = r.idOf(t, "test-default-web")
	r.apply(t, restored)
	r.pass(48 * time.Hour)
	before := r.state(t)
	report := r.fix(t)
	wantListed(t, "findings", report.Findings)
	if len(report.Kept) != 2 {
		t.Fatalf("kept: %v", listed(report.Kept))
	}
	for _, f := range report.Kept {
		want := "annotation retain left it in the account when Service/default/kept was deleted"
		if f.Title != "test-default-kept" {
			want = "Service/default/web names it, and its labels are those of another cluster's Service; adoptableLoadBalancers of ccm's configuration must allow it"
		}
		if f.Kind != doctor.AdoptableBalancer || f.Kept != want || f.Adopt != "service.beta.kubernetes.io/upcloud-load-balancer-adopt: "+f.LoadBalancerID {
			t.Errorf("%+v", f)
		}
	}
	if after := r.state(t); after != before {
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
}

// A copy of a Service's load balancer is not taken for what the Service's end left behind.
func TestCopyOfAServicesLoadBalancerIsNotRemoved(t *testing.T) {
	r := newBalancerRig(t)
	web := r.known(t, balanced("web"))
	id := r.idOf(t, "test-default-web")
	r.foreign(t, "copied", maps.Clone(r.balancers(t)["test-default-web"].Labels))
	r.annotate(t, web, id)
	web.Annotations[settings.AnnotationID] = id
	r.deletes(t, web)
	r.fix(t)
	r.loses(t, web)
	if err := r.cloud.DeleteLoadBalancer(testContext(t), id); err != nil {
		t.Fatal(err)
	}
	r.fixForLong(t)
	if _, there := r.balancers(t)["copied"]; !there {
		t.Errorf("left: %v", r.balancers(t))
	}
}
