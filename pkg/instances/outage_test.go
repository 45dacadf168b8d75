package instances

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	cloudprovider "k8s.io/cloud-provider"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// New nodes that the API's outage meets are initialized when it is over, in the same attempt; meanwhile one call looks for all of
// them. A node that is initialized already does not wait.
func TestNewNodesWaitForTheEndOfAnOutage(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"failing":      {Status: http.StatusInternalServerError},
		"unauthorized": {Status: http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const count = 10
			account := newAccount(t)
			instances := newInstances(t, account.cloud)
			instances.outage.pause = 10 * time.Millisecond
			var ids []string
			for n := range count {
				ids = append(ids, account.CreateServer(t, fmt.Sprintf("n%d", n), zone))
			}
			remove := account.Inject(fault)
			account.ResetRequests()
			type result struct {
				metadata *cloudprovider.InstanceMetadata
				err      error
			}
			results := make(chan result, count)
			for n, id := range ids {
				go func() {
					metadata, err := instances.InstanceMetadata(t.Context(), tainted(node(fmt.Sprintf("n%d", n), providerid.New(id))))
					results <- result{metadata, err}
				}()
			}
			for account.Requests().Of("GET /account") < 2 {
				select {
				case got := <-results:
					t.Fatalf("a node did not wait: %v", got.err)
				case <-time.After(10 * time.Millisecond):
				}
			}
			if _, err := instances.InstanceMetadata(t.Context(), node("n0", providerid.New(ids[0]))); !isOutage(err) {
				t.Errorf("a node that is initialized: %v", err)
			}
			asked := account.Requests().Of("GET /server/{uuid}")
			remove()
			for range count {
				got := <-results
				if got.err != nil || len(got.metadata.NodeAddresses) < 2 {
					t.Fatalf("%+v, %v", got.metadata, got.err)
				}
			}
			if again := account.Requests().Of("GET /server/{uuid}") - asked; again > 2*count {
				t.Errorf("%d questions about %d servers when the API was back", again, count)
			}
		})
	}
}

// Patience ends, and so does the caller's.
func TestOutageThatDoesNotEnd(t *testing.T) {
	account := newAccount(t)
	id := account.CreateServer(t, "n1", zone)
	account.Inject(simulator.Fault{Status: http.StatusUnauthorized})
	instances := newInstances(t, account.cloud)
	instances.outage.pause, instances.outage.patience = time.Millisecond, 50*time.Millisecond
	if _, err := instances.InstanceMetadata(t.Context(), tainted(node("n1", providerid.New(id)))); !isOutage(err) {
		t.Errorf("error %v", err)
	}
	instances.outage.patience = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	stopped := time.AfterFunc(20*time.Millisecond, cancel)
	defer stopped.Stop()
	if _, err := instances.InstanceMetadata(ctx, tainted(node("n1", providerid.New(id)))); err == nil {
		t.Error("no error, although the API serves nobody")
	}
}
