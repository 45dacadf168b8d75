package loadbalancer

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cloud-provider/api"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// floatingAddress gets the account a floating IP address.
func (a *account) floatingAddress() string {
	a.t.Helper()
	var answer struct {
		Address struct{ Address string } `json:"ip_address"`
	}
	a.Do(a.t, http.MethodPost, "/ip_address", `{"ip_address":{"floating":"yes","family":"IPv4","zone":"`+zone+`","release_policy":"keep"}}`, &answer)
	return answer.Address.Address
}

func (a *account) newBundle(kind string) string {
	a.t.Helper()
	certificate, key := newCertificate(a.t, "bundle.example.com")
	spec := cloud.CertificateBundle{Name: "bundle-" + kind, Type: kind, Certificate: certificate}
	if kind == cloud.BundleManual {
		spec.PrivateKey = key
	}
	made, err := a.cloud.CreateCertificateBundle(a.t.Context(), spec)
	if err != nil {
		a.t.Fatal(err)
	}
	return made.ID
}

// With UpCloud's own CCM, most of its documented configuration leads to a difference that never ends: the load balancer is written
// anew, and reloaded, at every reconcile. Here every feature is given to a load balancer, and then there is nothing left to do.
func TestEveryFeatureSettles(t *testing.T) {
	files, err := filepath.Glob("testdata/features/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if makesNothing(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t, simulator.Config{}, "n1", "n2")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			kind := cloud.BundleManual
			if strings.HasPrefix(name, "backend") {
				kind = "authority"
			}
			text = []byte(strings.ReplaceAll(string(text), "0aded5c1-c7a3-498a-b9c8-a871611c47a2", a.newBundle(kind)))
			for i := range 4 {
				if old := fmt.Sprintf("94.237.0.%d", i); strings.Contains(string(text), old) {
					text = []byte(strings.ReplaceAll(string(text), old, a.floatingAddress()))
				}
			}
			text = []byte(strings.ReplaceAll(string(text), `"configured_status": "stopped"`, `"configured_status": "started"`))
			for _, secret := range []string{"www-example-com", "api.example.com", "www"} {
				a.setSecret(secret, "www.example.com")
			}
			s := &v1.Service{}
			if err := yaml.UnmarshalStrict(text, s); err != nil {
				t.Fatal(err)
			}
			s.Namespace, s.Name, s.UID = "default", "web", "uid-1"
			full := s.DeepCopy()
			l := a.balancers()
			s = a.addService(s)
			a.ensure(l, s)
			a.ensure(l, s)
			a.unchanged(l, s)
			made := summary(a.only())

			// Taken away, and given to a load balancer that there is.
			a.change(s, func(s *v1.Service) {
				id := s.Annotations[settings.AnnotationID]
				s.Annotations = map[string]string{settings.AnnotationID: id}
				s.Spec.LoadBalancerSourceRanges, s.Spec.LoadBalancerIP = nil, ""
			})
			a.ensure(l, s)
			a.unchanged(l, s)
			a.change(s, func(s *v1.Service) {
				id := s.Annotations[settings.AnnotationID]
				s.Annotations, s.Spec = full.DeepCopy().Annotations, *full.Spec.DeepCopy()
				example.Annotated(s, "id", id)
			})
			a.ensure(l, s)
			a.ensure(l, s)
			a.unchanged(l, s)
			if diff := cmp.Diff(made, summary(a.only())); diff != "" {
				t.Errorf("made with it, and given it later: %s", diff)
			}
			a.delete(l, s)
			if left := a.list(); len(left) > 0 {
				t.Errorf("left in the account: %+v", left)
			}
		})
	}
}

// makesNothing says of which features no load balancer is made: those that are refused. Networks have a test of their own.
func makesNothing(feature string) bool {
	return strings.HasPrefix(feature, "wrong-") || feature == "private-networks" || feature == "source-ranges-behind-a-proxy"
}

