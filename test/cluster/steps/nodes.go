package steps

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
	driverName    = "storage.csi.upcloud.com"
)

// Install are the steps from a bare cluster to one with the shipped manifests applied and both programs at work.
func (r *Runner) Install() []Step {
	return []Step{
		{Name: "every Node starts uninitialized: tainted, without addresses", Limit: 30 * time.Second, Check: r.uninitialized},
		{Name: "the shipped manifests are applied", Limit: time.Minute, Do: r.Apply},
		{Name: "the CCM takes the taint off each Node and fills in addresses, zone, type and provider ID", Limit: 2 * time.Minute,
			Check: r.initialized},
		{Name: "the CSI driver is registered on each Node", Limit: 2 * time.Minute, Check: r.driverRegistered},
	}
}

// Apply applies the shipped manifests: first what every cluster needs for snapshots, then the project's own.
func (r *Runner) Apply(ctx context.Context) error {
	overlay := filepath.Join(r.Project, "test", "cluster", "overlay")
	if _, err := r.Kubectl(ctx, nil, "apply", "-k", filepath.Join(overlay, "snapshot-controller")); err != nil {
		return err
	}
	if _, err := r.Kubectl(ctx, nil, "wait", "--for=condition=Established", "--timeout=30s", "crd",
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

func tainted(node corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Key == uninitialized {
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
		if !tainted(node) {
			return "", fmt.Errorf("Node %s has no taint %s", node.Name, uninitialized)
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
		if tainted(node) {
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
		registered := false
		for _, driver := range csiNode.Spec.Drivers {
			// The node ID must be the server's UUID, as the provider ID has it.
			registered = registered || driver.Name == driverName && strings.HasSuffix(node.Spec.ProviderID, "/"+driver.NodeID)
		}
		if !registered {
			return "", fmt.Errorf("%s is not registered on Node %s under its server's UUID", driverName, node.Name)
		}
	}
	return "", nil
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
