package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// servedWithin bounds the wait for all Services.
const servedWithin = 10 * time.Minute

func serviceName(n int) string { return fmt.Sprintf("web-%d", n) }

// addServices makes so many Services at once, and returns when each has its address published.
func (r *ccmRig) addServices(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	served := newArrivals(count)
	shared := informers.NewSharedInformerFactory(r.client, 0)
	defer shared.Shutdown()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	look := func(object any) {
		if service, ok := object.(*v1.Service); ok && len(service.Status.LoadBalancer.Ingress) > 0 {
			served.add(service.Name)
		}
	}
	if _, err := shared.Core().V1().Services().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, now any) { look(now) },
	}); err != nil {
		return err
	}
	shared.Start(watching.Done())
	shared.WaitForCacheSync(watching.Done())

	making, makeContext := errgroup.WithContext(ctx)
	making.SetLimit(registeringAtOnce)
	for n := range count {
		making.Go(func() error {
			_, err := r.client.CoreV1().Services("default").Create(makeContext, newService(serviceName(n)), metav1.CreateOptions{})
			return err
		})
	}
	if err := making.Wait(); err != nil {
		return err
	}
	select {
	case <-served.all:
		return nil
	case <-r.ccm.Ended():
		return r.ccm.Failure()
	case <-ctx.Done():
		return fmt.Errorf("%d of %d Services are served: %w", served.count(), count, ctx.Err())
	}
}

// arrivals are names, each counted once; all is closed when as many have come as are expected.
type arrivals struct {
	mu       sync.Mutex
	names    map[string]bool
	expected int
	all      chan struct{}
}

func newArrivals(expected int) *arrivals {
	return &arrivals{names: map[string]bool{}, expected: expected, all: make(chan struct{})}
}

func (a *arrivals) add(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.names[name] {
		return
	}
	if a.names[name] = true; len(a.names) == a.expected {
		close(a.all)
	}
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.names)
}

func newService(name string) *v1.Service {
	return &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer,
		Selector: map[string]string{"app": name}, Ports: []v1.ServicePort{
			{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: v1.ProtocolTCP},
			{Name: "https", Port: 443, TargetPort: intstr.FromInt32(8443), Protocol: v1.ProtocolTCP},
		}}}
}

// join makes a server and registers its Node, as its kubelet does, and returns when it is initialized.
func (r *ccmRig) join(ctx context.Context, name string) error {
	if _, err := r.account.server(ctx, name); err != nil {
		return err
	}
	nodes := r.client.CoreV1().Nodes()
	if _, err := nodes.Create(ctx, newNode(name), metav1.CreateOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, initializedWithin)
	defer cancel()
	return poll(ctx, 100*time.Millisecond, func() (bool, error) {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		return err == nil && isInitialized(node), err
	})
}

// quiet returns when the ccm has not called the load balancers' API for a while.
func (r *ccmRig) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	calls, since := lbCalls(r.simulator.Requests()), time.Now()
	return poll(ctx, 100*time.Millisecond, func() (bool, error) {
		select {
		case <-r.ccm.Ended():
			return false, r.ccm.Failure()
		default:
		}
		if now := lbCalls(r.simulator.Requests()); now != calls {
			calls, since = now, time.Now()
		}
		return time.Since(since) >= lbQuiet, nil
	})
}

// backendsWith counts the backends that have such a member.
func (r *ccmRig) backendsWith(ctx context.Context, member string) (int, error) {
	const page = 100
	count := 0
	for number := 1; ; number++ {
		all, err := r.account.account.GetLoadBalancers(ctx, &request.GetLoadBalancersRequest{Page: &request.Page{Number: number, Size: page}})
		if err != nil {
			return 0, err
		}
		for _, lb := range all {
			for _, backend := range lb.Backends {
				count += membersNamed(backend, member)
			}
		}
		if len(all) < page {
			return count, nil
		}
	}
}

func membersNamed(backend upcloud.LoadBalancerBackend, name string) int {
	count := 0
	for _, member := range backend.Members {
		if member.Name == name {
			count++
		}
	}
	return count
}

// poll looks until something is so.
func poll(ctx context.Context, period time.Duration, is func() (bool, error)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		if done, err := is(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
