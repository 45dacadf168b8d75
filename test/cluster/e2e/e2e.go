// Package e2e takes the manifests of examples/ through their lives on a running local cluster: made, used in each way that
// Kubernetes has, snapshotted, restored, cloned, grown, and deleted; through restarts and crashes of the kubelet and the node
// plugin, and off a node that lost its power.
//
// What each check says is proved by data: by what a Pod reads back, by the kernel's own word on a mount or a device, by
// the simulated account, and not by what Kubernetes says of itself alone.
package e2e

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// Run runs the whole suite. What does not disturb anything else runs side by side.
func Run(ctx context.Context, runner *steps.Runner) steps.Result {
	var boot bootDisks
	tracks := []struct {
		namespace string
		steps     func(suite) []steps.Step
	}{
		{metav1.NamespaceDefault, suite.copySteps}, // upcloud-doctor and the loss of power go on with what it leaves
		{"xfs", suite.xfsSteps},
		{"block", suite.blockSteps},
		{"options", suite.mountOptionSteps},
		{"groups", suite.groupSteps},
		{"folders", suite.folderSteps},
		{"readers", suite.readerSteps},
		{"exclusive", suite.exclusiveSteps},
		{"ephemeral", suite.ephemeralSteps},
	}
	var together [][]steps.Step
	var namespaces []string
	for _, track := range tracks {
		together = append(together, track.steps(suite{runner, track.namespace}))
		namespaces = append(namespaces, track.namespace)
	}
	s := suite{runner, metav1.NamespaceDefault}
	restarted, interrupted, limited := suite{runner, "restarted"}, suite{runner, "interrupted"}, suite{runner, "limited"}
	namespaces = append(namespaces, restarted.namespace, interrupted.namespace, limited.namespace)
	alone := append(restarted.restartSteps(interrupted), limited.limitSteps()...)
	prepared := append(append(runner.Install(), runner.Routes()...),
		steps.Step{Name: "the account has the nodes' boot disks", Limit: 10 * time.Second, Check: boot.remember(s)},
		steps.Step{Name: "every group of checks has a namespace", Limit: time.Minute, Do: s.makeNamespaces(namespaces), Check: s.namespacesReady(namespaces)})
	ended := append(s.powerSteps(),
		steps.Step{Name: "upcloud-doctor finds nothing amiss", Limit: time.Minute, Check: s.doctor},
		steps.Step{Name: "deleting everything leaves the account and the nodes as they were", Limit: 4 * time.Minute,
			Do: s.deleteAll(namespaces), Check: boot.onlyThey(s)})
	_ = runner.Run(ctx, prepared) && runner.Together(ctx, together...) && runner.Run(ctx, alone) && runner.Run(ctx, ended)
	return runner.Result
}
