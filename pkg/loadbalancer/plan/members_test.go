package plan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

func nodeWith(name string, internal ...string) *v1.Node {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	node.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}, {Type: v1.NodeExternalIP, Address: "94.237.0.1"}}
	for _, ip := range internal {
		node.Status.Addresses = append(node.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}
	return node
}

func targets(names ...string) []Target {
	var all []Target
	for i, name := range names {
		all = append(all, Target{Name: name, IP: netip.AddrFrom4([4]byte{172, 16, 0, byte(i + 1)})})
	}
	return all
}

func TestTargets(t *testing.T) {
	long := strings.Repeat("n", 70)
	got, unreachable := Targets([]*v1.Node{
		nodeWith("b", "172.16.0.2"), nodeWith("a", "fd00::1", "172.16.0.1", "172.16.1.1"), nodeWith("none"), nodeWith("six", "fd00::2"),
		nodeWith("n1.example.com", "172.16.0.3"), nodeWith("n1-example-com", "172.16.0.4"), nodeWith(long, "172.16.0.5"),
		nodeWith("broken", "no address"),
	})
	names := map[string]bool{}
	for _, target := range got {
		names[target.Name] = true
		if !settings.ValidName(target.Name) {
			t.Errorf("%q is not a member's name that the API takes", target.Name)
		}
	}
	if len(got) != 5 || len(names) != 5 {
		t.Errorf("targets: %v", got)
	}
	if got[0].Name != "a" || got[0].IP.String() != "172.16.0.1" || got[1].Name != "b" {
		t.Errorf("targets: %v", got)
	}
	if !slices.Equal(unreachable, []string{"broken", "none", "six"}) {
		t.Errorf("unreachable: %v", unreachable)
	}
}

func TestLimitIsStable(t *testing.T) {
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprintf("node-%02d", i))
	}
	all := targets(names...)
	before := Limit(all, 10, "service")
	if len(before) != 10 || !slices.IsSortedFunc(before, func(a, b Target) int { return strings.Compare(a.Name, b.Name) }) {
		t.Fatalf("limited to %v", before)
	}
	if other := Limit(all, 10, "another service"); slices.Equal(before, other) {
		t.Error("all Services lean on the same nodes")
	}
	without := slices.DeleteFunc(slices.Clone(all), func(t Target) bool { return t == before[4] })
	after, kept := Limit(without, 10, "service"), 0
	for _, target := range before {
		if slices.Contains(after, target) {
			kept++
		}
	}
	if kept != 9 {
		t.Errorf("%d of 10 members stay when one node goes, want 9", kept)
	}
	if got := Limit(all[:5], 10, "service"); len(got) != 5 {
		t.Errorf("limited to %d of 5", len(got))
	}
}

// Every node has its share of the Services, whatever the nodes are called: names that differ in a digit are the rule.
func TestLimitSpreadsServicesOverNodes(t *testing.T) {
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprintf("node-%d", i))
	}
	all, of := targets(names...), map[string]int{}
	for i := range 200 {
		for _, target := range Limit(all, 100, fmt.Sprintf("5f1c3a52-8d5b-4c0e-9a57-%012d", i)) {
			of[target.Name]++
		}
	}
	for _, name := range names { // 40 on average; chance takes hardly any node as far from that as 15 or 70
		if n := of[name]; n < 15 || n > 70 {
			t.Errorf("%s is a member for %d of 200 Services", name, n)
		}
	}
}

func TestMembers(t *testing.T) {
	have := []cloud.Member{
		{Name: "a", IP: "172.16.0.1", Port: 30080, Weight: 100, MaxSessions: 1000, Type: "static", Enabled: true},
		{Name: "b", IP: "172.16.0.2", Port: 30080, Weight: 50, MaxSessions: 7, Type: "static"},
	}
	for _, test := range []struct {
		name    string
		targets []Target
		port    int
		changed bool
		want    string
	}{
		{"unchanged", targets("a", "b"), 30080, false, "a:172.16.0.1:30080:100:1000:true b:172.16.0.2:30080:50:7:false"},
		{"a node more", targets("a", "b", "c"), 30080, true,
			"a:172.16.0.1:30080:100:1000:true b:172.16.0.2:30080:50:7:false c:172.16.0.3:30080:100:50000:true"},
		{"a node less", targets("a"), 30080, true, "a:172.16.0.1:30080:100:1000:true"},
		{"another node port", targets("a", "b"), 30081, true, "a:172.16.0.1:30081:100:1000:true b:172.16.0.2:30081:50:7:false"},
		{"another address", targets("b", "a"), 30080, true, "b:172.16.0.1:30080:50:7:false a:172.16.0.2:30080:100:1000:true"},
		{"no node left", nil, 30080, false, "a:172.16.0.1:30080:100:1000:true b:172.16.0.2:30080:50:7:false"},
	} {
		got, changed := backend(test.targets, test.port).MembersOf(have, SessionLimits{Fresh: 50000})
		var texts []string
		for _, m := range got {
			texts = append(texts, fmt.Sprintf("%s:%s:%d:%d:%d:%v", m.Name, m.IP, m.Port, m.Weight, m.MaxSessions, m.Enabled))
		}
		if text := strings.Join(texts, " "); text != test.want || changed != test.changed {
			t.Errorf("%s: changed %v, want %v\n got %s\nwant %s", test.name, changed, test.changed, text, test.want)
		}
	}
}

// What the API, or somebody else, keeps with a member must come back in the PATCH that replaces all of them.
func TestMembersKeepUnknownFields(t *testing.T) {
	var have []cloud.Member
	if err := json.Unmarshal([]byte(`[
		{"name":"a","ip":"172.16.0.1","port":30080,"weight":100,"max_sessions":1000,"type":"static","enabled":true,
		 "backup":true,"created_at":"2023-06-07T18:34:16.304532Z","updated_at":"2023-06-07T18:34:16.304532Z"},
		{"name":"dns","ip":"","port":0,"weight":10,"max_sessions":1,"type":"dynamic","enabled":true}]`), &have); err != nil {
		t.Fatal(err)
	}
	all, changed := backend(targets("a", "b"), 30080).MembersOf(have, SessionLimits{Fresh: 1000})
	text, err := json.Marshal(cloud.BackendPatch{Members: all})
	if err != nil || !changed {
		t.Fatal(err, changed)
	}
	for _, want := range []string{`"backup":true`, `"name":"dns"`, `"name":"b"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	if strings.Contains(string(text), "created_at") || strings.Contains(string(text), "properties") {
		t.Errorf("%s sends what only the API writes", text)
	}
	if _, changed := backend(targets("a"), 30080).MembersOf(have, SessionLimits{Fresh: 1000}); changed {
		t.Error("a dynamic member counts as a change")
	}
}
