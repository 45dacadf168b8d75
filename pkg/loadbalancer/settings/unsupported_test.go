package settings

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
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
		{name: "source ranges", spoil: func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"} }},
		{
			name: "source ranges that are none", spoil: func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0"} },
			reason: "UnsupportedSourceRanges", says: []string{"10.0.0.0", "203.0.113.0/24"},
		},
		{
			name: "more source ranges than a rule holds", spoil: func(s *v1.Service) {
				for i := range 41 {
					s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, fmt.Sprintf("10.%d.0.0/24", 2*i))
				}
			},
			reason: "UnsupportedSourceRanges", says: []string{"41", "40"},
		},
		{name: "source ranges of IPv6 beside as many of IPv4 as a rule holds", spoil: func(s *v1.Service) {
			for i := range 40 {
				s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, fmt.Sprintf("10.%d.0.0/24", 2*i),
					fmt.Sprintf("2001:db8:%d::/48", 2*i))
			}
		}},
		{
			name: "source ranges in the annotation", spoil: func(s *v1.Service) {
				s.Annotations = map[string]string{v1.AnnotationLoadBalancerSourceRangesKey: "10.0.0.0/8,x"}
			},
			reason: "UnsupportedSourceRanges", says: []string{`"x"`, v1.AnnotationLoadBalancerSourceRangesKey},
		},
		{name: "an annotation with no source ranges", spoil: func(s *v1.Service) {
			s.Annotations = map[string]string{v1.AnnotationLoadBalancerSourceRangesKey: " "}
		}},
		{
			name: "no node ports", spoil: func(s *v1.Service) { s.Spec.Ports[0].NodePort = 0 },
			reason: "NodePortMissing", says: []string{"allocateLoadBalancerNodePorts"},
		},
		{
			name: "address", spoil: func(s *v1.Service) { s.Spec.LoadBalancerIP = "2001:db8::1" },
			reason: "UnsupportedLoadBalancerIP", says: []string{"2001:db8::1"},
		},
		{
			name: "IPv6 only", spoil: func(s *v1.Service) { s.Spec.IPFamilies = []v1.IPFamily{v1.IPv6Protocol} },
			reason: "UnsupportedIPFamily", says: []string{"IPv6"},
		},
		{
			name: "dual stack or nothing", spoil: func(s *v1.Service) { s.Spec.IPFamilyPolicy = new(v1.IPFamilyPolicyRequireDualStack) },
			reason: "UnsupportedIPFamily", says: []string{"PreferDualStack"},
		},
		{name: "dual stack if it can be", spoil: func(s *v1.Service) {
			s.Spec.IPFamilies = []v1.IPFamily{v1.IPv6Protocol, v1.IPv4Protocol}
			s.Spec.IPFamilyPolicy = new(v1.IPFamilyPolicyPreferDualStack)
		}},
		{
			name: "Local without a port to ask at", spoil: func(s *v1.Service) { s.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicyLocal },
			reason: "HealthCheckNodePortMissing", says: []string{"healthCheckNodePort"},
		},
		{name: "no ports", spoil: func(s *v1.Service) { s.Spec.Ports = nil }, reason: "NoPorts"},
		{
			name: "long name", spoil: func(s *v1.Service) { s.Spec.Ports[0].Name = strings.Repeat("p", 65) },
			reason: "InvalidPortName", says: []string{"64"},
		},
	} {
		s := example.Service("http 80 30080")
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

// Networks of IPv6 match no client, and take no room; where there are no others, one stays, and keeps all out.
func TestSourceRangesOfIPv6(t *testing.T) {
	for given, want := range map[string]string{
		"10.0.0.0/8,2001:db8::/32": "[10.0.0.0/8]", "2001:db8:1::/48,2001:db8:9::/48": "[2001:db8:1::/48]", "::/0": "[::/0]", "0.0.0.0/0,::/0": "[]",
	} {
		s := &v1.Service{}
		s.Spec.LoadBalancerSourceRanges = strings.Split(given, ",")
		if got, err := SourceRanges(s); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v, want %s", given, got, err, want)
		}
	}
}
