// Package demo shows the main job on a running local cluster: a volume whose data survives a move between nodes, and a
// Service reached through its load balancer.
package demo

import (
	"context"
	"embed"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

//go:embed manifests
var manifests embed.FS

const namespace = "demo"

type demo struct {
	*steps.Runner

	node     string // where the workload runs
	storage  string // UUID of its volume
	checksum string // of its data
	ip       string // public address of the load balancer
	answers  string // of the load balancer, summed up
}

// Run shows the whole job. With keepServers the nodes' servers stay in the account, and the cluster can go on.
func Run(ctx context.Context, runner *steps.Runner, keepServers bool) steps.Result {
	d := &demo{Runner: runner}
	all := append(runner.Install(), runner.Routes()...)
	all = append(all, d.storageSteps()...)
	all = append(all, d.loadBalancerSteps()...)
	all = append(all, d.removal(keepServers)...)
	runner.Run(ctx, all)
	return runner.Result
}

func (d *demo) apply(ctx context.Context, manifest string) error {
	text, err := manifests.ReadFile("manifests/" + manifest)
	if err != nil {
		return err
	}
	_, err = d.Kubectl(ctx, text, "apply", "-f", "-")
	return err
}

// exec runs a command in the workload's Pod.
func (d *demo) exec(ctx context.Context, command ...string) (string, error) {
	return d.Kubectl(ctx, nil, append([]string{"exec", "-n", namespace, "keeper-0", "--"}, command...)...)
}

func (d *demo) cordon(ctx context.Context, node string, unschedulable bool) error {
	patch := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, unschedulable)
	_, err := d.Client.CoreV1().Nodes().Patch(ctx, node, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	return err
}