// With UpCloud's own CCM, any slip in an annotation stops at the first thing that is wrong, or is ignored.
func TestAMistakeLeavesTheLoadBalancerAsItWas(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2", "n3")
	l := a.balancers()
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "node-selector", "{matchLabels: {pool: web}}"))
	for _, node := range a.nodes[:2] {
		node.Labels = map[string]string{"pool": "web"}
	}
	a.ensure(l, s)
	before := example.JSON(t, a.only())
	for annotation, value := range map[string]string{"timeout-client": "soon", "node-selector": "{matchLabel: {pool: web}}", "visibilty": "private"} {
		wrong := a.current(s)
		example.Annotated(wrong, annotation, value)
		a.said()
		a.ResetRequests()
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", wrong, a.nodes)
		var retry *api.RetryError
		if !errors.As(err, &retry) || retry.RetryAfter() != refusedRetry {
			t.Errorf("%s: error %v", annotation, err)
		}
		if said := a.said(); len(said) != 1 || !strings.Contains(said[0], settings.AnnotationPrefix+annotation) || !strings.Contains(said[0], "stays as it was") {
			t.Errorf("%s: events %q", annotation, said)
		}
		if a.Requests().Total() != 0 {
			t.Errorf("%s: requests %v", annotation, a.Requests())
		}
		// Nodes come and go all the same. Those that come have to wait, as nobody knows whether they are wanted.
		if err := l.UpdateLoadBalancer(t.Context(), "prod", wrong, a.nodes); err != nil {
			t.Error(err)
		}
		if after := example.JSON(t, a.only()); after != before {
			t.Errorf("%s: the load balancer was changed", annotation)
		}
	}
	wrong := example.Annotated(a.current(s), "mode", "udp")
	if err := l.UpdateLoadBalancer(t.Context(), "prod", wrong, a.nodes[1:]); err != nil {
		t.Error(err)
	}
	if got := summary(a.only()); !strings.Contains(got, "backend http tcp n2:30080\n") {
		t.Errorf("a node that has gone is still a member: %s", got)
	}
}

// With UpCloud's own CCM the selector never matches by its documented form, and the scope of the configuration file is not heeded.
func TestNodesThatMayBeMembers(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2", "n3", "n4", "n5", "n6")
	scope, err := labels.Parse("!control-plane")
	if err != nil {
		t.Fatal(err)
	}
	l := a.balancers(func(c *Config) { c.Scope = scope })
	for _, node := range a.nodes {
		node.Labels = map[string]string{"pool": "web"}
	}
	a.nodes[0].Labels[v1.LabelNodeExcludeBalancers] = "false"
	a.nodes[1].Labels["control-plane"] = ""
	a.nodes[2].Labels["pool"] = "db"
	a.nodes[3].Labels[v1.LabelNodeExcludeBalancers] = ""
	a.nodes[4].Spec.Taints = []v1.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}}
	a.nodes[5].Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionFalse}}
	for i, selector := range []string{"matchLabels:\n  pool: web\n", `{"matchExpressions":[{"key":"pool","operator":"In","values":["web"]}]}`} {
		s := example.Annotated(example.Service("http 80 30080"), "node-selector", selector)
		s.Name, s.UID = fmt.Sprint("s", i), "uid-of-the-"+s.UID
		s = a.addService(s)
		a.ensure(l, s)
		if got := summary(a.only()); !strings.Contains(got, "backend http tcp n1:30080,n6:30080\n") {
			t.Errorf("%s: %s", selector, got)
		}
		a.delete(l, s)
	}
}

// With UpCloud's own CCM, a reconcile takes as many nodes as the limit says, and a change of nodes takes all.
func TestTheLimitOfMembersHoldsInEveryCall(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2", "n3", "n4", "n5")
	l := a.balancers(func(c *Config) { c.MaxMembers = 3 })
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	before := summary(a.only())
	a.ResetRequests()
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
		t.Fatal(err)
	}
	if writes := a.writes(); len(writes) > 0 || strings.Count(before, ":30080") != 3 {
		t.Errorf("writes %v; %s", writes, before)
	}
	// A node that is not ready gives way to one that is.
	name := strings.TrimSuffix(strings.Fields(before)[3], ":30080")
	name, _, _ = strings.Cut(name, ":")
	for _, node := range a.nodes {
		if node.Name == name {
			node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionUnknown}}
		}
	}
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
		t.Fatal(err)
	}
	if got := summary(a.only()); strings.Contains(got, name+":") || strings.Count(got, ":30080") != 3 {
		t.Errorf("%s is not ready: %s", name, got)
	}
}

