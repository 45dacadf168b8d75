package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// choices are decisions that come out of a fuzzer's bytes, or of chance.
type choices struct {
	bytes []byte
}

func (c *choices) next(n int) int {
	if len(c.bytes) == 0 {
		return 0
	}
	first := c.bytes[0]
	c.bytes = c.bytes[1:]
	return int(first) % n
}

func (c *choices) one(of ...string) string { return of[c.next(len(of))] }

// rules for the generator: kinds of both modes, with and without what the API fills in.
var someRules = []string{
	`{"name":"a","priority":%d,"matchers":[{"type":"path","match_path":{"method":"exact","value":"/x"}},{"type":"src_ip","match_src_ip":{"value":"203.0.113.7"}}],"actions":[{"type":"tcp_reject","action_tcp_reject":{}}]}`,
	`{"name":"b","priority":%d,"matchers":[],"actions":[{"type":"http_redirect","action_http_redirect":{"location":"https://example.com"}}]}`,
	`{"name":"b","priority":%d,"matchers":[],"actions":[{"type":"http_redirect","action_http_redirect":{"location":"https://example.com","status":308}}]}`,
	`{"name":"c","priority":%d,"matching_condition":"or","matchers":[{"type":"src_port","match_src_port":{"method":"less","value":0}},{"type":"num_members_up","inverse":true,"match_num_members_up":{"method":"equal","value":0,"backend":"%s"}}],"actions":[{"type":"use_backend","action_use_backend":{"backend":"%[2]s"}}]}`,
}

// service makes up a Service: some ports, some annotations, some JSON.
func (c *choices) service() *v1.Service {
	pool := []string{"http 80 30080", "https 443 30443", "ssh 22 30022", "http 443 30443", "https 80 30081", " 8080 30800"}
	var ports []string
	seen := map[string]bool{}
	for range 1 + c.next(3) {
		port := pool[c.next(len(pool))]
		name, number, _ := strings.Cut(port, " ")
		number, _, _ = strings.Cut(number, " ")
		if !seen[name] && !seen[number] {
			ports = append(ports, port)
			seen[name], seen[number] = true, true
		}
	}
	s := example.Service(ports...)
	for i := range s.Spec.Ports {
		if strings.HasPrefix(ports[i], " ") {
			s.Spec.Ports[i].Name, s.Spec.Ports[i].Port, s.Spec.Ports[i].NodePort = "", 8080, 30800
		}
	}
	s.Annotations = map[string]string{}
	if c.next(4) == 0 {
		s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, int32(32000+c.next(2))
	}
	if c.next(4) == 0 {
		s.Spec.LoadBalancerSourceRanges = []string{c.one("10.0.0.0/8", "192.0.2.0/24"), c.one("192.0.3.0/24", "2001:db8::/32")}
	}
	for _, setting := range settings.Table {
		if c.next(8) == 0 {
			value := setting.Example
			if _, rest, perPort := strings.Cut(value, "="); perPort && setting.PerPort && !strings.HasPrefix(value, "SameSite") {
				value, _, _ = strings.Cut(rest, ";")
			}
			s.Annotations[settings.AnnotationPrefix+setting.Name] = value
		}
	}
	if c.next(3) == 0 {
		s.Annotations[settings.AnnotationConfig] = c.config(s)
	}
	return s
}

func (c *choices) config(s *v1.Service) string {
	port := settings.PortName(s.Spec.Ports[c.next(len(s.Spec.Ports))])
	rules := []string{}
	for i := range c.next(3) {
		rule := someRules[(c.next(len(someRules))+i*2)%len(someRules)]
		if strings.Count(rule, "%") > 1 {
			rule = fmt.Sprintf(rule, c.next(100), port)
		} else {
			rule = fmt.Sprintf(rule, c.next(100))
		}
		rules = append(rules, rule)
	}
	extra := ""
	if c.next(3) == 0 {
		extra = `,{"name":"more","mode":"tcp","port":2222,"default_backend":"` + c.one(port, "vm") + `"}`
	}
	return fmt.Sprintf(`{"plan":%q,"name":%q,"frontends":[{"name":%q,"properties":{"timeout_client":%d},"rules":[%s]}%s],
		"backends":[{"name":%[3]q,"properties":{"timeout_server":%[4]d,"outbound_proxy_protocol":%[7]q},"resolver":%[8]q},
			{"name":"vm","members":[{"name":"vm","ip":"10.0.0.1","port":22}]}],
		"resolvers":[{"name":"dns","nameservers":["10.0.0.%[9]d"]}],"labels":[{"key":"env","value":%[10]q}]}`,
		c.one("", "production-small"), c.one("", "shop"), port, 1+c.next(9), strings.Join(rules, ","), extra, c.one("", "v1", "v2"),
		c.one("", "dns"), 1+c.next(3), c.one("x", "y"))
}

