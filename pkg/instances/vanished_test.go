package instances

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// lister lists these nodes.
func lister(t *testing.T, nodes ...*v1.Node) corelisters.NodeLister {
	t.Helper()
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, node := range nodes {
		if err := indexer.Add(node); err != nil {
			t.Fatal(err)
		}
	}
	return corelisters.NewNodeLister(indexer)
}

// A Node is deleted only when the server itself was unknown to the API twice; the list alone says nothing.
func TestMissingServerIsAskedForTwice(t *testing.T) {
	account := newAccount(t)
	gone := account.CreateServer(t, "gone", zone)
	account.deleteServer(t, gone)
	instances := newInstances(t, account.cloud)
	account.ResetRequests()
	began := time.Now()
	exists, err := instances.InstanceExists(t.Context(), node("gone", providerid.New(gone)))
	if exists || err != nil {
		t.Fatalf("InstanceExists = %v, %v, want false", exists, err)
	}
	if n := account.Requests().Of("GET /server/{uuid}"); n != 2 || time.Since(began) < confirmAfter {
		t.Errorf("the server was asked for %d times within %s: %v", n, time.Since(began), account.Requests())
	}
}

// Karpenter holds its Nodes with a finalizer: the controller asks for them in every pass until it lets go.
func TestNodeHeldByAFinalizerCostsOneWait(t *testing.T) {
	account := newAccount(t)
	n, now := node("gone", providerid.New("00ffffff-ffff-4fff-bfff-ffffffffffff")), metav1.Now()
	n.DeletionTimestamp = &now
	instances := newInstances(t, account.cloud)
	account.ResetRequests()
	for range 3 {
		if exists, err := instances.InstanceExists(t.Context(), n); exists || err != nil {
			t.Fatalf("InstanceExists = %v, %v", exists, err)
		}
	}
	if asked := account.Requests().Of("GET /server/{uuid}"); asked != 4 {
		t.Errorf("the server was asked for %d times, want twice in the first pass and once in each other", asked)
	}
}

// A process that stands still for a while after the first answer, as machines under load do, needs the second one all the same.
func TestAPauseIsNoSecondAnswer(t *testing.T) {
	account := newAccount(t)
	gone := account.CreateServer(t, "gone", zone)
	account.deleteServer(t, gone)
	var instances *Instances
	var pause sync.Once
	forward := account.Proxy(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, gone) {
			pause.Do(func() {
				instances.vanished.mu.Lock() // so that the answer cannot be noted down
				time.AfterFunc(confirmAfter+100*time.Millisecond, instances.vanished.mu.Unlock)
			})
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	client, err := cloud.New(cloud.Config{Token: account.Token, BaseURL: web.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	instances = newInstances(t, client)
	account.ResetRequests()
	exists, err := instances.InstanceExists(t.Context(), node("gone", providerid.New(gone)))
	if n := account.Requests().Of("GET /server/{uuid}"); exists || err != nil || n != 2 {
		t.Errorf("InstanceExists = %v, %v after %d answers, want false after 2", exists, err, n)
	}
}

// A Node is deleted by its name. One that was made anew while its server was looked for is not the one that was asked about.
func TestANodeMadeAnewIsKept(t *testing.T) {
	account := newAccount(t)
	const gone = "00ffffff-ffff-4fff-bfff-ffffffffffff"
	here := account.CreateServer(t, "n1", zone)
	for _, test := range []struct {
		name    string
		current *v1.Node
	}{
		{"another Node", &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "new"}, Spec: v1.NodeSpec{ProviderID: providerid.New(gone)}}},
		{"another server", node("n1", providerid.New(here))},
		{"no Node", node("n2", providerid.New(here))},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			instances := newInstances(t, account.cloud)
			instances.SetNodes(lister(t, test.current, node("n3", providerid.New(here))))
			exists, err := instances.InstanceExists(t.Context(), node("n1", providerid.New(gone)))
			if exists || err == nil || !strings.Contains(err.Error(), "n1") {
				t.Errorf("InstanceExists = %v, %v, want an error", exists, err)
			}
		})
	}
}