// With UpCloud's own CCM, loadBalancerSourceRanges are ignored, and the Service is open to everybody.
func TestSourceRangesAreEnforcedFromTheFirstMoment(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := example.Service("http 80 30080", "https 443 30443")
	s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24", "10.0.0.0/8"}
	s = a.addService(s)
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil {
		t.Fatal("it is running already")
	}
	rulesOf := func() (all []string) {
		for _, f := range a.only().Frontends {
			for _, rule := range f.Rules {
				all = append(all, fmt.Sprintf("%s %s %d %d", f.Name, rule.Name, rule.Priority, len(rule.Matchers)))
			}
		}
		slices.Sort(all)
		return all
	}
	want := []string{"http 0-ccm-source-ranges 100 2", "https 0-ccm-source-ranges 100 2"}
	if got := rulesOf(); !slices.Equal(got, want) { // before it ever served
		t.Errorf("rules: %q", got)
	}
	a.ensure(l, s)
	a.change(s, func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} })
	a.ResetRequests()
	a.ensure(l, s)
	if got := a.writes(); slices.Contains(got, "DELETE /load-balancer/{uuid}/frontends/{frontend}/rules/{name}") {
		t.Errorf("writes %v: it was open in between", got)
	}
	if !strings.Contains(example.JSON(t, a.raw("/load-balancer/"+a.only().ID)), "192.0.2.0/24") {
		t.Error("the new ranges are not there")
	}
	a.change(s, func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = nil })
	a.ensure(l, s)
	if got := rulesOf(); len(got) > 0 {
		t.Errorf("rules: %q", got)
	}
}

func TestFloatingAddressOutlivesTheLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	address := a.floatingAddress()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	a.change(s, func(s *v1.Service) { s.Spec.LoadBalancerIP = address })
	a.ensure(l, s)
	status := a.ensure(l, s)
	if !slices.ContainsFunc(status.Ingress, func(i v1.LoadBalancerIngress) bool { return i.IP == address }) {
		t.Errorf("status %+v lacks %s", status, address)
	}
	first := a.only().ID
	a.delete(l, s)
	a.ensure(l, s)
	if lb := a.only(); lb.ID == first || len(lb.Addresses) != 1 || lb.Addresses[0].Address != address {
		t.Errorf("load balancer %s (before %s) has %v", lb.ID, first, lb.Addresses)
	}
	a.unchanged(l, s)
	a.change(s, func(s *v1.Service) { s.Spec.LoadBalancerIP = "" })
	a.ensure(l, s)
	if lb := a.only(); len(lb.Addresses) > 0 {
		t.Errorf("still attached: %v", lb.Addresses)
	}
}

// A larger plan allows each member more; with UpCloud's own CCM it does so, too.
func TestPlanChange(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	a.Do(t, http.MethodPatch, "/load-balancer/"+a.only().ID+"/backends/http/members/n2", `{"max_sessions":7}`, nil)
	id := a.only().ID
	sessionsAre := func(plan string, n1, n2 int) {
		t.Helper()
		lb := a.only()
		got := map[string]int{}
		for _, m := range lb.Backends[0].Members {
			got[m.Name] = m.MaxSessions
		}
		if lb.ID != id || lb.Plan != plan || got["n1"] != n1 || got["n2"] != n2 {
			t.Errorf("plan %s, sessions %v; want %s, %d, %d", lb.Plan, got, plan, n1, n2)
		}
	}
	a.change(s, func(s *v1.Service) { example.Annotated(s, "plan", "production-small") })
	a.ensure(l, s)
	sessionsAre("production-small", 50000, 7) // what somebody tuned stays tuned
	a.unchanged(l, s)
	a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+"plan") })
	a.ensure(l, s)
	sessionsAre("development", 1000, 7)
	a.said()
	a.change(s, func(s *v1.Service) { example.Annotated(s, "plan", "gigantic") })
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil || !strings.Contains(err.Error(), "production-small") {
		t.Errorf("error %v of a plan that there is not", err)
	}
	sessionsAre("development", 1000, 7)
}

func TestRetainedLoadBalancerStays(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "retain", "true", "tls-secret", "www"))
	a.ensure(l, s)
	before := summary(a.only())
	a.delete(l, s)
	if after := a.only(); summary(after) != before || after.Labels[settings.LabelServiceUID] != "" || tlsNames(after, "https") == "" {
		t.Errorf("%s with labels %v", summary(after), after.Labels)
	}
	if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", a.current(s)); exists || err != nil {
		t.Errorf("GetLoadBalancer = %v, %v: the Service could not go", exists, err)
	}
	if said := a.said(); !slices.ContainsFunc(said, func(text string) bool { return strings.Contains(text, "RetainedLoadBalancer") }) {
		t.Errorf("events: %q", said)
	}
}

