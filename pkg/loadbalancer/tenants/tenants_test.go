package tenants

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

func parse(t *testing.T, text string) *Config {
	t.Helper()
	var file struct {
		Tenants Config `json:"tenants"`
	}
	if err := yaml.UnmarshalStrict([]byte("tenants:"+text), &file); err != nil {
		t.Fatal(err)
	}
	return &file.Tenants
}

func TestConfigWithMistakesIsRefusedWithAllOfThem(t *testing.T) {
	const text = `
  default: {plans: ["Production Small"], maxRules: -1, floatingIPs: [10.0.0.256, "::1"], retain: true}
  namespaces:
    - {}
    - names: [Team_A]
      selector: {}
      hosts: ["*"," www.example.com", "*.*.example"]
    - names: [b]
      selector: {matchExpressions: [{key: tier, operator: Like}]}
      networks: [not-a-uuid]
      certificateBundles: [0ADED5C1-c7a3-498a-b9c8-a871611c47a2]
      sharedLoadBalancers: [create/, "create/a*b", "create/a*", edge]
      memberNetworks: [10.0.0.1/8, 0.0.0.0/0]
      zones: [FI]
      maxLoadBalancers: 10001
`
	err := parse(t, text).Validate()
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	for _, want := range []string{
		`invalid default.plans[0] "Production Small": must be the name of a plan such as production-small, or * for any`,
		`invalid default.maxRules -1: must be 0 to 10000`,
		`invalid default.floatingIPs[0] "10.0.0.256": must be an IPv4 address`,
		`invalid default.floatingIPs[1] "::1": must be an IPv4 address`,
		`invalid namespaces[0]: must have names, a selector or both`,
		`invalid namespaces[1].names[0] "Team_A": must be the name of a namespace`,
		`invalid namespaces[1].selector {}: must have matchLabels or matchExpressions`,
		`invalid namespaces[1].hosts[1] " www.example.com"`,
		`invalid namespaces[1].hosts[2] "*.*.example"`,
		`invalid namespaces[2].selector: `,
		`invalid namespaces[2].networks[0] "not-a-uuid"`,
		`invalid namespaces[2].certificateBundles[0] "0ADED5C1-c7a3-498a-b9c8-a871611c47a2"`,
		`invalid namespaces[2].sharedLoadBalancers[0] "create/"`,
		`invalid namespaces[2].sharedLoadBalancers[1] "create/a*b"`,
		`invalid namespaces[2].memberNetworks[0] "10.0.0.1/8"`,
		`invalid namespaces[2].zones[0] "FI"`,
		`invalid namespaces[2].maxLoadBalancers 10001: must be 0 to 10000`,
	} {
		found := false
		for i, line := range got {
			if found = strings.HasPrefix(line, want); found {
				got = append(got[:i], got[i+1:]...)
				break
			}
		}
		if !found {
			t.Errorf("no error %q", want)
		}
	}
	if len(got) > 0 {
		t.Errorf("also: %q", got)
	}
}

// A slip in the policy must not be read as if it were not there.
func TestUnreadableConfigIsNoConfig(t *testing.T) {
	for text, want := range map[string]string{
		" {default: {maxLoadBalancer: 1}}":         `unknown field "maxLoadBalancer"`,
		" {namespaces: [{name: [a]}]}":             `unknown field "name"`,
		" {namespaces: [{names: [a], plan: [x]}]}": `unknown field "plan"`,
		" ":                                     "invalid tenants null: must be an object; set it to {} for the safe defaults",
		" null":                                 "invalid tenants null",
		" true":                                 "cannot unmarshal bool",
		" {default: {retain: \"yes\"}}":         "cannot unmarshal string",
		" {default: {plans: production-small}}": "cannot unmarshal string",
		" {default: {maxRules: 1.5}}":           "cannot unmarshal number 1.5",
		" {namespaces: {names: [a]}}":           "cannot unmarshal object",
		" {namespaces: [{selector: {matchLabel: {}}}]}": `unknown field "matchLabel"`,
	} {
		var file struct {
			Tenants Config `json:"tenants"`
		}
		err := yaml.Unmarshal([]byte("tenants:"+text), &file) // not strict: as where other keys are unknown
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("tenants:%s: error %v, want %q", text, err, want)
		}
	}
}