// The first Node of a cluster, which names its server itself, and credentials of another account: kubelets whose Nodes are deleted
// stay away until they are restarted.
func TestTheFirstNodeOfAClusterIsKept(t *testing.T) {
	account := newAccount(t)
	instances := newInstances(t, account.cloud)
	n := tainted(node("control-1", providerid.New("00ffffff-ffff-4fff-bfff-ffffffffffff")))
	instances.SetNodes(lister(t, n))
	if exists, err := instances.InstanceExists(t.Context(), n); exists || err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("before it was initialized: InstanceExists = %v, %v, want an error", exists, err)
	}
	n.Spec.Taints = nil
	if exists, err := instances.InstanceExists(t.Context(), n); exists || err != nil {
		t.Errorf("after it was initialized: InstanceExists = %v, %v, want false", exists, err)
	}
}

// Who is not allowed to, as another ccm leads by now, lets no Node be deleted.
func TestNoNodeGoesWithoutPermission(t *testing.T) {
	account := newAccount(t)
	gone := account.CreateServer(t, "gone", zone)
	account.deleteServer(t, gone)
	denied := errors.New("another ccm leads")
	instances := newInstances(t, account.cloud, func(c *Config) { c.BeforeGone = func(context.Context) error { return denied } })
	if _, err := instances.InstanceExists(t.Context(), node("gone", providerid.New(gone))); !errors.Is(err, denied) {
		t.Errorf("error %v, want %v", err, denied)
	}
}

// One wrong answer, such as a reader that lags behind gives, deletes nothing.
func TestOneWrongAnswerIsNotBelieved(t *testing.T) {
	account := newAccount(t)
	account.Inject(simulator.Fault{Operation: "GET /server", Stale: time.Hour, Count: 1}) // as it was before there were any
	id := account.CreateServer(t, "n1", zone)
	account.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Status: 404, Code: "SERVER_NOT_FOUND", Count: 1})
	account.ResetRequests()
	exists, err := newInstances(t, account.cloud).InstanceExists(t.Context(), node("n1", providerid.New(id)))
	if !exists || err != nil || account.Requests().Of("GET /server/{uuid}") != 2 {
		t.Errorf("InstanceExists = %v, %v after %v", exists, err, account.Requests())
	}
}

// A list that shows less than there is, and the API's wrong word on the servers: the list that is right again is believed.
func TestServerThatIsListedExists(t *testing.T) {
	account := newAccount(t)
	account.Inject(simulator.Fault{Operation: "GET /server", Stale: time.Hour, Count: 1}) // as it was before there were any
	id := account.CreateServer(t, "n1", zone)
	account.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Status: 404, Code: "SERVER_NOT_FOUND"})
	exists, err := newInstances(t, account.cloud).InstanceExists(t.Context(), node("n1", providerid.New(id)))
	if err == nil || exists || !strings.Contains(err.Error(), "lists server") {
		t.Errorf("InstanceExists = %v, %v, want an error", exists, err)
	}
}

// A short list hides servers that are there: each is found by its UUID, or no answer is given at all; none is missing.
func TestShortListDeletesNothing(t *testing.T) {
	account := newAccount(t)
	var nodes []*v1.Node
	for i := range 8 {
		name := fmt.Sprintf("n%d", i)
		if i == 5 {
			account.Inject(simulator.Fault{Operation: "GET /server", Stale: time.Hour}) // lists five of eight
		}
		nodes = append(nodes, node(name, providerid.New(account.CreateServer(t, name, zone))))
	}
	for _, limit := range []int{0, 30, 100} { // with and without a limit on how many may be missing
		instances := newInstances(t, connect(t, account.Server), func(c *Config) { c.MaxMissing = limit })
		instances.SetNodes(lister(t, nodes...))
		for _, node := range nodes {
			if exists, err := instances.InstanceExists(t.Context(), node); !exists && err == nil {
				t.Errorf("limit %d: the server of %s does not exist", limit, node.Name)
			} else if limit != 30 && err != nil {
				t.Error(err)
			}
		}
	}
}
