package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/controlplane"
)

const (
	// initializedWithin bounds the wait for all nodes.
	initializedWithin = 10 * time.Minute
	// registeringAtOnce bounds how many kubelets' requests are under way at one time.
	registeringAtOnce = 100
	// probePeriod is that of the readiness probe in the shipped manifests.
	probePeriod = 10 * time.Second
)

// ccmRig is a control plane, a ccm and a simulated account with a server for each node.
type ccmRig struct {
	size      int
	simulator *simulator.Simulator
	account   *rig // the simulated account past the ccm
	plane     *controlplane.ControlPlane
	client    kubernetes.Interface
	ccm       *controlplane.Process
	ready     string // URL of readiness
	close     []func()
}

func newCCMRig(ctx context.Context, program, dir string, size int, profile simulator.Profile, args ...string) (*ccmRig, error) {
	r := &ccmRig{size: size}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sim, err := simulator.New(simulator.Config{Profile: profile})
	if err != nil {
		return nil, err
	}
	api := httptest.NewServer(sim.Handler())
	r.simulator = sim
	r.close = append(r.close, func() { _ = sim.Close() }, api.Close)
	account := &rig{account: service.New(client.New(simulator.DefaultUsername, simulator.DefaultPassword, client.WithBaseURL(api.URL)))}
	r.account = account
	network, err := account.account.CreateNetwork(ctx, &request.CreateNetworkRequest{Name: "nodes", Zone: zone, IPNetworks: upcloud.IPNetworkSlice{
		{Address: "10.0.0.0/16", DHCP: upcloud.True, Family: upcloud.IPAddressFamilyIPv4}}})
	if err != nil {
		return r, err
	}
	account.network = network.UUID
	if _, err = account.servers(ctx, size); err != nil {
		return r, err
	}
	if r.plane, err = controlplane.Start(ctx, controlplane.Find(), dir); err != nil {
		return r, err
	}
	r.close = append(r.close, r.plane.Stop)
	if r.client, err = kubernetes.NewForConfig(r.plane.Admin); err != nil {
		return r, err
	}
	if err := r.plane.Apply(ctx, "deploy/kubernetes/base/ccm/rbac.yaml"); err != nil {
		return r, err
	}
	return r, r.startCCM(ctx, program, dir, api.URL, args)
}

func (r *ccmRig) startCCM(ctx context.Context, program, dir, api string, args []string) error {
	token, err := r.plane.CCMToken(ctx)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := r.plane.Kubeconfig(kubeconfig, token); err != nil {
		return err
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return err
	}
	r.ready = fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[1])
	env := append(os.Environ(), "UPCLOUD_DEBUG_API_BASE_URL="+api, "UPCLOUD_USERNAME="+simulator.DefaultUsername,
		"UPCLOUD_PASSWORD="+simulator.DefaultPassword)
	args = slices.Concat([]string{"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig, "--bind-address=127.0.0.1", "--cert-dir=" + dir,
		fmt.Sprintf("--secure-port=%d", ports[0]), fmt.Sprintf("--readiness-port=%d", ports[1])}, args)
	r.ccm, err = controlplane.StartProcess("ccm", filepath.Join(dir, "ccm.log"), env, program, args...)
	if err != nil {
		return err
	}
	r.close = append(r.close, r.ccm.Stop)
	return r.lead(ctx)
}

// lead waits until the ccm has won the election and is ready.
func (r *ccmRig) lead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		lease, err := r.client.CoordinationV1().Leases("kube-system").Get(ctx, "cloud-controller-manager", metav1.GetOptions{})
		if err == nil && lease.Spec.HolderIdentity != nil {
			if err = r.probe(ctx); err == nil {
				return nil
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.ccm.Ended():
			return r.ccm.Failure()
		case <-ctx.Done():
			return fmt.Errorf("ccm does not lead: %w", err)
		}
	}
}

func (r *ccmRig) probe(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.ready, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readiness is %d", response.StatusCode)
	}
	return nil
}

// register makes all Nodes at once, as kubelets with --cloud-provider=external do, and returns how long the slowest took from
// its registration until it was initialized.
func (r *ccmRig) register(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, initializedWithin)
	defer cancel()
	var mu sync.Mutex
	registered, took := map[string]time.Time{}, map[string]time.Duration{}
	all := make(chan struct{})
	look := func(object any) {
		node, ok := object.(*v1.Node)
		if !ok || !isInitialized(node) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if _, counted := took[node.Name]; counted {
			return
		}
		if took[node.Name] = time.Since(registered[node.Name]); len(took) == r.size {
			close(all)
		}
	}
	shared := informers.NewSharedInformerFactory(r.client, 0)
	defer shared.Shutdown()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	if _, err := shared.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: look, UpdateFunc: func(_, now any) { look(now) },
	}); err != nil {
		return 0, err
	}
	shared.Start(watching.Done())
	shared.WaitForCacheSync(watching.Done())
	r.simulator.ResetRequests()

	making, makeContext := errgroup.WithContext(ctx)
	making.SetLimit(registeringAtOnce)
	for i := range r.size {
		making.Go(func() error {
			node := newNode(fmt.Sprintf("node-%d", i+1)) // as rig.servers names them
			mu.Lock()
			registered[node.Name] = time.Now()
			mu.Unlock()
			_, err := r.client.CoreV1().Nodes().Create(makeContext, node, metav1.CreateOptions{})
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
		return 0, fmt.Errorf("%d of %d nodes were initialized: %w", len(took), r.size, ctx.Err())
	}
	mu.Lock()
	defer mu.Unlock()
	return slowest(took), nil
}

func newNode(name string) *v1.Node {
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.NodeSpec{Taints: []v1.Taint{
			{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: v1.TaintEffectNoSchedule}}},
		Status: v1.NodeStatus{
			Addresses:  []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}},
			Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}},
		},
	}
}

func isInitialized(node *v1.Node) bool {
	tainted := slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool { return strings.HasSuffix(t.Key, "/uninitialized") })
	return !tainted && len(node.Status.Addresses) > 1
}

// rest leaves the cluster alone for so long, and counts requests from its beginning.
func (r *ccmRig) rest(ctx context.Context, window time.Duration) error {
	r.simulator.ResetRequests()
	end := time.After(window)
	probes := time.NewTicker(probePeriod)
	defer probes.Stop()
	for {
		select {
		case <-probes.C:
			if err := r.probe(ctx); err != nil {
				return err
			}
		case <-end:
			return nil
		case <-r.ccm.Ended():
			return r.ccm.Failure()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends everything.
func (r *ccmRig) Close() {
	for i := len(r.close) - 1; i >= 0; i-- {
		r.close[i]()
	}
}
