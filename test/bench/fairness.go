package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	fairNodes = 3
	// quietTenants are the namespaces with one small Service each, whose time is measured.
	quietTenants = 50
	// noisyServices are those of the other namespace: more than the service controller of k8s.io/cloud-provider had workers.
	noisyServices = 12
	// Each has a configuration of nearly the size that is allowed, changed once every noisyPeriod.
	noisyFrontends, noisyRules = 30, 18
	noisyPeriod                = time.Second
	// fairLatency is what each request to the API takes besides the work.
	fairLatency = 50 * time.Millisecond
)

// fairFigures are the worst times of the quiet namespaces' Services, from the request that makes one until its address is published:
// without the noisy namespace, and with it.
type fairFigures struct{ alone, beside time.Duration }

func (f fairFigures) split(results figures) {
	results["fairness_ratio"] = f.beside.Seconds() / f.alone.Seconds()
	delete(results, "fairness")
}

// measureFairness measures both in one run of the program, one after the other, in the profile realistic.
func measureFairness(ctx context.Context) (any, error) {
	dir, err := os.MkdirTemp("", "bench-fairness")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, err := buildCCM(ctx, dir)
	if err != nil {
		return nil, err
	}
	r, err := newCCMRig(ctx, program, filepath.Join(dir, "run"), fairNodes, simulator.Realistic)
	if r != nil {
		defer r.Close()
	}
	if err != nil {
		return nil, err
	}
	if _, err := r.register(ctx); err != nil {
		return nil, err
	}
	remove := r.simulator.Inject(simulator.Fault{Latency: fairLatency})
	defer remove()
	fmt.Printf("\n%d namespaces make a Service each, realistic profile, %s for each request\n", quietTenants, fairLatency)
	var f fairFigures
	if f.alone, err = r.serveTenants(ctx, "alone"); err != nil {
		return nil, err
	}
	fmt.Printf("  the last is served after                   %8.2f s\n", f.alone.Seconds())
	stop, err := r.makeNoise(ctx)
	if err != nil {
		return nil, err
	}
	before := r.simulator.Requests()
	if f.beside, err = r.serveTenants(ctx, "beside"); err != nil {
		return nil, err
	}
	calls := lbCalls(r.simulator.Requests()) - lbCalls(before)
	if err := stop(); err != nil {
		return nil, err
	}
	fmt.Printf("  the same beside %d Services of one namespace, each with %d frontends of %d rules that change every %s\n", noisyServices,
		noisyFrontends, noisyRules, noisyPeriod)
	fmt.Printf("  the last is served after                   %8.2f s (%d calls of the load balancers' API meanwhile)\n", f.beside.Seconds(), calls)
	fmt.Printf("  ratio                                      %8.3f\n", f.beside.Seconds()/f.alone.Seconds())
	return f, nil
}

// serveTenants makes a Service in each of so many new namespaces at once, and returns how long the slowest took to be served.
func (r *ccmRig) serveTenants(ctx context.Context, prefix string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	var mu sync.Mutex
	made, took := map[string]time.Time{}, map[string]time.Duration{}
	all := make(chan struct{})
	look := func(object any) {
		service, ok := object.(*v1.Service)
		if !ok || len(service.Status.LoadBalancer.Ingress) == 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		began, ours := made[service.Namespace]
		if _, counted := took[service.Namespace]; !ours || counted {
			return
		}
		if took[service.Namespace] = time.Since(began); len(took) == quietTenants {
			close(all)
		}
	}
	stop, err := r.watchServices(ctx, look)
	if err != nil {
		return 0, err
	}
	defer stop()
	making, makeContext := errgroup.WithContext(ctx)
	for n := range quietTenants {
		making.Go(func() error {
			namespace := fmt.Sprintf("%s-%d", prefix, n)
			if err := r.addNamespace(makeContext, namespace); err != nil {
				return err
			}
			mu.Lock()
			made[namespace] = time.Now()
			mu.Unlock()
			_, err := r.client.CoreV1().Services(namespace).Create(makeContext, newService("web"), metav1.CreateOptions{})
			return err
		})
	}
	if err := making.Wait(); err != nil {
		return 0, err
	}
	select {
	case <-all:
	case <-r.ccm.Ended():
		return 0, r.ccm.Failure()
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		return 0, fmt.Errorf("%d of %d Services are served: %w", len(took), quietTenants, ctx.Err())
	}
	mu.Lock()
	defer mu.Unlock()
	return slowest(took), nil
}