func TestLimitsOfANamespaceAreThoseOfTheFirstEntryThenDefaultThenSafe(t *testing.T) {
	config := parse(t, `
  default: {maxLoadBalancers: 5, plans: [production-small]}
  namespaces:
    - {names: [a], retain: true, plans: []}
    - {names: [a, b], selector: {matchLabels: {tier: gold}}, plans: ["*"], maxLoadBalancers: 50}
`)
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		namespace string
		labels    labels.Set
		plans     string
		most      int
		retain    bool
	}{
		{"a", labels.Set{"tier": "gold"}, "", 5, true},
		{"b", nil, "*", 50, false},
		{"c", labels.Set{"tier": "gold"}, "*", 50, false},
		{"c", labels.Set{"tier": "silver"}, "production-small", 5, false},
		{"", nil, "production-small", 5, false},
	} {
		got := config.For(test.namespace, test.labels)
		if plans := strings.Join(got.Plans, ","); plans != test.plans || *got.MaxLoadBalancers != test.most || *got.Retain != test.retain ||
			*got.MaxRules != 50 || got.Hosts != nil {
			t.Errorf("%s %v: plans %s, %d load balancers, retain %v", test.namespace, test.labels, plans, *got.MaxLoadBalancers, *got.Retain)
		}
	}
	if !config.NeedsLabels() || parse(t, " {}").NeedsLabels() {
		t.Error("NeedsLabels")
	}
}

func TestRequestBeyondLimitsIsOneSentenceEach(t *testing.T) {
	wide := Limits{
		Plans: []string{"production-small"}, FloatingIPs: []string{"94.237.0.1"}, Hosts: []string{"*.a.example"}, MemberNetworks: []string{"10.1.0.0/16"},
		SharedLoadBalancers: []string{"create/a-*"}, Retain: new(true),
	}.or(Safe())
	for _, test := range []struct {
		name    string
		limits  Limits
		request Request
		want    string
	}{
		{"nothing", Safe(), Request{}, ""},
		{"the default plan", Safe(), Request{Plan: "development"}, ""},
		{"a plan", wide, Request{Plan: "production-large"}, "asks for plan production-large, allowed is development, production-small;"},
		{"an allowed plan", wide, Request{Plan: "production-small"}, ""},
		{"a floating address", wide, Request{FloatingIPs: []string{"94.237.0.1", "94.237.0.2"}}, "floating IP address 94.237.0.2, allowed is 94.237.0.1;"},
		{"a host", wide, Request{Hosts: []string{"x.a.example", "a.example"}}, "a certificate for host a.example, allowed is *.a.example;"},
		{"any host", Safe(), Request{Hosts: []string{"x"}}, "allowed is none;"},
		{"a member", wide, Request{Members: []string{"10.1.2.3", "10.2.0.1"}}, "member 10.2.0.1, allowed is the nodes and 10.1.0.0/16;"},
		{"a mapped member", wide, Request{Members: []string{"::ffff:10.1.2.3"}}, ""},
		{"a resolved member", wide, Request{Members: []string{""}}, "member found by a resolver"},
		{"a name for a member", wide, Request{Members: []string{"example.com"}}, "member example.com"},
		{"a group", wide, Request{Group: "create/b"}, "shared load balancer create/b, allowed is create/a-*;"},
		{"a group of the prefix", wide, Request{Group: "create/a-b"}, ""},
		{"retain", Safe(), Request{Retain: true}, "annotation retain true, allowed is false;"},
		{"retain that is allowed", wide, Request{Retain: true}, ""},
		{"a name", Safe(), Request{Name: "edge"}, "load balancer name edge, allowed is the generated one;"},
		{"rules", Safe(), Request{Rules: 51}, "a number of rules of 51, allowed is 50 for each Service;"},
		{"resolvers", wide, Request{Resolvers: true}, "resolvers in the JSON configuration"},
	} {
		var got []string
		for _, violation := range test.limits.Check(test.request, "development") {
			got = append(got, violation.Message("team"))
		}
		if text := strings.Join(got, "\n"); (test.want == "") != (text == "") || !strings.Contains(text, test.want) || len(got) > 1 {
			t.Errorf("%s: %q, want %q", test.name, text, test.want)
		} else if text != "" && !strings.HasPrefix(text, "namespace team asks for ") {
			t.Errorf("%s: %q", test.name, text)
		}
	}
}
