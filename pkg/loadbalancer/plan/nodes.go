package plan

import (
	"errors"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// taintToBeDeleted is what the cluster autoscaler puts on a node that it is about to remove. The service controller leaves such
// nodes out, too.
const taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"

// Eligible returns the nodes that may be members: those in the controller's scope that the Service selects, without those that
// are about to go, are labelled not to get traffic, or are another cloud's. Nodes that are not ready stay: health checks know better, and
// kube-proxy may work on a node whose kubelet does not.
func Eligible(nodes []*v1.Node, scope, selector labels.Selector) []*v1.Node {
	return slices.DeleteFunc(selected(nodes, scope, selector), isForeign)
}

// ForeignNodes names the nodes that would be members if they were not another cloud's.
func ForeignNodes(nodes []*v1.Node, scope, selector labels.Selector) []string {
	var names []string
	for _, node := range selected(nodes, scope, selector) {
		if isForeign(node) {
			names = append(names, node.Name)
		}
	}
	slices.Sort(names)
	return names
}

// isForeign says whether a node's provider ID is another cloud's. One without a provider ID may get UpCloud's.
func isForeign(node *v1.Node) bool {
	_, err := providerid.Parse(node.Spec.ProviderID)
	var foreign *providerid.ForeignError
	return errors.As(err, &foreign)
}

func selected(nodes []*v1.Node, scope, selector labels.Selector) []*v1.Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(node *v1.Node) bool {
		set := labels.Set(node.Labels)
		leaving := slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool { return t.Key == taintToBeDeleted })
		return isExcluded(node) || leaving || node.DeletionTimestamp != nil ||
			scope != nil && !scope.Matches(set) || selector != nil && !selector.Matches(set)
	})
}

// isExcluded says whether a node's label leaves it out. Any value does, but for one that says false, as with the service controller.
func isExcluded(node *v1.Node) bool {
	value, labelled := node.Labels[v1.LabelNodeExcludeBalancers]
	excluded, err := strconv.ParseBool(value)
	return labelled && (excluded || err != nil)
}

// isReady says whether a node is; one that tells nothing of it counts as ready.
func isReady(node *v1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return true
}
