// Package example makes Services for tests.
package example

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterUUID is the ID of a cluster of the managed service.
const ClusterUUID = "0d4f1e3b-8a5e-4a84-9b67-6a4d7a2f4c11"

// Service is default/web with a port for each text "NAME PORT NODEPORT".
func Service(ports ...string) *v1.Service {
	s := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "uid-1"},
		Spec:       v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyCluster},
	}
	for _, text := range ports {
		var port v1.ServicePort
		_, _ = fmt.Sscanf(text, "%s %d %d", &port.Name, &port.Port, &port.NodePort)
		port.Protocol = v1.ProtocolTCP
		s.Spec.Ports = append(s.Spec.Ports, port)
	}
	return s
}

// Annotated gives a Service annotations of load balancers, in pairs of a name without the prefix and a value.
func Annotated(s *v1.Service, pairs ...string) *v1.Service {
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	for i := 0; i < len(pairs); i += 2 {
		s.Annotations["service.beta.kubernetes.io/upcloud-load-balancer-"+pairs[i]] = pairs[i+1]
	}
	return s
}

// Lines joins lines into a text.
func Lines(all ...string) string { return strings.Join(all, "\n") }

// JSON is a value as it is in a golden file.
func JSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
