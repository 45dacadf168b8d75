package doctor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// balancerRig is an account, Kubernetes, and a node for load balancers to lead to.
type balancerRig struct {
	*rig
	config doctor.BalancersConfig
	node   *corev1.Node
}

// newBalancerRig is an account in which everything that is made is two days old.
func newBalancerRig(t *testing.T) *balancerRig {
	t.Helper()
	return newBalancerRigAt(t, time.Now().Add(-48*time.Hour))
}

func newBalancerRigAt(t *testing.T, now time.Time) *balancerRig {
	t.Helper()
	r := &balancerRig{rig: newRigOf(t, simulator.Config{Clock: simulator.NewClockAt(now)})}
	r.config = doctor.BalancersConfig{
		Cloud: r.cloud, Kubernetes: r.kube, Cluster: loadbalancer.Cluster{ID: "test", Name: "kubernetes"},
		SafetyAge: time.Hour, Unclaimed: doctor.UnclaimedReport,
	}
	id := r.sim.CreateServer(t, "n1", zone)
	r.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{ProviderID: providerid.New(id)}}
	servers, err := instances.New(instances.Config{Cloud: r.cloud})
	if err != nil {
		t.Fatal(err)
	}
	if r.node.Status.Addresses, err = servers.NodeAddresses(testContext(t), r.node); err != nil {
		t.Fatal(err)
	}
	return r
}

func balanced(name string, annotations ...string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), Annotations: map[string]string{}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}},
		},
	}
	for i := 0; i < len(annotations); i += 2 {
		s.Annotations[loadbalancer.AnnotationPrefix+annotations[i]] = annotations[i+1]
	}
	return s
}

