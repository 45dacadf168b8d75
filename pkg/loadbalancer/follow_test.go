package loadbalancer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// hold keeps requests about one load balancer, once its ID is stored, until their callers give up. asked is closed at the first.
type hold struct {
	id    atomic.Value
	asked chan struct{}
}

// holding has the account's client go through a hold.
func (a *account) holding() *hold {
	a.t.Helper()
	held := &hold{asked: make(chan struct{})}
	held.id.Store("nobody's")
	proxy := a.Proxy(a.t)
	var first atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, held.id.Load().(string)) {
			proxy.ServeHTTP(w, r)
			return
		}
		if first.CompareAndSwap(false, true) {
			close(held.asked)
		}
		<-r.Context().Done()
	}))
	a.t.Cleanup(server.Close)
	var err error
	if a.cloud, err = cloud.New(cloud.Config{Token: a.Token, BaseURL: server.URL}); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(a.cloud.Close)
	return held
}

// A Service for which the API does not answer keeps no other one from having its Pods as members.
func TestOneSlowLoadBalancerHoldsUpNoOthersPods(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	held := a.holding()
	l := a.balancers(podMembers)
	a.followPods(l)
	ports := map[string]int32{"http": 8080}
	slow, other := example.Service("http 80 0"), example.Service("http 80 0")
	slow.Name, slow.UID = "slow", types.UID("uid-slow")
	slow, other = a.addService(slow), a.addService(other)
	a.setSlice(slice(slow, "slow-a", ports, "slow-1 10.244.1.5 ready"))
	a.setSlice(slice(other, "web-a", ports, "web-1 10.244.1.6 ready"))
	a.ensure(l, slow)
	a.ensure(l, other)

	held.id.Store(a.current(slow).Annotations[settings.AnnotationID])
	a.setSlice(slice(slow, "slow-a", ports, "slow-1 10.244.1.5 ready", "slow-2 10.244.2.5 ready"))
	select {
	case <-held.asked:
	case <-time.After(time.Minute):
		t.Fatal("nobody asks for the load balancer whose Pods changed")
	}
	a.setSlice(slice(other, "web-a", ports, "web-1 10.244.1.6 ready", "web-2 10.244.2.6 ready"))
	a.eventually("members of the other load balancer", func() string {
		var lb struct{ Backends []cloud.Backend }
		a.Do(t, http.MethodGet, "/load-balancer/"+a.current(other).Annotations[settings.AnnotationID], "", &lb)
		if got := fmt.Sprint(lb.Backends); strings.Count(got, "web-") != 2 {
			return got
		}
		return ""
	})
}
