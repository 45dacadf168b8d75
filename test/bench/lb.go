package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	// The sizes that the calls are counted at: as many ports as a web server has, and more nodes than a backend has members.
	lbCallsNodes    = 500
	lbCallsServices = 200
	// The sizes that the time is measured at.
	lbTimeNodes    = 10
	lbTimeServices = 50

	// lbQuiet is for how long no call of the load balancers' API is taken to mean that everything has been done: longer than what
	// the ccm pauses between two looks at one.
	lbQuiet = 12 * time.Second
)

// withoutChecks switches off the list that is read every few minutes, which would be counted, or not, as chance has it.
const withoutChecks = `apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: CCMConfig
data:
  loadBalancerCheckInterval: 0s
`

// lbFigures are about Services of type LoadBalancer, each with two ports, under the service controller of k8s.io/cloud-provider.
type lbFigures struct {
	// unchanged is the calls of the UpCloud API that a reconcile takes of a Service whose load balancer is as it should be: the mean
	// of lbCallsServices, touched one after the other.
	unchanged float64
	// nodeChange is all calls of the load balancers' API from a Node's registration until nothing more happens, with
	// lbCallsServices and lbCallsNodes other nodes. Calls about the server itself are counted in ccm_api_calls_5min.
	nodeChange int
	// members is how many backends there are afterwards that the new node is a member of: each has taken one PATCH at least.
	members int
	// measured is from the first request that makes one of lbTimeServices until the last of them has its address published, in the
	// profile realistic. bound is what one load balancer takes that was asked of the API directly at the same moment, from the
	// request to the first answer that says "running", read every 100 ms: the server-side times alone, nothing of ours in it.
	measured, bound time.Duration
}

// split puts the figures into sections of their own.
func (f lbFigures) split(results figures) {
	results["lb_unchanged_calls"], results["lb_node_change_calls"] = f.unchanged, f.nodeChange
	results["lb_converge_ratio"] = f.measured.Seconds() / f.bound.Seconds()
	delete(results, "lb")
}

// measureLB runs the program, with the rights of the shipped manifests, against a real kube-apiserver.
func measureLB(ctx context.Context) (any, error) {
	dir, err := os.MkdirTemp("", "bench-lb")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, err := buildCCM(ctx, dir)
	if err != nil {
		return nil, err
	}
	var f lbFigures
	if err := f.countCalls(ctx, program, filepath.Join(dir, "calls")); err != nil {
		return nil, err
	}
	return f, f.time(ctx, program, filepath.Join(dir, "time"))
}

func (f *lbFigures) countCalls(ctx context.Context, program, dir string) error {
	config := dir + ".yaml"
	if err := os.WriteFile(config, []byte(withoutChecks), 0o600); err != nil {
		return err
	}
	r, err := newCCMRig(ctx, program, dir, lbCallsNodes, simulator.Instant, "--cloud-config="+config)
	if r != nil {
		defer r.Close()
	}
	if err != nil {
		return err
	}
	if _, err := r.register(ctx); err != nil {
		return err
	}
	fmt.Printf("\n%d Services of type LoadBalancer with 2 ports, %d nodes\n", lbCallsServices, lbCallsNodes)
	if err := r.addServices(ctx, lbCallsServices); err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	r.simulator.ResetRequests()
	if err := r.touchServices(ctx, lbCallsServices); err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	f.unchanged = float64(lbCalls(r.simulator.Requests())) / lbCallsServices
	fmt.Printf("  %.2f calls of the UpCloud API a reconcile that changes nothing:%s\n", f.unchanged, lbCallsText(r.simulator.Requests()))

	r.simulator.ResetRequests()
	if err := r.join(ctx, "node-new"); err != nil {
		return err
	}
	if err := r.quiet(ctx); err != nil {
		return err
	}
	requests := r.simulator.Requests()
	f.nodeChange = lbCalls(requests)
	if f.members, err = r.backendsWith(ctx, "node-new"); err != nil {
		return err
	}
	fmt.Printf("  %d when one node joins, which becomes a member of %d of %d backends:%s\n", f.nodeChange, f.members,
		2*lbCallsServices, lbCallsText(requests))
	return nil
}

func (f *lbFigures) time(ctx context.Context, program, dir string) error {
	r, err := newCCMRig(ctx, program, dir, lbTimeNodes, simulator.Realistic)
	if r != nil {
		defer r.Close()
	}
	if err != nil {
		return err
	}
	if _, err := r.register(ctx); err != nil {
		return err
	}
	alone := make(chan error, 1)
	begin := time.Now()
	go func() {
		err := r.loadBalancerAlone(ctx)
		f.bound = time.Since(begin)
		alone <- err
	}()
	err = r.addServices(ctx, lbTimeServices)
	f.measured = time.Since(begin)
	if aloneErr := <-alone; err == nil {
		err = aloneErr
	}
	if err != nil {
		return err
	}
	fmt.Printf("%d Services made at once, realistic profile\n", lbTimeServices)
	fmt.Printf("  all served after %12.2f s\n  one load balancer alone %5.2f s\n  ratio %23.3f\n", f.measured.Seconds(), f.bound.Seconds(),
		f.measured.Seconds()/f.bound.Seconds())
	return nil
}

// loadBalancerAlone makes a load balancer past the ccm, and returns when it runs.
func (r *ccmRig) loadBalancerAlone(ctx context.Context) error {
	lb, err := r.account.account.CreateLoadBalancer(ctx, &request.CreateLoadBalancerRequest{Name: "alone", Zone: zone, Plan: "development",
		ConfiguredStatus: upcloud.LoadBalancerConfiguredStatusStarted,
		Networks: []request.LoadBalancerNetwork{{Name: "nodes", Type: upcloud.LoadBalancerNetworkTypePrivate,
			Family: upcloud.LoadBalancerAddressFamilyIPv4, UUID: r.account.network}},
		Frontends: []request.LoadBalancerFrontend{}, Backends: []request.LoadBalancerBackend{}, Resolvers: []request.LoadBalancerResolver{}})
	if err != nil {
		return err
	}
	return poll(ctx, 100*time.Millisecond, func() (bool, error) {
		now, err := r.account.account.GetLoadBalancer(ctx, &request.GetLoadBalancerRequest{UUID: lb.UUID})
		return err == nil && now.OperationalState == upcloud.LoadBalancerOperationalStateRunning, err
	})
}

// touchServices changes an annotation of each that means nothing, so that the service controller reconciles it.
func (r *ccmRig) touchServices(ctx context.Context, count int) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/touched":%q}}}`, time.Now().Format(time.RFC3339Nano))
	for n := range count {
		if _, err := r.client.CoreV1().Services("default").Patch(ctx, serviceName(n), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// lbCalls are the calls about load balancers.
func lbCalls(requests simulator.Counts) int {
	total := 0
	for _, operation := range requests.Operations() {
		if isLBCall(operation) {
			total += requests.Of(operation)
		}
	}
	return total
}

func isLBCall(operation string) bool { return strings.Contains(operation, " /load-balancer") }

func lbCallsText(requests simulator.Counts) string {
	var text string
	for _, operation := range requests.Operations() {
		if isLBCall(operation) {
			text += fmt.Sprintf(" %d %s,", requests.Of(operation), operation)
		}
	}
	return strings.TrimSuffix(text, ",")
}