// desire is what a made-up Service wants; nil if it is refused, which is as good.
func (c *choices) desire(t testing.TB) *Desired {
	s := c.service()
	asked, problems := settings.Parse(s)
	if len(problems)+len(settings.Problems(s)) > 0 {
		return nil
	}
	names := []string{"a", "b", "c", "d"}[:c.next(5)]
	in := Input{Identity: NewIdentity("", "prod", s), Service: s, Settings: asked, Targets: targets(names...), MaxMembers: 3,
		DefaultPlan: "development", Networks: networksOfTests, Fingerprints: map[string]string{}}
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			in.Fingerprints[certificate.Secret] = c.one("f1f2f3f4f5f6f7f8", "e1e2e3e4e5e6e7e8")
		}
	}
	d := DesiredState(in)
	for i := range d.Frontends {
		for j := range d.Frontends[i].TLS {
			if config := &d.Frontends[i].TLS[j]; config.BundleID == "" {
				name, _, _ := strings.Cut(config.Name, "-")
				config.BundleID = "bundle-of-" + name
			}
		}
	}
	return &d
}

// foreignComponents are what Terraform or a person puts on a load balancer.
func foreignComponents(lb *cloud.LoadBalancer) {
	lb.Backends = append(lb.Backends, cloud.Backend{Name: "tf", Members: []cloud.Member{}, Properties: cloud.Properties{"timeout_server": 77}})
	lb.Frontends = append(lb.Frontends, cloud.Frontend{Name: "tf", Mode: "tcp", Port: 9000, DefaultBackend: "tf",
		Properties: cloud.Properties{"timeout_client": 77}, Rules: []cloud.Rule{{Name: "tf", Priority: 1, Matchers: []json.RawMessage{},
			Actions: []json.RawMessage{json.RawMessage(`{"type":"tcp_reject","action_tcp_reject":{}}`)}}}})
	lb.Labels["owner"] = "payments"
	lb.Addresses = append(lb.Addresses, cloud.FloatingAddress{Address: "94.237.9.9", Network: networkPublic})
	for i := range lb.Frontends {
		if lb.Frontends[i].Name == "ssh" {
			lb.Frontends[i].Rules = append(lb.Frontends[i].Rules, cloud.Rule{Name: "mine", Priority: 2, Matchers: []json.RawMessage{},
				Actions: []json.RawMessage{json.RawMessage(`{"type":"tcp_reject","action_tcp_reject":{}}`)}})
		}
	}
}

// FuzzDiff: whatever a Service wants one day and another the next, whoever put things beside, and wherever the program dies on the way:
// applying the difference makes the load balancer as wanted, what is not the Service's stays, nothing of it is left over, and
// then there is no difference.
func FuzzDiff(f *testing.F) {
	chance := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		seed := make([]byte, 250)
		for i := range seed {
			seed[i] = byte(chance.UintN(256))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &choices{bytes: data}
		from := c.desire(t)
		if from == nil {
			return
		}
		lb := made(t, *from)
		foreignComponents(lb)
		limits := SessionLimits{Fresh: 1000}
		for range 3 {
			to := c.desire(t)
			if to == nil {
				continue
			}
			if foreign := Foreign(*to, lb); len(foreign) > 0 {
				t.Fatalf("taken for others': %v", foreign)
			}
			changes := Diff(*to, copied(t, lb), limits)
			for _, change := range changes[:min(c.next(20), len(changes))] {
				carryOut(t, lb, change)
			}
			for _, change := range Diff(*to, copied(t, lb), limits) {
				carryOut(t, lb, change)
			}
			if rest := Diff(*to, copied(t, lb), limits); len(rest) > 0 {
				t.Fatalf("left to do:\n%s", texts(rest))
			}
			isAsWanted(t, *to, copied(t, lb))
		}
	})
}

