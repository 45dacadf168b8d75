package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// summary is a load balancer in short.
func summary(lb cloud.LoadBalancer) string {
	var all []string
	for _, f := range lb.Frontends {
		all = append(all, fmt.Sprintf("frontend %s %s :%d -> %s", f.Name, f.Mode, f.Port, f.DefaultBackend))
	}
	for _, b := range lb.Backends {
		var members []string
		for _, m := range b.Members {
			members = append(members, fmt.Sprintf("%s:%d", m.Name, m.Port))
		}
		slices.Sort(members)
		all = append(all, fmt.Sprintf("backend %s %v %s", b.Name, b.Properties["health_check_type"], strings.Join(members, ",")))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestLifeOfALoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080", "https 443 30443"))

	status := a.ensure(l, s)
	lb := a.only()
	if diff := cmp.Diff(example.Lines("backend http tcp n1:30080,n2:30080", "backend https tcp n1:30443,n2:30443",
		"frontend http tcp :80 -> http", "frontend https tcp :443 -> https"), summary(lb)); diff != "" {
		t.Error(diff)
	}
	if lb.Name != "prod-default-web" || lb.Zone != zone || lb.Plan != DefaultPlan {
		t.Errorf("name %s, zone %s, plan %s", lb.Name, lb.Zone, lb.Plan)
	}
	wantLabels := cloud.Labels{settings.LabelClusterName: "prod", settings.LabelGeneratedName: "prod-default-web", settings.LabelTrafficPolicy: "cluster",
		settings.LabelServiceUID: "uid-1", settings.LabelComponents: noted("http", "https")}
	if diff := cmp.Diff(wantLabels, lb.Labels); diff != "" {
		t.Error(diff)
	}
	var networks []string
	for _, network := range lb.Networks {
		networks = append(networks, network.Name+" "+network.Type)
	}
	if got := strings.Join(networks, ","); got != "public-IPv4 public,private-IPv4 private" {
		t.Errorf("networks: %s", got)
	}
	for _, member := range lb.Backends[0].Members {
		if !strings.HasPrefix(member.IP, "172.16.") || member.MaxSessions != 1000 || member.Weight != 100 || !member.Enabled {
			t.Errorf("member: %+v", member)
		}
	}
	if len(status.Ingress) != 1 || *status.Ingress[0].IPMode != v1.LoadBalancerIPModeProxy ||
		!strings.HasPrefix(status.Ingress[0].IP, "198.18.") && !strings.HasPrefix(status.Ingress[0].IP, "198.19.") {
		t.Errorf("status: %+v", status)
	}
	annotations := a.current(s).Annotations
	if annotations[settings.AnnotationID] != lb.ID || annotations[settings.AnnotationName] != lb.Name {
		t.Errorf("annotations: %v", annotations)
	}

	a.delete(l, s)
	if left := a.list(); len(left) > 0 {
		t.Errorf("left in the account: %+v", left)
	}
	if annotations := a.current(s).Annotations; len(annotations) > 0 {
		t.Errorf("annotations of a load balancer that is gone: %v", annotations)
	}
}

func TestUnchangedReconcileIsOneCall(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080", "https 443 30443"))
	a.ensure(l, s)
	a.said()
	a.ResetRequests()
	a.ensure(l, s)
	if requests := a.Requests(); requests.Total() != 1 || requests.Of("GET /load-balancer/{uuid}") != 1 {
		t.Errorf("requests: %v", requests)
	}
	a.ResetRequests()
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
		t.Fatal(err)
	}
	if requests := a.Requests(); requests.Total() != 0 {
		t.Errorf("requests of what has the members that it should: %v", requests)
	}
	// After a restart it has to be looked at, once.
	l = a.balancers()
	for _, want := range []int{1, 0} {
		a.ResetRequests()
		if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
			t.Fatal(err)
		}
		if requests := a.Requests(); requests.Total() != want {
			t.Errorf("requests: %v, want %d", requests, want)
		}
	}
	if said := a.said(); len(said) > 0 {
		t.Errorf("events: %v", said)
	}
}

