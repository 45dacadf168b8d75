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
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// balancerRig is an account, Kubernetes, and a node for load balancers to lead to.
type balancerRig struct {
	*rig
	config doctor.BalancersConfig
	node   *corev1.Node
	shared []settings.SharedAccess // what ccm's configuration allows
}

func newBalancerRig(t *testing.T) *balancerRig {
	t.Helper()
	return newBalancerRigOf(t, newRig(t))
}

// newBalancerRigOf is for a cluster on an account that others may use too.
func newBalancerRigOf(t *testing.T, of *rig) *balancerRig {
	t.Helper()
	r := &balancerRig{rig: of}
	r.configure()
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

func (r *balancerRig) configure() {
	r.config = doctor.BalancersConfig{
		Rules: r.rules(), Cloud: r.cloud, Kubernetes: r.kube, Cluster: plan.Cluster{ID: "test", Name: "kubernetes"},
		Class: "upcloud.com/load-balancer",
	}
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
		s.Annotations[settings.AnnotationPrefix+annotations[i]] = annotations[i+1]
	}
	return s
}

// serve lets a cluster's controller make what a Service asks for. The Service is not in Kubernetes: see known.
func (r *balancerRig) serve(t *testing.T, clusterID string, s *corev1.Service) *corev1.Service {
	t.Helper()
	uid := clusterUID
	if clusterID != "test" {
		uid = otherUID
	}
	return r.serveAs(t, clusterID, uid, s)
}

// serveAs is serve by the cluster of that UID; empty for a controller that does not know it.
func (r *balancerRig) serveAs(t *testing.T, clusterID, uid string, s *corev1.Service) *corev1.Service {
	t.Helper()
	if err := r.ensure(t, r.controller(clusterID, uid, s), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// controller is a cluster's, with a Service that it is to serve.
func (r *balancerRig) controller(clusterID, uid string, s *corev1.Service) *loadbalancer.LoadBalancers {
	l := loadbalancer.New(loadbalancer.Config{Cloud: r.cloud, ClusterID: clusterID, Shared: r.shared})
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: types.UID(uid)}}
	l.Start(fake.NewClientset(s.DeepCopy(), namespace), nil) // its annotations stay there: what the account says must do
	return l
}

// ensure calls a controller until the Service is served.
func (r *balancerRig) ensure(t *testing.T, l *loadbalancer.LoadBalancers, s *corev1.Service) error {
	t.Helper()
	ctx := testContext(t)
	for {
		_, err := l.EnsureLoadBalancer(ctx, "kubernetes", s, []*corev1.Node{r.node})
		var retry *api.RetryError
		if err == nil || !errors.As(err, &retry) || retry.RetryAfter() > time.Minute || ctx.Err() != nil {
			return err
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

// fix is one run with --fix --yes.
func (r *balancerRig) fix(t *testing.T) *doctor.Report {
	t.Helper()
	report := r.examine(t)
	if err := report.Fix(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	return report
}

// fixForLong is what an hourly Job does in weeks.
func (r *balancerRig) fixForLong(t *testing.T) (last *doctor.Report) {
	t.Helper()
	for _, wait := range []time.Duration{safetyAge, safetyAge, quarantine / 2, quarantine, quarantine} {
		r.pass(wait)
		last = r.fix(t)
	}
	return last
}

// gone is a load balancer of a Service that a doctor saw being deleted, and whose finalizer was then taken off by hand. Its members are
// gone, too.
func (r *balancerRig) gone(t *testing.T, s *corev1.Service) (id string) {
	t.Helper()
	r.known(t, s)
	r.deletes(t, s)
	r.fix(t)
	r.loses(t, s)
	id = r.idOf(t, "test-default-"+s.Name)
	r.empties(t, id)
	return id
}

// deletes begins to delete a Service.
func (r *balancerRig) deletes(t *testing.T, s *corev1.Service) {
	t.Helper()
	now := metav1.Now()
	s.DeletionTimestamp, s.Finalizers = &now, []string{"service.kubernetes.io/load-balancer-cleanup"}
	if _, err := r.kube.CoreV1().Services(s.Namespace).Update(testContext(t), s, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (r *balancerRig) loses(t *testing.T, s *corev1.Service) {
	t.Helper()
	if err := r.kube.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("services"), s.Namespace, s.Name); err != nil {
		t.Fatal(err)
	}
}

// empties takes all members off a load balancer.
func (r *balancerRig) empties(t *testing.T, id string) {
	t.Helper()
	lb, err := r.cloud.LoadBalancer(testContext(t), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, backend := range lb.Backends {
		for _, member := range backend.Members {
			r.sim.Do(t, "DELETE", "/load-balancer/"+id+"/backends/"+backend.Name+"/members/"+member.Name, "", nil)
		}
	}
}

// listed lists findings as "kind subject: why it is kept".
func listed(findings []*doctor.Finding) []string {
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

func wantListed(t *testing.T, what string, got []*doctor.Finding, want ...string) {
	t.Helper()
	slices.Sort(want)
	if have := listed(got); !slices.Equal(have, want) {
		t.Errorf("%s:\n  %s\nwant:\n  %s", what, strings.Join(have, "\n  "), strings.Join(want, "\n  "))
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
