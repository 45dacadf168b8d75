package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// networksOfTests are those of a load balancer made without any wish.
var networksOfTests = PlanNetworks(&settings.Settings{}, "03b5e42a-339e-4466-999a-03021a0219e1")

func desired(s *v1.Service, names ...string) Desired {
	asked, _ := settings.Parse(s)
	return DesiredState(Input{
		Identity: NewIdentity("", "prod", s), Service: s, Settings: asked, Targets: targets(names...), MaxMembers: 100, DefaultPlan: "development",
		Networks: networksOfTests,
	})
}

func placeOfTests() Placement { return Placement{Zone: "fi-hel1", Networks: networksOfTests} }

// portNames are the names of the frontends.
func portNames(d Desired) []string {
	var names []string
	for _, frontend := range d.Frontends {
		names = append(names, frontend.Name)
	}
	return names
}

// backend is a backend of a Service without wishes.
func backend(targets []Target, port int) Backend { return Backend{Targets: targets, NodePort: port} }

func texts(changes []Change) string {
	var lines []string
	for _, change := range changes {
		lines = append(lines, change.String())
	}
	return strings.Join(lines, "\n")
}

func components(names ...string) string {
	return (notes{}).with(names).labels(settings.LabelComponents)[settings.LabelComponents]
}

func TestDiff(t *testing.T) {
	web := example.Service("http 80 30080", "https 443 30443")
	local := example.Service("http 80 30080")
	local.Spec.ExternalTrafficPolicy, local.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 32000
	localNotes := components("http", "b/http/health_check_type", "b/http/health_check_url", "b/http/health_check_expected_status")

	for _, test := range []struct {
		name     string
		from, to Desired
		by       func(lb *cloud.LoadBalancer) // what somebody else did meanwhile
		want     string
	}{
		{name: "nothing", from: desired(web, "a", "b"), to: desired(web, "a", "b")},
		{
			name: "one node joins", from: desired(web, "a", "b"), to: desired(web, "a", "b", "c"),
			want: example.Lines("modify backend http (3 members)", "modify backend https (3 members)"),
		},
		{name: "all nodes go", from: desired(web, "a", "b"), to: desired(web)},
		{
			name: "a port more", from: desired(example.Service("http 80 30080"), "a"), to: desired(web, "a"),
			want: example.Lines("modify label ccm_components="+components("http", "https"),
				"create backend https (1 members)", "create frontend https :443"),
		},
		{
			name: "a port less", from: desired(web, "a"), to: desired(example.Service("http 80 30080"), "a"),
			want: example.Lines("delete frontend https", "delete backend https", "modify label ccm_components="+components("http")),
		},
		{
			name: "a port gets another name", from: desired(example.Service("http 80 30080"), "a"), to: desired(example.Service("web 80 30080"), "a"),
			want: example.Lines("modify label ccm_components="+components("http", "web"), "create backend web (1 members)",
				"delete frontend http", "create frontend web :80", "delete backend http", "modify label ccm_components="+components("web")),
		},
		{
			name: "another port number", from: desired(example.Service("http 80 30080"), "a"), to: desired(example.Service("http 8080 30080"), "a"),
			want: "modify frontend http :8080",
		},
		{
			name: "another node port", from: desired(example.Service("http 80 30080"), "a"), to: desired(example.Service("http 80 30081"), "a"),
			want: "modify backend http (1 members)",
		},
		{
			name: "two ports change places", from: desired(example.Service("x 80 30080", "y 81 30081"), "a"),
			to:   desired(example.Service("x 81 30080", "y 80 30081"), "a"),
			want: example.Lines("delete frontend x", "delete frontend y", "create frontend x :81", "create frontend y :80"),
		},
		{
			name: "to externalTrafficPolicy Local", from: desired(example.Service("http 80 30080"), "a"), to: desired(local, "a"),
			want: example.Lines("modify label ccm_external_traffic_policy=local", "modify label ccm_components="+localNotes,
				"modify backend http {health_check_expected_status:200 health_check_fall:2 health_check_interval:3 health_check_rise:2 "+
					"health_check_type:http health_check_url:http://:32000 timeout_server:60 timeout_tunnel:3600}"),
		},
		{
			name: "and back", from: desired(local, "a"), to: desired(example.Service("http 80 30080"), "a"),
			want: example.Lines("modify label ccm_external_traffic_policy=cluster",
				"modify backend http {health_check_expected_status:200 health_check_fall:2 health_check_interval:3 health_check_rise:2 "+
					"health_check_type:tcp health_check_url:/ timeout_server:60 timeout_tunnel:3600}", "modify label ccm_components="+components("http")),
		},
		{
			name: "Local, unchanged", from: desired(local, "a"), to: desired(local, "a"),
		},
		{
			name: "what others added and tuned", from: desired(web, "a"), to: desired(web, "a", "b"),
			by: func(lb *cloud.LoadBalancer) {
				lb.Labels["team"] = "payments"
				lb.Name, lb.Plan = "shop-front", "production-small"
				lb.Frontends = append(lb.Frontends, cloud.Frontend{Name: "terraform", Port: 9000, DefaultBackend: "terraform"})
				lb.Backends = append(lb.Backends, cloud.Backend{Name: "terraform"})
				lb.Frontends[0].Mode = "http"
				lb.Frontends[0].Properties["timeout_client"] = 10
				lb.Backends[0].Properties["health_check_type"] = "http"
				lb.Backends[0].Properties["health_check_url"] = "/ready"
				lb.Backends[0].Properties["health_check_on_down"] = "shutdown-sessions"
			},
			want: example.Lines("modify backend http (2 members)", "modify backend https (2 members)"),
		},
		{
			name: "made by UpCloud's own CCM", from: desired(web, "a"), to: desired(web, "a"),
			by: func(lb *cloud.LoadBalancer) {
				delete(lb.Labels, settings.LabelServiceUID)
				delete(lb.Labels, settings.LabelComponents)
			},
			want: example.Lines("create label ccm_service_uid=uid-1", "create label ccm_components="+components("http", "https")),
		},
		{
			name: "a stale backend that somebody's frontend uses", from: desired(web, "a"), to: desired(example.Service("http 80 30080"), "a"),
			by: func(lb *cloud.LoadBalancer) {
				lb.Frontends = append(lb.Frontends, cloud.Frontend{Name: "alt", Port: 8443, DefaultBackend: "https"})
			},
			want: example.Lines("delete frontend https", "modify label ccm_components="+components("http", "backend/https")),
		},
		{
			name: "a frontend was led elsewhere", from: desired(example.Service("http 80 30080"), "a"), to: desired(example.Service("http 80 30080"), "a"),
			by:   func(lb *cloud.LoadBalancer) { lb.Frontends[0].DefaultBackend = "x" },
			want: "modify frontend http -> http",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			lb := made(t, test.from)
			if test.by != nil {
				test.by(lb)
			}
			if diff := cmp.Diff(test.want, texts(Diff(test.to, lb, SessionLimits{Fresh: 1000}))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever two states a Service has, and wherever the program dies on the way: carrying on leads to the same end, and
// nothing of ours is left that nobody owns.
func TestDiffConverges(t *testing.T) {
	states := []Desired{
		desired(example.Service("http 80 30080"), "a"), desired(example.Service("http 80 30080", "https 443 30443"), "a", "b"),
		desired(example.Service("https 80 30081"), "b"), desired(example.Service("x 443 30443", "http 81 30080"), "a"),
	}
	for i, from := range states {
		for j, to := range states {
			for crash := 0; ; crash++ {
				lb := made(t, from)
				lb.Frontends = append(lb.Frontends, cloud.Frontend{Name: "foreign", Port: 9000, DefaultBackend: "foreign"})
				lb.Backends = append(lb.Backends, cloud.Backend{Name: "foreign"})
				changes := Diff(to, lb, SessionLimits{Fresh: 1000})
				for _, change := range changes[:min(crash, len(changes))] {
					carryOut(t, lb, change)
				}
				for _, change := range Diff(to, lb, SessionLimits{Fresh: 1000}) {
					carryOut(t, lb, change)
				}
				if rest := Diff(to, lb, SessionLimits{Fresh: 1000}); len(rest) > 0 {
					t.Fatalf("%d to %d, dead after %d: left to do:\n%s", i, j, crash, texts(rest))
				}
				want := append(portNames(to), "foreign")
				slices.Sort(want)
				if got := slices.Sorted(maps.Keys(backendsByName(lb))); !slices.Equal(got, want) {
					t.Fatalf("%d to %d, dead after %d: backends %v, want %v", i, j, crash, got, want)
				}
				if crash >= len(changes) {
					break
				}
			}
		}
	}
}

func TestManyPortsFitIntoLabels(t *testing.T) {
	var ports []string
	for i := range 100 {
		ports = append(ports, fmt.Sprintf("p%d %d %d", i, 1000+i, 30000+i))
	}
	lb := made(t, desired(example.Service(ports...), "a"))
	for key, value := range lb.Labels {
		if len(value) > 255 || len(key) > 32 {
			t.Errorf("label %s has %d characters", key, len(value))
		}
	}
	if rest := Diff(desired(example.Service(ports...), "a"), lb, SessionLimits{Fresh: 1000}); len(rest) > 0 {
		t.Errorf("left to do: %s", texts(rest))
	}
	changes := Diff(desired(example.Service(ports[:99]...), "a"), lb, SessionLimits{Fresh: 1000})
	if !strings.HasPrefix(texts(changes), "delete frontend p99\ndelete backend p99\nmodify label") {
		t.Errorf("one port less: %s", texts(changes))
	}
}

// Names of more components than one label holds: wherever the program dies, none is forgotten that was noted.
func TestNotesSurviveACrash(t *testing.T) {
	ports := []string{"http 80 30080"}
	for i := range notesPerLabel + 5 {
		ports = append(ports, fmt.Sprintf("p%d %d %d", i, 1000+i, 30000+i))
	}
	from, to := desired(example.Service(ports[:notesPerLabel]...), "a"), desired(example.Service(ports...), "a")
	for crash := 0; ; crash++ {
		lb := made(t, from)
		before := NotesOf(lb.Labels, settings.LabelComponents)
		changes := Diff(to, lb, SessionLimits{Fresh: 1000})
		for _, change := range changes[:min(crash, len(changes))] {
			carryOut(t, lb, change)
		}
		for digest := range before {
			if !NotesOf(lb.Labels, settings.LabelComponents)[digest] {
				t.Fatalf("dead after %d: %s is forgotten", crash, digest)
			}
		}
		if foreign := Foreign(to, lb); len(foreign) > 0 {
			t.Fatalf("dead after %d: taken for others': %v", crash, foreign)
		}
		if crash >= len(changes) {
			break
		}
	}
}

// A part of a rule that is no longer asked for, and that the API would fill in, must go wherever the program dies.
func TestARuleLosesAPartInSpiteOfACrash(t *testing.T) {
	want := func(status string) Desired {
		return desired(example.Annotated(example.Service("http 80 30080"), "config", `{"frontends":[{"mode":"http","rules":[{"name":"moved","priority":1,"matchers":[],
			"actions":[{"type":"http_redirect","action_http_redirect":{"location":"https://example.com"`+status+`}}]}]}]}`), "a")
	}
	for crash := range 5 {
		lb := made(t, want(`,"status":308`))
		changes := Diff(want(""), lb, SessionLimits{Fresh: 1000})
		for _, change := range changes[:min(crash, len(changes))] {
			carryOut(t, lb, change)
		}
		for _, change := range Diff(want(""), copied(t, lb), SessionLimits{Fresh: 1000}) {
			carryOut(t, lb, change)
		}
		if rule := string(lb.Frontends[0].Rules[0].Actions[0]); !strings.Contains(rule, `"status":302`) {
			t.Errorf("dead after %d: %s", crash, rule)
		}
	}
}
