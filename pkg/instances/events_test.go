package instances

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/tools/record"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// What somebody can do something about is told on the Node, once; the API's own troubles are not.
func TestWhyANodeIsNotInitialized(t *testing.T) {
	account := newAccount(t)
	instances := newInstances(t, account.cloud)
	events := record.NewFakeRecorder(10)
	instances.Start(nil, events)
	for range 3 {
		if _, err := instances.InstanceMetadata(t.Context(), tainted(node("nobody", ""))); err == nil {
			t.Fatal("a server was found")
		}
	}
	if len(events.Events) != 1 {
		t.Fatalf("%d events for three tries", len(events.Events))
	}
	if event := <-events.Events; !strings.Contains(event, "Warning NotInitialized") || !strings.Contains(event, "--provider-id") {
		t.Errorf("event %q", event)
	}
	account.Inject(simulator.Fault{Status: http.StatusForbidden})
	if _, err := instances.InstanceMetadata(t.Context(), tainted(node("somebody", "upcloud:////00ffffff-ffff-4fff-bfff-ffffffffffff"))); err == nil {
		t.Fatal("a server was found")
	}
	if len(events.Events) > 0 {
		t.Errorf("event %q", <-events.Events)
	}
}