func TestNodeJoinsAndLeaves(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080", "https 443 30443"))
	a.ensure(l, s)
	a.addNode("n3")
	a.ResetRequests()
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
		t.Fatal(err)
	}
	// One call for each backend, however many members; nothing is written that did not change.
	if n := a.Requests().Of("PATCH /load-balancer/{uuid}/backends/{backend}"); n != 2 || len(a.writes()) != 1 {
		t.Errorf("requests: %v", a.Requests())
	}
	if got := summary(a.only()); !strings.Contains(got, "backend http tcp n1:30080,n2:30080,n3:30080\n") {
		t.Error(got)
	}
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes[1:]); err != nil {
		t.Fatal(err)
	}
	if got := summary(a.only()); !strings.Contains(got, "backend http tcp n2:30080,n3:30080\n") {
		t.Error(got)
	}
}

// A Service may be there before the first node is.
func TestWaitsForTheFirstNode(t *testing.T) {
	a := newAccount(t, simulator.Config{})
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	_, err := l.EnsureLoadBalancer(t.Context(), "prod", s, []*v1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "not-initialized"}}})
	var retry *api.RetryError
	if !errors.As(err, &retry) || retry.RetryAfter() > 10*time.Second {
		t.Errorf("error %v, want one that is retried soon", err)
	}
	if all := a.list(); len(all) > 0 {
		t.Errorf("load balancers: %+v", all)
	}
	a.addNode("n1")
	a.ensure(l, s)
	a.only()
}

// The service controller tells of a node when it gets its provider ID, a moment before it has addresses, and then no more.
func TestNodeWithoutAddressesYet(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(func(c *Config) { c.NodeAddresses = newInstances(a.t, a.cloud).NodeAddresses })
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	a.addNode("n2")
	a.nodes[1].Status.Addresses = nil
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
		t.Fatal(err)
	}
	if got := summary(a.only()); !strings.Contains(got, "backend http tcp n1:30080,n2:30080") {
		t.Error(got)
	}
}

// Nor does it tell again when the addresses could not be asked for at that moment: the call must not look as if all were well.
func TestNodeWhoseAddressesCannotBeRead(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	var failure error
	l := a.balancers(func(c *Config) {
		c.NodeAddresses = func(ctx context.Context, node *v1.Node) ([]v1.NodeAddress, error) {
			if failure != nil && node.Name == "n2" {
				return nil, failure
			}
			return newInstances(a.t, a.cloud).NodeAddresses(ctx, node)
		}
	})
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	a.addNode("n2")
	a.addNode("n3")
	a.nodes[1].Status.Addresses = nil

	failure = &cloud.Error{Kind: cloud.ErrUnavailable}
	for _, call := range []func() error{
		func() error { return l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes) },
		func() error { _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "node n2") {
			t.Errorf("error %v: it would not be tried again", err)
		}
		if got := summary(a.only()); !strings.Contains(got, "backend http tcp n1:30080,n3:30080\n") {
			t.Errorf("the others are not served: %s", got)
		}
	}
	failure = errors.New("--node-ip is none of the server's addresses")
	a.ensure(l, s) // one node's lasting trouble is not every Service's
	failure = nil
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
		t.Fatal(err)
	}
	if got := summary(a.only()); !strings.Contains(got, "backend http tcp n1:30080,n2:30080,n3:30080") {
		t.Error(got)
	}
}

// With UpCloud's own CCM, a slip in a node label takes all members away.
func TestNoNodesLeaveTheMembers(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	before := summary(a.only())
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), nil); err != nil {
		t.Fatal(err)
	}
	a.nodes = nil
	a.ensure(l, s)
	if diff := cmp.Diff(before, summary(a.only())); diff != "" {
		t.Error(diff)
	}
}

// With UpCloud's own CCM, a POST whose answer is lost leaves a load balancer that nobody finds, and a Service that never
// gets one.
func TestLostAnswerOfTheCreation(t *testing.T) {
	for _, name := range []string{"web", "a-service-whose-name-is-so-long-that-its-load-balancer-cannot-have-it-whole"} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers()
			s := example.Service("http 80 30080")
			s.Name = name
			s = a.addService(s)
			a.Inject(simulator.Fault{Operation: "POST /load-balancer", Drop: true, AfterEffect: true, Count: 1})
			if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil {
				t.Fatal("the answer was not lost")
			}
			// The controller dies here, and the annotation was never written.
			a.cloud = a.connect()
			l = a.balancers()
			if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", a.current(s)); !exists || err != nil {
				t.Errorf("GetLoadBalancer = %v, %v: the controller would let the Service go", exists, err)
			}
			a.ensure(l, s)
			a.only()
			a.delete(l, s)
			if left := a.list(); len(left) > 0 {
				t.Errorf("left in the account: %+v", left)
			}
		})
	}
}

