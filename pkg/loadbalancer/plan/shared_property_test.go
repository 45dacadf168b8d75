package plan

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// sharedService makes up a Service that shares: some ports, with routes or without, some annotations.
func (c *choices) sharedService(name string) *v1.Service {
	s := c.service()
	s.ObjectMeta.Name, s.ObjectMeta.UID = name, types.UID("uid-"+name)
	annotations := map[string]string{settings.AnnotationPrefix + settings.SharedName: "create/g"}
	routes := []string{"", "", `[{host: a.example, path: /}]`, `[{path: /x}, {host: b.example, path: /y, pathType: Exact}]`,
		`[{host: "*.example", path: /x, rewrite: /}, {host: a.example, path: /x}]`, `[{path: /, port: http}]`}[c.next(6)]
	if routes != "" {
		annotations[settings.AnnotationPrefix+settings.RoutesName] = routes
	}
	for key, value := range s.Annotations {
		// What is refused anyway would only make most of the Services worth nothing.
		refused := []string{"config", "floating-ips", "labels", "maintenance-window", "retain", "deletion-protection", settings.SharedName, settings.RoutesName,
			settings.HubFrontendName, "zone", "private-networks"}
		if routes != "" {
			refused = append(refused, "mode", "visibility", "timeout-client", "inbound-proxy-protocol", "http2")
		}
		if !slices.Contains(refused, strings.TrimPrefix(key, settings.AnnotationPrefix)) {
			annotations[key] = value
		}
	}
	s.Annotations = annotations
	return s
}

// sharedDesire is what a made-up Service wants; ok is false if it is refused, which is as good.
func (c *choices) sharedDesire(name string, lb *cloud.LoadBalancer) (want SharedDesired, ok bool) {
	s := c.sharedService(name)
	asked, problems := settings.Parse(s)
	if len(problems)+len(settings.Problems(s)) > 0 {
		return want, false
	}
	in := Input{Identity: NewIdentity("", "cluster of "+name, s), Service: s, Settings: asked, Targets: targets("a", "b", "c")[:1+c.next(3)],
		MaxMembers: 2, DefaultPlan: "development", Networks: networksOfTests, Fingerprints: map[string]string{}}
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			in.Fingerprints[certificate.Secret] = c.one("f1f2f3f4f5f6f7f8", "e1e2e3e4e5e6e7e8")
		}
	}
	bundles := map[string]string{} // by name of the TLS configuration: one for a Secret, whatever is in it
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			config := TLSConfig(certificate, in.Identity, in.Fingerprints)
			secret, _, _ := strings.Cut(config.Name, "-")
			bundles[in.Identity.SharedTLSName(config.Name)] = "bundle of " + secret
		}
	}
	want = SharedState(in, lb)
	fill := func(all []cloud.TLSConfig) {
		for i := range all {
			if all[i].BundleID == "" {
				all[i].BundleID = bundles[all[i].Name]
			}
		}
	}
	for i := range want.Frontends {
		fill(want.Frontends[i].TLS)
	}
	for i := range want.Hubs {
		fill(want.Hubs[i].TLS)
	}
	return want, true
}

// partsOf is what on a load balancer has an owner for whom the test holds, as JSON: backends, frontends, rules and certificates.
func partsOf(t *testing.T, lb *cloud.LoadBalancer, held func(key string) bool) []string {
	t.Helper()
	var all []string
	add := func(key string, component any) {
		if held(key) {
			text, err := json.Marshal(component)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(text))
		}
	}
	for _, backend := range lb.Backends {
		if backend.Name != NoneBackend {
			add(OwnerKey(backend.Name), backend)
		}
	}
	for _, frontend := range lb.Frontends {
		own := !IsHub(frontend)
		if own {
			add(FrontendOwner(frontend), frontend)
		}
		for _, rule := range frontend.Rules {
			if key, _ := RuleOwner(rule); !own {
				add(key, rule)
			}
		}
		for _, config := range frontend.TLSConfigs {
			if !own {
				add(OwnerKey(config.Name), config)
			}
		}
	}
	slices.Sort(all)
	return all
}

