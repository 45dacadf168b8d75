package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// ofThisCluster says whether labels prove that this cluster wrote them. Names prove nothing: most clusters are called kubernetes.
func (i Identity) ofThisCluster(labels cloud.Labels) bool {
	if uid := labels[settings.LabelClusterUID]; uid != "" {
		return uid == i.ClusterUID
	}
	return i.ClusterID != "" && labels[settings.LabelClusterID] == i.ClusterID
}

// leftBy is the namespace whose Service left a load balancer in the account, in this cluster; empty: nothing proves one.
func (i Identity) leftBy(lb *cloud.LoadBalancer) string {
	if !i.ofThisCluster(lb.Labels) {
		return ""
	}
	return namespaceOn(lb)
}

// namespaceOn is the namespace, of whichever cluster, whose Service labels say a load balancer was made for; empty: they say none.
func namespaceOn(lb *cloud.LoadBalancer) string {
	namespace, _, _ := strings.Cut(lb.Labels[settings.LabelRetainedFor], "/")
	if namespace == "" {
		namespace = lb.Labels[settings.LabelNamespace]
	}
	return namespace
}

// isClaimed says whether a load balancer says that it is a Service's.
func isClaimed(lb *cloud.LoadBalancer) bool {
	uid, there := lb.Labels[settings.LabelServiceUID]
	return uid != "" || !there && lb.Labels[settings.LabelGeneratedName] != ""
}

// WhyNotAdopt returns why a Service of a namespace may not take a load balancer as its own, as far as labels and the controller's entries
// tell; empty: it may. Whether the Service that the labels name exists is to be found out besides. tenants: entries are for the namespaces
// that they name alone.
//
// Any user of a namespace may write a Service with any UUID in it. So a load balancer is only had by those who had it before, which is
// those of the namespace that left it, by this program's own label; or by the word of whoever answers for the account.
func (i Identity) WhyNotAdopt(lb *cloud.LoadBalancer, entries []settings.Adoptable, namespace string, tenants bool) string {
	before := i.leftBy(lb)
	if before == namespace {
		return ""
	}
	foreign := isClaimed(lb) && !i.ofThisCluster(lb.Labels)
	another := namespaceOn(lb) != "" && namespaceOn(lb) != namespace
	meant, byLabel := false, false
	for _, entry := range entries {
		named := entry.NamesNamespace(namespace)
		switch {
		case !entry.Means(lb), !named && len(entry.Namespaces) > 0:
			continue
		case !named && (tenants || before != ""): // what another namespace left is for those alone who are named
			continue
		case another && entry.Label != "": // it is about what each of its namespaces had: one does not get what another had
			byLabel = true
			continue
		case foreign && !entry.EndsClaims(lb):
			meant = true
			continue
		}
		return ""
	}
	if byLabel {
		return fmt.Sprintf("its labels say that namespace %s had it, and an entry of adoptableLoadBalancers with a label gives no namespace what another had: name the "+
			"load balancer's UUID, and namespace %s, in an entry of its own", namespaceOn(lb), namespace)
	}
	if meant {
		return fmt.Sprintf("it carries the labels of a Service of another cluster (%s), which may have it still: if that is gone, name the load balancer's UUID, "+
			"or the label %s or %s, in adoptableLoadBalancers of the controller's configuration", i.clusterOf(lb.Labels), settings.LabelClusterUID,
			settings.LabelClusterID)
	}
	return fmt.Sprintf("it was not retained for a Service of namespace %s of this cluster, and the controller's configuration does not allow it: ask the cluster's "+
		"operator for an entry {loadBalancer: %s, namespaces: [%s]} in adoptableLoadBalancers", namespace, lb.ID, namespace)
}

// clusterOf names the cluster that labels are of.
func (i Identity) clusterOf(labels cloud.Labels) string {
	for _, key := range []string{settings.LabelClusterID, settings.LabelClusterUID, settings.LabelClusterName} {
		if value := labels[key]; value != "" {
			return key + "=" + value
		}
	}
	return "without a name"
}

// Adopted are the changes of labels, in their order, that make a load balancer the Service's. Diff does the rest. An interrupted adoption is
// taken up again: what allows it, which may be the label of the former cluster, goes after the proof is there.
//
// owner is the Service's namespace and name: once the labels of the former cluster begin to go, what says that it was left for the Service
// allows the rest.
func (i Identity) Adopted(have cloud.Labels, owner string) []Change {
	want := []Change{{Name: settings.LabelRetainedFor, CreateLabel: &owner}, {Name: settings.LabelServiceUID, CreateLabel: &i.ServiceUID}}
	if i.ClusterUID != "" {
		want = append(want, Change{Name: settings.LabelClusterUID, CreateLabel: &i.ClusterUID})
	}
	if i.ClusterID != "" {
		want = append(want, Change{Name: settings.LabelClusterID, CreateLabel: &i.ClusterID})
	} else {
		want = append(want, Change{Name: settings.LabelClusterID, DeleteLabel: true})
	}
	var changes []Change
	for _, change := range want {
		value, there := have[change.Name]
		switch {
		case change.DeleteLabel && !there, change.CreateLabel != nil && there && value == *change.CreateLabel:
			continue
		case change.CreateLabel != nil && there:
			change = Change{Name: change.Name, ModifyLabel: change.CreateLabel}
		}
		changes = append(changes, change)
	}
	return changes
}

// Names says whether a load balancer of the Service may have a name without having been given it.
func (i Identity) Names(name string) bool {
	return slices.Contains([]string{i.Name, i.plainName, i.LegacyName, NamedLike(i.Name, i.ServiceUID)}, name)
}