// No worker waits the minutes that a load balancer takes to come and to go, and what was published once stays published
// while a change is under way.
func TestWaitingIsLeftToTheController(t *testing.T) {
	clock := simulator.NewManualClock()
	a := newAccount(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	a.addNodeInTime(clock, "n1")
	l := a.balancers()
	l.deleteWait = time.Millisecond
	s := a.addService(example.Service("http 80 30080"))

	ensure := func() (*v1.LoadBalancerStatus, time.Duration) {
		t.Helper()
		status, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
		var retry *api.RetryError
		if errors.As(err, &retry) {
			return nil, retry.RetryAfter()
		}
		if err != nil {
			t.Fatal(err)
		}
		return status, 0
	}
	for range 3 {
		if status, after := ensure(); status != nil || after <= 0 || after > 10*time.Second {
			t.Fatalf("status %v, retry after %s, of a load balancer that is being set up", status, after)
		}
	}
	clock.Advance(10 * time.Minute)
	status, _ := ensure()
	if status == nil || len(status.Ingress) != 1 {
		t.Fatalf("status %v of a load balancer that runs", status)
	}
	current := a.current(s)
	current.Status.LoadBalancer = *status
	current.Spec.Ports[0].NodePort = 30090
	if _, err := a.client.CoreV1().Services("default").Update(t.Context(), current, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, after := ensure()
		if diff := cmp.Diff(status, again); diff != "" {
			t.Errorf("status while a change is under way: retry after %s, %s", after, diff)
		}
	}
	if state := a.only().State; state.Running() {
		t.Errorf("state %s: no change was under way", state)
	}
	clock.Advance(10 * time.Minute)

	for range 2 {
		err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s))
		if err == nil || !strings.Contains(err.Error(), "is being deleted") {
			t.Fatalf("error %v of a load balancer that is being deleted", err)
		}
		if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", a.current(s)); !exists || err != nil {
			t.Fatalf("GetLoadBalancer = %v, %v of a load balancer that is being deleted", exists, err)
		}
	}
	for !a.only().State.Deleting() {
		clock.Advance(time.Second)
	}
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil ||
		!strings.Contains(err.Error(), "a new one is made when it is gone") {
		t.Errorf("EnsureLoadBalancer while the old one goes: %v", err)
	}
	clock.Advance(10 * time.Minute)
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s)); err != nil {
		t.Fatal(err)
	}
	if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", a.current(s)); exists || err != nil {
		t.Errorf("GetLoadBalancer = %v, %v of a load balancer that is gone", exists, err)
	}
}

// That the wait for a deletion ends while a request is held back, or on its way, is no fault of the API.
func TestWaitForADeletionEndsBetweenRequests(t *testing.T) {
	clock := simulator.NewManualClock()
	a := newAccount(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	a.addNodeInTime(clock, "n1")
	s := a.addService(example.Service("http 80 30080"))
	_, _ = a.fails(a.balancers(), s)
	clock.Advance(time.Hour)
	slow, err := cloud.New(cloud.Config{Token: a.Token, BaseURL: a.URL, RequestsPerSecond: 2, Burst: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slow.Close)
	l := a.balancers(func(c *Config) { c.Cloud = slow })
	l.deleteWait = 750 * time.Millisecond
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s)); err == nil || !strings.Contains(err.Error(), "is being deleted") {
		t.Errorf("error %v of a load balancer that is being deleted", err)
	}
}

// A list may show for a while what is gone already: neither is the Service let go, nor the API asked without a pause.
func TestListThatLagsBehindTheDeletion(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	l.deleteWait = 3 * gonePause
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	remove := a.Inject(simulator.Fault{Operation: "GET /load-balancer", Stale: time.Hour})
	a.ResetRequests()
	err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s))
	if err == nil || !strings.Contains(err.Error(), "is being deleted") {
		t.Errorf("error %v of a load balancer that is listed still", err)
	}
	if lists := a.Requests().Of("GET /load-balancer"); lists > 5 {
		t.Errorf("%d lists in the time of three pauses", lists)
	}
	remove()
	a.delete(l, s)
	if left := a.list(); len(left) > 0 {
		t.Errorf("left in the account: %+v", left)
	}
}

