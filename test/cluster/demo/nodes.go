package demo

import (
	"context"
	"fmt"
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

func (d *demo) nodeSteps() []step {
	return []step{
		{name: "every Node starts uninitialized: tainted, without addresses", limit: 30 * time.Second, check: d.uninitialized},
		{name: "the shipped manifests are applied", limit: time.Minute,
			do:    func(ctx context.Context) error { return Install(ctx, d.Status, d.Overlay) },
			check: func(context.Context) (string, error) { return "", nil }},
		{name: "the CCM takes the taint off each Node and fills in addresses, zone, type and provider ID", limit: 2 * time.Minute, check: d.initialized},
		{name: "the CSI driver is registered on each Node", limit: 2 * time.Minute, check: d.driverRegistered},
	}
}

func (d *demo) nodes(ctx context.Context) ([]corev1.Node, error) {
	nodes, err := d.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	if len(nodes.Items) != d.Nodes {
		return nil, fmt.Errorf("there are %d Nodes, want %d", len(nodes.Items), d.Nodes)
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

func (d *demo) uninitialized(ctx context.Context) (string, error) {
	nodes, err := d.nodes(ctx)
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

func (d *demo) initialized(ctx context.Context) (string, error) {
	nodes, err := d.nodes(ctx)
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

func (d *demo) driverRegistered(ctx context.Context) (string, error) {
	nodes, err := d.nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, node := range nodes {
		csiNode, err := d.client.StorageV1().CSINodes().Get(ctx, node.Name, metav1.GetOptions{})
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

// gone is nil when the error says that the object does not exist.
func gone(what string, err error) error {
	if errors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is still there", what)
}
