package routes

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

var costOfPodCIDRs = boundedtest.Cost{Bytes: 4 << 20, BytesPerByte: 2000, CPU: 2 * time.Second, CPUPerByte: 500 * time.Microsecond}

// nodeOf is a Node of an age in seconds.
func nodeOf(name string, age int, cidrs ...string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(1_700_000_000-age), 0))},
		Spec: v1.NodeSpec{PodCIDRs: cidrs}}
}

// Nodes that all want one Pod CIDR, or each one within another's, do not keep the controller busy: each is judged once.
func TestManyNodesWithOnePodCIDRAreJudgedAtOnce(t *testing.T) {
	for name, cidr := range map[string]func(i int) string{
		"the same": func(int) string { return "10.244.0.0/24" },
		"nested":   func(i int) string { return fmt.Sprintf("fd00:10:244::/%d", 96-i) }, // the widest is the oldest
	} {
		var nodes []*v1.Node
		for i := range 32 {
			nodes = append(nodes, nodeOf(fmt.Sprint("n", i), i, cidr(i))) // the oldest last
		}
		costOfPodCIDRs.Within(t, 32*20, func() {
			pods := newPodCIDRs(nil, nodes)
			for i, node := range nodes {
				err := pods.check(node, mustPrefix(cidr(i)), nil)
				if oldest := i == len(nodes)-1; (err == nil) != oldest {
					t.Errorf("%s: Node %d: %v", name, i, err)
				}
			}
		})
	}
}

// What is no Pod CIDR that Kubernetes gives gets no route, and an event.
func TestPodCIDRsBeyondTheLimits(t *testing.T) {
	for _, test := range []struct {
		cidr string
		want string
	}{
		{"10.244.3.0/24" + strings.Repeat("0", maxPodCIDR), "too large: 77 bytes, at most 64"},
		{"::ffff:10.244.3.0/120", "written as IPv6"},
		{"10.244.3.0/33", "Pod CIDR"},
		{"10.244.3.0", "Pod CIDR"},
	} {
		r := newRig(t, simulator.Config{})
		c := r.newCluster(r.URL, func(*Config) {}).impatient()
		node := c.addNode("a", test.cidr)
		if err := c.create(node); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.cidr, err, test.want)
		}
		c.mustHaveEvent(ReasonPodCIDR, test.want)
		if got := r.leads(); got != "" {
			t.Errorf("%s: routes %s", test.cidr, got)
		}
	}
	many := nodeOf("n", 10, "10.244.1.0/24", "fd00::/64", "10.244.2.0/24")
	if err := newPodCIDRs(nil, []*v1.Node{many}).check(many, mustPrefix("10.244.1.0/24"), nil); err == nil || !strings.Contains(err.Error(), "too many Pod CIDRs: 3") {
		t.Errorf("three Pod CIDRs: %v", err)
	}
}

// FuzzPodCIDRs reads what Nodes say of their Pods' networks: at a cost in proportion to its size, and no two of the networks that may
// have a route overlap, or are outside what is allowed.
func FuzzPodCIDRs(f *testing.F) {
	for _, text := range []string{
		"10.244.1.0/24", "10.244.1.0/24 10.244.1.0/25", "10.244.1.0/24,fd00::/64 fd00::/63", "0.0.0.0/0 ::/0", "::ffff:10.244.1.0/120", "fe80::1%eth0/64",
		"10.244.1.0/024", "10.244.1.0/-1", "/", "10.244.1.0/24,10.244.1.0/24,10.244.1.0/24", "\x00/8",
	} {
		f.Add(text, uint8(1))
		f.Add(text+" ", uint8(100))
	}
	networks := []cloud.PrivateNetwork{{Name: "nodes", Prefixes: prefixes("172.16.0.0/22", "10.244.200.0/24")}}
	f.Fuzz(func(t *testing.T, part string, times uint8) {
		if len(part)*int(times) > 16<<10 {
			return
		}
		var nodes []*v1.Node
		for i, cidrs := range strings.Split(strings.Repeat(part, int(times)), " ") {
			nodes = append(nodes, nodeOf(fmt.Sprint("n", i), i%7, strings.Split(cidrs, ",")...))
		}
		if len(nodes) > 500 {
			return
		}
		var routed []podCIDROf
		allowed := prefixes("10.0.0.0/8", "fd00::/16")
		costOfPodCIDRs.Within(t, len(part)*int(times)+len(nodes)*50, func() {
			pods := newPodCIDRs(allowed, nodes)
			for _, node := range nodes {
				for _, prefix := range prefixesOf(node) {
					if err := pods.check(node, prefix, networks); err == nil {
						routed = append(routed, podCIDROf{node.Name, prefix})
					} else if len(err.Error()) > 1000 {
						t.Errorf("an error of %d bytes", len(err.Error()))
					}
				}
			}
		})
		for i, one := range routed {
			if !covers(allowed[0], one.prefix) && !covers(allowed[1], one.prefix) || one.prefix.Overlaps(networks[0].Prefixes[1]) {
				t.Fatalf("%s has a route", one.prefix)
			}
			for _, other := range routed[:i] {
				if one.node != other.node && one.prefix.Overlaps(other.prefix) {
					t.Fatalf("%v and %v have routes", one, other)
				}
			}
		}
	})
}
