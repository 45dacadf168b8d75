package plan

import (
	"encoding/json"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// FuzzRemote: whatever the API answers for a load balancer, nothing that thinks about it panics, and nothing that is not the Service's
// is changed because of it.
func FuzzRemote(f *testing.F) {
	own := example.Service("http 80 30080", "https 443 30443")
	sharing := example.Annotated(example.Service("http 80 30080"), settings.SharedName, "create/saas", settings.RoutesName, `[{host: web.example, path: /x, rewrite: /}]`)
	full := made(f, desired(own, "a", "b"))
	foreignComponents(full)
	text, err := json.Marshal(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	wants, _ := sharedWishes(sharing, full)
	for _, change := range ShareDiff(wants, full, SessionLimits{Fresh: 1000, Reset: true}).Changes {
		carryOut(f, full, change)
	}
	if text, err = json.Marshal(full); err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	for _, seed := range []string{
		`{}`, `null`, `{"frontends":[null],"backends":[null],"resolvers":[null],"networks":[null],"nodes":[null],"labels":null}`,
		`{"labels":[{"key":"ccm_components","value":"....x"},{"key":"ccm_service_uid","value":"uid-1"}]}`,
		`{"frontends":[{"name":"http","rules":[null,{"name":"r","matchers":[null,1,"x",{}],"actions":[null,[],{"type":"use_backend","action_use_backend":null}]}]}]}`,
		`{"frontends":[{"name":"ccm-80-going-","default_backend":"ccm-none"},{"name":"ccm-99999","default_backend":"k-00000000-000000000000-x"}]}`,
		`{"backends":[{"name":"http","members":[null,{"name":"a","ip":"::","type":"dynamic"}],"properties":{"health_check_url":7,"timeout_server":"x"}}]}`,
		`{"backends":[{"name":"k-00000000-000000000000-99999999999999999999-"}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		cost := boundedtest.Cost{Bytes: 16 << 20, BytesPerByte: 20_000, CPU: 5 * time.Second, CPUPerByte: 200 * time.Microsecond}
		cost.Within(t, len(answer), func() { readAnswer(t, own, sharing, answer) })
	})
}

// readAnswer thinks about an answer of the API for two Services.
func readAnswer(t *testing.T, own, sharing *v1.Service, answer string) {
	lb := &cloud.LoadBalancer{}
	if json.Unmarshal([]byte(answer), lb) != nil {
		return // the call fails
	}
	identity := NewIdentity("", "prod", own)
	identity.Owns(lb)
	for _, mode := range []settings.StatusMode{settings.StatusHostname, settings.StatusIP, settings.StatusBoth} {
		StatusOf(lb, mode)
	}
	want := desired(own, "a", "b")
	want.Identity = want.Identity.Of(lb)
	foreign := Foreign(want, lb)
	ForeignRules(want, lb)
	ours := want.Without(foreign)
	limits := SessionLimits{Fresh: 1000}
	_ = texts(JoinAside(ours, lb, Diff(ours, lb, limits)))
	_ = texts(BackendChanges(ours, lb, limits))

	shared, key := sharedWishes(sharing, lb)
	for _, change := range ShareDiff(shared, lb, limits).Changes {
		if change.DeleteBackend && !key.Is(OwnerKey(change.Name)) {
			t.Errorf("%s, which is somebody else's", change)
		}
		if change.DeleteRule {
			if frontend := frontendOf(lb, change.Owner.Frontend); frontend == nil || !hasOwnRule(frontend, change.Name, key) {
				t.Errorf("%s, which is somebody else's", change)
			}
		}
	}
}

func hasOwnRule(frontend *cloud.Frontend, name string, key Key) bool {
	for _, rule := range frontend.Rules {
		if owner, _ := RuleOwner(rule); rule.Name == name && key.Is(owner) {
			return true
		}
	}
	return false
}

// sharedWishes are what a Service wants of a load balancer that it shares.
func sharedWishes(s *v1.Service, lb *cloud.LoadBalancer) (want SharedDesired, key Key) {
	asked, _ := settings.Parse(s)
	identity := NewIdentity("", "prod", s)
	return SharedState(Input{Identity: identity, Service: s, Settings: asked, Targets: targets("a"), MaxMembers: 3, DefaultPlan: "development",
		Networks: networksOfTests}, lb), identity.Key()
}
