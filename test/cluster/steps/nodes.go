package steps

import (
	"context"
	stderrors "errors"
	"fmt"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
	driverName    = "storage.csi.upcloud.com"
	agentNotReady = driverName + "/agent-not-ready"
)

// Install are the steps from a bare cluster to one with the shipped manifests applied and both programs at work.
func (r *Runner) Install() []Step {
	var early error // a Node that lost its startup taint too soon
	watched := func(check func(context.Context) (string, error)) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			early = stderrors.Join(early, r.openedEarly(ctx))
			return check(ctx)
		}
	}
	return []Step{
		{Name: "every Node starts uninitialized: tainted, without addresses", Check: r.uninitialized},
		{Name: "the shipped manifests are applied", Do: r.Apply},
		{Name: "the CCM takes the taint off each Node and fills in addresses, zone, type and provider ID",
			Check: watched(r.initialized)},
		{Name: "the CSI driver is registered on each Node", Check: watched(r.driverRegistered)},
		{Name: "the startup taint is off each Node, and was on it until the driver was registered",
			Check: watched(func(ctx context.Context) (string, error) {
				if early != nil {
					return "", early
				}
				return r.open(ctx)
			})},
	}
}

// openedEarly is an error if a Node has no startup taint although the driver is not registered there.
func (r *Runner) openedEarly(ctx context.Context) error {
	nodes, err := r.nodes(ctx)
	if err != nil {
		return nil //nolint:nilerr // the check itself tells
	}
	for _, node := range nodes {
		if tainted(node, agentNotReady) {
			continue
		}
		csiNode, err := r.Client.StorageV1().CSINodes().Get(ctx, node.Name, metav1.GetOptions{}) // later than the Node
		if err != nil && !errors.IsNotFound(err) {
			return nil //nolint:nilerr // as above
		}
		if err != nil || !registered(node, csiNode) {
			return fmt.Errorf("Node %s lost its taint %s before the driver was registered", node.Name, agentNotReady)
		}
	}
	return nil
}

func (r *Runner) open(ctx context.Context) (string, error) {
	nodes, err := r.nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, node := range nodes {
		if tainted(node, agentNotReady) {
			return "", fmt.Errorf("Node %s still has the taint %s", node.Name, agentNotReady)
		}
	}
	return "", nil
}

// Apply applies the shipped manifests: first what every cluster needs for snapshots, then the project's own.
func (r *Runner) Apply(ctx context.Context) error {
	overlay := filepath.Join(r.Project, "test", "cluster", "overlay")
	if _, err := r.Kubectl(ctx, nil, "apply", "-k", filepath.Join(overlay, "snapshot-controller")); err != nil {
		return err
	}
	if _, err := r.Kubectl(ctx, nil, "wait", "--for=condition=Established", "--timeout=5m", "crd",
		"volumesnapshotclasses.snapshot.storage.k8s.io", "volumesnapshots.snapshot.storage.k8s.io",
		"volumesnapshotcontents.snapshot.storage.k8s.io"); err != nil {
		return err
	}
	_, err := r.Kubectl(ctx, nil, "apply", "-k", overlay)
	return err
}

func (r *Runner) nodes(ctx context.Context) ([]corev1.Node, error) {
	nodes, err := r.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	if len(nodes.Items) != r.Nodes {
		return nil, fmt.Errorf("there are %d Nodes, want %d", len(nodes.Items), r.Nodes)
	}
	return nodes.Items, nil
}

func tainted(node corev1.Node, key string) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Key == key {
			return true
		}
	}
	return false
}

func (r *Runner) uninitialized(ctx context.Context) (string, error) {
	nodes, err := r.nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, node := range nodes {
		for _, key := range []string{uninitialized, agentNotReady} {
			if !tainted(node, key) {
				return "", fmt.Errorf("Node %s has no taint %s", node.Name, key)
			}
		}
		for _, address := range node.Status.Addresses {
			if address.Type != corev1.NodeHostName {
				return "", fmt.Errorf("Node %s has address %s before the CCM runs", node.Name, address.Address)
			}
		}
	}
	return "", nil
}

func (r *Runner) initialized(ctx context.Context) (string, error) {
	nodes, err := r.nodes(ctx)
	if err != nil {
		return "", err
	}
	var seen []string
	for _, node := range nodes {
		if tainted(node, uninitialized) {
			return "", fmt.Errorf("Node %s still has the taint %s", node.Name, uninitialized)
		}
		addresses := map[corev1.NodeAddressType]string{}
		for _, address := range node.Status.Addresses {
			addresses[address.Type] = address.Address
		}
		facts := []string{node.Spec.ProviderID, addresses[corev1.NodeInternalIP], addresses[corev1.NodeExternalIP],
			node.Labels[corev1.LabelTopologyZone], node.Labels[corev1.LabelTopologyRegion], node.Labels[corev1.LabelInstanceTypeStable]}
		for _, fact := range facts {
			if fact == "" {
				return "", fmt.Errorf("Node %s lacks one of provider ID, internal and external address, zone, region, type: %q", node.Name, facts)
			}
		}
		seen = append(seen, node.Name+"  "+strings.Join(facts, "  "))
	}
	return strings.Join(seen, "\n"), nil
}

func (r *Runner) driverRegistered(ctx context.Context) (string, error) {
	nodes, err := r.nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, node := range nodes {
		csiNode, err := r.Client.StorageV1().CSINodes().Get(ctx, node.Name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		if !registered(node, csiNode) {
			return "", fmt.Errorf("%s is not registered on Node %s under its server's UUID", driverName, node.Name)
		}
	}
	return "", nil
}

// registered tells whether the driver is registered on the Node. The node ID must be the server's UUID, as the provider ID
// has it, unless the Node has none yet.
func registered(node corev1.Node, csiNode *storagev1.CSINode) bool {
	for _, driver := range csiNode.Spec.Drivers {
		if driver.Name == driverName && (node.Spec.ProviderID == "" || strings.HasSuffix(node.Spec.ProviderID, "/"+driver.NodeID)) {
			return true
		}
	}
	return false
}

// Gone is nil when the error says that the object does not exist.
func Gone(what string, err error) error {
	if errors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is still there", what)
}
