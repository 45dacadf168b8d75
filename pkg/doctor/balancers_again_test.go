package doctor_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// quarantined is a load balancer in quarantine.
func (r *balancerRig) quarantined(t *testing.T, name string) (id string) {
	t.Helper()
	id = r.gone(t, balanced(name))
	r.pass(2 * safetyAge)
	r.fix(t)
	r.pass(safetyAge)
	r.fix(t)
	return id
}

func (r *balancerRig) balancer(t *testing.T, id string) *cloud.LoadBalancer {
	t.Helper()
	lb, err := r.cloud.LoadBalancer(testContext(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return lb
}

// A Service of the same name has a load balancer of that name by then.
func TestRestoreOfALoadBalancerWhoseNameIsTaken(t *testing.T) {
	r := newBalancerRig(t)
	id := r.quarantined(t, "web")
	again := balanced("web")
	again.UID = "another"
	r.known(t, again)
	report, err := r.doctor(t).Restore(testContext(t), []string{id})
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Outcome != doctor.OutcomeRestored {
		t.Fatalf("%v, %+v", err, report.Findings)
	}
	lb := r.balancer(t, id)
	if !strings.HasPrefix(lb.Name, "test-default-web-") || lb.Labels[doctor.LabelQuarantine] != "" || lb.Labels["upcloud-doctor-name"] != "" {
		t.Errorf("it is named %s, with labels %v", lb.Name, lb.Labels)
	}
}

// A load balancer that cannot be given the name that shows its quarantine is not in quarantine, and one that cannot be given its name back
// gets it at the next run.
func TestAQuarantineOfALoadBalancerAlwaysShowsInItsName(t *testing.T) {
	r := newBalancerRig(t)
	s := balanced("web")
	id := r.gone(t, s)
	r.pass(2 * safetyAge)
	r.fix(t)
	r.pass(safetyAge)
	stop := r.sim.Inject(simulator.Fault{Operation: "PATCH /load-balancer/{uuid}", Status: 403})
	r.fix(t)
	stop()
	if lb := r.balancer(t, id); lb.Labels[doctor.LabelQuarantine] != "" {
		t.Fatalf("in quarantine as %s", lb.Name)
	}
	stop = r.sim.Inject(simulator.Fault{Operation: "POST /load-balancer/{uuid}/labels", Status: 403, Skip: 0})
	r.fix(t)
	stop()
	r.fix(t)
	const name = "to-be-removed-2030-01-09-test-default-web"
	if lb := r.balancer(t, id); lb.Labels[doctor.LabelQuarantine] == "" || lb.Name != name {
		t.Fatalf("named %s, with labels %v", lb.Name, lb.Labels)
	}

	s.DeletionTimestamp = nil
	r.apply(t, s) // etcd is set back
	stop = r.sim.Inject(simulator.Fault{Operation: "PATCH /load-balancer/{uuid}", Status: 403})
	r.fix(t)
	stop()
	if lb := r.balancer(t, id); lb.Labels[doctor.LabelQuarantine] != "" {
		t.Errorf("in quarantine still: %v", lb.Labels)
	}
	r.fix(t)
	if lb := r.balancer(t, id); lb.Name != "test-default-web" || lb.Labels["upcloud-doctor-name"] != "" {
		t.Errorf("named %s, with labels %v", lb.Name, lb.Labels)
	}
}

// A certificate that its Service asks for again, or that a person labels, leaves its quarantine: it is not removed at once when that ends.
func TestACertificateThatIsWantedAgainLeavesItsQuarantine(t *testing.T) {
	for _, how := range []string{"asked for", "labelled"} {
		r := newBalancerRig(t)
		s := r.known(t, balanced("web", "tls-hostnames", "a.example"))
		r.pass(48 * safetyAge)
		r.fix(t)
		former := r.bundles(t)[0]
		asks := func(hostname string) {
			s = s.DeepCopy()
			s.Annotations[settings.AnnotationPrefix+"tls-hostnames"] = hostname
			if _, err := r.kube.CoreV1().Services(s.Namespace).Update(testContext(t), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		asks("b.example")
		stop := r.sim.Inject(simulator.Fault{Operation: "DELETE /load-balancer/certificate-bundles/{bundle}", Status: 403})
		_ = r.ensure(t, r.controller("test", clusterUID, s), s.DeepCopy()) // it cannot delete the former one
		stop()
		r.fix(t)
		r.pass(safetyAge)
		r.fix(t)
		labels := func() cloud.Labels {
			bundle, err := r.cloud.CertificateBundle(testContext(t), former.ID)
			if err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			return bundle.Labels
		}
		kept := labels()
		if kept[doctor.LabelQuarantine] == "" {
			t.Fatalf("not in quarantine: %v", kept)
		}
		if how == "asked for" {
			asks("a.example")
		} else {
			kept["keep"] = "yes"
			if err := r.cloud.ModifyCertificateBundle(testContext(t), former.ID, cloud.CertificateBundlePatch{Labels: kept}); err != nil {
				t.Fatal(err)
			}
		}
		report := r.fix(t)
		if len(report.Findings) != 1 || report.Findings[0].Kind != doctor.WantedAgain || labels()[doctor.LabelQuarantine] != "" {
			t.Errorf("%s: findings %v, labels %v", how, listed(report.Findings), labels())
		}
		r.pass(2 * quarantine)
		asks("b.example")
		r.fix(t)
		if labels()[doctor.LabelQuarantine] != "" {
			t.Errorf("%s: afterwards %v", how, labels())
		}
	}
}

// A copy of the cluster whose Services all share shows itself by the certificates that it makes.
func TestACertificateThatThisClusterNeverKnewStopsTheDoctor(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web"))
	left := r.gone(t, balanced("left"))
	r.pass(48 * safetyAge)
	r.fix(t)
	r.serve(t, "test", balanced("of-the-copy", "shared", "create/group", "tls-hostnames", "a.example"))
	made := r.bundles(t)[0].ID
	report := r.fixForLong(t)
	if r.balancer(t, left).Labels[doctor.LabelQuarantine] != "" || !strings.Contains(report.Stopped, made) {
		t.Errorf("stopped by %q, and what is left has the labels %v", report.Stopped, r.balancer(t, left).Labels)
	}
}
