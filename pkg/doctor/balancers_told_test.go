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
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// What the doctor leaves to a person.
func TestLoadBalancersThatAreOnlyTold(t *testing.T) {
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

	want := []string{"lost-load-balancer Service/default/lost", "second-load-balancer copiedService/default/web", "unused-shared-load-balancer group"}
	before := r.state(t)
	report := r.fix(t, nil)
	wantTold(t, "findings", report.Findings, want...)
	if after := r.state(t); after != before || report.Left() != 3 {
		t.Errorf("%d are left; the account was\n%s\nand is\n%s", report.Left(), before, after)
	}
}

// annotate writes on a Service in Kubernetes which load balancer it has.
func (r *balancerRig) annotate(t *testing.T, s *corev1.Service, id string) {
	t.Helper()
	s = s.DeepCopy()
	s.Annotations[loadbalancer.AnnotationID] = id
	if _, err := r.kube.CoreV1().Services(s.Namespace).Update(testContext(t), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A certificate goes when its Service asks for another, and stays while it is in use.
func TestFixRemovesCertificatesThatNobodyAsksFor(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web", "tls-hostnames", "a.example"))
	bundle := r.bundles(t)[0]
	if _, err := r.cloud.CreateCertificateBundle(testContext(t), cloud.CertificateBundle{
		Name: "former", Type: cloud.BundleDynamic, KeyType: "ecdsa", Hostnames: []string{"b.example"}, Labels: bundle.Labels,
	}); err != nil {
		t.Fatal(err)
	}
	report := r.fix(t, nil)
	wantTold(t, "findings", report.Findings, "orphan-certificate former")
	if left := r.bundles(t); len(left) != 1 || left[0].ID != bundle.ID || report.Left() > 0 {
		t.Errorf("%d findings are left, and the certificates %v", report.Left(), left)
	}
}

// Without an ID of the cluster, nothing tells it from others of its name: that has to be said.
func TestUnclaimedLoadBalancers(t *testing.T) {
	r := newBalancerRig(t)
	r.serve(t, "", balanced("gone"))
	shared := balanced("left", "shared", "create/group")
	r.serve(t, "", shared)
	r.config.Cluster.ID = ""

	ask := func(f *doctor.Finding) (bool, error) { return true, nil }
	r.fix(t, ask)
	if all := r.balancers(t); len(all) != 2 || len(all["group"].Backends) != 1 {
		t.Fatalf("left: %v", all)
	}
	r.config.Unclaimed = doctor.UnclaimedIgnore
	wantTold(t, "ignored", r.examine(t).Findings)
	r.config.Cluster.Name, r.config.Unclaimed = "production", doctor.UnclaimedRemove
	wantTold(t, "of a cluster of another name", r.examine(t).Findings)

	r.config.Cluster.Name = "kubernetes"
	var questions []string
	r.fix(t, func(f *doctor.Finding) (bool, error) {
		questions = append(questions, f.Subject())
		return true, nil
	})
	if all := r.balancers(t); len(all) != 1 || len(all["group"].Backends) != 0 {
		t.Errorf("left: %v", all)
	}
	if all := strings.Join(questions, "\n"); len(questions) != 2 || strings.Count(all, "does not say which cluster's") != 2 {
		t.Errorf("questions:\n%s", all)
	}
}

// With a kubeconfig of another cluster everything would look left behind.
func TestFixRefusesAnotherKubernetesUnasked(t *testing.T) {
	r := newBalancerRig(t)
	r.serve(t, "test", balanced("web"))
	report := r.examine(t)
	if err := r.doctor(t).Fix(testContext(t), report, nil); !errors.Is(err, doctor.ErrOtherClusterBalancers) {
		t.Errorf("error %v", err)
	}
	r.idOf(t, "test-default-web")
}

// Between the look and the removal, a restored Service may have come back.
func TestFixLooksAgainAtLoadBalancers(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web"))
	gone := balanced("gone")
	r.serve(t, "test", gone)
	left := balanced("left", "shared", "create/group")
	r.serve(t, "test", left)
	report := r.examine(t)
	r.apply(t, gone, left)
	if err := r.doctor(t).Fix(testContext(t), report, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Outcome != doctor.OutcomeResolved {
			t.Errorf("%s %s: %s", f.Kind, f.Title, f.Outcome)
		}
	}
	if all := r.balancers(t); len(all) != 3 || len(all["group"].Backends) != 1 {
		t.Errorf("left: %v", all)
	}
}

// A load balancer that has been on its way for two days does not come up by itself; one that was stopped may stay so.
func TestLoadBalancersThatHaveNotComeUp(t *testing.T) {
	r := &balancerRig{rig: newRigOf(t, simulator.Config{
		Profile: simulator.Realistic, Clock: simulator.NewManualClockAt(time.Now().Add(-48 * time.Hour)),
	})}
	r.config = doctor.BalancersConfig{
		Cloud: r.cloud, Kubernetes: r.kube, Cluster: loadbalancer.Cluster{ID: "test", Name: "kubernetes"},
		SafetyAge: time.Hour, Unclaimed: doctor.UnclaimedReport,
	}
	var made struct{ Network struct{ UUID string } }
	r.sim.Do(t, "POST", "/network", `{"network":{"name":"n","zone":"fi-hel1","ip_networks":{"ip_network":[
		{"address":"10.9.0.0/24","dhcp":"yes","family":"IPv4"}]}}}`, &made)
	for name, status := range map[string]string{"slow": "started", "off": "stopped"} {
		r.apply(t, balanced(name))
		if _, err := r.cloud.CreateLoadBalancer(testContext(t), cloud.LoadBalancer{
			Name: name, Zone: zone, Plan: "development", ConfiguredStatus: status,
			Labels:    cloud.Labels{loadbalancer.LabelServiceUID: "uid-" + name, loadbalancer.LabelClusterID: "test"},
			Networks:  []cloud.LoadBalancerNetwork{{Name: "in", Type: "private", Family: "IPv4", ID: made.Network.UUID}},
			Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
		}); err != nil {
			t.Fatal(err)
		}
	}
	wantTold(t, "findings", r.examine(t).Findings, "stuck-load-balancer slowService/default/slow")
	r.config.SafetyAge = 72 * time.Hour
	wantTold(t, "while it is young", r.examine(t).Findings)
}