// Nobody is told to wait for what does not come by itself.
func TestStoppedLoadBalancerIsNotOnItsWay(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	a.Do(t, http.MethodPatch, "/load-balancer/"+a.only().ID, `{"configured_status":"stopped"}`, nil)
	for deadline := time.Now().Add(time.Minute); a.only().State != "stopped"; {
		if time.Now().After(deadline) {
			t.Fatalf("load balancer is %s", a.only().State)
		}
	}
	fresh := a.current(s)
	fresh.Status.LoadBalancer = v1.LoadBalancerStatus{}
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", fresh, a.nodes); err == nil || !strings.Contains(err.Error(), "start it") {
		t.Errorf("error %v", err)
	}
}

// Law: whatever call fails, whether or not it had its effect, the retry converges, and nothing is made twice or left.
func TestEveryCallMayFail(t *testing.T) {
	for _, fault := range []simulator.Fault{
		{Status: 500}, {Status: 500, AfterEffect: true}, {Drop: true, AfterEffect: true}, {Status: 429},
	} {
		for skip := range 12 {
			fault.Skip, fault.Count = skip, 1
			t.Run(fmt.Sprintf("status %d drop %v after %v, call %d", fault.Status, fault.Drop, fault.AfterEffect, skip), func(t *testing.T) {
				t.Parallel()
				a := newAccount(t, simulator.Config{}, "n1")
				s := a.addService(example.Service("http 80 30080"))
				a.Inject(fault)
				eventually := func(do func() error) {
					t.Helper()
					var err error
					for range 20 {
						if err = do(); err == nil {
							return
						}
					}
					t.Fatal(err)
				}
				l := a.balancers()
				eventually(func() error {
					_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
					return err
				})
				current := a.current(s)
				current.Spec.Ports = example.Service("web 8080 30080", "https 443 30443").Spec.Ports
				eventually(func() error {
					_, err := l.EnsureLoadBalancer(t.Context(), "prod", current, a.nodes)
					return err
				})
				want := example.Lines("backend https tcp n1:30443", "backend web tcp n1:30080",
					"frontend https tcp :443 -> https", "frontend web tcp :8080 -> web")
				if diff := cmp.Diff(want, summary(a.only())); diff != "" {
					t.Error(diff)
				}
				eventually(func() error { return l.EnsureLoadBalancerDeleted(t.Context(), "prod", current) })
				if left := a.list(); len(left) > 0 {
					t.Errorf("left in the account: %+v", left)
				}
			})
		}
	}
}

// With UpCloud's own CCM, a node that joins wipes away what Terraform or a person put on the load balancer.
func TestOthersComponentsStay(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	id := a.only().ID
	path := "/load-balancer/" + id
	a.Do(t, http.MethodPost, path+"/backends", `{"name":"tf","members":[]}`, nil)
	a.Do(t, http.MethodPost, path+"/frontends", `{"name":"tf","mode":"tcp","port":9000,"default_backend":"tf","networks":[{"name":"public-IPv4"}]}`, nil)
	a.Do(t, http.MethodPost, path+"/frontends/http/rules", `{"name":"deny","priority":10,"matchers":[{"type":"src_ip",
		"match_src_ip":{"value":"203.0.113.0/24"}}],"actions":[{"type":"tcp_reject","action_tcp_reject":{}}]}`, nil)
	a.Do(t, http.MethodPost, path+"/labels", `{"key":"team","value":"payments"}`, nil)
	a.Do(t, http.MethodPatch, path+"/backends/http", `{"properties":{"health_check_on_down":"shutdown-sessions","timeout_server":77}}`, nil)
	a.Do(t, http.MethodPatch, path, `{"name":"shop-front"}`, nil)
	a.settle(id)
	rules := a.raw(path + "/frontends/http")["rules"]

	a.addNode("n2")
	current := a.current(s)
	current.Spec.Ports = example.Service("http 8080 30081", "https 443 30443").Spec.Ports
	current.Spec.ExternalTrafficPolicy, current.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 32000
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", current, a.nodes); err != nil {
		t.Fatal(err)
	}
	lb := a.only()
	want := example.Lines("backend http http n1:30081,n2:30081", "backend https http n1:30443,n2:30443", "backend tf tcp ",
		"frontend http tcp :8080 -> http", "frontend https tcp :443 -> https", "frontend tf tcp :9000 -> tf")
	if diff := cmp.Diff(want, summary(lb)); diff != "" {
		t.Error(diff)
	}
	if lb.Labels["team"] != "payments" || lb.Name != "shop-front" {
		t.Errorf("labels %v, name %s", lb.Labels, lb.Name)
	}
	ignoreStamps := cmpopts.IgnoreMapEntries(func(key string, _ any) bool { return key == "updated_at" })
	if diff := cmp.Diff(rules, a.raw(path + "/frontends/http")["rules"], ignoreStamps); diff != "" {
		t.Errorf("rules: %s", diff)
	}
	properties := a.raw(path + "/backends/http")["properties"].(map[string]any)
	if properties["health_check_on_down"] != "shutdown-sessions" || properties["timeout_server"] != 77.0 ||
		properties["health_check_url"] != "http://:32000" {
		t.Errorf("properties: %v", properties)
	}
}