// carryOutShared does what the API and sweep do, and holds that nothing of others is touched.
func carryOutShared(t *testing.T, lb *cloud.LoadBalancer, key Key, changes []Change) {
	t.Helper()
	others := func(owner string) bool { return !key.Is(owner) }
	before := partsOf(t, lb, others)
	for _, change := range changes {
		carryOut(t, lb, change)
	}
	lb.Frontends = slices.DeleteFunc(lb.Frontends, func(f cloud.Frontend) bool { return IsHub(f) && IsEmpty(f) })
	if diff := cmp.Diff(before, partsOf(t, lb, others)); diff != "" {
		t.Fatalf("what others have: %s\nby %s", diff, texts(changes))
	}
}

// FuzzShareDiff: whatever two Services want of a load balancer that they share, one after the other, and wherever a program dies on the
// way: applying the difference takes everything that is not another's, leaves what is, and then there is no difference. A Service that
// goes leaves nothing.
func FuzzShareDiff(f *testing.F) {
	chance := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		seed := make([]byte, 400)
		for i := range seed {
			seed[i] = byte(chance.UintN(256))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &choices{bytes: data}
		lb := &cloud.LoadBalancer{ID: "0a", State: "running", Networks: networksOfTests, Labels: cloud.Labels{}}
		foreignComponents(lb)
		limits := SessionLimits{Fresh: 1000, Reset: true}
		for len(c.bytes) > 0 {
			want, ok := c.sharedDesire(c.one("one", "two"), lb)
			if !ok {
				continue
			}
			if c.next(5) == 0 {
				want = SharedDesired{Key: want.Key} // it goes
			}
			changes := ShareDiff(want, copied(t, lb), limits).Changes
			carryOutShared(t, lb, want.Key, changes[:min(c.next(20), len(changes))])
			plan := ShareDiff(want, copied(t, lb), limits)
			carryOutShared(t, lb, want.Key, plan.Changes)
			if plan.Leaves && len(plan.Conflicts) > 0 { // as share does
				plan = ShareDiff(want, copied(t, lb), limits)
				carryOutShared(t, lb, want.Key, plan.Changes)
			}
			if rest := ShareDiff(want, copied(t, lb), limits); len(rest.Changes) > 0 {
				t.Fatalf("left to do:\n%s\nafter\n%s", texts(rest.Changes), texts(plan.Changes))
			}
			isShared(t, want, plan, copied(t, lb))
		}
	})
}

// isShared compares without the help of ShareDiff.
func isShared(t *testing.T, want SharedDesired, plan SharedPlan, lb *cloud.LoadBalancer) {
	t.Helper()
	claims, backends := 0, map[string]bool{}
	for _, f := range want.Frontends {
		have := frontendOf(lb, f.Name)
		if have == nil || !want.Key.Is(FrontendOwner(*have)) {
			continue
		}
		claims++
		backends[f.Backend] = true
		if have.DefaultBackend != f.Backend || have.Port != f.Port || have.Mode != f.create().Mode || len(have.Rules) != len(f.Rules) {
			t.Fatalf("frontend %s is %+v, want %+v", f.Name, have, f)
		}
		propertiesAre(t, f.Asked, have.Properties)
		tlsIs(t, f.TLS, have.TLSConfigs)
	}
	rules := 0
	for _, h := range want.Hubs {
		have := frontendOf(lb, h.name)
		for _, route := range h.routes {
			if have == nil || !slices.ContainsFunc(have.Rules, func(r cloud.Rule) bool {
				key, _ := RuleOwner(r)
				return want.Key.Is(key) && r.Name == route.rules[0].Name
			}) {
				continue
			}
			claims++
			backends[h.backend] = true
			rules += len(route.rules)
		}
	}
	if claims != plan.Claims || len(plan.Conflicts) == 0 && claims == 0 && len(want.Frontends)+len(want.Hubs) > 0 {
		t.Fatalf("%d claims, %d were to be had, conflicts %v", claims, plan.Claims, plan.Conflicts)
	}
	for _, b := range lb.Backends {
		if want.Key.Is(OwnerKey(b.Name)) && !backends[b.Name] {
			t.Fatalf("backend %s is left over", b.Name)
		}
		delete(backends, b.Name)
	}
	for _, f := range lb.Frontends {
		for _, rule := range f.Rules {
			if key, _ := RuleOwner(rule); want.Key.Is(key) && IsHub(f) {
				rules--
			}
		}
	}
	if len(backends) > 0 || rules != 0 {
		t.Fatalf("backends %v are not there, %d rules too few", backends, rules)
	}
	if len(want.Frontends)+len(want.Hubs) == 0 && HasParts(lb, want.Key) {
		t.Fatal("something is left of a Service that is gone")
	}
}
