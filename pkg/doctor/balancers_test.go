package doctor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// What is in use, another's, or on its way is no finding, and --fix touches none of it.
func TestLoadBalancersInUseAreNoFindings(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web", "tls-hostnames", "a.example"))
	r.known(t, balanced("foo", "shared", "create/group"))
	// Other clusters': with IDs of their own, or a name of their own, also on the same shared load balancer.
	r.serve(t, "other", balanced("web2", "tls-hostnames", "b.example"))
	bar := balanced("bar", "shared", "create/group", "routes", "[{host: y.example, path: /}]")
	bar.Spec.Ports[0].Port = 84
	r.serve(t, "other", bar)
	// Being deleted.
	going := balanced("going")
	now := metav1.Now()
	going.DeletionTimestamp, going.Finalizers = &now, []string{"service.kubernetes.io/load-balancer-cleanup"}
	r.known(t, going)
	// No longer of the type, and its controller has not taken it down yet.
	turned := balanced("turned")
	r.serve(t, "test", turned)
	turned.Spec.Type, turned.Finalizers = corev1.ServiceTypeClusterIP, []string{"service.kubernetes.io/load-balancer-cleanup"}
	r.apply(t, turned)
	// A person's, and Terraform's.
	r.foreign(t, "by-hand", nil)
	r.foreign(t, "terraform", cloud.Labels{"made-by": "terraform", "ccm_cluster_id": "test"})

	before := r.state(t)
	r.pass(48 * time.Hour)
	report := r.fixForLong(t)
	wantListed(t, "findings", report.Findings)
	wantListed(t, "undecided", report.Undecided)
	if after := r.state(t); after != before {
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
}

// A load balancer goes in the three steps that a disk goes in, with its certificate.
func TestFixMarksQuarantinesAndRemovesLoadBalancers(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web", "tls-hostnames", "a.example"))
	kept := r.state(t)
	id := r.gone(t, balanced("gone", "tls-hostnames", "b.example"))
	r.pass(48 * time.Hour)
	if all := listed(r.fix(t).Findings); len(all) != 2 {
		t.Errorf("findings: %v", all)
	}
	lb, err := r.cloud.LoadBalancer(testContext(t), id)
	if err != nil || lb.Labels[doctor.LabelLeft] == "" || lb.Name != "test-default-gone" {
		t.Fatalf("after the first look: %s, %v, %v", lb.Name, lb.Labels, err)
	}
	r.pass(safetyAge)
	r.fix(t)
	lb, err = r.cloud.LoadBalancer(testContext(t), id)
	if err != nil || lb.Labels[doctor.LabelQuarantine] == "" || lb.Name != "to-be-removed-2030-01-11-test-default-gone" {
		t.Fatalf("in quarantine: %s, %v, %v", lb.Name, lb.Labels, err)
	}
	r.pass(quarantine - time.Minute)
	r.fix(t)
	if _, err := r.cloud.LoadBalancer(testContext(t), id); err != nil {
		t.Fatal("removed before the quarantine was over")
	}
	r.fixForLong(t)
	if now := r.state(t); now != kept {
		t.Errorf("what others have was\n%s\nand is\n%s", kept, now)
	}
	wantListed(t, "afterwards", r.examine(t).Findings)
}

// Restoring gives a load balancer its name back, and keeps it.
func TestRestoreTakesLoadBalancersBack(t *testing.T) {
	r := newBalancerRig(t)
	id := r.gone(t, balanced("gone", "tls-hostnames", "b.example"))
	r.pass(2 * safetyAge)
	r.fix(t)
	r.pass(safetyAge)
	r.fix(t)
	report, err := r.doctor(t).Restore(testContext(t), nil)
	if err != nil || len(report.Findings) != 1 { // its certificate is in use
		t.Fatalf("%v, %v", report, err)
	}
	lb, err := r.cloud.LoadBalancer(testContext(t), id)
	if err != nil || lb.Name != "test-default-gone" || lb.Labels["keep"] != "restored" || lb.Labels[doctor.LabelQuarantine] != "" {
		t.Errorf("%s, %v, %v", lb.Name, lb.Labels, err)
	}
	r.fixForLong(t)
	if len(r.balancers(t)) != 1 || len(r.bundles(t)) != 1 {
		t.Errorf("left: %v, %v", r.balancers(t), r.bundles(t))
	}
}

// Each rule alone keeps what would be removed without it: the last case shows that.
func TestFixKeepsLoadBalancers(t *testing.T) {
	cases := []struct {
		name  string
		setup func(t *testing.T, r *balancerRig, id string)
		says  string // in a finding about test-default-gone; empty: it is removed
	}{
		{"one that a Service names", func(t *testing.T, r *balancerRig, id string) {
			s := balanced("restored")
			s.Annotations[settings.AnnotationID] = strings.ToUpper(id)
			r.apply(t, s)
		}, "Service/default/restored names it"},
		{"one that a Service asks to share", func(t *testing.T, r *balancerRig, id string) {
			r.apply(t, balanced("sharing", "shared", strings.ToUpper(id)))
		}, "Service/default/sharing names it"},
		{"one that a Service asks to share by its name", func(t *testing.T, r *balancerRig, _ string) {
			r.apply(t, balanced("sharing", "shared", "test-default-gone"))
		}, "Service/default/sharing names it"},
		{"one whose notes were taken off", func(t *testing.T, r *balancerRig, id string) {
			r.sim.Do(t, "DELETE", "/load-balancer/"+id+"/labels/ccm_components", "", nil)
		}, "on it is what was not made for its Service: frontend http, backend http"},
		{"one with a frontend of another", func(t *testing.T, r *balancerRig, id string) {
			r.postJSON(t, "/load-balancer/"+id+"/frontends", map[string]any{"name": "mine", "mode": "tcp", "port": 9000, "default_backend": "http"})
		}, "on it is what was not made for its Service: frontend mine"},
		{"one with a rule of another", func(t *testing.T, r *balancerRig, id string) {
			r.postJSON(t, "/load-balancer/"+id+"/frontends/http/rules", map[string]any{
				"name": "mine", "priority": 1, "matchers": []any{}, "actions": []any{map[string]any{"type": "tcp_reject", "action_tcp_reject": map[string]any{}}}})
		}, "on it is what was not made for its Service: rule mine"},
		{"one with a member", func(t *testing.T, r *balancerRig, id string) {
			r.postJSON(t, "/load-balancer/"+id+"/backends/http/members", map[string]any{
				"name": "m", "ip": "172.16.0.9", "port": 80, "type": "static", "weight": 100, "max_sessions": 1000, "enabled": true})
		}, "it is in use: backend http has 1 members"},
		{"one that is labelled", func(t *testing.T, r *balancerRig, id string) {
			r.postJSON(t, "/load-balancer/"+id+"/labels", map[string]any{"key": "keep", "value": "yes"})
		}, "label keep=yes"},
		{"one without the cluster's UID", func(t *testing.T, r *balancerRig, id string) {
			r.sim.Do(t, "DELETE", "/load-balancer/"+id+"/labels/ccm_cluster_uid", "", nil)
		}, "no label says that this cluster made it; the doctor never touches it"},
		{"no reason", func(*testing.T, *balancerRig, string) {}, ""},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			r := newBalancerRig(t)
			r.known(t, balanced("web"))
			id := r.gone(t, balanced("gone"))
			test.setup(t, r, id)
			report := r.fixForLong(t)
			_, there := r.balancers(t)["test-default-gone"]
			want := "orphan-load-balancer test-default-gone: " + test.says
			switch all := listed(slices.Concat(report.Findings, report.Kept)); {
			case test.says == "" && (there || report.Left() > 0):
				t.Errorf("it is there still: %v", all)
			case test.says != "" && (!there || !slices.Contains(all, want)):
				t.Errorf("there: %t, findings %v, want %s", there, all, want)
			}
		})
	}
}

