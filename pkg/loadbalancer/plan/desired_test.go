package plan

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

var update = flag.Bool("update", false, "write what is seen into testdata instead of comparing")

// The request that makes a load balancer, whole.
func TestCreateGolden(t *testing.T) {
	local := example.Service("http 80 30080", "https 443 30443")
	local.Spec.ExternalTrafficPolicy, local.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 32000
	unnamed := example.Service(" 5432 30432")
	unnamed.Spec.Ports[0].Name, unnamed.Spec.Ports[0].Port, unnamed.Spec.Ports[0].NodePort = "", 5432, 30432
	for name, desired := range map[string]Desired{
		"cluster": desired(example.Service("http 80 30080"), "n1", "n2"),
		"local":   desired(local, "n1"),
		"unnamed": desired(unnamed),
	} {
		lb := desired.Create(placeOfTests(), "development", 1000)
		got, path := example.JSON(t, lb)+"\n", "testdata/create-"+name+".json"
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestPortsWithProblemsAreLeftOut(t *testing.T) {
	s := example.Service("dns 53 30053", "dns-tcp 54 30054", "none 55 0")
	s.Spec.Ports[0].Protocol = v1.ProtocolUDP
	if diff := cmp.Diff([]string{"dns-tcp"}, portNames(desired(s, "n1"))); diff != "" {
		t.Error(diff)
	}
}
