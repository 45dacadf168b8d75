package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/controlplane"
)

// clusterSizes are in nodes.
var clusterSizes = []int{10, 500, 5000}

// steadyWindow is for how long the calls of a cluster at rest are counted: the period of --node-status-update-frequency, in
// which every Node is looked at once.
const steadyWindow = 5 * time.Minute

// ccmFigures are by number of nodes.
type ccmFigures struct {
	calls map[string]int     // of the UpCloud API in steadyWindow
	init  map[string]float64 // seconds from registering to being initialized, of the slowest node
}

// measureCCM runs the program, with the rights of the shipped manifests, against a real kube-apiserver for each size. Nodes
// register all at once, one size after the other; then all clusters are left alone at the same time, while readiness is probed
// as kubelets do.
func measureCCM(ctx context.Context) (any, error) {
	dir, err := os.MkdirTemp("", "bench-ccm")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, err := buildCCM(ctx, dir)
	if err != nil {
		return nil, err
	}
	figures := ccmFigures{calls: map[string]int{}, init: map[string]float64{}}
	rigs := map[int]*ccmRig{}
	defer func() {
		for _, r := range rigs {
			r.Close()
		}
	}()
	fmt.Printf("\nNodes register all at once\n")
	for _, size := range clusterSizes {
		r, err := newCCMRig(ctx, program, filepath.Join(dir, fmt.Sprint(size)), size, simulator.Instant)
		if r != nil {
			rigs[size] = r
		}
		if err != nil {
			return nil, err
		}
		slowest, err := r.register(ctx)
		if err != nil {
			return nil, fmt.Errorf("%d nodes: %w", size, err)
		}
		figures.init[fmt.Sprint(size)] = slowest.Seconds()
		fmt.Printf("  %5d nodes: the slowest initialized after %7.2f s, with %d calls of the UpCloud API\n",
			size, slowest.Seconds(), r.simulator.Requests().Total())
	}
	fmt.Printf("Calls of the UpCloud API in %s at rest\n", steadyWindow)
	resting, restContext := errgroup.WithContext(ctx)
	for _, size := range clusterSizes {
		resting.Go(func() error { return rigs[size].rest(restContext, steadyWindow) })
	}
	if err := resting.Wait(); err != nil {
		return nil, err
	}
	for _, size := range clusterSizes {
		requests := rigs[size].simulator.Requests()
		figures.calls[fmt.Sprint(size)] = requests.Total()
		fmt.Printf("  %5d nodes: %4d:", size, requests.Total())
		for _, operation := range requests.Operations() {
			fmt.Printf(" %d %s,", requests.Of(operation), operation)
		}
		fmt.Println()
	}
	return figures, nil
}

func buildCCM(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "ccm")
	if output, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, "./cmd/ccm").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ccm: %w\n%s", err, output)
	}
	return program, nil
}

// noKubernetes says why the CCM cannot be measured, if it cannot.
func noKubernetes() string {
	if controlplane.Find() == "" {
		return "there is no kube-apiserver in the cache: make integration, or make demo, builds one"
	}
	return ""
}

// split puts the figures into sections of their own.
func (f ccmFigures) split(results figures) {
	results["ccm_api_calls_5min"], results["node_init_seconds"] = f.calls, f.init
	delete(results, "ccm")
}

// slowest is the longest of the times.
func slowest(times map[string]time.Duration) time.Duration {
	return slices.Max(slices.Collect(maps.Values(times)))
}
