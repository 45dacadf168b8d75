package loadbalancer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// maxName is how long the name of a load balancer may be.
const maxName = 64

// Identity is what makes a load balancer a certain Service's.
type Identity struct {
	ServiceUID             string
	ClusterID, ClusterName string
	Name                   string // of the load balancer
	LegacyName             string // the same as UpCloud's own CCM makes it: differs where names are long
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
	return Identity{
		ServiceUID: string(service.UID), ClusterID: clusterID, ClusterName: clusterName,
		Name: uniqueName(prefix, service.Namespace, service.Name, legacy), LegacyName: legacy,
	}
}

// legacyName cuts namespace and name to what 64 characters leave of them, so that the load balancers of two Services
// whose names begin alike want the same name.
func legacyName(prefix, namespace, name string) string {
	const uuidLength = 36
	var head string
	switch {
	case prefix == "":
		head = cut(namespace, 31) + "-"
	case len(prefix) < uuidLength:
		head = prefix + "-" + cut(namespace, (maxName-len(prefix)-2)/2) + "-"
	default:
		head = prefix[:uuidLength] + "-" + cut(namespace, 13) + "-"
	}
	return head + cut(name, maxName-len(head))
}

// uniqueName is the legacy name where that says all, and else ends in a digest of what was cut off.
func uniqueName(prefix, namespace, name, legacy string) string {
	whole := strings.TrimPrefix(prefix+"-"+namespace+"-"+name, "-")
	if legacy == whole && validName(whole) {
		return legacy
	}
	digest := shortDigest(whole)
	return cut(sanitizeName(legacy), maxName-1-len(digest)) + "-" + digest
}

// validName says whether the API takes a name: ^[a-zA-Z0-9_-]{1,64}$.
func validName(name string) bool {
	return name != "" && len(name) <= maxName && sanitizeName(name) == name
}

func sanitizeName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, name)
}

// shortDigest is eight hexadecimal digits that stand for a longer text.
func shortDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

func cut(text string, length int) string { return text[:max(0, min(len(text), length))] }

// Owns says whether the labels of a load balancer prove that it is this Service's: by the Service's UID, or, if no
// Service is named there, by what UpCloud's own CCM writes for a Service of this cluster, namespace and name.
func (i Identity) Owns(lb *cloud.LoadBalancer) bool {
	if uid, ok := lb.Labels[LabelServiceUID]; ok {
		return uid != "" && uid == i.ServiceUID
	}
	generated := lb.Labels[LabelGeneratedName]
	if generated == "" || (generated != i.LegacyName && generated != i.Name) {
		return false
	}
	if i.ClusterID != "" {
		return lb.Labels[LabelClusterID] == i.ClusterID
	}
	return lb.Labels[LabelClusterID] == "" && i.ClusterName != "" && lb.Labels[LabelClusterName] == i.ClusterName
}

// of returns the identity with what the load balancer's labels say of it.
func (i Identity) of(lb *cloud.LoadBalancer) Identity {
	i.Generated = lb.Labels[LabelGeneratedName]
	return i
}

// labels are those that the load balancer shall have.
func (i Identity) labels(service *v1.Service) cloud.Labels {
	labels := cloud.Labels{
		LabelClusterName:   i.ClusterName,
		LabelGeneratedName: i.Name,
		LabelTrafficPolicy: strings.ToLower(string(service.Spec.ExternalTrafficPolicy)),
		LabelServiceUID:    i.ServiceUID,
	}
	if i.ClusterID != "" {
		labels[LabelClusterID] = i.ClusterID
	}
	return labels
}

// portName is the name of a Service port's frontend and backend, as UpCloud's own CCM makes it.
func portName(port v1.ServicePort) string {
	if port.Name == "" {
		return fmt.Sprintf("config_%d", port.Port)
	}
	return port.Name
}
