package plan

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Identity is what makes a load balancer a certain Service's.
type Identity struct {
	ServiceUID             string
	ClusterID, ClusterName string
	ClusterUID             string // of the namespace kube-system; empty while it is not known
	Namespace              string // of the Service; empty where the cluster has no tenants
	Name                   string // of the load balancer
	LegacyName             string // the same as UpCloud's own CCM makes it: differs where names are long
	legacyWhole            bool   // the legacy name has the whole names of cluster, namespace and Service
	plainName              string // Name without the cluster's UID
	// Generated is the generated name that the load balancer's label has, once there is one.
	Generated string
}

// NewIdentity returns a Service's identity in a cluster. clusterID may be empty.
func NewIdentity(clusterID, clusterName string, service *v1.Service) Identity {
	prefix := clusterID
	if prefix == "" {
		prefix = clusterName
	}
	legacy := legacyName(prefix, service.Namespace, service.Name)
	whole := strings.TrimPrefix(prefix+"-"+service.Namespace+"-"+service.Name, "-")
	return Identity{
		ServiceUID: string(service.UID), ClusterID: clusterID, ClusterName: clusterName,
		Name: uniqueName(whole, legacy), plainName: uniqueName(whole, legacy), LegacyName: legacy, legacyWhole: legacy == whole,
	}
}

// InCluster returns the identity in the cluster of that UID. Names of load balancers are unique in an account. Without an ID, the cluster's
// name begins them, which is kubernetes for most: then they end in a digest that the UID is part of. Load balancers that were made before
// keep their names.
func (i Identity) InCluster(uid string) Identity {
	i.ClusterUID = uid
	if uid != "" && i.ClusterID == "" {
		i.Name = NamedLike(i.plainName, uid+"/"+i.plainName)
	}
	return i
}

// legacyName cuts namespace and name to what 64 characters leave of them, so that the load balancers of two Services
// whose names begin alike want the same name.
func legacyName(prefix, namespace, name string) string {
	const uuidLength = 36
	var head string
	switch {
	case prefix == "":
		head = settings.Cut(namespace, 31) + "-"
	case len(prefix) < uuidLength:
		head = prefix + "-" + settings.Cut(namespace, (settings.MaxName-len(prefix)-2)/2) + "-"
	default:
		head = prefix[:uuidLength] + "-" + settings.Cut(namespace, 13) + "-"
	}
	return head + settings.Cut(name, settings.MaxName-len(head))
}

// uniqueName is the legacy name where that says all, and else ends in a digest of what was cut off.
func uniqueName(whole, legacy string) string {
	if legacy == whole && settings.ValidName(whole) {
		return legacy
	}
	digest := settings.ShortDigest(whole)
	return settings.Cut(settings.SanitizeName(legacy), settings.MaxName-1-len(digest)) + "-" + digest
}

// Owns says whether the labels of a load balancer prove that it is this Service's: by the Service's UID, or, if no
// Service is named there, by the whole names of this cluster, namespace and Service, as UpCloud's own CCM writes them. That CCM cuts long
// names: the same text may then stand for several Services, and proves nothing by itself (see OwnsNamed).
//
// What another cluster's ID or UID is on is not this Service's, even with its UID: a cluster that is restored from a copy of another's etcd
// has the same Services, with the same UIDs.
func (i Identity) Owns(lb *cloud.LoadBalancer) bool {
	if uid, ok := lb.Labels[settings.LabelServiceUID]; ok {
		return uid != "" && uid == i.ServiceUID && !i.OtherCluster(lb.Labels)
	}
	return i.IsGenerated(lb) && (i.legacyWhole || lb.Labels[settings.LabelGeneratedName] != i.LegacyName)
}

// OwnsNamed is Owns for a load balancer that the Service's own annotation names: with that, a name that was cut is a proof, too.
func (i Identity) OwnsNamed(lb *cloud.LoadBalancer) bool {
	if _, ok := lb.Labels[settings.LabelServiceUID]; ok {
		return i.Owns(lb)
	}
	return i.IsGenerated(lb)
}

// OtherCluster says whether labels have the ID, or the UID, of another cluster than this one.
func (i Identity) OtherCluster(labels cloud.Labels) bool { return i.WhichOther(labels) != "" }

// WhichOther says in words which other cluster labels name, and by what it differs from this one; empty: they name no other.
func (i Identity) WhichOther(labels cloud.Labels) string {
	for _, one := range []struct{ what, own, key string }{
		{"ID", i.ClusterID, settings.LabelClusterID}, {"UID", i.ClusterUID, settings.LabelClusterUID},
	} {
		if other := labels[one.key]; other != "" && one.own != "" && other != one.own {
			return fmt.Sprintf("the cluster with %s %s, and this one has %s", one.what, other, one.own)
		}
	}
	return ""
}

// IsGenerated says whether a load balancer has the labels that UpCloud's own CCM gives to this Service's. It may give the same to others'.
func (i Identity) IsGenerated(lb *cloud.LoadBalancer) bool {
	generated := lb.Labels[settings.LabelGeneratedName]
	if generated == "" || !slices.Contains([]string{i.LegacyName, i.plainName, i.Name}, generated) || i.OtherCluster(lb.Labels) {
		return false
	}
	if i.ClusterID != "" {
		return lb.Labels[settings.LabelClusterID] == i.ClusterID
	}
	return lb.Labels[settings.LabelClusterID] == "" && i.ClusterName != "" && lb.Labels[settings.LabelClusterName] == i.ClusterName
}

// Of returns the identity with what the load balancer's labels say of it.
func (i Identity) Of(lb *cloud.LoadBalancer) Identity {
	i.Generated = lb.Labels[settings.LabelGeneratedName]
	return i
}

// labels are those that the load balancer shall have.
func (i Identity) labels(service *v1.Service) cloud.Labels {
	labels := cloud.Labels{
		settings.LabelClusterName:   i.ClusterName,
		settings.LabelGeneratedName: i.Name,
		settings.LabelTrafficPolicy: strings.ToLower(string(service.Spec.ExternalTrafficPolicy)),
		settings.LabelServiceUID:    i.ServiceUID,
	}
	if i.ClusterID != "" {
		labels[settings.LabelClusterID] = i.ClusterID
	}
	if i.ClusterUID != "" {
		labels[settings.LabelClusterUID] = i.ClusterUID
	}
	if i.Namespace != "" {
		labels[settings.LabelNamespace] = i.Namespace
	}
	return labels
}

// OfNamespace says whether labels are those of something made for a Service of this one's namespace, in this cluster.
func (i Identity) OfNamespace(labels cloud.Labels) bool {
	if i.Namespace == "" || labels[settings.LabelNamespace] != i.Namespace {
		return false
	}
	if uid := labels[settings.LabelClusterUID]; uid != "" && i.ClusterUID != "" {
		return uid == i.ClusterUID
	}
	if id := labels[settings.LabelClusterID]; id != "" || i.ClusterID != "" {
		return id == i.ClusterID || id == "" && labels[settings.LabelClusterName] == i.ClusterName
	}
	return labels[settings.LabelClusterName] == i.ClusterName
}
