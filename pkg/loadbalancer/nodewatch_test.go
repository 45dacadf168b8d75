package loadbalancer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A node whose labels change joins the load balancers of Services that select it now, without a periodic check, and the event says so.
func TestLabelsOfNodesAreFollowed(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	a.nodes[0].Labels = map[string]string{"pool": "web"}
	for _, node := range a.nodes {
		if _, err := a.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	l := a.balancers(func(c *Config) { c.CheckInterval = -1 })
	s := a.addService(example.Annotated(example.Service("http 80 30080"), "node-selector", "{matchLabels: {pool: web}}"))
	a.ensure(l, s)
	members := func() int { return len(a.only().Backends[0].Members) }
	if n := members(); n != 1 {
		t.Fatalf("%d members, want the node that is selected", n)
	}

	shared := informers.NewSharedInformerFactory(a.client, 0)
	services, nodes := shared.Core().V1().Services().Lister(), shared.Core().V1().Nodes()
	nodes.Informer()
	ctx, cancel := context.WithCancel(t.Context())
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	var following sync.WaitGroup
	following.Go(func() { l.FollowNodeLabels(ctx, services, nodes) })
	defer func() {
		cancel()
		following.Wait()
		shared.Shutdown()
	}()
	a.said()
	touched := 0
	a.eventually("both nodes are members", func() string {
		if n := members(); n != 2 {
			touched++ // the first changes may come before anybody follows
			relabelled := a.nodes[1].DeepCopy()
			relabelled.Labels = map[string]string{"pool": "web", "touched": fmt.Sprint(touched)}
			if _, err := a.client.CoreV1().Nodes().Update(t.Context(), relabelled, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(n)
		}
		return ""
	})
	said := ""
	a.eventually("an event tells of it", func() string {
		said += strings.Join(a.said(), "\n")
		if !strings.Contains(said, "UpdatedMembers Labels of nodes changed") {
			return said
		}
		return ""
	})
	if strings.Contains(said, "nothing had changed in Kubernetes") {
		t.Errorf("events: %s", said)
	}
}
