package instances

import (
	"context"
	"encoding/json"
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Labels of a Node, beside those that Kubernetes knows (zone, region, instance type).
const (
	LabelPlan        = "upcloud.com/plan"
	LabelServerGroup = "upcloud.com/server-group" // UUID
	// LabelHost is the number of the physical machine, the same for servers that fail together. A server may come up on
	// another after it was stopped; the label follows.
	LabelHost = "upcloud.com/host"
	// LabelServerDomain precedes what is left of a server label's key when Config.ServerLabelPrefix is cut off.
	LabelServerDomain = "label.upcloud.com/"
)

// AnnotationPrivateNetwork tells the private network of a Node's first internal address, as UpCloud's own CCM does.
const AnnotationPrivateNetwork = "infrastructure.cluster.x-k8s.io/upcloud-vm-private-nw-uuid"

// labels are those that the server gives its Node. What Kubernetes would refuse as a label is left out.
func (i *Instances) labels(server *cloud.Server) map[string]string {
	all := map[string]string{LabelPlan: server.Plan, LabelServerGroup: server.ServerGroup, LabelHost: server.Host}
	if prefix := i.config.ServerLabelPrefix; prefix != "" {
		for key, value := range server.Labels {
			if name, found := strings.CutPrefix(key, prefix); found {
				all[LabelServerDomain+name] = value
			}
		}
	}
	maps.DeleteFunc(all, func(key, value string) bool {
		ours := !strings.HasPrefix(key, LabelServerDomain)
		return ours && value == "" || len(validation.IsQualifiedName(key)) > 0 || len(validation.IsValidLabelValue(value)) > 0
	})
	return all
}

// keepUp writes into an initialized Node what has changed since: the node controller writes labels once only.
func (i *Instances) keepUp(ctx context.Context, node *v1.Node, server *cloud.Server, metadata *cloudprovider.InstanceMetadata) {
	if i.client == nil {
		return
	}
	labels := map[string]any{}
	for key, value := range metadata.AdditionalLabels {
		if have, ok := node.Labels[key]; !ok || have != value {
			labels[key] = value
		}
	}
	if i.config.ServerLabelPrefix != "" {
		for key := range node.Labels {
			if _, stays := metadata.AdditionalLabels[key]; !stays && strings.HasPrefix(key, LabelServerDomain) {
				labels[key] = nil
			}
		}
	}
	// A server's plan can be changed while it is stopped.
	for _, key := range []string{v1.LabelInstanceTypeStable, v1.LabelInstanceType} {
		if have, ok := node.Labels[key]; ok && have != server.Plan && len(validation.IsValidLabelValue(server.Plan)) == 0 {
			labels[key] = server.Plan
		}
	}
	annotations := map[string]any{}
	if network := i.privateNetwork(ctx, server, metadata); network != "" && node.Annotations[AnnotationPrivateNetwork] != network {
		annotations[AnnotationPrivateNetwork] = network
	}
	if len(labels)+len(annotations) == 0 {
		return
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
	if err == nil {
		_, err = i.client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "The Node's labels could not be brought up to date", "node", node.Name)
	}
}

// privateNetwork is that of the first internal address; none if it is not on a private network.
func (i *Instances) privateNetwork(ctx context.Context, server *cloud.Server, metadata *cloudprovider.InstanceMetadata) string {
	addresses, err := i.cloud.ServerAddresses(ctx, server.ID)
	if err != nil {
		return ""
	}
	for _, address := range metadata.NodeAddresses {
		if address.Type != v1.NodeInternalIP {
			continue
		}
		for _, own := range addresses {
			if own.Access == "private" && own.IP.Unmap().String() == address.Address {
				return own.NetworkID
			}
		}
		return ""
	}
	return ""
}