// watchServices has look see each Service until stop is called.
func (r *ccmRig) watchServices(ctx context.Context, look func(any)) (stop func(), err error) {
	shared := informers.NewSharedInformerFactory(r.client, 0)
	watching, cancel := context.WithCancel(ctx)
	stop = func() {
		cancel()
		shared.Shutdown()
	}
	if _, err := shared.Core().V1().Services().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, now any) { look(now) },
	}); err != nil {
		stop()
		return nil, err
	}
	shared.Start(watching.Done())
	shared.WaitForCacheSync(watching.Done())
	return stop, nil
}

func (r *ccmRig) addNamespace(ctx context.Context, name string) error {
	_, err := r.client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

// makeNoise makes the noisy Services, and changes all of them again and again until stop is called. It returns when each has a load
// balancer and all have been changed, so that the work on them is under way.
func (r *ccmRig) makeNoise(ctx context.Context) (stop func() error, err error) {
	const namespace = "noisy"
	if err := r.addNamespace(ctx, namespace); err != nil {
		return nil, err
	}
	services := r.client.CoreV1().Services(namespace)
	for n := range noisyServices {
		service := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: serviceName(n), Annotations: map[string]string{
			settings.AnnotationConfig: noisyConfig(0)}}, Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "noisy"}}}
		for port := range noisyFrontends {
			service.Spec.Ports = append(service.Spec.Ports, v1.ServicePort{Name: fmt.Sprintf("port-%d", port), Port: int32(8000 + port),
				TargetPort: intstr.FromInt32(8080), Protocol: v1.ProtocolTCP})
		}
		if _, problems := settings.Parse(service); len(problems) > 0 {
			return nil, fmt.Errorf("the noisy Services are refused: %s", problems[0].Message)
		}
		if _, err := services.Create(ctx, service, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	waiting, done := context.WithTimeout(ctx, servedWithin)
	defer done()
	if err := poll(waiting, 100*time.Millisecond, func() (bool, error) {
		list, err := services.List(waiting, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, service := range list.Items {
			if service.Annotations[settings.AnnotationID] == "" {
				return false, nil
			}
		}
		return true, nil
	}); err != nil {
		return nil, err
	}
	changing, cancel := context.WithCancel(ctx)
	first, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.changeNoisy(changing, namespace, first) }()
	select {
	case <-first:
	case err := <-ended:
		cancel()
		return nil, err
	}
	return func() error {
		cancel()
		return <-ended
	}, nil
}

// changeNoisy gives every rule of the noisy Services another target once every noisyPeriod, and closes first after the first time.
func (r *ccmRig) changeNoisy(ctx context.Context, namespace string, first chan struct{}) error {
	ticker := time.NewTicker(noisyPeriod)
	defer ticker.Stop()
	for version := 1; ; version++ {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, settings.AnnotationConfig, noisyConfig(version))
		for n := range noisyServices {
			_, err := r.client.CoreV1().Services(namespace).Patch(ctx, serviceName(n), types.MergePatchType, patch, metav1.PatchOptions{})
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if version == 1 {
			close(first)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// noisyConfig is a configuration in which every rule differs from that of another version.
func noisyConfig(version int) string {
	var frontends []string
	for port := range noisyFrontends {
		var rules []string
		for rule := range noisyRules {
			rules = append(rules, fmt.Sprintf(`{"name":"rule-%d","priority":%d,"matchers":[{"type":"path","match_path":{"method":"exact","value":"/%d"}}],`+
				`"actions":[{"type":"http_return","action_http_return":{"status":200,"content_type":"text/plain","payload":"%08d"}}]}`,
				rule, rule, rule, version))
		}
		frontends = append(frontends, fmt.Sprintf(`{"name":"port-%d","mode":"http","rules":[%s]}`, port, strings.Join(rules, ",")))
	}
	return fmt.Sprintf(`{"frontends":[%s]}`, strings.Join(frontends, ","))
}