// isAsWanted compares without the help of Diff.
func isAsWanted(t testing.TB, want Desired, lb *cloud.LoadBalancer) {
	t.Helper()
	frontends, backends := map[string]bool{"tf": true}, map[string]bool{"tf": true}
	for _, f := range want.Frontends {
		frontends[f.Name] = true
		have := frontendOf(lb, f.Name)
		if have == nil || have.Port != f.Port || have.DefaultBackend != f.Backend || f.Mode != "" && have.Mode != f.Mode {
			t.Fatalf("frontend %s is %+v, want %+v", f.Name, have, f)
		}
		propertiesAre(t, f.Asked, have.Properties)
		rules := map[string]bool{"mine": true}
		for _, rule := range f.Rules {
			rules[rule.Name] = true
			i := slices.IndexFunc(have.Rules, func(r cloud.Rule) bool { return r.Name == rule.Name })
			if i < 0 {
				t.Fatalf("frontend %s lacks rule %s", f.Name, rule.Name)
			}
			if diff := cmp.Diff(plainRule(normalRule(rule)), plainRule(have.Rules[i])); diff != "" {
				t.Fatalf("rule %s: %s", rule.Name, diff)
			}
		}
		for _, rule := range have.Rules {
			if !rules[rule.Name] {
				t.Fatalf("frontend %s still has rule %s", f.Name, rule.Name)
			}
		}
		tlsIs(t, f.TLS, have.TLSConfigs)
	}
	for _, b := range want.Backends {
		backends[b.Name] = true
		have := backendOfModel(lb, b.Name)
		if have == nil || b.Resolver != have.Resolver {
			t.Fatalf("backend %s is %+v, want %+v", b.Name, have, b)
		}
		propertiesAre(t, b.Asked, have.Properties)
		tlsIs(t, b.TLS, have.TLSConfigs)
		var names, wanted []string
		for _, member := range have.Members {
			names = append(names, member.Name)
			if b.Members == nil && member.Port != b.NodePort {
				t.Fatalf("member %+v has not port %d", member, b.NodePort)
			}
		}
		for _, target := range b.Targets {
			wanted = append(wanted, target.Name)
		}
		if b.Members == nil && len(wanted) > 0 && !slices.Equal(slices.Sorted(slices.Values(names)), wanted) {
			t.Fatalf("members %v, want %v", names, wanted)
		}
	}
	for _, frontend := range lb.Frontends {
		if !frontends[frontend.Name] {
			t.Fatalf("frontend %s is left over", frontend.Name)
		}
	}
	for _, backend := range lb.Backends {
		if !backends[backend.Name] {
			t.Fatalf("backend %s is left over", backend.Name)
		}
	}
	for key, value := range want.MoreLabels {
		if lb.Labels[key] != value {
			t.Fatalf("label %s=%s, want %s", key, lb.Labels[key], value)
		}
	}
	othersAre(t, want, lb)
}

// othersAre checks that what is not the Service's is as it was.
func othersAre(t testing.TB, want Desired, lb *cloud.LoadBalancer) {
	t.Helper()
	tf, backend := frontendOf(lb, "tf"), backendOfModel(lb, "tf")
	if tf == nil || len(tf.Rules) != 1 || fmt.Sprint(tf.Properties) != "map[timeout_client:77]" || backend == nil ||
		fmt.Sprint(backend.Properties) != "map[timeout_server:77]" || lb.Labels["owner"] != "payments" {
		t.Fatalf("others' components: %+v %+v %v", tf, backend, lb.Labels)
	}
	addresses := map[string]bool{"94.237.9.9": true}
	for _, address := range want.Addresses {
		addresses[address.Address] = true
	}
	for _, address := range lb.Addresses {
		delete(addresses, address.Address)
	}
	if len(addresses) > 0 || len(lb.Addresses) != 1+len(want.Addresses) {
		t.Fatalf("addresses %v, want 94.237.9.9 and %v", lb.Addresses, want.Addresses)
	}
}

func propertiesAre(t testing.TB, want, have cloud.Properties) {
	t.Helper()
	for name, value := range want {
		if !covered(value, decodedValue(have[name])) && (value != "" && value != false || have[name] != nil) {
			t.Fatalf("property %s is %v, want %v", name, have[name], value)
		}
	}
}

func decodedValue(value any) any { return asJSON(value) }

func tlsIs(t testing.TB, want, have []cloud.TLSConfig) {
	t.Helper()
	list := func(all []cloud.TLSConfig) []string {
		names := map[string]bool{}
		for _, config := range all {
			names[config.Name+" "+config.BundleID] = true
		}
		return slices.Sorted(maps.Keys(names))
	}
	if diff := cmp.Diff(list(want), list(have)); diff != "" {
		t.Fatalf("certificates: %s", diff)
	}
}

// plainRule is a rule with its matchers in one order.
func plainRule(r cloud.Rule) any {
	sorted := slices.Clone(r.Matchers)
	slices.SortFunc(sorted, func(a, b json.RawMessage) int { return strings.Compare(string(a), string(b)) })
	r.Matchers = sorted
	return asJSON(r)
}