// A Service port that gets the name of somebody's frontend does not get the frontend.
func TestOthersComponentsOfTheSameNameStay(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	path := "/load-balancer/" + a.only().ID
	a.Do(t, http.MethodPost, path+"/backends", `{"name":"tf","members":[]}`, nil)
	a.Do(t, http.MethodPost, path+"/frontends", `{"name":"tf","mode":"tcp","port":9000,"default_backend":"tf","networks":[{"name":"public-IPv4"}]}`, nil)
	a.settle(a.only().ID)
	current := a.current(s)
	current.Spec.Ports = example.Service("http 8080 30080", "tf 9100 30910").Spec.Ports
	for range 2 {
		a.said()
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", current, a.nodes)
		var retry *api.RetryError
		if !errors.As(err, &retry) || retry.RetryAfter() != refusedRetry || !strings.Contains(err.Error(), "called tf") {
			t.Errorf("error %v", err)
		}
		if said := a.said(); len(said) != 1 || !strings.HasPrefix(said[0], "Warning ForeignComponent") {
			t.Errorf("events: %q", said)
		}
	}
	if err := l.UpdateLoadBalancer(t.Context(), "prod", current, a.nodes); err != nil {
		t.Error(err)
	}
	want := example.Lines("backend http tcp n1:30080", "backend tf tcp ", "frontend http tcp :8080 -> http", "frontend tf tcp :9000 -> tf")
	if diff := cmp.Diff(want, summary(a.only())); diff != "" {
		t.Error(diff)
	}
	current.Spec.Ports = example.Service("http 8080 30080").Spec.Ports
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", current, a.nodes); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, summary(a.only())); diff != "" {
		t.Error(diff)
	}
}

// With UpCloud's own CCM, an annotation with somebody's ID is enough to rewrite and delete their load balancer.
func TestAnnotationIsNoProof(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	victim := a.addService(example.Service("http 80 30080"))
	victim.Name = "web"
	a.ensure(l, victim)
	stolen := a.only()

	thief := example.Service("http 80 30999")
	thief.Name, thief.UID = "thief", "uid-2"
	thief.Annotations = map[string]string{settings.AnnotationID: stolen.ID}
	thief = a.addService(thief)
	a.ensure(l, thief)
	if got := a.current(thief).Annotations[settings.AnnotationID]; got == stolen.ID {
		t.Error("the thief has it")
	}
	before := example.JSON(t, a.raw("/load-balancer/" + stolen.ID)["backends"])
	if !strings.Contains(before, "30080") || strings.Contains(before, "30999") {
		t.Errorf("backends of the victim: %s", before)
	}
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "ForeignLoadBalancer") {
		t.Errorf("events: %s", said)
	}
	copied := a.current(thief)
	copied.Annotations[settings.AnnotationID] = stolen.ID
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", copied); err != nil {
		t.Fatal(err)
	}
	if got := a.only().ID; got != stolen.ID {
		t.Errorf("left is %s, want the victim's %s", got, stolen.ID)
	}
}

