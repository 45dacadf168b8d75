package loadbalancer

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const zone = "fi-hel1"

// account is a simulated account, some nodes in it, and an API server's objects.
type account struct {
	*simulatortest.Server
	t      *testing.T
	cloud  *cloud.Cloud
	client *fake.Clientset
	events *record.FakeRecorder
	nodes  []*v1.Node
}

func newAccount(t *testing.T, config simulator.Config, nodes ...string) *account {
	t.Helper()
	sim := simulatortest.Start(t, config)
	a := &account{Server: sim, t: t, client: fake.NewClientset(), events: record.NewFakeRecorder(100)}
	a.cloud = a.connect()
	for _, name := range nodes {
		a.addNode(name)
	}
	return a
}

// connect returns a client that has seen nothing of the account yet, as after a restart.
func (a *account) connect() *cloud.Cloud {
	a.t.Helper()
	c, err := cloud.New(cloud.Config{Token: a.Token, BaseURL: a.URL})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(c.Close)
	return c
}

func newInstances(t *testing.T, c *cloud.Cloud) *instances.Instances {
	t.Helper()
	i, err := instances.New(instances.Config{Cloud: c})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// addNode makes a server and its Node, initialized.
func (a *account) addNode(name string) {
	a.t.Helper()
	node := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1.NodeSpec{ProviderID: providerid.New(a.CreateServer(a.t, name, zone))},
	}
	addresses, err := newInstances(a.t, a.connect()).NodeAddresses(a.t.Context(), node)
	if err != nil {
		a.t.Fatal(err)
	}
	node.Status.Addresses = addresses
	a.nodes = append(a.nodes, node)
}

// addNodeInTime is addNode in an account whose time stands still.
func (a *account) addNodeInTime(clock *simulator.ManualClock, name string) {
	a.t.Helper()
	pause := simulatortest.PassTime(a.t, clock, time.Second)
	defer pause()
	a.addNode(name)
}

func (a *account) balancers(changes ...func(*Config)) *LoadBalancers {
	config := Config{Cloud: a.cloud, Status: settings.StatusIP}
	for _, change := range changes {
		change(&config)
	}
	l := New(config)
	l.Start(a.client, a.events)
	return l
}

// addService creates a Service in the API server.
func (a *account) addService(s *v1.Service) *v1.Service {
	a.t.Helper()
	created, err := a.client.CoreV1().Services(s.Namespace).Create(a.t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	return created
}

// current is the Service as the API server has it now.
func (a *account) current(s *v1.Service) *v1.Service {
	a.t.Helper()
	got, err := a.client.CoreV1().Services(s.Namespace).Get(a.t.Context(), s.Name, metav1.GetOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	return got
}

// ensure calls EnsureLoadBalancer as the service controller does, until it no longer asks for patience.
func (a *account) ensure(l *LoadBalancers, s *v1.Service) *v1.LoadBalancerStatus {
	a.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		status, err := l.EnsureLoadBalancer(a.t.Context(), "prod", a.current(s), a.nodes)
		var retry *api.RetryError
		if errors.As(err, &retry) && retry.RetryAfter() < refusedRetry && time.Now().Before(deadline) {
			continue
		}
		if err != nil {
			a.t.Fatal(err)
		}
		current := a.current(s)
		current.Status.LoadBalancer = *status
		if _, err := a.client.CoreV1().Services(s.Namespace).UpdateStatus(a.t.Context(), current, metav1.UpdateOptions{}); err != nil {
			a.t.Fatal(err)
		}
		return status
	}
}

// list returns the account's load balancers, as the API shows them.
func (a *account) list() []cloud.LoadBalancer {
	a.t.Helper()
	all, err := a.cloud.LoadBalancers(a.t.Context(), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

// only returns the one load balancer that there is.
func (a *account) only() cloud.LoadBalancer {
	a.t.Helper()
	all := a.list()
	if len(all) != 1 {
		a.t.Fatalf("%d load balancers, want 1: %+v", len(all), all)
	}
	return all[0]
}

// settle waits until the load balancer runs.
func (a *account) settle(id string) {
	a.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		lb, err := a.cloud.LoadBalancer(a.t.Context(), id)
		if err != nil {
			a.t.Fatal(err)
		}
		if lb.State.Running() {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("load balancer is %s", lb.State)
		}
	}
}

// raw is a load balancer's JSON, for what this program does not decode.
func (a *account) raw(path string) map[string]any {
	a.t.Helper()
	var answer map[string]any
	a.Do(a.t, http.MethodGet, path, "", &answer)
	return answer
}

// writes are the requests since the last reset that change something.
func (a *account) writes() []string {
	var writes []string
	for _, operation := range a.Requests().Operations() {
		if !strings.HasPrefix(operation, http.MethodGet) {
			writes = append(writes, operation)
		}
	}
	return writes
}

// said returns the events so far.
func (a *account) said() []string {
	var events []string
	for {
		select {
		case event := <-a.events.Events:
			events = append(events, event)
		default:
			return events
		}
	}
}

// delete calls EnsureLoadBalancerDeleted as the service controller does.
func (a *account) delete(l *LoadBalancers, s *v1.Service) {
	a.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := l.EnsureLoadBalancerDeleted(a.t.Context(), "prod", a.current(s))
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "being deleted") || time.Now().After(deadline) {
			a.t.Fatal(err)
		}
	}
}

func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}
