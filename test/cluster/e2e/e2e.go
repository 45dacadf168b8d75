// Package e2e takes the manifests of examples/ through their lives on a running local cluster: made, used in each way that
// Kubernetes has, snapshotted, restored, cloned, grown, and deleted; through restarts and crashes of the kubelet and the node
// plugin, and off a node that lost its power.
//
// What each check says is proved by data: by what a Pod reads back, by the kernel's own word on a mount or a device, by
// the simulated account, and not by what Kubernetes says of itself alone.
package e2e

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// group is some checks that share a namespace.
type group struct {
	namespace string
	steps     func(suite) []steps.Step
}

// together are the groups that do not disturb each other.
var together = []group{
	{metav1.NamespaceDefault, suite.copySteps}, // upcloud-doctor is shown with what it leaves
	{"xfs", suite.xfsSteps},
	{"btrfs", suite.btrfsSteps},
	{"block", suite.blockSteps},
	{"options", suite.optionSteps},
	{"groups", suite.groupSteps},
	{"folders", suite.folderSteps},
	{"readers", suite.readerSteps},
	{"exclusive", suite.exclusiveSteps},
	{"ephemeral", suite.ephemeralSteps},
	{"health", suite.healthSteps},
	{"encrypted", suite.encryptedSteps},
	{"routes", func(s suite) []steps.Step { return s.Routes() }},
}

// alone are those that come after them, one after the other.
var alone = []group{
	{"restarts", suite.restartSteps},
	{"traffic", suite.trafficSteps},
	{"limits", suite.limitSteps},
	{"power", suite.powerSteps},
}

// Run runs the whole suite, or the groups that only names.
func Run(ctx context.Context, runner *steps.Runner, only []string) steps.Result {
	var boot bootDisks
	var sideBySide [][]steps.Step
	var inOrder []steps.Step
	namespaces := []string{interrupted}
	for _, g := range chosen(together, only) {
		sideBySide = append(sideBySide, g.steps(suite{runner, g.namespace}))
		namespaces = append(namespaces, g.namespace)
	}
	for _, g := range chosen(alone, only) {
		inOrder = append(inOrder, g.steps(suite{runner, g.namespace})...)
		namespaces = append(namespaces, g.namespace)
	}
	s := suite{runner, metav1.NamespaceDefault}
	first := append(runner.Install(),
		steps.Step{Name: "the account has the nodes' boot disks", Check: boot.remember(s)},
		steps.Step{Name: "every group of checks has a namespace", Do: s.makeNamespaces(namespaces), Check: s.namespacesReady(namespaces)})
	last := []steps.Step{
		{Name: "upcloud-doctor finds nothing amiss", Check: s.doctor},
		{Name: "deleting everything leaves the account and the nodes as they were",
			Do: s.deleteAll(namespaces), Check: boot.onlyThey(s)},
	}
	_ = runner.Run(ctx, first) && runner.Together(ctx, sideBySide...) && runner.Run(ctx, append(inOrder, last...))
	return runner.Result
}

// Groups are the names that Run knows.
func Groups() (names []string) {
	for _, g := range slices.Concat(together, alone) {
		names = append(names, g.namespace)
	}
	return names
}

// chosen are the groups that are named; no names choose all.
func chosen(groups []group, names []string) []group {
	return slices.DeleteFunc(slices.Clone(groups), func(g group) bool { return len(names) > 0 && !slices.Contains(names, g.namespace) })
}
