package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Adoptable says which load balancers Services may take as their own with the annotation adopt. It is an entry of the controller's
// configuration: whoever writes it answers for the account, which those who write Services do not.
type Adoptable struct {
	// LoadBalancer is a UUID or an exact name.
	LoadBalancer string `json:"loadBalancer,omitempty"`
	// Label is KEY=VALUE, a label that they have.
	Label string `json:"label,omitempty"`
	// Namespaces of the Services; empty: all.
	Namespaces []string `json:"namespaces,omitempty"`
}

// Validate names the mistakes in an entry.
func (a Adoptable) Validate() error {
	var faults []error
	if (a.LoadBalancer == "") == (a.Label == "") {
		faults = append(faults, errors.New("want one of loadBalancer and label"))
	}
	if a.LoadBalancer != "" && !a.byID() && !ValidName(a.LoadBalancer) {
		faults = append(faults, fmt.Errorf("loadBalancer is %q: want the UUID or the exact name of a load balancer", a.LoadBalancer))
	}
	if key, _, found := strings.Cut(a.Label, "="); a.Label != "" && (!found || key == "") {
		faults = append(faults, fmt.Errorf("label is %q: want KEY=VALUE, such as %s=UID", a.Label, LabelClusterUID))
	}
	for _, namespace := range a.Namespaces {
		if len(validation.IsDNS1123Label(namespace)) > 0 {
			faults = append(faults, fmt.Errorf("namespaces has %q: want the name of a namespace", namespace))
		}
	}
	return errors.Join(faults...)
}

func (a Adoptable) byID() bool {
	return len(a.LoadBalancer) == 36 && uuid.Validate(a.LoadBalancer) == nil
}

// Means says whether the entry is about a load balancer.
func (a Adoptable) Means(lb *cloud.LoadBalancer) bool {
	if a.Label != "" {
		key, value, _ := strings.Cut(a.Label, "=")
		have, there := lb.Labels[key]
		return there && have == value
	}
	return a.byID() && strings.EqualFold(a.LoadBalancer, lb.ID) || a.LoadBalancer == lb.Name
}

// NamesNamespace says whether the entry is for the Services of a namespace by its name.
func (a Adoptable) NamesNamespace(namespace string) bool {
	return slices.Contains(a.Namespaces, namespace)
}

// EndsClaims says whether the entry is about a load balancer that carries the labels of another cluster, too: it has its UUID, or the ID
// or the UID of that cluster. Names and other labels are within the reach of those who write that cluster's Services.
func (a Adoptable) EndsClaims(lb *cloud.LoadBalancer) bool {
	if key, _, _ := strings.Cut(a.Label, "="); key == LabelClusterUID || key == LabelClusterID {
		return a.Means(lb)
	}
	return a.byID() && strings.EqualFold(a.LoadBalancer, lb.ID)
}
