package plan

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

// One file for each feature: a Service, and beside it what becomes of it: the request that makes its load balancer, the calls that
// give the feature to a load balancer without it, and those that take it back.
func TestFeatures(t *testing.T) {
	files, err := filepath.Glob("../testdata/features/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &v1.Service{}
			if err := yaml.UnmarshalStrict(text, s); err != nil {
				t.Fatal(err)
			}
			s.Namespace, s.Name, s.UID = "default", "web", "uid-1"
			got, golden := feature(t, s), strings.TrimSuffix(file, ".yaml")+".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// feature is what the golden file of a Service has.
func feature(t *testing.T, s *v1.Service) string {
	t.Helper()
	asked, problems := settings.Parse(s)
	var out strings.Builder
	for _, problem := range append(settings.Problems(s), problems...) {
		fmt.Fprintf(&out, "%s: %s\n", problem.Reason, problem.Message)
	}
	if out.Len() > 0 {
		return out.String()
	}
	for _, remark := range settings.Remarks(s, asked) {
		fmt.Fprintf(&out, "%s: %s\n", remark.Reason, remark.Message)
	}
	plain := s.DeepCopy()
	plain.Annotations, plain.Spec.LoadBalancerSourceRanges, plain.Spec.LoadBalancerIP = nil, nil, ""
	plain.Spec.ExternalTrafficPolicy, plain.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyCluster, 0
	with, without := wants(t, s), wants(t, plain)

	place := placeOfTests()
	place.Networks = PlanNetworks(asked, "03b5e42a-339e-4466-999a-03021a0219e1")
	fmt.Fprintf(&out, "create %s\n\n", example.JSON(t, with.Create(place, "development", 1000)))
	for _, step := range []struct {
		name     string
		from, to Desired
	}{{"to it", without, with}, {"from it", with, without}} {
		fmt.Fprintf(&out, "%s:\n", step.name)
		lb := made(t, step.from)
		limits := SessionLimits{Fresh: 1000}
		changes := Diff(step.to, lb, limits)
		for _, change := range changes {
			if !strings.Contains(change.String(), "label "+settings.LabelComponents) {
				fmt.Fprintf(&out, "  %s\n", change)
			}
			carryOut(t, lb, change)
		}
		if rest := Diff(step.to, copied(t, lb), limits); len(rest) > 0 {
			t.Errorf("%s: left to do:\n%s", step.name, texts(rest))
		}
	}
	return out.String()
}

// wants is the desired state, with bundles for the certificates that have none yet.
func wants(t *testing.T, s *v1.Service) Desired {
	t.Helper()
	asked, problems := settings.Parse(s)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	in := Input{Identity: NewIdentity("", "prod", s), Service: s, Settings: asked, Targets: targets("n1", "n2"), MaxMembers: 100, DefaultPlan: "development",
		Networks: PlanNetworks(asked, "03b5e42a-339e-4466-999a-03021a0219e1"), Fingerprints: map[string]string{}}
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			in.Fingerprints[certificate.Secret] = "f1f2f3f4f5f6f7f8"
		}
	}
	d := DesiredState(in)
	for i := range d.Frontends {
		for j := range d.Frontends[i].TLS {
			if config := &d.Frontends[i].TLS[j]; config.BundleID == "" {
				config.BundleID = "0a-made-for-" + config.Name
			}
		}
	}
	return d
}
