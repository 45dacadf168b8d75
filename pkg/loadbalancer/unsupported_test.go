package loadbalancer

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestProblems(t *testing.T) {
	for _, test := range []struct {
		name   string
		spoil  func(s *v1.Service)
		reason string
		says   []string
	}{
		{name: "nothing wrong", spoil: func(*v1.Service) {}},
		{name: "protocol left out", spoil: func(s *v1.Service) { s.Spec.Ports[0].Protocol = "" }},
		{
			name: "UDP", spoil: func(s *v1.Service) { s.Spec.Ports[0].Protocol = v1.ProtocolUDP },
			reason: "UnsupportedProtocol", says: []string{"80/UDP", "http", "TCP only"},
		},
		{
			name: "SCTP", spoil: func(s *v1.Service) { s.Spec.Ports[0].Protocol = v1.ProtocolSCTP },
			reason: "UnsupportedProtocol", says: []string{"80/SCTP"},
		},
		{
			name: "source ranges", spoil: func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"} },
			reason: "UnsupportedSourceRanges", says: []string{"10.0.0.0/8"},
		},
		{
			name: "source ranges in the annotation", spoil: func(s *v1.Service) {
				s.Annotations = map[string]string{v1.AnnotationLoadBalancerSourceRangesKey: "10.0.0.0/8"}
			},
			reason: "UnsupportedSourceRanges", says: []string{"10.0.0.0/8", v1.AnnotationLoadBalancerSourceRangesKey},
		},
		{name: "an annotation with no source ranges", spoil: func(s *v1.Service) {
			s.Annotations = map[string]string{v1.AnnotationLoadBalancerSourceRangesKey: " "}
		}},
		{
			name: "no node ports", spoil: func(s *v1.Service) { s.Spec.Ports[0].NodePort = 0 },
			reason: "NodePortMissing", says: []string{"allocateLoadBalancerNodePorts"},
		},
		{
			name: "address", spoil: func(s *v1.Service) { s.Spec.LoadBalancerIP = "94.237.0.1" },
			reason: "UnsupportedLoadBalancerIP", says: []string{"94.237.0.1"},
		},
		{
			name: "IPv6 only", spoil: func(s *v1.Service) { s.Spec.IPFamilies = []v1.IPFamily{v1.IPv6Protocol} },
			reason: "UnsupportedIPFamily", says: []string{"IPv6"},
		},
		{
			name:   "configuration that would crash UpCloud's own CCM",
			spoil:  func(s *v1.Service) { s.Annotations = map[string]string{AnnotationConfig: "null"} },
			reason: "UnsupportedAnnotation", says: []string{AnnotationConfig},
		},
		{
			name:   "node selector",
			spoil:  func(s *v1.Service) { s.Annotations = map[string]string{AnnotationNodeSelector: "{"} },
			reason: "UnsupportedAnnotation", says: []string{AnnotationNodeSelector},
		},
		{name: "no ports", spoil: func(s *v1.Service) { s.Spec.Ports = nil }, reason: "NoPorts"},
		{
			name: "long name", spoil: func(s *v1.Service) { s.Spec.Ports[0].Name = strings.Repeat("p", 65) },
			reason: "InvalidPortName", says: []string{"64"},
		},
	} {
		s := service("http 80 30080")
		test.spoil(s)
		problems := Problems(s)
		if test.reason == "" {
			if len(problems) > 0 {
				t.Errorf("%s: %v", test.name, problems)
			}
			continue
		}
		if len(problems) != 1 || problems[0].Reason != test.reason {
			t.Errorf("%s: %v, want %s", test.name, problems, test.reason)
			continue
		}
		for _, text := range test.says {
			if !strings.Contains(problems[0].Message, text) {
				t.Errorf("%s: %q does not say %s", test.name, problems[0].Message, text)
			}
		}
	}
}