func TestProtectedLoadBalancerStays(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "deletion-protection", "true"))
	a.ensure(l, s)
	a.said()
	for range 2 {
		if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s)); err == nil || !strings.Contains(err.Error(), "deletion-protection") {
			t.Errorf("error %v", err)
		}
	}
	if said := a.said(); len(said) != 1 || !strings.Contains(said[0], "DeletionProtected") {
		t.Errorf("events: %q", said)
	}
	a.only()
	a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+"deletion-protection") })
	a.delete(l, s)
}

func TestPrivateLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(func(c *Config) { c.Status = settings.StatusHostname })
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "visibility", "private", "status", "both"))
	status := a.ensure(l, s)
	lb := a.only()
	if len(lb.Networks) != 1 || lb.Networks[0].Type != "private" {
		t.Fatalf("networks: %+v", lb.Networks)
	}
	if ip, err := netip.ParseAddr(status.Ingress[0].IP); err != nil || !ip.IsPrivate() || status.Ingress[0].Hostname != lb.Networks[0].DNSName {
		t.Errorf("status: %+v", status)
	}
	a.unchanged(l, s)
	a.change(s, func(s *v1.Service) { example.Annotated(s, "visibility", "public") })
	before := summary(lb)
	if status := a.ensure(l, s); len(status.Ingress) == 0 {
		t.Error("what was published is no longer")
	}
	if said := a.said(); len(said) != 1 || !strings.Contains(said[0], "FixedAtCreation") || !strings.Contains(said[0], "public") {
		t.Errorf("events: %q", said)
	}
	if after := summary(a.only()); after != before {
		t.Errorf("%s", after)
	}
	a.unchanged(l, s)
}

func TestNetworksThatAreAskedFor(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	other := a.CreateNetwork(t, "other", zone, "10.99.0.0/24")
	var nodes string
	for _, network := range must(a.cloud.PrivateNetworks(t.Context(), zone)) {
		if network.ID != other {
			nodes = network.ID
		}
	}
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "private-networks", nodes+","+other, "visibility", "private"))
	a.ensure(l, s)
	var ids []string
	for _, network := range a.only().Networks {
		ids = append(ids, network.ID)
	}
	if !slices.Equal(ids, []string{nodes, other}) {
		t.Errorf("networks %v, want %s and %s", ids, nodes, other)
	}
	a.unchanged(l, s)
	lost := example.Annotated(example.Service("http 80 30080"), "private-networks", other)
	lost.Name, lost.UID = "lost", "uid-2"
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", lost, a.nodes); err == nil || !strings.Contains(err.Error(), "private-networks") {
		t.Errorf("error %v of a network that no node is in", err)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// With UpCloud's own CCM, one answer that does not come, or one wish for patience, holds every Service of the cluster.
func TestNoCallHoldsAWorkerForLong(t *testing.T) {
	for _, fault := range []simulator.Fault{{Status: 429, RetryAfter: time.Hour}, {Latency: time.Hour}} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		s := a.addService(example.Service("http 80 30080"))
		a.ensure(l, s)
		l.operationLimit = 50 * time.Millisecond
		a.Inject(fault)
		current := a.current(s)
		ended := make(chan error)
		go func() {
			_, err := l.EnsureLoadBalancer(t.Context(), "prod", current, a.nodes)
			ended <- err
		}()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("no error")
			}
		case <-time.After(time.Minute):
			t.Fatal("it holds the worker")
		}
	}
}

// What the user's clients see must not follow the controller's memory: a new controller says its remarks once, and no more.
func TestRemarksAreMadeOnce(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := example.Service("http 80 30080")
	s.Spec.SessionAffinity = v1.ServiceAffinityClientIP
	s = a.addService(s)
	a.ensure(l, s)
	said := a.said()
	count := 0
	for _, text := range said {
		if strings.Contains(text, "UnsupportedSessionAffinity") && strings.Contains(text, "sticky-cookie") {
			count++
		}
	}
	if count != 1 {
		t.Errorf("events: %q", said)
	}
	a.unchanged(l, s)
}