// Any user who may create a Service can write these; with UpCloud's own CCM some of them stop the controller of the whole
// cluster.
func TestNoAnnotationPanics(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	for i, value := range []string{"null", "", "{}", "[", "\x00", `{"backends":[{},{"tls_configs":[{}]}]}`, strings.Repeat("[", 100000)} {
		for _, annotation := range []string{settings.AnnotationConfig, settings.AnnotationNodeSelector, settings.AnnotationID, settings.AnnotationName} {
			s := example.Service("http 80 30080")
			s.Name, s.UID = fmt.Sprintf("s%d", i), "uid-x"
			s.Annotations = map[string]string{annotation: value}
			if _, err := l.EnsureLoadBalancer(short(t), "prod", s, a.nodes); err != nil && strings.Contains(err.Error(), "bug") {
				t.Errorf("%s=%.20q: %v", annotation, value, err)
			}
		}
	}
}

func TestUnsupportedProtocol(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := example.Service("dns 53 30053", "dns-tcp 54 30054")
	s.Spec.Ports[0].Protocol = v1.ProtocolUDP
	a.ResetRequests()
	_, err := l.EnsureLoadBalancer(t.Context(), "prod", s, a.nodes)
	var retry *api.RetryError
	if !errors.As(err, &retry) || retry.RetryAfter() < 1e9*60 {
		t.Errorf("error %v: it would be retried soon", err)
	}
	said := a.said()
	if len(said) != 1 || !strings.HasPrefix(said[0], "Warning UnsupportedProtocol") || !strings.Contains(said[0], "53/UDP") {
		t.Errorf("events: %q", said)
	}
	if a.Requests().Total() != 0 {
		t.Errorf("requests: %v", a.Requests())
	}
	if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", s); exists || err != nil {
		t.Errorf("GetLoadBalancer = %v, %v: the Service could not be deleted", exists, err)
	}
}

// Who restricts a Service that is published already must not be told that it is closed now.
func TestRefusalSaysWhatBecomesOfTheLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	restricted := a.current(s)
	restricted.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8x"}
	for _, want := range []string{"No load balancer", "stays as it was, open"} {
		a.said()
		if _, err := l.EnsureLoadBalancer(t.Context(), "prod", restricted, a.nodes); err == nil {
			t.Fatal("the restriction was ignored")
		}
		if said := a.said(); len(said) != 1 || !strings.Contains(said[0], want) || !strings.Contains(said[0], "10.0.0.0/8x") {
			t.Errorf("events: %q, want %q", said, want)
		}
		a.ensure(l, s)
		restricted = a.current(s)
		restricted.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8x"}
	}
}

func TestTakenNameIsNotTakenOver(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.ensure(l, a.addService(example.Service("http 80 30080")))
	twin := example.Service("http 80 30999")
	twin.UID = "uid-of-the-same-name-in-another-cluster"
	_, err := l.EnsureLoadBalancer(t.Context(), "prod", twin, a.nodes)
	if err == nil || !strings.Contains(err.Error(), "clusterID") || !strings.Contains(err.Error(), "prod-default-web") {
		t.Errorf("error %v", err)
	}
	if got := summary(a.only()); strings.Contains(got, "30999") {
		t.Error(got)
	}
}

// legacy makes the load balancer that UpCloud's own CCM makes for Service web of a cluster called prod that has no ID.
func (a *account) legacy() cloud.LoadBalancer {
	t := a.t
	t.Helper()
	var network struct {
		Networks struct {
			Network []struct{ UUID, Type string }
		}
	}
	a.Do(t, http.MethodGet, "/network/?zone="+zone, "", &network)
	var private string
	for _, n := range network.Networks.Network {
		if n.Type == "private" {
			private = n.UUID
		}
	}
	a.Do(t, http.MethodPost, "/load-balancer", `{"name":"prod-default-web","plan":"production-small","zone":"`+zone+`",
		"networks":[{"name":"public-IPv4","type":"public","family":"IPv4"},{"name":"private-IPv4","type":"private","family":"IPv4","uuid":"`+private+`"}],
		"configured_status":"started","resolvers":[],
		"labels":[{"key":"ccm_cluster_id","value":""},{"key":"ccm_cluster_name","value":"prod"},{"key":"ccm_generated_name","value":"prod-default-web"},
			{"key":"ccm_external_traffic_policy","value":"cluster"}],
		"frontends":[{"name":"http","mode":"http","port":80,"default_backend":"http","networks":[{"name":"public-IPv4"},{"name":"private-IPv4"}],
			"properties":{"timeout_client":10}}],
		"backends":[{"name":"http","members":[{"name":"n1","ip":"`+a.nodes[0].Status.Addresses[1].Address+`","port":30080,"weight":100,
			"max_sessions":50000,"type":"static","enabled":true}]}]}`, nil)
	made := a.only()
	a.settle(made.ID)
	return made
}