// A Service that retain or deletion-protection was to save its load balancer from loses its finalizer while ccm does not run.
func TestRetainedLoadBalancersStay(t *testing.T) {
	for _, annotation := range []string{"retain", "deletion-protection"} {
		r := newBalancerRig(t)
		r.known(t, balanced("web"))
		id := r.gone(t, balanced("gone", annotation, "true"))
		report := r.fixForLong(t)
		if _, err := r.cloud.LoadBalancer(testContext(t), id); err != nil {
			t.Errorf("%s: %v", annotation, err)
		}
		wantListed(t, annotation, report.Kept, "orphan-load-balancer test-default-gone: its Service had the annotation retain or deletion-protection")
	}
}

// Running load balancers that etcd does not know after it was set back, or that a copy of it made, stay, and so does everything else.
func TestLoadBalancersThatThisClusterNeverKnewStay(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web"))
	left := r.gone(t, balanced("left"))
	newest := r.idOf(t, r.nameOf(r.serve(t, "test", balanced("newest"))))
	r.empties(t, newest)
	report := r.fixForLong(t)
	for _, id := range []string{left, newest} {
		if lb, err := r.cloud.LoadBalancer(testContext(t), id); err != nil || lb.Labels[doctor.LabelQuarantine] != "" {
			t.Errorf("%v, %v", lb, err)
		}
	}
	if !strings.Contains(report.Stopped, newest) {
		t.Errorf("stopped by %q", report.Stopped)
	}
}

func (r *balancerRig) nameOf(s *corev1.Service) string { return "test-default-" + s.Name }

// Who gives a load balancer another name wants it, before its quarantine and in it, and the name stays.
func TestRenamedLoadBalancersStay(t *testing.T) {
	for _, inQuarantine := range []bool{false, true} {
		r := newBalancerRig(t)
		r.known(t, balanced("web"))
		id := r.gone(t, balanced("gone"))
		if inQuarantine {
			for range 2 {
				r.pass(2 * safetyAge)
				r.fix(t)
			}
		}
		r.sim.Do(t, "PATCH", "/load-balancer/"+id, `{"name":"customers-of-2025"}`, nil)
		report := r.fixForLong(t)
		lb, err := r.cloud.LoadBalancer(testContext(t), id)
		if err != nil || lb.Name != "customers-of-2025" || lb.Labels[doctor.LabelQuarantine] != "" {
			t.Errorf("in quarantine %t: %v, %v", inQuarantine, lb, err)
		}
		wantListed(t, "kept", report.Kept, "orphan-load-balancer customers-of-2025: its name was changed")
	}
}

// What a Service asks to share by its name is found by that name: it leaves its quarantine.
func TestALoadBalancerThatAServiceNamesLeavesItsQuarantine(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web"))
	id := r.gone(t, balanced("gone"))
	for range 2 {
		r.pass(2 * safetyAge)
		r.fix(t)
	}
	if lb, err := r.cloud.LoadBalancer(testContext(t), id); err != nil || lb.Name == "test-default-gone" {
		t.Fatalf("it is not in quarantine: %v, %v", lb, err)
	}
	r.apply(t, balanced("sharing", "shared", "test-default-gone"))
	r.fix(t)
	if lb, err := r.cloud.LoadBalancer(testContext(t), id); err != nil || lb.Name != "test-default-gone" || lb.Labels[doctor.LabelQuarantine] != "" {
		t.Errorf("%v, %v", lb, err)
	}
}
