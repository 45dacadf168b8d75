package loadbalancer

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

// A check that waits for the controller does not undo what that did meanwhile.
func TestCheckGoesByWhatTheServiceIsAfterTheWait(t *testing.T) {
	for name, s := range map[string]*v1.Service{
		"of its own": example.Service("http 80 30080"), "shared": sharingService("foo", "create/group", []string{"http 80 30080"}),
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers()
			s := a.addService(s)
			a.ensure(l, s)
			_, nodes := a.listers()
			index := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
			show := func() {
				if err := index.Add(a.current(s)); err != nil {
					t.Fatal(err)
				}
			}
			show()
			backend := "/load-balancer/" + a.only().ID + "/backends/" + a.only().Backends[0].Name
			a.Do(t, "DELETE", backend+"/members/n1", "", nil)

			unlock, err := l.locks.lock(t.Context(), string(s.UID))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				services := corelisters.NewServiceLister(index)
				inOneRound(func(r *rounds) { l.mendDrift(t.Context(), services, nodes, r) })
				inOneRound(func(r *rounds) { l.mendShared(t.Context(), services, nodes, r) })
			}()
			waiting := func() bool {
				l.locks.mu.Lock()
				defer l.locks.mu.Unlock()
				return l.locks.locks[string(s.UID)].users == 2
			}
			for deadline := time.Now().Add(time.Minute); !waiting(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nobody waits")
				}
			}
			a.change(s, func(s *v1.Service) { s.Spec.Ports[0].NodePort = 30090 })
			show()
			unlock()
			<-ended
			if got := summary(a.only()); !strings.Contains(got, "n1:30090") {
				t.Error(got)
			}
		})
	}
}