// Two clusters may have the same name and the same Service. The labels of UpCloud's own CCM do not tell them apart.
func TestAnotherClustersIsNotTakenOverByName(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	before := a.legacy()
	s := a.addService(example.Service("http 80 30999"))
	a.ResetRequests()
	_, err := l.EnsureLoadBalancer(t.Context(), "prod", s, a.nodes)
	if err == nil || !strings.Contains(err.Error(), settings.AnnotationID) || !strings.Contains(err.Error(), "clusterID") {
		t.Errorf("error %v", err)
	}
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", s); err != nil {
		t.Error(err)
	}
	if got := a.writes(); !slices.Equal(got, []string{"POST /load-balancer"}) {
		t.Errorf("writes: %v", got)
	}
	if diff := cmp.Diff(summary(before), summary(a.only())); diff != "" {
		t.Error(diff)
	}
}

// A load balancer made by UpCloud's own CCM is taken over as it is.
func TestTakeOver(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	before := a.legacy()
	s := example.Service("http 80 30080")
	s.Annotations = map[string]string{settings.AnnotationID: before.ID, settings.AnnotationName: before.Name}
	s = a.addService(s)
	a.ResetRequests()
	a.ensure(l, s)
	lb := a.only()
	if lb.ID != before.ID || lb.Plan != "production-small" {
		t.Errorf("load balancer %s of plan %s, want %s", lb.ID, lb.Plan, before.ID)
	}
	if diff := cmp.Diff(summary(before), summary(lb)); diff != "" {
		t.Error(diff)
	}
	if got := a.writes(); !slices.Equal(got, []string{"POST /load-balancer/{uuid}/labels"}) {
		t.Errorf("writes: %v", got)
	}
	if lb.Labels[settings.LabelServiceUID] != "uid-1" {
		t.Errorf("labels: %v", lb.Labels)
	}
}

// Several Services, and several workers on each, at once.
func TestConcurrently(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	var workers sync.WaitGroup
	for i := range 8 {
		s := example.Service("http 80 30080")
		s.Name, s.UID = fmt.Sprintf("s%d", i), types.UID(fmt.Sprintf("uid-%d", i))
		s = a.addService(s)
		for range 3 {
			workers.Go(func() {
				for {
					_, err := l.EnsureLoadBalancer(t.Context(), "prod", s, a.nodes)
					var retry *api.RetryError
					if errors.As(err, &retry) {
						continue
					}
					if err != nil {
						t.Error(err)
					}
					return
				}
			})
		}
	}
	workers.Wait()
	owners := map[string]int{}
	for _, lb := range a.list() {
		owners[lb.Labels[settings.LabelServiceUID]]++
	}
	if len(owners) != 8 || a.Requests().Of("POST /load-balancer") != 8 {
		t.Errorf("load balancers by Service: %v; %d were asked for", owners, a.Requests().Of("POST /load-balancer"))
	}
}

// A provider that is slow with one load balancer must not hold up another.
func TestOneSlowLoadBalancerHoldsUpNoOther(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	unlock, err := l.locks.lock(t.Context(), "uid-slow")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	a.ensure(l, a.addService(example.Service("http 80 30080")))
	slow := example.Service("http 80 30080")
	slow.UID = "uid-slow"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.EnsureLoadBalancer(ctx, "prod", slow, a.nodes); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// noted is the label that says that components of these names were made for the Service.
func noted(names ...string) string {
	var digests []string
	for _, name := range names {
		digests = append(digests, settings.ShortDigest(name))
	}
	slices.Sort(digests)
	return strings.Join(digests, ".")
}