// serve lets a cluster's controller make what a Service asks for. The Service is not in Kubernetes: see known.
func (r *balancerRig) serve(t *testing.T, clusterID string, s *corev1.Service) *corev1.Service {
	t.Helper()
	l := loadbalancer.New(loadbalancer.Config{Cloud: r.cloud, ClusterID: clusterID})
	l.Start(fake.NewClientset(s.DeepCopy()), nil) // its annotations stay there: what the account tells must do
	ctx := testContext(t)
	for {
		_, err := l.EnsureLoadBalancer(ctx, "kubernetes", s, []*corev1.Node{r.node})
		var retry *api.RetryError
		if err == nil {
			return s
		}
		if !errors.As(err, &retry) || retry.RetryAfter() > time.Minute || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// known is serve of a Service that is in Kubernetes.
func (r *balancerRig) known(t *testing.T, s *corev1.Service) *corev1.Service {
	t.Helper()
	r.serve(t, "test", s)
	r.apply(t, s)
	return s
}

func (r *balancerRig) balancers(t *testing.T) map[string]cloud.LoadBalancer {
	t.Helper()
	all, err := r.cloud.LoadBalancers(testContext(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]cloud.LoadBalancer{}
	for _, lb := range all {
		byName[lb.Name] = lb
	}
	return byName
}

func (r *balancerRig) idOf(t *testing.T, name string) string {
	t.Helper()
	lb, found := r.balancers(t)[name]
	if !found {
		t.Fatalf("there is no load balancer %s among %v", name, slices.Collect(maps.Keys(r.balancers(t))))
	}
	return lb.ID
}

func (r *balancerRig) bundles(t *testing.T) []cloud.CertificateBundle {
	t.Helper()
	all, err := r.cloud.CertificateBundles(testContext(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// post makes something by the API itself.
func (r *balancerRig) postJSON(t *testing.T, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r.sim.Do(t, "POST", path, string(text), nil)
}

func (r *balancerRig) doctor(t *testing.T) *doctor.Balancers {
	t.Helper()
	d, err := doctor.NewBalancers(r.config)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (r *balancerRig) examine(t *testing.T) *doctor.Report {
	t.Helper()
	report, err := r.doctor(t).Examine(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (r *balancerRig) fix(t *testing.T, ask doctor.Ask) *doctor.Report {
	t.Helper()
	report := r.examine(t)
	if err := r.doctor(t).Fix(testContext(t), report, ask); err != nil {
		t.Fatal(err)
	}
	return report
}

// told lists findings as "kind subject: why it is kept".
func told(findings []*doctor.Finding) []string {
	list := []string{}
	for _, f := range findings {
		text := string(f.Kind) + " " + f.Title + f.Object
		if f.Kept != "" {
			text += ": " + f.Kept
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

func wantTold(t *testing.T, what string, got []*doctor.Finding, want ...string) {
	t.Helper()
	slices.Sort(want)
	if have := told(got); !slices.Equal(have, want) {
		t.Errorf("%s:\n  %s\nwant:\n  %s", what, strings.Join(have, "\n  "), strings.Join(want, "\n  "))
	}
}

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
	report := r.fix(t, nil)
	wantTold(t, "findings", report.Findings)
	wantTold(t, "undecided", report.Undecided)
	if after := r.state(t); after != before {
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
}

// foreign makes a load balancer as a person or Terraform does.
func (r *balancerRig) foreign(t *testing.T, name string, labels cloud.Labels) *cloud.LoadBalancer {
	t.Helper()
	private := ""
	for _, lb := range r.balancers(t) {
		for _, network := range lb.Networks {
			private = max(private, network.ID)
		}
	}
	lb, err := r.cloud.CreateLoadBalancer(testContext(t), cloud.LoadBalancer{
		Name: name, Zone: zone, Plan: "development", ConfiguredStatus: "started", Labels: labels,
		Networks:  []cloud.LoadBalancerNetwork{{Name: "in", Type: "private", Family: "IPv4", ID: private}},
		Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return lb
}

// state is everything about load balancers in the account.
func (r *balancerRig) state(t *testing.T) string {
	t.Helper()
	var all []string
	for name, lb := range r.balancers(t) {
		lb.State = ""
		all = append(all, fmt.Sprintf("%s %v", name, lb))
	}
	for _, bundle := range r.bundles(t) {
		all = append(all, fmt.Sprintf("%v", bundle))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestFixRemovesLoadBalancersThatWereLeft(t *testing.T) {
	r := newBalancerRig(t)
	r.known(t, balanced("web", "tls-hostnames", "a.example"))
	r.known(t, balanced("foo", "shared", "create/group"))
	other := balanced("bar", "shared", "create/group")
	other.Spec.Ports[0].Port = 81
	r.serve(t, "other", other)
	kept := r.state(t)

	r.serve(t, "test", balanced("gone", "tls-hostnames", "b.example"))
	leaver := balanced("left", "shared", "create/group")
	leaver.Spec.Ports[0].Port = 82
	r.serve(t, "test", leaver)
	routed := balanced("routed", "shared", "create/group", "routes", "[{host: x.example, path: /}]")
	routed.Spec.Ports[0].Port = 83
	r.serve(t, "test", routed)

	report := r.examine(t)
	wantTold(t, "findings", report.Findings, "orphan-load-balancer test-default-gone", "orphan-components group",
		"orphan-components group", "orphan-certificate "+r.bundleOf(t, "uid-gone"))
	if err := r.doctor(t).Fix(testContext(t), report, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Outcome != doctor.OutcomeRemoved {
			t.Errorf("%s %s: %s %s %s", f.Kind, f.Title, f.Outcome, f.Kept, f.Error)
		}
	}
	if now := r.state(t); now != kept {
		t.Errorf("what others have was\n%s\nand is\n%s", kept, now)
	}
	wantTold(t, "afterwards", r.examine(t).Findings)
}

func (r *balancerRig) bundleOf(t *testing.T, uid string) string {
	t.Helper()
	for _, bundle := range r.bundles(t) {
		if bundle.Labels[loadbalancer.LabelServiceUID] == uid {
			return bundle.Name
		}
	}
	t.Fatalf("no certificate bundle was made for %s", uid)
	return ""
}

// Each rule alone keeps what would be removed without it: the last case shows that.
func TestFixKeepsLoadBalancers(t *testing.T) {
	young := "undecided"
	cases := []struct {
		name  string
		age   time.Duration
		setup func(t *testing.T, r *balancerRig)
		says  string // in a finding about test-default-gone; empty: it is removed
	}{
		{"a young one", 30 * time.Minute, func(*testing.T, *balancerRig) {}, young},
		{"one that a Service names", 48 * time.Hour, func(t *testing.T, r *balancerRig) {
			s := balanced("restored")
			s.Annotations[loadbalancer.AnnotationID] = r.idOf(t, "test-default-gone")
			r.apply(t, s)
		}, "Service/default/restored names it"},
		{"one that a Service names in capitals", 48 * time.Hour, func(t *testing.T, r *balancerRig) {
			s := balanced("restored")
			s.Annotations[loadbalancer.AnnotationID] = strings.ToUpper(r.idOf(t, "test-default-gone"))
			r.apply(t, s)
		}, "Service/default/restored names it"},
		{"one with a frontend of somebody else", 48 * time.Hour, func(t *testing.T, r *balancerRig) {
			r.postJSON(t, "/load-balancer/"+r.idOf(t, "test-default-gone")+"/frontends",
				map[string]any{"name": "mine", "mode": "tcp", "port": 9000, "default_backend": "http"})
		}, "on it is what was not made for its Service: frontend mine"},
		{"one with a rule of somebody else", 48 * time.Hour, func(t *testing.T, r *balancerRig) {
			r.postJSON(t, "/load-balancer/"+r.idOf(t, "test-default-gone")+"/frontends/http/rules", map[string]any{
				"name": "mine", "priority": 1, "matchers": []any{}, "actions": []any{map[string]any{"type": "tcp_reject", "action_tcp_reject": map[string]any{}}}})
		}, "on it is what was not made for its Service: rule mine"},
		{"one without a cluster's ID", 48 * time.Hour, func(t *testing.T, r *balancerRig) {
			r.sim.Do(t, "DELETE", "/load-balancer/"+r.idOf(t, "test-default-gone")+"/labels/ccm_cluster_id", "", nil)
		}, "it carries this cluster's name and no cluster ID: --unclaimed remove takes it for this cluster's"},
		{"no reason", 48 * time.Hour, func(*testing.T, *balancerRig) {}, ""},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			r := newBalancerRigAt(t, time.Now().Add(-test.age))
			r.known(t, balanced("web"))
			r.serve(t, "test", balanced("gone"))
			test.setup(t, r)
			report := r.fix(t, nil)
			_, there := r.balancers(t)["test-default-gone"]
			switch want := "orphan-load-balancer test-default-gone: " + test.says; {
			case test.says == "" && (there || report.Left() > 0):
				t.Errorf("it is there still: %v", told(report.Findings))
			case test.says == young && (!there || len(report.Findings) > 0 || len(report.Undecided) != 1):
				t.Errorf("findings %v, undecided %v", told(report.Findings), told(report.Undecided))
			case test.says != "" && test.says != young && (!there || !slices.Contains(told(report.Findings), want)):
				t.Errorf("there: %t, findings %v, want %s", there, told(report.Findings), want)
			}
		})
	}
}
